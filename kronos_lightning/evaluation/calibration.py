"""Fitting of a calibration on validation forecasts. `forecast.calibration` applies it.

Shape letters: N cutoffs, S sample paths, h horizon, I intervals.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit

from kronos_lightning.forecast.calibration import (
    EDGES,
    INTERVALS,
    SMALLEST,
    CalibrationError,
    Moments,
    move,
    spread,
    widen,
)
from kronos_lightning.forecast.distribution import crps, path_quantiles

MIN_CALIBRATION_CUTOFFS = 20  # minimum number of cutoffs to estimate the ends of a 95 % interval
DRIFTS = (0.0, 0.25, 0.5, 0.75)  # factors of the drift that are tried, beside 1
SPREADS = tuple(np.round(np.arange(0.7, 1.51, 0.05), 2))  # factors of the spread that are tried
EXPONENTS = (0.25, 0.5, 0.75, 1.0)  # exponents of the shrinkage that are tried


def fit_moments(
    close: np.ndarray, last_close: np.ndarray, actual: np.ndarray, deviations: np.ndarray | None = None
) -> Moments:
    """Fit the correction of drift and spread with the lowest CRPS.

    The factor of the drift, then one factor of the spread for all steps, then the exponent of the shrinkage with such a
    factor, then one factor for each step: each is chosen on the first half of the cutoffs and adopted only if it lowers
    the CRPS of the second half. What is adopted is then chosen again on all cutoffs.

    Args:
        close: paths of the close ``(N, S, h)``, cutoffs ascending.
        last_close, actual: ``(N,)`` and ``(N, h)``.
        deviations: volatility that was expected at each cutoff, ``(N, h)``; None = no shrinkage.
    """
    fit = _MomentFit(close, last_close, actual, deviations)
    first, second, everything = slice(0, len(close) // 2), slice(len(close) // 2, None), slice(None)
    best = Moments(1.0, 0.0, np.ones(close.shape[2]))
    shrinking = () if deviations is None else (fit.best_exponent,)
    for step in (fit.best_drift, fit.best_spread, *shrinking, fit.best_spread_by_step):
        tried = step(first, best)
        if fit.loss(second, tried).mean() < fit.loss(second, best).mean():
            best = step(everything, best)
    return best


@dataclass(frozen=True)
class Correction:
    """Change of closes: drift and spread, then moved ends of the intervals; see `forecast.calibration`.

    moments: as `move` takes them. widening: as `widen` takes it.
    """

    moments: Moments
    widening: np.ndarray

    def apply(self, close: np.ndarray, last_close: np.ndarray, deviations: np.ndarray | None = None) -> np.ndarray:
        """Correct closes ``(N, S, h)`` that follow the closes `last_close` ``(N,)``; `deviations` as for `move`."""
        return widen(move(close, last_close, self.moments, deviations), last_close, self.widening)


def fit_correction(
    close: np.ndarray, last_close: np.ndarray, actual: np.ndarray, deviations: np.ndarray | None = None
) -> tuple[Correction, np.ndarray]:
    """Fit drift, spread and intervals; return the correction and the conformity scores ``(N, h, I)`` behind it.

    Args:
        close: paths of the close ``(N, S, h)``, cutoffs ascending.
        last_close, actual: ``(N,)`` and ``(N, h)``.
        deviations: volatility that was expected at each cutoff, ``(N, h)``; None = no shrinkage of the spread.

    Raises:
        CalibrationError: too few cutoffs have paths that differ.
    """
    moments = fit_moments(close, last_close, actual, deviations)
    scores = conformity(move(close, last_close, moments, deviations), last_close, actual)
    return Correction(moments, fit_widening(scores)), scores


@dataclass(frozen=True)
class _MomentFit:
    """CRPS of validation forecasts under corrections of drift and spread, and the corrections that minimise it."""

    close: np.ndarray
    last_close: np.ndarray
    actual: np.ndarray
    deviations: np.ndarray | None

    def loss(self, rows: slice, moments: Moments) -> np.ndarray:
        """Return the mean CRPS of each step, relative to the last close, ``(h,)``."""
        last, expected = self.last_close[rows], None if self.deviations is None else self.deviations[rows]
        moved = move(self.close[rows], last, moments, expected) / last[:, None, None]
        found: np.ndarray = crps(moved, self.actual[rows] / last[:, None]).mean(axis=0)
        return found

    def best_drift(self, rows: slice, moments: Moments) -> Moments:
        return self._best(rows, [replace(moments, drift=factor) for factor in (moments.drift, *DRIFTS)])

    def best_spread(self, rows: slice, moments: Moments) -> Moments:
        return self._scaled(rows, moments, lambda losses: np.full_like(losses, losses.mean()))

    def best_exponent(self, rows: slice, moments: Moments) -> Moments:
        tried = [replace(moments, exponent=one, spread=moments.spread * self._unit(rows, one)) for one in EXPONENTS]
        return self.best_spread(rows, self._best(rows, tried))

    def best_spread_by_step(self, rows: slice, moments: Moments) -> Moments:
        return self._scaled(rows, moments, lambda losses: losses)

    @cached_property
    def _ratio(self) -> np.ndarray:
        """Logarithm of the expected deviation over that of the paths, ``(N, h)``."""
        with np.errstate(divide="ignore", invalid="ignore"):
            own = spread(np.log(self.close / self.last_close[:, None, None]))
            ratio = np.log(self.deviations / np.maximum(own, SMALLEST))
        found: np.ndarray = np.where(np.isfinite(ratio), ratio, 0.0)  # paths with prices below zero stay as they are
        return found

    def _unit(self, rows: slice, exponent: float) -> np.ndarray | float:
        """Return the factor of the spread ``(h,)`` with which a shrinkage leaves the typical spread as it is."""
        return 1.0 if exponent == 0.0 else np.exp(-exponent * np.median(self._ratio[rows], axis=0))

    def _scaled(self, rows: slice, moments: Moments, together: Callable[[np.ndarray], np.ndarray]) -> Moments:
        """Find the best factors by bisection: the CRPS of a step is convex in its factor, and so is a mean of them."""
        unit, factors = self._unit(rows, moments.exponent), np.array(SPREADS)
        left, right = np.zeros(len(moments.spread), int), np.full(len(moments.spread), len(SPREADS) - 1)
        while (left < right).any():
            middle = (left + right) // 2
            here, next_ = (
                together(self.loss(rows, replace(moments, spread=unit * factors[np.minimum(place, right)])))
                for place in (middle, middle + 1)
            )
            lower = here <= next_
            left, right = np.where(lower, left, np.minimum(middle + 1, right)), np.where(lower, middle, right)
        return replace(moments, spread=unit * factors[left])

    def _best(self, rows: slice, tried: Sequence[Moments]) -> Moments:
        return min(tried, key=lambda one: float(self.loss(rows, one).mean()))


def conformity(close: np.ndarray, last_close: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """Compute how far outside each central interval the actual close is, ``(N, h, I)``; negative inside.

    Distance of the log return to the nearer end of the interval, in standard deviations of the paths' log returns: the
    score of conformalised quantile regression (Romano, Patterson and Candès, 2019).

    Args:
        close: paths of the close ``(N, S, h)``.
        last_close: ``(N,)``.
        actual: closes ``(N, h)``.

    Returns:
        Scores; NaN where a path has a price that is not positive, or all paths are equal.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        returns, came = np.log(close / last_close[:, None, None]), np.log(actual / last_close[:, None])
        ends, unit, half = path_quantiles(returns, EDGES), spread(returns), len(INTERVALS)
    unit = np.where(unit < SMALLEST, np.nan, unit)
    with np.errstate(invalid="ignore"):
        outside = np.maximum(ends[:half][::-1] - came, came - ends[half:]) / unit
    return np.moveaxis(outside, 0, -1)


