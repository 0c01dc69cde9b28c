"""All forecasters side by side, and the verdict."""

import json
import re
from dataclasses import replace
from io import StringIO
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from kronos_lightning.config.validation import check_evaluation
from kronos_lightning.data.candles import Candles
from kronos_lightning.evaluation.metrics import forecast_metrics
from kronos_lightning.forecast import ForecastSet
from kronos_lightning.forecast.calibration import SpreadShrinkage
from kronos_lightning.forecast.sampling import Sampling
from kronos_lightning.pipeline.backtesting import trade
from kronos_lightning.pipeline.baselines import baseline_paths
from kronos_lightning.pipeline.competitors import MODEL, Competitors, best_on
from kronos_lightning.pipeline.forecasting import (
    RangeForecasts,
    adaptively_corrected,
    fit_calibration,
    join,
)
from kronos_lightning.pipeline.notices import all_notices
from kronos_lightning.pipeline.scoreboard import ADAPTIVE, SAMPLED, EvaluationResult, by_fold, score_all
from kronos_lightning.reporting.evaluation_report import _pair_table, print_tables, report
from kronos_lightning.reporting.files import hyperparameters, tables, write
from kronos_lightning.reporting.html import ReportTable
from kronos_lightning.runs.checkpoint_lookup import Sources
from tests.helpers.configuration import composed
from tests.helpers.evaluated import REGRESSION
from tests.helpers.forecasts import forecasts_on, walks
from tests.helpers.garch_market import garch_candles, true_paths

HORIZON = 4
QUICK = [
    "evaluation.baselines=[last_price_60,garch]", "evaluation.bootstrap_samples=300", "evaluation.refit_every=1000",
    "backtest.random_runs=10", "data.interval=1h",
]  # fmt: skip


def evaluation(*overrides):
    return check_evaluation(composed("evaluate", *QUICK, *overrides))


SETTINGS = evaluation()
NOBODY = Sources(predictor="new", tokenizer="new", info=None, random=True, random_tokenizer=True)


def uncalibrated(forecasts, **compared):
    sources = dict.fromkeys(compared, NOBODY)
    return RangeForecasts(sources=NOBODY, sampled=forecasts, compared=compared, compared_sources=sources)


@pytest.fixture(scope="module")
def market():
    """GARCH candles, cutoffs without common targets, and paths of the true distribution."""
    candles, sigma = garch_candles(6_000, seed=5)
    rows = np.arange(4_000, 5_990, HORIZON)
    truth = true_paths(candles, sigma, rows, horizon=HORIZON, num_paths=60, seed=1)
    forecasts = forecasts_on(candles, rows, truth)
    baselines = baseline_paths(SETTINGS, candles, forecasts)
    return SimpleNamespace(candles=candles, rows=rows, forecasts=forecasts, truth=truth, baselines=baselines)


def competitors(market, **changes):
    return Competitors(baselines=market.baselines, **changes)


def board(market, paths, **compared):
    forecasts = forecasts_on(market.candles, market.rows, paths)
    return score_all(SETTINGS, market.candles, uncalibrated(forecasts, **compared), competitors(market))


def test_on_garch_candles_garch_is_the_best_baseline_and_the_true_distribution_no_worse(market):
    found = board(market, market.truth)
    assert found.best == "garch"
    assert not found.verdict.worse
    assert forecast_metrics(found.scores["garch"])["coverage_90"] == pytest.approx(0.9, abs=0.03)


def test_a_forecaster_that_knows_a_part_of_what_comes_wins_and_one_that_adds_noise_loses(market):
    last, actual = market.forecasts.last_close[:, None], market.forecasts.actual_close
    knowing = market.truth * ((actual / last) ** 0.3)[:, None]
    assert board(market, knowing).verdict.text == "better than garch"
    noise = np.exp(np.random.default_rng(0).normal(0, 0.02, (len(last), 1, HORIZON)))
    assert board(market, market.truth * noise).verdict.text == "no edge, worse than garch"


