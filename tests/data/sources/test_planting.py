"""Planted candles: what they foretell, by which candles, and what no measure of volatility sees of it."""

import numpy as np
import pytest

from kronos_lightning.data.sources.planting import BURST, LEAST, MEMORY, PULL, shape_wicks
from kronos_lightning.data.sources.synthetic import synthetic_candles

CANDLES = 20_000


def planted(kind):
    frame = synthetic_candles(CANDLES, "1h", "2021-01-01", 1, 30_000.0, 0.6, kind).frame
    return np.log(frame[["open", "high", "low", "close"]]).to_numpy().T


@pytest.fixture(scope="module")
def momentum():
    """Returns of candles with momentum over those of the same candles without: what was added."""
    returns = np.diff(planted("momentum")[3])
    return returns, returns - np.diff(planted("none")[3])


def test_the_last_candles_foretell_the_direction_of_the_next_one(momentum):
    returns, added = momentum
    recent = np.convolve(returns, np.ones(MEMORY), "valid")[:-1]
    assert np.mean(np.sign(added[MEMORY:]) == np.sign(recent)) > 0.997  # prices are rounded
    right = np.mean(np.sign(returns[MEMORY:]) == np.sign(recent))
    assert 0.65 < right < 0.8


def test_given_the_last_candles_older_ones_say_nothing_about_the_direction(momentum):
    returns, _ = momentum
    up = np.sign(returns[2 * MEMORY :])
    recent = np.sign(np.convolve(returns, np.ones(MEMORY), "valid")[MEMORY:-1])
    older = np.sign(np.convolve(returns, np.ones(MEMORY), "valid")[: -MEMORY - 1])
    for side in (-1, 1):
        among = recent == side
        assert abs(up[among & (older == 1)].mean() - up[among & (older == -1)].mean()) < 0.05


def test_both_directions_are_as_common_so_that_no_mean_of_all_history_knows_one(momentum):
    assert abs(np.sign(momentum[0]).mean()) < 0.1


def test_a_candle_without_an_upper_wick_foretells_a_large_move_and_nothing_else_does():
    opened, high, low, close = planted("candle_shape")
    telling = (high - np.maximum(opened, close) < 1e-6)[:-1]
    wide = high - low > 1e-4
    size = np.abs(np.diff(close))
    assert 0.2 < telling.mean() < 0.3
    after = np.median(size[telling]) / np.median(size[~telling])
    assert after == pytest.approx(BURST, rel=0.15)
    share = ((high - np.maximum(opened, close)) / np.maximum(high - low - np.abs(close - opened), 1e-12))[:-1]
    assert (share[~telling & wide[:-1]] > LEAST - 0.02).mean() > 0.99
    up = np.sign(np.diff(close))
    assert abs(up[telling].mean()) < 0.05  # the size, not the direction


def test_the_shape_leaves_range_and_body_as_they_are():
    rng = np.random.default_rng(0)
    opened, close = rng.normal(size=(2, 500))
    upper, lower = np.maximum(opened, close), np.minimum(opened, close)
    high, low = upper + rng.exponential(size=500), lower - rng.exponential(size=500)
    telling = rng.random(500) < 0.5
    shaped_high, shaped_low = shape_wicks(telling, (upper, lower), high, low)
    np.testing.assert_allclose(shaped_high - shaped_low, high - low)
    np.testing.assert_allclose(shaped_high[telling], upper[telling])
    assert (shaped_high >= upper).all()
    assert (shaped_low <= lower + 1e-12).all()


def test_a_candle_with_the_telling_shape_is_itself_as_large_as_any_other():
    opened, high, low, close = planted("candle_shape")
    telling = high - np.maximum(opened, close) < 1e-6
    before = np.concatenate([[False], telling[:-1]])
    spread = np.log(high - low)
    for same in (before, ~before):
        assert abs(spread[telling & same].mean() - spread[~telling & same].mean()) < 0.06


@pytest.mark.parametrize(("kind", "told"), [("momentum", "direction of the last"), ("candle_shape", "upper wick")])
def test_the_source_says_what_is_planted_and_without_nothing_changes(kind, told):
    plain, changed = (synthetic_candles(300, "1h", "2021-01-01", 1, 100.0, 0.6, one) for one in ("none", kind))
    assert told in changed.source
    assert plain.source == "synthetic (seed 1)"
    assert plain.fingerprint == synthetic_candles(300, "1h", "2021-01-01", 1, 100.0, 0.6).fingerprint
    assert plain.fingerprint != changed.fingerprint


def test_the_pull_is_a_share_of_each_candles_own_volatility(momentum):
    _, added = momentum
    sizes = np.abs(added[MEMORY:])
    assert sizes.min() > 0
    assert np.std(np.log(sizes)) > 0.3
    assert PULL < 1
