"""Candles from Binance: monthly archives, then daily ones, then the exchange's API for the rest."""

from .download import Downloaded, download, series_path
from .http import DownloadError, Endpoints

__all__ = ["DownloadError", "Downloaded", "Endpoints", "download", "series_path"]
