"""Calibration of a checkpoint's forecasts, fitted by an evaluation on its validation range.

`evaluation.calibration` fits it, `calibration.json` next to the checkpoint stores it, and the forecaster applies it.

Shape letters: N series or cutoffs, S sample paths, h horizon, C features, I intervals.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from pydantic import ConfigDict, Field
from scipy.special import expit, logit
from torch import Tensor

from kronos_lightning.data.formats import CLOSE
from kronos_lightning.data.volatility_regression import VolatilityRegression
from kronos_lightning.errors import KronosError
from kronos_lightning.forecast.distribution import path_quantiles
from kronos_lightning.settings import Section, Stored, read_stored
from kronos_lightning.settings.stored import Date, IntervalName
from kronos_lightning.storage import atomic_path

FILE = "calibration.json"
Window = tuple[Tensor, Tensor]  # known candles (N, T, C), time features of these and of the coming ones (N, T + h, 5)
Finite = Annotated[float, Field(allow_inf_nan=False)]
INTERVALS = (0.5, 0.8, 0.9, 0.95)  # central intervals that are corrected
EDGES = tuple(sorted((1 + sign * width) / 2 for width in INTERVALS for sign in (-1, 1)))
FARTHEST = 20.0  # maximum log return of a moved path, so that outputs of untrained networks stay finite
SMALLEST = 1e-9  # spread of the log returns below which paths count as identical


class CalibrationError(KronosError, ValueError):
    """Error for a calibration that cannot be fitted or does not match the forecasts; the message says why."""


class CalibrationMetadata(Stored):
    """Metadata of a fit. Earlier versions wrote no `symbol` and no `anchor`; `rotary_fine_token` had another name."""

    symbol: str = ""
    cutoffs: Annotated[int, Field(gt=0)] = 1
    num_paths: Annotated[int, Field(gt=0)] = 1
    fitted_from: Date = ""
    fitted_to: Date = ""
    lookback: Annotated[int, Field(gt=1)] = 2
    top_k: Annotated[int, Field(ge=0)] = 0
    rotary_fine_token: bool = False
    trained_positions: bool = False
    anchor: bool = False


class SpreadShrinkage(Section):
    """Shrinkage of the spread of the paths towards a classical forecast of the volatility.

    exponent: 0 keeps the spread of the paths, 1 replaces it by that of the regression, up to the factor of the spread.
    regression: the classical forecast.
    """

    exponent: Annotated[float, Field(gt=0, le=1)]
    regression: VolatilityRegression


class StoredCalibration(Stored):
    """Content of `calibration.json`."""

    model_config = ConfigDict(extra="forbid")

    temperature: Finite = Field(gt=0)
    top_p: Finite = Field(gt=0, le=1)
    drift: Finite = 1.0  # earlier versions had neither drift nor spread
    spread: Annotated[list[Annotated[Finite, Field(ge=0)]], Field(default_factory=list, max_length=100_000)]
    shrinkage: SpreadShrinkage | None = None
    widening: Annotated[list[tuple[Finite, Finite, Finite, Finite]], Field(min_length=1, max_length=100_000)]
    slope: Finite
    intercept: Finite
    interval: IntervalName
    about: CalibrationMetadata = Field(default_factory=CalibrationMetadata)


@dataclass(frozen=True)
class Moments:
    """Correction of drift and spread: see `Calibration`; the exponent is that of the shrinkage, the spread ``(h,)``."""

    drift: float
    exponent: float
    spread: np.ndarray

    @property
    def is_identity(self) -> bool:
        """True if nothing is corrected."""
        return self.drift == 1.0 and self.exponent == 0.0 and bool((self.spread == 1.0).all())


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Sampling, moments, interval widths and probability correction fitted on the validation range.

    temperature, top_p: sampling with the lowest CRPS.
    drift: factor of the paths' mean log return; 0 takes the drift out, 1 keeps it.
    spread: factor of the paths' deviations from their mean log return, by step; empty keeps them.
    shrinkage: shrinkage of the spread towards a volatility regression, before that factor; None keeps it.
    widening: distance by which both ends of an interval move outwards, by step and interval, in standard deviations of
        the paths' log returns at that step: ``h`` lists of I. Negative values move the ends inwards.
    slope, intercept: Platt scaling: P(up) becomes expit(slope · logit(P) + intercept).
    interval: interval of the candles, such as ``"1h"``.
    metadata: metadata of the fit.
    """

    temperature: float
    top_p: float
    widening: tuple[tuple[float, ...], ...]
    slope: float
    intercept: float
    interval: str
    drift: float = 1.0
    spread: tuple[float, ...] = ()
    shrinkage: SpreadShrinkage | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def apply(self, paths: np.ndarray, last_close: np.ndarray, deviations: np.ndarray | None = None) -> np.ndarray:
        """Calibrate sample paths; return a new array.

        Every candle keeps its shape: its four prices move by the same factor. First drift and spread change, then the
        ends of the intervals move, which keeps the ranks of the paths and, for an odd number of them, their median.
        Steps beyond the calibrated steps are treated like the last calibrated step.

        Args:
            paths: ``(N, S, h, C)``.
            last_close: closes that they follow, ``(N,)``.
            deviations: of `expected_deviations`.
        """
        close = paths[..., CLOSE].astype(np.float64)
        moved = self.moved(close, last_close, deviations)
        widened = widen(moved, last_close, self._by_step(self.widening, close.shape[2]))
        factor = np.divide(widened, close, out=np.ones_like(close), where=close != 0)
        prices = paths[..., : CLOSE + 1] * factor[..., None]
        return np.concatenate([prices, paths[..., CLOSE + 1 :]], axis=-1).astype(paths.dtype)

    def probability_up(self, share: np.ndarray) -> np.ndarray:
        """Return the calibrated P(up) from the share of calibrated paths that rise, any shape."""
        return platt(share, self.slope, self.intercept)

    def expected_deviations(self, windows: Sequence[Window]) -> np.ndarray | None:
        """Return the deviations ``(N, h)`` that `apply` needs after these windows; None if the spread is not shrunk."""
        if self.shrinkage is None:
            return None
        return np.concatenate([self.shrinkage.regression.deviations(*window) for window in windows])

    def moved(self, close: np.ndarray, last_close: np.ndarray, deviations: np.ndarray | None = None) -> np.ndarray:
        """Return closes ``(N, S, h)`` with calibrated drift and spread, without the widening; see `apply`."""
        exponent = 0.0 if self.shrinkage is None else self.shrinkage.exponent
        moments = Moments(self.drift, exponent, self._by_step(self.spread or (1.0,), close.shape[2]))
        return move(close, last_close, moments, deviations)

    @staticmethod
    def _by_step(known: Sequence[Any], horizon: int) -> np.ndarray:
        values = np.array(known)
        chosen: np.ndarray = values[np.minimum(np.arange(horizon), len(values) - 1)]
        return chosen

    def save(self, directory: Path) -> None:
        """Write `calibration.json` into a directory."""
        with atomic_path(directory / FILE) as temporary:
            temporary.write_text(json.dumps(self.as_dict(), indent=2))

    def as_dict(self) -> dict[str, Any]:
        """Return the content of `calibration.json`, in which the key of the metadata is "about"."""
        content = asdict(self)
        about, shrinkage = content.pop("metadata"), content.pop("shrinkage")
        used = {} if shrinkage is None else {"shrinkage": shrinkage.model_dump()}
        return content | used | {"about": about}

    @classmethod
    def of(cls, directory: Path) -> Self:
        """Read the calibration of a directory.

        Raises:
            CalibrationError: there is no calibration, or its file is damaged.
        """
        found = cls.load(directory)
        if found is None:
            raise CalibrationError(f"{directory}: not calibrated, no {FILE}; run evaluate.py first")
        return found

    @classmethod
    def load(cls, directory: Path) -> Self | None:
        """Read the calibration of a directory; return None if there is none.

        Raises:
            CalibrationError: the file is damaged.
        """
        found = read_stored(directory / FILE, StoredCalibration, CalibrationError, "delete it or evaluate again")
        if found is None:
            return None
        return cls._from(found)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """Return the calibration of which `as_dict` gave the content, perhaps by way of JSON."""
        return cls._from(StoredCalibration.model_validate_json(json.dumps(content)))

    @classmethod
    def _from(cls, found: "StoredCalibration") -> Self:
        return cls(
            temperature=found.temperature,
            top_p=found.top_p,
            drift=found.drift,
            spread=tuple(found.spread),
            shrinkage=found.shrinkage,
            widening=tuple(found.widening),
            slope=found.slope,
            intercept=found.intercept,
            interval=found.interval,
            metadata=found.about.content(),
        )


