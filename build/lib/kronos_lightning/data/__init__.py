"""Candles: reading, checking, windows and loaders."""

from .candles import Candles, read_candles
from .datamodule import CandleDataModule
from .formats import CandleError
from .windows import CandleWindows, WindowBatch

__all__ = ["CandleDataModule", "CandleError", "CandleWindows", "Candles", "WindowBatch", "read_candles"]
