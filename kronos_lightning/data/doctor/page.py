"""The doctor's HTML page: verdict, table, and the candles with every place marked."""

import base64
import io
from importlib.resources import files

import jinja2
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .diagnosis import Diagnosis
from .finding import Finding

COLOURS = {"error": "#d1495b", "warning": "#d98a1f", "info": "#6b8fb3"}
POINTS = 4000  # of a line in the picture


def page(diagnosis: Diagnosis, raw: pd.DataFrame) -> str:
    """A self-contained HTML page.

    Args:
        diagnosis: what was found.
        raw: the candles it was found in, as `formats.read_raw` gives them.
    """
    template = jinja2.Template(files(__package__).joinpath("page.html.jinja").read_text(), autoescape=True)
    buffer = io.BytesIO()
    chart(diagnosis, raw).savefig(buffer, format="png", dpi=110)
    picture = base64.b64encode(buffer.getvalue()).decode()
    return template.render(diagnosis=diagnosis, picture=picture, span=span(raw))


def span(raw: pd.DataFrame) -> str:
    """First and last stamp."""
    return f"{raw['timestamps'].min():%Y-%m-%d %H:%M} .. {raw['timestamps'].max():%Y-%m-%d %H:%M} UTC"


def chart(diagnosis: Diagnosis, raw: pd.DataFrame) -> Figure:
    """Close and volume over time, and below a lane for each kind of finding with a mark at each place."""
    marked = [f for f in diagnosis.findings if len(f.times)]
    figure = Figure(figsize=(11, 5.2 + 0.28 * len(marked)), layout="constrained")
    heights = [3.2, 1.3, 0.28 * len(marked)] if marked else [3.2, 1.3]
    axes = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    stamps = raw["timestamps"].dt.tz_localize(None)
    order = np.argsort(stamps.to_numpy(), kind="stable")
    thin = order[:: max(1, len(order) // POINTS)]
    axes[0].plot(stamps.iloc[thin], raw["close"].iloc[thin], lw=0.9, color="#374151")
    axes[0].set_yscale("log")
    axes[0].set_ylabel("close")
    if "volume" in raw:
        axes[1].plot(stamps.iloc[thin], raw["volume"].iloc[thin], lw=0.6, color="#6b7280")
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
    times, colour = finding.times.tz_localize(None), COLOURS[finding.severity]
    shown = times[:: max(1, len(times) // POINTS)]
    axes[2].plot(shown, np.full(len(shown), lane), "|", color=colour, ms=9, mew=1.4)
    if finding.severity == "error":
        for axis in axes[:2]:
            axis.vlines(shown, 0, 1, transform=axis.get_xaxis_transform(), color=colour, lw=0.7, alpha=0.35)
