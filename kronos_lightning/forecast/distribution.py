"""Statistics of sample paths: quantiles, probabilities, volatility, and validity of the candles.

Shape letters: N series or cutoffs, S sample paths, h horizon, C = 6 features, Q quantile levels. Every statistic is
computed from the paths themselves; no shape of the distribution is assumed.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from kronos_lightning.data.formats import AMOUNT, CLOSE, FEATURES, HIGH, LOW, OPEN, VOLUME


def quantiles(paths: np.ndarray, levels: Sequence[float]) -> np.ndarray:
    """Compute quantiles over the paths ``(N, S, h, C)`` → ``(N, h, C, Q)``, float64; see `path_quantiles`."""
    return np.moveaxis(path_quantiles(paths.astype(np.float64), levels), 0, -1)


def path_quantiles(paths: np.ndarray, levels: Sequence[float]) -> np.ndarray:
    """Compute quantiles over axis 1 of paths ``(N, S, …)`` → ``(Q, N, …)``.

    The k-th smallest of S paths has level k / (S + 1) (Weibull's plotting position), so that paths of the true
    distribution have nominal coverage for any number of paths. Levels beyond the first or last path return that path.
    """
    ordered, s = np.sort(paths, axis=1), paths.shape[1]
    place = np.clip(np.array(levels) * (s + 1) - 1, 0, s - 1)
    low, high = np.floor(place).astype(int), np.ceil(place).astype(int)
    share = (place - low).reshape(-1, *[1] * (paths.ndim - 1))
    below, above = (np.moveaxis(ordered[:, edge], 1, 0) for edge in (low, high))
    found: np.ndarray = below * (1 - share) + above * share
    return found


def probability_up(paths: np.ndarray, last_close: np.ndarray) -> np.ndarray:
    """Return the share of paths whose close is above the last known close ``(N,)``, at every step: ``(N, h)``."""
    share: np.ndarray = (paths[..., CLOSE] > last_close[:, None, None]).mean(axis=1)
    return share


def crps(paths: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """Compute the continuous ranked probability score of sample paths, in their units; lower is better.

    This is the fair estimator E|X − y| − E|X − X′| / 2 with pairs of different paths: its mean does not depend on the
    number of paths (Ferro, 2014). A single path has no pairs; its score is the absolute error.

    Args:
        paths: sample paths, ``(N, S, …)``.
        actual: realised values, ``(N, …)``.

    Returns:
        float64 ``(N, …)``.
    """
    paths, s = paths.astype(np.float64), paths.shape[1]
    score: np.ndarray = np.abs(paths - actual[:, None]).mean(axis=1)
    if s == 1:
        return score
    weight = (2 * np.arange(1, s + 1) - s - 1) / (s * (s - 1))  # of the i-th smallest path, in half the mean difference
    score = score - np.einsum("s,ns...->n...", weight, np.sort(paths, axis=1))
    return score


@dataclass(frozen=True, kw_only=True)
class Touch:
    """Probabilities ``(N,)`` of the level that a path touches first within the horizon; they sum to 1.

    down: the lower level, or both levels in one candle (as in the backtest, the stop counts).
    up: the upper level.
    neither: no level.
    """

    down: np.ndarray
    up: np.ndarray
    neither: np.ndarray


def probability_touch(paths: np.ndarray, last_close: np.ndarray, down: float, up: float) -> Touch:
    """Compute the probability that the low falls by `down` before the high rises by `up`, from the last known close.

    Args:
        paths: sample paths, ``(N, S, h, C)``.
        last_close: last known closes, ``(N,)``.
        down, up: positive shares of the last close, such as 0.02 for 2 %.

    Raises:
        ValueError: `down` or `up` is not positive.
    """
    if not (down > 0 and up > 0):
        raise ValueError(f"down {down} and up {up} must be positive fractions of the last close")
    last, horizon = last_close[:, None, None], paths.shape[2]

    def first(hit: np.ndarray) -> np.ndarray:
        step: np.ndarray = np.where(hit.any(axis=2), hit.argmax(axis=2), horizon)
        return step

    lower, upper = first(paths[..., LOW] <= last * (1 - down)), first(paths[..., HIGH] >= last * (1 + up))
    fell, rose = (lower < horizon) & (lower <= upper), (upper < horizon) & (upper < lower)
    return Touch(down=fell.mean(axis=1), up=rose.mean(axis=1), neither=(~fell & ~rose).mean(axis=1))


def expected_volatility(paths: np.ndarray, last_close: np.ndarray) -> np.ndarray:
    """Compute the mean realised volatility of the paths: root mean square of log returns per candle, ``(N,)``.

    The result is not annualised. Paths with a close that is not positive have no volatility and are left out.
    """
    first = np.broadcast_to(last_close[:, None, None], (*paths.shape[:2], 1))
    close = np.concatenate([first, paths[..., CLOSE].astype(np.float64)], axis=2)
    with np.errstate(invalid="ignore", divide="ignore"):
        returns = np.diff(np.log(np.where(close > 0, close, np.nan)), axis=2)
        mean: np.ndarray = np.nanmean(np.sqrt(np.mean(np.square(returns), axis=2)), axis=1)
    return mean


@dataclass(frozen=True)
class Validity:
    """Shares of paths with at least one impossible candle.

    high: high below open or close.
    low: low above open or close.
    volume: volume or amount negative, or not a finite number.
    price: a price not positive, or not a finite number.
    any: at least one of these defects.
    """

    high: float
    low: float
    volume: float
    price: float
    any: float

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {share:.1%}" for name, share in asdict(self).items() if name != "any")
        return f"{self.any:.1%} of the paths hold an impossible candle ({parts})"


def validity(paths: np.ndarray) -> Validity:
    """Compute the shares of paths ``(N, S, h, C)`` that contain impossible candles."""
    body = paths[..., [OPEN, CLOSE]]
    defects = {
        "high": paths[..., HIGH] < body.max(axis=-1),
        "low": paths[..., LOW] > body.min(axis=-1),
        "volume": _outside(paths[..., [VOLUME, AMOUNT]] >= 0, paths[..., [VOLUME, AMOUNT]]),
        "price": _outside(paths[..., : CLOSE + 1] > 0, paths[..., : CLOSE + 1]),
    }
    shares = {name: float(bad.any(axis=2).mean()) for name, bad in defects.items()}
    return Validity(**shares, any=float(np.any(list(defects.values()), axis=0).any(axis=2).mean()))


def _outside(allowed: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return True where a value of the last axis is not allowed or not finite: ``(…, F)`` → ``(…)``."""
    bad: np.ndarray = ~(allowed & np.isfinite(values)).all(axis=-1)
    return bad


def repair(paths: np.ndarray) -> np.ndarray:
    """Repair candles: high and low become the extremes of all four prices, negative volume and amount become zero.

    Opens and closes, and therefore all statistics of the close, are unchanged. A price that is not positive also stays,
    because there is no sensible replacement. Returns a new array.
    """
    mended, prices = paths.copy(), paths[..., : CLOSE + 1]
    mended[..., HIGH], mended[..., LOW] = prices.max(axis=-1), prices.min(axis=-1)
    np.maximum(mended[..., VOLUME:], 0, out=mended[..., VOLUME:])
    return mended


def quantile_table(
    paths: np.ndarray,
    stamps: pd.DatetimeIndex,
    levels: Sequence[float],
    targets: Sequence[str] = tuple(FEATURES),
    timestamp_column: str = "timestamp",
) -> pd.DataFrame:
    """Build a table of one series' forecast in the column conventions of chronos-forecasting.

    Args:
        paths: sample paths, ``(S, h, C)``.
        stamps: open times of the forecast candles, ``(h,)``.
        levels: quantile levels.
        targets: features to report.
        timestamp_column: name of the open times.

    Returns:
        One row per feature and step: `timestamp_column`, ``target_name``, ``predictions`` (mean of the paths) and one
        column per level, named ``"0.1"`` and so on.
    """
    edges, mean = quantiles(paths[None], levels)[0], paths.mean(axis=0, dtype=np.float64)
    parts = []
    for name in targets:
        i = FEATURES.index(name)
        columns = {timestamp_column: stamps, "target_name": name, "predictions": mean[:, i]}
        parts.append(pd.DataFrame(columns | {str(level): edges[:, i, q] for q, level in enumerate(levels)}))
    return pd.concat(parts, ignore_index=True)


def check_levels(levels: Sequence[float]) -> None:
    """Raise `ValueError` unless every quantile level lies between 0 and 1."""
    if not len(levels) or not all(0 < level < 1 for level in levels):
        raise ValueError(f"quantile levels {list(levels)}: each must be between 0 and 1")
