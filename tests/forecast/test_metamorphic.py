"""Forecasts of the same candles, given in another way, are the same."""

import numpy as np
import pandas as pd
import pytest
import torch

from kronos_lightning import Forecaster
from tests.helpers.layouts import candles

HOURS = candles(90)
COLUMNS = {"prices": ["open", "high", "low", "close"], "volumes": ["volume", "amount"]}


def paths(forecaster, frame, **options):
    return forecaster.sample_paths(frame, 6, 20, generator=torch.Generator().manual_seed(1), **options)[0]


@pytest.fixture
def forecaster(golden_tokenizer, golden_predictor):
    return Forecaster(golden_tokenizer, golden_predictor)


@pytest.fixture
def usual(forecaster):
    return paths(forecaster, HOURS)


def scaled(price=1.0, volume=1.0):
    return HOURS.assign(
        **{name: HOURS[name] * price for name in COLUMNS["prices"]},
        volume=HOURS["volume"] * volume,
        amount=HOURS["amount"] * volume,
    )


@pytest.mark.parametrize("exponent", [-40, -20, -1, 1, 20])
def test_another_unit_of_price_scales_the_forecast_to_the_bit(forecaster, usual, exponent):
    found = paths(forecaster, scaled(price=2.0**exponent))
    np.testing.assert_array_equal(found[..., :4], usual[..., :4] * np.float32(2.0**exponent))
    np.testing.assert_array_equal(found[..., 4:], usual[..., 4:])


@pytest.mark.parametrize("exponent", [-40, -1, 1, 20])
def test_another_unit_of_volume_changes_no_price(forecaster, usual, exponent):
    found = paths(forecaster, scaled(volume=2.0**exponent))
    np.testing.assert_array_equal(found[..., :4], usual[..., :4])
    np.testing.assert_array_equal(found[..., 4:], usual[..., 4:] * np.float32(2.0**exponent))


@pytest.mark.parametrize("factor", [1e-8, 1e-3, 1e8])
def test_units_of_powers_of_ten_change_the_forecast_by_rounding_alone(forecaster, usual, factor):
    np.testing.assert_allclose(paths(forecaster, scaled(price=factor))[..., :4], usual[..., :4] * factor, rtol=1e-4)
    np.testing.assert_allclose(paths(forecaster, scaled(volume=factor))[..., :4], usual[..., :4], rtol=1e-4)


def stamped(form):
    """The candles with each stamp in another form."""
    return HOURS.assign(timestamps=pd.Series([form(t) for t in HOURS["timestamps"]]))


SAME = {
    "newest first": lambda: HOURS[::-1],
    "shuffled": lambda: HOURS.sample(frac=1, random_state=3),
    "stamps as index": lambda: HOURS.set_index("timestamps"),
    "without a zone": lambda: HOURS.assign(timestamps=HOURS["timestamps"].dt.tz_localize(None)),
    "another zone": lambda: HOURS.assign(timestamps=HOURS["timestamps"].dt.tz_convert("America/New_York")),
    "text": lambda: stamped(lambda t: f"{t:%Y-%m-%d %H:%M}"),
    "text with a zone": lambda: stamped(lambda t: f"{t.tz_convert('Asia/Tokyo'):%Y-%m-%d %H:%M%z}"),
    "epoch seconds": lambda: stamped(lambda t: int(t.timestamp())),
    "epoch milliseconds": lambda: stamped(lambda t: int(t.timestamp()) * 1000),
    "digits": lambda: stamped(lambda t: int(f"{t:%Y%m%d%H%M%S}")),
    "datetime objects": lambda: stamped(lambda t: t.to_pydatetime()).astype({"timestamps": object}),
}


@pytest.mark.parametrize("way", SAME)
def test_order_zone_and_kind_of_the_stamps_do_not_matter(forecaster, usual, way):
    frame = SAME[way]()
    before = frame.copy()
    np.testing.assert_array_equal(paths(forecaster, frame), usual)
    pd.testing.assert_frame_equal(frame, before)


def test_a_column_that_does_not_move_is_forecast_as_constant(forecaster):
    for price in (24.5, 1e-6, 3e7):
        frame = HOURS.assign(**dict.fromkeys(COLUMNS["prices"], price), volume=0.0, amount=0.0)
        found = paths(forecaster, frame)
        np.testing.assert_allclose(found[..., :4], price, rtol=1e-4)
        np.testing.assert_allclose(found[..., 4:], 0, atol=1e-20)


def test_an_amount_without_a_volume_is_used(forecaster):
    frame = HOURS.drop(columns="volume")
    assert not np.array_equal(paths(forecaster, frame), paths(forecaster, frame.drop(columns="amount")))
