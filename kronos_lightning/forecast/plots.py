"""Plots of candles and forecasts, created without pyplot, so that no figure has to be closed."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kronos_lightning.data.formats import CLOSE, OPEN, VOLUME
from kronos_lightning.plotting.theme import BANDS, DOWN, FORECAST, GREY, TEXT, UP


def draw_candles(axes: Axes, candles: np.ndarray, x: np.ndarray, alpha: float = 1.0) -> None:
    """Draw candles ``(T, ≥4)`` (open high low close) at positions x ``(T,)``."""
    open_, high, low, close = candles[:, :4].T
    colors = np.where(close >= open_, UP, DOWN).tolist()
    axes.vlines(x, low, high, colors=colors, linewidth=0.8, alpha=alpha)
    axes.bar(x, np.abs(close - open_), 0.7, np.minimum(open_, close), color=colors, alpha=alpha)


def draw_fan(axes: Axes, paths: np.ndarray, x: np.ndarray) -> None:
    """Draw median and 50/80/95 % bands of close paths ``(S, h)`` at positions x ``(h,)``; a single path is a line."""
    if len(paths) > 1:
        for lower, upper, color in BANDS:
            edges, label = np.quantile(paths, [lower, upper], axis=0), f"{upper - lower:.0%} of the paths"
            axes.fill_between(x, *edges, color=color, linewidth=0, zorder=0.5, label=label)  # below candles
    axes.plot(x, np.median(paths, axis=0), color=FORECAST, linewidth=1.6, label="median path")


def forecast_axes(axes: Axes, context: np.ndarray, paths: np.ndarray, actual: np.ndarray, title: str) -> None:
    """Draw a forecast and the realised candles on given axes; see `forecast_figure` for the shapes."""
    past, future = np.arange(-len(context) + 1, 1), np.arange(1, len(actual) + 1)
    draw_candles(axes, context, past)
    draw_candles(axes, actual, future, alpha=0.35)
    close, last = paths[..., CLOSE], context[-1, CLOSE]
    draw_fan(axes, np.concatenate([np.full((len(close), 1), last), close], axis=1), np.arange(0, len(actual) + 1))
    axes.plot(np.arange(0, len(actual) + 1), [last, *actual[:, CLOSE]], color=TEXT, linewidth=1.2, label="actual close")
    axes.axvline(0, color=GREY, linewidth=0.8, linestyle=":")
    axes.set_title(title, fontsize=9)
    axes.tick_params(labelsize=8)


def forecast_figure(
    contexts: np.ndarray, paths: np.ndarray, actuals: np.ndarray, titles: Sequence[str], heading: str
) -> Figure:
    """Plot forecasts with the realised candles, side by side.

    Args:
        contexts: last known candles, ``(N, T, ≥4)``.
        paths: sample paths, ``(N, S, h, ≥4)``.
        actuals: realised candles, ``(N, h, ≥4)``.
        titles: title of each plot.
        heading: title above all plots.
    """
    figure = Figure(figsize=(4.6 * len(contexts), 3.6), layout="constrained")
    for axes, *forecast in zip(figure.subplots(1, len(contexts), squeeze=False)[0], contexts, paths, actuals, titles,
                               strict=True):  # fmt: skip
        forecast_axes(axes, *forecast)
        axes.set_xlabel("candles from the cutoff", fontsize=8)
    figure.axes[0].legend(fontsize=7, loc="best")
    figure.suptitle(heading, fontsize=10)
    return figure


def live_figure(known: np.ndarray, paths: np.ndarray, stamps: pd.DatetimeIndex, title: str) -> Figure:
    """Plot a fan chart of a forecast with unknown outcome, with volume below.

    Args:
        known: last known candles, ``(T, C)``.
        paths: sample paths, ``(S, h, C)``.
        stamps: open times of known and forecast candles, ``(T + h,)``.
        title: title above the chart.
    """
    figure = Figure(figsize=(11, 6), layout="constrained")
    prices, volumes = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    past, future = np.arange(-len(known) + 1, 1), np.arange(1, paths.shape[1] + 1)
    draw_candles(prices, known, past)
    close, last = paths[..., CLOSE], known[-1, CLOSE]
    draw_fan(prices, np.concatenate([np.full((len(close), 1), last), close], axis=1), np.arange(0, len(future) + 1))
    rising = known[:, CLOSE] >= known[:, OPEN]
    volumes.bar(past, known[:, VOLUME], 0.7, color=np.where(rising, UP, DOWN))
    middle = np.median(paths[..., VOLUME], axis=0)
    edges = np.abs(np.quantile(paths[..., VOLUME], [0.10, 0.90], axis=0) - middle)
    volumes.bar(future, middle, 0.7, color=FORECAST, alpha=0.6, yerr=edges, error_kw={"alpha": 0.4, "linewidth": 0.8})
    volumes.set_ylim(bottom=0)
    for axes in (prices, volumes):
        axes.axvline(0.5, color=GREY, linewidth=0.8, linestyle=":")
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.2)
    days = (stamps[1:] - stamps[:-1]).min() >= pd.Timedelta("1D")
    label = "%Y-%m-%d" if days else "%Y-%m-%d\n%H:%M"
    ticks = np.linspace(past[0], future[-1], 9).round().astype(int)
    volumes.set_xticks(ticks, [stamps[i - past[0]].strftime(label) for i in ticks])
    prices.set_ylabel("price", fontsize=9)
    volumes.set_ylabel("volume, 10–90 %", fontsize=9)
    prices.legend(fontsize=8, loc="best")
    prices.set_title(title, fontsize=10)
    return figure
