"""Significance of the difference between two forecasters.

Forecasts that overlap in time are correlated; both tests here allow for it. Shape letter: N cutoffs.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np
from scipy import stats

MIN_INDEPENDENT_CUTOFFS = 16  # minimum number of independent cutoffs for a test
LONGER = 2  # block length in overlaps: blocks of one overlap would miss correlation across their ends
ALPHA = 0.05
POWER = 0.8

Key = TypeVar("Key", bound=Hashable)
Kernel = Literal["bartlett", "rectangular"]
KERNELS: tuple[Kernel, ...] = ("bartlett", "rectangular")


@dataclass(frozen=True, kw_only=True)
class Bootstrap:
    """Settings of the block bootstrap over neighbouring cutoffs.

    overlap: number of neighbouring cutoffs that share target candles.
    samples, seed: number of resamples and their seed.
    """

    overlap: int
    samples: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Comparison of two forecasters by their losses.

    other: name of the other forecaster.
    skill: 1 − mean loss / mean loss of the other; positive is better.
    lower, upper: 95 % block-bootstrap interval of the skill; NaN with too few cutoffs.
    statistic, p_value: Diebold–Mariano; a negative statistic is better. NaN with too few cutoffs.
    corrected: p-value corrected for the number of comparisons of its family, see `corrected`; alone it is the p-value.
    family: number of these comparisons.
    detectable: skill that such a sample shows with 80 % power at the two-sided 5 % level; NaN with too few cutoffs.
    """

    other: str
    skill: float
    lower: float
    upper: float
    statistic: float
    p_value: float
    corrected: float
    detectable: float
    family: int = 1

    @property
    def is_tested(self) -> bool:
        """True if there were enough cutoffs and the skill is defined."""
        return not np.isnan(self.p_value)

    @property
    def better(self) -> bool:
        """True if both tests agree that it is better, the p-value after correction."""
        return self.is_tested and self.corrected < ALPHA and self.lower > 0

    @property
    def worse(self) -> bool:
        """True if both tests agree that it is worse, the p-value after correction."""
        return self.is_tested and self.corrected < ALPHA and self.upper < 0

    @property
    def text(self) -> str:
        """Verdict as text."""
        if np.isnan(self.skill):
            return f"not comparable with {self.other}, a loss is not a number"
        if not self.is_tested:
            return f"not tested, too few independent cutoffs to compare with {self.other}"
        if self.better:
            return f"better than {self.other}"
        return f"no edge, worse than {self.other}" if self.worse else f"no edge, no difference shown to {self.other}"


def compare(loss: np.ndarray, other: np.ndarray, name: str, bootstrap: Bootstrap) -> Comparison:
    """Compare two forecasters on the same cutoffs.

    Args:
        loss, other: losses ``(N,)`` at each cutoff, in time order.
        name: of the other forecaster.
        bootstrap: settings of the interval; the Diebold–Mariano test uses its overlap too.
    """
    n, mean, overlap = len(loss), other.mean(), bootstrap.overlap
    skill = float(1 - loss.mean() / mean) if mean > 0 else np.nan
    if n < MIN_INDEPENDENT_CUTOFFS * max(overlap, round(n ** (1 / 3))) or np.isnan(skill):
        unknown = dict.fromkeys(("lower", "upper", "statistic", "p_value", "corrected", "detectable"), np.nan)
        return Comparison(other=name, skill=skill, family=1, **unknown)
    lower, upper = _interval(bootstrap, lambda one, two: 1 - one.mean() / two.mean(), loss, other)
    # Each kernel underestimates the variance in some cases; the larger p-value counts.
    tests = [diebold_mariano(loss, other, overlap, kernel) for kernel in KERNELS]
    statistic, p_value = max(tests, key=lambda found: found[1])
    error = max(standard_error(loss - other, overlap, kernel) for kernel in KERNELS)
    return Comparison(
        other=name,
        skill=skill,
        lower=lower,
        upper=upper,
        statistic=statistic,
        p_value=p_value,
        corrected=p_value,
        detectable=float((stats.norm.ppf(1 - ALPHA / 2) + stats.norm.ppf(POWER)) * error / mean),
    )


