"""Metrics of a forecaster: losses by cutoff and step, and their summaries.

Shape letters: N cutoffs, S sample paths, h horizon, Q quantile levels, I intervals. Every forecaster, model or
baseline, is measured by the sample paths of its close. The point forecast is their median. "Return" means the return
from the cutoff's close. An undefined metric is NaN.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats

from kronos_lightning.data import Candles
from kronos_lightning.forecast import ForecastSet
from kronos_lightning.forecast.calibration import INTERVALS
from kronos_lightning.forecast.distribution import crps, path_quantiles

LEVELS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
RECENT = 60  # known candles that determine the volatility regime
SCALE = 500  # known candles whose mean change scales MASE
REGIMES = ("calm", "middle", "volatile")

DESCRIPTIONS = {
    "crps": "continuous ranked probability score of the return, in % of the price, all steps: the main metric",
    "crps_price": "the same of the close, in quote units",
    "wql": "weighted quantile loss of the return (11 levels from 5 to 95 %)",
    "wql_price": "the same of the close (flatters everyone)",
    "mae": "mean absolute error of the close, in quote units, all steps",
    "rmse": "root mean squared error of the close, in quote units, all steps",
    "mape": "mean absolute error of the close, in % of it (flatters everyone)",
    "mase": "absolute error / mean absolute change a candle over the 500 known candles",
    "mae_return": "mean absolute error of the return, in % of the price",
    "rmse_return": "root mean squared error of the return, in % of the price",
    "price_correlation": "correlation of forecast and actual close, all steps (flatters everyone)",
    "return_correlation": "correlation of forecast and actual return, all steps",
    "ic": "correlation of forecast and actual return over the horizon",
    "rank_ic": "the same of their ranks",
    "direction_accuracy": "share of cutoffs whose sign of the return over the horizon was right",
    "trend_accuracy": "share of steps whose sign of change was right",
    "volatility_error": "relative error of the realised volatility inside the horizon, paths against actual",
    "coverage_50": "share of actual closes inside the 50 % interval; 0.5 would be right",
    "coverage_80": "the same, 80 %",
    "coverage_90": "the same, 90 %",
    "coverage_95": "the same, 95 %",
    "width_90": "mean width of the 90 % interval, in % of the price",
    "brier": "mean squared error of P(up), all steps; 0.25 is a coin's",
}
LOSSES = {  # lower is better, so 1 − model / baseline is a skill score
    *("crps", "crps_price", "wql", "wql_price", "mae", "rmse", "mape", "mase", "mae_return", "rmse_return"),
    *("volatility_error", "brier"),
}


@dataclass(frozen=True, kw_only=True)
class Truth:
    """Actual closes after the cutoffs, and the scale and volatility known at the cutoffs.

    begins: open times of the first forecast candles ``(N,)``. last_close: ``(N,)``. actual: closes ``(N, h)``.
    scale: mean absolute change per candle before the cutoff, quote units ``(N,)``.
    volatility: standard deviation of the log returns per candle before the cutoff, ``(N,)``.
    """

    begins: np.ndarray
    last_close: np.ndarray
    actual: np.ndarray
    scale: np.ndarray
    volatility: np.ndarray

    @classmethod
    def of(cls, forecasts: ForecastSet, candles: Candles) -> "Truth":
        """Build from a forecast set and all candles; `scale` and `volatility` use only candles up to the cutoff."""
        frame = candles.frame
        inside = frame["segment"].diff().eq(0)  # exclude changes over a gap
        change = frame["close"].diff().where(inside).abs()
        returns = np.log(frame["close"]).diff().where(inside)
        rows = candles.rows_at(forecasts.cutoffs)
        scale = change.rolling(SCALE, min_periods=1).mean().to_numpy()[rows]
        volatility = returns.rolling(RECENT, min_periods=2).std().to_numpy()[rows]
        return cls(
            begins=forecasts.stamps[:, 0],
            last_close=forecasts.last_close,
            actual=forecasts.actual_close,
            scale=scale,
            volatility=volatility,
        )

    @property
    def actual_return(self) -> np.ndarray:
        """Actual returns from the cutoff's close, ``(N, h)``."""
        returns: np.ndarray = self.actual / self.last_close[:, None] - 1
        return returns

    def slices(self, by: str) -> dict[str, np.ndarray]:
        """Group the rows of cutoffs by ``"month"`` or by volatility ``"regime"`` (thirds by the known volatility)."""
        if by == "month":
            keys = pd.DatetimeIndex(self.begins).strftime("%Y-%m").to_numpy()
            return {key: np.flatnonzero(keys == key) for key in np.unique(keys)}
        known = np.flatnonzero(np.isfinite(self.volatility))
        parts = np.array_split(known[np.argsort(self.volatility[known], kind="stable")], len(REGIMES))
        return {name: np.sort(rows) for name, rows in zip(REGIMES, parts, strict=True) if len(rows)}


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores of a forecaster at every cutoff and step.

    point: median path, closes ``(N, h)``.
    crps: of the return, ``(N, h)``.
    pinball: quantile losses of the return at `LEVELS`, ``(N, h, Q)``.
    inside, width: True if the actual return was in each of `INTERVALS`, and the widths of these, ``(N, h, I)``.
    pit: place of the actual close in the distribution, in (0, 1), ``(N, h)``; random within ties and gaps of the paths.
    up: P(close above the last known close), ``(N, h)``.
    volatility: realised volatility (root mean square of the log returns), averaged over the paths, ``(N,)``.
    """

    truth: Truth
    point: np.ndarray
    crps: np.ndarray
    pinball: np.ndarray
    inside: np.ndarray
    width: np.ndarray
    pit: np.ndarray
    up: np.ndarray
    volatility: np.ndarray

    @property
    def loss(self) -> np.ndarray:
        """Loss by which forecasters are compared: mean CRPS of the return over the steps, ``(N,)``."""
        loss: np.ndarray = self.crps.mean(axis=1)
        return loss

    def select(self, rows: np.ndarray | slice) -> "Scores":
        """Select the scores of some cutoffs."""
        parts = {name: getattr(self, name)[rows] for name in vars(self) if name != "truth"}
        truth = Truth(**{name: part[rows] for name, part in vars(self.truth).items()})
        return Scores(truth=truth, **parts)


def score(paths: np.ndarray, truth: Truth, up: np.ndarray | None = None) -> Scores:
    """Score sample paths of the close ``(N, S, h)``.

    Args:
        paths: ``(N, S, h)``.
        truth: actual closes of the same cutoffs.
        up: P(up) ``(N, h)``; None = the share of rising paths.
    """
    last = truth.last_close[:, None]
    returns, actual = paths / last[:, None] - 1, truth.actual_return
    edges = tuple(sorted({*LEVELS, *((1 - i) / 2 for i in INTERVALS), *((1 + i) / 2 for i in INTERVALS)}))
    quantiles = dict(zip(edges, path_quantiles(returns, edges), strict=True))
    miss = np.stack([actual - quantiles[level] for level in LEVELS], axis=-1)
    lower, upper = (np.stack([quantiles[(1 + s * i) / 2] for i in INTERVALS], axis=-1) for s in (-1, 1))
    below, ties = (returns < actual[:, None]).sum(axis=1), (returns == actual[:, None]).sum(axis=1)
    spread = np.random.default_rng(0).random(actual.shape)
    return Scores(
        truth=truth,
        point=np.median(paths, axis=1),
        crps=crps(returns, actual),
        pinball=np.maximum(np.array(LEVELS) * miss, (np.array(LEVELS) - 1) * miss),
        inside=(lower <= actual[..., None]) & (actual[..., None] <= upper),
        width=upper - lower,
        pit=(below + spread * (ties + 1)) / (paths.shape[1] + 1),
        up=(returns > 0).mean(axis=1) if up is None else up,
        volatility=_volatility(paths, last).mean(axis=1),
    )


def forecast_metrics(scores: Scores) -> dict[str, float]:
    """Compute all metrics over all cutoffs and steps; see `DESCRIPTIONS`."""
    truth = scores.truth
    last, actual, actual_return = truth.last_close[:, None], truth.actual, truth.actual_return
    error, forecast_return = scores.point - actual, scores.point / last - 1
    signs = [np.sign(np.diff(series, prepend=last)) for series in (scores.point, actual)]
    actual_volatility = _volatility(actual[:, None], last)[:, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        volatility_error = np.abs(scores.volatility / actual_volatility - 1)
        scaled = np.abs(error) / truth.scale[:, None]
    found = {
        "crps": scores.crps.mean() * 100,
        "crps_price": (scores.crps * last).mean(),
        "wql": _ratio(2 * scores.pinball.mean(), np.abs(actual_return).mean()),
        "wql_price": _ratio(2 * (scores.pinball * last[..., None]).mean(), np.abs(actual).mean()),
        "mae": np.abs(error).mean(),
        "rmse": np.sqrt(np.square(error).mean()),
        "mape": np.abs(error / actual).mean() * 100,
        "mase": _finite_mean(scaled),
        "mae_return": np.abs(error / last).mean() * 100,
        "rmse_return": np.sqrt(np.square(error / last).mean()) * 100,
        "price_correlation": _correlation(scores.point.ravel(), actual.ravel()),
        "return_correlation": _correlation(forecast_return.ravel(), actual_return.ravel()),
        "ic": _correlation(forecast_return[:, -1], actual_return[:, -1]),
        "rank_ic": _correlation(*(stats.rankdata(part[:, -1]) for part in (forecast_return, actual_return))),
        "direction_accuracy": _sign_accuracy(np.sign(forecast_return[:, -1]), np.sign(actual_return[:, -1])),
        "trend_accuracy": _sign_accuracy(*signs),
        "volatility_error": _finite_mean(volatility_error),
        **{f"coverage_{i * 100:.0f}": scores.inside[..., k].mean() for k, i in enumerate(INTERVALS)},
        "width_90": scores.width[..., INTERVALS.index(0.9)].mean() * 100,
        "brier": np.square(scores.up - (actual_return > 0)).mean(),
    }
    return {name: float(value) for name, value in found.items()}


def majority_direction(truth: Truth) -> float:
    """Return the share of the more frequent direction over the horizon, which direction accuracy has to beat."""
    change = truth.actual[:, -1] - truth.last_close
    moved = change[change != 0]
    return float(max((moved > 0).mean(), (moved < 0).mean())) if moved.size else np.nan


def by_step(scores: Scores) -> pd.DataFrame:
    """Compute the metrics of each horizon step over all cutoffs: one row per step, counted from 1."""
    rows = []
    for k in range(scores.point.shape[1]):
        truth = scores.truth
        at = replace(truth, actual=truth.actual[:, k : k + 1])
        parts = {
            name: getattr(scores, name)[:, k : k + 1] for name in vars(scores) if name not in ("truth", "volatility")
        }
        row = forecast_metrics(Scores(truth=at, **parts, volatility=np.full(len(truth.begins), np.nan)))
        del row["volatility_error"], row["trend_accuracy"]  # metrics of a whole path
        rows.append({"step": k + 1, **row})
    return pd.DataFrame(rows)


def by_slice(scores: Scores, by: str) -> pd.DataFrame:
    """Compute the metrics of each ``"month"`` or volatility ``"regime"``, with its number of cutoffs."""
    parts = scores.truth.slices(by)
    rows = [{by: name, "cutoffs": len(rows), **forecast_metrics(scores.select(rows))} for name, rows in parts.items()]
    return pd.DataFrame(rows)


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Mean forecast P(up) and observed frequency of rises, in non-empty bins of equal width, all steps: ``(bins,)``."""

    forecast: np.ndarray
    observed: np.ndarray
    count: np.ndarray


