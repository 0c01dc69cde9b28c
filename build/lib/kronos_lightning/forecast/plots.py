"""Pictures of candles and forecasts. Figures are made without pyplot, so nothing has to be closed."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

UP, DOWN, PATHS, ACTUAL = "#1f9d72", "#d1495b", "#2b6cb0", "#111827"
BANDS = ((0.05, 0.95, 0.15), (0.10, 0.90, 0.15), (0.25, 0.75, 0.25))  # lower, upper quantile, opacity


def draw_candles(axes: Axes, candles: np.ndarray, x: np.ndarray, alpha: float = 1.0) -> None:
    """Draw candles ``(T, ≥4)`` (open high low close) at positions x ``(T,)``."""
    open_, high, low, close = candles[:, :4].T
    colors = np.where(close >= open_, UP, DOWN)
    axes.vlines(x, low, high, colors=colors, linewidth=0.8, alpha=alpha)
    axes.bar(x, np.abs(close - open_), 0.7, np.minimum(open_, close), color=colors, alpha=alpha)


def draw_fan(axes: Axes, paths: np.ndarray, x: np.ndarray) -> None:
    """Draw median and 50/80/90 % bands of close paths ``(S, h)`` at positions x ``(h,)``; one path as a line."""
    if len(paths) > 1:
        for lower, upper, alpha in BANDS:
            axes.fill_between(x, *np.quantile(paths, [lower, upper], axis=0), color=PATHS, alpha=alpha, linewidth=0)
    axes.plot(x, np.median(paths, axis=0), color=PATHS, linewidth=1.6, label="median path")


def forecast_axes(axes: Axes, context: np.ndarray, paths: np.ndarray, actual: np.ndarray, title: str) -> None:
    """One forecast against reality on given axes; see `forecast_figure` for the shapes."""
    past, future = np.arange(-len(context) + 1, 1), np.arange(1, len(actual) + 1)
    draw_candles(axes, context, past)
    draw_candles(axes, actual, future, alpha=0.35)
    close, last = paths[..., 3], context[-1, 3]
    draw_fan(axes, np.concatenate([np.full((len(close), 1), last), close], axis=1), np.arange(0, len(actual) + 1))
    axes.plot(np.arange(0, len(actual) + 1), [last, *actual[:, 3]], color=ACTUAL, linewidth=1.2, label="actual close")
    axes.axvline(0, color="#6b7280", linewidth=0.8, linestyle=":")
    axes.set_title(title, fontsize=9)
    axes.tick_params(labelsize=8)


def forecast_figure(
    contexts: np.ndarray, paths: np.ndarray, actuals: np.ndarray, titles: Sequence[str], heading: str
) -> Figure:
    """Forecasts against reality, side by side.

    Args:
        contexts: ``(N, T, ≥4)`` last known candles.
        paths: ``(N, S, h, ≥4)`` sample paths.
        actuals: ``(N, h, ≥4)`` what came.
        titles: of each.
        heading: over all.
    """
    figure = Figure(figsize=(4.6 * len(contexts), 3.6), layout="constrained")
    for axes, *forecast in zip(figure.subplots(1, len(contexts), squeeze=False)[0], contexts, paths, actuals, titles,
                               strict=True):  # fmt: skip
        forecast_axes(axes, *forecast)
        axes.set_xlabel("candles from the cutoff", fontsize=8)
    figure.axes[0].legend(fontsize=7, loc="upper left")
    figure.suptitle(heading, fontsize=10)
    return figure
