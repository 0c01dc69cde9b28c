"""Baselines: forecasters without a network that a model must beat, as sample paths of the close.

At a cutoff a baseline knows the candles up to it and nothing later. Parameters estimated from the whole history are
refitted at fixed rows of the candle frame, the multiples of `refit_every`; a cutoff uses the latest refit at or before
it. Log returns over a gap are left out. Random draws at a cutoff depend only on the seed, the baseline and the cutoff's
time.

`conf/baselines` names the classes and their arguments.

Shape letters: T candles, n known returns, N cutoffs, S sample paths, h horizon, C = 6 features.
"""

import hashlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Annotated, ClassVar, Protocol

import numpy as np
import pandas as pd
from pydantic import Field

from kronos_lightning.data import CandleError, Candles
from kronos_lightning.data.formats import CLOSE, PRICES
from kronos_lightning.settings import Count, Section

from .seasonality import Season, SeasonalFactor, fit_factor
from .volatility import EWMA, Garch, fit_garch

RECENT = 60  # number of returns that the drift's bootstrap draws from
SEASONS = 60  # number of earlier seasons
RESIDUALS = 500  # number of standardised returns that EWMA draws its shocks from
QUIET = 0.01  # lower bound of the EWMA variance in shocks, as a share of the window's mean squared return
WINDOW = 5000  # maximum number of returns that GARCH is fitted on
MIN_GARCH_RETURNS = 250  # minimum number of returns that GARCH is fitted on
DAY = pd.Timedelta(days=1)

Sampler = Callable[[int, np.random.Generator], np.ndarray]  # row of a cutoff, its generator → log returns (S, h)

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class History:
    """All candles in the form that the baselines need.

    times: open times, nanoseconds ``(T,)``. prices: open, high, low, close ``(T, 4)``. segment: ``(T,)``.
    returns: log returns inside segments, in time order. return_times: open times of their candles ``(n,)``.
    known: number of returns known at each row, ``(T,)``.
    """

    times: np.ndarray
    prices: np.ndarray
    segment: np.ndarray
    returns: np.ndarray
    return_times: np.ndarray
    known: np.ndarray

    @classmethod
    def of(cls, candles: Candles) -> "History":
        """Build the history from candles."""
        frame = candles.frame
        times = frame["timestamps"].dt.as_unit("ns").astype("int64").to_numpy()
        prices, segment = frame[PRICES].to_numpy(np.float64), frame["segment"].to_numpy()
        inside = np.diff(segment) == 0
        returns, known = np.diff(np.log(prices[:, CLOSE]))[inside], np.concatenate([[0], np.cumsum(inside)])
        return cls(
            times=times, prices=prices, segment=segment, returns=returns, return_times=times[1:][inside], known=known
        )

    @property
    def close(self) -> np.ndarray:
        """Closes ``(T,)``."""
        return self.prices[:, CLOSE]

    def until(self, row: int) -> np.ndarray:
        """Return the log returns known at the close of `row`, ``(n,)``."""
        return self.returns[: self.known[row]]


class Baseline(Protocol):
    """Forecaster to compare a model with."""

    def applies_to(self, interval: pd.Timedelta) -> bool:
        """Return True if the baseline supports candles of this length."""

    def sample_paths(self, candles: Candles, cutoffs: np.ndarray, horizon: int, num_paths: int) -> np.ndarray:
        """Sample the candles after each cutoff, for all cutoffs in one call.

        Args:
            candles: all T candles, including later ones; draws at a cutoff must not depend on later candles.
            cutoffs: rows of the last known candles, ascending ``(N,)``.
            horizon, num_paths: h and S.

        Returns:
            Closes ``(N, S, h)``, or whole candles ``(N, S, h, C)`` in the order of `data.formats.FEATURES`.
        """


