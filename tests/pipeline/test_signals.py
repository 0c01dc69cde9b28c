"""The same moment gives the same signal, whichever route asks."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from kronos_lightning import Kronos, KronosPredictor, KronosTokenizer
from kronos_lightning.config.validation import check_forecasting
from kronos_lightning.forecast import Forecaster, ForecastSet, Sampling, cutoff_name
from kronos_lightning.forecast.series import read_series
from kronos_lightning.pipeline.decision_settings import DecisionError, DecisionSettings, as_evaluated
from kronos_lightning.pipeline.signals import decide_at, decide_together, decisions
from tests.helpers.commands import command
from tests.helpers.configuration import composed
from tests.helpers.evaluated import (
    HORIZON,
    HOURS,
    THRESHOLDS,
    btc_hours,
    calibration_of,
    evaluated_at,
    evaluated_checkpoint,
    known,
)
from tests.helpers.paths import GOLDEN

ROW = 280


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    calibration = calibration_of()
    return folder, evaluated_checkpoint(folder, calibration), calibration


def forecaster_of(decision, calibration=None):
    networks = KronosTokenizer.from_pretrained(GOLDEN / "tiny-tokenizer"), None
    return Forecaster(
        networks[0],
        Kronos.from_pretrained(GOLDEN / "tiny-predictor"),
        max_context=decision.max_context,
        clip=decision.clip,
        sampling=Sampling.of(decision.forecast),
        calibration=calibration,
    )


def series_at(row, horizon=HORIZON, lookback=90):
    return read_series(known(btc_hours(), row, lookback), horizon)


def same(first, second):
    """Two decisions are equal to the bit."""
    return first.summary() == second.summary() and np.array_equal(first.paths, second.paths)


def test_a_cutoff_has_one_name_whatever_type_its_stamp_has():
    names = {
        cutoff_name(np.datetime64("2024-03-10T07", "ns")),
        cutoff_name(np.datetime64("2024-03-10T07", "s")),
        cutoff_name(pd.Timestamp("2024-03-10 07:00", tz="UTC")),
        cutoff_name(pd.Timestamp("2024-03-10 09:00", tz="Europe/Helsinki")),
        cutoff_name(pd.Timestamp("2024-03-10 07:00")),
    }
    assert names == {"1710054000000"}


def test_evaluation_and_decision_agree_to_the_bit(checkpoint):
    _, decision, calibration = checkpoint
    strategy, rows = decision.build_strategy(), np.array([200, 240, ROW])
    sampled = evaluated_at(btc_hours(), rows, forecaster_of(decision), decision)
    evaluated = decisions(sampled.calibrated(calibration), strategy)
    forecaster = forecaster_of(decision, calibration)
    for row, one in zip(rows, evaluated, strict=True):
        alone = decide_at(series_at(row), forecaster, strategy, decision.forecast.num_paths, decision.seed)
        assert same(one, alone)
        assert one.last_close == btc_hours().frame["close"][row]  # not rounded to float32


def test_the_forecast_command_decides_as_the_evaluation_did(checkpoint, tmp_path):
    folder, decision, calibration = checkpoint
    sampled = evaluated_at(btc_hours(), np.array([ROW]), forecaster_of(decision), decision)
    (evaluated,) = decisions(sampled.calibrated(calibration), decision.build_strategy())
    pd.read_csv(HOURS).iloc[: ROW + 1].to_csv(tmp_path / "BTCUSDT.csv", index=False)
    result = command("kronos_lightning.forecast", "BTCUSDT.csv", f"predictor={folder}", cwd=tmp_path)
    output = tmp_path / "outputs" / "forecasts" / "BTCUSDT"
    told = json.loads((output / "signal.json").read_text())
    assert told == json.loads(json.dumps(evaluated.summary())) | {"overrides": {}}
    np.testing.assert_array_equal(np.load(output / "paths.npy"), evaluated.paths)
    assert f"Signal: {evaluated.signal}" in result.stdout
    assert "NOT COMPARABLE" not in result.stdout


def test_what_is_given_goes_before_what_was_evaluated_and_is_told(checkpoint):
    _, decision, _ = checkpoint
    settings = check_forecasting(composed("forecast", "candles=x", "horizon=5", "forecast.top_p=0.5", "seed=100"))
    used, overrides = as_evaluated(settings, decision, {"candles", "horizon", "forecast.top_p", "seed"})
    assert overrides == {"horizon": 5, "forecast.top_p": 0.5}
    assert (used.horizon, used.lookback, used.forecast.num_paths) == (5, 90, decision.forecast.num_paths)
    assert (used.forecast.top_p, used.forecast.temperature) == (0.5, 0.9)
    assert used.model.name == "golden"


@pytest.mark.parametrize(
    "change",
    ["seed name", "amount", "lookback", "unfinished candle", "threshold"],
)
def test_every_difference_between_routes_would_be_seen(checkpoint, change, monkeypatch):
    _, decision, _ = checkpoint
    strategy, forecaster, series = decision.build_strategy(), forecaster_of(decision), series_at(ROW)
    paths, seed = decision.forecast.num_paths, decision.seed
    usual = decide_at(series, forecaster, strategy, paths, seed)
    if change == "seed name":
        monkeypatch.setattr("kronos_lightning.pipeline.signals.cutoff_name", str)
    elif change == "amount":
        series = read_series(known(btc_hours(), ROW).drop(columns="amount"), HORIZON)
    elif change == "lookback":
        series = series_at(ROW, lookback=89)
    elif change == "unfinished candle":
        series = series_at(ROW + 1)
    else:
        strategy = decision.model_copy(update={"strategy": THRESHOLDS | {"buy_threshold": 0.0199}}).build_strategy()
    assert same(usual, decide_at(series_at(ROW), forecaster_of(decision), decision.build_strategy(), paths, seed)) == (
        change != "seed name"
    )
    assert not same(usual, decide_at(series, forecaster, strategy, paths, seed))


def test_the_other_series_of_a_batch_change_a_decision_within_the_tolerance(checkpoint):
    _, decision, calibration = checkpoint
    forecaster, strategy = forecaster_of(decision, calibration), decision.build_strategy()
    many = [series_at(row) for row in range(200, 216)]
    for one, alone in zip(decide_together(many, forecaster, strategy, 20, 1), many, strict=True):
        expected = decide_at(alone, forecaster, strategy, 20, 1)
        assert one.expected_return == pytest.approx(expected.expected_return, abs=1e-6)
        assert one.signal == expected.signal or one.at_threshold


def test_a_decision_says_what_its_paths_say(checkpoint):
    _, decision, calibration = checkpoint
    strategy = decision.build_strategy()
    found = decide_at(series_at(ROW), forecaster_of(decision, calibration), strategy, 20, 1)
    close = found.paths[:, -1, 3].astype(float)
    assert found.predicted_price / found.last_close - 1 == pytest.approx(found.expected_return, rel=1e-12, abs=1e-15)
    assert found.predicted_price == pytest.approx(np.median(close))
    assert found.up == pytest.approx(calibration.probability_up(np.array((close > found.last_close).mean())))
    assert found.confidence == max(found.up, 1 - found.up)
    assert replace(found, calibrated_steps=HORIZON - 1).confidence is None  # beyond the calibrated steps
    assert decide_at(series_at(ROW), forecaster_of(decision), strategy, 20, 1).confidence is None
    assert replace(found, up=0.5).trend == "flat"
    assert (replace(found, up=0.9).trend, replace(found, up=0.1).trend) == ("up", "down")
    assert replace(found, compared=0.0200005).at_threshold
    assert not replace(found, compared=0.0201).at_threshold


def test_a_probability_strategy_compares_the_probability(checkpoint):
    _, decision, _ = checkpoint
    strategy = decision.model_copy(update={"strategy": THRESHOLDS | {"signal": "probability"}}).build_strategy()
    found = decide_at(series_at(ROW), forecaster_of(decision), strategy, 20, 1)
    assert (found.statistic, found.compared) == ("probability", pytest.approx(found.share_up - 0.5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "decision.json").unlink(), "run evaluate.py on this checkpoint first"),
        (lambda folder: (folder / "decision.json").write_text("{"), "damaged or of another version"),
        (lambda folder: (folder / "decision.json").write_text('{"version": 2}'), "another version"),
    ],
)
def test_a_checkpoint_without_a_valid_decision_file_is_told_in_one_sentence(change, message, tmp_path):
    evaluated_checkpoint(tmp_path)
    change(tmp_path)
    with pytest.raises(DecisionError, match=message):
        DecisionSettings.of(tmp_path)


def test_another_calibration_than_that_of_the_evaluation_is_refused(tmp_path):
    decision = evaluated_checkpoint(tmp_path, calibration_of())
    assert decision.checked_calibration(tmp_path) == calibration_of()
    calibration_of(slope=0.5).save(tmp_path)
    with pytest.raises(DecisionError, match="not the one"):
        decision.checked_calibration(tmp_path)


@pytest.mark.parametrize("target", ["os.system", "kronos_lightning.data.files.archive", "kronos_lightning.nothing.X"])
def test_a_checkpoint_folder_cannot_name_code_to_run(target, tmp_path):
    decision = evaluated_checkpoint(tmp_path, strategy={"_target_": target})
    with pytest.raises(DecisionError):
        decision.build_strategy()


def test_the_parameters_that_validation_chose_decide(tmp_path):
    decision = evaluated_checkpoint(tmp_path, parameters={"threshold": 0.005})
    assert decision.build_strategy().parameters == {"sell": -0.005, "buy": 0.005}
    assert DecisionSettings.of(tmp_path) == decision


def test_fifty_threads_share_a_forecaster_and_each_gets_its_own_forecast(checkpoint):
    _, decision, _ = checkpoint
    rows = [150 + i for i in range(50)]
    expected = [decide_at(series_at(row), forecaster_of(decision), decision.build_strategy(), 3, 1) for row in rows[:6]]
    shared, strategy = forecaster_of(decision), decision.build_strategy()
    with ThreadPoolExecutor(50) as pool:
        found = list(pool.map(lambda row: decide_at(series_at(row), shared, strategy, 3, 1), rows))
    assert all(same(one, other) for one, other in zip(expected, found, strict=False))


def test_threads_of_a_published_predictor_do_not_exchange_their_sampling():
    tokenizer, model = (
        KronosTokenizer.from_pretrained(GOLDEN / "tiny-tokenizer"),
        Kronos.from_pretrained(GOLDEN / "tiny-predictor"),
    )
    predictor, frame = KronosPredictor(model, tokenizer, device="cpu"), btc_hours().frame

    def predict(top_k):
        known, future = frame.iloc[:48], frame["timestamps"].iloc[48:52]
        return predictor.predict(known, known["timestamps"], future, 4, top_k=top_k, top_p=1.0, verbose=False)

    greedy = predict(1)
    with ThreadPoolExecutor(50) as pool:
        found = list(pool.map(predict, [1, 0] * 25))
    assert all(one.equals(greedy) for one in found[::2])
    assert not all(one.equals(greedy) for one in found[1::2])
    assert torch.get_num_threads() >= 1


def test_a_loaded_forecast_set_decides_as_before(tmp_path, checkpoint):
    _, decision, calibration = checkpoint
    sampled = evaluated_at(btc_hours(), np.array([200, ROW]), forecaster_of(decision), decision)
    before = sampled.calibrated(calibration)
    before.save(tmp_path)
    pairs = zip(
        decisions(before, decision.build_strategy()),
        decisions(ForecastSet.load(tmp_path), decision.build_strategy()),
        strict=True,
    )
    assert all(same(one, other) for one, other in pairs)
