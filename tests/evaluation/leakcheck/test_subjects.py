"""Planted leaks in features, networks and forecasts are caught by the machine that passes their honest twins."""

import numpy as np
import pytest
import torch

from kronos_lightning.data.formats import FEATURES
from kronos_lightning.evaluation.baselines import Drift
from kronos_lightning.evaluation.calibration import adaptive
from kronos_lightning.evaluation.leakcheck import Subject, prove, subjects
from kronos_lightning.evaluation.leakcheck.proof import cached
from kronos_lightning.forecast import Forecaster
from tests.helpers.leaks import CANDLES, CUTOFFS, HORIZON, LOOKBACK, Unmasked, feature, planted, rolling, verdict
from tests.helpers.levels import normalise


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


def test_features_and_training_windows_pass_and_see_what_they_are_given():
    window = LOOKBACK, HORIZON, 5.0
    found = prove([subjects.features(*window), subjects.training_windows(*window)], CANDLES, CUTOFFS, 1)
    assert [finding.verdict for finding in found] == ["proved", "proved"]
    given = subjects.features(*window).function(CANDLES, 300)
    np.testing.assert_array_equal(given["context"][0], CANDLES.frame[FEATURES].to_numpy(np.float32)[277:301])
    np.testing.assert_array_equal(given["x"], subjects.training_windows(*window).function(CANDLES, 300)["x"])


# --- networks -----------------------------------------------------------------------------------------------------


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


# --- forecasts ----------------------------------------------------------------------------------------------------

SCORES = np.random.default_rng(0).normal(size=(25, HORIZON, 4))


def corrected(stamps_of):
    def correct(candles):
        found = rolling(candles)
        truth = found.last_close, found.actual_close, found.cutoffs, stamps_of(found)
        return found.with_paths(adaptive(found.close_paths, *truth, SCORES))

    return subjects.forecasts("x", "", cached(correct)).function


def at_once(found):
    return np.broadcast_to(found.cutoffs[:, None] + np.timedelta64(1, "ns"), found.stamps.shape)


@planted(corrected(lambda found: found.stamps), corrected(at_once))
def test_a_calibration_by_unfinished_outcomes_is_caught(function, expected):
    assert verdict(Subject(name="x", what="", function=function), [310, 320]) == expected
