"""The report's pictures of a backtest. Figures are made without pyplot, so nothing has to be closed."""

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from .backtest import Backtest, Market
from .forecast.plots import DOWN, PATHS, UP, date_axis

GREY, BLACK = "#6b7280", "#111827"
POINTS = 4000  # of a curve; more candles are thinned
MARKED = 150  # trades at most that are marked one by one


def equity_chart(market: Market, strategy: Backtest, hold: Backtest, note: str) -> Figure:
    """Equity beside buy-and-hold, drawdown, and the trades on the closes; many trades as coloured stretches."""
    figure = Figure(figsize=(10, 7), layout="constrained")
    top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=[3, 1.2, 3])
    thin = slice(None, None, math.ceil(len(market) / POINTS))
    time = market.stamps.tz_localize(None)[thin]
    for run, color, name in ((hold, GREY, "buy and hold"), (strategy, PATHS, "strategy")):
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
    """Total returns of random strategies, that of the real one marked."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots()
    low, high = min(returns.min(), strategy), max(returns.max(), strategy)
    if high - low < 1e-9:  # all the same, such as no trade at all
        low, high = low - 0.01, high + 0.01
    axes.hist(returns, bins=np.linspace(low, high, 32), color=GREY, alpha=0.55, label=f"{len(returns)} at random times")
    axes.axvline(strategy, color=PATHS, linewidth=2, label=f"strategy {strategy:+.2%}")
    axes.axvline(np.median(returns), color=BLACK, linestyle="--", linewidth=1, label="median of the random ones")
    axes.set_title(f"Total return of strategies with the same signals at random times{note}", fontsize=10)
    axes.set_ylabel("strategies", fontsize=9)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    axes.legend(fontsize=8)
    return figure


def cost_curve(costs: np.ndarray, returns: np.ndarray, cost: float, break_even: float, note: str) -> Figure:
    """Total return by cost per side; marked the configured cost and, if it is finite, the break-even fee."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.plot(costs, returns, color=PATHS, linewidth=1.6)
    axes.axvline(cost, color=BLACK, linestyle="--", linewidth=1, label=f"configured {cost:.3%}")
    if not math.isnan(break_even):
        axes.axvline(break_even, color=UP, linewidth=1.4, label=f"break-even {break_even:.3%}")
    axes.set_title(f"Total return by cost per side, the test range's thresholds{note}", fontsize=10)
    axes.set_xlabel("cost per side", fontsize=9)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=3))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    axes.grid(alpha=0.2)
    axes.legend(fontsize=8)
    return figure


def sweep_map(table: pd.DataFrame, best: float | None, cost: float, note: str) -> Figure:
    """Sharpe ratio of every threshold and cost; – where nothing was traded, a frame around the best at the own cost."""
    sharpes = table.pivot_table("sharpe_ratio", "cost", "threshold", dropna=False)
    values = sharpes.to_numpy()
    figure = Figure(figsize=(max(5.0, 1.6 + 0.95 * values.shape[1]), 1.6 + 0.5 * values.shape[0]), layout="constrained")
    axes = figure.subplots()
    limit = np.nanmax(np.abs(values)) if np.isfinite(values).any() else 1.0
    image = axes.imshow(values, cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto")
    for row, column in np.ndindex(values.shape):
        value = values[row, column]
        color = "white" if abs(value) > 0.6 * limit else BLACK
        axes.text(
            column, row, "–" if math.isnan(value) else f"{value:.2f}", ha="center", va="center", fontsize=8, color=color
        )
    if best is not None:
        corner = sharpes.columns.get_loc(best) - 0.5, sharpes.index.get_loc(cost) - 0.5
        axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=BLACK, linewidth=2))
    axes.set_xticks(range(values.shape[1]), [f"± {threshold:g}" for threshold in sharpes.columns], fontsize=8)
    axes.set_yticks(range(values.shape[0]), [f"{value:.2%}" for value in sharpes.index], fontsize=8)
    axes.set_xlabel("threshold", fontsize=9)
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
        axes.scatter(x, trades["exit_price"], marker="x", color=BLACK, s=22, linewidth=1, label="exit", zorder=4)
