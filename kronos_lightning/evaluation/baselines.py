"""Forecasters without a network: what a model must beat, as sample paths of the close.

At a cutoff a baseline knows the candles up to it and nothing later. Parameters of the whole history are refitted at
fixed rows of the candle frame, the multiples of `refit_every`; the latest one at or before the cutoff counts. Log
returns over a gap are left out. What a cutoff draws depends on the seed, the baseline and the cutoff's time alone.

`conf/baselines` names the classes and their arguments.

Shape letters: T candles, n known returns, N cutoffs, S sample paths, h horizon, C = 6 features.
"""

import hashlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Annotated, ClassVar, Protocol

import numpy as np
import pandas as pd
from pydantic import Field

from kronos_lightning.data import CandleError, Candles
from kronos_lightning.data.formats import CLOSE
from kronos_lightning.settings import Count, Section

from .volatility import EWMA, Garch, fit_garch

RECENT = 60  # returns that the drift's bootstrap draws from
SEASONS = 60  # earlier seasons
RESIDUALS = 500  # standardised returns that EWMA draws its shocks from
QUIET = 0.01  # EWMA variance, as a share of the residuals' window's, below which a return tells no shock
WINDOW = 5000  # returns that GARCH is fitted on at most
FEWEST = 250  # and at least
DAY = pd.Timedelta(days=1)

Sampler = Callable[[int, np.random.Generator], np.ndarray]  # row of a cutoff, its generator → log returns (S, h)

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class History:
    """All candles as the baselines see them.

    times: opens, nanoseconds ``(T,)``. close, segment: ``(T,)``.
    returns: log returns inside segments, in time order.
    known: how many of the returns are known at each row, ``(T,)``.
    """

    times: np.ndarray
    close: np.ndarray
    segment: np.ndarray
    returns: np.ndarray
    known: np.ndarray

    @classmethod
    def of(cls, candles: Candles) -> "History":
        """From a candle frame."""
        frame = candles.frame
        times = frame["timestamps"].dt.as_unit("ns").astype("int64").to_numpy()
        close, segment = frame["close"].to_numpy(np.float64), frame["segment"].to_numpy()
        inside = np.diff(segment) == 0
        returns, known = np.diff(np.log(close))[inside], np.concatenate([[0], np.cumsum(inside)])
        return cls(times=times, close=close, segment=segment, returns=returns, known=known)

    def until(self, row: int) -> np.ndarray:
        """Returns known at the close of `row`, ``(n,)``."""
        return self.returns[: self.known[row]]


class Baseline(Protocol):
    """A forecaster to compare with."""

    def applies_to(self, interval: pd.Timedelta) -> bool:
        """Whether there is such a forecaster for candles of this length."""

    def sample_paths(self, candles: Candles, cutoffs: np.ndarray, horizon: int, num_paths: int) -> np.ndarray:
        """Sample what follows each cutoff, all cutoffs in one call.

        Args:
            candles: T of them, later ones too; what is drawn at a cutoff must not depend on those.
            cutoffs: rows of the last known candles, ascending ``(N,)``.
            horizon, num_paths: h and S.

        Returns:
            Closes ``(N, S, h)``, or whole candles ``(N, S, h, C)`` in the order of `data.formats.FEATURES`.
        """


class BootstrappedBaseline(Section, ABC):
    """Base of the baselines that draw log returns cutoff by cutoff.

    seed: of the paths.
    """

    seed: Annotated[int, Field(ge=0)]

    @property
    @abstractmethod
    def name(self) -> str:
        """Goes into the seed of every cutoff, so that no two baselines draw the same numbers."""

    @abstractmethod
    def sampler(self, history: History, shape: tuple[int, int], interval: pd.Timedelta) -> Sampler:
        """Function that draws log returns ``shape = (S, h)`` at a row, knowing `history` up to that row."""

    def applies_to(self, interval: pd.Timedelta) -> bool:
        """Any interval."""
        return True

    def sample_paths(self, candles: Candles, cutoffs: np.ndarray, horizon: int, num_paths: int) -> np.ndarray:
        """Sample paths of the close, float64 ``(N, S, h)``.

        Raises:
            CandleError: fewer than two returns are known at a cutoff.
        """
        history, shape = History.of(candles), (num_paths, horizon)
        few = cutoffs[history.known[cutoffs] < 2]
        if len(few):
            raise CandleError(
                f"{candles.source}: the baselines need two changes of the close before a forecast, at "
                f"{candles.frame['timestamps'].iloc[few[0]]} there are {history.known[few[0]]}; begin later"
            )
        sample, paths = self.sampler(history, shape, candles.interval), np.empty((len(cutoffs), *shape))
        for i, row in enumerate(cutoffs.tolist()):
            moves = sample(row, self._generator(history.times[row]))
            paths[i] = history.close[row] * np.exp(moves.cumsum(axis=1))
        return paths

    def _generator(self, time: int) -> np.random.Generator:
        digest = hashlib.sha256(f"{self.seed}|{self.name}|{time}".encode()).digest()
        return np.random.default_rng(int.from_bytes(digest[:16], "big"))


class LastPrice(BootstrappedBaseline):
    """The last price, moved by independent draws from the last `count` returns without their mean.

    With fewer known returns all of them are used.
    """

    count: Count

    @property
    def name(self) -> str:
        """Such as last_price_20."""
        return f"last_price_{self.count}"

    def sampler(self, history: History, shape: tuple[int, int], interval: pd.Timedelta) -> Sampler:
        """Draw from the recent returns."""
        return recent_returns(history, shape, self.count)