def move(
    close: np.ndarray, last_close: np.ndarray, moments: Moments, deviations: np.ndarray | None = None
) -> np.ndarray:
    """Change drift and spread of the log returns of paths.

    The drift is estimated by the mean of only some of the S paths, S (1 − drift) / 2 of them. The moved paths then
    have the variance of independent draws. If all paths were centred on their own mean, they would be narrower than
    the distribution that they stand for, and the fair CRPS would flatter them by 1 / (2 S).

    Args:
        close: closes ``(N, S, h)``; a cutoff's step with a close that is not positive is unchanged.
        last_close: last known closes, ``(N,)``.
        moments: the correction.
        deviations: standard deviation of the log return to each step by a volatility regression, ``(N, h)``; needed
            if there is an exponent.

    Returns:
        Closes ``(N, S, h)``.

    Raises:
        CalibrationError: there is an exponent, but no deviations.
    """
    if moments.is_identity:
        return close
    drift, factor = moments.drift, moments.spread
    with np.errstate(divide="ignore", invalid="ignore"):
        returns = np.log(close / last_close[:, None, None])
        if drift != 1.0:
            some = max(1, round(close.shape[1] * (1 - drift) / 2))
            returns = returns + (drift - 1.0) * returns[:, :some].mean(axis=1, keepdims=True)
        mean = returns.mean(axis=1, keepdims=True)
        if moments.exponent:
            if deviations is None:
                raise CalibrationError("the calibration needs the volatility that was expected at each cutoff")
            own = np.maximum(spread(returns), SMALLEST)
            factor = (factor * (deviations / own) ** moments.exponent)[:, None]
        reached = np.clip(mean + factor * (returns - mean), -FARTHEST, FARTHEST)
    found: np.ndarray = np.where(np.isfinite(reached), last_close[:, None, None] * np.exp(reached), close)
    return found


