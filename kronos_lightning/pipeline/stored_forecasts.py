"""Forecasts that are read in place of being made: those of a live record's export, or of an earlier evaluation."""

from dataclasses import replace
from pathlib import Path

from kronos_lightning.config.schema import Evaluation
from kronos_lightning.config.validation import ConfigError
from kronos_lightning.data import CandleDataModule, Candles
from kronos_lightning.forecast import ForecastSet
from kronos_lightning.runs.checkpoint_lookup import find_forecaster

from .decision_settings import DecisionSettings, weights
from .forecasting import RangeForecasts


def stored_range(
    settings: Evaluation, directory: Path, datamodule: CandleDataModule, candles: Candles
) -> RangeForecasts:
    """Read the forecasts of a folder as those of the test range; they are scored as they are stored.

    Args:
        settings: the whole configuration.
        directory: folder with `forecasts.parquet`, `paths.npy` and, if it is known, the `decision.json` behind them.
        datamodule, candles: of the same market.

    Raises:
        ConfigError: there are none, or they are of another horizon, market or checkpoint.
        CandleError: a cutoff is not the time of a candle.
    """
    try:
        forecasts, made = ForecastSet.load(directory), DecisionSettings.load(directory)
    except (OSError, ValueError, KeyError) as error:
        told = " ".join(str(error).split())
        raise ConfigError(
            f"evaluation.forecasts: {directory} holds no forecasts of an evaluation or record: {told}"
        ) from None
    if forecasts.horizon != settings.data.horizon:
        raise ConfigError(f"evaluation.forecasts: of {forecasts.horizon} candles; set data.horizon={forecasts.horizon}")
    if made is not None and (made.symbol, made.interval) != (candles.symbol, settings.data.interval):
        raise ConfigError(
            f"evaluation.forecasts: of {made.symbol} {made.interval}, not of {candles.symbol} {settings.data.interval}"
        )
    candles.rows_at(forecasts.cutoffs)
    _, sources = find_forecaster(settings, datamodule)
    if made is not None and made.weights != weights(sources):
        raise ConfigError(
            f"evaluation.forecasts: made by other weights than those of {sources.predictor}; set predictor"
        )
    return RangeForecasts(sources=sources, sampled=replace(forecasts, calibration=None))
