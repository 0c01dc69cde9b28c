"""Protocol of the sources of candles."""

from pathlib import Path
from typing import Protocol

import pandas as pd


class CandleSource(Protocol):
    """Where the candles of a symbol come from. An entry of `data.sources` names the class and its arguments.

    synthetic: whether the candles are generated; reports then say that they are no market.
    """

    @property
    def synthetic(self) -> bool:
        """Whether the candles are generated."""

    def path(self, symbol: str, interval: str) -> Path | None:
        """File that holds the candles, or will after `fetch`; None where they are kept in no file."""

    def fetch(self, symbol: str, interval: str, start: str | None, end: str | None) -> pd.DataFrame:
        """Get the candles, downloading them where they are missing.

        Args:
            symbol: name of the market, such as BTCUSDT.
            interval: length of a candle, such as 1h.
            start, end: first and last day or time (UTC, both included) that are needed; None = all there are. More
                may be returned.

        Returns:
            A row a candle, unchecked: `timestamps` (UTC), ``open high low close`` and, where known, ``volume amount``.
            Messages name rows by the frame's index.

        Raises:
            KronosError: there are no candles to be had.
        """
