"""Rivals: forecasting libraries behind the seam of the baselines.

A rival forecasts a series of its own, one for each cutoff: the log close relative to the close at the cutoff, from the
candles up to it, with no jump over a gap. It gives quantiles of each step, or whole paths.

Paths from quantiles: a path's rank in the distribution of each step follows a random walk, so that the ranks of two
steps k < l have the normal scores' correlation sqrt(k / l), as for prices. The quantile function is linear in the
normal score between two levels and beyond the outermost ones, where it has normal tails. Paths are independent draws,
not the quantiles themselves: evenly spaced quantiles scored as a sample would flatter a forecaster.

Shape letters: N cutoffs, Q quantile levels, S sample paths, h horizon, n known returns.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import Field
from rich.progress import track
from scipy.stats import norm

from kronos_lightning.data import CandleError, Candles
from kronos_lightning.errors import KronosError
from kronos_lightning.settings import Count, Section

from .baselines import History, generator_at
from .volatility import LARGEST_MOVE

FEWEST = 10  # minimum number of known returns
WORTH_A_BAR = 3  # number of batches from which a progress bar is shown


class RivalError(KronosError):
    """Library or weights of a rival are missing."""


class Rival(Section, ABC):
    """Base of the baselines that another library forecasts.

    context: maximum number of known candles that a forecast is made from.
    batch_size: cutoffs in one call of the library.
    seed: of the paths.
    """

    context: Count
    batch_size: Count = 1
    seed: Annotated[int, Field(ge=0)]

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of the baseline; part of the seed at every cutoff."""

    @abstractmethod
    def log_returns(
        self, series: list[np.ndarray], generators: list[np.random.Generator], shape: tuple[int, int]
    ) -> np.ndarray:
        """Forecast log returns since the cutoffs ``(N, S, h)``.

        Args:
            series: known log closes of each cutoff minus the last one ``(n + 1,)``, so that each ends with zero.
            generators: one for each cutoff; all random numbers come from them.
            shape: (S, h).
        """

    def applies_to(self, interval: pd.Timedelta) -> bool:
        """Return True: any interval is supported."""
        return True

    def sample_paths(self, candles: Candles, cutoffs: np.ndarray, horizon: int, num_paths: int) -> np.ndarray:
        """Sample paths of the close, float64 ``(N, S, h)``, in batches and with a progress bar.

        Raises:
            CandleError: fewer than ten returns are known at a cutoff.
            RivalError: the library or its weights are missing.
        """
        history = History.of(candles)
        few = cutoffs[history.known[cutoffs] < FEWEST]
        if len(few):
            raise CandleError(
                f"{candles.source}: {self.name} needs {FEWEST} changes of the close before a forecast, at "
                f"{candles.frame['timestamps'].iloc[few[0]]} there are {history.known[few[0]]}; begin later"
            )
        paths, limit = np.empty((len(cutoffs), num_paths, horizon)), LARGEST_MOVE * np.arange(1, horizon + 1)
        for part in self._batches(len(cutoffs)):
            rows = cutoffs[part].tolist()
            series = [relative_log_close(history.until(row)[-self.context :]) for row in rows]
            generators = [generator_at(self.seed, self.name, history.times[row]) for row in rows]
            moves = self.log_returns(series, generators, (num_paths, horizon))
            paths[part] = history.close[rows, None, None] * np.exp(np.clip(moves, -limit, limit))
        return paths

    def _batches(self, count: int) -> Iterator[slice]:
        parts = [slice(begin, begin + self.batch_size) for begin in range(0, count, self.batch_size)]
        yield from track(parts, f"Baseline {self.name}", transient=True, disable=len(parts) < WORTH_A_BAR)


def relative_log_close(returns: np.ndarray) -> np.ndarray:
    """Return the log closes of log returns ``(n,)`` relative to the last one ``(n + 1,)``; the last one is zero."""
    levels = np.concatenate([[0.0], np.cumsum(returns)])
    relative: np.ndarray = levels - levels[-1]
    return relative


def quantile_paths(quantiles: np.ndarray, levels: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Draw paths whose steps have given quantiles and whose ranks follow random walks.

    Args:
        quantiles: of each step ``(Q, h)``, Q ≥ 2; crossing ones are sorted.
        levels: their probabilities, ascending ``(Q,)``.
        steps: independent standard normal draws ``(S, h)``.

    Returns:
        Values ``(S, h)``.
    """
    scores, ordered = norm.ppf(levels), np.sort(quantiles, axis=0)
    walk = steps.cumsum(axis=1) / np.sqrt(np.arange(1, steps.shape[1] + 1))
    below = np.clip(np.searchsorted(scores, walk) - 1, 0, len(scores) - 2)
    share = (walk - scores[below]) / np.diff(scores)[below]
    step = np.arange(steps.shape[1])
    low, high = ordered[below, step], ordered[below + 1, step]
    values: np.ndarray = low + share * (high - low)
    return values
