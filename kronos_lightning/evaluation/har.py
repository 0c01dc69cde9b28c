"""Heterogeneous autoregression of the realised range (after Corsi, 2009), a classical forecaster of volatility.

The logarithm of a candle's Garman-Klass variance is regressed, for each step ahead, on its own means over hours, days
and a week, on the last return, and on the hour of the day and of the week of the candle to forecast. Paths are past
standardised returns with random signs, scaled by the forecast volatility.

Shape letters: T candles, k features, n rows of a fit, S sample paths, h horizon.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd

from kronos_lightning.settings import Count

from .baselines import BootstrappedBaseline, History, Sampler, recent_returns
from .seasonality import DAY, WEEK, Season, slot_width, slots
from .volatility import LARGEST_MOVE

WINDOW = 10_000  # maximum number of rows of a fit
FEWEST = 500  # minimum number of rows of a fit; before, the last 60 returns are drawn from
RECENT = 60
PENALTY = {"hour_of_day": 1.0, "hour_of_week": 20.0}  # ridge penalties of the slots' effects
SMALLEST = 1e-16  # lower bound of a variance where nothing moves
QUIET = 0.01  # lower bound of a candle's variance, as a share of the mean of its week


class Har(BootstrappedBaseline):
    """Baseline of the realised range, refitted on the last 10,000 candles.

    refit_every: candles between refits.
    seasonality: effects of the hour of the week, of the hour of the day, or none.
    """

    refit_every: Count
    seasonality: Season

    @property
    def name(self) -> str:
        """Name with the season, such as har_hour_of_week."""
        return f"har_{self.seasonality}"

    def sampler(self, history: History, shape: tuple[int, int], interval: pd.Timedelta) -> Sampler:
        """Build a sampler of past standardised returns, scaled by the forecast volatility."""
        num_paths, horizon = shape
        design = Design.of(history, horizon, interval, self.seasonality)
        without = recent_returns(history, shape, RECENT)

        @cache
        def fit(point: int) -> Fit | None:
            return design.fit(point)

        def sample(row: int, rng: np.random.Generator) -> np.ndarray:
            found = fit(row - row % self.refit_every)
            if found is None or not np.isfinite(design.features[row]).all():
                return without(row, rng)
            volatility = np.exp(0.5 * found.predict(design, row))
            drawn = found.shocks[rng.integers(len(found.shocks), size=num_paths)]
            signs = rng.choice([-1.0, 1.0], size=shape)
            moves: np.ndarray = np.clip(drawn * signs * volatility, -LARGEST_MOVE, LARGEST_MOVE)
            return moves

        return sample


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Coefficients of a refit.

    coefficients: of the features, for each step ``(h, k)``. effects: of the slots of the week, for each step
    ``(h, K)``. shocks: standardised returns of past stretches ``(n, h)``.
    """

    coefficients: np.ndarray
    effects: np.ndarray
    shocks: np.ndarray

    def predict(self, design: "Design", rows: np.ndarray | int) -> np.ndarray:
        """Return the log variance of each step after rows, ``(…, h)``."""
        features = design.features[rows]
        ahead = design.slots_ahead(np.asarray(rows))
        steps = np.arange(self.effects.shape[0])
        predicted: np.ndarray = features @ self.coefficients.T + self.effects[steps, ahead]
        return predicted


