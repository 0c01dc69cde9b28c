"""Costs and thresholds tried one by one, and what finding the best of them is worth.

Shape letters: T candles, N cutoffs.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pandas as pd

from .engine import run_backtest
from .market import Market
from .performance import YEAR, figures
from .risk import Rules
from .sharpe import deflated_sharpe
from .signals import decide, on_candles


@dataclass(frozen=True)
class Search:
    """A sweep and its best threshold at the rules' cost.

    table: as `sweep` gives it.
    best: threshold with the highest Sharpe ratio, the smallest of equals; None if none ever traded.
    trials: how many thresholds were tried. Costs are no trials: nothing is chosen among them.
    deflated_sharpe: of the best, see there; NaN if none ever traded.
    """

    table: pd.DataFrame
    best: float | None
    trials: int
    deflated_sharpe: float


def sweep(
    market: Market,
    expected: np.ndarray,
    rows: np.ndarray,
    rules: Rules,
    thresholds: Sequence[float],
    costs: Sequence[float],
) -> pd.DataFrame:
    """Figures of every threshold at every cost, one row each, columns threshold, cost and the figures.

    Args:
        market: T candles.
        expected: what the forecasts say, ``(N,)``.
        rows: candles on which it was known, ``(N,)``.
        rules: all but the cost.
        thresholds: BUY above one, SELL below its negative.
        costs: each side.
    """

    def one(combination: tuple[float, float]) -> dict[str, float]:
        threshold, cost = combination
        signals = _signals(len(market), expected, rows, threshold)
        result = run_backtest(market, signals, replace(rules, cost=cost), 1.0)
        return {"threshold": threshold, "cost": cost} | figures(result)

    with ThreadPoolExecutor() as pool:
        return pd.DataFrame(list(pool.map(one, product(thresholds, costs))))


def choose(
    market: Market,
    expected: np.ndarray,
    rows: np.ndarray,
    rules: Rules,
    thresholds: Sequence[float],
    costs: Sequence[float],
) -> Search:
    """Sweep, and take the threshold with the best Sharpe ratio at the rules' own cost; arguments as for `sweep`."""
    thresholds = sorted(set(thresholds))
    table = sweep(market, expected, rows, rules, thresholds, sorted({*costs, rules.cost}))
    trials = table[table["cost"] == rules.cost]
    sharpes = trials["sharpe_ratio"].to_numpy() / np.sqrt(YEAR / market.interval)
    if np.isnan(sharpes).all():
        return Search(table, None, len(thresholds), np.nan)
    best = thresholds[int(np.nanargmax(sharpes))]
    returns = run_backtest(market, _signals(len(market), expected, rows, best), rules, 1.0).returns
    return Search(table, best, len(thresholds), deflated_sharpe(returns, sharpes))


def _signals(length: int, expected: np.ndarray, rows: np.ndarray, threshold: float) -> np.ndarray:
    return on_candles(decide(expected, threshold, -threshold), rows, length)
