"""Protocol of candle sources."""

from pathlib import Path
from typing import Protocol

import pandas as pd


class CandleSource(Protocol):
    """Source of a symbol's candles; an entry of `data.sources` names the class and its arguments.

    synthetic: True if the candles are generated; reports then say that they are not a real market.
    """

    @property
    def synthetic(self) -> bool:
        """True if the candles are generated."""

    def path(self, symbol: str, interval: str) -> Path | None:
        """Return the file that holds the candles, or will hold them after `fetch`; None if there is no file."""

    def fetch(self, symbol: str, interval: str, start: str | None, end: str | None) -> pd.DataFrame:
        """Get the candles, and download missing candles.

        Args:
            symbol: name of the market, such as BTCUSDT.
            interval: length of a candle, such as 1h.
            start, end: first and last required day or time (UTC, both included); None = all available candles. More
                candles may be returned.

        Returns:
            One row per candle, unchecked: `timestamps` (UTC), ``open high low close`` and, if known, ``volume
            amount``. Messages name rows by the frame's index.

        Raises:
            KronosError: no candles are available.
        """
