"""Whether a difference between two forecasters is more than chance.

Forecasts that overlap in time are correlated; both tests here allow for it. Shape letter: N cutoffs.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

FEWEST_BLOCKS = 8  # below this an interval from blocks means nothing
ALPHA = 0.05


@dataclass(frozen=True)
class Comparison:
    """A forecaster beside another, by their losses.

    other: name of the other.
    skill: 1 − mean loss / mean loss of the other; positive is better.
    lower, upper: 95 % block-bootstrap interval of the skill; NaN with too few cutoffs.
    statistic, p_value: Diebold–Mariano; a negative statistic is better. NaN with too few cutoffs.
    """

    other: str
    skill: float
    lower: float
    upper: float
    statistic: float
    p_value: float

    @property
    def judged(self) -> bool:
        """Whether there were enough cutoffs."""
        return not np.isnan(self.p_value)

    @property
    def better(self) -> bool:
        """Both tests say so."""
        return self.judged and self.p_value < ALPHA and self.lower > 0

    @property
    def worse(self) -> bool:
        """Both tests say so."""
        return self.judged and self.p_value < ALPHA and self.upper < 0

    @property
    def words(self) -> str:
        """The verdict."""
        if not self.judged:
            return f"too few independent cutoffs to judge against {self.other}"
        if self.better:
            return f"better than {self.other}"
        return f"worse than {self.other}: no edge" if self.worse else f"no difference to {self.other}: no edge"


def compare(loss: np.ndarray, other: np.ndarray, name: str, overlap: int, samples: int, seed: int) -> Comparison:
    """Compare two forecasters on the same cutoffs.

    Args:
        loss, other: losses ``(N,)`` at each cutoff, in time order.
        name: of the other forecaster.
        overlap: how many neighbouring cutoffs share target candles.
        samples, seed: of the bootstrap.
    """
    n, mean = len(loss), other.mean()
    skill = float(1 - loss.mean() / mean) if mean > 0 else np.nan
    block = max(overlap, round(n ** (1 / 3)))
    if n < FEWEST_BLOCKS * block:
        return Comparison(name, skill, np.nan, np.nan, np.nan, np.nan)
    rows = block_bootstrap(n, block, samples, seed)
    lower, upper = np.quantile(1 - loss[rows].mean(axis=1) / other[rows].mean(axis=1), [0.025, 0.975])
    return Comparison(name, skill, float(lower), float(upper), *diebold_mariano(loss, other, overlap))


def against_best(
    loss: np.ndarray, others: Mapping[str, np.ndarray], overlap: int, samples: int, seed: int
) -> Comparison:
    """Compare with the one of the others that had the lowest mean loss on these very cutoffs: the hardest to beat."""
    best = min(others, key=lambda name: others[name].mean())
    return compare(loss, others[best], best, overlap, samples, seed)


def diebold_mariano(loss: np.ndarray, other: np.ndarray, overlap: int) -> tuple[float, float]:
    """Statistic and two-sided p-value for equal expected losses ``(N,)``.

    Newey–West variance over max(overlap − 1, ⌈N^⅓⌉) lags, with the small-sample correction and Student's t of Harvey,
    Leybourne and Newbold (1997). Equal losses have the p-value 1.
    """
    difference = loss - other
    n, mean = len(difference), difference.mean()
    if not np.ptp(difference):
        return (0.0, 1.0) if mean == 0 else (float(np.sign(mean) * np.inf), 0.0)
    lags = min(max(overlap - 1, int(np.ceil(n ** (1 / 3)))), n - 1)
    centred = difference - mean
    covariances = np.array([centred[k:] @ centred[: n - k] for k in range(lags + 1)]) / n
    weights = 1 - np.arange(1, lags + 1) / (lags + 1)
    variance = (covariances[0] + 2 * weights @ covariances[1:]) / n
    correction = (n + 1 - 2 * overlap + overlap * (overlap - 1) / n) / n
    statistic = float(mean / np.sqrt(variance) * np.sqrt(correction))
    return statistic, float(2 * stats.t.sf(abs(statistic), n - 1))


def block_bootstrap(n: int, block: int, samples: int, seed: int) -> np.ndarray:
    """Rows ``(samples, n)`` of a circular block bootstrap (Politis and Romano, 1992)."""
    first = np.random.default_rng(seed).integers(0, n, (samples, -(-n // block)))
    return ((first[..., None] + np.arange(block)) % n).reshape(samples, -1)[:, :n]
