"""Candles from Binance: monthly archives, then daily archives, then the exchange's API for the rest."""

from .download import Downloaded, download, series_path
from .endpoints import Endpoints
from .http import DownloadError
from .source import Binance

__all__ = ["Binance", "DownloadError", "Downloaded", "Endpoints", "download", "series_path"]
