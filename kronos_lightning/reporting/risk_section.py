"""Tables and plot of the risk in the report."""

import math
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from kronos_lightning.evaluation.risk import RiskReport
from kronos_lightning.forecast.risk import RISK_LEVELS
from kronos_lightning.plotting.formats import UNDEFINED, number, share
from kronos_lightning.plotting.theme import FORECAST, GREY, TEXT, UP

from .html import ReportTable

COLORS = dict(zip(RISK_LEVELS, (FORECAST, UP), strict=True))


def risk_table(risk: RiskReport) -> ReportTable:
    """Build the table of value at risk and expected shortfall by step, with the tests of both levels."""
    columns, rows = ["Step"], []
    for level in RISK_LEVELS:
        columns += [f"VaR {level:.0%}", "ES", "Exceeded", "Kupiec", "Christoffersen"]
    for step, part in risk.by_step.groupby("step"):
        row = [str(step)]
        for found in part.sort_values("level").to_dict("records"):
            row += [share(found[name]) for name in ("value_at_risk", "expected_shortfall", "exceeded")]
            row += [
                UNDEFINED if math.isnan(found[name]) else f"{found[name]:.3f}" for name in ("kupiec", "conditional")
            ]
        rows.append(row)
    notes = [
        "Loss of a long position from the last close to the step: VaR is exceeded with the probability above it, ES is "
        "the mean loss then. p-values of Kupiec's test of the share of exceedances and of Christoffersen's test of "
        "share and independence, on cutoffs without common target candles; – with less than one exceedance expected.",
        _drawdown_text(risk),
        *([] if risk.touch is None else [_touch_text(risk)]),
    ]
    return ReportTable(title="Risk of a long position", columns=columns, rows=rows, notes=notes)


def risk_chart(risk: RiskReport, note: str) -> Figure:
    """Plot the exceedances by step, and the distribution of the drawdown in the forecasts and in the candles."""
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for level, part in risk.by_step.groupby("level"):
        left.plot(
            part["step"], part["exceeded"], color=COLORS[level], marker="o", markersize=3, label=f"VaR {level:.0%}"
        )
        left.axhline(level, color=COLORS[level], linestyle="--", linewidth=1)
    left.set_ylim(bottom=0)
    left.set_xlabel("step", fontsize=9)
    left.set_title(f"Losses beyond the value at risk{note}", fontsize=10)
    found = risk.drawdown
    top = max(np.quantile(found.forecast, 0.995), np.quantile(found.observed, 0.995), 1e-6)
    for values, color, name in ((found.forecast.ravel(), FORECAST, "paths"), (found.observed, TEXT, "candles")):
        ordered = np.sort(values)[:: max(1, len(values) // 2000)]
        right.plot(ordered, np.linspace(0, 1, len(ordered)), color=color, label=name, linewidth=1.4)
    right.set_xlim(0, top)
    right.set_xlabel("drawdown of the close within the horizon", fontsize=9)
    right.set_title(f"Share of drawdowns up to this size{note}", fontsize=10)
    right.xaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    for axes in (left, right):
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
        axes.grid(alpha=0.2, color=GREY)
        axes.legend(fontsize=8)
    return figure


def risk_metrics(risk: RiskReport) -> dict[str, Any]:
    """Collect the risk for `metrics.json`; undefined values are NaN."""
    found = risk.drawdown
    half, most = found.covered
    return {
        "by_step": risk.by_step.to_dict("records"),
        "stop_before_target": None if risk.touch is None else vars(risk.touch),
        "drawdown": {
            "forecast": float(found.forecast.mean()),
            "observed": float(found.observed.mean()),
            "below_median": half,
            "below_95": most,
            "crps": found.crps,
        },
    }


def _drawdown_text(risk: RiskReport) -> str:
    found = risk.drawdown
    half, most = found.covered
    return (
        f"Drawdown of the close within the horizon: {found.forecast.mean():.2%} on average in the paths, "
        f"{found.observed.mean():.2%} in the candles; {half:.1%} of the candles' were below the median of their "
        f"distribution, {most:.1%} below its 95 % quantile; CRPS {number(found.crps)} %."
    )


def _touch_text(risk: RiskReport) -> str:
    touch = risk.touch
    assert touch is not None
    return (
        f"Stop ({touch.down:.1%} below) before target ({touch.up:.1%} above) within the horizon: forecast "
        f"{touch.forecast:.1%}, observed {touch.observed:.1%}; Brier score {touch.brier:.4f}, that of the observed "
        f"share {touch.climate:.4f}."
    )