def corrected(comparisons: Mapping[Key, Comparison]) -> dict[Key, Comparison]:
    """Correct the p-values of comparisons that answer one question for their number, by Holm's method (1979).

    Comparisons that were not tested do not count.
    """
    tested = sorted((name for name in comparisons if comparisons[name].is_tested), key=lambda n: comparisons[n].p_value)
    result, floor, count = dict(comparisons), 0.0, len(tested)
    for i, name in enumerate(tested):
        floor = max(floor, min(1.0, (count - i) * comparisons[name].p_value))
        result[name] = replace(comparisons[name], corrected=floor, family=count)
    return result


def against_best(loss: np.ndarray, others: Mapping[str, np.ndarray], bootstrap: Bootstrap) -> Comparison:
    """Compare with the forecaster that had the lowest mean loss on exactly these cutoffs: the hardest to beat."""
    best = min(others, key=lambda name: others[name].mean())
    return compare(loss, others[best], best, bootstrap)


def diebold_mariano(
    loss: np.ndarray, other: np.ndarray, overlap: int, kernel: Kernel = "bartlett"
) -> tuple[float, float]:
    """Compute statistic and two-sided p-value of the test for equal expected losses ``(N,)``.

    Uses the small-sample correction and Student's t of Harvey, Leybourne and Newbold (1997). Equal losses have the
    p-value 1.

    Args:
        loss, other: losses ``(N,)`` at each cutoff, in time order.
        overlap: number of neighbouring cutoffs that share target candles.
        kernel: of the variance; "bartlett" is Newey–West's over max(overlap − 1, ⌈N^⅓⌉) lags, "rectangular" is the
            original over overlap − 1 lags. If the latter variance is not positive, the Bartlett variance is used.
    """
    difference = loss - other
    n, mean = len(difference), difference.mean()
    if not np.ptp(difference):
        return (0.0, 1.0) if mean == 0 else (float(np.sign(mean) * np.inf), 0.0)
    statistic = float(mean / standard_error(difference, overlap, kernel))
    return statistic, float(2 * stats.t.sf(abs(statistic), n - 1))


def standard_error(difference: np.ndarray, overlap: int, kernel: Kernel = "bartlett") -> float:
    """Compute the standard error of the mean of correlated loss differences ``(N,)``; see `diebold_mariano`."""
    n = len(difference)
    lags = min(max(overlap - 1, int(np.ceil(n ** (1 / 3)))), n - 1)
    centred = difference - difference.mean()
    covariances = np.array([centred[k:] @ centred[: n - k] for k in range(lags + 1)]) / n
    weights = 1 - np.arange(1, lags + 1) / (lags + 1)
    variance = (covariances[0] + 2 * weights @ covariances[1:]) / n
    if kernel == "rectangular":
        flat = (covariances[0] + 2 * covariances[1:overlap].sum()) / n
        variance = flat if flat > 0 else variance
    correction = (n + 1 - 2 * overlap + overlap * (overlap - 1) / n) / n
    return float(np.sqrt(variance / correction))


def block_length(n: int, overlap: int) -> int:
    """Return the number of neighbouring cutoffs that are resampled together."""
    root: float = n ** (1 / 3)
    return min(n, max(LONGER * overlap if overlap > 1 else 1, round(root)))


def mean_interval(values: np.ndarray, bootstrap: Bootstrap) -> tuple[float, float]:
    """Compute the 95 % interval of the mean of values ``(N,)`` that are correlated between neighbours."""
    return _interval(bootstrap, np.mean, values)


def _interval(bootstrap: Bootstrap, statistic: Callable[..., float], *series: np.ndarray) -> tuple[float, float]:
    """Compute the 95 % percentile interval of a statistic of series ``(N,)``.

    Circular block bootstrap (Politis and Romano, 1992).
    """
    from arch.bootstrap import CircularBlockBootstrap  # takes seconds to import; only evaluations need it

    block = block_length(len(series[0]), bootstrap.overlap)
    resampling = CircularBlockBootstrap(block, *series, seed=np.random.default_rng(bootstrap.seed))
    found = resampling.apply(statistic, bootstrap.samples)  # type: ignore[arg-type]  # arch takes numbers too
    lower, upper = np.quantile(found, [0.025, 0.975])
    return float(lower), float(upper)
