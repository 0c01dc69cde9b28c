"""Strategies that turn forecasts into BUY, SELL and HOLD.

Shape letters: N cutoffs, S sample paths, h horizon, T candles.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Protocol, Self

import numpy as np
from pydantic import Field, model_validator

from kronos_lightning.settings import NotNegative, Section

BUY, HOLD, SELL = 1, 0, -1


class Forecasts(Protocol):
    """Part of a forecast set that a strategy may read.

    close_paths: sample paths of the close, ``(N, S, h)``.
    last_close: last known closes at the cutoffs, ``(N,)``.
    probability_up: probability of a close above the last known close ``(N, h)``, calibrated if the forecasts are.
    """

    @property
    def close_paths(self) -> np.ndarray:
        """Sample paths of the close, ``(N, S, h)``."""

    @property
    def last_close(self) -> np.ndarray:
        """Last known closes, ``(N,)``."""

    @property
    def probability_up(self) -> np.ndarray:
        """Probability of a close above the last known close, ``(N, h)``."""


class Strategy(Protocol):
    """Rule that turns forecasts into signals; `conf/strategy` names the class and its arguments."""

    def signals(self, forecasts: Forecasts) -> np.ndarray:
        """Return BUY, HOLD or SELL at each cutoff, from the forecast of that cutoff alone: int8 ``(N,)``."""

    @property
    def parameters(self) -> Mapping[str, float]:
        """Parameters in use, by name, for the report."""

    @property
    def search_space(self) -> Mapping[str, Sequence[float]]:
        """Values that the search on the validation range tries, by parameter; empty = no search."""

    def with_parameters(self, **values: float) -> Self:
        """Return the same strategy with other values of the free parameters."""

    def describe(self) -> str:
        """Describe the rule as text, such as "SELL below -0.02 and BUY above 0.02"."""


class ThresholdStrategy(Section):
    """Strategy with BUY above one threshold of the expected return, SELL below another, and HOLD in between.

    signal: expected return over the horizon: mean or median of the paths, or P(up) − 0.5.
    buy_threshold, sell_threshold: configured thresholds; the search sets both to ± one threshold.
    search_thresholds: thresholds that the search tries.
    """

    signal: Literal["mean", "median", "probability"]
    buy_threshold: float
    sell_threshold: float
    search_thresholds: Annotated[list[NotNegative], Field(min_length=1)]

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.sell_threshold > self.buy_threshold:
            raise ValueError("sell_threshold must not be above buy_threshold")
        return self

    def signals(self, forecasts: Forecasts) -> np.ndarray:
        """Return BUY, HOLD or SELL at each cutoff: int8 ``(N,)``."""
        expected = self.expected_return(forecasts)
        below = np.where(expected < self.sell_threshold, SELL, HOLD)
        return np.where(expected > self.buy_threshold, BUY, below).astype(np.int8)

    def expected_return(self, forecasts: Forecasts) -> np.ndarray:
        """Return the expected returns that are compared with the thresholds, ``(N,)``."""
        expected: np.ndarray
        if self.signal == "probability":
            expected = forecasts.probability_up[:, -1] - 0.5
        else:
            returns = forecasts.close_paths[:, :, -1] / forecasts.last_close[:, None] - 1
            expected = returns.mean(axis=1) if self.signal == "mean" else np.median(returns, axis=1)
        return expected

    @property
    def parameters(self) -> Mapping[str, float]:
        """Sell and buy threshold."""
        return {"sell": self.sell_threshold, "buy": self.buy_threshold}

    @property
    def search_space(self) -> Mapping[str, Sequence[float]]:
        """Thresholds that the search tries, each for both sides."""
        return {"threshold": sorted(set(self.search_thresholds))}

    def with_parameters(self, **values: float) -> Self:
        """Return a strategy with BUY above `threshold` and SELL below its negative."""
        threshold = values["threshold"]
        return self.model_copy(update={"buy_threshold": threshold, "sell_threshold": 0.0 - threshold})

    def describe(self) -> str:
        """Describe both thresholds as text."""
        return f"SELL below {self.sell_threshold:g} and BUY above {self.buy_threshold:g}"


def on_candles(signals: np.ndarray, rows: np.ndarray, length: int) -> np.ndarray:
    """Put signals ``(N,)`` on their candles' rows ``(N,)``, HOLD elsewhere: int8 ``(length,)``."""
    aligned = np.full(length, HOLD, dtype=np.int8)
    aligned[rows] = signals
    return aligned


def wanted_positions(signals: np.ndarray, side: Literal["long_only", "long_short"]) -> np.ndarray:
    """Return the positions that the signals ask for, 1, 0 or −1, ``(N,)``; HOLD keeps the previous position."""
    last = np.maximum.accumulate(np.where(signals != HOLD, np.arange(len(signals)), 0))
    positions: np.ndarray = np.maximum(signals[last], 0 if side == "long_only" else SELL)
    return positions
