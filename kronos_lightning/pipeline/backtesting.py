"""Backtest of forecasts by the configuration, with its comparisons. Shape letter: N cutoffs."""

import math
from dataclasses import dataclass

import numpy as np
from hydra.utils import instantiate

from kronos_lightning.backtest import BUY, HOLD, SELL, Backtest, MarketData, Strategy, run_backtest
from kronos_lightning.backtest.comparison import (
    always_flat,
    break_even_fee,
    buy_and_hold,
    random_returns,
    returns_by_cost,
)
from kronos_lightning.backtest.performance import YEAR, backtest_metrics
from kronos_lightning.backtest.search import ParameterSearch, search_parameters
from kronos_lightning.backtest.sharpe import probabilistic_sharpe, sharpe_interval
from kronos_lightning.backtest.strategy import on_candles
from kronos_lightning.config.schema import Evaluation
from kronos_lightning.config.sections import BacktestSection
from kronos_lightning.data import Candles
from kronos_lightning.data.candles import read_candles
from kronos_lightning.forecast import ForecastSet

COSTS_DRAWN = 41  # number of points of the cost curve


@dataclass(frozen=True, kw_only=True)
class Trading:
    """Backtest and its comparisons; all on the same candles, except the search.

    settings: execution rules and settings of the comparisons.
    market: the candles, from the first cutoff to the last forecast candle.
    run, hold, flat: backtests of the strategy, of buy-and-hold, and of never trading.
    signals: number of signals of each kind.
    orders: signal of each candle's close, HOLD where no forecast acts: int8 ``(T,)``.
    strategy, parameters_from: strategy that made the signals, and the source of its parameters as text.
    random: total returns of strategies with the same signals at random times.
    break_even_fee: cost per side at which the strategy breaks even; NaN = none, infinite = above 5 %.
    costs, returns_at_costs: costs per side, and the strategy's total return at each.
    sharpe_interval: 95 % bootstrap interval of the strategy's annual Sharpe ratio.
    probabilistic_sharpe: probability that the strategy's true Sharpe ratio is above zero.
    search: parameters and costs tried on the validation range; None without forecasts of that range.
    """

    settings: BacktestSection
    market: MarketData
    run: Backtest
    hold: Backtest
    flat: Backtest
    signals: dict[str, int]
    orders: np.ndarray
    strategy: Strategy
    parameters_from: str
    random: np.ndarray
    break_even_fee: float
    costs: np.ndarray
    returns_at_costs: np.ndarray
    sharpe_interval: tuple[float, float]
    probabilistic_sharpe: float
    search: ParameterSearch | None

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics of the strategy."""
        return backtest_metrics(self.run)

    @property
    def beaten(self) -> float:
        """Share of the random strategies with a lower total return."""
        return float((self.random < self.metrics["total_return"]).mean())


@dataclass(frozen=True, kw_only=True)
class _TradedRange:
    """Candles spanned by forecasts, with the forecasts that may act on them."""

    market: MarketData
    forecasts: ForecastSet
    rows: np.ndarray  # (N,) rows of the cutoffs in `market`, −1 for cutoffs that are not acted on

    def signals(self, strategy: Strategy) -> tuple[np.ndarray, np.ndarray]:
        """Return the signals of the cutoffs that are acted on, and their rows."""
        acted = self.rows >= 0
        return strategy.signals(self.forecasts)[acted], self.rows[acted]


def trade(
    settings: Evaluation, candles: Candles, forecasts: ForecastSet, validation: ForecastSet | None = None
) -> Trading:
    """Backtest the forecasts' signals from the first cutoff to the last forecast candle.

    Parameters and costs are searched on the validation range. On the test range the strategy runs once, with one choice
    of parameters.

    Args:
        settings: the whole configuration.
        candles: all candles.
        forecasts: of the test range.
        validation: forecasts of the validation range; None = no search.

    Raises:
        ValueError: parameters=validation without forecasts of the validation range, if a parameter is free.
    """
    rules, intrabar = settings.backtest, None
    if rules.intrabar_csv is not None:
        intrabar = read_candles(rules.intrabar_csv, None, candles.symbol, settings.data.has_sessions)
    strategy, search = instantiate(settings.strategy, _convert_="all"), None
    if validation is not None and strategy.search_space:
        tried = _traded_range(rules, candles, intrabar, validation)
        search = search_parameters(tried.market, tried.forecasts, tried.rows, strategy, rules, rules.search_costs)
    strategy, parameters_from = _chosen(rules, strategy, search)

    test = _traded_range(rules, candles, intrabar, forecasts)
    market, (decided, rows) = test.market, test.signals(strategy)
    signals = on_candles(decided, rows, len(market))
    run = run_backtest(market, signals, rules, rules.initial_equity)
    fee = break_even_fee(market, signals, rules)
    drawn = [1.2 * fee] if math.isfinite(fee) else []
    costs = np.linspace(0, max([*drawn, 2 * rules.cost, *rules.search_costs]), COSTS_DRAWN)
    lower, upper = sharpe_interval(run.returns, settings.evaluation.bootstrap_samples, settings.seed)
    a_year = math.sqrt(YEAR / market.interval)
    return Trading(
        settings=rules,
        market=market,
        run=run,
        hold=buy_and_hold(market, rules, rules.initial_equity),
        flat=always_flat(market, rules.initial_equity),
        signals={name: int((decided == value).sum()) for name, value in (("BUY", BUY), ("HOLD", HOLD), ("SELL", SELL))},
        orders=signals,
        strategy=strategy,
        parameters_from=parameters_from,
        random=random_returns(market, decided, rows, rules, rules.random_runs, settings.seed),
        break_even_fee=fee,
        costs=costs,
        returns_at_costs=returns_by_cost(market, signals, rules, costs),
        sharpe_interval=(lower * a_year, upper * a_year),
        probabilistic_sharpe=probabilistic_sharpe(run.returns),
        search=search,
    )


def _traded_range(
    rules: BacktestSection, candles: Candles, intrabar: Candles | None, forecasts: ForecastSet
) -> _TradedRange:
    """Select the candles spanned by the forecasts; every n-th forecast acts."""
    rows = candles.rows_at(forecasts.cutoffs)
    first, last = rows[0], candles.rows_at(forecasts.stamps[-1:, -1])[0]
    market = MarketData.of(
        candles.frame.iloc[first : last + 1], candles.interval, None if intrabar is None else intrabar.frame
    )
    acted = np.arange(len(rows)) % rules.act_every_n_cutoffs == 0
    return _TradedRange(market=market, forecasts=forecasts, rows=np.where(acted, rows - first, -1))


def _chosen(rules: BacktestSection, strategy: Strategy, search: ParameterSearch | None) -> tuple[Strategy, str]:
    """Return the strategy for the test range, and the source of its parameters as text."""
    if rules.parameters == "configured":
        return strategy, "as configured"
    if not strategy.search_space:
        return strategy, "as configured, because the strategy has no free parameter"
    if search is None:
        raise ValueError("backtest.parameters=validation needs forecasts of the validation range")
    if search.best is None:
        return strategy, "as configured, because no trial traded on the validation range"
    return strategy.with_parameters(**search.best), f"best Sharpe ratio of {search.trials} on the validation range"
