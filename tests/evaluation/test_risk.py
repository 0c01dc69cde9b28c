"""Backtests of the stated risk, on markets whose risk is known."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from kronos_lightning.evaluation.risk import CoverageTests, assess, coverage_tests, tail_table
from kronos_lightning.forecast import ForecastSet
from tests.helpers.forecasts import walks

N, PATHS = 1_200, 199


@pytest.fixture(scope="module")
def honest():
    """Forecasts that know the distribution of the walk, at cutoffs without common targets."""
    return walks(N, paths=PATHS, seed=0)


def narrowed(forecasts, factor):
    moves = np.log(forecasts.paths / forecasts.last_close[:, None, None, None])
    return forecasts.with_paths(forecasts.last_close[:, None, None, None] * np.exp(factor * moves))


def independent(hits, level):
    """The definitions, exceedance by exceedance."""

    def log_likelihood(part, share):
        return sum(np.log(share if hit else 1 - share) for hit in part if share not in (0, 1))

    kupiec = 2 * (log_likelihood(hits, hits.mean()) - log_likelihood(hits, level))
    pairs = list(pairwise(hits))
    after = [[b for a, b in pairs if a == state] for state in (False, True)]
    chain = sum(log_likelihood(part, np.mean(part)) for part in after if part)
    both = [b for _, b in pairs]
    return kupiec, 2 * (chain - log_likelihood(both, np.mean(both)))


@pytest.mark.parametrize("seed", range(6))
def test_both_tests_follow_their_definitions(seed):
    hits = np.random.default_rng(seed).random(150) < 0.02 * (seed + 1)
    kupiec, chain = independent(hits, 0.05)
    found = coverage_tests(hits, 0.05)
    assert found.kupiec == pytest.approx(stats.chi2.sf(kupiec, 1))
    assert found.independence == pytest.approx(stats.chi2.sf(max(chain, 0), 1))
    assert found.conditional == pytest.approx(stats.chi2.sf(kupiec + max(chain, 0), 2))


def test_independent_exceedances_of_the_right_share_are_rarely_rejected_and_clustered_ones_are():
    rng = np.random.default_rng(1)
    honest = [coverage_tests(rng.random(1000) < 0.05, 0.05) for _ in range(400)]
    for name in vars(CoverageTests()):
        assert np.mean([getattr(one, name) < 0.05 for one in honest]) == pytest.approx(0.05, abs=0.035)
    clustered = np.repeat(rng.random(250) < 0.05, 4)
    assert coverage_tests(clustered, clustered.mean()).independence < 1e-6
    assert coverage_tests(clustered, clustered.mean()).kupiec == pytest.approx(1)


def test_no_and_only_exceedances_have_finite_tests():
    for hits in (np.zeros(100, bool), np.ones(100, bool)):
        found = coverage_tests(hits, 0.05)
        assert np.isfinite(list(vars(found).values())).all()
        assert found.kupiec < 0.01


@pytest.mark.parametrize("level", [0.01, 0.05])
def test_the_true_distribution_passes_and_half_of_its_spread_does_not(honest, level):
    table = tail_table(honest, level, overlap=1)
    assert (table["kupiec"] > 0.001).all()
    assert table["exceeded"].mean() == pytest.approx(level, abs=0.012)
    # The mean loss beyond the value at risk is the expected shortfall, as far as so few exceedances tell.
    ratio = (table["mean_loss_beyond"] / table["shortfall_there"]).mean()
    assert ratio == pytest.approx(1, abs=0.15)
    assert (tail_table(narrowed(honest, 0.5), level, overlap=1)["kupiec"] < 1e-4).all()


def test_cutoffs_with_common_targets_are_not_tested_as_if_they_were_apart(honest):
    h = honest.horizon
    table = tail_table(honest, 0.05, overlap=h)
    assert table["tested"].tolist() == [-(-N // (k + 1)) for k in range(h)]
    few = ForecastSet(**{k: v[:10] for k, v in vars(honest).items() if isinstance(v, np.ndarray)})
    assert tail_table(few, 0.05, overlap=1)["kupiec"].isna().all()


def test_stop_before_target_and_drawdown_are_measured_against_what_happened(honest):
    found = assess(honest, 1, 0.02, 0.03)
    assert found.touch.forecast == pytest.approx(found.touch.observed, abs=0.04)
    assert found.touch.brier < found.touch.climate * 1.05
    assert found.drawdown.covered == pytest.approx((0.5, 0.95), abs=0.04)
    assert found.drawdown.forecast.mean() == pytest.approx(found.drawdown.observed.mean(), rel=0.06)
    calm = assess(narrowed(honest, 0.3), 1, 0.02, 0.03)
    assert calm.drawdown.covered[1] < 0.7
    assert calm.drawdown.crps > found.drawdown.crps
    assert assess(replace(honest), 1, None, 0.03).touch is None
