"""Calibration of drift and spread, and that it gains nothing where there is nothing to gain."""

import numpy as np
import pytest

from kronos_lightning.evaluation.calibration import fit_moments
from kronos_lightning.evaluation.metrics import crps
from kronos_lightning.forecast.calibration import CalibrationError, Moments, move

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
    moments = fit_moments(forecasts(1, wander=0.6, spread=0.7), LAST, outcome(1))
    assert moments.drift == 0.0
    np.testing.assert_allclose(moments.spread, 1 / 0.7, atol=0.11)
    new, actual = forecasts(2, wander=0.6, spread=0.7), outcome(2)
    assert relative(move(new, LAST, moments), actual) < 0.95 * relative(new, actual)


def test_what_is_right_already_stays():
    adopted = [fit_moments(forecasts(seed), LAST, outcome(seed)) for seed in range(12)]
    spreads = np.array([moments.spread for moments in adopted])
    assert np.abs(spreads.mean() - 1) < 0.03
    assert np.abs(spreads - 1).max() <= 0.15


def test_a_mean_that_knows_something_is_kept():
    rng = np.random.default_rng(5)
    known, rest = rng.standard_normal((2, N, 1, H))
    close = 100 * np.exp(0.01 * (known + 0.5 * rng.standard_normal((N, S, H))))
    actual = 100 * np.exp(0.01 * (known + 0.5 * rest))[:, 0]
    assert fit_moments(close, LAST, actual).drift == 1.0


@pytest.mark.parametrize("drift", [0.0, 0.5])
@pytest.mark.parametrize("paths", [16, 64])
def test_taking_out_a_drift_that_is_zero_gains_nothing(paths, drift):
    """Paths centred on their own mean are narrower than their distribution, and the fair CRPS flatters them."""
    gains, flattered = [], []
    for seed in range(40):
        close, actual = forecasts(seed, paths=paths), outcome(seed)
        before = relative(close, actual)
        gains.append(1 - relative(move(close, LAST, Moments(drift, 0.0, np.ones(H))), actual) / before)
        returns = np.log(close / 100)
        centred = 100 * np.exp(returns - (1 - drift) * returns.mean(axis=1, keepdims=True))
        flattered.append(1 - relative(centred, actual) / before)
    assert abs(np.mean(gains)) < 0.1 / paths
    assert np.mean(flattered) > 0.25 / paths


def test_the_mean_return_shrinks_by_the_factor():
    close = forecasts(3, wander=1.0)
    mean = np.log(close / 100).mean(axis=1)
    for drift in (0.0, 0.25, 1.0):
        moved = np.log(move(close, LAST, Moments(drift, 0.0, np.full(H, 1.2))) / 100).mean(axis=1)
        assert (moved * mean).sum() / (mean**2).sum() == pytest.approx(drift, abs=0.03)
        assert (moved - drift * mean).std() < 0.01 / S**0.5 * 1.1


def test_spread_changes_by_step_and_impossible_closes_stay():
    close = forecasts(3)
    close[0, 0, 1] = -1.0
    moved = move(close, LAST, Moments(1.0, 0.0, np.array([1.0, 2.0, 0.5, 1.0])))
    before, after = (np.log(x[1:] / 100).std(axis=1) for x in (close, moved))
    np.testing.assert_allclose(after / before, np.broadcast_to([1.0, 2.0, 0.5, 1.0], (N - 1, H)), rtol=1e-9)
    np.testing.assert_array_equal(moved[0, :, 1], close[0, :, 1])
    assert np.isfinite(moved).all()


def in_regimes(seed, spread):
    """Paths of this spread ``(N, h)``, and outcomes whose deviation varies by cutoff; also that deviation."""
    rng = np.random.default_rng(seed)
    true = 0.01 * np.exp(0.6 * rng.standard_normal((N, 1))) * np.ones(H)
    close = 100 * np.exp(spread(true)[:, None] * rng.standard_normal((N, S, H)))
    return close, 100 * np.exp(true * rng.standard_normal((N, H))), true


def test_a_spread_that_does_not_know_the_volatility_is_drawn_to_one_that_does():
    close, actual, expected = in_regimes(1, lambda true: np.full_like(true, 0.01))
    moments = fit_moments(close, LAST, actual, expected)
    assert moments.exponent >= 0.75
    new, actual, expected = in_regimes(2, lambda true: np.full_like(true, 0.01))
    without = fit_moments(close, LAST, actual)
    assert relative(move(new, LAST, moments, expected), actual) < 0.97 * relative(move(new, LAST, without), actual)


def test_a_spread_that_knows_the_volatility_is_not_drawn_to_one_that_does_not():
    close, actual, _ = in_regimes(1, lambda true: true)
    wrong = in_regimes(3, lambda true: true)[2]
    assert fit_moments(close, LAST, actual, wrong).exponent == 0.0


def test_with_an_exponent_of_one_the_spread_is_the_expected_one():
    close, _, expected = in_regimes(1, lambda true: np.full_like(true, 0.02))
    moved = move(close, LAST, Moments(1.0, 1.0, np.full(H, 1.5)), expected)
    np.testing.assert_allclose(np.log(moved / 100).std(axis=1), 1.5 * expected, rtol=1e-9)
    np.testing.assert_array_equal(np.argsort(moved, axis=1), np.argsort(close, axis=1))


def test_a_shrinkage_without_the_expected_volatility_is_an_error():
    with pytest.raises(CalibrationError, match="expected at each cutoff"):
        move(forecasts(1), LAST, Moments(1.0, 0.5, np.ones(H)))
