"""Combination of forecasters: a mixture of their sample paths, with weights from the validation range.

Shape letters: K forecasters, N cutoffs, S sample paths, h horizon.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import minimize

from kronos_lightning.forecast.distribution import crps

LEAST_WEIGHT = 0.02  # smaller weights are noise and become zero


def mixture_terms(
    closes: Sequence[np.ndarray], last_close: np.ndarray, actual: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the terms of the CRPS of every mixture, from which it follows without drawing paths.

    With weights w, the CRPS is ``w @ error - w @ distance @ w / 2``.

    Args:
        closes: paths ``(N, S, h)`` of each forecaster, drawn independently of each other.
        last_close, actual: ``(N,)`` and ``(N, h)``.

    Returns:
        error: mean E|X − y| of each forecaster, relative to the last close, ``(K,)``.
        distance: mean E|X − X′| between the forecasters, ``(K, K)``; within one, of different paths.
    """
    paths = [close / last_close[:, None, None] for close in closes]
    truth, k = actual / last_close[:, None], len(paths)
    error = np.array([np.abs(one - truth[:, None]).mean() for one in paths])
    within = [2 * (error[i] - crps(one, truth).mean()) for i, one in enumerate(paths)]
    distance = np.diag(within)
    for i in range(k):
        for j in range(i):
            distance[i, j] = distance[j, i] = _mean_distance(paths[i], paths[j])
    return error, distance


def _mean_distance(one: np.ndarray, other: np.ndarray) -> float:
    """Return the mean |x − y| over all pairs of paths of two forecasters, and over cutoffs and steps."""
    sizes = one.shape[1], other.shape[1]
    joined = np.concatenate([one, other], axis=1)
    pairs = [_sum_of_distances(part) for part in (joined, one, other)]
    return float((pairs[0] - pairs[1] - pairs[2]).mean() / (sizes[0] * sizes[1]))


def _sum_of_distances(paths: np.ndarray) -> np.ndarray:
    """Return the sum of |x − x′| over the unordered pairs of paths, ``(N, h)``."""
    s = paths.shape[1]
    rank = 2 * np.arange(1, s + 1) - s - 1
    found: np.ndarray = np.einsum("s,nsh->nh", rank, np.sort(paths, axis=1))
    return found


def fit_weights(closes: Mapping[str, np.ndarray], last_close: np.ndarray, actual: np.ndarray) -> dict[str, float]:
    """Fit the weights of a mixture with the lowest CRPS.

    The weights of the first half of the cutoffs are tried on the second half. If they do not beat the forecaster that
    was best on the first half there, it gets the whole weight; else the weights are fitted on all cutoffs.

    Args:
        closes: paths ``(N, S, h)`` by name, cutoffs ascending, drawn independently of each other.
        last_close, actual: ``(N,)`` and ``(N, h)``.

    Returns:
        Weight of each forecaster; they sum to 1.
    """
    names, half = list(closes), len(last_close) // 2
    first, second, everything = (
        mixture_terms([close[rows] for close in closes.values()], last_close[rows], actual[rows])
        for rows in (slice(0, half), slice(half, None), slice(None))
    )
    alone = np.eye(len(names))[int(np.argmin(first[0] - np.diag(first[1]) / 2))]
    tried = _best(*first)
    weights = _best(*everything) if _loss(tried, *second) < _loss(alone, *second) else alone
    return dict(zip(names, weights.tolist(), strict=True))


def _loss(weights: np.ndarray, error: np.ndarray, distance: np.ndarray) -> float:
    return float(weights @ error - weights @ distance @ weights / 2)


def _best(error: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Return the weights with the lowest CRPS; the CRPS of a mixture is convex in its weights."""
    k, unit = len(error), float(np.abs(error).max()) or 1.0
    found = minimize(
        lambda w: _loss(w, error, distance) / unit,
        np.full(k, 1 / k),
        jac=lambda w: (error - distance @ w) / unit,
        bounds=[(0.0, 1.0)] * k,
        constraints=[{"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones(k)}],
        options={"ftol": 1e-12},
    )
    weights = np.where(found.x < LEAST_WEIGHT, 0.0, found.x)
    rounded: np.ndarray = weights / weights.sum()
    return rounded


def combine(paths: Mapping[str, np.ndarray], weights: Mapping[str, float]) -> np.ndarray:
    """Return a sample of a mixture: of every forecaster its first paths, as many as its weight says.

    Args:
        paths: ``(N, S, …)`` by name, drawn independently of each other, all with the same S.
        weights: weight of each forecaster; they sum to 1.

    Returns:
        ``(N, S, …)``.
    """
    size = next(iter(paths.values())).shape[1]
    ends = np.rint(np.cumsum([weights[name] for name in paths]) * size).astype(int)
    counts = np.diff(ends, prepend=0)
    return np.concatenate([part[:, :count] for part, count in zip(paths.values(), counts, strict=True)], axis=1)
