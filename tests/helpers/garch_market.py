"""Candles whose distribution is known: GARCH(1,1) with Student's t."""

import numpy as np
import pandas as pd

from kronos_lightning.data import Candles
from kronos_lightning.settings import parse_interval

ALPHA, BETA, DEGREES, VOLATILITY = 0.1, 0.85, 6.0, 0.01  # the last one unconditional, a candle


def garch_candles(
    n: int,
    seed: int,
    alpha: float = ALPHA,
    beta: float = BETA,
    degrees: float = DEGREES,
    volatility: float = VOLATILITY,
    interval: str = "1h",
    start: str = "2020-01-01",
) -> tuple[Candles, np.ndarray]:
    """n candles, and the standard deviation ``(n,)`` of each one's log return given the candles before it."""
    rng = np.random.default_rng(seed)
    shocks = rng.standard_t(degrees, n) * np.sqrt((degrees - 2) / degrees)
    returns, sigma = np.zeros(n), np.full(n, volatility)
    for i in range(1, n):
        news = alpha * returns[i - 1] ** 2 + beta * sigma[i - 1] ** 2
        sigma[i] = np.sqrt(volatility**2 * (1 - alpha - beta) + news)
        returns[i] = sigma[i] * shocks[i]
    close = 100 * np.exp(returns.cumsum())
    open_ = np.concatenate([close[:1], close[:-1]])
    wicks = np.exp(np.abs(rng.normal(0, volatility / 4, (2, n))))
    frame = pd.DataFrame(
        {
            "timestamps": pd.date_range(start, periods=n, freq=parse_interval(interval), tz="UTC", unit="ns"),
            "open": open_,
            "high": np.maximum(open_, close) * wicks[0],
            "low": np.minimum(open_, close) / wicks[1],
            "close": close,
            "volume": rng.lognormal(0, 0.3, n),
        }
    )
    frame["amount"] = frame["volume"] * close
    frame["segment"] = np.zeros(n, dtype=np.int64)
    return Candles(
        frame=frame, symbol="SIMULATED", interval=parse_interval(interval), source=f"GARCH, seed {seed}", synthetic=True
    ), sigma


def true_paths(
    candles: Candles, sigma: np.ndarray, cutoffs: np.ndarray, horizon: int, num_paths: int, seed: int
) -> np.ndarray:
    """Paths of the close ``(N, S, h)`` from the very distribution that made `garch_candles` of the default figures."""
    shape = len(cutoffs), num_paths, horizon
    shocks = np.random.default_rng(seed).standard_t(DEGREES, shape) * np.sqrt((DEGREES - 2) / DEGREES)
    variance, moves = np.repeat(sigma[cutoffs + 1, None] ** 2, num_paths, axis=1), np.empty(shape)
    for step in range(horizon):
        moves[..., step] = np.sqrt(variance) * shocks[..., step]
        variance = VOLATILITY**2 * (1 - ALPHA - BETA) + ALPHA * moves[..., step] ** 2 + BETA * variance
    return candles.frame["close"].to_numpy()[cutoffs, None, None] * np.exp(moves.cumsum(axis=-1))
