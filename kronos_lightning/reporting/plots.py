"""Plots of an evaluation and its backtest. Shape letters: N cutoffs, h horizon."""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from kronos_lightning.backtest import Backtest, MarketData
from kronos_lightning.backtest.search import ParameterSearch
from kronos_lightning.data import Candles
from kronos_lightning.data.formats import PRICES
from kronos_lightning.evaluation.metrics import Scores, reliability
from kronos_lightning.forecast import ForecastSet
from kronos_lightning.forecast.calibration import INTERVALS
from kronos_lightning.forecast.plots import forecast_figure
from kronos_lightning.plotting.theme import DOWN, FORECAST, FORECASTERS, GREY, MAX_POINTS, TEXT, UP, date_axis

CONTEXT_HORIZONS = 3  # length of the context in a fan chart, in horizons
PIT_BINS = 20
MARKED = 150  # maximum number of trades that are marked individually


def fan_charts(forecasts: ForecastSet, scores: Scores, candles: Candles, note: str) -> Figure:
    """Plot the forecasts of the best, the median and the worst cutoff by CRPS."""
    order = np.argsort(scores.loss)
    chosen = order[[0, len(order) // 2, -1]]
    rows = candles.rows_at(forecasts.cutoffs[chosen])
    length = min(CONTEXT_HORIZONS * forecasts.horizon, int(rows.min()) + 1)
    values = candles.frame[PRICES].to_numpy()
    contexts = np.stack([values[row - length + 1 : row + 1] for row in rows])
    titles = [
        f"{name}: {pd.Timestamp(forecasts.cutoffs[i]):%Y-%m-%d %H:%M}, CRPS {scores.loss[i]:.2%}"
        for name, i in zip(("best", "median", "worst"), chosen, strict=True)
    ]
    heading = f"Forecasts against reality: median path with 50/80/95 % bands{note}"
    return forecast_figure(contexts, forecasts.paths[chosen], forecasts.actual[chosen], titles, heading)


def step_chart(scores: Mapping[str, Scores], note: str) -> Figure:
    """Plot CRPS and 90 % coverage by horizon step, for forecasters by name."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for (name, one), colour in zip(scores.items(), FORECASTERS, strict=False):
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
    """Plot histograms of the actual closes' places in the forecast distributions; flat is right."""
    figure = Figure(figsize=(10, 3.0), layout="constrained")
    plots = np.atleast_1d(figure.subplots(1, len(scores), sharey=True))
    for axes, (name, one), colour in zip(plots, scores.items(), FORECASTERS, strict=False):
        axes.hist(one.pit.ravel(), bins=PIT_BINS, range=(0, 1), density=True, color=colour, alpha=0.75)
        axes.axhline(1, color=TEXT, linestyle="--", linewidth=1)
        axes.set(title=name, xlabel="place in the forecast distribution")
    plots[0].set_ylabel("density")
    figure.suptitle(
        f"Probability integral transform, all steps: flat is right, U too narrow, hump too wide{note}", size=10
    )
    return figure


def reliability_chart(scores: Mapping[str, Scores], note: str) -> Figure:
    """Plot forecast P(up) against the observed frequency of rises; dot area grows with the number of forecasts."""
    figure = Figure(figsize=(10, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="reliable")
    for (name, one), colour in zip(scores.items(), FORECASTERS, strict=False):
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
    right.set(xlabel="forecast P(up)", ylabel="forecasts", title="Frequency of each forecast")
    for axes in (left, right):
        axes.legend(fontsize=8)
    return figure


def skill_chart(model: Scores, baseline: Scores, name: str, note: str) -> Figure:
    """Plot the skill by month and the cumulative advantage over time."""
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    top, bottom = figure.subplots(2, 1, height_ratios=[1, 1])
    months = model.truth.slices("month")
    skills = [1 - model.loss[rows].mean() / baseline.loss[rows].mean() for rows in months.values()]
    places = np.arange(len(months))
    top.bar(places, np.array(skills) * 100, color=[UP if skill > 0 else DOWN for skill in skills])
    top.axhline(0, color=TEXT, linewidth=0.8)
    top.set(ylabel="%", title=f"Skill on CRPS against {name}, by month{note}")
    top.set_xticks(places, months, fontsize=8, rotation=45 if len(months) > 8 else 0)
    time = pd.DatetimeIndex(model.truth.begins)
    bottom.plot(time, np.cumsum(baseline.loss - model.loss) * 100, color=FORECAST)
    bottom.axhline(0, color=TEXT, linewidth=0.8)
    bottom.set(ylabel="% of the price", title="Cumulative advantage: rising where the model is better")
    date_axis(bottom)
    return figure


def equity_chart(market: MarketData, strategy: Backtest, hold: Backtest, note: str) -> Figure:
    """Plot equity with buy-and-hold, drawdown, and the trades on the closes; over 150 trades as coloured spans."""
    figure = Figure(figsize=(10, 7), layout="constrained")
    top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=[3, 1.2, 3])
    thin = slice(None, None, math.ceil(len(market) / MAX_POINTS))
    time = market.stamps.tz_localize(None)[thin]
    for run, color, name in ((hold, GREY, "buy and hold"), (strategy, FORECAST, "strategy")):
        top.plot(time, run.equity[thin], color=color, label=name, linewidth=1.3)
        drawdown = run.equity / np.maximum.accumulate(run.equity) - 1
        middle.plot(time, drawdown[thin] * 100, color=color, label=name, linewidth=1)
    halts = strategy.halts.tz_localize(None)
    for axes in (top, bottom) if len(halts) <= MARKED else ():
        for halt in halts:
            label = "drawdown halt" if halt == halts[0] else None
            axes.axvline(halt, color=DOWN, linewidth=0.9, linestyle=":", label=label)
    top.set_title(f"Equity after costs, quote units{note}", fontsize=10)
    middle.set_title("Drawdown, %", fontsize=10)
    bottom.plot(time, market.prices.close[thin], color=GREY, linewidth=0.9, label="close")
    trades = strategy.trade_table()
    if len(trades) <= MARKED:
        _mark_trades(bottom, trades)
    else:
        held = strategy.position[thin]
        for side, color, name in ((1, UP, "long"), (-1, DOWN, "short")):
            if (held * side > 0).any():
                bottom.fill_between(
                    time, 0, 1, where=held * side > 0, transform=bottom.get_xaxis_transform(), color=color, alpha=0.2,
                    linewidth=0, label=name,
                )  # fmt: skip
    bottom.set_title(f"Close and {len(trades)} trade{'' if len(trades) == 1 else 's'}", fontsize=10)
    for axes in (top, middle, bottom):
        axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
        axes.grid(alpha=0.2)
    date_axis(bottom)
    bottom.margins(x=0.01)
    return figure


def random_histogram(returns: np.ndarray, strategy: float, note: str) -> Figure:
    """Plot the total returns of random strategies, with the real strategy's return marked."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots()
    low, high = min(returns.min(), strategy), max(returns.max(), strategy)
    if high - low < 1e-9:  # all returns are equal, such as without any trade
        low, high = low - 0.01, high + 0.01
    axes.hist(returns, bins=np.linspace(low, high, 32), color=GREY, alpha=0.55, label=f"{len(returns)} at random times")
    axes.axvline(strategy, color=FORECAST, linewidth=2, label=f"strategy {strategy:+.2%}")
    axes.axvline(np.median(returns), color=TEXT, linestyle="--", linewidth=1, label="median of random strategies")
    axes.set_title(f"Total return of strategies with the same signals at random times{note}", fontsize=10)
    axes.set_ylabel("strategies", fontsize=9)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    axes.legend(fontsize=8)
    return figure


def cost_curve(costs: np.ndarray, returns: np.ndarray, cost: float, break_even: float, note: str) -> Figure:
    """Plot total return by cost per side, with the configured cost and, unless it is NaN, the break-even fee marked."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.plot(costs, returns, color=FORECAST, linewidth=1.6)
    axes.axvline(cost, color=TEXT, linestyle="--", linewidth=1, label=f"configured {cost:.3%}")
    if not math.isnan(break_even):
        axes.axvline(break_even, color=UP, linewidth=1.4, label=f"break-even {break_even:.3%}")
    axes.set_title(f"Total return by cost per side, the test range's thresholds{note}", fontsize=10)
    axes.set_xlabel("cost per side", fontsize=9)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=3))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    axes.grid(alpha=0.2)
    axes.legend(fontsize=8)
    return figure


