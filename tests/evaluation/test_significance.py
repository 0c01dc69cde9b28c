"""Better, worse, or no edge: the verdict errs as rarely as it says."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests
from statsmodels.tsa.stattools import diebold_mariano_test

from kronos_lightning.evaluation.metrics import score
from kronos_lightning.evaluation.significance import (
    Bootstrap,
    _interval,
    against_best,
    block_length,
    compare,
    corrected,
    diebold_mariano,
    mean_interval,
)
from tests.helpers.forecasts import truth_of, walks

ALONE = Bootstrap(overlap=1, samples=100, seed=0)


@pytest.mark.parametrize("overlap", [1, 4, 12])
@pytest.mark.parametrize("n", [30, 101, 500])
def test_diebold_mariano_equals_that_of_statsmodels(n, overlap):
    a, b = np.random.default_rng(n).exponential(size=(2, n))
    theirs = diebold_mariano_test(np.zeros(n), a, b, criterion=lambda y, loss: loss, harvey_adj=True, horizon=overlap)
    statistic, p_value = diebold_mariano(a, b, overlap)
    assert statistic == pytest.approx(float(theirs.statistic), abs=1e-10)
    assert p_value == pytest.approx(float(theirs.pvalue), abs=1e-10)


def test_equal_losses_differ_by_nothing():
    assert diebold_mariano(np.ones(50), np.ones(50), 1) == (0.0, 1.0)


def losses(seed, n=200, **options):
    """Mean CRPS of a forecaster of random walks, by cutoff. The same seed is the same reality."""
    forecasts = walks(n, paths=40, seed=seed, **options)
    return score(forecasts.close_paths, truth_of(forecasts)).loss


def redrawn(seed, **options):
    """The loss of other paths on the reality of `seed`."""
    forecasts, other = walks(200, paths=40, seed=seed), walks(200, paths=40, seed=seed + 50_000, **options)
    return score(other.close_paths, truth_of(forecasts)).loss


def verdict(loss, seed):
    baseline = losses(seed)
    return compare(loss, baseline, "the baseline", Bootstrap(overlap=1, samples=500, seed=seed))


def test_a_forecaster_that_knows_something_wins_and_one_that_adds_noise_loses():
    assert verdict(losses(0, known=0.3), 0).text == "better than the baseline"
    assert verdict(redrawn(0, spread=2.0), 0).text == "no edge, worse than the baseline"
    assert verdict(redrawn(0, spread=0.2), 0).text == "no edge, worse than the baseline"


def test_without_skill_there_is_no_edge_in_at_least_180_of_200_repetitions():
    verdicts = [verdict(redrawn(seed), seed) for seed in range(200)]
    assert sum(one.text == "no edge, no difference shown to the baseline" for one in verdicts) >= 180
    assert sum(one.better for one in verdicts) <= 10


@pytest.mark.parametrize(("n", "overlap"), [(175, 10), (384, 24), (400, 1)])
def test_overlapping_forecasts_without_a_difference_are_rarely_called_better_or_worse(n, overlap):
    """2.5 % each would be exact; an estimate from 17 independent cutoffs may double it."""
    rng, called = np.random.default_rng(1), []
    for seed in range(300):
        noise = np.convolve(rng.normal(size=n + overlap - 1), np.ones(overlap) / np.sqrt(overlap), mode="valid")
        found = compare(10 + noise, np.full(n, 10.0), "it", Bootstrap(overlap=overlap, samples=200, seed=seed))
        called.append((found.better, found.worse))
    assert (np.mean(called, axis=0) <= 0.06).all()


def test_a_loss_that_is_no_number_is_said_to_be_none():
    found = compare(np.full(200, np.nan), np.ones(200), "it", ALONE)
    assert not found.is_tested
    assert "not a number" in found.text


def test_the_interval_of_a_mean_is_wider_where_neighbours_hang_together():
    values = np.repeat(np.random.default_rng(0).random(40) > 0.5, 10).astype(float)
    alone, together = (mean_interval(values, Bootstrap(overlap=n, samples=500, seed=0)) for n in (1, 10))
    assert together[1] - together[0] > 1.15 * (alone[1] - alone[0])
    assert together[0] < values.mean() < together[1]


def test_the_original_kernel_counts_every_covariance_inside_the_overlap_fully():
    a, b = np.random.default_rng(3).exponential(size=(2, 90))
    d = a - b - (a - b).mean()
    variance = (d @ d + 2 * (d[1:] @ d[:-1] + d[2:] @ d[:-2])) / 90 / 90
    correction = np.sqrt((90 + 1 - 6 + 3 * 2 / 90) / 90)
    statistic, _ = diebold_mariano(a, b, 3, "rectangular")
    assert statistic == pytest.approx((a - b).mean() / np.sqrt(variance) * correction)


def test_overlapping_forecasts_are_not_taken_for_independent_ones():
    """Differences that hang together over ten cutoffs: with the overlap told, few false alarms; without, many."""
    rng = np.random.default_rng(0)
    alarms = {1: 0, 10: 0}
    for _ in range(200):
        noise = np.convolve(rng.normal(size=409), np.ones(10) / 10, mode="valid")
        for overlap in alarms:
            found = compare(10 + noise, np.full(400, 10.0), "it", Bootstrap(overlap=overlap, samples=300, seed=0))
            alarms[overlap] += found.p_value < 0.05
    assert alarms[10] <= 26  # 5 % would be 10; the small-sample estimate of a variance is a little low
    assert alarms[1] > alarms[10]


def test_the_skill_is_one_less_the_ratio_of_the_mean_losses():
    found = compare(np.full(100, 2.0), np.full(100, 4.0), "it", ALONE)
    assert (found.skill, found.lower, found.upper) == (0.5, 0.5, 0.5)


def test_few_cutoffs_are_not_tested():
    found = compare(*np.random.default_rng(0).random((2, 20)), "it", Bootstrap(overlap=5, samples=100, seed=0))
    assert "too few" in found.text
    assert not found.better
    assert np.isnan(found.lower)


def test_the_model_is_compared_with_the_baseline_that_was_best_on_these_cutoffs():
    rng = np.random.default_rng(0)
    loss, weak, strong = rng.random(100), rng.random(100) + 1, rng.random(100) - 0.2
    assert against_best(loss, {"weak": weak, "strong": strong}, ALONE).other == "strong"


def test_bootstrap_blocks_are_neighbours():
    drawn = []

    def statistic(rows, losses):
        np.testing.assert_array_equal(losses, rows / 7)  # both series are resampled alike
        drawn.append(rows)
        return rows.mean()

    rows = np.arange(20.0)
    _interval(Bootstrap(overlap=2, samples=50, seed=0), statistic, rows, rows / 7)
    resampled = np.stack([each for each in drawn if (each != rows).any()])
    assert resampled.shape == (50, 20)
    assert block_length(20, overlap=2) == 4
    steps = np.diff(resampled.reshape(50, 5, 4), axis=2) % 20
    assert (steps == 1).all()


def test_the_bootstrap_depends_on_its_seed_alone():
    values = np.random.default_rng(0).random(60)
    one, again, other = (mean_interval(values, Bootstrap(overlap=2, samples=100, seed=seed)) for seed in (1, 1, 2))
    assert one == again != other


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_the_correction_for_several_comparisons_equals_that_of_statsmodels(p_values):
    one = compare(*np.random.default_rng(0).exponential(size=(2, 50)), "other", ALONE)
    family = {str(i): replace(one, p_value=p) for i, p in enumerate(p_values)}
    untested = {"few": replace(one, p_value=np.nan)}
    found = corrected(family | untested)
    np.testing.assert_allclose(
        [found[name].corrected for name in family], multipletests(p_values, method="holm")[1], atol=1e-12
    )
    assert found["few"] == untested["few"]
    assert {found[name].family for name in family} == {len(p_values)}


def test_a_difference_that_holds_alone_does_not_hold_among_many():
    found = compare(losses(0, known=0.3), losses(0), "the baseline", ALONE)
    alone = replace(found, p_value=0.01, corrected=0.01)
    assert alone.better
    many = corrected({"first": alone} | {str(i): replace(alone, p_value=0.5) for i in range(9)})
    assert many["first"].corrected == pytest.approx(0.1)
    assert many["first"].text == "no edge, no difference shown to the baseline"


@pytest.mark.parametrize("overlap", [1, 4])
def test_a_skill_as_large_as_the_detectable_one_is_found_in_four_of_five_samples(overlap):
    rng, n, found = np.random.default_rng(overlap), 600, []
    for _ in range(200):
        noise = np.convolve(rng.normal(size=n + overlap - 1), np.ones(overlap) / np.sqrt(overlap), mode="valid")
        detectable = compare(
            10 + noise, np.full(n, 10.0), "other", replace(ALONE, overlap=overlap, samples=2)
        ).detectable
        found.append((detectable, noise))
    size = np.mean([detectable for detectable, _ in found])
    missed = np.mean(
        [diebold_mariano(10 + noise - 10 * size, np.full(n, 10.0), overlap)[1] >= 0.05 for _, noise in found]
    )
    assert missed == pytest.approx(0.2, abs=0.08)
