"""Risk from sample paths: value at risk, expected shortfall, drawdown. A loss is a positive share of the last close.

Shape letters: N series or cutoffs, S sample paths, h horizon, C = 6 features.
"""

from dataclasses import dataclass

import numpy as np

from kronos_lightning.data.formats import CLOSE
from kronos_lightning.forecast.distribution import check_levels, path_quantiles

RISK_LEVELS = (0.01, 0.05)


@dataclass(frozen=True, kw_only=True)
class TailRisk:
    """Losses ``(N, h)`` of a long position from the last close to each step; negative where the tail is a gain.

    level: probability of a larger loss than `value_at_risk`.
    value_at_risk: quantile of the loss. With S paths nothing rarer than 1 / (S + 1) can be resolved.
    expected_shortfall: mean loss of the paths that lose at least as much.
    """

    level: float
    value_at_risk: np.ndarray
    expected_shortfall: np.ndarray


def tail_risk(paths: np.ndarray, last_close: np.ndarray, level: float) -> TailRisk:
    """Compute value at risk and expected shortfall of the close at every step.

    Args:
        paths: sample paths, ``(N, S, h, C)``.
        last_close: last known closes, ``(N,)``.
        level: such as 0.05.

    Raises:
        ValueError: the level is not between 0 and 1.
    """
    check_levels([level])
    returns = paths[..., CLOSE].astype(np.float64) / last_close[:, None, None] - 1
    (edge,) = path_quantiles(returns, (level,))
    tail = returns <= np.maximum(edge, returns.min(axis=1))[:, None]
    mean = np.where(tail, returns, 0.0).sum(axis=1) / tail.sum(axis=1)
    return TailRisk(level=level, value_at_risk=-edge, expected_shortfall=-mean)


def drawdowns(paths: np.ndarray, last_close: np.ndarray) -> np.ndarray:
    """Return the largest fall of each path's close from its highest close so far, the last known close included.

    Args:
        paths: sample paths ``(N, S, h, C)``; realised candles are one path of each cutoff.
        last_close: last known closes, ``(N,)``.

    Returns:
        Shares of the highest close, ``(N, S)``, 0 if the close never falls.
    """
    first = np.broadcast_to(last_close[:, None, None], (*paths.shape[:2], 1))
    close = np.concatenate([first, paths[..., CLOSE].astype(np.float64)], axis=2)
    fall: np.ndarray = (1 - close / np.maximum.accumulate(close, axis=2)).max(axis=2)
    return fall
