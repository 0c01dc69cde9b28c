"""Forecasts as sample paths of whole candles."""

from .forecast_set import ForecastSet
from .forecaster import Forecaster
from .sampling import Sampling

__all__ = ["ForecastSet", "Forecaster", "Sampling"]
