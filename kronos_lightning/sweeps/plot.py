"""Plot of a sweep: the monitored metric against each swept setting."""

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kronos_lightning.plotting.theme import FORECAST, GREY, UP

from .results import Record, Trial, best, given, last_parts, numeric

WIDE = 10.0  # an axis whose ends differ by more than this factor is logarithmic


def sweep_figure(record: Record) -> Figure:
    """Plot one row of panels per group: dots = finished trials, star = best trial, crosses at the bottom = failures."""
    winners, keys = best(record), record.compared
    figure = Figure(figsize=(max(5.0, 3.4 * len(keys) + 0.6), 3.2 * len(winners)), layout="constrained")
    panels = figure.subplots(len(winners), len(keys), squeeze=False, sharey="row")
    for row, (group, winner) in zip(panels, winners.items(), strict=True):
        trials = [trial for trial in record.trials if trial.group == group]
        trials = [trial for trial in trials if trial.value is not None or trial.failed]
        for axes, key, label in zip(row, keys, last_parts(keys), strict=True):
            _panel(axes, trials, winner, key)
            axes.set_xlabel(label, fontsize=9)
        title = group if len(winners) > 1 else f"{group}: {len(record.trials)} trials"
        row[0].set_title(f"{title}, best {winner.value:.5g}", fontsize=10, loc="left")
        row[0].set_ylabel(winner.monitor, fontsize=9)
    return figure


def _panel(axes: Axes, trials: list[Trial], winner: Trial, key: str) -> None:
    reached = np.array([math.nan if trial.value is None else trial.value for trial in trials], dtype=float)
    finished = np.isfinite(reached)
    values = numeric(pd.Series([given(trial.overrides).get(key) for trial in trials], dtype=object))
    numbers = pd.api.types.is_numeric_dtype(values) and values.dtype != bool
    if numbers and np.isfinite(places := values.to_numpy(dtype=float))[finished].any():
        low, high = np.nanmin(places[finished]), np.nanmax(places[finished])
        if low > 0 and high / low > WIDE:
            axes.set_xscale("log")
        places = np.clip(places, low, high)  # an extreme value that failed does not stretch the axis
    else:
        names = sorted(values.astype(str).unique())
        places = values.astype(str).map(names.index).to_numpy(dtype=float)
        axes.set_xticks(range(len(names)), names, fontsize=8)
        axes.set_xlim(-0.5, len(names) - 0.5)
    best_one = np.array([trial is winner for trial in trials])
    axes.scatter(places[finished], reached[finished], s=22, color=FORECAST, label="finished")
    axes.scatter(places[best_one], reached[best_one], s=130, marker="*", color=UP, zorder=3, label="best")
    if (~finished).any():
        bottom = axes.get_xaxis_transform()
        axes.scatter(places[~finished], np.full((~finished).sum(), 0.03), marker="x", color=GREY, transform=bottom,
                     label="failed")  # fmt: skip
    axes.grid(alpha=0.2)
    axes.tick_params(labelsize=8)
    axes.legend(fontsize=7)
