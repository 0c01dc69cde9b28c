"""Candles: download, diagnosis, reading, validation, windows and loaders."""

from importlib import import_module
from typing import Any

from kronos_lightning.data.candles import Candles, read_candles
from kronos_lightning.data.formats import CandleError

__all__ = ["CandleDataModule", "CandleError", "CandleWindows", "Candles", "WindowBatch", "read_candles"]

_HOMES = {"CandleDataModule": "datamodule", "CandleWindows": "windows", "WindowBatch": "windows"}


def __getattr__(name: str) -> Any:  # classes that need torch or Lightning are imported on first access
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__} has no attribute {name}")
