"""Forecasters without a network: what a model must beat, as sample paths of the close.

At a cutoff a baseline knows the candles up to it and nothing later. Parameters of the whole history are refitted at
fixed rows of the candle frame, the multiples of `refit_every`; the latest one at or before the cutoff counts. Log
returns over a gap are left out. What a cutoff draws depends on the seed, the baseline and the cutoff's time alone.

Shape letters: T candles, n known returns, N cutoffs, S sample paths, h horizon.
"""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd

from kronos_lightning.data import CandleError, Candles

from .volatility import EWMA, Garch, fit_garch

BASELINES = ("last_price_20", "last_price_60", "drift", "seasonal", "ewma", "garch")

RECENT = 60  # returns that the drift's bootstrap draws from
SEASONS = 60  # earlier seasons
RESIDUALS = 500  # standardised returns that EWMA draws its shocks from
QUIET = 0.01  # EWMA variance, as a share of the residuals' window's, below which a return tells no shock
WINDOW = 5000  # returns that GARCH is fitted on at most
FEWEST = 250  # and at least
DAY = pd.Timedelta(days=1)

Sampler = Callable[[int, np.random.Generator], np.ndarray]  # row of a cutoff, its generator → log returns (S, h)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
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
        return cls(times, close, segment, np.diff(np.log(close))[inside], np.concatenate([[0], np.cumsum(inside)]))

    def until(self, row: int) -> np.ndarray:
        """Returns known at the close of `row`, ``(n,)``."""
        return self.returns[: self.known[row]]


def baseline_paths(
    name: str, candles: Candles, cutoffs: np.ndarray, horizon: int, num_paths: int, refit_every: int, seed: int
) -> np.ndarray | None:
    """Sample paths of the close from one of `BASELINES`, float64 ``(N, S, h)``.

    - `last_price_20`, `last_price_60`: the last price, moved by returns drawn from the last 20 or 60, their mean taken
      out.
    - `drift`: the mean return of all history (refitted) on top of the last 60's; zero before the first refit.
    - `seasonal`: what followed at the same time of day (of the week, for daily candles) in one of the last 60 seasons.
      A cutoff without a complete earlier one gets what `last_price_60` would draw.
    - `ewma`: RiskMetrics volatility, shocks drawn from the last 500 standardised returns without their mean (filtered
      historical simulation; Barone-Adesi, Giannopoulos and Vosper, 1999); each path's volatility follows its returns.
    - `garch`: GARCH(1,1) with Student's t, refitted on the last 5,000 returns; EWMA's parameters before 250 are known.

    With fewer returns than these numbers all known ones are used.

    Args:
        name: of the baseline.
        candles: all of them, later ones too.
        cutoffs: rows of the last known candles, ``(N,)``.
        horizon, num_paths: h and S.
        refit_every: rows between refits.
        seed: of the paths.

    Returns:
        The paths, or None where these candles have no such baseline: no season fits the interval.

    Raises:
        CandleError: fewer than two returns are known at a cutoff.
        ValueError: no baseline of this name.
    """
    history, shape = History.of(candles), (num_paths, horizon)
    few = cutoffs[history.known[cutoffs] < 2]
    if len(few):
        raise CandleError(
            f"{candles.source}: the baselines need two changes of the close before a forecast, at "
            f"{candles.frame['timestamps'].iloc[few[0]]} there are {history.known[few[0]]}; begin later"
        )
    match name:
        case "last_price_20" | "last_price_60":
            sample = last_price(history, shape, int(name.removeprefix("last_price_")))
        case "drift":
            sample = drift(history, shape, refit_every)
        case "seasonal":
            season = season_of(candles.interval)
            if season is None:
                return None
            sample = seasonal(history, shape, candles.interval, season)
        case "ewma":
            sample = ewma(history, shape)
        case "garch":
            sample = garch(history, shape, refit_every)
        case _:
            raise ValueError(f"no baseline {name!r}; there are {', '.join(BASELINES)}")
    paths = np.empty((len(cutoffs), *shape))
    for i, row in enumerate(cutoffs.tolist()):
        moves = sample(row, _generator(seed, name, history.times[row]))
        paths[i] = history.close[row] * np.exp(moves.cumsum(axis=1))
    return paths


def season_of(interval: pd.Timedelta) -> pd.Timedelta | None:
    """A day for intervals that divide it, a week for daily candles; others have no season."""
    if interval == DAY:
        return 7 * DAY
    return DAY if interval < DAY and not DAY % interval else None


def last_price(history: History, shape: tuple[int, int], count: int) -> Sampler:
    """Independent draws from the last `count` returns without their mean."""

    def sample(row: int, rng: np.random.Generator) -> np.ndarray:
        recent = history.until(row)[-count:]
        return rng.choice(recent - recent.mean(), shape)

    return sample


def drift(history: History, shape: tuple[int, int], refit_every: int) -> Sampler:
    """The mean return at the last refit and the recent spread."""
    spread = last_price(history, shape, RECENT)

    @cache
    def mean(point: int) -> float:
        known = history.until(point)
        return known.mean() if len(known) else 0.0

    return lambda row, rng: mean(row - row % refit_every) + spread(row, rng)


def seasonal(history: History, shape: tuple[int, int], interval: pd.Timedelta, season: pd.Timedelta) -> Sampler:
    """Stretches of h returns that began a whole number of seasons earlier and had ended by the cutoff."""
    num_paths, horizon = shape
    nearest = -(-horizon * interval // season)
    back = season.value * np.arange(nearest, nearest + SEASONS)
    without, steps = last_price(history, shape, RECENT), np.arange(horizon)

    def sample(row: int, rng: np.random.Generator) -> np.ndarray:
        wanted = history.times[row] - back
        starts = np.searchsorted(history.times, wanted)
        starts = starts[(history.times[starts] == wanted) & (starts + horizon <= row)]
        starts = starts[history.segment[starts] == history.segment[starts + horizon]]
        if not len(starts):
            return without(row, rng)
        return history.returns[history.known[rng.choice(starts, num_paths)][:, None] + steps]

    return sample


def ewma(history: History, shape: tuple[int, int]) -> Sampler:
    """RiskMetrics volatility with the shocks that history had."""
    variances = EWMA.variances(history.returns, first=history.returns[0] ** 2)

    def sample(row: int, rng: np.random.Generator) -> np.ndarray:
        n = history.known[row]
        window = slice(max(1, n - RESIDUALS), n)  # the first return is its own variance, no shock
        recent = history.returns[window]
        spread = np.sqrt(np.maximum(variances[window], QUIET * np.mean(recent**2)))
        shocks = np.divide(recent, spread, out=np.zeros(len(recent)), where=spread > 0)
        return EWMA.simulate(variances[n], rng.choice(shocks - shocks.mean(), shape))

    return sample


def garch(history: History, shape: tuple[int, int], refit_every: int) -> Sampler:
    """Parameters of the last refit, variance up to the cutoff, Student-t shocks."""

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
            refit -= refit_every
        last = min(point + refit_every, len(history.known)) - 1
        begin = max(0, history.known[point] - WINDOW)
        window = history.until(point)[begin:]
        first = np.mean(window**2) if len(window) else history.returns[0] ** 2
        return model, begin, model.variances(history.until(last)[begin:], first)

    def sample(row: int, rng: np.random.Generator) -> np.ndarray:
        model, begin, variances = filtered(row - row % refit_every)
        return model.simulate(variances[history.known[row] - begin], model.shocks(shape, rng))

    return sample


def _generator(seed: int, name: str, time: int) -> np.random.Generator:
    digest = hashlib.sha256(f"{seed}|{name}|{time}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))
