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


def on_candles(signals: np.ndarray, cutoffs: np.ndarray, stamps: np.ndarray) -> np.ndarray:
    """Put each cutoff's signal on its candle, HOLD elsewhere: int8 ``(T,)``.

    Args:
        signals: ``(N,)``.
        cutoffs: open times of the cutoffs' candles, ``(N,)``.
        stamps: open times of all candles, ascending, ``(T,)``.
    """
    aligned = np.zeros(len(stamps), dtype=np.int8)
    rows = np.searchsorted(stamps, cutoffs)
    if len(cutoffs) and (rows.max() >= len(stamps) or (stamps[rows] != cutoffs).any()):
        raise ValueError("a cutoff is none of the candles")
    aligned[rows] = signals
    return aligned
