"""Drift alarm: a test of coverage that may be looked at after every forecast.

The place u of each actual close among the paths (PIT) is uniform if the forecasts are right. Its distance from the
middle, |2u − 1|, falls into five classes between the central 50, 80, 90 and 95 % intervals, whose probabilities are
then known. Against them stand alternatives in which the true spread is a multiple of the forecast one. The mean of
their likelihood ratios is an e-process: whatever the moment at which one looks, the probability that it has ever
reached 100 is at most 1 % while the forecasts are right (Ville's inequality). It needs forecasts whose targets do not
overlap.

Shape letters: n forecasts, K alternatives.
"""

import numpy as np
import pandas as pd
from scipy.stats import norm

LEVELS = (0.5, 0.8, 0.9, 0.95)
SPREADS = np.array([0.5, 0.6, 0.7, 0.8, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0])  # true over forecast spread
ALARM, WATCH = 100.0, 10.0


def _class_probabilities(spread: float) -> np.ndarray:
    """Return the probabilities of the five classes if the true normal spread is a multiple of the forecast one."""
    edges = norm.ppf((1 + np.array(LEVELS)) / 2) / spread
    inside = np.concatenate([[0.0], 2 * norm.cdf(edges) - 1, [1.0]])
    found: np.ndarray = np.diff(inside)
    return found


LOG_RATIOS = np.stack([np.log(_class_probabilities(s) / _class_probabilities(1.0)) for s in SPREADS])  # (K, classes)


def e_process(places: np.ndarray) -> np.ndarray:
    """Return the evidence against the coverage after each forecast, ``(n,)``; 1 = none.

    Args:
        places: PIT of forecasts whose targets do not overlap, in time order ``(n,)``.
    """
    classes = np.searchsorted(LEVELS, np.abs(2 * places - 1))
    logs = np.cumsum(LOG_RATIOS[:, classes], axis=1)
    top = logs.max(axis=0)
    evidence: np.ndarray = np.exp(np.minimum(top, 700.0)) * np.exp(logs - top).mean(axis=0)
    return evidence


def apart(cutoffs: pd.Series, distance: pd.Timedelta) -> np.ndarray:
    """Return the positions of the cutoffs, taken in order, that are at least a distance after the one taken before."""
    chosen: list[int] = []
    next_allowed = None
    for i, cutoff in enumerate(cutoffs):
        if next_allowed is None or cutoff >= next_allowed:
            chosen.append(i)
            next_allowed = cutoff + distance
    return np.array(chosen, dtype=np.int64)