class Drift(BootstrappedBaseline):
    """The mean return of all history on top of the last 60 returns' spread; zero before the first refit.

    refit_every: candles between refits of the mean.
    """

    refit_every: Count
    name: ClassVar[str] = "drift"

    def sampler(self, history: History, shape: tuple[int, int], interval: pd.Timedelta) -> Sampler:
        """Draw from the recent returns, the mean added."""
        spread = recent_returns(history, shape, RECENT)

        @cache
        def mean(point: int) -> float:
            known = history.until(point)
            return known.mean() if len(known) else 0.0

        return lambda row, rng: mean(row - row % self.refit_every) + spread(row, rng)


class Seasonal(BootstrappedBaseline):
    """What followed at the same time of day (of the week, for daily candles) in one of the last 60 seasons.

    A cutoff without a complete earlier season gets draws from the last 60 returns.
    """

    name: ClassVar[str] = "seasonal"

    def applies_to(self, interval: pd.Timedelta) -> bool:
        """Intervals with a season."""
        return season_of(interval) is not None

    def sampler(self, history: History, shape: tuple[int, int], interval: pd.Timedelta) -> Sampler:
        """Draw stretches of h returns that began a whole number of seasons earlier and had ended by the cutoff."""
        season = season_of(interval)
        num_paths, horizon = shape
        nearest = -(-horizon * interval // season)
        back = season.value * np.arange(nearest, nearest + SEASONS)
        without, steps = recent_returns(history, shape, RECENT), np.arange(horizon)

        def sample(row: int, rng: np.random.Generator) -> np.ndarray:
            wanted = history.times[row] - back
            starts = np.searchsorted(history.times, wanted)
            starts = starts[(history.times[starts] == wanted) & (starts + horizon <= row)]
            starts = starts[history.segment[starts] == history.segment[starts + horizon]]
            if not len(starts):
                return without(row, rng)
            return history.returns[history.known[rng.choice(starts, num_paths)][:, None] + steps]

        return sample


class Ewma(BootstrappedBaseline):
    """RiskMetrics volatility, shocks drawn from the last 500 standardised returns without their mean.

    Filtered historical simulation (Barone-Adesi, Giannopoulos and Vosper, 1999); each path's volatility follows its
    returns.
    """

    name: ClassVar[str] = "ewma"

    def sampler(self, history: History, shape: tuple[int, int], interval: pd.Timedelta) -> Sampler:
        """Draw past shocks, scaled by the volatility of now."""
        variances = EWMA.variances(history.returns, first=history.returns[0] ** 2)

        def sample(row: int, rng: np.random.Generator) -> np.ndarray:
            n = history.known[row]
            window = slice(max(1, n - RESIDUALS), n)  # the first return is its own variance, no shock
            recent = history.returns[window]
            spread = np.sqrt(np.maximum(variances[window], QUIET * np.mean(recent**2)))
            shocks = np.divide(recent, spread, out=np.zeros(len(recent)), where=spread > 0)
            return EWMA.simulate(variances[n], rng.choice(shocks - shocks.mean(), shape))

        return sample


class GarchT(BootstrappedBaseline):
    """GARCH(1,1) with Student's t, refitted on the last 5,000 returns; EWMA's parameters before 250 are known.

    refit_every: candles between refits.
    """

    refit_every: Count
    name: ClassVar[str] = "garch"

    def sampler(self, history: History, shape: tuple[int, int], interval: pd.Timedelta) -> Sampler:
        """Draw Student-t shocks on the variance up to the cutoff, with the parameters of the last refit."""

        @cache
        def fit(point: int) -> Garch | None:
            window = history.until(point)[-WINDOW:]
            if len(window) < FEWEST:
                return EWMA
            model = fit_garch(window)
            if model is None:
                log.warning(
                    "GARCH: no fit to the %d returns up to %s, the parameters of the refit before stay",
                    len(window),
                    pd.Timestamp(history.times[point]),
                )
            return model

        @cache
        def filtered(point: int) -> tuple[Garch, int, np.ndarray]:
            """Parameters of the refit at `point`, the first return of its window, and the variances from there on."""
            refit = point
            while (model := fit(refit)) is None:
                refit -= self.refit_every
            last = min(point + self.refit_every, len(history.known)) - 1
            begin = max(0, history.known[point] - WINDOW)
            window = history.until(point)[begin:]
            first = np.mean(window**2) if len(window) else history.returns[0] ** 2
            return model, begin, model.variances(history.until(last)[begin:], first)

        def sample(row: int, rng: np.random.Generator) -> np.ndarray:
            model, begin, variances = filtered(row - row % self.refit_every)
            return model.simulate(variances[history.known[row] - begin], model.shocks(shape, rng))

        return sample


def recent_returns(history: History, shape: tuple[int, int], count: int) -> Sampler:
    """Sampler of independent draws from the last `count` returns without their mean."""

    def sample(row: int, rng: np.random.Generator) -> np.ndarray:
        recent = history.until(row)[-count:]
        return rng.choice(recent - recent.mean(), shape)

    return sample


def season_of(interval: pd.Timedelta) -> pd.Timedelta | None:
    """A day for intervals that divide it, a week for daily candles; others have no season."""
    if interval == DAY:
        return 7 * DAY
    return DAY if interval < DAY and not DAY % interval else None


def close_paths(paths: np.ndarray) -> np.ndarray:
    """Closes ``(N, S, h)`` of what a baseline returned."""
    return paths[..., CLOSE].astype(np.float64) if paths.ndim == 4 else paths
