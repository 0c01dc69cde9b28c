"""Planted leaks in features and networks are caught by the machine that passes their honest twins."""

import numpy as np
import pytest
import torch

from kronos_lightning.data.formats import FEATURES
from kronos_lightning.evaluation.leakcheck import Subject, prove, subjects
from kronos_lightning.forecast import Forecaster
from tests.helpers.leaks import CANDLES, CUTOFFS, HORIZON, LOOKBACK, Unmasked, feature, planted, verdict
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


def test_training_windows_pass(tiny_tokenizer, tiny_predictor):
    forecaster = Forecaster(tiny_tokenizer, tiny_predictor)
    found = prove([subjects.training_windows(forecaster, LOOKBACK, HORIZON)], CANDLES, CUTOFFS, 1)
    assert [finding.verdict for finding in found] == ["proved"]


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
