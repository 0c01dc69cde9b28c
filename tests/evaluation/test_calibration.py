"""Calibration: fitted on one half, right on the other."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kronos_lightning.evaluation.calibration import adaptive, conformity, fit_platt, fit_widening
from kronos_lightning.evaluation.metrics import forecast_metrics, score
from kronos_lightning.forecast import probability_up
from kronos_lightning.forecast.calibration import Calibration, CalibrationError, SpreadShrinkage, platt, widen
from tests.helpers.evaluated import REGRESSION
from tests.helpers.forecasts import HOUR, truth_of, walks


def fitted(forecasts, **changes):
    scores = conformity(forecasts.close_paths, forecasts.last_close, forecasts.actual_close)
    widening = tuple(tuple(step) for step in fit_widening(scores).tolist())
    return Calibration(**{"temperature": 1.0, "top_p": 1.0, "widening": widening, "slope": 1.0, "intercept": 0.0,
                          "interval": "1h"} | changes)  # fmt: skip


def measured(forecasts):
    return forecast_metrics(score(forecasts.close_paths, truth_of(forecasts)))


@pytest.mark.parametrize("spread", [0.3, 2.5])
def test_intervals_that_are_too_narrow_or_too_wide_become_right_on_new_candles(spread):
    calibration, test = fitted(walks(400, seed=1, spread=spread)), walks(600, seed=2, spread=spread)
    before, after = measured(test), measured(test.calibrated(calibration))
    assert abs(before["coverage_90"] - 0.9) > 0.08
    for interval in (50, 80, 90, 95):
        assert after[f"coverage_{interval}"] == pytest.approx(interval / 100, abs=0.035)
    assert after["crps"] < before["crps"]


def test_a_calibrated_forecast_set_has_the_calibrated_paths_and_probabilities_and_says_by_what():
    calibration, test = replace(fitted(walks(60, seed=1, spread=0.5)), slope=0.5, intercept=0.2), walks(20, seed=2)
    share = probability_up(test.paths, test.last_close)
    np.testing.assert_array_equal(test.probability_up, share)
    calibrated = test.calibrated(calibration)
    np.testing.assert_array_equal(calibrated.paths, calibration.apply(test.paths, test.last_close))
    np.testing.assert_array_equal(
        calibrated.probability_up, platt(probability_up(calibrated.paths, test.last_close), 0.5, 0.2)
    )
    assert not np.array_equal(calibrated.probability_up, share)
    assert (test.calibration, calibrated.calibration) == (None, calibration)
    plain = calibrated.with_paths(test.paths)
    np.testing.assert_array_equal(plain.probability_up, share)
    assert plain.calibration is None


def test_what_is_right_already_hardly_changes():
    calibration, test = fitted(walks(500, seed=1)), walks(200, seed=2)
    calibrated = calibration.apply(test.paths, test.last_close)
    moved = np.abs(np.log(calibrated[..., 3] / test.paths[..., 3]))
    assert np.quantile(moved, 0.9) < 0.2 * np.log(test.paths[:, :, -1, 3] / 100).std()


@settings(deadline=None, max_examples=12)
@given(
    seed=st.integers(0, 1000),
    spread=st.sampled_from([0.2, 1.0, 3.0]),
    paths=st.integers(2, 30).map(lambda n: 2 * n + 1),
)
def test_paths_keep_their_order_their_median_and_the_shape_of_their_candles(seed, spread, paths):
    rng = np.random.default_rng(seed)
    calibration, test = fitted(walks(60, seed=seed, spread=spread)), walks(5, paths=paths, seed=seed + 1)
    candles = test.paths * (1 + rng.random((*test.paths.shape[:-1], 6)).astype(np.float32) * 0.01)
    changed = calibration.apply(candles, test.last_close)
    before, after = (np.sort(part[..., 3], axis=1) for part in (candles, changed))
    np.testing.assert_array_equal(
        np.take_along_axis(changed[..., 3], np.argsort(candles[..., 3], axis=1), axis=1), after
    )
    np.testing.assert_allclose(np.median(after, axis=1), np.median(before, axis=1), rtol=1e-5)
    ratio = changed[..., :4] / candles[..., :4]
    np.testing.assert_allclose(ratio, np.repeat(ratio[..., 3:], 4, axis=-1), rtol=1e-5)
    np.testing.assert_array_equal(changed[..., 4:], candles[..., 4:])


def test_wider_intervals_never_end_inside_narrower_ones():
    close = walks(3, paths=50).close_paths
    strange = np.tile([3.0, 0.0, -2.0, -5.0], (5, 1))  # the 50 % interval far wider than the 95 % one
    result = np.sort(widen(close, np.full(3, 100.0), strange), axis=1)
    assert (np.diff(result, axis=1) >= -1e-9).all()


def test_steps_beyond_those_calibrated_are_treated_like_the_last_one():
    short, long = fitted(walks(100, horizon=2, spread=0.5)), walks(3, horizon=4)
    doubled = Calibration(
        temperature=1.0,
        top_p=1.0,
        widening=(*short.widening, short.widening[-1], short.widening[-1]),
        slope=1.0,
        intercept=0.0,
        interval="1h",
    )
    np.testing.assert_array_equal(short.apply(long.paths, long.last_close), doubled.apply(long.paths, long.last_close))


def test_the_adaptive_correction_follows_a_change_that_validation_did_not_see():
    validation, test = walks(200, seed=1), walks(600, seed=2, spread=0.4)
    scores = conformity(validation.close_paths, validation.last_close, validation.actual_close)
    split = test.calibrated(fitted(validation))
    truth = test.last_close, test.actual_close, test.cutoffs, test.stamps
    moved = adaptive(test.close_paths, *truth, scores)
    found = forecast_metrics(score(moved, truth_of(test)).select(slice(300, None)))
    assert measured(split)["coverage_90"] < 0.65
    assert found["coverage_90"] == pytest.approx(0.9, abs=0.03)


def test_the_adaptive_correction_never_sees_an_outcome_before_its_candle_has_closed():
    validation, test = walks(50, seed=1), walks(60, horizon=4, seed=2, spread=0.4)
    scores = np.zeros((50, 4, 4))
    cutoffs = test.cutoffs[0] + np.arange(60) * HOUR  # every hour: the outcomes of the last four are open
    stamps = cutoffs[:, None] + np.arange(1, 5) * HOUR
    actual = test.actual_close.copy()
    before = adaptive(test.close_paths, test.last_close, actual, cutoffs, stamps, scores)
    for step in range(4):
        changed = actual.copy()
        changed[30, step] *= 3
        after = adaptive(test.close_paths, test.last_close, changed, cutoffs, stamps, scores)
        known_from = 30 + step + 1
        np.testing.assert_array_equal(before[:known_from], after[:known_from])
        assert not np.array_equal(before[known_from:, :, step], after[known_from:, :, step])
    assert len(validation) == 50


def test_platt_finds_what_overconfident_probabilities_mean():
    rng = np.random.default_rng(0)
    honest = rng.uniform(0.2, 0.8, 4000)
    rose = rng.random(4000) < honest
    said = platt(honest, 3.0, 0.4)  # three times too sure, and shifted
    slope, intercept = fit_platt(said, rose)
    np.testing.assert_allclose(platt(said, slope, intercept), honest, atol=0.04)
    assert platt(np.array([0.0, 1.0]), 1.0, 0.0) == pytest.approx([1e-4, 1 - 1e-4])


def test_probabilities_that_are_wrong_way_round_are_flattened_not_inverted():
    rng = np.random.default_rng(0)
    share = rng.random(2000)
    slope, _ = fit_platt(share, rng.random(2000) > share)
    assert slope == pytest.approx(0, abs=1e-6)


def test_too_few_cutoffs_or_paths_that_are_all_one_are_refused():
    with pytest.raises(CalibrationError, match="only 10 cutoffs"):
        fitted(walks(10))
    with pytest.raises(CalibrationError, match=r"only 0 cutoffs have paths that differ"):
        fitted(walks(30, spread=0.0))


def test_paths_that_leave_the_positive_prices_are_left_out_and_left_alone():
    forecasts = walks(60, spread=0.5)
    paths = forecasts.paths.copy()
    paths[3, 0, 2], paths[3, 1, 2] = -1.0, 0.0
    changed = forecasts.with_paths(paths)
    calibration = fitted(changed)
    others = forecasts.with_paths(np.delete(paths, 3, axis=0))
    rest = conformity(others.close_paths, np.full(59, 100.0), np.delete(forecasts.actual_close, 3, axis=0))
    np.testing.assert_array_equal(calibration.widening, fit_widening(rest))
    applied = calibration.apply(paths, forecasts.last_close)
    np.testing.assert_array_equal(applied[3, :, 2], paths[3, :, 2])
    assert not np.array_equal(applied[3, :, 1], paths[3, :, 1])


def test_the_adaptive_correction_stays_as_it_was_where_too_few_outcomes_can_be_told():
    validation, test = walks(25, seed=1), walks(40, seed=2)
    scores = conformity(validation.close_paths, validation.last_close, validation.actual_close)
    paths = test.close_paths
    paths[:, :, 1] = 100.0  # all paths the same at one step
    truth = test.last_close, test.actual_close, test.cutoffs, test.stamps
    moved = adaptive(paths, *truth, scores)
    np.testing.assert_allclose(moved[:, :, 1], paths[:, :, 1])
    assert np.isfinite(moved).all()


def test_a_calibration_survives_the_disk_and_a_damaged_one_is_named(tmp_path):
    calibration = fitted(walks(30), metadata={"cutoffs": 30})
    calibration.save(tmp_path)
    assert Calibration.load(tmp_path) == calibration
    stored = json.loads((tmp_path / "calibration.json").read_text())
    assert stored["about"] == {"cutoffs": 30}
    assert "shrinkage" not in stored  # the content of earlier versions, and so the hash in their decision.json
    shrunk = replace(calibration, shrinkage=SpreadShrinkage(exponent=0.5, regression=REGRESSION))
    shrunk.save(tmp_path)
    assert Calibration.load(tmp_path) == shrunk
    (tmp_path / "calibration.json").write_text("{}")
    with pytest.raises(CalibrationError, match=r"calibration\.json: damaged"):
        Calibration.load(tmp_path)
    assert Calibration.load(tmp_path / "nowhere") is None
    with pytest.raises(CalibrationError, match="not calibrated"):
        Calibration.of(tmp_path / "nowhere")
