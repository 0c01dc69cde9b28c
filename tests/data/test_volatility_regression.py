"""The volatility regression finds a volatility that is known, from a window alone."""

import numpy as np
import torch

from kronos_lightning.data.volatility_regression import VolatilityRegression

LOOKBACK, HORIZON = 48, 6


def windows(count, seed):
    """Windows ``(count, W, 6)`` with stamps; each has a volatility of its own, which doubles from 12 o'clock on."""
    rng, rows, inner = np.random.default_rng(seed), LOOKBACK + HORIZON, 60
    begin = rng.integers(0, 168, count)
    hour = (begin[:, None] + np.arange(rows)) % 168
    level = 0.01 * np.exp(0.7 * rng.standard_normal((count, 1)))
    size = level * np.where(hour % 24 >= 12, 2.0, 1.0)
    steps = size[..., None] * rng.standard_normal((count, rows, inner)) / inner**0.5
    path = np.exp(steps.reshape(count, -1).cumsum(axis=1)).reshape(count, rows, inner)
    opened = np.concatenate([np.ones((count, 1)), path[:, :-1, -1]], axis=1)
    high, low = np.maximum(path.max(axis=2), opened), np.minimum(path.min(axis=2), opened)
    flat = np.ones_like(opened)
    candles = 100 * np.stack([opened, high, low, path[..., -1], flat, flat], axis=-1)
    stamps = np.zeros((count, rows, 5), dtype=np.int8)
    stamps[..., 1], stamps[..., 2] = hour % 24, hour // 24
    return torch.tensor(candles), torch.tensor(stamps), np.sqrt((size[:, LOOKBACK:] ** 2).cumsum(axis=1))


def test_the_deviation_of_each_step_is_found_with_its_season():
    candles, stamps, _ = windows(3000, 1)
    fitted = VolatilityRegression.fit(candles, stamps, LOOKBACK)
    candles, stamps, true = windows(400, 2)
    error = np.log(fitted.deviations(candles[:, :LOOKBACK], stamps) / true)
    assert np.abs(error.mean(axis=0)).max() < 0.05
    assert error.std() < 0.15  # the levels differ by 0.7


def test_a_window_never_depends_on_the_others_or_on_the_unit_of_the_price():
    candles, stamps, _ = windows(50, 3)
    fitted = VolatilityRegression.fit(candles, stamps, LOOKBACK)
    known = candles[:, :LOOKBACK]
    together = fitted.deviations(known, stamps)
    alone = np.concatenate([fitted.deviations(known[i : i + 1], stamps[i : i + 1]) for i in range(50)])
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(together, fitted.deviations(known * 2.0**-20, stamps))


def test_a_market_that_does_not_move_has_a_deviation_above_zero():
    candles, stamps, _ = windows(50, 4)
    fitted = VolatilityRegression.fit(candles, stamps, LOOKBACK)
    still = fitted.deviations(torch.full_like(candles[:1, :LOOKBACK], 7.0), stamps[:1])
    assert np.isfinite(still).all()
    assert (still > 0).all()
