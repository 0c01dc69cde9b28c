"""Model of an evaluated checkpoint, loaded with all that its decisions depend on."""

import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from kronos_lightning.backtest import Strategy
from kronos_lightning.config.schema import Forecasting
from kronos_lightning.config.sections import ModelSection
from kronos_lightning.forecast import Forecaster, best_device
from kronos_lightning.forecast.calibration import Calibration
from kronos_lightning.forecast.series import Series
from kronos_lightning.runs.checkpoint_lookup import Sources, load_forecaster
from kronos_lightning.runs.directory import best_model
from kronos_lightning.runs.networks import Inputs
from kronos_lightning.runs.provenance import trained_until
from kronos_lightning.settings import parse_interval

from .decision_settings import FILE, DecisionError, DecisionSettings
from .signals import decide_at


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelRecord:
    """Identity of a model and what its decisions depend on, except the weights.

    id: first digits of the hash over weights and `decision.json`.
    """

    id: str
    decision: DecisionSettings
    calibration: Calibration | None


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedModel(ModelRecord):
    """Forecaster and strategy of an evaluated checkpoint.

    plain: forecaster without the calibration's corrections.
    """

    plain: Forecaster
    calibrated: Forecaster
    strategy: Strategy
    sources: Sources
    loaded_at: datetime

    def forecaster(self, calibrated: bool) -> Forecaster:
        """Return the forecaster with or without the calibration's corrections; the sampling is the same."""
        return self.calibrated if calibrated else self.plain

    @property
    def trained_until(self) -> pd.Timestamp | None:
        """End of the candles that the predictor was trained on; None = unknown."""
        return trained_until(self.sources.info)


def load_model(checkpoint: Path, device: str = "auto", trusted_strategy: str | None = None) -> LoadedModel:
    """Load a checkpoint with its `decision.json`, check that they belong together, and warm the networks up.

    Args:
        checkpoint: folder of a run, or a checkpoint directory.
        device: auto, cpu, cuda, cuda:1, mps.
        trusted_strategy: class outside of this package that `decision.json` may name.

    Raises:
        DecisionError: the checkpoint was not evaluated, or its files do not belong together.
        CheckpointError: the weights cannot be loaded.
    """
    directory = best_model(checkpoint)
    if not directory.is_dir():
        raise DecisionError(f"checkpoint={checkpoint}: no such directory")
    decision = DecisionSettings.of(directory)
    calibration, strategy = decision.checked_calibration(directory), decision.build_strategy(trusted_strategy)
    forecaster, sources = load_forecaster(
        _settings(decision, directory), directory, str(directory), Inputs(clip=decision.clip, volume=decision.volume)
    )
    decision.check_weights(sources)
    forecaster.to(best_device(device))
    hashed = f"{decision.weights.predictor}{decision.weights.tokenizer}".encode() + (directory / FILE).read_bytes()
    model = LoadedModel(
        id=hashlib.sha256(hashed).hexdigest()[:12],
        decision=decision,
        calibration=calibration,
        plain=forecaster,
        calibrated=replace(forecaster, calibration=calibration) if calibration is not None else forecaster,
        strategy=strategy,
        sources=sources,
        loaded_at=datetime.now(UTC),
    )
    _warm_up(model)
    return model


def _settings(decision: DecisionSettings, directory: Path) -> Forecasting:
    """Return the settings that `load_forecaster` reads; a checkpoint folder leaves nothing else open."""
    size = ModelSection.model_construct(name=decision.model, max_context=decision.max_context, pretrained=None)
    return Forecasting.model_construct(
        model=size, forecast=decision.forecast, tokenizer="auto", predictor=str(directory)
    )


def _warm_up(model: LoadedModel) -> None:
    """Forecast made-up candles once, so that the first request is as fast as the others, and to see that it works."""
    decision, step = model.decision, parse_interval(model.decision.interval)
    rng = np.random.default_rng(0)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, decision.lookback)))
    values = np.stack([close, close * 1.01, close * 0.99, close, close, close * 100], axis=1).astype(np.float32)
    stamps = pd.date_range("2024-01-01", periods=decision.lookback + decision.horizon, freq=step, tz="UTC")
    series = Series(
        values=values,
        stamps=stamps[: decision.lookback],
        future=stamps[decision.lookback :],
        last_close=float(close[-1]),
    )
    for forecaster in {id(one): one for one in (model.plain, model.calibrated)}.values():
        found = decide_at(series, forecaster, model.strategy, 2, decision.seed)
        if not found.is_finite:
            raise DecisionError(f"{model.sources.directory}: the forecast of made-up candles holds values like NaN")
