"""Fine-tune, forecast and honestly measure Kronos, the foundation model for candlesticks, on crypto data."""

from .model import Kronos, KronosTokenizer

__all__ = ["Kronos", "KronosTokenizer"]
__version__ = "0.1.0"
