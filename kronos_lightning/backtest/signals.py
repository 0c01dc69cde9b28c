"""From forecasts to BUY, SELL and HOLD. Shape letters: N cutoffs, S sample paths, h horizon, T candles."""

from typing import Literal

import numpy as np

BUY, HOLD, SELL = 1, 0, -1


def expectation(
    paths: np.ndarray, last_close: np.ndarray, signal: Literal["mean", "median", "probability"]
) -> np.ndarray:
    """What the paths say of the return over the horizon, ``(N,)``.

    Args:
        paths: closes ``(N, S, h)``.
        last_close: ``(N,)`` at the cutoffs.
        signal: mean or median return, or the probability of a rise less 0.5.
    """
    returns = paths[:, :, -1] / last_close[:, None] - 1
    if signal == "probability":
        return (returns > 0).mean(axis=1) - 0.5
    return returns.mean(axis=1) if signal == "mean" else np.median(returns, axis=1)


def decide(expected: np.ndarray, buy_threshold: float, sell_threshold: float) -> np.ndarray:
    """BUY above one threshold, SELL below the other, else HOLD: int8 ``(N,)``."""
    return np.where(expected > buy_threshold, BUY, np.where(expected < sell_threshold, SELL, HOLD)).astype(np.int8)


def rows_of(cutoffs: np.ndarray, stamps: np.ndarray) -> np.ndarray:
    """Rows of the cutoffs' candles, ``(N,)``.

    Args:
        cutoffs: open times of the cutoffs' candles, ``(N,)``.
        stamps: open times of all candles, ascending, ``(T,)``.

    Raises:
        ValueError: a cutoff is none of the candles.
    """
    rows = np.searchsorted(stamps, cutoffs)
    if len(cutoffs) and (rows.max() >= len(stamps) or (stamps[rows] != cutoffs).any()):
        raise ValueError("a cutoff is none of the candles")
    return rows


def on_candles(signals: np.ndarray, rows: np.ndarray, length: int) -> np.ndarray:
    """Put signals ``(N,)`` on their candles' rows ``(N,)``, HOLD elsewhere: int8 ``(length,)``."""
    aligned = np.full(length, HOLD, dtype=np.int8)
    aligned[rows] = signals
    return aligned


def wanted_positions(signals: np.ndarray, side: Literal["long_only", "long_short"]) -> np.ndarray:
    """Position that the signals ask for, HOLD keeping the one before: 1, 0 or −1, ``(N,)``."""
    last = np.maximum.accumulate(np.where(signals != HOLD, np.arange(len(signals)), 0))
    return np.maximum(signals[last], 0 if side == "long_only" else SELL)
