"""Backtests of the risk that forecasts state: value at risk, expected shortfall, stop before target, drawdown.

Shape letters: N cutoffs, S sample paths, h horizon.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import xlogy

from kronos_lightning.forecast import ForecastSet, drawdowns, probability_touch, tail_risk
from kronos_lightning.forecast.distribution import crps, path_quantiles
from kronos_lightning.forecast.risk import RISK_LEVELS

FEWEST_EXPECTED = 1.0  # exceedances below which the tests say nothing
DRAWDOWN_LEVELS = (0.5, 0.95)


@dataclass(frozen=True, kw_only=True)
class TouchScore:
    """Forecast of a stop that is reached before a target, against what happened.

    down, up: distance of stop and target, as shares of the last close.
    forecast, observed: mean probability of the stop first, and share of cutoffs where it was first.
    brier: mean squared error of the probability. climate: that of the observed share, which nobody knew beforehand.
    """

    down: float
    up: float
    forecast: float
    observed: float
    brier: float
    climate: float


@dataclass(frozen=True, kw_only=True)
class DrawdownScore:
    """Largest fall of the close within the horizon: forecast distribution against what happened.

    forecast: all drawdowns of the paths ``(N, S)``. observed: ``(N,)``.
    covered: share of cutoffs below each of `DRAWDOWN_LEVELS` of their distribution.
    crps: continuous ranked probability score of the drawdown, in % of the price.
    """

    forecast: np.ndarray
    observed: np.ndarray
    covered: tuple[float, ...]
    crps: float


@dataclass(frozen=True, kw_only=True)
class RiskReport:
    """Risk of a long position. by_step: one row per level and step, see `tail_table`. touch: None without levels."""

    by_step: pd.DataFrame
    touch: TouchScore | None
    drawdown: DrawdownScore


def assess(forecasts: ForecastSet, overlap: int, down: float | None, up: float | None) -> RiskReport:
    """Compare the stated risk with the realised candles.

    Args:
        forecasts: at N cutoffs.
        overlap: number of neighbouring cutoffs that share target candles.
        down, up: distance of stop and target, as shares of the last close; None = there is none.
    """
    tables = [tail_table(forecasts, level, overlap) for level in RISK_LEVELS]
    touch = _touch(forecasts, down, up) if down is not None and up is not None else None
    by_step = pd.concat(tables, ignore_index=True)
    return RiskReport(by_step=by_step, touch=touch, drawdown=_drawdown(forecasts))


def tail_table(forecasts: ForecastSet, level: float, overlap: int) -> pd.DataFrame:
    """Compare value at risk and expected shortfall with the realised losses.

    Returns:
        One row per step: ``level``, ``step``, the means ``value_at_risk`` and ``expected_shortfall``, the share of
        losses beyond the former (``exceeded``), their mean (``mean_loss_beyond``) and the mean expected shortfall of
        these cutoffs (``shortfall_there``), which should be equal. The tests use only cutoffs without common target
        candles, ``tested`` of them: p-values of Kupiec's test of the share (``kupiec``), of Christoffersen's test of
        independence and of both together (``independence``, ``conditional``); NaN with less than one exceedance
        expected.
    """
    risk, rows = tail_risk(forecasts.paths, forecasts.last_close, level), []
    loss = 1 - forecasts.actual_close / forecasts.last_close[:, None]
    beyond = loss > risk.value_at_risk
    for k in range(forecasts.horizon):
        apart = max(1, -(-(k + 1) * overlap // forecasts.horizon))
        hits = beyond[::apart, k]
        tests = coverage_tests(hits, level) if len(hits) * level >= FEWEST_EXPECTED else CoverageTests()
        rows.append(
            {
                "level": level,
                "step": k + 1,
                "value_at_risk": risk.value_at_risk[:, k].mean(),
                "expected_shortfall": risk.expected_shortfall[:, k].mean(),
                "exceeded": beyond[:, k].mean(),
                "mean_loss_beyond": _mean(loss[beyond[:, k], k]),
                "shortfall_there": _mean(risk.expected_shortfall[beyond[:, k], k]),
                "tested": len(hits),
                **vars(tests),
            }
        )
    return pd.DataFrame(rows)


@dataclass(frozen=True, kw_only=True)
class CoverageTests:
    """p-values of Kupiec's (1995) and Christoffersen's (1998) likelihood ratio tests; see `coverage_tests`."""

    kupiec: float = np.nan
    independence: float = np.nan
    conditional: float = np.nan


def coverage_tests(hits: np.ndarray, level: float) -> CoverageTests:
    """Test exceedances for their share and their independence.

    Args:
        hits: True where the loss was beyond the value at risk, bool ``(N,)``, in time order, of targets that do not
            overlap.
        level: the share that should be.
    """
    share = hits.mean()
    unconditional = 2 * (_likelihood(hits, share) - _likelihood(hits, level))
    before, after = hits[:-1], hits[1:]
    chain = sum(_likelihood(part, part.mean()) for part in (after[before], after[~before]) if len(part))
    independence = 2 * (chain - _likelihood(after, after.mean())) if len(after) else 0.0
    return CoverageTests(
        kupiec=float(stats.chi2.sf(max(unconditional, 0.0), 1)),
        independence=float(stats.chi2.sf(max(independence, 0.0), 1)),
        conditional=float(stats.chi2.sf(max(unconditional, 0.0) + max(independence, 0.0), 2)),
    )


def _likelihood(hits: np.ndarray, share: float) -> float:
    """Return the log likelihood of independent exceedances with a share."""
    count = hits.sum()
    return float(xlogy(count, share) + xlogy(len(hits) - count, 1 - share))


def _touch(forecasts: ForecastSet, down: float, up: float) -> TouchScore:
    stated = probability_touch(forecasts.paths, forecasts.last_close, down, up).down
    came = probability_touch(forecasts.actual[:, None], forecasts.last_close, down, up).down
    observed = float(came.mean())
    return TouchScore(
        down=down,
        up=up,
        forecast=float(stated.mean()),
        observed=observed,
        brier=float(np.square(stated - came).mean()),
        climate=observed * (1 - observed),
    )


def _drawdown(forecasts: ForecastSet) -> DrawdownScore:
    stated = drawdowns(forecasts.paths, forecasts.last_close)
    came = drawdowns(forecasts.actual[:, None], forecasts.last_close)[:, 0]
    edges = path_quantiles(stated, DRAWDOWN_LEVELS)
    return DrawdownScore(
        forecast=stated,
        observed=came,
        covered=tuple((came <= edges).mean(axis=1).tolist()),
        crps=float(crps(stated, came).mean() * 100),
    )


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else np.nan
