"""The leak certificate: planted leaks are caught by the machine that passes their honest twins."""

import inspect
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kronos_lightning import Kronos, KronosTokenizer
from kronos_lightning.backtest import HOLD, ThresholdStrategy, run_backtest
from kronos_lightning.cli.errors import one_line_errors
from kronos_lightning.cli.leakcheck import SUFFIX, main
from kronos_lightning.config.validation import check_evaluation
from kronos_lightning.data.candles import validate
from kronos_lightning.data.formats import CLOSE, FEATURES
from kronos_lightning.data.sources.synthetic import sample_candles
from kronos_lightning.data.windows import normalise
from kronos_lightning.evaluation.baselines import Drift, LastPrice
from kronos_lightning.evaluation.calibration import adaptive
from kronos_lightning.evaluation.leakcheck import Subject, prove, subjects
from kronos_lightning.evaluation.leakcheck.proof import ALL, FUTURES, VoidProof, compare, mutate, remembered
from kronos_lightning.evaluation.leakcheck.splits import check_calibration, check_record, check_splits
from kronos_lightning.forecast import Forecaster, ForecastSet
from kronos_lightning.model import layers
from kronos_lightning.pipeline import backtesting
from kronos_lightning.pipeline.leakcheck import Pipeline, fill_subjects, trading_subjects
from tests.helpers.candles import utc
from tests.helpers.commands import QUICK_EVALUATE, command
from tests.helpers.configuration import composed
from tests.helpers.networks import TINY_PREDICTOR, TINY_TOKENIZER

LOOKBACK, HORIZON = 24, 4
CUTOFFS = [300, 301, 450]
CANDLES = sample_candles(600, "1h", "2023-01-01", seed=3, start_price=100.0, volatility=0.8)


def verdict(subject, cutoffs=CUTOFFS):
    (finding,) = prove([subject], CANDLES, cutoffs, seed=1)
    return finding.verdict


def planted(honest, leaking):
    """Parameters of a test that runs an honest function and its leaking twin."""
    twins = [pytest.param(honest, "proved", id="honest"), pytest.param(leaking, "leak", id="leak")]
    return pytest.mark.parametrize(("function", "expected"), twins)


def feature(of_close):
    """A column made from the whole close, looked up at the row."""
    return lambda candles, row: {"feature": of_close(candles.frame["close"]).to_numpy()[row : row + 1]}


def window_normalised_by(statistics_rows):
    def at(candles, row):
        values = candles.frame[FEATURES].to_numpy(np.float32)[row + 1 - LOOKBACK : row + 1 + HORIZON]
        return {"x": normalise(torch.tensor(values)[None], statistics_rows, 5.0)[0][:, :LOOKBACK].numpy()}

    return at


@planted(window_normalised_by(LOOKBACK), window_normalised_by(LOOKBACK + HORIZON))
def test_statistics_of_the_full_window_are_caught(function, expected):
    assert verdict(Subject(name="x", what="", function=function)) == expected


@planted(feature(lambda close: close.pct_change()), feature(lambda close: close.pct_change().shift(-1)))
def test_a_feature_that_holds_the_label_is_caught(function, expected):
    assert verdict(Subject(name="x", what="", function=function)) == expected


@planted(feature(lambda close: close.rolling(5).mean()), feature(lambda close: close.rolling(5, center=True).mean()))
def test_a_centred_window_is_caught(function, expected):
    assert verdict(Subject(name="x", what="", function=function)) == expected


@planted(
    feature(lambda close: close.where(np.arange(len(close)) % 2 == 0).ffill()),
    feature(lambda close: close.where(np.arange(len(close)) % 2 == 0).interpolate()),
)
def test_interpolation_between_known_and_later_candles_is_caught(function, expected):
    assert verdict(Subject(name="x", what="", function=function)) == expected


@planted(
    feature(lambda close: (close > close.expanding().median()).astype(float)),
    feature(lambda close: (close > close.median()).astype(float)),
)
def test_a_threshold_from_the_whole_file_is_caught_in_a_feature_of_two_values(function, expected):
    assert verdict(Subject(name="x", what="", function=function), [100, 300, 301, 400, 450]) == expected


