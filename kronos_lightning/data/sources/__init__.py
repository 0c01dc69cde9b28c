"""Candle sources: Binance, files, and a synthetic generator."""

from .base import CandleSource
from .binance import Binance, DownloadError
from .csv_file import CsvFile
from .synthetic import Synthetic, sample_candles

__all__ = ["Binance", "CandleSource", "CsvFile", "DownloadError", "Synthetic", "sample_candles"]