def test_other_checkpoints_stand_in_the_same_table_and_the_model_beside_each(market):
    narrow = np.median(market.truth, axis=1, keepdims=True) + 0.1 * (
        market.truth - np.median(market.truth, axis=1)[:, None]
    )
    found = board(market, market.truth, untuned=narrow)
    assert found.vs_checkpoints["untuned"].text == "better than untuned"
    table = found.table().set_index("forecaster")
    assert list(table.index) == [MODEL, "untuned", "last_price_60", "garch"]
    assert table.loc["garch", "skill"] == 0
    assert table.loc["untuned", "skill"] == pytest.approx(1 - table.loc["untuned", "crps"] / table.loc["garch", "crps"])


def test_the_comparisons_with_checkpoints_are_corrected_for_their_number(market):
    noise = np.random.default_rng(3).normal(0, 1e-4, (4, *market.truth.shape[::2]))
    others = {f"other {i}": market.truth * np.exp(one)[:, None] for i, one in enumerate(noise)}
    found = board(market, market.truth, **others)
    smallest = min(found.vs_checkpoints.values(), key=lambda one: one.p_value)
    assert smallest.family == 4
    assert smallest.corrected == pytest.approx(min(1.0, 4 * smallest.p_value))
    assert found.table().set_index("forecaster").loc["other 0", "p_holm"] == found.vs_best_baseline["other 0"].corrected


def test_every_two_checkpoints_are_compared_and_corrected_for_the_number_of_pairs(market):
    noise = np.random.default_rng(3).normal(0, 5e-3, (2, *market.truth.shape[::2]))
    others = {f"other {i}": market.truth * np.exp(one)[:, None] for i, one in enumerate(noise)}
    found = board(market, market.truth, **others)
    assert list(found.pairs) == [(MODEL, "other 0"), (MODEL, "other 1"), ("other 0", "other 1")]
    assert {one.family for one in found.pairs.values()} == {3}
    assert found.pairs[MODEL, "other 1"].p_value == found.vs_checkpoints["other 1"].p_value
    assert found.pairs[MODEL, "other 0"].better
    losses = {name: found.scores[name].loss.mean() for name in others}
    skill = 1 - losses["other 0"] / losses["other 1"]
    assert found.pairs["other 0", "other 1"].skill == pytest.approx(skill)
    assert _pair_table(found).rows[0][2].endswith("*")
    assert not board(market, market.truth).pairs


def test_the_verdict_is_against_the_best_baseline_on_validation_and_the_best_on_test_is_told(market):
    forecasts = forecasts_on(market.candles, market.rows, market.truth)
    found = score_all(
        SETTINGS, market.candles, uncalibrated(forecasts), competitors(market, best_on_validation="last_price_60")
    )
    assert (found.best, found.verdict.other, found.on_test.other) == ("last_price_60", "last_price_60", "garch")
    assert found.verdict.better
    assert not found.on_test.better
    assert board(market, market.truth).verdict == found.on_test


def test_the_skill_over_seeds_is_that_of_their_mean_loss(market):
    noise = np.random.default_rng(3).normal(0, 3e-3, (2, *market.truth.shape[::2]))
    others = {f"seed {i}": market.truth * np.exp(one)[:, None] for i, one in enumerate(noise)}
    part = replace(uncalibrated(market.forecasts), seeds=others)
    found = score_all(SETTINGS, market.candles, part, competitors(market))
    skills = found.over_seeds.skills
    assert list(skills) == [MODEL, "seed 0", "seed 1"]
    assert found.over_seeds.mean.skill == pytest.approx(np.mean(list(skills.values())))
    assert found.over_seeds.deviation == pytest.approx(np.std(list(skills.values()), ddof=1))
    assert board(market, market.truth).over_seeds is None


def test_the_best_baseline_is_chosen_by_its_crps(market):
    assert best_on(market.forecasts, market.baselines) == "garch"


def calibrated_part(seed, spread):
    """A part whose paths are too narrow, calibrated on other walks."""
    validation, test = walks(120, seed=seed, spread=spread), walks(150, seed=seed + 100, spread=spread)
    calibration, scores = fit_calibration(SETTINGS, "BTCUSDT", validation, Sampling())
    return RangeForecasts(
        sources=NOBODY,
        sampled=test,
        calibrated=test.calibrated(calibration),
        adaptive=adaptively_corrected(test, calibration, scores),
        validation=validation.calibrated(calibration),
    )


