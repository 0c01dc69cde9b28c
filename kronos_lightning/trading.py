"""From configuration and forecasts to the backtest, and what the report says of it. Shape letter: N cutoffs."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .backtest import Backtest, Market, Rules, run_backtest
from .backtest.comparison import always_flat, break_even_fee, buy_and_hold, random_returns, returns_by_cost
from .backtest.performance import DESCRIPTIONS, YEAR, figures
from .backtest.search import Search, choose
from .backtest.sharpe import probabilistic_sharpe, sharpe_interval
from .backtest.signals import BUY, HOLD, SELL, decide, expectation, on_candles, rows_of
from .data import Candles
from .data.candles import read_candles
from .evaluation.report import Picture, Table, number
from .forecast import ForecastSet
from .schema import Evaluation
from .sections import BacktestSection
from .trading_pictures import cost_curve, equity_chart, random_histogram, sweep_map

SHARES = {"total_return", "annual_return", "max_drawdown", "win_rate"}
COSTS_DRAWN = 41  # points of the curve over costs


@dataclass(frozen=True)
class Trading:
    """The backtest and what stands beside it, all on the same candles but the search.

    market: the candles, from the first cutoff to the last forecast one.
    strategy, hold, flat: the run, buying and holding, never trading.
    signals: how many of each.
    sell_threshold, buy_threshold, thresholds_from: what made the signals, and where they come from, in words.
    random: total returns of strategies with the same signals at random times.
    break_even_fee: cost per side at which the strategy loses nothing; NaN = there is none, infinite = above 5 %.
    costs, returns_at_costs: total return of the strategy by cost per side.
    sharpe_interval: 95 % bootstrap interval of the strategy's Sharpe ratio, a year.
    probabilistic_sharpe: probability that the strategy's true Sharpe ratio is above zero.
    search: thresholds and costs tried on the validation range; None without forecasts of it.
    """

    settings: BacktestSection
    market: Market
    strategy: Backtest
    hold: Backtest
    flat: Backtest
    signals: dict[str, int]
    sell_threshold: float
    buy_threshold: float
    thresholds_from: str
    random: np.ndarray
    break_even_fee: float
    costs: np.ndarray
    returns_at_costs: np.ndarray
    sharpe_interval: tuple[float, float]
    probabilistic_sharpe: float
    search: Search | None

    @property
    def figures(self) -> dict[str, float]:
        """Figures of the strategy."""
        return figures(self.strategy)

    @property
    def beaten(self) -> float:
        """Share of the random strategies with a lower total return."""
        return float((self.random < self.figures["total_return"]).mean())


@dataclass(frozen=True)
class _Range:
    """A range of candles with the forecasts that may act on it."""

    market: Market
    rows: np.ndarray  # (N,) candles of the cutoffs
    expected: np.ndarray  # (N,) what the forecasts say


def trade(
    settings: Evaluation,
    candles: Candles,
    forecasts: ForecastSet,
    validation: ForecastSet | None = None,
    probability: np.ndarray | None = None,
    validation_probability: np.ndarray | None = None,
) -> Trading:
    """Backtest the forecasts' signals from the first cutoff to the last forecast candle.

    Thresholds and costs are tried on the validation range; on the test range the strategy runs with one of them.

    Args:
        settings: the whole configuration.
        candles: all of them.
        forecasts: of the test range.
        validation: forecasts of the validation range.
        probability: calibrated probability of a rise over the horizon at each cutoff of `forecasts`, ``(N,)``; with
            signal=probability it is used in place of the share of rising paths.
        validation_probability: the same for `validation`.

    Raises:
        ValueError: thresholds=validation without forecasts of it.
    """
    options = settings.backtest
    rules = Rules(
        cost=options.cost,
        max_position=options.max_position,
        stop_loss=options.stop_loss,
        take_profit=options.take_profit,
        max_drawdown=options.max_drawdown,
        side=options.side,
        slippage=options.slippage,
        cooldown=options.cooldown,
    )
    finer = None
    if options.finer_csv is not None:
        finer = read_candles(options.finer_csv, None, candles.symbol, settings.data.sessions)
    search = None
    if validation is not None:
        tried = _range(options, candles, finer, validation, validation_probability)
        grids = options.sweep_thresholds, options.sweep_costs
        search = choose(tried.market, tried.expected, tried.rows, rules, *grids)
    sell, buy, thresholds_from = _thresholds(options, search)

    test = _range(options, candles, finer, forecasts, probability)
    market, decided = test.market, decide(test.expected, buy, sell)
    signals = on_candles(decided, test.rows, len(market))
    strategy = run_backtest(market, signals, rules, options.initial_equity)
    fee = break_even_fee(market, signals, rules)
    drawn = [1.2 * fee] if math.isfinite(fee) else []
    costs = np.linspace(0, max(*drawn, 2 * options.cost, *options.sweep_costs), COSTS_DRAWN)
    interval = sharpe_interval(strategy.returns, settings.evaluation.bootstrap_samples, settings.seed)
    a_year = math.sqrt(YEAR / market.interval)
    return Trading(
        settings=options,
        market=market,
        strategy=strategy,
        hold=buy_and_hold(market, rules, options.initial_equity),
        flat=always_flat(market, options.initial_equity),
        signals={name: int((decided == value).sum()) for name, value in (("BUY", BUY), ("HOLD", HOLD), ("SELL", SELL))},
        sell_threshold=sell,
        buy_threshold=buy,
        thresholds_from=thresholds_from,
        random=random_returns(market, decided, test.rows, rules, options.random_runs, settings.seed),
        break_even_fee=fee,
        costs=costs,
        returns_at_costs=returns_by_cost(market, signals, rules, costs),
        sharpe_interval=(interval[0] * a_year, interval[1] * a_year),
        probabilistic_sharpe=probabilistic_sharpe(strategy.returns),
        search=search,
    )


def trading_sentence(trading: Trading) -> str:
    """The strategy's verdict in words."""
    got = trading.figures
    if got["trades"] == 0:
        return "Strategy: it never traded; no forecast passed a threshold in time."
    held = figures(trading.hold)["total_return"]
    words = (
        f"Strategy: {got['total_return']:+.1%} after costs, buy-and-hold {held:+.1%}; better than {trading.beaten:.0%} "
        f"of strategies with the same signals at random times."
    )
    if math.isnan(trading.probabilistic_sharpe):
        return words
    return f"{words} Probability that its true Sharpe ratio is above zero: {trading.probabilistic_sharpe:.0%}."


