"""The report's pictures."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from kronos_lightning.forecast import ForecastSet
from kronos_lightning.forecast.plots import DOWN, PATHS, UP, forecast_figure

from .metrics import Scores

GREY = "#6b7280"
CONTEXT_HORIZONS = 3  # candles before the cutoff in a fan chart, in horizons


def fan_charts(forecasts: ForecastSet, scores: Scores, candles: pd.DataFrame, note: str) -> Figure:
    """Forecasts of the best, the median and the worst cutoff by mean absolute error relative to the price."""
    order = np.argsort(scores.model_error.mean(axis=1) / forecasts.last_close)
    chosen = order[[0, len(order) // 2, -1]]
    rows = np.searchsorted(candles["timestamps"].dt.tz_localize(None).to_numpy(), forecasts.cutoffs[chosen])
    length = min(CONTEXT_HORIZONS * forecasts.horizon, int(rows.min()) + 1)
    values = candles[["open", "high", "low", "close"]].to_numpy()
    contexts = np.stack([values[row - length + 1 : row + 1] for row in rows])
    names = ("best", "median", "worst")
    titles = [
        f"{name}: {pd.Timestamp(forecasts.cutoffs[i]):%Y-%m-%d %H:%M}" for name, i in zip(names, chosen, strict=True)
    ]
    heading = f"Forecasts against reality: median path with 50/80/95 % bands{note}"
    return forecast_figure(contexts, forecasts.paths[chosen], forecasts.actual[chosen], titles, heading)


def error_by_step(scores: Scores, forecasts: ForecastSet, note: str) -> Figure:
    """Mean absolute error and 90 % coverage by horizon step."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    steps = np.arange(1, forecasts.horizon + 1)
    left.plot(steps, scores.model_error.mean(axis=0), color=PATHS, marker="o", markersize=3, label="model")
    left.plot(steps, scores.last_price_error.mean(axis=0), color=GREY, linestyle="--", label="last price")
    left.set(xlabel="step", ylabel="quote units", title=f"Mean absolute error{note}", ylim=(0, None))
    left.legend(fontsize=8)
    lower, upper = np.quantile(forecasts.close_paths, [0.05, 0.95], axis=1)
    inside = (forecasts.actual_close >= lower) & (forecasts.actual_close <= upper)
    right.plot(steps, inside.mean(axis=0), color=PATHS, marker="o", markersize=3, label="model")
    right.axhline(0.9, color=GREY, linestyle="--", label="should be 0.90")
    right.set(xlabel="step", ylabel="share inside", title="Coverage of the 90 % interval", ylim=(0, 1.02))
    right.legend(fontsize=8)
    return figure


@dataclass(frozen=True)
class Curve:
    """An equity curve, ``(T,)``, with its name."""

    name: str
    equity: np.ndarray


def equity_chart(candles: pd.DataFrame, strategy: Curve, benchmark: Curve, trades: pd.DataFrame, note: str) -> Figure:
    """Equity beside the benchmark, drawdown, and the trades on the closes.

    Args:
        candles: the backtest's candle frame, T rows.
        strategy, benchmark: equity at its closes.
        trades: trade table of the strategy.
        note: added to the heading.
    """
    figure = Figure(figsize=(10, 7), layout="constrained")
    top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=[3, 1.2, 3])
    time = candles["timestamps"].dt.tz_localize(None)
    for curve, color in ((strategy, PATHS), (benchmark, GREY)):
        top.plot(time, curve.equity, color=color, label=curve.name, linewidth=1.3)
        middle.fill_between(
            time, (curve.equity / np.maximum.accumulate(curve.equity) - 1) * 100, color=color, alpha=0.35
        )
    top.set_title(f"Equity after costs, quote units{note}", fontsize=10)
    top.legend(fontsize=8)
    middle.set_title("Drawdown, %", fontsize=10)
    bottom.plot(time, candles["close"], color=GREY, linewidth=0.9)
    for direction, marker, color, name in ((1, "^", UP, "long entry"), (-1, "v", DOWN, "short entry")):
        chosen = trades[trades["direction"] == direction]
        if len(chosen):
            x = chosen["entry_time"].dt.tz_localize(None)
            bottom.scatter(x, chosen["entry_price"], marker=marker, color=color, s=26, label=name, zorder=3)
    if len(trades):
        x = trades["exit_time"].dt.tz_localize(None)
        bottom.scatter(x, trades["exit_price"], marker="x", color="#111827", s=22, label="exit", zorder=3)
        bottom.legend(fontsize=8)
    bottom.set_title("Close and trades", fontsize=10)
    locator = AutoDateLocator()
    bottom.xaxis.set(major_locator=locator, major_formatter=ConciseDateFormatter(locator))
    return figure