class WholeFile:
    def sample_paths(self, candles, cutoffs, horizon, num_paths):
        close, rng = candles.frame["close"].to_numpy(), np.random.default_rng(cutoffs[0])
        moves = rng.choice(np.diff(np.log(close)), (len(cutoffs), num_paths, horizon))
        return close[cutoffs, None, None] * np.exp(moves.cumsum(axis=-1))


def sampled_by(baseline):
    return subjects.baseline("x", baseline, HORIZON, 5).function


@planted(sampled_by(Drift(refit_every=100, seed=1)), sampled_by(WholeFile()))
def test_a_baseline_that_draws_from_the_whole_file_is_caught(function, expected):
    assert verdict(Subject(name="x", what="", function=function)) == expected


# --- networks -----------------------------------------------------------------------------------------------------


class Unmasked(layers.Attention):
    """Attention to all positions, later ones too."""

    def forward(self, query, memory, rotary, causal):
        return super().forward(query, memory, rotary, causal=False)


@pytest.fixture
def forecaster(tiny_tokenizer, tiny_predictor):
    return Forecaster(tiny_tokenizer, tiny_predictor)


def network_verdicts(forecaster):
    window = LOOKBACK, HORIZON
    found = prove([subjects.tokens(forecaster, *window), subjects.logits(forecaster, *window)], CANDLES, CUTOFFS, 1)
    return [finding.verdict for finding in found]


def test_causal_networks_pass(forecaster):
    assert network_verdicts(forecaster) == ["proved", "proved"]


def test_a_non_causal_layer_of_the_tokenizer_is_caught(forecaster):
    forecaster.tokenizer.encoder[0].self_attn.__class__ = Unmasked
    assert network_verdicts(forecaster)[0] == "leak"


@pytest.mark.parametrize("place", ["transformer", "dependency layer"])
def test_a_non_causal_layer_of_the_predictor_is_caught(forecaster, place):
    predictor = forecaster.predictor
    attention = predictor.transformer[0].self_attn if place == "transformer" else predictor.dep_layer.cross_attn
    attention.__class__ = Unmasked
    assert network_verdicts(forecaster) == ["proved", "leak"]


def test_features_and_training_windows_pass_and_see_what_they_are_given():
    window = LOOKBACK, HORIZON, 5.0
    found = prove([subjects.features(*window), subjects.training_windows(*window)], CANDLES, CUTOFFS, 1)
    assert [finding.verdict for finding in found] == ["proved", "proved"]
    given = subjects.features(*window).function(CANDLES, 300)
    np.testing.assert_array_equal(given["context"][0], CANDLES.frame[FEATURES].to_numpy(np.float32)[277:301])
    np.testing.assert_array_equal(given["x"], subjects.training_windows(*window).function(CANDLES, 300)["x"])


# --- forecasts, calibration, trading --------------------------------------------------------------------------------

DENSE = np.arange(300, 330)


def rolling(candles):
    """Forecasts of a baseline from neighbouring cutoffs."""
    future, values = DENSE[:, None] + np.arange(1, HORIZON + 1), candles.frame[FEATURES].to_numpy()
    close = LastPrice(count=20, seed=1).sample_paths(candles, DENSE, HORIZON, 9)
    return ForecastSet(
        cutoffs=candles.times[DENSE],
        stamps=candles.times[future],
        last_close=values[DENSE, CLOSE],
        paths=np.repeat(close[..., None], len(FEATURES), axis=-1),
        actual=values[future],
    )


SCORES = np.random.default_rng(0).normal(size=(25, HORIZON, 4))


def corrected(stamps_of):
    def correct(candles):
        found = rolling(candles)
        truth = found.last_close, found.actual_close, found.cutoffs, stamps_of(found)
        return found.with_paths(adaptive(found.close_paths, *truth, SCORES))

    return subjects.forecasts("x", "", remembered(correct)).function


def at_once(found):
    return np.broadcast_to(found.cutoffs[:, None] + np.timedelta64(1, "ns"), found.stamps.shape)


@planted(corrected(lambda found: found.stamps), corrected(at_once))
def test_a_calibration_by_unfinished_outcomes_is_caught(function, expected):
    assert verdict(Subject(name="x", what="", function=function), [310, 320]) == expected