def test_calibration_is_shown_before_and_after_and_the_model_is_the_calibrated_one(candles):
    part = calibrated_part(0, spread=0.3)
    part_candles = replace(candles, frame=hours(part.forecasts))
    found = score_all(
        SETTINGS, part_candles, part, Competitors(baselines={"last_price_60": walks(150, seed=7).close_paths})
    )
    before, after = (forecast_metrics(found.scores[name])["coverage_90"] for name in (SAMPLED, MODEL))
    assert before < 0.5
    assert after == pytest.approx(0.9, abs=0.05)
    assert forecast_metrics(found.scores[ADAPTIVE])["coverage_90"] == pytest.approx(0.9, abs=0.05)
    paths = part.calibration.apply(part.sampled.paths, part.sampled.last_close)
    up = part.calibration.probability_up((paths[..., 3] > 100).mean(axis=1))
    assert forecast_metrics(found.scores[MODEL])["brier"] == pytest.approx(
        np.square(up - (part.sampled.actual_close > 100)).mean()
    )


def hours(forecasts):
    """A candle frame that spans a forecast set and 100 hours before."""
    first, last = forecasts.cutoffs[0] - np.timedelta64(100, "h"), forecasts.stamps[-1, -1]
    stamps = pd.date_range(first, last, freq="h", tz="UTC")
    rng = np.random.default_rng(0)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, len(stamps))))
    frame = pd.DataFrame({"timestamps": stamps, **dict.fromkeys(("open", "high", "low", "close"), close)})
    return frame.assign(volume=1.0, amount=close, segment=0)


@pytest.fixture(scope="module")
def folded():
    """A result of two folds."""
    parts = [calibrated_part(0, 0.5), calibrated_part(1, 0.5)]
    second = parts[1].sampled
    shift = parts[0].sampled.stamps[-1, -1] - second.cutoffs[0]
    moved = {name: replace(getattr(parts[1], name), cutoffs=second.cutoffs + shift, stamps=second.stamps + shift)
             for name in ("sampled", "calibrated")}  # fmt: skip
    parts[1] = replace(parts[1], **moved)
    whole = join(parts)
    candles = Candles(
        frame=hours(whole.forecasts), symbol="SIMULATED", interval=pd.Timedelta("1h"), source="made", synthetic=True
    )
    rivals = Competitors(baselines=baseline_paths(SETTINGS, candles, whole.sampled))
    found = score_all(SETTINGS, candles, whole, rivals)
    trading = trade(SETTINGS, candles, whole.calibrated)
    return EvaluationResult(
        settings=SETTINGS, candles=candles, parts=parts, whole=whole, competitors=rivals, board=found, trading=trading
    )


def test_the_folds_of_a_walk_forward_are_joined_into_one_table(folded):
    assert len(folded.whole.forecasts) == 300
    assert (np.diff(folded.whole.forecasts.cutoffs) > np.timedelta64(0)).all()
    folds = by_fold(folded)
    assert folds["cutoffs"].tolist() == [150, 150]
    assert folds["crps"].mean() == pytest.approx(forecast_metrics(folded.board.scores[MODEL])["crps"])
    assert folds["to"][0] < folds["from"][1]
    titles = [table.title for table in report(folded).tables]
    assert "Walk-forward folds" in titles


def test_the_files_for_machines_hold_what_the_page_says(folded, tmp_path):
    write(folded, tmp_path)
    content = json.loads((tmp_path / "metrics.json").read_text())
    page = report(folded)
    assert content["verdict"] == list(page.verdict)
    assert content["notices"] == list(page.notices) == all_notices(folded.candles, folded.parts)
    board = pd.read_csv(tmp_path / "scoreboard.csv").set_index("forecaster")
    assert board.loc[MODEL, "crps"] == pytest.approx(content["figures"][MODEL]["crps"])
    assert set(tables(folded)) == {"scoreboard", "risk", "by_step", "by_month", "by_regime", "by_fold"}
    steps = pd.read_csv(tmp_path / "by_step.csv")
    assert len(steps) == 5 * len(board)
    assert len(pd.read_csv(tmp_path / "risk.csv")) == len(content["risk"]["by_step"]) == 2 * 5
    assert content["risk"]["stop_before_target"]["down"] == SETTINGS.backtest.stop_loss
    assert len(pd.read_csv(tmp_path / "trades.csv")) == content["trading"]["backtest"]["trades"]


