"""Candles as the compiled engine reads them. Shape letters: T candles, M finer candles."""

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


class Finer(NamedTuple):
    """Finer candles, to see what came first inside a candle.

    prices: of the finer candles, ``(M,)`` each.
    first: row of each candle's first finer one, −1 where finer ones are missing: ``(T,)``.
    count: finer candles in a candle; 0 = there are none, and the rest is empty.
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
    finer: Finer

    def __len__(self) -> int:
        return len(self.stamps)

    @classmethod
    def of(cls, candles: pd.DataFrame, interval: pd.Timedelta, finer: pd.DataFrame | None = None) -> "MarketData":
        """Take what the engine needs from candle frames.

        Args:
            candles: candle frame, T rows.
            interval: length of a candle.
            finer: candle frame of the same market in a shorter interval that fills candles exactly; other times than
                those of `candles` are allowed, and so are gaps. None = none.

        Raises:
            ValueError: no candles, or finer ones that do not fill a candle exactly.
        """
        if len(candles) == 0:
            raise ValueError("a backtest needs candles, and there are none")
        stamps = pd.DatetimeIndex(candles["timestamps"])
        return cls(stamps=stamps, interval=interval, prices=_prices(candles), finer=_finer(stamps, interval, finer))


def _prices(candles: pd.DataFrame) -> Prices:
    # Copies, because the engine would be compiled once more for each memory layout and for read-only arrays.
    return Prices(*(np.array(candles[name], dtype=np.float64) for name in Prices._fields))


def _finer(stamps: pd.DatetimeIndex, interval: pd.Timedelta, finer: pd.DataFrame | None) -> Finer:
    if finer is None or len(finer) < 2:
        return Finer(Prices(*(np.empty(0) for _ in Prices._fields)), np.empty(0, dtype=np.int64), 0)
    times = pd.DatetimeIndex(finer["timestamps"])
    step = pd.Timedelta(np.diff(times).min())
    count, rest = divmod(interval, step)
    if rest or count < 2:
        raise ValueError(f"finer candles of {step} do not fill candles of {interval} exactly")
    first, end = times.searchsorted(stamps), times.searchsorted(stamps + interval)
    return Finer(_prices(finer), np.where(end - first == count, first, -1).astype(np.int64), int(count))
