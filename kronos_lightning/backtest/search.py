"""Search for a strategy's parameters at several costs, with the deflated Sharpe ratio of the best result.

Shape letters: T candles, N cutoffs.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd

from .engine import run_backtest
from .market_data import MarketData
from .performance import YEAR, backtest_metrics
from .rules import ExecutionRules
from .sharpe import deflated_sharpe
from .strategy import Forecasts, Strategy, on_candles


@dataclass(frozen=True, kw_only=True)
class ParameterSearch:
    """Results of every combination of the free parameters at every cost, and the best values at the rules' cost.

    table: one row per combination and cost, with the parameters, ``cost`` and the metrics.
    parameters: names of the free parameters.
    best: values with the highest Sharpe ratio, the first among equals; None if no combination ever traded.
    trials: number of combinations tried. Costs are no trials, because nothing is chosen among them.
    deflated_sharpe: see `sharpe.deflated_sharpe`, for the best combination; NaN if no combination ever traded.
    """

    table: pd.DataFrame
    parameters: tuple[str, ...]
    best: dict[str, float] | None
    trials: int
    deflated_sharpe: float


def search_parameters(
    market: MarketData,
    forecasts: Forecasts,
    rows: np.ndarray,
    strategy: Strategy,
    rules: ExecutionRules,
    costs: Sequence[float],
) -> ParameterSearch:
    """Try all values of the strategy's free parameters.

    Args:
        market: T candles.
        forecasts: forecasts at N cutoffs.
        rows: candle row of each cutoff, ``(N,)``; a cutoff with row −1 is not traded.
        strategy: strategy whose free parameters are varied.
        rules: execution rules; the best combination is chosen at their cost.
        costs: further costs per side for the table.
    """
    names = tuple(strategy.search_space)
    combinations = [dict(zip(names, values, strict=True)) for values in product(*strategy.search_space.values())]
    signals = [_signals(strategy.with_parameters(**values), forecasts, rows, len(market)) for values in combinations]
    costs = sorted({*costs, rules.cost})

    def one(trial: tuple[int, float]) -> dict[str, float]:
        which, cost = trial
        result = run_backtest(market, signals[which], rules.model_copy(update={"cost": cost}), 1.0)
        return combinations[which] | {"cost": cost} | backtest_metrics(result)

    with ThreadPoolExecutor() as pool:
        table = pd.DataFrame(list(pool.map(one, product(range(len(combinations)), costs))))
    sharpes = table.loc[table["cost"] == rules.cost, "sharpe_ratio"].to_numpy() / np.sqrt(YEAR / market.interval)
    best, deflated = None, np.nan
    if not np.isnan(sharpes).all():
        first = int(np.nanargmax(sharpes))
        returns = run_backtest(market, signals[first], rules, 1.0).returns
        best, deflated = combinations[first], deflated_sharpe(returns, sharpes)
    return ParameterSearch(table=table, parameters=names, best=best, trials=len(combinations), deflated_sharpe=deflated)


def _signals(strategy: Strategy, forecasts: Forecasts, rows: np.ndarray, length: int) -> np.ndarray:
    traded = rows >= 0
    return on_candles(strategy.signals(forecasts)[traded], rows[traded], length)
