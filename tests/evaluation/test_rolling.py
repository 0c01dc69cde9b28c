"""Rolling forecasts, metrics, verdict and report."""

import re

import lightning as L
import numpy as np
import pytest

from kronos_lightning.data.formats import FEATURES
from kronos_lightning.evaluation.metrics import score
from kronos_lightning.evaluation.report import Picture, Report, Table, number
from kronos_lightning.evaluation.rolling import Cutoffs, rolling_forecasts
from kronos_lightning.evaluation.significance import judge
from kronos_lightning.forecast import Forecaster, ForecastSet
from kronos_lightning.forecast.plots import forecast_figure
from kronos_lightning.measure import overlap


def forecasts(candles, tokenizer, predictor, **changes):
    target = np.arange(len(candles)) >= 100
    options = {"lookback": 30, "horizon": 4, "max_cutoffs": 20, "batch_size": 8} | changes
    num_paths = options.pop("num_paths", 3)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    forecaster = Forecaster(tokenizer, predictor, 64)
    return rolling_forecasts(Cutoffs(candles, target, **options), forecaster, num_paths, seed=0, trainer=trainer)


def test_when_candles_after_a_cutoff_change_then_its_forecast_is_identical(candles, tiny_tokenizer, tiny_predictor):
    before = forecasts(candles, tiny_tokenizer, tiny_predictor)
    rows = candles.frame["timestamps"].dt.tz_localize(None).to_numpy() > before.cutoffs[9]
    changed = candles.frame.copy()
    changed.loc[rows, FEATURES] *= 1.5
    object.__setattr__(candles, "frame", changed)
    after = forecasts(candles, tiny_tokenizer, tiny_predictor)
    np.testing.assert_array_equal(before.paths[:10], after.paths[:10])
    assert not np.array_equal(before.paths[10:], after.paths[10:])
    np.testing.assert_array_equal(before.last_close[:10], after.last_close[:10])
    assert not np.array_equal(before.actual[9], after.actual[9])


def test_forecasts_line_up_with_what_came(candles, tiny_tokenizer, tiny_predictor):
    result = forecasts(candles, tiny_tokenizer, tiny_predictor)
    frame = candles.frame.assign(stamp=candles.frame["timestamps"].dt.tz_localize(None)).set_index("stamp")
    assert result.paths.shape == (len(result), 3, 4, 6)
    assert len(result) <= 20
    for i in (0, len(result) - 1):
        assert result.last_close[i] == frame["close"].loc[result.cutoffs[i]]
        np.testing.assert_array_equal(result.actual[i], frame.loc[result.stamps[i], FEATURES])
        assert result.stamps[i, 0] - result.cutoffs[i] == np.timedelta64(1, "h")
    assert len(set(np.diff(result.cutoffs))) == 1


def test_a_cutoffs_forecast_does_not_depend_on_the_other_cutoffs_or_their_batches(
    candles, tiny_tokenizer, tiny_predictor
):
    few = forecasts(candles, tiny_tokenizer, tiny_predictor, max_cutoffs=20, batch_size=8)
    many = forecasts(candles, tiny_tokenizer, tiny_predictor, max_cutoffs=None, batch_size=100)
    same = np.searchsorted(many.cutoffs, few.cutoffs)
    np.testing.assert_allclose(many.paths[same], few.paths, rtol=1e-5)


def test_every_cutoff_is_taken_without_a_limit(candles, tiny_tokenizer, tiny_predictor):
    assert len(forecasts(candles, tiny_tokenizer, tiny_predictor, max_cutoffs=None, num_paths=1, horizon=2)) == 499


def made(paths, actual, last):
    """A forecast set from closes: paths (N, S, h), actual (N, h), last (N,)."""
    paths, actual, last = (np.asarray(part, dtype=float) for part in (paths, actual, last))
    n, h = actual.shape
    stamps = np.datetime64("2024-01-01", "ns") + np.arange(n + h) * np.timedelta64(1, "D")
    future = np.stack([stamps[i + 1 : i + 1 + h] for i in range(n)])
    wide = np.repeat(paths[..., None], 6, axis=-1).astype(np.float32)
    return ForecastSet(stamps[:n], future, last, wide, np.repeat(actual[..., None], 6, axis=-1))


