"""Planted regularities: what a model of the candles can learn and no baseline knows, as a control of the whole tool.

Shape letter: T candles.
"""

from typing import Literal

import numpy as np

Planted = Literal["none", "momentum", "candle_shape"]
MEMORY = 3  # candles whose common change foretells the direction
PULL = 0.6  # drift in that direction, in deviations of a candle
SHARE = 0.25  # of the candles that have the telling shape
BURST = 4.0  # volatility of the candle after one, relative to the volatility after another
LEAST = 0.25  # minimum share of the wicks that is above the body of all other candles
DESCRIPTIONS: dict[Planted, str] = {
    "none": "",
    "momentum": f"planted: candles drift in the direction of the last {MEMORY}",
    "candle_shape": "planted: after a candle without an upper wick comes a large move",
}


def follow_momentum(returns: np.ndarray, volatility: np.ndarray) -> np.ndarray:
    """Add to each return a drift in the direction in which the last `MEMORY` candles moved together.

    Given those candles, older ones say nothing about the direction.

    Args:
        returns: log returns without a direction ``(T,)``.
        volatility: standard deviation of each candle ``(T,)``.
    """
    moved = returns.copy()
    for i in range(MEMORY, len(moved)):
        moved[i] += PULL * volatility[i] * np.sign(moved[i - MEMORY : i].sum())
    return moved


def telling_shapes(candles: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Choose the candles with the telling shape; return their mask ``(T,)`` and the factors of volatility ``(T,)``.

    The factors have a mean square of about one.
    """
    telling = np.random.default_rng([seed, 1]).random(candles) < SHARE
    after = np.concatenate([[False], telling[:-1]])
    return telling, np.where(after, BURST, 1.0) / np.sqrt(1 + SHARE * (BURST**2 - 1))


def shape_wicks(
    telling: np.ndarray, body: tuple[np.ndarray, np.ndarray], high: np.ndarray, low: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Move all wicks of the telling candles below the body and some of the others' above it; return highs and lows.

    Range and body stay as they are, so that no measure of volatility made of them sees the shape.

    Args:
        telling: mask of the candles with the telling shape ``(T,)``.
        body: upper and lower end of each body, log prices ``(T,)``.
        high, low: log prices ``(T,)``.
    """
    upper, lower = body
    wicks = (high - upper) + (lower - low)
    above = np.where(telling, 0.0, np.maximum(high - upper, LEAST * wicks))
    return upper + above, lower - (wicks - above)
