"""Forecast sets and truths from numbers, for tests."""

import numpy as np

from kronos_lightning.data.formats import CLOSE, FEATURES
from kronos_lightning.evaluation.metrics import Truth
from kronos_lightning.forecast import ForecastSet

HOUR = np.timedelta64(1, "h")


def made(paths, actual, last, stride=1):
    """A forecast set from closes: paths (N, S, h), actual (N, h), last (N,); a cutoff every `stride` hours."""
    paths, actual, last = (np.asarray(part, dtype=float) for part in (paths, actual, last))
    n, h = actual.shape
    cutoffs = np.datetime64("2024-07-01", "ns") + np.arange(n) * stride * HOUR
    future = cutoffs[:, None] + np.arange(1, h + 1) * HOUR
    wide = np.repeat(paths[..., None], 6, axis=-1).astype(np.float32)
    return ForecastSet(
        cutoffs=cutoffs,
        stamps=future,
        last_close=last,
        paths=wide,
        actual=np.repeat(actual[..., None], 6, axis=-1),
    )


def forecasts_on(candles, rows, paths):
    """A forecast set of these rows of candles: paths of closes (N, S, h), which all columns take, or of candles."""
    values, future = candles.frame[FEATURES].to_numpy(), rows[:, None] + np.arange(1, paths.shape[2] + 1)
    whole = paths if paths.ndim == 4 else np.repeat(paths[..., None], len(FEATURES), axis=-1)
    return ForecastSet(
        cutoffs=candles.times[rows],
        stamps=candles.times[future],
        last_close=values[rows, CLOSE],
        paths=whole.astype(np.float32),
        actual=values[future],
    )


def truth_of(forecasts):
    """What came, with a scale and a volatility of one."""
    ones = np.ones(len(forecasts))
    return Truth(
        begins=forecasts.stamps[:, 0],
        last_close=forecasts.last_close,
        actual=forecasts.actual_close,
        scale=ones,
        volatility=ones,
    )


def walks(n, horizon=5, paths=200, seed=0, spread=1.0, drift=0.0, step=0.01, known=0.0):
    """Random walks from 100: reality with steps of `step`; paths with `spread` times that and a drift a step.

    known: share of reality that the paths know.
    """
    rng = np.random.default_rng(seed)
    came = np.cumsum(rng.normal(size=(n, horizon)) * step, axis=1)
    drawn = np.cumsum(rng.normal(size=(n, paths, horizon)) * step * spread + drift, axis=2) + known * came[:, None]
    return made(100 * np.exp(drawn), 100 * np.exp(came), np.full(n, 100.0), stride=horizon)
