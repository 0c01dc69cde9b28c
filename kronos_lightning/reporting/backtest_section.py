"""Tables and plots of the backtest in the report."""

import math

import numpy as np

from kronos_lightning.backtest.performance import DESCRIPTIONS, backtest_metrics
from kronos_lightning.backtest.search import ParameterSearch
from kronos_lightning.pipeline.backtesting import Trading
from kronos_lightning.plotting.formats import number, percent

from .html import ReportPlot, ReportTable
from .plots import cost_curve, equity_chart, random_histogram, search_map, trial_labels

SHARES = {"total_return", "annual_return", "max_drawdown", "win_rate"}
SEARCH_TITLE = "Parameters and costs on the validation range"


def trading_tables(trading: Trading) -> list[ReportTable]:
    """Build the tables of the strategy's metrics, compared with buy-and-hold and never trading, and of the search."""
    columns = [backtest_metrics(run) for run in (trading.run, trading.hold, trading.flat)]
    rows = [
        [name, *((percent if name in SHARES else number)(column[name]) for column in columns), text]
        for name, text in DESCRIPTIONS.items()
    ]
    names = ["Metric", "Strategy", "Buy and hold", "Always flat", ""]
    title = "Backtest compared with buy-and-hold"
    found = [ReportTable(title=title, columns=names, rows=rows, prose=True, notes=_notes(trading))]
    return found if trading.search is None else [*found, _search_table(trading, trading.search)]


def trading_plots(trading: Trading, note: str) -> list[ReportPlot]:
    """Build the plots of equity and trades, random strategies, costs and search; `note` is added to the headings."""
    at_random = random_histogram(trading.random, trading.metrics["total_return"], note)
    costs = cost_curve(trading.costs, trading.returns_at_costs, trading.settings.cost, trading.break_even_fee, note)
    plots = [
        ReportPlot(
            title="Backtest", name="equity", figure=equity_chart(trading.market, trading.run, trading.hold, note)
        ),
        ReportPlot(
            title="Strategies with the same signals at random times", name="random_strategies", figure=at_random
        ),
        ReportPlot(title="Sensitivity to costs", name="costs", figure=costs),
    ]
    if trading.search is not None:
        heat = search_map(trading.search, trading.settings.cost, note)
        plots.append(ReportPlot(title=SEARCH_TITLE, name="search", figure=heat))
    return plots


def _notes(trading: Trading) -> list[str]:
    run, options = trading.run, trading.settings
    low, middle, high = np.quantile(trading.random, [0.05, 0.5, 0.95])
    lower, upper = trading.sharpe_interval
    fee = trading.break_even_fee
    signals = ", ".join(f"{count} {name}" for name, count in trading.signals.items())
    notes = [
        f"The test range was traded once, with {trading.strategy.describe()} ({trading.parameters_from}). "
        f"Signals: {signals}.",
        f"The same signals at random times: median {middle:+.2%}, 5–95 % {low:+.2%} to {high:+.2%}; the strategy is "
        f"better than {trading.beaten:.0%} of them. "
        f"Break-even fee a side: {_fee_text(fee)}; paid were {options.cost:.3%} and "
        f"{options.slippage:.3%} of slippage.",
        f"Candles that held both stop and target: {run.ambiguous} in which the stop was assumed to come first, "
        f"{run.resolved_intrabar} settled by intrabar candles.",
        "Decided at a candle's close, filled at the next open. Sharpe, Sortino and drawdown are the usual definitions, "
        "not the guide's approximations.",
    ]
    if trading.search is None:
        notes.append("No parameters were searched: without calibration there are no forecasts of the validation range.")
    if not math.isnan(lower):
        notes.insert(
            1,
            f"Sharpe ratio: 95 % interval {number(lower)} to {number(upper)}; probability that the true one is above "
            f"zero {trading.probabilistic_sharpe:.1%}.",
        )
    halts = run.halts
    if len(halts):
        resumed = "for good" if options.cooldown is None else f"for {options.cooldown} candles each"
        notes.insert(1, f"The drawdown limit halted trading {len(halts)} time(s), {resumed}; first at {halts[0]}.")
    return notes


def _fee_text(fee: float) -> str:
    if math.isnan(fee):
        return "none, it does not win without costs"
    return f"{fee:.3%}" if math.isfinite(fee) else "above 5 %"


def _search_table(trading: Trading, search: ParameterSearch) -> ReportTable:
    cost = trading.settings.cost
    table = search.table.assign(trial=trial_labels(search))
    sharpes = table.pivot_table("sharpe_ratio", "trial", "cost", dropna=False, sort=False)
    own = table[table["cost"] == cost].set_index("trial")
    rows = []
    for label, values in sharpes.iterrows():
        tried = own.loc[label, list(search.parameters)].to_dict()
        remarks = ["best at the configured cost"] * (tried == search.best)
        same = trading.strategy.with_parameters(**tried).parameters == trading.strategy.parameters
        remarks += ["used on the test range"] * same
        rows.append([label, *map(number, values), str(int(own["trades"][label])), ", ".join(remarks)])
    columns = [", ".join(search.parameters), *(f"Sharpe at {value:.2%}" for value in sharpes.columns)]
    columns += [f"Trades at {cost:.2%}", ""]
    notes = [
        f"Trials: {search.trials}. Deflated Sharpe ratio of the best, the probability that it is above zero "
        f"after so many trials: {percent(search.deflated_sharpe)}. Other trials, such as "
        f"earlier runs with other settings, are not counted."
    ]
    return ReportTable(title=SEARCH_TITLE, columns=columns, rows=rows, prose=True, notes=notes)
