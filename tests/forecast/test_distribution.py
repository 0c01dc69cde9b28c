"""What is read off the paths."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kronos_lightning.forecast import expected_volatility, probability_touch, probability_up, quantiles, validity
from kronos_lightning.forecast.distribution import repair

LAST = np.array([100.0])
anything = arrays(np.float32, (2, 3, 4, 6), elements=st.floats(-5, 200, width=32))


def path(*candles):
    """One path of (open, high, low, close) candles, volume and amount 1: ``(1, 1, h, 6)``."""
    return np.array([[[[*candle, 1.0, 1.0] for candle in candles]]])


def test_probability_up_counts_paths_above_the_last_close():
    paths = np.concatenate(
        [path((100, 100, 100, c), (100, 100, 100, d)) for c, d in ((101, 99), (100, 102), (99, 103))], 1
    )
    np.testing.assert_allclose(probability_up(paths, LAST), [[1 / 3, 2 / 3]])


@pytest.mark.parametrize(
    ("candles", "expected"),
    [
        ([(100, 101, 97, 100), (100, 105, 99, 104)], (1, 0, 0)),  # falls first
        ([(100, 102, 99, 101), (101, 101, 90, 95)], (0, 1, 0)),  # rises first
        ([(100, 103, 97, 100)], (1, 0, 0)),  # both in one candle: as the backtest's stop
        ([(100, 101, 99, 100), (100, 101.9, 98.1, 100)], (0, 0, 1)),  # neither
        ([(100, 102, 98.1, 100)], (0, 1, 0)),  # exactly at the level
    ],
)
def test_probability_touch_says_which_level_comes_first(candles, expected):
    touch = probability_touch(path(*candles), LAST, 0.02, 0.02)
    assert (touch.down[0], touch.up[0], touch.neither[0]) == expected


@given(anything)
def test_touch_probabilities_add_to_one(paths):
    touch = probability_touch(paths, np.array([50.0, 80.0]), 0.1, 0.2)
    np.testing.assert_allclose(touch.down + touch.up + touch.neither, 1)


def test_touch_levels_must_be_positive():
    with pytest.raises(ValueError, match="must be positive"):
        probability_touch(path((1, 1, 1, 1)), LAST, 0.0, 0.1)


def test_expected_volatility_is_the_mean_of_the_paths_realised_volatilities():
    up = path((0, 0, 0, 100 * np.exp(0.02)), (0, 0, 0, 100 * np.exp(0.02)))
    flat = path((0, 0, 0, 100), (0, 0, 0, 100))
    broken = path((0, 0, 0, -1), (0, 0, 0, 100))
    expected = (np.sqrt(0.02**2 / 2) + 0) / 2
    np.testing.assert_allclose(expected_volatility(np.concatenate([up, flat, broken], axis=1), LAST), [expected])


def test_validity_counts_paths_with_each_defect():
    good = path((10, 11, 9, 10))
    high, low = path((10, 9.9, 9, 9.5)), path((10, 12, 10.5, 11))
    volume, price = good.copy(), path((1, 2, -1, 1))
    volume[..., 5] = -1
    found = validity(np.concatenate([good, high, low, volume, price, good, good, good], axis=1))
    assert (found.high, found.low, found.volume, found.price, found.any) == (1 / 8, 1 / 8, 1 / 8, 1 / 8, 4 / 8)
    assert str(found).startswith("50.0% of the paths hold an impossible candle (high 12.5%")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", [0, 3, 5])
def test_values_that_are_not_finite_are_impossible(value, column):
    paths = np.concatenate([path((10, 11, 9, 10))] * 4, axis=1)
    paths[0, 1, 0, column] = value
    found = validity(paths)
    assert (found.any, found.price, found.volume) == (1 / 4, column < 4 and 1 / 4, column > 3 and 1 / 4)


@settings(deadline=None)
@given(anything)
def test_repaired_candles_are_possible_but_for_their_price_and_keep_open_and_close(paths):
    before = paths.copy()
    mended = repair(paths)
    found = validity(mended)
    assert (found.high, found.low, found.volume) == (0, 0, 0)
    np.testing.assert_array_equal(mended[..., [0, 3]], paths[..., [0, 3]])
    np.testing.assert_array_equal(paths, before)
    np.testing.assert_array_equal(repair(mended), mended)


@given(anything)
def test_quantiles_grow_with_their_level(paths):
    assert (np.diff(quantiles(paths, [0.1, 0.5, 0.9]), axis=-1) >= 0).all()
