"""From the checked configuration to forecasts: the model's, calibrated, and those of all that it is compared with."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import lightning as L
import numpy as np

from .build import Sources, find_candidate, find_forecaster
from .data import CandleDataModule, Candles
from .evaluation.baselines import baseline_paths
from .evaluation.calibration import adaptive, conformity, fit_platt, fit_widening
from .evaluation.rolling import Cutoffs, rolling_forecasts
from .forecast import Forecaster, ForecastSet
from .forecast.calibration import FILE, Calibration, CalibrationError
from .forecast.distribution import crps, probability_up
from .forecast.sampling import Sampling
from .schema import Evaluation

log = logging.getLogger("evaluate")


@dataclass(frozen=True)
class Part:
    """Forecasts of one test range: a whole evaluation, or a fold of it.

    forecasts: of the model, as it samples them with the calibrated temperature and top-p.
    calibration: fitted on validation, or None; then the next five are None too.
    calibrated: `forecasts` with calibrated paths.
    up: calibrated P(up), ``(N, h)``.
    moving: the same corrected adaptively, closes ``(N, S, h)``.
    validation, validation_up: calibrated forecasts of the validation range.
    compared: closes of the other checkpoints' paths ``(N, S, h)``, by name, and where they came from.
    """

    sources: Sources
    forecasts: ForecastSet
    calibration: Calibration | None
    calibrated: ForecastSet | None
    up: np.ndarray | None
    moving: np.ndarray | None
    validation: ForecastSet | None
    validation_up: np.ndarray | None
    compared: dict[str, np.ndarray]
    compared_sources: dict[str, Sources]


def measure(settings: Evaluation, datamodule: CandleDataModule, candles: Candles, trainer: L.Trainer) -> Part:
    """Calibrate on the validation range, forecast the test range, on all devices of the trainer."""
    forecaster, sources = find_forecaster(settings, datamodule)
    run = _Runner(settings, datamodule, candles, trainer)
    calibration, calibrated, up, moving, validation, validation_up = [None] * 6
    if settings.calibration.fit:
        forecaster, sampled = run.best_sampling(forecaster)
        calibration, scores = fit_calibration(settings, sampled, forecaster.sampling)
        validation, validation_up = _calibrated(sampled, calibration)
        if trainer.is_global_zero:
            keep(calibration, sources)
    cutoffs = run.cutoffs("test", settings.evaluation.max_cutoffs)
    log.info("Test forecasts: %d cutoffs", len(cutoffs.rows))
    forecasts = run.forecast(cutoffs, forecaster)
    if calibration is not None:
        calibrated, up = _calibrated(forecasts, calibration)
        truth = forecasts.last_close, forecasts.actual_close, forecasts.cutoffs, forecasts.stamps
        moving = adaptive(forecasts.close_paths, *truth, scores)
    compared, compared_sources = {}, {}
    for name in settings.compare:
        pooled = []
        for member in name.split("+"):
            other, compared_sources[member] = find_candidate(settings, member, sources, datamodule)
            log.info("Test forecasts of %s", member)
            pooled.append(run.forecast(cutoffs, other).close_paths)
        compared[name] = np.concatenate(pooled, axis=1)
    fitted = calibration, calibrated, up, moving, validation, validation_up
    return Part(sources, forecasts, *fitted, compared, compared_sources)


def join(parts: Sequence[Part]) -> Part:
    """The parts of a walk-forward after one another. Sources and calibration are those of the last fold."""
    if len(parts) == 1:
        return parts[0]
    last, fitted = parts[-1], parts[-1].calibration is not None
    return replace(
        last,
        forecasts=ForecastSet.join([part.forecasts for part in parts]),
        calibrated=ForecastSet.join([part.calibrated for part in parts]) if fitted else None,
        up=np.concatenate([part.up for part in parts]) if fitted else None,
        moving=np.concatenate([part.moving for part in parts]) if fitted else None,
        validation=parts[0].validation,  # the only one that is earlier than every test candle
        validation_up=parts[0].validation_up,
        compared={name: np.concatenate([part.compared[name] for part in parts]) for name in last.compared},
    )


def fit_calibration(
    settings: Evaluation, validation: ForecastSet, sampling: Sampling
) -> tuple[Calibration, np.ndarray]:
    """From validation forecasts; also their conformity scores, which the adaptive correction starts from."""
    close, last, actual = validation.close_paths, validation.last_close, validation.actual_close
    scores = conformity(close, last, actual)
    widening = tuple(tuple(step) for step in fit_widening(scores).tolist())
    about = {
        "fitted_from": str(validation.cutoffs[0]),
        "fitted_to": str(validation.stamps[-1, -1]),
        "cutoffs": len(validation),
        "num_paths": close.shape[1],
    }
    widened = Calibration(sampling.temperature, sampling.top_p, widening, 1.0, 0.0, settings.data.interval, about)
    share = probability_up(widened.apply(validation.paths, last), last)
    slope, intercept = fit_platt(share, actual > last[:, None])
    return replace(widened, slope=slope, intercept=intercept), scores


def keep(calibration: Calibration, sources: Sources) -> None:
    """Store a calibration beside the checkpoint it belongs to, if that is a folder here."""
    if sources.directory is None:
        log.info("The calibration is kept in the report's folder alone: this checkpoint has no folder here")
        return
    try:
        calibration.save(sources.directory)
    except OSError as error:
        log.warning("The calibration could not be stored beside the checkpoint: %s", error)
    else:
        log.info("Calibration: %s", sources.directory / FILE)


def baselines(settings: Evaluation, candles: Candles, forecasts: ForecastSet) -> dict[str, np.ndarray]:
    """Closes of every baseline's sample paths ``(N, S, h)`` on the same cutoffs."""
    rows = np.searchsorted(candles.frame["timestamps"].dt.tz_localize(None).to_numpy(), forecasts.cutoffs)
    options = forecasts.horizon, settings.forecast.num_paths, settings.evaluation.refit_every, settings.seed
    found = {}
    for name in settings.evaluation.baselines:
        paths = baseline_paths(name, candles, rows, *options)
        if paths is None:
            log.info("Baseline %s: there is none for candles of %s", name, settings.data.interval)
        else:
            found[name] = paths
    return found


