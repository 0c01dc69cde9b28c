"""Forecasts as sample paths of whole candles."""

from .compat import KronosPredictor
from .distribution import Validity, expected_volatility, probability_touch, probability_up, quantiles, validity
from .forecast_set import ForecastSet
from .forecaster import Forecaster, best_device, series_generators
from .sampling import Sampling

__all__ = [
    "ForecastSet",
    "Forecaster",
    "KronosPredictor",
    "Sampling",
    "Validity",
    "best_device",
    "expected_volatility",
    "probability_touch",
    "probability_up",
    "quantiles",
    "series_generators",
    "validity",
]
