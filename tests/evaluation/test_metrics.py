"""Every metric of a forecaster, counted a second time."""

from dataclasses import replace

import numpy as np
import pytest
import scoringrules
from hypothesis import given, settings
from hypothesis import strategies as st

from kronos_lightning.evaluation.metrics import (
    DESCRIPTIONS,
    INTERVALS,
    LEVELS,
    Truth,
    by_slice,
    by_step,
    forecast_metrics,
    majority_direction,
    reliability,
    score,
)
from kronos_lightning.forecast.distribution import crps, path_quantiles
from tests.helpers.forecasts import made, truth_of, walks


def scored(forecasts, up=None):
    return score(forecasts.close_paths, truth_of(forecasts), up)


def measured(forecasts):
    return forecast_metrics(scored(forecasts))


@pytest.mark.parametrize("seed", range(10))
def test_crps_equals_that_of_an_independent_library(seed):
    rng = np.random.default_rng(seed)
    paths, actual = rng.normal(size=(7, rng.integers(2, 40), 3)), rng.normal(size=(7, 3))
    theirs = scoringrules.crps_ensemble(actual, paths, m_axis=1, estimator="fair")
    np.testing.assert_allclose(crps(paths, actual), theirs, atol=1e-12)


def test_crps_of_one_path_is_the_absolute_error():
    np.testing.assert_allclose(crps(np.array([[[1.0, 5.0]]]), np.array([[3.0, 4.0]])), [[2.0, 1.0]])


def test_the_mean_crps_does_not_depend_on_how_many_paths_there_are():
    few, many = walks(4000, horizon=1, paths=5), walks(4000, horizon=1, paths=200)
    assert measured(few)["crps"] == pytest.approx(measured(many)["crps"], rel=0.03)


def test_point_metrics_equal_counting_by_hand():
    found = measured(made([[[101, 102]], [[99, 95]], [[100, 101]]], [[102, 104], [98, 97], [101, 99]], [100, 100, 100]))
    assert found["mae"] == pytest.approx((1 + 2 + 1 + 2 + 1 + 2) / 6)
    assert found["mase"] == pytest.approx(found["mae"])  # scale 1
    assert found["mae_return"] == pytest.approx(found["mae"])  # price 100, in %
    assert found["rmse"] == pytest.approx(np.sqrt((1 + 4 + 1 + 4 + 1 + 4) / 6))
    assert found["mape"] == pytest.approx(100 * np.mean([1 / 102, 2 / 104, 1 / 98, 2 / 97, 1 / 101, 2 / 99]))
    assert found["direction_accuracy"] == pytest.approx(2 / 3)
    assert found["trend_accuracy"] == pytest.approx(4 / 6)  # wrong: 100→101 (flat), 101→99
    assert found["crps_price"] == pytest.approx(found["mae"])  # one path
    assert found["crps"] == pytest.approx(found["mae"])


def test_the_commoner_direction_is_what_direction_has_to_beat():
    forecasts = made([[[1]]] * 4, [[101], [102], [99], [100]], [100] * 4)
    assert majority_direction(truth_of(forecasts)) == pytest.approx(2 / 3)  # an unchanged price has no direction


def test_a_forecast_without_direction_has_no_accuracy_and_no_correlation():
    found = measured(made([[[100, 100]]] * 3, [[101, 99], [99, 98], [102, 103]], [100] * 3))
    assert np.isnan([found[name] for name in ("direction_accuracy", "trend_accuracy", "ic", "rank_ic")]).all()


def test_correlations_are_those_of_returns_and_of_their_ranks():
    rng = np.random.default_rng(0)
    point, actual = 100 + rng.normal(size=(50, 1, 3)), 100 + rng.normal(size=(50, 3))
    found, point = measured(made(point, actual, [100.0] * 50)), point.astype(np.float32)
    assert found["ic"] == pytest.approx(np.corrcoef(point[:, 0, -1], actual[:, -1])[0, 1], abs=1e-6)
    assert found["return_correlation"] == pytest.approx(np.corrcoef(point.ravel(), actual.ravel())[0, 1], abs=1e-6)
    ranks = [np.argsort(np.argsort(part)) for part in (point[:, 0, -1], actual[:, -1])]
    assert found["rank_ic"] == pytest.approx(np.corrcoef(*ranks)[0, 1])


def test_a_perfect_path_has_no_volatility_error_and_an_unmoved_one_misses_all_of_it():
    actual = np.array([[101.0, 99, 102], [98, 99, 97]])
    assert measured(made(actual[:, None], actual, [100, 100]))["volatility_error"] == pytest.approx(0, abs=1e-5)
    still = made(np.full((2, 1, 3), 100.0), actual, [100, 100])
    assert measured(still)["volatility_error"] == pytest.approx(1)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 1000), paths=st.integers(1, 40))
def test_coverage_and_width_equal_direct_counting(seed, paths):
    forecasts = walks(12, paths=paths, seed=seed)
    scores, returns = scored(forecasts), forecasts.close_paths / 100 - 1
    for i, interval in enumerate(INTERVALS):
        low, high = np.quantile(returns, [(1 - interval) / 2, (1 + interval) / 2], axis=1, method="weibull")
        actual = forecasts.actual_close / 100 - 1
        np.testing.assert_array_equal(scores.inside[..., i], (low <= actual) & (actual <= high))
        np.testing.assert_allclose(scores.width[..., i], high - low, atol=1e-12)
    assert forecast_metrics(scores)["coverage_90"] == pytest.approx(scores.inside[..., 2].sum() / (12 * 5))


