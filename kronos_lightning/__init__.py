"""Fine-tune, forecast and honestly measure Kronos, the foundation model for candlesticks, on crypto data."""

from importlib import import_module
from typing import Any

__all__ = ["Forecaster", "Kronos", "KronosPredictor", "KronosTokenizer"]
__version__ = "0.1.0"

_HOMES = {"Forecaster": "forecast", "KronosPredictor": "forecast", "Kronos": "model", "KronosTokenizer": "model"}


def __getattr__(name: str) -> Any:  # torch takes seconds to import, and downloading candles does not need it
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__} has no attribute {name}")