def fit_widening(scores: np.ndarray) -> np.ndarray:
    """Fit by split conformal prediction how far each interval must widen to cover its share of the scores, ``(h, I)``.

    Args:
        scores: conformity of validation forecasts ``(N, h, I)``; cutoffs with a score that is not finite are left out.

    Raises:
        CalibrationError: fewer than 20 cutoffs remain.
    """
    scores = scores[np.isfinite(scores).all(axis=(1, 2))]
    n = len(scores)
    if n < MIN_CALIBRATION_CUTOFFS:
        raise CalibrationError(
            f"only {n} cutoffs have paths that differ and stay positive; at least {MIN_CALIBRATION_CUTOFFS} are "
            f"needed to calibrate"
        )
    ranked = np.sort(scores, axis=0)
    places = [min(int(np.ceil((n + 1) * width)), n) - 1 for width in INTERVALS]
    return np.stack([ranked[place, :, i] for i, place in enumerate(places)], axis=-1)


def adaptive(
    close: np.ndarray,
    last_close: np.ndarray,
    actual: np.ndarray,
    cutoffs: np.ndarray,
    stamps: np.ndarray,
    earlier: np.ndarray,
) -> np.ndarray:
    """Apply a conformal correction that moves with time: each cutoff uses the latest scores known at it.

    Each step uses as many scores as validation gave: first those of validation, then more and more of the test's own
    scores, each from the close of its actual candle on. If fewer than 20 scores are finite, the correction does not
    change.

    Args:
        close: paths ``(N, S, h)``, cutoffs ascending.
        last_close, actual: ``(N,)`` and ``(N, h)``.
        cutoffs, stamps: open times of the cutoffs' candles ``(N,)`` and of the forecast candles ``(N, h)``.
        earlier: validation scores ``(M, h, I)``, in time order.

    Returns:
        Corrected closes ``(N, S, h)``.
    """
    scores, window = conformity(close, last_close, actual), len(earlier)
    widening = np.empty(scores.shape)
    latest = fit_widening(earlier)
    for k in range(scores.shape[1]):
        known = np.searchsorted(stamps[:, k], cutoffs, side="right")  # number of outcomes known at each cutoff
        together = np.concatenate([earlier[:, k : k + 1], scores[:, k : k + 1]])
        for count in np.unique(known):
            recent = together[count : count + window]
            if np.isfinite(recent).all(axis=(1, 2)).sum() >= MIN_CALIBRATION_CUTOFFS:
                latest[k] = fit_widening(recent)[0]
            widening[known == count, k] = latest[k]
    return widen(close, last_close, widening)


def fit_platt(share: np.ndarray, rose: np.ndarray) -> tuple[float, float]:
    """Fit slope and intercept of Platt scaling to the shares of rising paths by maximum likelihood (Platt, 1999).

    Args:
        share: of the paths that rise, any shape.
        rose: True where the price rose, same shape.
    """
    x, y = logit(np.clip(share.ravel(), 1e-4, 1 - 1e-4)), rose.ravel()

    def loss(parameters: np.ndarray) -> float:
        z = parameters[0] * x + parameters[1]
        return float(np.mean(np.logaddexp(0, z) - y * z))

    def gradient(parameters: np.ndarray) -> np.ndarray:
        miss = expit(parameters[0] * x + parameters[1]) - y
        return np.array([np.mean(miss * x), np.mean(miss)])

    # A negative slope would invert the forecasts, which is not trusted.
    found = minimize(loss, [1.0, 0.0], jac=gradient, bounds=[(0.0, 10.0), (-5.0, 5.0)])
    return float(found.x[0]), float(found.x[1])
