"""Rolling forecasts and the report's page."""

import re
from dataclasses import replace

import lightning as L
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kronos_lightning.data import CandleError
from kronos_lightning.data.formats import FEATURES
from kronos_lightning.evaluation.rolling import Cutoffs, rolling_forecasts, spread_evenly
from kronos_lightning.forecast import Forecaster
from kronos_lightning.forecast.plots import forecast_figure
from kronos_lightning.pipeline.forecasting import overlap
from kronos_lightning.plotting.formats import number
from kronos_lightning.reporting.html import Report, ReportPlot, ReportTable
from tests.helpers.pages import loaded


def forecasts(candles, tokenizer, predictor, **changes):
    target = np.arange(len(candles)) >= 100
    options = {"lookback": 30, "horizon": 4, "max_cutoffs": 20, "batch_size": 8} | changes
    num_paths = options.pop("num_paths", 3)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    forecaster = Forecaster(tokenizer, predictor, max_context=64)
    return rolling_forecasts(Cutoffs(candles, target, **options), forecaster, num_paths, seed=0, trainer=trainer)


def test_when_candles_after_a_cutoff_change_then_its_forecast_is_identical(candles, tiny_tokenizer, tiny_predictor):
    before = forecasts(candles, tiny_tokenizer, tiny_predictor)
    changed = candles.frame.copy()
    changed.loc[candles.times > before.cutoffs[9], FEATURES] *= 1.5
    after = forecasts(replace(candles, frame=changed), tiny_tokenizer, tiny_predictor)
    np.testing.assert_array_equal(before.paths[:10], after.paths[:10])
    assert not np.array_equal(before.paths[10:], after.paths[10:])
    np.testing.assert_array_equal(before.last_close[:10], after.last_close[:10])
    assert not np.array_equal(before.actual[9], after.actual[9])


def test_forecasts_line_up_with_what_came(candles, tiny_tokenizer, tiny_predictor):
    result = forecasts(candles, tiny_tokenizer, tiny_predictor)
    frame = candles.frame.set_index(candles.times)
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


def test_every_process_gets_cutoffs_or_the_evaluation_is_refused(candles):
    target = np.arange(len(candles)) >= 100
    cutoffs = Cutoffs(candles, target, lookback=30, horizon=4, max_cutoffs=7, batch_size=100)
    assert len(cutoffs) == 1
    cutoffs.share(3)
    assert len(cutoffs) >= 3
    assert sum(len(cutoffs[i].cutoff) for i in range(len(cutoffs))) == len(cutoffs.rows)
    with pytest.raises(CandleError, match="are too few for"):
        cutoffs.share(8)


def test_overlap_counts_the_cutoffs_that_share_target_candles(candles, tiny_tokenizer, tiny_predictor):
    assert overlap(forecasts(candles, tiny_tokenizer, tiny_predictor, max_cutoffs=None, num_paths=1)) == 4
    assert overlap(forecasts(candles, tiny_tokenizer, tiny_predictor, max_cutoffs=100)) == 1


def test_the_report_is_self_contained_and_escapes_what_it_shows(tmp_path):
    figure = forecast_figure(np.full((1, 5, 4), 9.0), np.ones((1, 3, 2, 4)), np.ones((1, 2, 4)), ["a"], "b")
    rows = [["mae", number(1234.5)], ["undefined", number(float("nan"))]]
    Report(
        title="Title <script>",
        subtitle="sub",
        verdict=["No edge."],
        tone="bad",
        notices=["Note"],
        tables=[ReportTable(title="Figures", columns=["Figure", "Model"], rows=rows)],
        plots=[ReportPlot(title="Fan", name="fan", figure=figure)],
    ).write(tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert (tmp_path / "fan.png").read_bytes().startswith(b"\x89PNG")
    assert "Title &lt;script&gt;" in page
    assert "data:image/png;base64," in page
    assert re.findall(r'(?:src|href)="(?!data:)', page) == []
    assert loaded(tmp_path) == {}
    assert "1,234.50" in page
    assert "<td>–</td>" in page


@given(st.integers(1, 3000), st.integers(1, 400), st.sampled_from([1, 7, 24, 96]))
def test_cutoffs_are_few_enough_and_almost_evenly_spread(available, at_most, season):
    places = spread_evenly(available, at_most, season)
    assert 1 <= len(places) <= at_most
    assert places[0] == 0
    assert places[-1] < available
    distance = -(-available // at_most)
    assert set(np.diff(places)) <= {distance, distance + 1}
    assert available - places[-1] <= 2 * distance + len(places) / season * distance


@pytest.mark.parametrize("distance", [1, *range(4, 49)])
def test_cutoffs_visit_every_hour_of_the_day(distance):
    places = spread_evenly(distance * 1000, 1000, 24)
    counts = np.bincount(places % 24, minlength=24)
    assert counts.min() >= 0.9 * counts.max()
    assert len(places) >= 0.95 * 1000