def reliability(scores: Scores, bins: int = 10) -> Reliability:
    """Group the forecasts of P(up) into bins and compare them with the observed frequency of rises."""
    up, rose = scores.up.ravel(), (scores.truth.actual_return > 0).ravel()
    place = np.minimum((up * bins).astype(int), bins - 1)
    parts = [np.flatnonzero(place == i) for i in np.unique(place)]
    return Reliability(
        forecast=np.array([up[part].mean() for part in parts]),
        observed=np.array([rose[part].mean() for part in parts]),
        count=np.array([len(part) for part in parts]),
    )


def _volatility(close: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Compute the root mean square ``(N, S)`` of the log returns of closes ``(N, S, h)`` after `last` ``(N, 1)``."""
    first = np.broadcast_to(last[:, None], (*close.shape[:2], 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        returns = np.diff(np.log(np.concatenate([first, close], axis=-1)))
    size: np.ndarray = np.sqrt(np.square(returns).mean(axis=-1))
    return size


def _ratio(a: float, b: float) -> float:
    return a / b if b > 0 else np.nan


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Compute the Pearson correlation; NaN if one series does not vary."""
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return np.nan
    return float(np.corrcoef(a, b)[0, 1])


def _sign_accuracy(forecast: np.ndarray, actual: np.ndarray) -> float:
    """Compute the share of right signs where the price moved; NaN for a forecast without any direction."""
    moved = actual != 0
    return (forecast[moved] == actual[moved]).mean() if moved.any() and forecast.any() else np.nan


def _finite_mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return finite.mean() if finite.size else np.nan
