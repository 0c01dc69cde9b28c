"""Market data in the form that the compiled engine reads. Shape letters: T candles, M intrabar candles."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from kronos_lightning.errors import KronosError


class MarketDataError(KronosError, ValueError):
    """Error for candles that a backtest cannot trade on; the message says what to do."""


class Prices(NamedTuple):
    """Prices of candles, float64 ``(T,)`` each."""

    open: np.ndarray
    high: np.ndarray
    low: np.ndarray
    close: np.ndarray


class Intrabar(NamedTuple):
    """Intrabar candles, which show the order of events inside a candle.

    prices: prices of the intrabar candles, ``(M,)`` each.
    first: row of each candle's first intrabar candle, −1 if any of its intrabar candles is missing: ``(T,)``.
    per_candle: number of intrabar candles per candle; 0 = no intrabar candles, and the arrays are empty.
    """

    prices: Prices
    first: np.ndarray
    per_candle: int


@dataclass(frozen=True, kw_only=True)
class MarketData:
    """Candles that a backtest trades on.

    stamps: open times of the candles, ``(T,)``.
    interval: length of a candle.
    prices: prices of the candles, ``(T,)`` each.
    intrabar: intrabar candles, possibly none.
    """

    stamps: pd.DatetimeIndex
    interval: pd.Timedelta
    prices: Prices
    intrabar: Intrabar

    def __len__(self) -> int:
        return len(self.stamps)

    @classmethod
    def of(cls, candles: pd.DataFrame, interval: pd.Timedelta, intrabar: pd.DataFrame | None = None) -> "MarketData":
        """Build the engine's market data from candle frames.

        Args:
            candles: candle frame, T rows.
            interval: length of a candle.
            intrabar: candle frame of the same market in a shorter interval that divides `interval` exactly. It may
                cover other times than `candles` and may have gaps. None = no intrabar candles.

        Raises:
            MarketDataError: there are no candles, or the intrabar candles do not fill a candle exactly.
        """
        if len(candles) == 0:
            raise MarketDataError("a backtest needs at least one candle")
        stamps = pd.DatetimeIndex(candles["timestamps"])
        return cls(
            stamps=stamps, interval=interval, prices=_prices(candles), intrabar=_intrabar(stamps, interval, intrabar)
        )


def _prices(candles: pd.DataFrame) -> Prices:
    # Copies, because the engine would be compiled again for each memory layout and for read-only arrays.
    return Prices(*(np.array(candles[name], dtype=np.float64) for name in Prices._fields))


def _intrabar(stamps: pd.DatetimeIndex, interval: pd.Timedelta, intrabar: pd.DataFrame | None) -> Intrabar:
    if intrabar is None or len(intrabar) < 2:
        return Intrabar(Prices(*(np.empty(0) for _ in Prices._fields)), np.empty(0, dtype=np.int64), 0)
    times = pd.DatetimeIndex(intrabar["timestamps"])
    step = pd.Timedelta(np.diff(times).min())
    count, rest = divmod(interval, step)
    if rest or count < 2:
        raise MarketDataError(
            f"intrabar candles of {step} do not fill candles of {interval} exactly; use a shorter interval that "
            "divides it (backtest.intrabar_csv)"
        )
    first, end = times.searchsorted(stamps), times.searchsorted(stamps + interval)
    return Intrabar(_prices(intrabar), np.where(end - first == count, first, -1).astype(np.int64), int(count))
