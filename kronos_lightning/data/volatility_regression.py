"""Volatility regression: forecast of the volatility of the candles to come from the ranges of the known candles.

A heterogeneous autoregression: the log variance of the candles to come is regressed on the logs of its means over
several spans of the lookback, all without the weekly rhythm. It sees one window and is fitted once, on training
windows; the baseline `evaluation.har` sees all candles and is refitted.

Shape letters: B windows, W rows of a window, L lookback, h horizon, C = 6 features.
"""

import math
from typing import Annotated, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from kronos_lightning.data.formats import CLOSE, OPEN, PRICES
from kronos_lightning.settings import Section

PRICED = len(PRICES)
QUIETEST = 1e-8  # lower bound of a window's volatility, for markets that do not move
HOURS = 168  # of a week


class VolatilityRegression(Section):
    """Coefficients of a volatility regression.

    season: factor of the volatility of each hour of the week from Monday 00:00, 168 numbers.
    spans: numbers of candles over which the variance is averaged.
    coefficients: intercept, and one coefficient per span.
    """

    season: Annotated[list[Annotated[float, Field(gt=0, lt=1e3)]], Field(min_length=HOURS, max_length=HOURS)]
    spans: Annotated[list[Annotated[int, Field(gt=0)]], Field(min_length=1, max_length=20)]
    coefficients: list[Annotated[float, Field(allow_inf_nan=False)]]

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if len(self.coefficients) != 1 + len(self.spans):
            raise ValueError(f"coefficients: {len(self.coefficients)} for {len(self.spans)} spans and an intercept")
        return self

    @classmethod
    def fit(cls, windows: Tensor, stamps: Tensor, lookback: int) -> Self:
        """Fit the regression on training windows.

        Args:
            windows: candles ``(B, W, C)`` with the rows to forecast after the lookback.
            stamps: time features ``(B, W, 5)``.
            lookback: number of known rows, L.
        """
        moves, hours = log_moves(windows.double()), _hour_of_week(stamps)
        season = _fit_season(
            moves[:, lookback:, CLOSE], _variance(moves[:, :lookback]).mean(dim=1), hours[:, lookback:]
        )
        factors = season[hours]
        spans = [span for span in (1, 3, 6, 24, 72, 168) if span < lookback] + [lookback]
        features = _features(moves[:, :lookback], factors[:, :lookback], spans)
        coming = (moves[:, lookback:, CLOSE] / factors[:, lookback:]).square()
        target = _variance(moves[:, lookback:], factors[:, lookback:]).mean(dim=1).clamp(min=QUIETEST**2).log()
        design = torch.cat([torch.ones_like(features[:, :1]), features], dim=1)
        gram = design.T @ design
        gram.diagonal().add_(1e-6 * gram.diagonal())
        weights = torch.linalg.solve(gram, design.T @ target)
        # The regression forecasts the mean of logs of ranges; the scale is that of the squared returns.
        weights[0] += (coming.mean(dim=1) / (design @ weights).exp()).mean().clamp(min=QUIETEST).log()
        return cls(season=season.tolist(), spans=spans, coefficients=weights.tolist())

    def by_row(self, moves: Tensor, stamp: Tensor) -> Tensor:
        """Return the volatility of a candle's log return in every row that has a stamp, ``(B, W)``.

        Args:
            moves: `log_moves` of the known rows, ``(B, L, 4)``.
            stamp: time features of the known rows and of the rows to forecast, ``(B, W, 5)``.
        """
        season = torch.tensor(self.season, dtype=moves.dtype, device=moves.device)[_hour_of_week(stamp)]
        features = _features(moves, season[:, : moves.size(1)], self.spans)
        weights = torch.tensor(self.coefficients, dtype=moves.dtype, device=moves.device)
        level = (0.5 * (features @ weights[1:] + weights[0])).exp().clamp(min=QUIETEST)
        return level[:, None] * season

    def deviations(self, candles: Tensor, stamp: Tensor) -> np.ndarray:
        """Return the standard deviation of the log return from the last known close to each step, float64 ``(B, h)``.

        Windows are taken one by one, so that the result for one never depends on the others.

        Args:
            candles: known candles ``(B, L, C)``.
            stamp: time features of the known candles and of those to forecast, ``(B, L + h, 5)``.
        """
        known = candles.size(1)
        pairs = zip(torch.split(candles.cpu().double(), 1), torch.split(stamp.cpu(), 1), strict=True)
        ahead = torch.cat([self.by_row(log_moves(one), own)[:, known:] for one, own in pairs])
        found: np.ndarray = ahead.square().cumsum(dim=1).sqrt().numpy()
        return found


def log_moves(window: Tensor) -> Tensor:
    """Return log prices relative to the close before, ``(B, W, 4)``; the first row relative to its own open."""
    prices = window[..., :PRICED].clamp(min=torch.finfo(window.dtype).tiny)
    before = torch.cat([prices[:, :1, OPEN], prices[:, :-1, CLOSE]], dim=1)[..., None]
    return ((prices - before) / before).log1p()  # differences of logarithms would lose digits in float32


def _fit_season(returns: Tensor, variance: Tensor, hours: Tensor) -> Tensor:
    """Return the factor of volatility by hour of the week, ``(168,)``, shrunk towards that of its hour of the day."""
    relative = (returns.square() / variance.clamp(min=QUIETEST**2)[:, None]).flatten().sqrt()
    factor, groups = torch.ones(HOURS, dtype=relative.dtype), hours.flatten()
    for place in (groups % 24, groups):
        sums = torch.zeros(HOURS, dtype=relative.dtype).index_add_(0, place, relative)
        counts = torch.bincount(place, minlength=HOURS)
        own = relative.mean().clamp(min=QUIETEST)
        factor = (sums / own + 20 * factor) / (counts + 20)
        if place is not groups:
            factor = factor[torch.arange(HOURS) % 24]
    return (factor / factor.square().mean().sqrt()).clamp(0.1, 10)


def _hour_of_week(stamp: Tensor) -> Tensor:
    """Return the hour of the week ``(B, W)`` from time features: minute hour weekday day month."""
    return stamp[..., 2].long() * 24 + stamp[..., 1].long()


def _variance(moves: Tensor, season: Tensor | float = 1.0) -> Tensor:
    """Return the Garman-Klass variance of candles without their weekly rhythm, ``(B, W)``."""
    open_, high, low, close = moves.unbind(dim=-1)
    found = 0.5 * (high - low).square() - (2 * math.log(2) - 1) * (close - open_).square()
    return found.clamp(min=0) / season**2


def _features(moves: Tensor, season: Tensor, spans: list[int]) -> Tensor:
    """Return log mean variances over the last candles of the lookback, one per span: ``(B, k)``."""
    variance = _variance(moves, season)
    floor = (0.01 * variance.mean(dim=1)).clamp(min=QUIETEST**2)
    means = [variance[:, -span:].mean(dim=1) for span in spans]
    return torch.stack([mean.maximum(floor).log() for mean in means], dim=1)