def widen(close: np.ndarray, last_close: np.ndarray, widening: np.ndarray) -> np.ndarray:
    """Move the ends of the central intervals of paths, and with them every path.

    Args:
        close: closes ``(N, S, h)``; if a close is not positive, that step of its cutoff is unchanged.
        last_close: last known closes, ``(N,)``.
        widening: see `Calibration`; ``(h, I)``, or ``(N, h, I)`` for separate values per cutoff.

    Returns:
        Closes ``(N, S, h)``. Between the ends, paths move in proportion; outside, they move as far as the outermost
        end.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        returns = np.log(close / last_close[:, None, None])
        unit = spread(returns)
    ends = path_quantiles(returns, EDGES)  # (2I, N, h), ascending
    moves = np.moveaxis(np.broadcast_to(widening, (*ends.shape[1:], len(INTERVALS))), -1, 0) * unit
    outwards = np.concatenate([-moves[::-1], moves])
    half, centre = len(INTERVALS), path_quantiles(returns, (0.5,))
    moved = ends + outwards
    # A wider interval never ends inside a narrower interval, and no end crosses the median.
    moved[half:] = np.maximum.accumulate(np.maximum(moved[half:], centre), axis=0)
    moved[:half] = np.minimum.accumulate(np.minimum(moved[:half], centre)[::-1], axis=0)[::-1]
    knots = np.concatenate([ends[:half], centre, ends[half:]])
    targets = np.concatenate([moved[:half], centre, moved[half:]])
    result = close.copy()
    for i, k in zip(*np.nonzero(np.isfinite(returns).all(axis=1)), strict=True):
        x, y, values = knots[:, i, k], targets[:, i, k], returns[i, :, k]
        beyond = np.where(values < x[0], values - x[0], np.maximum(values - x[-1], 0))
        reached = np.clip(np.interp(values, x, y) + beyond, -FARTHEST, FARTHEST)
        result[i, :, k] = last_close[i] * np.exp(reached)
    return result


def spread(returns: np.ndarray) -> np.ndarray:
    """Return the standard deviation over the paths ``(N, S, h)`` at each step, ``(N, h)``: the unit of `widening`."""
    deviation: np.ndarray = returns.std(axis=1)
    return deviation


def platt(share: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    """Apply Platt scaling to shares of any shape; shares are clipped to [0.0001, 0.9999]."""
    scaled: np.ndarray = expit(slope * logit(np.clip(share, 1e-4, 1 - 1e-4)) + intercept)
    return scaled
