"""Calibration of drift and spread, and that it gains nothing where there is nothing to gain."""

import numpy as np
import pytest

from kronos_lightning.evaluation.calibration import fit_moments
from kronos_lightning.evaluation.metrics import crps
from kronos_lightning.forecast.calibration import move

N, S, H = 600, 64, 4
LAST = np.full(N, 100.0)


def forecasts(seed, wander=0.0, spread=1.0, paths=S):
    """Paths ``(N, S, h)`` whose mean wanders from cutoff to cutoff without knowing anything; outcomes are normal."""
    rng = np.random.default_rng(seed)
    mean = wander * rng.standard_normal((N, 1, H))
    return 100 * np.exp(0.01 * (mean + spread * rng.standard_normal((N, paths, H))))


def outcome(seed):
    return forecasts(1000 + seed, paths=1)[:, 0]


def relative(close, actual):
    return crps(close / 100, actual / 100).mean()


def test_a_mean_that_knows_nothing_is_taken_out_and_the_spread_is_set_right():
    drift, spread = fit_moments(forecasts(1, wander=0.6, spread=0.7), LAST, outcome(1))
    assert drift == 0.0
    np.testing.assert_allclose(spread, 1 / 0.7, atol=0.11)
    new, actual = forecasts(2, wander=0.6, spread=0.7), outcome(2)
    assert relative(move(new, LAST, drift, spread), actual) < 0.95 * relative(new, actual)


def test_what_is_right_already_stays():
    adopted = [fit_moments(forecasts(seed), LAST, outcome(seed)) for seed in range(12)]
    spreads = np.array([spread for _, spread in adopted])
    assert np.abs(spreads.mean() - 1) < 0.03
    assert np.abs(spreads - 1).max() <= 0.15


def test_a_mean_that_knows_something_is_kept():
    rng = np.random.default_rng(5)
    known, rest = rng.standard_normal((2, N, 1, H))
    close = 100 * np.exp(0.01 * (known + 0.5 * rng.standard_normal((N, S, H))))
    actual = 100 * np.exp(0.01 * (known + 0.5 * rest))[:, 0]
    assert fit_moments(close, LAST, actual)[0] == 1.0


@pytest.mark.parametrize("drift", [0.0, 0.5])
@pytest.mark.parametrize("paths", [16, 64])
def test_taking_out_a_drift_that_is_zero_gains_nothing(paths, drift):
    """Paths centred on their own mean are narrower than their distribution, and the fair CRPS flatters them."""
    gains, flattered = [], []
    for seed in range(40):
        close, actual = forecasts(seed, paths=paths), outcome(seed)
        before = relative(close, actual)
        gains.append(1 - relative(move(close, LAST, drift, np.ones(H)), actual) / before)
        returns = np.log(close / 100)
        centred = 100 * np.exp(returns - (1 - drift) * returns.mean(axis=1, keepdims=True))
        flattered.append(1 - relative(centred, actual) / before)
    assert abs(np.mean(gains)) < 0.1 / paths
    assert np.mean(flattered) > 0.25 / paths


def test_the_mean_return_shrinks_by_the_factor():
    close = forecasts(3, wander=1.0)
    mean = np.log(close / 100).mean(axis=1)
    for drift in (0.0, 0.25, 1.0):
        moved = np.log(move(close, LAST, drift, np.full(H, 1.2)) / 100).mean(axis=1)
        assert (moved * mean).sum() / (mean**2).sum() == pytest.approx(drift, abs=0.03)
        assert (moved - drift * mean).std() < 0.01 / S**0.5 * 1.1


def test_spread_changes_by_step_and_impossible_closes_stay():
    close = forecasts(3)
    close[0, 0, 1] = -1.0
    moved = move(close, LAST, 1.0, np.array([1.0, 2.0, 0.5, 1.0]))
    before, after = (np.log(x[1:] / 100).std(axis=1) for x in (close, moved))
    np.testing.assert_allclose(after / before, np.broadcast_to([1.0, 2.0, 0.5, 1.0], (N - 1, H)), rtol=1e-9)
    np.testing.assert_array_equal(moved[0, :, 1], close[0, :, 1])
    assert np.isfinite(moved).all()