def pipeline(*overrides):
    return Pipeline(
        settings=check_evaluation(composed("evaluate", *QUICK_EVALUATE, *overrides)),
        forecaster=None,
        forecast=remembered(rolling),
        validate=rolling,
        calibration=None,
    )


def traded_verdicts(*overrides):
    given = pipeline(*overrides)
    found = prove(trading_subjects(given, CANDLES) + fill_subjects(given), CANDLES, [305, 310, 320], 1)
    return {finding.name: finding.verdict for finding in found}


def test_the_backtest_passes():
    assert set(traded_verdicts().values()) == {"proved"}


class NextDecision(ThresholdStrategy):
    """Decides by the forecast of the cutoff that comes next."""

    def signals(self, forecasts):
        return np.roll(super().signals(forecasts), -1)


class AboveTheMean(ThresholdStrategy):
    """Expects a rise where the forecast is above the mean of all forecasts, later ones too."""

    def expected_return(self, forecasts):
        expected = super().expected_return(forecasts)
        return expected - expected.mean()


@pytest.mark.parametrize(
    ("strategy", "expected"), [(ThresholdStrategy, "proved"), (NextDecision, "leak"), (AboveTheMean, "leak")]
)
def test_a_strategy_that_looks_at_later_forecasts_is_caught(strategy, expected):
    target = f"strategy._target_={strategy.__module__}.{strategy.__name__}"
    found = traded_verdicts(target, "strategy.buy_threshold=0.0", "strategy.sell_threshold=0.0")
    assert found["signals"] == expected


def filling_at(open_of, advance):
    """An engine whose orders get other prices than the next open, or are carried out a candle early."""

    def engine(market, signals, rules, equity):
        moved = np.append(signals[advance:], np.full(advance, HOLD))
        prices = market.prices._replace(open=open_of(market.prices))
        return run_backtest(replace(market, prices=prices), moved, rules, equity)

    return engine


def test_fills_inside_the_candle_that_decides_them_are_caught(monkeypatch):
    monkeypatch.setattr(backtesting, "run_backtest", filling_at(lambda prices: prices.close.copy(), 1))
    found = traded_verdicts()
    assert found["fills"] == "leak"
    assert found["signals"] == "proved"


def test_fills_at_the_close_that_decides_them_are_caught(monkeypatch):
    before = filling_at(lambda prices: np.concatenate([prices.open[:1], prices.close[:-1]]), 0)
    monkeypatch.setattr(backtesting, "run_backtest", before)
    found = traded_verdicts()
    assert found["fill prices"] == "leak"


def test_fills_before_the_signal_are_caught_in_the_equity(monkeypatch):
    monkeypatch.setattr(backtesting, "run_backtest", filling_at(lambda prices: prices.open, 2))
    found = traded_verdicts()
    assert found["backtest"] == "leak"


# --- the machine --------------------------------------------------------------------------------------------------


def test_a_finding_tells_where_it_first_differed():
    late = feature(lambda close: close.shift(-1))
    honest, leaking = prove(
        [Subject(name="a", what="", function=feature(lambda close: close)), Subject(name="b", what="", function=late)],
        CANDLES,
        CUTOFFS,
        1,
    )
    assert (honest.detail, honest.first, honest.cutoffs, honest.values) == ("bit-identical", None, 3, 9)
    assert (leaking.first.cutoff, leaking.first.index) == (utc("2023-01-13 12:00"), (0,))
    assert float(leaking.first.original) == CANDLES.frame["close"][301]
    assert f"feature[0] at 2023-01-13 12:00 was {leaking.first.original} and became" in leaking.detail


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda candles, row: {"x": np.zeros(3)}, "it did not even change when all candles did"),
        (lambda candles, row: {"x": np.empty(0)}, "there was nothing to compare"),
        (lambda candles, row: {}, "there was nothing to compare"),
    ],
)
def test_what_cannot_change_is_not_proved(function, reason):
    (finding,) = prove([Subject(name="x", what="", function=function)], CANDLES, CUTOFFS, 1)
    assert (finding.verdict, finding.detail) == ("unproved", reason)


