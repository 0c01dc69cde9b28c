"""Candle source for Binance: files in a folder, downloaded if they are missing."""

import logging
from pathlib import Path

import pandas as pd

from kronos_lightning.data.formats import read_raw, require_file
from kronos_lightning.settings import Section

from .download import download, series_path
from .endpoints import Endpoints
from .http import DownloadError
from .intervals import check_series

log = logging.getLogger(__name__)


class Binance(Section):
    """Candles of ``SYMBOL_INTERVAL.csv`` in a folder, downloaded from Binance if the file does not exist.

    csv_dir: the folder.
    endpoints: hosts for downloads; None = never download.
    """

    csv_dir: str
    endpoints: Endpoints | None

    @property
    def synthetic(self) -> bool:
        """True if the candles are generated; always False, because candles from Binance are real."""
        return False

    def path(self, symbol: str, interval: str) -> Path:
        """Return the file of a symbol and interval.

        Raises:
            CandleError: Binance has no such symbol or interval.
        """
        check_series(symbol, interval)
        return series_path(self.csv_dir, symbol, interval)

    def fetch(self, symbol: str, interval: str, start: str | None, end: str | None) -> pd.DataFrame:
        """Read the file, and download it first if it does not exist.

        Raises:
            DownloadError, CandleError: the file does not exist and cannot be downloaded.
        """
        path = self.path(symbol, interval)
        if not path.is_file() and self.endpoints is not None:
            log.info("%s: no such file, downloading %s %s from Binance", path, symbol, interval)
            try:
                download(symbol, interval, path, self.endpoints, start, end)
            except DownloadError as error:
                if not path.is_file():
                    raise DownloadError(f"{error}. Or name your own candles: data.csv_path=FILE") from error
                log.warning("%s", error)
        require_file(path)
        return read_raw(path)
