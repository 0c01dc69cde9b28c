"""HTML page of the doctor: verdict, table, and a chart with every finding marked."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kronos_lightning.data.doctor.diagnosis import Diagnosis
from kronos_lightning.data.doctor.finding import Finding
from kronos_lightning.plotting.theme import GREY, MAX_POINTS, SEVERITIES, TEXT

from .html import png, render


def page(diagnosis: Diagnosis, raw: pd.DataFrame) -> str:
    """Render a self-contained HTML page.

    Args:
        diagnosis: the doctor's findings.
        raw: the examined candles, as returned by `formats.read_raw`.
    """
    return render("doctor.html.jinja", diagnosis=diagnosis, chart=png(chart(diagnosis, raw)), span=span(raw))


def span(raw: pd.DataFrame) -> str:
    """Format the first and last timestamp, such as 2024-01-01 00:00 .. 2024-12-31 23:00 UTC."""
    return f"{raw['timestamps'].min():%Y-%m-%d %H:%M} .. {raw['timestamps'].max():%Y-%m-%d %H:%M} UTC"


def chart(diagnosis: Diagnosis, raw: pd.DataFrame) -> Figure:
    """Plot close and volume over time; below, one lane per kind of finding with a mark at each place."""
    marked = [f for f in diagnosis.findings if len(f.times)]
    figure = Figure(figsize=(11, 5.2 + 0.28 * len(marked)), layout="constrained")
    heights = [3.2, 1.3, 0.28 * len(marked)] if marked else [3.2, 1.3]
    axes = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    stamps = raw["timestamps"].dt.tz_localize(None)
    order = np.argsort(stamps.to_numpy(), kind="stable")
    thin = order[:: max(1, len(order) // MAX_POINTS)]
    axes[0].plot(stamps.iloc[thin], raw["close"].iloc[thin], lw=0.9, color=TEXT)
    axes[0].set_yscale("log")
    axes[0].set_ylabel("close")
    if "volume" in raw:
        axes[1].plot(stamps.iloc[thin], raw["volume"].iloc[thin], lw=0.6, color=GREY)
    axes[1].set_ylabel("volume")
    for lane, finding in enumerate(marked):
        _mark(axes, lane, finding)
    if marked:
        axes[2].set_yticks(range(len(marked)), [f.check for f in marked])
        axes[2].set_ylim(len(marked) - 0.5, -0.5)
    for axis in axes:
        axis.grid(alpha=0.25, lw=0.5)
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def _mark(axes: np.ndarray, lane: int, finding: Finding) -> None:
    times, colour = finding.times.tz_localize(None), SEVERITIES[finding.severity]
    shown = times[:: max(1, len(times) // MAX_POINTS)]
    axes[2].plot(shown, np.full(len(shown), lane), "|", color=colour, ms=9, mew=1.4)
    if finding.severity == "error":
        for axis in axes[:2]:
            axis.vlines(shown, 0, 1, transform=axis.get_xaxis_transform(), color=colour, lw=0.7, alpha=0.35)