def trading_tables(trading: Trading) -> list[Table]:
    """Figures beside holding and never trading; thresholds and costs on the validation range."""
    columns = [figures(run) for run in (trading.strategy, trading.hold, trading.flat)]
    rows = [
        [name, *(number(column[name], name in SHARES) for column in columns), text]
        for name, text in DESCRIPTIONS.items()
    ]
    names = ["Figure", "Strategy", "Buy and hold", "Always flat", ""]
    found = [Table("Backtest beside buy-and-hold", names, rows, words=True, notes=_notes(trading))]
    return found if trading.search is None else [*found, _search_table(trading, trading.search)]


def trading_pictures(trading: Trading, note: str) -> list[Picture]:
    """Equity and trades, random strategies, costs, and the search; `note` is added to the headings."""
    pictures = [
        Picture("Backtest", "equity", equity_chart(trading.market, trading.strategy, trading.hold, note)),
        Picture(
            "Strategies with the same signals at random times",
            "random_strategies",
            random_histogram(trading.random, trading.figures["total_return"], note),
        ),
        Picture(
            "Sensitivity to costs",
            "costs",
            cost_curve(trading.costs, trading.returns_at_costs, trading.settings.cost, trading.break_even_fee, note),
        ),
    ]
    if trading.search is not None:
        heat = sweep_map(trading.search.table, trading.search.best, trading.settings.cost, note)
        pictures.append(Picture("Thresholds and costs on the validation range", "sweep", heat))
    return pictures


def trading_metrics(trading: Trading) -> dict[str, Any]:
    """All figures for machines; undefined ones are NaN."""
    strategy, search = trading.strategy, trading.search
    low, middle, high = np.quantile(trading.random, [0.05, 0.5, 0.95]).tolist()
    return {
        "backtest": trading.figures,
        "buy_and_hold": figures(trading.hold),
        "always_flat": figures(trading.flat),
        "final_equity": float(strategy.equity[-1]),
        "signals": trading.signals,
        "thresholds": {
            "sell": trading.sell_threshold,
            "buy": trading.buy_threshold,
            "from": trading.thresholds_from,
        },
        "sharpe_interval": list(trading.sharpe_interval),
        "probabilistic_sharpe": trading.probabilistic_sharpe,
        "random_strategies": {"q05": low, "q50": middle, "q95": high, "beaten": trading.beaten},
        "break_even_fee": trading.break_even_fee,
        "ambiguous_candles": strategy.ambiguous,
        "settled_candles": strategy.settled,
        "halts": [str(time) for time in strategy.halts],
        "search": None if search is None else {**asdict(search), "table": search.table.to_dict("records")},
    }