@dataclass(frozen=True, kw_only=True)
class Design:
    """Features and targets of all candles; a row holds what is known at the close of its candle.

    features: ``(T, k)``, NaN at the beginning. target: log variance ``(T,)``. returns: log returns of the candles
    ``(T,)``, NaN after a gap. usable: rows after which h candles follow without a gap.
    """

    history: History
    horizon: int
    interval: pd.Timedelta
    season: Season
    features: np.ndarray
    target: np.ndarray
    returns: np.ndarray
    usable: np.ndarray

    @classmethod
    def of(cls, history: History, horizon: int, interval: pd.Timedelta, season: Season) -> "Design":
        """Compute features and targets of a history."""
        returns = np.diff(np.log(history.close), prepend=np.nan)
        returns[np.diff(history.segment, prepend=history.segment[0]) != 0] = np.nan
        spans = windows(interval)
        variance = pd.Series(range_variance(history))
        floor = variance.rolling(spans[-1], min_periods=1).mean() * QUIET
        variance = variance.clip(lower=floor).clip(lower=SMALLEST)
        target = variance.map(np.log)
        means = [target.rolling(span).mean() for span in spans]
        levels = [variance.rolling(span).mean().map(np.log) for span in spans[-4::2]]
        recent = pd.Series(returns).fillna(0.0) / variance.rolling(spans[-1]).mean() ** 0.5
        parts = [pd.Series(np.ones(len(target))), *means, *levels, recent.clip(upper=0), recent.abs()]
        features = np.stack([part.to_numpy() for part in parts], axis=1)
        ends = np.arange(len(target)) + horizon
        inside = ends < len(target)
        usable = inside & np.isfinite(features).all(axis=1)
        usable[inside] &= history.segment[ends[inside]] == history.segment[: inside.sum()]
        return cls(
            history=history,
            horizon=horizon,
            interval=interval,
            season=season,
            features=features,
            target=target.to_numpy(),
            returns=returns,
            usable=usable,
        )

    def slots_ahead(self, rows: np.ndarray) -> np.ndarray:
        """Return the slots of the week of the h candles after rows, ``(…, h)``."""
        steps = self.interval.value * np.arange(1, self.horizon + 1)
        return slots(self.history.times[rows][..., None] + steps, slot_width(self.interval))

    def fit(self, point: int) -> Fit | None:
        """Fit on the last candles whose outcome is known at `point`; None if they are too few."""
        rows = np.flatnonzero(self.usable[: max(0, point - self.horizon + 1)])[-WINDOW:]
        if len(rows) < FEWEST:
            return None
        features, ahead = self.features[rows], self.slots_ahead(rows)
        outcome = rows[:, None] + np.arange(1, self.horizon + 1)
        width = slot_width(self.interval)
        count, daily = max(1, WEEK // width), max(1, DAY // width)
        coefficients, effects = [], []
        for step in range(self.horizon):
            solution, effect = _ridge(
                features, ahead[:, step], self.target[outcome[:, step]], count, daily, self.season
            )
            coefficients.append(solution)
            effects.append(effect)
        fitted = Fit(coefficients=np.array(coefficients), effects=np.array(effects), shocks=np.empty((0, self.horizon)))
        shocks = self.returns[outcome] / np.exp(0.5 * fitted.predict(self, rows))
        return Fit(coefficients=fitted.coefficients, effects=fitted.effects, shocks=shocks)


def _ridge(
    features: np.ndarray, slot: np.ndarray, target: np.ndarray, count: int, daily: int, season: Season
) -> tuple[np.ndarray, np.ndarray]:
    """Regress on features without a penalty and on slots with one; return coefficients ``(k,)`` and effects ``(K,)``.

    The sums over slots are taken group by group, so that no indicator matrix is built.
    """
    effects = np.zeros(count)
    groups: list[tuple[np.ndarray, int, float]] = []
    if season != "none" and count > 1:
        groups.append((slot % daily, daily, PENALTY["hour_of_day"]))
        if season == "hour_of_week":
            groups.append((slot, count, PENALTY["hour_of_week"]))
    k = features.shape[1]
    sizes = [size for _, size, _ in groups]
    total = k + sum(sizes)
    gram, moment = np.zeros((total, total)), np.zeros(total)
    gram[:k, :k], moment[:k] = features.T @ features, features.T @ target
    begin = k
    for index, (group, size, penalty) in enumerate(groups):
        place = slice(begin, begin + size)
        sums = np.stack([np.bincount(group, column, minlength=size) for column in features.T])
        gram[:k, place], gram[place, :k] = sums, sums.T
        gram[place, place] = np.diag(np.bincount(group, minlength=size) + penalty)
        moment[place] = np.bincount(group, target, minlength=size)
        if index == 1:
            first, rows = groups[0], slice(k, k + groups[0][1])
            both = np.zeros((first[1], size))
            np.add.at(both, (first[0], group), 1.0)
            gram[rows, place], gram[place, rows] = both, both.T
        begin += size
    gram[np.arange(k), np.arange(k)] += 1e-8 * np.diag(gram)[:k]
    solution = np.linalg.solve(gram, moment)
    begin = k
    for _, size, _ in groups:
        effects += solution[begin : begin + size][np.arange(count) % size]
        begin += size
    return solution[:k], effects


def windows(interval: pd.Timedelta) -> list[int]:
    """Return the numbers of candles over which variances are averaged, ascending: up to a week, or 22 days."""
    day = int(DAY // interval.value)
    spans = {1, 3, 6, day, 3 * day, 7 * day} if day > 1 else {1, 2, 3, 5, 10, 22}
    return sorted(spans)


def range_variance(history: History) -> np.ndarray:
    """Return the Garman-Klass variance of each candle ``(T,)``: of its range and its body."""
    opened, high, low, close = np.log(history.prices).T
    variance = 0.5 * (high - low) ** 2 - (2 * np.log(2) - 1) * (close - opened) ** 2
    positive: np.ndarray = np.maximum(variance, 0.0)
    return positive
