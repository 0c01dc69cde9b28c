"""Fine-tune, forecast and honestly measure Kronos, the foundation model for candlesticks, on crypto data."""

from .forecast import Forecaster, KronosPredictor
from .model import Kronos, KronosTokenizer

__all__ = ["Forecaster", "Kronos", "KronosPredictor", "KronosTokenizer"]
__version__ = "0.1.0"