def test_tensorboard_lists_settings_and_final_metrics(folded, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write(folded, tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    shown = {tag: events.Scalars(tag)[0].value for tag in events.Tags()["scalars"]}
    assert shown["evaluation/crps"] == pytest.approx(forecast_metrics(folded.board.scores[MODEL])["crps"], rel=1e-5)
    assert "evaluation/skill" in shown
    assert "evaluation/total_return" in shown
    assert hyperparameters(folded)["forecast.num_paths"] == 100


def test_plots_tables_and_verdict_of_the_report(folded, tmp_path):
    page = report(folded)
    page.write(tmp_path)
    names = {"fan_charts", "risk", "by_step", "pit", "reliability", "skill_over_time", "equity", "costs"}
    assert names <= {path.stem for path in tmp_path.glob("*.png")}
    assert page.verdict[0].startswith("Forecast: ")
    assert page.verdict[1].startswith("Without calibration of the model: ")
    assert any("after calibration" in sentence for sentence in page.verdict)
    titles = {table.title for table in page.tables}
    assert {"Calibration, fitted on validation, measured on test", "Risk of a long position"} <= titles


def test_every_date_below_the_skill_has_month_and_year(folded):
    figure = next(plot.figure for plot in report(folded).plots if plot.name == "skill_over_time")
    figure.draw_without_rendering()
    labels = [label.get_text() for label in figure.axes[-1].get_xticklabels()]
    assert labels
    assert all(re.fullmatch(r"(\d\d:\d\d\n)?[A-Z]\w\w( \d\d)?\n\d{4}", label) for label in labels), labels


def test_baselines_settings_choose_them_and_their_refits(market):
    def found(*overrides):
        return baseline_paths(evaluation(*overrides), market.candles, few)

    known = {name: values for name, values in vars(market.forecasts).items() if values is not None}
    few = ForecastSet(**{name: values[:3] for name, values in known.items()})
    assert list(found("evaluation.baselines=[drift,seasonal]")) == ["drift", "seasonal"]
    usual, often = (found("evaluation.baselines=[drift]", f"evaluation.refit_every={n}") for n in (1000, 7))
    assert not np.array_equal(usual["drift"], often["drift"])


def test_the_number_of_resamplings_changes_the_interval(market):
    section = SETTINGS.evaluation.model_copy(update={"bootstrap_samples": 50})
    part = uncalibrated(market.forecasts)
    one, other = (score_all(settings, market.candles, part, competitors(market)).verdict
                  for settings in (SETTINGS, SETTINGS.model_copy(update={"evaluation": section})))  # fmt: skip
    assert one.lower != other.lower
    assert one.p_value == other.p_value


def test_the_report_tells_what_the_calibration_changes(folded):
    calibration = folded.whole.calibration
    told = dict(report(folded).facts)["Calibration"]
    assert f"drift × {calibration.drift:g}, spread × {min(calibration.spread):.2f}" in told
    assert "volatility regression" not in told
    shrunk = replace(calibration, shrinkage=SpreadShrinkage(exponent=0.5, regression=REGRESSION))
    whole = replace(folded.whole, calibrated=replace(folded.whole.calibrated, calibration=shrunk))
    told = dict(report(replace(folded, whole=whole)).facts)["Calibration"]
    assert "drawn to the volatility regression with exponent 0.5" in told


def test_a_long_path_is_shortened_to_its_end_on_the_terminal(folded):
    page = report(folded)
    table = ReportTable(title="T", columns=["Name", "CRPS"], rows=[["/a/very/long/path/to/the/runs/of_seed_2", "1"]])
    page.tables = [table]
    with StringIO() as written:
        print_tables(page, Console(file=written))
        assert "…very/long/path/to/the/runs/of_seed_2"[-29:] in written.getvalue()
        assert "/a/very" not in written.getvalue()
