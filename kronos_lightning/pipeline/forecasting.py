"""Forecasts of the model and of its competitors by the configuration, with calibration."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

import lightning as L
import numpy as np

from kronos_lightning.config.schema import Evaluation
from kronos_lightning.config.validation import ConfigError
from kronos_lightning.data import CandleDataModule, Candles
from kronos_lightning.data.formats import FEATURES
from kronos_lightning.data.volatility_regression import VolatilityRegression
from kronos_lightning.evaluation.calibration import MIN_CALIBRATION_CUTOFFS, adaptive, fit_correction, fit_platt
from kronos_lightning.evaluation.rolling import Cutoffs, rolling_forecasts
from kronos_lightning.forecast import Forecaster, ForecastSet, Sampling
from kronos_lightning.forecast.calibration import FILE, Calibration, CalibrationError, SpreadShrinkage
from kronos_lightning.forecast.distribution import crps, probability_up
from kronos_lightning.runs.checkpoint_lookup import Sources, find_compared_forecaster, find_forecaster
from kronos_lightning.storage import Lock

from .baselines import baseline_paths

LARGEST = 4 * 2**30  # maximum bytes of one set of sample paths; scoring them needs several times this memory
STREAM = 1_000_003  # distance of the seeds of independent draws
WAY_OUT = "; or calibration.fit=false, for metrics as sampled"

log = logging.getLogger("evaluate")


@dataclass(frozen=True, kw_only=True)
class RangeForecasts:
    """Forecasts of one test range: of a whole evaluation, or of a fold.

    sources: origin of the measured networks.
    sampled: the model's forecasts as sampled, with the calibrated temperature and top-p.
    calibrated: the same forecasts, calibrated on validation. Without calibration this and the next two are None.
    adaptive: closes of the same paths with the adaptive correction, ``(N, S, h)``.
    validation: calibrated forecasts of the validation range.
    compared: closes of the other checkpoints' paths ``(N, S, h)``, by name.
    compared_sources: origin of the other checkpoints, by name.
    seeds: closes of the trainings with other seeds, calibrated like the model ``(N, S, h)``, by name.
    """

    sources: Sources
    sampled: ForecastSet
    calibrated: ForecastSet | None = None
    adaptive: np.ndarray | None = None
    validation: ForecastSet | None = None
    compared: dict[str, np.ndarray] = field(default_factory=dict)
    compared_sources: dict[str, Sources] = field(default_factory=dict)
    seeds: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def forecasts(self) -> ForecastSet:
        """Forecasts that are scored and traded: calibrated if there is a calibration."""
        return self.calibrated or self.sampled

    @property
    def calibration(self) -> Calibration | None:
        """Calibration fitted on validation, or None; in a walk-forward that of the last fold."""
        return self.forecasts.calibration


def forecast_range(
    settings: Evaluation, datamodule: CandleDataModule, candles: Candles, trainer: L.Trainer
) -> RangeForecasts:
    """Calibrate on the validation range and forecast the test range, on all devices of the trainer.

    Raises:
        ConfigError: the paths would take more than 4 GiB.
        RunError: a checkpoint is unusable.
        CalibrationError: there is too little to calibrate on.
    """
    forecaster, sources = find_forecaster(settings, datamodule)
    pools = {name: list(enumerate(name.split("+"))) for name in settings.compare}
    everyone = dict.fromkeys(member for pool in pools.values() for _, member in pool)
    members = [member for member in everyone if member not in settings.evaluation.baselines]
    others = {member: find_compared_forecaster(settings, member, sources, datamodule) for member in members}
    reseeded = {name: find_compared_forecaster(settings, name, sources, datamodule) for name in settings.seeds}
    run = _Runner(settings, datamodule, candles, trainer)
    validation = calibrated = adaptive = None
    if settings.calibration.fit:
        forecaster = run.best_sampling("the model", forecaster)
        seen = run.forecast("validation", run.cutoffs("val", settings.calibration.max_cutoffs), forecaster)
        calibration, scores = run.calibrate(seen, forecaster.sampling)
        validation = seen.calibrated(calibration)
        if trainer.is_global_zero and settings.tokenizer == "auto":  # only with the checkpoint's own tokenizer
            store_calibration(calibration, sources, settings.calibration.overwrite)
    cutoffs = run.cutoffs("test", settings.evaluation.max_cutoffs)
    sampled = run.forecast("test", cutoffs, forecaster)
    if validation is not None:
        calibrated, adaptive = sampled.calibrated(calibration), adaptively_corrected(sampled, calibration, scores)
    closes = {}
    for member, (other, _) in others.items():
        chosen = run.best_sampling(member, other) if settings.calibration.fit else other
        for place in sorted({i for pool in pools.values() for i, name in pool if name == member}):
            # The members of a pool draw independently; checkpoints that are compared one by one share random numbers.
            closes[place, member] = run.forecast(member, cutoffs, chosen, place).close_paths
    if named := [name for name in everyone if name not in members]:
        known = baseline_paths(settings, candles, sampled, named)
        closes |= {(i, name): known[name] for pool in pools.values() for i, name in pool if name in known}
    return RangeForecasts(
        sources=sources,
        sampled=sampled,
        calibrated=calibrated,
        adaptive=adaptive,
        validation=validation,
        compared={name: np.concatenate([closes[one] for one in pool], axis=1) for name, pool in pools.items()},
        compared_sources={member: found for member, (_, found) in (others | reseeded).items()},
        seeds={name: run.like_the_model(name, cutoffs, other) for name, (other, _) in reseeded.items()},
    )


def join(parts: Sequence[RangeForecasts]) -> RangeForecasts:
    """Concatenate the folds of a walk-forward; sources and calibration are those of the last fold."""
    if len(parts) == 1:
        return parts[0]
    last = parts[-1]
    calibrated = [part.calibrated for part in parts if part.calibrated is not None]
    adaptive = [part.adaptive for part in parts if part.adaptive is not None]
    return replace(
        last,
        sampled=ForecastSet.join([part.sampled for part in parts]),
        calibrated=ForecastSet.join(calibrated) if calibrated else None,
        adaptive=np.concatenate(adaptive) if adaptive else None,
        validation=parts[0].validation,  # the only validation range before every test candle
        compared={name: np.concatenate([part.compared[name] for part in parts]) for name in last.compared},
        seeds={name: np.concatenate([part.seeds[name] for part in parts]) for name in last.seeds},
    )


def fit_calibration(
    settings: Evaluation,
    symbol: str,
    validation: ForecastSet,
    sampling: Sampling,
    regression: VolatilityRegression | None = None,
) -> tuple[Calibration, np.ndarray]:
    """Fit a calibration to validation forecasts; return it and the conformity scores for the adaptive correction.

    Args:
        settings: the whole configuration.
        symbol: of the market.
        validation: the forecasts, with the deviations that `regression` expects.
        sampling: of the forecasts.
        regression: volatility regression that the spread may be shrunk towards; None = no shrinkage.
    """
    last, actual = validation.last_close, validation.actual_close
    found, scores = fit_correction(validation.close_paths, last, actual, validation.deviations)
    exponent = found.moments.exponent
    shrinkage = SpreadShrinkage(exponent=exponent, regression=regression) if regression and exponent else None
    metadata = {
        "symbol": symbol,
        "fitted_from": str(validation.cutoffs[0]),
        "fitted_to": str(validation.stamps[-1, -1]),
        "cutoffs": len(validation),
        "num_paths": validation.paths.shape[1],
        "lookback": settings.data.lookback,
        "top_k": sampling.top_k,
        "rotary_fine_token": settings.forecast.rotary_fine_token,
        "anchor": settings.forecast.anchor,
    }
    widened = Calibration(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        widening=tuple(tuple(step) for step in found.widening.tolist()),
        slope=1.0,
        intercept=0.0,
        interval=settings.data.interval,
        drift=found.moments.drift,
        spread=tuple(found.moments.spread.tolist()),
        shrinkage=shrinkage,
        metadata=metadata,
    )
    share = probability_up(widened.apply(validation.paths, last, validation.deviations), last)
    slope, intercept = fit_platt(share, actual > last[:, None])
    return replace(widened, slope=slope, intercept=intercept), scores


def adaptively_corrected(forecasts: ForecastSet, calibration: Calibration, scores: np.ndarray) -> np.ndarray:
    """Correct closes ``(N, S, h)`` of forecasts as sampled: drift and spread as calibrated, intervals adaptively.

    See `evaluation.calibration.adaptive`.
    """
    return adaptive(
        calibration.moved(forecasts.close_paths, forecasts.last_close, forecasts.deviations),
        forecasts.last_close,
        forecasts.actual_close,
        forecasts.cutoffs,
        forecasts.stamps,
        scores,
    )


def store_calibration(calibration: Calibration, sources: Sources, overwrite: bool = False) -> None:
    """Store a calibration next to its checkpoint.

    A checkpoint without a local folder, or trained on other markets only, is skipped with a message. So is one whose
    stored calibration was fitted on more cutoffs or paths, unless `overwrite` is True: other commands use it.
    """
    symbol = calibration.metadata["symbol"]
    if (directory := stored_with(sources, symbol, "The calibration")) is None:
        return
    try:
        with Lock(directory / FILE, wait=True):
            _replace(directory, calibration, overwrite)
    except OSError as error:
        log.warning("The calibration could not be stored with the checkpoint: %s", error)


def _replace(directory: Path, calibration: Calibration, overwrite: bool) -> None:
    """Store a calibration in a directory, unless the one there was fitted on more."""
    symbol, earlier = calibration.metadata["symbol"], Calibration.load(directory)
    if earlier is not None and not overwrite and any(fitted_on(earlier)[i] > fitted_on(calibration)[i] for i in (0, 1)):
        log.warning(
            "The calibration (%d cutoffs, %d paths) is stored in the report's folder only: %s was fitted on %d cutoffs "
            "and %d paths. To replace it, set calibration.overwrite=true",
            *(*fitted_on(calibration), directory / FILE, *fitted_on(earlier)),
        )
        return
    # Older files do not record the symbol.
    before = symbol if earlier is None else earlier.metadata.get("symbol", symbol)
    if before != symbol:
        log.warning("Replacing the stored calibration for %s (was for %s)", symbol, before)
    calibration.save(directory)
    log.info("Calibration: %s", directory / FILE)


def fitted_on(calibration: Calibration) -> tuple[int, int]:
    """Return the numbers of cutoffs and paths that a calibration was fitted on; 0 if an old file does not say."""
    return calibration.metadata.get("cutoffs", 0), calibration.metadata.get("num_paths", 0)


def stored_with(sources: Sources, symbol: str, what: str) -> Path | None:
    """Return the folder of a checkpoint in which an evaluation on `symbol` stores its results.

    None, with a message about `what`, if the checkpoint has no local folder or was trained on other markets only.
    """
    only = f"{what} is stored in the report's folder only: "
    if sources.directory is None:
        log.info("%sthis checkpoint has no local folder", only)
        return None
    if sources.info is not None and symbol not in sources.info["data"]["fingerprints"]:
        log.info("%sthis checkpoint was not trained on %s", only, symbol)
        return None
    return sources.directory


def overlap(forecasts: ForecastSet) -> int:
    """Return the number of neighbouring cutoffs that share target candles."""
    if len(forecasts) < 2:
        return 1
    candle = (
        np.diff(forecasts.stamps, axis=1).min()
        if forecasts.horizon > 1
        else forecasts.stamps[0, 0] - forecasts.cutoffs[0]
    )
    stride = float(np.diff(forecasts.cutoffs).min() / candle)
    return max(1, math.ceil(forecasts.horizon / stride))


class _Runner:
    """Rolling forecasts of one data set."""

    def __init__(self, settings: Evaluation, datamodule: CandleDataModule, candles: Candles, trainer: L.Trainer):
        self.settings, self.candles, self.trainer = settings, candles, trainer
        self.masks = datamodule.target_masks(candles.frame["timestamps"])
        options = settings.calibration
        self.regression = datamodule.volatility_regression if options.fit and options.shrinkage else None

    def cutoffs(self, split: str, at_most: int | None) -> Cutoffs:
        data = self.settings.data
        batch = self.settings.evaluation.cutoffs_per_batch
        return Cutoffs(
            self.candles,
            self.masks[split],
            lookback=data.lookback,
            horizon=data.horizon,
            max_cutoffs=at_most,
            batch_size=batch,
        )

    def forecast(self, what: str, cutoffs: Cutoffs, forecaster: Forecaster, stream: int = 0) -> ForecastSet:
        """Forecast from the cutoffs; other streams draw other random numbers."""
        settings, num_paths = self.settings, self.settings.forecast.num_paths
        log.info("Forecasts, %s: %d cutoffs", what, len(cutoffs.rows))
        size = len(cutoffs.rows) * num_paths * settings.data.horizon * len(FEATURES) * 4
        if size > LARGEST:
            raise ConfigError(
                f"evaluation.max_cutoffs: the paths of {len(cutoffs.rows)} cutoffs need {size / 2**30:.0f} GiB; "
                f"use fewer cutoffs or paths"
            )
        found = rolling_forecasts(cutoffs, forecaster, num_paths, settings.seed + stream * STREAM, self.trainer)
        if self.regression is None:
            return found
        return replace(found, deviations=cutoffs.deviations(self.regression, forecaster.max_context))

    def calibrate(self, validation: ForecastSet, sampling: Sampling) -> tuple[Calibration, np.ndarray]:
        """Fit a calibration to validation forecasts of this runner; see `fit_calibration`."""
        return fit_calibration(self.settings, self.candles.symbol, validation, sampling, self.regression)

    def like_the_model(self, what: str, cutoffs: Cutoffs, forecaster: Forecaster) -> np.ndarray:
        """Forecast with another training of the model, calibrated in the same way; return closes ``(N, S, h)``."""
        if not self.settings.calibration.fit:
            return self.forecast(what, cutoffs, forecaster).close_paths
        forecaster = self.best_sampling(what, forecaster)
        known = self.cutoffs("val", self.settings.calibration.max_cutoffs)
        seen = self.forecast(f"{what}, validation", known, forecaster)
        calibration, _ = self.calibrate(seen, forecaster.sampling)
        return self.forecast(what, cutoffs, forecaster).calibrated(calibration).close_paths

    def best_sampling(self, what: str, forecaster: Forecaster) -> Forecaster:
        """Return the forecaster with the temperature and top-p of lowest CRPS on validation.

        The forecaster's own temperature and top-p compete too. All use the same random numbers.

        Raises:
            CalibrationError: there is only one path, or too few validation cutoffs.
        """
        options, sampling = self.settings.calibration, forecaster.sampling
        few = self.cutoffs("val", min(options.search_cutoffs, options.max_cutoffs or options.search_cutoffs))
        known = len(self.cutoffs("val", options.max_cutoffs).rows)
        if sampling.greedy or self.settings.forecast.num_paths == 1:
            raise CalibrationError(
                "one path only (greedy sampling or forecast.num_paths=1): nothing to calibrate" + WAY_OUT
            )
        if known < MIN_CALIBRATION_CUTOFFS:
            raise CalibrationError(
                f"{known} validation cutoffs, {MIN_CALIBRATION_CUTOFFS} are needed to calibrate: lengthen "
                f"data.val_time_range, reduce data.folds or raise calibration.max_cutoffs" + WAY_OUT
            )
        temperatures = dict.fromkeys([sampling.temperature, *options.temperatures])
        choices = product(temperatures, dict.fromkeys([sampling.top_p, *options.top_ps]))
        tried = {sampling.model_copy(update={"temperature": t, "top_p": p}): np.inf for t, p in choices}
        for choice in tried if len(tried) > 1 else []:
            found = self.forecast(f"{what} at temperature {choice.temperature:g}, top_p {choice.top_p:g}", few,
                                  forecaster.with_sampling(choice))  # fmt: skip
            last = found.last_close
            tried[choice] = crps(found.close_paths / last[:, None, None], found.actual_close / last[:, None]).mean()
            log.info("CRPS on validation: %.4f %%", tried[choice] * 100)
        return forecaster.with_sampling(min(tried, key=tried.__getitem__))
