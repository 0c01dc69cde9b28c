"""A confidence of 70 % is right in 70 % of the cases, on a market whose P(up) is known."""

from dataclasses import replace

import numpy as np
from scipy.stats import norm

from kronos_lightning.backtest import ThresholdStrategy
from kronos_lightning.evaluation.calibration import conformity, fit_platt, fit_widening
from kronos_lightning.forecast.calibration import Calibration
from kronos_lightning.forecast.distribution import probability_up
from kronos_lightning.pipeline.signals import decisions
from tests.helpers.forecasts import made

STRATEGY = ThresholdStrategy(signal="median", buy_threshold=0.01, sell_threshold=-0.01, search_thresholds=[0.0])


def market(n, seed, paths=50, boast=2.5):
    """Forecasts that know the drift of each cutoff but boast: their spread is too small by a factor.

    Returns the forecast set and the true P(up).
    """
    rng = np.random.default_rng(seed)
    drift = rng.normal(0, 0.006, n)
    came = drift + rng.normal(0, 0.01, n)
    drawn = drift[:, None] + rng.normal(0, 0.01 / boast, (n, paths))
    forecasts = made(100 * np.exp(drawn)[..., None], 100 * np.exp(came)[:, None], np.full(n, 100.0))
    return forecasts, norm.cdf(drift / 0.01)


def calibration_of(forecasts):
    close, last = forecasts.close_paths, forecasts.last_close
    scores = conformity(close, last, forecasts.actual_close)
    first = Calibration(
        temperature=1.0,
        top_p=1.0,
        widening=tuple(map(tuple, fit_widening(scores).tolist())),
        slope=1.0,
        intercept=0.0,
        interval="1h",
    )
    share = probability_up(first.apply(forecasts.paths, last), last)
    slope, intercept = fit_platt(share, forecasts.actual_close > last[:, None])
    return replace(first, slope=slope, intercept=intercept)


def test_mean_confidence_is_the_share_of_right_trends():
    validation, _ = market(400, seed=1)
    test, truth = market(2500, seed=2)
    found = decisions(test.calibrated(calibration_of(validation)), STRATEGY)
    confidence = np.array([one.confidence for one in found])
    upward = np.array([one.up > 0.5 for one in found])
    rose = test.actual_close[:, -1] > test.last_close
    assert abs(confidence.mean() - (upward == rose).mean()) <= 0.03
    assert abs(confidence - np.where(upward, truth, 1 - truth)).mean() <= 0.06
    boasting = decisions(test, STRATEGY)
    assert {one.confidence for one in boasting} == {None}
    stated = np.array([max(one.share_up, 1 - one.share_up) for one in boasting])
    assert stated.mean() - (upward == rose).mean() > 0.1  # what the calibration mends
