"""Representations of candles for the network, and what a forecast makes of them."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kronos_lightning.data import CandleError
from kronos_lightning.data.formats import CLOSE, FEATURES, HIGH, LOW, OPEN, VOLUME
from kronos_lightning.data.representation import (
    LEVELS,
    RETURNS,
    ScaledReturns,
    compress,
    expand,
    read_representation,
)
from kronos_lightning.data.windows import CandleWindows
from kronos_lightning.forecast import Forecaster
from tests.helpers.candles import frame_with_gap

LOOKBACK, HORIZON, CLIP = 48, 6, 5.0


def market(count, seed=0, volatility=0.01, night=1.0):
    """Windows ``(count, W, C)`` and their stamps; from 12 o'clock on the market moves `night` times as much."""
    rng, rows = np.random.default_rng(seed), LOOKBACK + HORIZON
    hour = (np.arange(rows) + rng.integers(0, 168, (count, 1))) % 168
    size = volatility * np.where(hour % 24 >= 12, night, 1.0) * np.exp(rng.normal(0, 0.5, (count, 1)))
    moves = size[..., None] * rng.standard_normal((count, rows, 8)) / 8**0.5
    walk = np.cumsum(moves.reshape(count, -1), axis=1).reshape(count, rows, 8)
    before = np.concatenate([np.zeros((count, 1)), walk[:, :-1, -1]], axis=1)
    inside = np.concatenate([before[..., None], walk], axis=2)
    prices = 100 * np.exp(np.stack([before, inside.max(axis=2), inside.min(axis=2), walk[..., -1]], axis=-1))
    volume = rng.lognormal(3, 1, (count, rows, 1))
    candles = np.concatenate([prices, volume, volume * prices.mean(axis=-1, keepdims=True)], axis=-1)
    stamps = np.stack([0 * hour, hour % 24, hour // 24, 0 * hour + 1, 0 * hour + 1], axis=-1)
    return torch.tensor(candles), torch.tensor(stamps, dtype=torch.int8)


@pytest.fixture(scope="module")
def fitted():
    return ScaledReturns.fit(*market(2000, night=3.0), LOOKBACK)


def each(fitted):
    return {"levels": LEVELS, "returns": RETURNS, "scaled": fitted}


@pytest.mark.parametrize("name", ["levels", "returns", "scaled"])
def test_paths_come_back_as_the_candles_that_were_normalised(fitted, name):
    windows, stamps = market(20)
    found, clip = each(fitted)[name], 50.0
    x, scale = found.normalise(windows, LOOKBACK, clip, stamps)
    paths = found.denormalise(x[:, None, LOOKBACK:], scale.after(LOOKBACK), clip)[:, 0]
    last = VOLUME + 1 if name == "levels" else VOLUME  # of returns, volumes near zero and amounts are not kept
    torch.testing.assert_close(paths[..., :last], windows[:, LOOKBACK:, :last], rtol=1e-9, atol=1e-9)
    assert (paths[..., VOLUME] > 0).all()


@pytest.mark.parametrize("name", ["levels", "returns", "scaled"])
def test_rows_after_the_lookback_change_neither_known_rows_nor_the_scale(fitted, name):
    windows, stamps = market(8)
    changed = windows.clone()
    changed[:, LOOKBACK:] *= 7
    (x, scale), (y, other) = (each(fitted)[name].normalise(w, LOOKBACK, CLIP, stamps) for w in (windows, changed))
    assert torch.equal(x[:, :LOOKBACK], y[:, :LOOKBACK])
    assert not torch.equal(x[:, LOOKBACK:], y[:, LOOKBACK:])
    assert all(torch.equal(one, two) for one, two in zip(scale, other, strict=True))


@pytest.mark.parametrize("name", ["returns", "scaled"])
def test_known_rows_of_a_forecast_equal_those_of_a_training_window(fitted, name):
    windows, stamps = market(5)
    found = each(fitted)[name]
    whole, scale = found.normalise(windows, LOOKBACK, CLIP, stamps)
    known, same = found.normalise(windows[:, :LOOKBACK], LOOKBACK, CLIP, stamps)
    assert torch.equal(whole[:, :LOOKBACK], known)
    assert torch.equal(scale.after(LOOKBACK).std, same.after(LOOKBACK).std)


@settings(deadline=None)
@given(st.integers(-40, 40), st.integers(-40, 40))
def test_returns_do_not_depend_on_the_unit_of_price_or_volume(price, volume):
    windows, stamps = market(3)
    windows = windows.float()
    unit = torch.tensor([2.0**price] * 4 + [2.0**volume, 2.0 ** (price + volume)])
    (x, _), (y, _) = (RETURNS.normalise(w, LOOKBACK, CLIP, stamps) for w in (windows, windows * unit))
    torch.testing.assert_close(x[..., :VOLUME], y[..., :VOLUME], rtol=0, atol=0)
    torch.testing.assert_close(x, y, rtol=0, atol=1e-4)


@given(st.floats(-50, 50))
def test_compression_keeps_small_values_and_order_and_can_be_undone(value):
    z = torch.tensor(value, dtype=torch.float64)
    assert expand(compress(z)).item() == pytest.approx(value, rel=1e-9, abs=1e-12)
    assert compress(z).abs() <= z.abs()
    assert compress(z) < compress(z + 1e-3)
    assert abs(value) > 3 or compress(z) == z


@pytest.mark.parametrize("name", ["returns", "scaled"])
def test_whatever_a_network_says_the_candles_are_possible(fitted, name):
    windows, stamps = market(4)
    found = each(fitted)[name]
    _, scale = found.normalise(windows, LOOKBACK, CLIP, stamps)
    said = torch.randn(4, 30, HORIZON, 6, generator=torch.Generator().manual_seed(0)).double() * 100
    paths = found.denormalise(said, scale.after(LOOKBACK), CLIP)
    assert paths.isfinite().all()
    assert (paths[..., HIGH] >= paths[..., [OPEN, LOW, CLOSE]].amax(-1)).all()
    assert (paths[..., LOW] <= paths[..., [OPEN, HIGH, CLOSE]].amin(-1)).all()
    assert (paths > 0).all()


def test_candles_that_never_move_and_have_no_volume_stay_as_they_are():
    windows = torch.full((1, LOOKBACK + HORIZON, 6), 7.0)
    windows[..., VOLUME:] = 0
    stamps = torch.zeros(1, LOOKBACK + HORIZON, 5, dtype=torch.int8)
    for found in (RETURNS, ScaledReturns.fit(*market(300), LOOKBACK)):
        x, scale = found.normalise(windows, LOOKBACK, CLIP, stamps)
        assert torch.equal(x, torch.zeros_like(x))
        assert torch.equal(found.denormalise(x[:, None, -HORIZON:], scale.after(LOOKBACK), CLIP)[:, 0], windows[:, -6:])


def test_the_scale_of_scaled_returns_knows_the_rhythm_and_the_size_of_the_moves_to_come(fitted):
    season = np.array(fitted.season).reshape(7, 24)
    assert season[:, 12:].mean() / season[:, :12].mean() == pytest.approx(3, rel=0.1)
    windows, stamps = market(3000, seed=5, night=3.0)
    x, _ = fitted.normalise(windows, LOOKBACK, 50.0, stamps)
    late = stamps[:, LOOKBACK:, 1].numpy() >= 12
    plain, _ = RETURNS.normalise(windows, LOOKBACK, 50.0, stamps)
    size, others = (found[:, LOOKBACK:, CLOSE].square().numpy() for found in (x, plain))
    assert size.mean() == pytest.approx(1 / 1.44, rel=0.15)  # of unit variance, in units of 1.2
    assert size[late].mean() == pytest.approx(size[~late].mean(), rel=0.1)
    assert others[late].mean() > 4 * others[~late].mean()


def test_a_representation_survives_its_file_and_a_damaged_one_is_refused_by_name(fitted):
    for found in (LEVELS, RETURNS, fitted):
        assert read_representation(json.loads(found.model_dump_json()), "x") == found
    assert read_representation(None, "x") == LEVELS
    for content in ({"name": "prices"}, {"name": "scaled_returns"}, "returns", {"name": "returns", "unit": 3}):
        with pytest.raises(CandleError, match=r"^training\.json: representation"):
            read_representation(content, "training.json")
    lacking = fitted.model_dump() | {"coefficients": [1.0]}
    with pytest.raises(CandleError, match="coefficients"):
        read_representation(lacking, "training.json")


@pytest.mark.parametrize("name", ["returns", "scaled"])
def test_forecasts_start_at_the_real_last_close_and_move_with_it(fitted, name, tiny_tokenizer, tiny_predictor):
    """Unlike levels, whose paths start at the reconstruction of the last candle."""
    forecaster = Forecaster(tiny_tokenizer, tiny_predictor, representation=each(fitted)[name])
    windows, stamps = market(3)
    known, past, future = windows[:, :LOOKBACK].float(), stamps[:, :LOOKBACK], stamps[:, LOOKBACK:]
    paths = forecaster.sample_windows(known, past, future, 20, torch.Generator().manual_seed(0))
    assert paths.isfinite().all()
    doubled = forecaster.sample_windows(known * 2, past, future, 20, torch.Generator().manual_seed(0))
    torch.testing.assert_close(doubled[..., :4], 2 * paths[..., :4], rtol=1e-5, atol=0)
    anchored = dataclasses.replace(forecaster, anchor=True)
    again = anchored.sample_windows(known, past, future, 20, torch.Generator().manual_seed(0))
    assert torch.equal(again, paths)


def test_windows_hold_the_representation_that_they_were_made_with(fitted):
    frame = frame_with_gap(120, 120)
    assert list(FEATURES) == [name for name in frame if name in FEATURES]
    levels, returns, scaled = (
        CandleWindows(frame, 40, 5, CLIP, representation=one) for one in (LEVELS, RETURNS, fitted)
    )
    tokens = {json.dumps(one.metadata, sort_keys=True) for one in (levels, returns, scaled)}
    assert len(tokens) == 3  # the token cache tells them apart
    batch = returns.__getitems__([3])
    close = torch.log(levels.raw(torch.tensor([3]))[0][0, :, CLOSE].double()).diff()
    found = RETURNS.log_returns(batch.x, batch.scale, CLIP)[0].double()
    torch.testing.assert_close(found, close, rtol=1e-3, atol=1e-6)
    assert isinstance(scaled.representation, ScaledReturns)
