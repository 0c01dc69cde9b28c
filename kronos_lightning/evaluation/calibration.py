"""Fitting a calibration on validation forecasts. How it is applied: `forecast.calibration`.

Shape letters: N cutoffs, S sample paths, h horizon, I intervals.
"""

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit

from kronos_lightning.forecast.calibration import EDGES, INTERVALS, SMALLEST, CalibrationError, spread, widen
from kronos_lightning.forecast.distribution import path_quantiles

FEWEST = 20  # cutoffs below which the ends of a 95 % interval cannot be told


def conformity(close: np.ndarray, last_close: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """How far outside each central interval the actual close was, ``(N, h, I)``; negative inside.

    In standard deviations of the paths' log returns, the distance to the nearer end: the score of conformalised
    quantile regression (Romano, Patterson and Candès, 2019).

    Args:
        close: paths of the close ``(N, S, h)``.
        last_close: ``(N,)``.
        actual: closes ``(N, h)``.

    Returns:
        NaN where a path leaves the positive prices, or all paths are one and the same.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        returns, came = np.log(close / last_close[:, None, None]), np.log(actual / last_close[:, None])
        ends, unit, half = path_quantiles(returns, EDGES), spread(returns), len(INTERVALS)
    unit = np.where(unit < SMALLEST, np.nan, unit)
    with np.errstate(invalid="ignore"):
        outside = np.maximum(ends[:half][::-1] - came, came - ends[half:]) / unit
    return np.moveaxis(outside, 0, -1)


def fit_widening(scores: np.ndarray) -> np.ndarray:
    """Split conformal: how far each interval must widen to have covered its share of the scores, ``(h, I)``.

    Args:
        scores: conformity of validation forecasts ``(N, h, I)``; those not finite are left out.
    """
    scores = scores[np.isfinite(scores).all(axis=(1, 2))]
    n = len(scores)
    if n < FEWEST:
        raise CalibrationError(
            f"only {n} cutoffs to calibrate on whose paths differ and stay positive, at least {FEWEST} are needed"
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
    """Conformal correction that moves with time: each cutoff uses the latest scores known at it.

    As many scores as validation gave, by step: first those, then more and more of the test's own, each from when its
    actual candle had closed. Where too few of them can be told, the correction stays as it was.

    Args:
        close: paths ``(N, S, h)``, cutoffs ascending.
        last_close, actual: ``(N,)`` and ``(N, h)``.
        cutoffs, stamps: open times of the cutoffs' candles ``(N,)`` and of the forecast ones ``(N, h)``.
        earlier: validation's scores ``(M, h, I)``, in time order.

    Returns:
        Corrected closes ``(N, S, h)``.
    """
    scores, window = conformity(close, last_close, actual), len(earlier)
    widening = np.empty(scores.shape)
    latest = fit_widening(earlier)
    for k in range(scores.shape[1]):
        known = np.searchsorted(stamps[:, k], cutoffs, side="right")  # how many outcomes each cutoff has seen
        together = np.concatenate([earlier[:, k : k + 1], scores[:, k : k + 1]])
        for count in np.unique(known):
            recent = together[count : count + window]
            if np.isfinite(recent).all(axis=(1, 2)).sum() >= FEWEST:
                latest[k] = fit_widening(recent)[0]
            widening[known == count, k] = latest[k]
    return widen(close, last_close, widening)


def fit_platt(share: np.ndarray, rose: np.ndarray) -> tuple[float, float]:
    """Slope and intercept that make the shares of rising paths the likeliest probabilities (Platt, 1999).

    Args:
        share: of the paths that rise, any shape.
        rose: whether the price did.
    """
    x, y = logit(np.clip(share.ravel(), 1e-4, 1 - 1e-4)), rose.ravel()

    def loss(parameters: np.ndarray) -> float:
        z = parameters[0] * x + parameters[1]
        return float(np.mean(np.logaddexp(0, z) - y * z))

    def gradient(parameters: np.ndarray) -> np.ndarray:
        miss = expit(parameters[0] * x + parameters[1]) - y
        return np.array([np.mean(miss * x), np.mean(miss)])

    # A negative slope would say that the forecasts are right the other way round; that is not trusted.
    found = minimize(loss, [1.0, 0.0], jac=gradient, bounds=[(0.0, 10.0), (-5.0, 5.0)])
    return float(found.x[0]), float(found.x[1])