def test_where_no_candle_comes_after_the_cutoff_the_proof_is_void():
    with pytest.raises(VoidProof, match="row 599 of 600"):
        prove([Subject(name="x", what="", function=feature(lambda close: close))], CANDLES, [599], 1)


def test_what_must_not_be_known_is_a_leak_where_it_stays():
    def next_open(candles, row):
        return {"open": candles.frame["open"].to_numpy()[row + 1 : row + 2]}

    assert verdict(Subject(name="x", what="", function=next_open, knows="nothing")) == "proved"
    assert verdict(Subject(name="x", what="", function=next_open, knows="open")) == "proved"
    assert verdict(Subject(name="x", what="", function=next_open, knows="close")) == "leak"
    assert verdict(Subject(name="x", what="", function=feature(lambda close: close), knows="nothing")) == "leak"


@settings(max_examples=30, deadline=None)
@given(st.integers(ALL, 598), st.sampled_from(FUTURES), st.integers(0, 5), st.booleans())
def test_a_mutation_changes_every_number_after_the_row_and_none_up_to_it(row, future, seed, keep_open):
    copy = mutate(CANDLES, row, future, seed, keep_open)
    before, after = (candles.frame[FEATURES].to_numpy() for candles in (CANDLES, copy))
    np.testing.assert_array_equal(after[: row + 1], before[: row + 1])
    same = after[row + 1 :] == before[row + 1 :]
    assert same.sum() == keep_open
    assert same[0, FEATURES.index("open")] == keep_open
    pd.testing.assert_frame_equal(copy.frame[["timestamps", "segment"]], CANDLES.frame[["timestamps", "segment"]])
    validate(copy.frame.drop(columns="segment"), Path("made.csv"), "1h", "X", False)
    assert len({mutate(CANDLES, row, future, seed, keep_open).fingerprint, copy.fingerprint}) == 1


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (np.array([0.0]), np.array([-0.0])),
        (np.array([1.0]), np.array([1.0 + 2**-52])),
        (np.array([1], np.int32), np.array([1], np.int64)),
        (np.array([[1, 2]]), np.array([1, 2])),
        (np.array([np.datetime64("2024-01-01", "ns")]), np.array([np.datetime64("2024-01-01T00:00:00.000000001")])),
    ],
)
def test_comparison_is_by_bits_kind_and_shape(a, b):
    assert compare({"x": a}, {"x": a.copy()}) is None
    assert compare({"x": a}, {"x": b})[0] == "x"
    assert compare({"x": np.array([np.nan, 1.0])}, {"x": np.array([np.nan, 1.0])}) is None
    assert compare({}, {"x": a}) == ("x", (), "missing", "there")
    assert compare({"x": np.arange(6).reshape(2, 3)}, {"x": np.array([[0, 1, 2], [3, 9, 5]])})[1:] == ((1, 1), "4", "9")


STAMPS = CANDLES.frame["timestamps"]


def split(begin, end, context=10):
    """Candles of windows whose targets are [begin, end)."""
    rows = np.arange(begin - context, end)
    return pd.DataFrame({"timestamps": STAMPS.iloc[rows].array, "target": rows >= begin})


def split_verdicts(train, val, test, embargo):
    files = dict(zip(("train", "val", "test"), (split(*train), split(*val), split(*test)), strict=True))
    return [finding.verdict for finding in check_splits(files, STAMPS, embargo)]


def test_splits_must_not_overlap_and_keep_the_embargo():
    assert split_verdicts((10, 100), (100, 200), (200, 300), 0) == ["proved", "proved"]
    assert split_verdicts((10, 100), (104, 200), (204, 300), 4) == ["proved", "proved"]
    assert split_verdicts((10, 100), (104, 200), (203, 300), 4) == ["leak", "proved"]
    assert split_verdicts((10, 101), (100, 200), (200, 300), 0) == ["leak", "leak"]
    assert split_verdicts((10, 100), (200, 300), (100, 200), 0) == ["leak", "leak"]


