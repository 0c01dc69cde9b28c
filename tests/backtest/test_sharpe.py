"""How far a Sharpe ratio can be trusted."""

import numpy as np
import pytest
from scipy.stats import kurtosis, skew

from kronos_lightning.backtest.performance import sharpe_ratio
from kronos_lightning.backtest.sharpe import (
    deflated_sharpe,
    expected_maximum,
    probabilistic_sharpe,
    sharpe_interval,
    sharpe_probability,
)


def test_the_example_of_the_deflated_sharpe_papers_authors():
    """Bailey & López de Prado 2014: 2.5 a year over 5 years of 250 days, skewness −3, kurtosis 10, variance 1/2."""
    for trials, probability in ((100, 0.9004), (46, 0.9505)):
        benchmark = expected_maximum(trials, 1 / 2 / 250)
        if trials == 100:
            assert benchmark == pytest.approx(0.1132, abs=5e-5)
        got = sharpe_probability(2.5 / np.sqrt(250), benchmark, 1250, -3, 10)
        assert got == pytest.approx(probability, abs=5e-5)


def test_the_expected_maximum_is_that_of_normal_draws():
    rng = np.random.default_rng(0)
    for trials in (10, 100):
        highest = rng.normal(0, 0.3, (20_000, trials)).max(axis=1).mean()
        assert expected_maximum(trials, 0.09) == pytest.approx(highest, rel=0.03)
    assert expected_maximum(1, 0.09) == 0


def test_the_probability_is_calibrated_where_the_true_ratio_is_the_benchmark():
    rng = np.random.default_rng(1)
    draws = [probabilistic_sharpe(rng.normal(0.05, 1.0, 500), benchmark=0.05) for _ in range(2000)]
    assert np.quantile(draws, [0.05, 0.5, 0.95]) == pytest.approx([0.05, 0.5, 0.95], abs=0.03)


def test_the_probability_uses_the_moments_of_the_returns():
    returns = np.random.default_rng(2).standard_t(4, 300) + 0.2
    direct = sharpe_probability(sharpe_ratio(returns), 0.05, 300, skew(returns), kurtosis(returns, fisher=False))
    assert probabilistic_sharpe(returns, 0.05) == pytest.approx(direct)


def test_more_or_more_scattered_trials_deflate_more():
    returns = np.random.default_rng(3).normal(0.1, 1.0, 300)
    best = sharpe_ratio(returns)
    alone = deflated_sharpe(returns, np.array([best]))
    few = deflated_sharpe(returns, np.array([best, best - 0.02, best - 0.04]))
    many = deflated_sharpe(returns, np.tile([best, best - 0.02, best - 0.04], 10))
    scattered = deflated_sharpe(returns, np.array([best, best - 0.1, best - 0.2]))
    silent = deflated_sharpe(returns, np.array([best, best - 0.02, best - 0.04, np.nan, np.nan]))
    assert alone == probabilistic_sharpe(returns)
    assert alone > few > many
    assert few > scattered
    assert few > silent > many


def test_where_there_is_no_ratio_there_is_no_probability_and_no_interval():
    for returns in (np.zeros(50), np.array([0.1]), np.array([])):
        assert np.isnan(probabilistic_sharpe(returns))
        assert np.isnan(deflated_sharpe(returns, np.array([np.nan])))
        assert np.isnan(sharpe_interval(returns, 100, 0)).all()


def test_the_interval_holds_the_true_ratio_as_often_as_it_says():
    rng = np.random.default_rng(4)
    inside = 0
    for i in range(300):
        lower, upper = sharpe_interval(rng.normal(0.1, 1.0, 300), 200, i)
        inside += lower <= 0.1 <= upper
    assert 0.90 <= inside / 300 <= 0.98


def test_the_interval_widens_when_neighbouring_returns_resemble_each_other():
    rng = np.random.default_rng(5)
    shocks = rng.normal(0, 1, 4000)
    persistent = np.convolve(shocks, np.ones(8) / 8, mode="valid")
    widths = [np.ptp(sharpe_interval(values, 500, 0)) for values in (persistent, rng.permutation(persistent))]
    assert widths[0] > 1.8 * widths[1]


def test_the_interval_is_that_of_a_plainly_written_bootstrap():
    returns = np.random.default_rng(6).standard_t(5, 216) * 0.01 + 0.001
    rng, ratios = np.random.default_rng(7), []
    starts = rng.integers(0, 216, (300, 36))  # blocks of 216^(1/3) = 6
    for row in starts:
        drawn = np.concatenate([np.take(returns, np.arange(start, start + 6), mode="wrap") for start in row])
        ratios.append(sharpe_ratio(drawn))
    assert sharpe_interval(returns, 300, 7) == pytest.approx(np.quantile(ratios, [0.025, 0.975]), rel=1e-9)


def test_the_interval_depends_on_the_seed_alone_and_on_the_level():
    returns = np.random.default_rng(8).normal(0.1, 1, 200)
    assert sharpe_interval(returns, 300, 1) == sharpe_interval(returns, 300, 1) != sharpe_interval(returns, 300, 2)
    assert np.ptp(sharpe_interval(returns, 300, 1, level=0.5)) < np.ptp(sharpe_interval(returns, 300, 1))
