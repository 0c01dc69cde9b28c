"""A file of your own as a source of candles."""

from pathlib import Path

import pandas as pd

from kronos_lightning.data.formats import read_raw, require_file
from kronos_lightning.settings import Section


class CsvFile(Section):
    """Candles of one CSV or Parquet file, in any layout that `data.formats` understands."""

    csv_path: str

    @property
    def synthetic(self) -> bool:
        """Real candles, as far as anybody knows."""
        return False

    def path(self, symbol: str, interval: str) -> Path:
        """The file, whatever the symbol."""
        return Path(self.csv_path)

    def fetch(self, symbol: str, interval: str, start: str | None, end: str | None) -> pd.DataFrame:
        """Read the whole file; raises `CandleError` where there is none."""
        path = self.path(symbol, interval)
        require_file(path)
        return read_raw(path)