def overlap(forecasts: ForecastSet) -> int:
    """How many neighbouring cutoffs share target candles."""
    if len(forecasts) < 2:
        return 1
    candle = (
        np.diff(forecasts.stamps, axis=1).min()
        if forecasts.horizon > 1
        else forecasts.stamps[0, 0] - forecasts.cutoffs[0]
    )
    stride = np.diff(forecasts.cutoffs).min() / candle
    return max(1, math.ceil(forecasts.horizon / stride))


class _Runner:
    """Rolling forecasts of one data set."""

    def __init__(self, settings: Evaluation, datamodule: CandleDataModule, candles: Candles, trainer: L.Trainer):
        self.settings, self.candles, self.trainer = settings, candles, trainer
        self.masks = datamodule.target_masks(candles.frame["timestamps"])

    def cutoffs(self, split: str, at_most: int | None) -> Cutoffs:
        data = self.settings.data
        batch = self.settings.evaluation.cutoffs_per_batch
        return Cutoffs(self.candles, self.masks[split], data.lookback, data.horizon, at_most, batch)

    def forecast(self, cutoffs: Cutoffs, forecaster: Forecaster) -> ForecastSet:
        settings = self.settings
        return rolling_forecasts(cutoffs, forecaster, settings.forecast.num_paths, settings.seed, self.trainer)

    def best_sampling(self, forecaster: Forecaster) -> tuple[Forecaster, ForecastSet]:
        """The forecaster with the temperature and top-p of lowest CRPS, and its validation forecasts."""
        options, sampling = self.settings.calibration, forecaster.sampling
        if sampling.greedy:
            raise CalibrationError(
                "greedy forecasts (forecast.temperature=0 or top_k=1) have one path only: nothing to calibrate. Set "
                "calibration.fit=false"
            )
        few, tried = self.cutoffs("val", options.search_cutoffs), {}
        choices = [replace(sampling, temperature=t, top_p=p) for t, p in product(options.temperatures, options.top_ps)]
        for choice in choices if len(choices) > 1 else []:
            found = self.forecast(few, replace(forecaster, sampling=choice))
            returns = found.close_paths / found.last_close[:, None, None]
            tried[choice] = crps(returns, found.actual_close / found.last_close[:, None]).mean()
            score = tried[choice] * 100
            log.info("Validation: temperature %g, top_p %g: CRPS %.4f %%", choice.temperature, choice.top_p, score)
        best = replace(forecaster, sampling=min(tried, key=tried.get) if tried else choices[0])
        cutoffs = self.cutoffs("val", options.max_cutoffs)
        log.info("Validation forecasts: %d cutoffs", len(cutoffs.rows))
        return best, self.forecast(cutoffs, best)


def _calibrated(forecasts: ForecastSet, calibration: Calibration) -> tuple[ForecastSet, np.ndarray]:
    """Calibrated forecasts, and their P(up) ``(N, h)``."""
    result = forecasts.with_paths(calibration.apply(forecasts.paths, forecasts.last_close))
    return result, calibration.probability_up(probability_up(result.paths, result.last_close))
