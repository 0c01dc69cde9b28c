"""Candles as the compiled engine reads them. Shape letters: T candles, M intrabar candles."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd


class Prices(NamedTuple):
    """Float64 ``(T,)`` each."""

    open: np.ndarray
    high: np.ndarray
    low: np.ndarray
    close: np.ndarray


class Intrabar(NamedTuple):
    """Intrabar candles, to see what came first inside a candle.

    prices: of the intrabar candles, ``(M,)`` each.
    first: row of each candle's first intrabar one, −1 where finer ones are missing: ``(T,)``.
    count: intrabar candles in a candle; 0 = there are none, and the rest is empty.
    """

    prices: Prices
    first: np.ndarray
    count: int


@dataclass(frozen=True, kw_only=True)
class MarketData:
    """What a backtest trades on.

    stamps: open times of the candles, ``(T,)``.
    interval: length of a candle.
    """

    stamps: pd.DatetimeIndex
    interval: pd.Timedelta
    prices: Prices
    intrabar: Intrabar

    def __len__(self) -> int:
        return len(self.stamps)

    @classmethod
    def of(cls, candles: pd.DataFrame, interval: pd.Timedelta, intrabar: pd.DataFrame | None = None) -> "MarketData":
        """Take what the engine needs from candle frames.

        Args:
            candles: candle frame, T rows.
            interval: length of a candle.
            intrabar: candle frame of the same market in a shorter interval that fills candles exactly; other times than
                those of `candles` are allowed, and so are gaps. None = none.

        Raises:
            ValueError: no candles, or finer ones that do not fill a candle exactly.
        """
        if len(candles) == 0:
            raise ValueError("a backtest needs candles, and there are none")
        stamps = pd.DatetimeIndex(candles["timestamps"])
        return cls(
            stamps=stamps, interval=interval, prices=_prices(candles), intrabar=_intrabar(stamps, interval, intrabar)
        )


def _prices(candles: pd.DataFrame) -> Prices:
    # Copies, because the engine would be compiled once more for each memory layout and for read-only arrays.
    return Prices(*(np.array(candles[name], dtype=np.float64) for name in Prices._fields))


def _intrabar(stamps: pd.DatetimeIndex, interval: pd.Timedelta, intrabar: pd.DataFrame | None) -> Intrabar:
    if intrabar is None or len(intrabar) < 2:
        return Intrabar(Prices(*(np.empty(0) for _ in Prices._fields)), np.empty(0, dtype=np.int64), 0)
    times = pd.DatetimeIndex(intrabar["timestamps"])
    step = pd.Timedelta(np.diff(times).min())
    count, rest = divmod(interval, step)
    if rest or count < 2:
        raise ValueError(f"intrabar candles of {step} do not fill candles of {interval} exactly")
    first, end = times.searchsorted(stamps), times.searchsorted(stamps + interval)
    return Intrabar(_prices(intrabar), np.where(end - first == count, first, -1).astype(np.int64), int(count))