class BootstrappedBaseline(Section, ABC):
    """Base of the baselines that draw log returns one cutoff at a time.

    seed: of the paths.
    """

    seed: Annotated[int, Field(ge=0)]

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of the baseline; part of the seed at every cutoff, so that no two baselines draw the same numbers."""

    @abstractmethod
    def sampler(self, history: History, shape: tuple[int, int], interval: pd.Timedelta) -> Sampler:
        """Build the function that draws log returns ``shape = (S, h)`` at a row, from `history` up to that row."""

    def applies_to(self, interval: pd.Timedelta) -> bool:
        """Return True: any interval is supported."""
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
        return generator_at(self.seed, self.name, time)


class LastPrice(BootstrappedBaseline):
    """Baseline of the last price, moved by independent draws from the last `count` returns without their mean.

    If fewer returns are known, it draws from all of them.
    """

    count: Count

    @property
    def name(self) -> str:
        """Name with the count, such as last_price_20."""
        return f"last_price_{self.count}"

    def sampler(self, history: History, shape: tuple[int, int], interval: pd.Timedelta) -> Sampler:
        """Build a sampler that draws from the last `count` returns."""
        return recent_returns(history, shape, self.count)


class Drift(BootstrappedBaseline):
    """Baseline of the mean return of all history plus the spread of the last 60 returns.

    The mean is zero before the first refit.

    refit_every: candles between refits of the mean.
    """

    refit_every: Count
    name: ClassVar[str] = "drift"

    def sampler(self, history: History, shape: tuple[int, int], interval: pd.Timedelta) -> Sampler:
        """Build a sampler that draws from the last 60 returns and adds the mean."""
        spread = recent_returns(history, shape, RECENT)

        @cache
        def mean(point: int) -> float:
            known = history.until(point)
            return known.mean() if len(known) else 0.0

        return lambda row, rng: mean(row - row % self.refit_every) + spread(row, rng)


class Seasonal(BootstrappedBaseline):
    """Baseline of past returns at the same time of day, or of the week for daily candles.

    They come from one of the last 60 seasons. A cutoff without a complete earlier season draws from the last 60
    returns.
    """

    name: ClassVar[str] = "seasonal"

    def applies_to(self, interval: pd.Timedelta) -> bool:
        """Return True if the interval has a season."""
        return season_of(interval) is not None

    def sampler(self, history: History, shape: tuple[int, int], interval: pd.Timedelta) -> Sampler:
        """Build a sampler of stretches of h returns that began whole seasons earlier and ended by the cutoff."""
        season = season_of(interval)
        if season is None:
            raise ValueError(f"candles of {interval} have no season")
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


class SeasonalVolatility(BootstrappedBaseline):
    """Base of the baselines whose volatility may have a season; it is divided out of the returns before they are used.

    refit_every: candles between refits of the seasonal factor and of the parameters.
    seasonality: hour_of_week, hour_of_day, or none.
    """

    refit_every: Count = 500
    seasonality: Season = "none"
    kind: ClassVar[str]

    @property
    def name(self) -> str:
        """Name with the season, such as garch_hour_of_week."""
        return self.kind if self.seasonality == "none" else f"{self.kind}_{self.seasonality}"

    @abstractmethod
    def flat_sampler(self, history: History, shape: tuple[int, int]) -> Sampler:
        """Build the sampler of a history without a season."""

    def sampler(self, history: History, shape: tuple[int, int], interval: pd.Timedelta) -> Sampler:
        """Build the sampler; with a season it draws from returns without it and scales the paths by it."""
        if self.seasonality == "none":
            return self.flat_sampler(history, shape)
        steps = interval.value * np.arange(1, shape[1] + 1)

        @cache
        def refit(point: int) -> tuple[SeasonalFactor, Sampler]:
            count = history.known[point]
            factor = fit_factor(history.return_times[:count], history.returns[:count], interval, self.seasonality)
            flat = replace(history, returns=history.returns / factor.at(history.return_times))
            return factor, self.flat_sampler(flat, shape)

        def sample(row: int, rng: np.random.Generator) -> np.ndarray:
            factor, draw = refit(row - row % self.refit_every)
            moves: np.ndarray = draw(row, rng) * factor.at(history.times[row] + steps)
            return moves

        return sample


class Ewma(SeasonalVolatility):
    """Baseline with RiskMetrics volatility and shocks drawn from the last 500 standardised returns without their mean.

    Filtered historical simulation (Barone-Adesi, Giannopoulos and Vosper, 1999); each path's volatility follows its
    returns.
    """

    kind: ClassVar[str] = "ewma"

    def flat_sampler(self, history: History, shape: tuple[int, int]) -> Sampler:
        """Build a sampler of past shocks, scaled by the current volatility."""
        variances = EWMA.variances(history.returns, first=history.returns[0] ** 2)

        def sample(row: int, rng: np.random.Generator) -> np.ndarray:
            n = history.known[row]
            window = slice(max(1, n - RESIDUALS), n)  # the first return sets its own variance and gives no shock
            recent = history.returns[window]
            spread = np.sqrt(np.maximum(variances[window], QUIET * np.mean(recent**2)))
            shocks = np.divide(recent, spread, out=np.zeros(len(recent)), where=spread > 0)
            return EWMA.simulate(variances[n], rng.choice(shocks - shocks.mean(), shape))

        return sample


class GarchT(SeasonalVolatility):
    """Baseline of GARCH(1,1) with Student's t, refitted on the last 5,000 returns.

    Before 250 returns are known, it uses EWMA's parameters.
    """

    kind: ClassVar[str] = "garch"

    def flat_sampler(self, history: History, shape: tuple[int, int]) -> Sampler:
        """Build a sampler of Student-t shocks, scaled by the variance at the cutoff under the last refit."""

        @cache
        def fit(point: int) -> Garch | None:
            window = history.until(point)[-WINDOW:]
            if len(window) < MIN_GARCH_RETURNS:
                return EWMA
            model = fit_garch(window)
            if model is None:
                log.warning(
                    "GARCH: no fit to the %d returns up to %s; keeping the previous parameters",
                    len(window),
                    pd.Timestamp(history.times[point]),
                )
            return model

        @cache
        def filtered(point: int) -> tuple[Garch, int, np.ndarray]:
            """Return the parameters of the refit at `point`, the first return of its window, and the variances."""
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


def generator_at(seed: int, name: str, time: int) -> np.random.Generator:
    """Build the generator of a baseline's draws at a cutoff, by the time of its candle in nanoseconds."""
    digest = hashlib.sha256(f"{seed}|{name}|{time}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def recent_returns(history: History, shape: tuple[int, int], count: int) -> Sampler:
    """Build a sampler of independent draws from the last `count` returns without their mean."""

    def sample(row: int, rng: np.random.Generator) -> np.ndarray:
        recent = history.until(row)[-count:]
        return rng.choice(recent - recent.mean(), shape)

    return sample


def season_of(interval: pd.Timedelta) -> pd.Timedelta | None:
    """Return the season of an interval: a day if the interval divides it, a week for daily candles, else None."""
    if interval == DAY:
        return 7 * DAY
    return DAY if interval < DAY and not DAY % interval else None


def close_paths(paths: np.ndarray) -> np.ndarray:
    """Extract the closes ``(N, S, h)`` from the output of a baseline."""
    return paths[..., CLOSE].astype(np.float64) if paths.ndim == 4 else paths
