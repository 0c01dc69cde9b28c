"""Reliability of a Sharpe ratio: bootstrap interval, probabilistic and deflated Sharpe ratio.

All Sharpe ratios here are per candle. Sources: Bailey & López de Prado, The Sharpe Ratio Efficient Frontier (Journal
of Risk 15(2), 2012) and The Deflated Sharpe Ratio (Journal of Portfolio Management 40(5), 2014); Politis & Romano, A
Circular Block-Resampling Procedure (1992).

The resampling is implemented here because it needs only block sums: 2,000 resamplings of 50,000 returns take 0.04 s,
with `arch` 0.84 s.

Shape letters: n returns, B resamplings.
"""

import numpy as np
from scipy.stats import kurtosis, norm, skew

from .performance import sharpe_ratio

CHUNK = 2**22  # maximum number of block sums in memory


def sharpe_interval(returns: np.ndarray, samples: int, seed: int, level: float = 0.95) -> tuple[float, float]:
    """Estimate an interval of the Sharpe ratio by circular block bootstrap; return its lower and upper end.

    Both ends are NaN if the ratio is undefined. Blocks of n^(1/3) candles keep the dependence of neighbouring returns;
    the number of blocks is chosen so that their total length is closest to n. Mean and standard deviation of a
    resampling come from the sums of its blocks.

    Args:
        returns: returns per candle, ``(n,)``.
        samples: number of resamplings, B.
        seed: seed of the resampling.
        level: share of the resamplings inside the interval.
    """
    if np.isnan(sharpe_ratio(returns)):
        return np.nan, np.nan
    block = round(len(returns) ** (1 / 3))
    count = round(len(returns) / block)
    sums, squares = (_circular_sums(values, block) for values in (returns, np.square(returns)))
    rng, ratios = np.random.default_rng(seed), []
    for done in range(0, samples, batch := max(1, CHUNK // count)):
        starts = rng.integers(0, len(returns), (min(batch, samples - done), count))
        n = count * block
        mean = sums[starts].sum(axis=1) / n
        variance = (squares[starts].sum(axis=1) - n * mean**2) / (n - 1)
        ratios.append(np.divide(mean, np.sqrt(variance.clip(0)), out=np.full_like(mean, np.nan), where=variance > 0))
    tail = (1 - level) / 2
    lower, upper = np.nanquantile(np.concatenate(ratios), [tail, 1 - tail])
    return float(lower), float(upper)


def probabilistic_sharpe(returns: np.ndarray, benchmark: float = 0.0) -> float:
    """Return the probability that the true Sharpe ratio of returns ``(n,)`` is above a benchmark; NaN if undefined."""
    observed = sharpe_ratio(returns)
    if np.isnan(observed):
        return np.nan
    return sharpe_probability(observed, benchmark, len(returns), float(skew(returns)), float(kurtosis(returns) + 3))


def sharpe_probability(observed: float, benchmark: float, n: int, skewness: float, kurtosis: float) -> float:
    """Compute Φ((SR − SR*)·√(n−1) / √(1 − γ₃·SR + (γ₄−1)/4·SR²)): Bailey & López de Prado 2012, eq. 11.

    Args:
        observed, benchmark: SR and SR*.
        n: number of returns behind SR.
        skewness, kurtosis: γ₃ and γ₄ of the returns (3 for a normal distribution).
    """
    variance = 1 - skewness * observed + (kurtosis - 1) / 4 * observed**2
    return float(norm.cdf((observed - benchmark) * np.sqrt((n - 1) / variance)))


def expected_maximum(trials: int, variance: float) -> float:
    """Return the expected Sharpe ratio of the best of several trials without skill (2014, eq. 1).

    √V·((1−γ)·Φ⁻¹(1 − 1/N) + γ·Φ⁻¹(1 − 1/(N·e))) with V the variance of the trials' Sharpe ratios, N the number of
    trials and γ the Euler–Mascheroni constant; 0 for one trial.
    """
    if trials < 2:
        return 0.0
    quantiles = norm.ppf([1 - 1 / trials, 1 - 1 / (trials * np.e)])
    return float(np.sqrt(variance) * ((1 - np.euler_gamma) * quantiles[0] + np.euler_gamma * quantiles[1]))


def deflated_sharpe(returns: np.ndarray, trials: np.ndarray) -> float:
    """Return the probability that the best trial's true Sharpe ratio is above zero, given that it is the best of many.

    Args:
        returns: returns of the best trial, ``(n,)``.
        trials: Sharpe ratios of all trials, including the best; NaN (the trial never traded) counts as a trial, but
            not in the variance.
    """
    known = trials[~np.isnan(trials)]
    variance = known.var(ddof=1) if len(known) > 1 else 0.0
    return probabilistic_sharpe(returns, expected_maximum(len(trials), variance))


def _circular_sums(values: np.ndarray, block: int) -> np.ndarray:
    """Return the sum of `block` values from each position on, with the end joined to the beginning: ``(n,)``."""
    total = np.concatenate([[0.0], np.cumsum(np.concatenate([values, values[: block - 1]]))])
    sums: np.ndarray = total[block:] - total[:-block]
    return sums
