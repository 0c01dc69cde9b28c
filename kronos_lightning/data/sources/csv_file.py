"""Candle source for files of your own."""

from pathlib import Path

import pandas as pd

from kronos_lightning.data.formats import LayoutSection, read_raw, require_file


class CsvFile(LayoutSection):
    """Candles of one file, in any layout that `data.formats` supports."""

    csv_path: str

    @property
    def synthetic(self) -> bool:
        """True if the candles are generated; always False, because candles of a file are assumed to be real."""
        return False

    def path(self, symbol: str, interval: str) -> Path:
        """Return the file, for any symbol and interval."""
        return Path(self.csv_path)

    def fetch(self, symbol: str, interval: str, start: str | None, end: str | None) -> pd.DataFrame:
        """Read the whole file, for any arguments.

        Raises:
            CandleError: the file is missing or unreadable.
        """
        path = self.path(symbol, interval)
        require_file(path)
        return read_raw(path, self)
