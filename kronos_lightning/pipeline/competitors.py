"""Competitors of the model by the configuration: baselines, as sampled and calibrated alike, and a combination.

Shape letters: N cutoffs, S sample paths, h horizon.
"""

import logging
from dataclasses import dataclass, field

import numpy as np

from kronos_lightning.config.schema import Evaluation
from kronos_lightning.data import Candles
from kronos_lightning.evaluation.calibration import fit_correction
from kronos_lightning.evaluation.combination import combine, fit_weights
from kronos_lightning.forecast import ForecastSet
from kronos_lightning.forecast.calibration import CalibrationError
from kronos_lightning.forecast.distribution import crps

from .baselines import baseline_paths
from .forecasting import RangeForecasts

MODEL = "model"
CALIBRATED = "calibrated {}"  # name of a baseline that is calibrated like the model

log = logging.getLogger("evaluate")


@dataclass(frozen=True, kw_only=True)
class Competitors:
    """Closes of the paths of the model's competitors on its cutoffs ``(N, S, h)``.

    baselines: by name, as sampled and calibrated like the model.
    best_on_validation: name of the best baseline on the validation range; None without forecasts of that range.
    combination: sample of the mixture of model and baselines; None without `evaluation.combine`.
    weights: weight of each of its members, by name.
    """

    baselines: dict[str, np.ndarray]
    best_on_validation: str | None = None
    combination: np.ndarray | None = None
    weights: dict[str, float] = field(default_factory=dict)


def best_on(forecasts: ForecastSet, baselines: dict[str, np.ndarray]) -> str:
    """Return the name of the baseline with the lowest CRPS, from paths ``(N, S, h)`` on the cutoffs of forecasts."""
    last, actual = forecasts.last_close, forecasts.actual_close / forecasts.last_close[:, None]
    losses = {name: crps(paths / last[:, None, None], actual).mean() for name, paths in baselines.items()}
    return min(losses, key=losses.__getitem__)


def compete(settings: Evaluation, candles: Candles, whole: RangeForecasts) -> Competitors:
    """Sample the competitors on the model's cutoffs; calibrate, choose and weight them on its validation range."""
    test, known = whole.forecasts, whole.validation
    baselines = baseline_paths(settings, candles, test)
    if known is None:
        return Competitors(baselines=baselines)
    earlier = baseline_paths(settings, candles, known)
    for name in list(baselines) if settings.calibration.baselines else []:
        try:
            correction, _ = fit_correction(earlier[name], known.last_close, known.actual_close, known.deviations)
        except CalibrationError as error:
            log.info("Baseline %s: not calibrated, %s", name, error)
            continue
        for closes, forecasts in ((earlier, known), (baselines, test)):
            closes[CALIBRATED.format(name)] = correction.apply(closes[name], forecasts.last_close, forecasts.deviations)
    best, combination, weights = best_on(known, earlier), None, {}
    if settings.evaluation.combine:
        alike = {name: CALIBRATED.format(name) for name in settings.evaluation.combine}
        members = [alike[name] if alike[name] in baselines else name for name in alike]
        then, now = (
            {MODEL: forecasts.close_paths} | {name: closes[name] for name in members}
            for closes, forecasts in ((earlier, known), (baselines, test))
        )
        weights = fit_weights(then, known.last_close, known.actual_close)
        combination = combine(now, weights)
    return Competitors(baselines=baselines, best_on_validation=best, combination=combination, weights=weights)
