"""Anchored paths: the decoded changes start at the real last candle."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from kronos_lightning import Forecaster
from tests.helpers.layouts import candles
from tests.helpers.levels import normalise

LENGTHS = (90, 57)


@pytest.fixture
def forecaster(golden_tokenizer, golden_predictor):
    return Forecaster(golden_tokenizer, golden_predictor)


def inputs():
    """Two normalised series of different lengths, with the time features of known and future candles."""
    frame = candles(90)
    values = torch.tensor(frame[["open", "high", "low", "close", "volume", "amount"]].to_numpy(np.float32))
    x, stamp = torch.zeros(2, 90, 6), torch.zeros(2, 90, 5, dtype=torch.int8)
    for i, length in enumerate(LENGTHS):
        x[i, :length] = normalise(values[None, :length], length, 5.0)[0][0]
    return x, stamp, torch.zeros(2, 4, 5, dtype=torch.int8)


def sample(forecaster, num_paths=3):
    generator = torch.Generator().manual_seed(0)
    return forecaster.sample_normalised(*inputs(), num_paths, generator, torch.tensor(LENGTHS))


def test_anchored_paths_are_shifted_by_the_reconstruction_error_of_the_last_candle(forecaster, golden_tokenizer):
    x = inputs()[0]
    shift = sample(replace(forecaster, anchor=True)) - sample(forecaster)
    for i, length in enumerate(LENGTHS):
        rebuilt = golden_tokenizer.decode(golden_tokenizer.encode(x[i : i + 1, :length]))[0, -1]
        expected = (x[i, length - 1] - rebuilt).expand(3, 4, 6)
        torch.testing.assert_close(shift[i], expected, rtol=0, atol=1e-5)


def test_the_shift_is_that_within_the_context(forecaster):
    short = replace(forecaster, max_context=20)
    shift = sample(replace(short, anchor=True)) - sample(short)
    torch.testing.assert_close(shift, shift[:, :1, :1].expand_as(shift), rtol=0, atol=1e-5)
    assert torch.isfinite(shift).all()


def test_an_anchored_forecast_has_the_same_changes_from_step_to_step(forecaster):
    plain, anchored = sample(forecaster), sample(replace(forecaster, anchor=True))
    torch.testing.assert_close(anchored.diff(dim=2), plain.diff(dim=2), rtol=0, atol=1e-5)


def test_without_anchoring_the_published_numbers_stay(forecaster):
    assert not forecaster.anchor