@pytest.mark.parametrize("paths", [19, 39, 199])
def test_intervals_of_the_true_distribution_cover_as_often_as_they_say_however_few_paths_there_are(paths):
    found = measured(walks(6000, horizon=1, paths=paths))
    assert found["coverage_90"] == pytest.approx(0.9, abs=0.012)
    assert found["coverage_50"] == pytest.approx(0.5, abs=0.02)


def test_narrow_paths_cover_too_rarely():
    assert measured(walks(400, spread=0.2))["coverage_90"] < 0.4


def test_quantile_losses_equal_their_definition():
    forecasts = walks(6, paths=30)
    returns, actual = forecasts.close_paths / 100 - 1, forecasts.actual_close / 100 - 1
    losses = []
    for level in LEVELS:
        miss = actual - np.quantile(returns, level, axis=1, method="weibull")
        losses.append(np.where(miss >= 0, level * miss, (level - 1) * miss))
    found = measured(forecasts)
    assert found["wql"] == pytest.approx(2 * np.mean(losses) / np.abs(actual).mean())
    assert found["wql_price"] == pytest.approx(2 * 100 * np.mean(losses) / forecasts.actual_close.mean())


def test_pit_is_flat_for_the_true_distribution_and_u_shaped_for_narrow_paths():
    pit = scored(walks(3000, horizon=1, paths=9)).pit.ravel()
    counts = np.histogram(pit, bins=10, range=(0, 1))[0]
    assert np.square(counts - 300).sum() / 300 < 27.9  # 99.9 % of chi-squared with 9 degrees
    narrow = np.histogram(scored(walks(3000, horizon=1, spread=0.3)).pit, bins=10, range=(0, 1))[0]
    assert min(narrow[0], narrow[-1]) > 3 * narrow[4]


def test_brier_and_reliability_read_the_probability_that_is_given():
    forecasts = walks(200, horizon=2)
    rose = forecasts.actual_close > 100
    assert forecast_metrics(scored(forecasts, up=rose.astype(float)))["brier"] == 0
    assert forecast_metrics(scored(forecasts, up=np.full(rose.shape, 0.5)))["brier"] == 0.25
    found = reliability(scored(forecasts, up=np.where(rose, 0.81, 0.32)))
    np.testing.assert_allclose(found.forecast, [0.32, 0.81])
    assert found.observed.tolist() == [0, 1]
    assert found.count.tolist() == [(~rose).sum(), rose.sum()]


def test_metrics_by_step_average_to_those_over_all_steps():
    forecasts = walks(30, horizon=4)
    whole, steps = measured(forecasts), by_step(scored(forecasts))
    assert steps["step"].tolist() == [1, 2, 3, 4]
    for name in ("crps", "mae", "coverage_90", "brier"):
        assert steps[name].mean() == pytest.approx(whole[name])
    assert steps["crps"].is_monotonic_increasing  # the farther the harder


def test_metrics_by_month_are_those_of_the_forecasts_that_begin_in_it():
    forecasts = walks(300, horizon=5, paths=10)
    scores = scored(forecasts)
    months = by_slice(scores, "month")
    assert months["month"].tolist() == ["2024-07", "2024-08", "2024-09"]
    assert months["cutoffs"].sum() == 300
    july = (forecasts.stamps[:, 0] < np.datetime64("2024-08-01")).sum()
    assert months["crps"][0] == pytest.approx(scores.crps[:july].mean() * 100)


def test_regimes_are_thirds_by_the_volatility_known_at_the_cutoff():
    forecasts = walks(9, paths=10)
    volatility = np.array([5.0, 1, 9, 2, 8, 3, 7, 4, 6])
    truth = replace(truth_of(forecasts), volatility=volatility)
    assert {name: volatility[rows].tolist() for name, rows in truth.slices("regime").items()} == {
        "calm": [1, 2, 3], "middle": [5, 4, 6], "volatile": [9, 8, 7],
    }  # fmt: skip


def test_scale_and_volatility_look_at_candles_up_to_the_cutoff_alone(candles):
    closes, rows = candles.frame["close"].to_numpy(), np.array([200, 300])
    forecasts = replace(made(np.ones((2, 1, 1)), np.ones((2, 1)), closes[rows]), cutoffs=candles.times[rows])
    truth = Truth.of(forecasts, candles)
    assert truth.scale[0] == pytest.approx(np.abs(np.diff(closes[:201])).mean())
    assert truth.volatility[0] == pytest.approx(np.diff(np.log(closes[140:201])).std(ddof=1))
    changed = candles.frame.copy()
    changed.loc[301:, "close"] *= 2
    again = Truth.of(forecasts, replace(candles, frame=changed))
    np.testing.assert_array_equal(again.scale, truth.scale)
    np.testing.assert_array_equal(again.volatility, truth.volatility)


def test_every_figure_is_described():
    assert set(measured(walks(10, paths=3))) == set(DESCRIPTIONS)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 1000), paths=st.integers(1, 30))
def test_path_quantiles_are_weibulls(seed, paths):
    values = np.random.default_rng(seed).normal(size=(3, paths, 2))
    levels = (0.05, 0.5, 0.77, 0.95)
    expected = np.quantile(values, levels, axis=1, method="weibull")
    np.testing.assert_allclose(path_quantiles(values, levels), expected, atol=1e-12)