def _range(
    options: BacktestSection,
    candles: Candles,
    finer: Candles | None,
    forecasts: ForecastSet,
    probability: np.ndarray | None,
) -> _Range:
    """The candles that the forecasts span, and every n-th forecast on them."""
    stamps = candles.frame["timestamps"].dt.tz_localize(None).to_numpy()
    first, last = np.searchsorted(stamps, [forecasts.cutoffs[0], forecasts.stamps[-1, -1]])
    frame, stamps = candles.frame.iloc[first : last + 1], stamps[first : last + 1]
    if options.signal == "probability" and probability is not None:
        expected = probability - 0.5
    else:
        expected = expectation(forecasts.close_paths, forecasts.last_close, options.signal)
    market = Market.of(frame, candles.interval, None if finer is None else finer.frame)
    rows = rows_of(forecasts.cutoffs, stamps)
    return _Range(market, rows[:: options.rebalance], expected[:: options.rebalance])


def _thresholds(options: BacktestSection, search: Search | None) -> tuple[float, float, str]:
    """Sell and buy threshold for the test range, and where they come from."""
    configured = options.sell_threshold, options.buy_threshold
    if options.thresholds == "configured":
        return *configured, "as configured"
    if search is None:
        raise ValueError("backtest.thresholds=validation needs forecasts of the validation range")
    if search.best is None:
        return *configured, "as configured, because no threshold traded on the validation range"
    return 0.0 - search.best, search.best, f"best Sharpe ratio of {search.trials} on the validation range"


def _notes(trading: Trading) -> list[str]:
    strategy, options = trading.strategy, trading.settings
    low, middle, high = np.quantile(trading.random, [0.05, 0.5, 0.95])
    lower, upper = trading.sharpe_interval
    fee = trading.break_even_fee
    signals = ", ".join(f"{count} {name}" for name, count in trading.signals.items())
    notes = [
        f"The test range was traded once, with SELL below {trading.sell_threshold:g} and BUY above "
        f"{trading.buy_threshold:g} ({trading.thresholds_from}). Signals: {signals}.",
        f"The same signals at random times: median {middle:+.2%}, 5–95 % {low:+.2%} to {high:+.2%}; the strategy is "
        f"better than {trading.beaten:.0%} of them. "
        f"Break-even fee a side: {_fee_words(fee)}; paid were {options.cost:.3%} and "
        f"{options.slippage:.3%} of slippage.",
        f"Candles that held both stop and target: {strategy.ambiguous} in which the stop was assumed to come first, "
        f"{strategy.settled} settled by finer candles.",
        "Decided at a candle's close, filled at the next open. Sharpe, Sortino and drawdown are the usual definitions, "
        "not the guide's rougher ones.",
    ]
    if trading.search is None:
        notes.append("No thresholds were searched: without calibration there are no forecasts of the validation range.")
    if not math.isnan(lower):
        notes.insert(
            1,
            f"Sharpe ratio: 95 % interval {number(lower)} to {number(upper)}; probability that the true one is above "
            f"zero {trading.probabilistic_sharpe:.1%}.",
        )
    halts = strategy.halts
    if len(halts):
        resumed = "for good" if options.cooldown is None else f"for {options.cooldown} candles each"
        notes.insert(1, f"The drawdown limit halted trading {len(halts)} time(s), {resumed}; first at {halts[0]}.")
    return notes


def _fee_words(fee: float) -> str:
    if math.isnan(fee):
        return "none, it does not win without costs"
    return f"{fee:.3%}" if math.isfinite(fee) else "above 5 %"


def _search_table(trading: Trading, search: Search) -> Table:
    cost = trading.settings.cost
    sharpes = search.table.pivot_table("sharpe_ratio", "threshold", "cost", dropna=False)
    own = search.table[search.table["cost"] == cost].set_index("threshold")
    used = -trading.sell_threshold == trading.buy_threshold
    rows = []
    for threshold, values in sharpes.iterrows():
        words = ["best at the configured cost"] * (threshold == search.best)
        words += ["used on the test range"] * (used and threshold == trading.buy_threshold)
        rows.append([f"± {threshold:g}", *map(number, values), str(int(own["trades"][threshold])), ", ".join(words)])
    columns = ["Threshold", *(f"Sharpe at {value:.2%}" for value in sharpes.columns), f"Trades at {cost:.2%}", ""]
    notes = [
        f"Thresholds tried: {search.trials}. Deflated Sharpe ratio of the best, the probability that it is above zero "
        f"after so many trials: {number(search.deflated_sharpe, percent=True)}. Other trials than these, such as "
        f"earlier runs with other settings, are not counted."
    ]
    return Table("Thresholds and costs on the validation range", columns, rows, words=True, notes=notes)