def search_map(search: ParameterSearch, cost: float, note: str) -> Figure:
    """Plot the Sharpe ratio of every trial and cost; – = no trade, frame = best trial at the configured cost."""
    sharpes = search.table.assign(trial=trial_labels(search)).pivot_table(
        "sharpe_ratio", "cost", "trial", dropna=False, sort=False
    )
    values = sharpes.to_numpy()
    figure = Figure(figsize=(max(5.0, 1.6 + 0.95 * values.shape[1]), 1.6 + 0.5 * values.shape[0]), layout="constrained")
    axes = figure.subplots()
    limit = np.nanmax(np.abs(values)) if np.isfinite(values).any() else 1.0
    image = axes.imshow(values, cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto")
    for row, column in np.ndindex(values.shape):
        value = values[row, column]
        color = "white" if abs(value) > 0.6 * limit else TEXT
        axes.text(
            column, row, "–" if math.isnan(value) else f"{value:.2f}", ha="center", va="center", fontsize=8, color=color
        )
    if search.best is not None:
        corner = sharpes.columns.get_loc(trial_label(search.best)) - 0.5, sharpes.index.get_loc(cost) - 0.5
        axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=TEXT, linewidth=2))
    axes.set_xticks(range(values.shape[1]), sharpes.columns, fontsize=8)
    axes.set_yticks(range(values.shape[0]), [f"{value:.2%}" for value in sharpes.index], fontsize=8)
    axes.set_xlabel(", ".join(search.parameters), fontsize=9)
    axes.set_ylabel("cost per side", fontsize=9)
    axes.set_title(f"Sharpe ratio on the validation range{note}", fontsize=10)
    figure.colorbar(image, ax=axes)
    return figure


def _mark_trades(axes: Axes, trades: pd.DataFrame) -> None:
    for direction, marker, color, name in ((1, "^", UP, "long entry"), (-1, "v", DOWN, "short entry")):
        chosen = trades[trades["direction"] == direction]
        if len(chosen):
            x = chosen["entry_time"].dt.tz_localize(None)
            axes.scatter(x, chosen["entry_price"], marker=marker, color=color, s=26, label=name, zorder=3)
    if len(trades):
        x = trades["exit_time"].dt.tz_localize(None)
        axes.scatter(x, trades["exit_price"], marker="x", color=TEXT, s=22, linewidth=1, label="exit", zorder=4)


def trial_label(values: dict[str, float]) -> str:
    """Format the values of the free parameters, such as "0.02" or "0.02, 5"."""
    return ", ".join(repr(value).removesuffix(".0") for value in values.values())


def trial_labels(search: ParameterSearch) -> list[str]:
    """Return the label of each row of the search's table."""
    return [trial_label(values) for values in search.table[list(search.parameters)].to_dict("records")]
