"""The report's pictures of forecasts. Shape letters: N cutoffs, h horizon."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kronos_lightning.forecast import ForecastSet
from kronos_lightning.forecast.calibration import INTERVALS
from kronos_lightning.forecast.plots import DOWN, PATHS, UP, date_axis, forecast_figure

from .metrics import Scores, reliability

GREY = "#6b7280"
COLOURS = (PATHS, "#b7791f", "#7c3aed", GREY)  # of forecasters, in the order in which they are given
CONTEXT_HORIZONS = 3  # candles before the cutoff in a fan chart, in horizons
PIT_BINS = 20


def fan_charts(forecasts: ForecastSet, scores: Scores, candles: pd.DataFrame, note: str) -> Figure:
    """Forecasts of the best, the median and the worst cutoff by CRPS."""
    order = np.argsort(scores.loss)
    chosen = order[[0, len(order) // 2, -1]]
    rows = np.searchsorted(candles["timestamps"].dt.tz_localize(None).to_numpy(), forecasts.cutoffs[chosen])
    length = min(CONTEXT_HORIZONS * forecasts.horizon, int(rows.min()) + 1)
    values = candles[["open", "high", "low", "close"]].to_numpy()
    contexts = np.stack([values[row - length + 1 : row + 1] for row in rows])
    titles = [
        f"{name}: {pd.Timestamp(forecasts.cutoffs[i]):%Y-%m-%d %H:%M}, CRPS {scores.loss[i]:.2%}"
        for name, i in zip(("best", "median", "worst"), chosen, strict=True)
    ]
    heading = f"Forecasts against reality: median path with 50/80/95 % bands{note}"
    return forecast_figure(contexts, forecasts.paths[chosen], forecasts.actual[chosen], titles, heading)


def step_chart(scores: Mapping[str, Scores], note: str) -> Figure:
    """CRPS and 90 % coverage by horizon step, of some forecasters by name."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for (name, one), colour in zip(scores.items(), COLOURS, strict=False):
        steps = np.arange(1, one.crps.shape[1] + 1)
        style = {"color": colour, "marker": "o", "markersize": 3, "label": name}
        left.plot(steps, one.crps.mean(axis=0) * 100, **style)
        right.plot(steps, one.inside[..., INTERVALS.index(0.9)].mean(axis=0), **style)
    left.set(xlabel="step", ylabel="% of the price", title=f"CRPS{note}", ylim=(0, None))
    right.axhline(0.9, color=GREY, linestyle="--", linewidth=1, label="should be 0.90")
    right.set(xlabel="step", ylabel="share inside", title="Coverage of the 90 % interval", ylim=(0, 1.02))
    for axes in (left, right):
        axes.legend(fontsize=8)
    return figure


def pit_chart(scores: Mapping[str, Scores], note: str) -> Figure:
    """Histograms of where actual closes fell in the forecast distributions; flat is right."""
    figure = Figure(figsize=(10, 3.0), layout="constrained")
    plots = np.atleast_1d(figure.subplots(1, len(scores), sharey=True))
    for axes, (name, one), colour in zip(plots, scores.items(), COLOURS, strict=False):
        axes.hist(one.pit.ravel(), bins=PIT_BINS, range=(0, 1), density=True, color=colour, alpha=0.75)
        axes.axhline(1, color="#111827", linestyle="--", linewidth=1)
        axes.set(title=name, xlabel="place in the forecast distribution")
    plots[0].set_ylabel("density")
    figure.suptitle(
        f"Probability integral transform, all steps: flat is right, U too narrow, hump too wide{note}", size=10
    )
    return figure


def reliability_chart(scores: Mapping[str, Scores], note: str) -> Figure:
    """Forecast P(up) against how often it went up; larger dots are of more forecasts."""
    figure = Figure(figsize=(10, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="reliable")
    for (name, one), colour in zip(scores.items(), COLOURS, strict=False):
        found = reliability(one)
        left.plot(found.forecast, found.observed, color=colour, linewidth=1)
        left.scatter(found.forecast, found.observed, s=8 + 160 * found.count / one.up.size, color=colour, label=name)
        right.hist(one.up.ravel(), bins=20, range=(0, 1), color=colour, alpha=0.5, label=name)
    left.set(
        xlabel="forecast P(up)",
        ylabel="share that went up",
        title=f"Reliability of P(up){note}",
        xlim=(0, 1),
        ylim=(0, 1),
    )
    right.set(xlabel="forecast P(up)", ylabel="forecasts", title="How often each is said")
    for axes in (left, right):
        axes.legend(fontsize=8)
    return figure


def skill_chart(model: Scores, baseline: Scores, name: str, note: str) -> Figure:
    """Skill month by month, and the advantage added up over time."""
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    top, bottom = figure.subplots(2, 1, height_ratios=[1, 1])
    months = model.truth.slices("month")
    skills = [1 - model.loss[rows].mean() / baseline.loss[rows].mean() for rows in months.values()]
    places = np.arange(len(months))
    top.bar(places, np.array(skills) * 100, color=[UP if skill > 0 else DOWN for skill in skills])
    top.axhline(0, color="#111827", linewidth=0.8)
    top.set(ylabel="%", title=f"Skill on CRPS against {name}, by month{note}")
    top.set_xticks(places, months, fontsize=8, rotation=45 if len(months) > 8 else 0)
    time = pd.DatetimeIndex(model.truth.begins)
    bottom.plot(time, np.cumsum(baseline.loss - model.loss) * 100, color=PATHS)
    bottom.axhline(0, color="#111827", linewidth=0.8)
    bottom.set(ylabel="% of the price", title="Advantage added up: rising where the model is better")
    date_axis(bottom)
    return figure