def test_metrics_equal_counting_by_hand():
    scores = score(made([[[101, 102]], [[99, 95]], [[100, 101]]], [[102, 104], [98, 97], [101, 99]], [100, 100, 100]))
    assert scores.model["mae"] == pytest.approx((1 + 2 + 1 + 2 + 1 + 2) / 6)
    assert scores.last_price["mae"] == pytest.approx((2 + 4 + 2 + 3 + 1 + 1) / 6)
    assert scores.model["rmse"] == pytest.approx(np.sqrt((1 + 4 + 1 + 4 + 1 + 4) / 6))
    assert scores.model["mape"] == pytest.approx(100 * np.mean([1 / 102, 2 / 104, 1 / 98, 2 / 97, 1 / 101, 2 / 99]))
    assert scores.model["direction_accuracy"] == pytest.approx(2 / 3)
    assert scores.majority_direction == pytest.approx(2 / 3)
    assert scores.model["trend_accuracy"] == pytest.approx(4 / 6)  # wrong: 100→101 (flat), 101→99
    assert scores.skill == pytest.approx(1 - 9 / 13)
    assert np.isnan(scores.last_price["direction_accuracy"])
    assert np.isnan(scores.last_price["return_correlation"])


def test_return_correlation_is_that_of_the_returns_over_the_horizon():
    rng = np.random.default_rng(0)
    last, paths, actual = np.full(50, 100.0), 100 + rng.normal(size=(50, 1, 3)), 100 + rng.normal(size=(50, 3))
    expected = np.corrcoef(paths[:, 0, -1].astype(np.float32), actual[:, -1])[0, 1]
    assert score(made(paths, actual, last)).model["return_correlation"] == pytest.approx(expected, abs=1e-6)


def test_the_last_price_has_a_volatility_error_of_one_and_a_perfect_path_none():
    actual = np.array([[101.0, 99, 102], [98, 99, 97]])
    scores = score(made(actual[:, None], actual, [100, 100]))
    assert scores.last_price["volatility_error"] == pytest.approx(1)
    assert scores.model["volatility_error"] == pytest.approx(0, abs=1e-5)


def random_walks(n, seed, spread):
    """Sample paths and reality: `spread` = 1 knows the distribution."""
    rng = np.random.default_rng(seed)
    actual = 100 + np.cumsum(rng.normal(size=(n, 5)), axis=1)
    return made(100 + np.cumsum(rng.normal(size=(n, 200, 5)) * spread, axis=2), actual, np.full(n, 100.0))


def test_coverage_is_right_for_the_true_distribution_and_low_for_narrow_paths():
    assert score(random_walks(400, 0, 1.0)).model["coverage_90"] == pytest.approx(0.9, abs=0.03)
    assert score(random_walks(400, 0, 0.2)).model["coverage_90"] < 0.4


def verdict_of(knowledge, seed, n=200):
    rng = np.random.default_rng(seed)
    actual = 100 + np.cumsum(rng.normal(size=(n, 5)), axis=1)
    noise = rng.normal(size=(n, 5)) * 0.5
    point = {"truth": 100 + 0.5 * (actual - 100), "none": 100 + noise * 0.01, "noise": 100 + noise * 6}[knowledge]
    return judge(score(made(point[:, None], actual, np.full(n, 100.0))), overlap=1, samples=500, seed=seed)


def test_a_forecaster_that_knows_wins_and_one_that_adds_noise_loses():
    assert verdict_of("truth", 0).words == "better than the last price"
    assert verdict_of("noise", 0).words == "worse than the last price"


def test_without_skill_the_verdict_is_no_edge_almost_always():
    words = [verdict_of("none", seed).words for seed in range(40)]
    assert sum("no edge" in text for text in words) >= 35


def test_few_cutoffs_are_not_judged():
    verdict = verdict_of("truth", 0, n=20)
    assert "too few" in verdict.words
    assert np.isnan(verdict.lower)


def test_overlap_counts_the_cutoffs_that_share_target_candles(candles, tiny_tokenizer, tiny_predictor):
    assert overlap(forecasts(candles, tiny_tokenizer, tiny_predictor, max_cutoffs=None, num_paths=1)) == 4
    assert overlap(forecasts(candles, tiny_tokenizer, tiny_predictor, max_cutoffs=100)) == 1


def test_the_report_is_self_contained_and_escapes_what_it_shows(tmp_path):
    figure = forecast_figure(np.full((1, 5, 4), 9.0), np.ones((1, 3, 2, 4)), np.ones((1, 2, 4)), ["a"], "b")
    table = Table("Figures", ["Figure", "Model"], [["mae", number(1234.5)], ["undefined", number(float("nan"))]])
    Report("Title <script>", "sub", ["No edge."], "bad", ["Note"], [table], [Picture("Fan", "fan", figure)]).write(
        tmp_path
    )
    page = (tmp_path / "report.html").read_text()
    assert (tmp_path / "fan.png").read_bytes().startswith(b"\x89PNG")
    assert "Title &lt;script&gt;" in page
    assert "data:image/png;base64," in page
    assert re.findall(r'(?:src|href)="(?!data:)', page) == []
    assert "1,234.50" in page
    assert "<td>–</td>" in page
