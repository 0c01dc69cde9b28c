"""Point metrics of a forecast set, each beside the last-price baseline.

Shape letters: N cutoffs, S sample paths, h horizon. The point forecast is the median path's close; an undefined figure
is NaN.
"""

from dataclasses import dataclass

import numpy as np

from kronos_lightning.forecast import ForecastSet

DESCRIPTIONS = {
    "mae": "mean absolute error of the close, in quote units, all steps",
    "rmse": "root mean squared error of the close, in quote units, all steps",
    "mape": "mean absolute error of the close, in % of it, all steps",
    "price_correlation": "correlation of forecast and actual close, all steps (flatters everyone)",
    "return_correlation": "correlation of forecast and actual return over the horizon",
    "direction_accuracy": "share of cutoffs whose sign of the return over the horizon was right",
    "trend_accuracy": "share of steps whose sign of change was right",
    "volatility_error": "relative error of the realised volatility inside the horizon, paths against actual",
    "coverage_90": "share of actual closes inside the 5-95 % band of the paths (0.90 would be right)",
}


@dataclass(frozen=True)
class Scores:
    """Figures by name for the model and the last price, and what a skill score needs."""

    model: dict[str, float]
    last_price: dict[str, float]
    majority_direction: float  # share of the commoner direction: what direction accuracy has to beat
    model_error: np.ndarray  # (N, h) absolute error of the close
    last_price_error: np.ndarray  # (N, h)

    @property
    def skill(self) -> float:
        """1 − MAE / MAE of the last price; positive is better than the last price."""
        return 1 - self.model["mae"] / self.last_price["mae"] if self.last_price["mae"] > 0 else np.nan


def score(forecasts: ForecastSet) -> Scores:
    """Measure a forecast set and the last price on the same cutoffs."""
    paths, actual, last = forecasts.close_paths, forecasts.actual_close, forecasts.last_close
    unchanged = np.repeat(last[:, None], forecasts.horizon, axis=1)
    median = np.median(paths, axis=1)
    realised = np.sign(actual[:, -1] - last)
    moved = realised != 0
    up = (realised[moved] > 0).mean() if moved.any() else np.nan
    lower, upper = np.quantile(paths, [0.05, 0.95], axis=1)
    model = _point_figures(median, paths, actual, last)
    model["coverage_90"] = float(((actual >= lower) & (actual <= upper)).mean())
    last_price = _point_figures(unchanged, unchanged[:, None], actual, last) | {"coverage_90": np.nan}
    return Scores(model, last_price, float(max(up, 1 - up)), np.abs(median - actual), np.abs(unchanged - actual))


def _point_figures(point: np.ndarray, paths: np.ndarray, actual: np.ndarray, last: np.ndarray) -> dict[str, float]:
    error = point - actual
    forecast_return, actual_return = point[:, -1] / last - 1, actual[:, -1] / last - 1
    steps = [np.sign(np.diff(series, prepend=last[:, None])) for series in (point, actual)]
    actual_volatility = _volatility(actual, last)
    volatility = _volatility(paths, last[:, None]).mean(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        volatility_error = np.abs(volatility - actual_volatility) / actual_volatility
    figures = {
        "mae": np.abs(error).mean(),
        "rmse": np.sqrt(np.square(error).mean()),
        "mape": np.abs(error / actual).mean() * 100,
        "price_correlation": _correlation(point.ravel(), actual.ravel()),
        "return_correlation": _correlation(forecast_return, actual_return),
        "direction_accuracy": _sign_accuracy(np.sign(forecast_return), np.sign(actual_return)),
        "trend_accuracy": _sign_accuracy(*steps),
        "volatility_error": _finite_mean(volatility_error),
    }
    return {name: float(value) for name, value in figures.items()}


def _volatility(close: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Deviation of the log returns along the last axis of close ``(…, h)``, from `last` ``(…)`` on.

    NaN where a path leaves the positive prices.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        returns = np.diff(
            np.log(np.concatenate([np.broadcast_to(last[..., None], (*close.shape[:-1], 1)), close], axis=-1))
        )
    return returns.std(axis=-1)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson correlation; NaN where one of them does not vary."""
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return np.nan
    return np.corrcoef(a, b)[0, 1]


def _sign_accuracy(forecast: np.ndarray, actual: np.ndarray) -> float:
    """Share of right signs where the price moved; NaN for a forecast that names no direction at all."""
    moved = actual != 0
    return (forecast[moved] == actual[moved]).mean() if moved.any() and forecast.any() else np.nan


def _finite_mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return finite.mean() if finite.size else np.nan