def test_windows_that_hold_candles_a_later_split_forecasts_are_caught():
    files = {"train": split(10, 100), "val": split(100, 200), "test": split(200, 300)}
    files["val"] = pd.concat([files["val"], split(200, 201, context=0).assign(target=False)])
    targets, windows = check_splits(files, STAMPS, 0)
    assert (targets.verdict, windows.verdict) == ("proved", "leak")
    assert "val windows hold candles up to 2023-01-09 08:00" in windows.detail


def test_a_network_or_calibration_that_knows_the_test_is_caught_and_a_silent_one_is_not_proved():
    info = {"data": {"ranges": {"train": ["2023-01-01", "2023-02-01"], "val": ["2023-02-02", "2023-02-10"]}}}
    assert check_record("predictor", info, utc("2023-02-11")).verdict == "proved"
    assert check_record("predictor", info, utc("2023-02-10 23:00")).verdict == "leak"
    assert check_record("predictor", None, utc("2023-02-11")).verdict == "unproved"
    about = {"fitted_to": "2023-02-10T23:00:00"}
    assert check_calibration(about, utc("2023-02-10 23:00")).verdict == "proved"
    assert check_calibration(about, utc("2023-02-10 22:00")).verdict == "leak"


# --- the command --------------------------------------------------------------------------------------------------


@pytest.fixture
def arguments(tmp_path):
    torch.manual_seed(0)
    KronosTokenizer(**TINY_TOKENIZER).save_pretrained(tmp_path / "t")
    Kronos(**TINY_PREDICTOR).save_pretrained(tmp_path / "p")
    ranges = {"train": ["2023-01-01", "2023-01-24"], "val": ["2023-01-25", "2023-01-31"]}
    for folder in ("t", "p"):
        record = {"initial_weights": "random", "synthetic": True, "data": {"ranges": ranges, "fingerprints": {}}}
        (tmp_path / folder / "training.json").write_text(json.dumps(record))
    return [*QUICK_EVALUATE, "trainer=cpu", "predictor=p", "tokenizer=t"]


def certificate(folder):
    content = json.loads((folder / "outputs" / "backtest_results" / f"sample{SUFFIX}").read_text())
    (part,) = content["parts"]
    return content, part, {finding["name"]: finding["verdict"] for finding in part["findings"]}


def test_the_command_proves_each_step_and_leaves_a_certificate(tmp_path, arguments):
    result = command("kronos_lightning.evaluation.leakcheck", *arguments, cwd=tmp_path)
    content, part, verdicts = certificate(tmp_path)
    assert content["leaks"] is False
    assert set(verdicts.values()) == {"proved"}, verdicts
    assert {"split targets", "predictor's record", "features", "training windows", "tokens", "logits", "forecasts"} | {
        *("calibration", "calibrated forecasts", "adaptive correction", "signals", "backtest", "fills", "fill prices"),
        *("baseline drift", "baseline garch"),
    } <= set(verdicts)
    assert len(part["cutoffs"]) == 8
    assert part["about"]["versions"]["torch"] == torch.__version__
    assert len(part["about"]["data"]["fingerprints"]["SYNTHETIC"]) == 64
    assert part["about"]["settings"]["data"]["horizon"] == 4
    assert "Proved on 8 cutoffs from 2023-01-31 23:00 to 2023-02-07" in result.stdout
    assert "LEAK" not in result.stdout


def run_here(*overrides):
    """The command in this process, where a leak can be planted."""
    one_line_errors(inspect.unwrap(main))(composed("evaluate", *overrides))


def test_the_command_ends_with_2_where_attention_sees_later_candles(tmp_path, arguments, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(layers, "Attention", Unmasked)
    cheap = ["calibration.fit=false", "evaluation.baselines=[drift]", "evaluation.cutoffs_per_batch=8"]
    with pytest.raises(SystemExit) as ended:
        run_here(*arguments, *cheap)
    assert ended.value.code == 2
    content, _, verdicts = certificate(tmp_path)
    assert content["leaks"] is True
    assert {name for name, found in verdicts.items() if found == "leak"} == {"tokens", "logits"}
    assert "LEAK: tokens: s1[" in capsys.readouterr().out


def test_the_command_says_in_one_line_that_there_is_no_checkpoint(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        run_here(*QUICK_EVALUATE, "trainer=cpu")
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith("error: no fine-tuned predictor")
