"""Combination of forecasters, and that it gains nothing where there is nothing to gain."""

import numpy as np
import pytest

from kronos_lightning.evaluation.combination import combine, fit_weights, mixture_terms
from kronos_lightning.evaluation.metrics import crps

N, S, H = 400, 100, 3


def market(seed, drift=0.0, spread=1.0, count=N, paths=S):
    """Paths ``(N, S, h)`` after closes of 100 whose outcome is a standard normal log return in percent."""
    rng = np.random.default_rng(seed)
    return 100 * np.exp(0.01 * (drift + spread * rng.standard_normal((count, paths, H))))


def truth(seed=9, count=N):
    return np.full(count, 100.0), market(seed, count=count, paths=1)[:, 0]


def test_the_crps_of_a_mixture_follows_from_its_terms():
    last, actual = truth(count=40)
    first, second = market(1, drift=1.0, count=40), market(2, spread=2.0, count=40)
    error, distance = mixture_terms([first, second], last, actual)
    for i, one in enumerate((first, second)):
        assert error[i] - distance[i, i] / 2 == pytest.approx(crps(one / 100, actual / 100).mean())
    pairs = np.abs(first[:, :, None] - second[:, None]).mean() / 100
    assert distance[0, 1] == distance[1, 0] == pytest.approx(pairs)


def test_a_forecaster_combined_with_a_second_draw_of_itself_gains_nothing():
    """Paths that share random numbers, or averaged quantiles, would seem to gain."""
    gains = []
    for seed in range(20):
        last, actual = truth(seed)
        one, other = market(100 + seed), market(200 + seed)
        error, distance = mixture_terms([one, other], last, actual)
        half = np.array([0.5, 0.5])
        single = (error - np.diag(distance) / 2).mean()
        gains.append(1 - (half @ error - half @ distance @ half / 2) / single)
        pool = combine({"a": one, "b": other}, {"a": 0.5, "b": 0.5})
        assert crps(pool / 100, actual[:, :] / 100).mean() == pytest.approx(single, rel=0.01)
    assert abs(np.mean(gains)) < 0.0005
    assert abs(np.mean(gains)) < 3 * np.std(gains) / 20**0.5 + 1e-4


def test_forecasters_that_err_on_different_sides_are_better_together():
    last, actual = truth()
    closes = {"high": market(1, drift=1.0), "low": market(2, drift=-1.0)}
    weights = fit_weights(closes, last, actual)
    assert weights["high"] == pytest.approx(0.5, abs=0.1)
    scores = {name: crps(close / 100, actual / 100).mean() for name, close in closes.items()}
    assert crps(combine(closes, weights) / 100, actual / 100).mean() < 0.9 * min(scores.values())


def test_a_useless_member_gets_no_weight():
    last, actual = truth()
    closes = {"right": market(1), "wrong": market(2, drift=8.0), "wild": market(3, spread=9.0)}
    assert fit_weights(closes, last, actual) == {"right": 1.0, "wrong": 0.0, "wild": 0.0}


def test_weights_that_the_second_half_does_not_confirm_are_not_used():
    last, actual = truth()
    broken = market(2, drift=-1.5)
    broken[N // 2 :] *= 2  # of use in the first half alone
    assert fit_weights({"high": market(1, drift=1.0), "broken": broken}, last, actual)["broken"] == 0


def test_a_combination_holds_each_member_by_its_weight_and_all_paths_together_make_the_number_asked():
    members = {name: np.full((2, 10, H), value) for name, value in (("a", 1.0), ("b", 2.0), ("c", 3.0))}
    found = combine(members, {"a": 0.25, "b": 0.0, "c": 0.75})
    assert found.shape == (2, 10, H)
    assert [(found[0, :, 0] == value).sum() for value in (1, 2, 3)] in ([2, 0, 8], [3, 0, 7])
