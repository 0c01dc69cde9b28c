"""Forecasts as sample paths of whole candles."""

from .forecaster import Forecaster
from .sampling import Sampling

__all__ = ["Forecaster", "Sampling"]
