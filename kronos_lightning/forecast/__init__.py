"""Forecasts as sample paths of whole candles."""

from kronos_lightning.forecast.compat import KronosPredictor
from kronos_lightning.forecast.cutoffs import cutoff_name
from kronos_lightning.forecast.device import best_device
from kronos_lightning.forecast.distribution import (
    Validity,
    expected_volatility,
    probability_touch,
    probability_up,
    quantiles,
    validity,
)
from kronos_lightning.forecast.forecast_set import ForecastSet
from kronos_lightning.forecast.forecaster import Forecaster
from kronos_lightning.forecast.risk import TailRisk, drawdowns, tail_risk
from kronos_lightning.forecast.sampling import Sampling, series_generators

__all__ = [
    "ForecastSet",
    "Forecaster",
    "KronosPredictor",
    "Sampling",
    "TailRisk",
    "Validity",
    "best_device",
    "cutoff_name",
    "drawdowns",
    "expected_volatility",
    "probability_touch",
    "probability_up",
    "quantiles",
    "series_generators",
    "tail_risk",
    "validity",
]
