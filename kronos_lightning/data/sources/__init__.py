"""Candle sources: Binance, other exchanges, files, and a synthetic generator."""

from .base import CandleSource
from .binance import Binance, DownloadError
from .ccxt import Ccxt
from .csv_file import CsvFile
from .synthetic import Synthetic, synthetic_candles

__all__ = ["Binance", "CandleSource", "Ccxt", "CsvFile", "DownloadError", "Synthetic", "synthetic_candles"]
