"""Benchmarks of a strategy: buy and hold, random signals, and the break-even fee.

Shape letters: T candles, N cutoffs.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy.optimize import bisect

from .engine import Backtest, run_backtest
from .market_data import MarketData
from .rules import ExecutionRules
from .strategy import BUY, HOLD, on_candles, wanted_positions

HIGHEST_FEE = 0.05  # upper end of the search for the break-even fee


def buy_and_hold(market: MarketData, rules: ExecutionRules, initial_equity: float) -> Backtest:
    """Buy with all equity at the second candle's open and hold to the last close; pay both sides, ignore limits."""
    signals = np.full(len(market), HOLD)
    signals[0] = BUY
    unlimited = ExecutionRules(cost=rules.cost, slippage=rules.slippage)
    return run_backtest(market, signals, unlimited, initial_equity)


def always_flat(market: MarketData, initial_equity: float) -> Backtest:
    """Run a backtest that never trades."""
    return run_backtest(market, np.full(len(market), HOLD), ExecutionRules(), initial_equity)


def random_returns(
    market: MarketData, signals: np.ndarray, rows: np.ndarray, rules: ExecutionRules, runs: int, seed: int
) -> np.ndarray:
    """Return the total returns ``(runs,)`` of strategies that trade as often, at random times; see `reordered`.

    Args:
        market: T candles.
        signals: signals of the real strategy, ``(N,)``.
        rows: rows of the candles on which the signals were decided, ascending, ``(N,)``.
        rules: execution rules of the real strategy.
        runs: number of runs; they share the CPU cores.
        seed: each run draws from the seed and its own number.
    """

    def one(run: int) -> float:
        shuffled = reordered(signals, rules, np.random.default_rng([seed, run]))
        return float(run_backtest(market, on_candles(shuffled, rows, len(market)), rules, 1.0).equity[-1] - 1)

    with ThreadPoolExecutor() as pool:
        return np.array(list(pool.map(one, range(runs))))


def reordered(signals: np.ndarray, rules: ExecutionRules, rng: np.random.Generator) -> np.ndarray:
    """Return the same signals ``(N,)`` at random times, with the same turnover.

    Signals shuffled one by one would trade far more often than a strategy whose signals persist, and would lose to it
    by costs alone. Therefore the signals are cut where the wanted position changes, pieces of the same position are
    permuted, and the whole sequence is rotated by a random distance.
    """
    wanted = wanted_positions(signals, rules.side)
    starts = np.concatenate([[0], np.flatnonzero(np.diff(wanted)) + 1])
    order = np.arange(len(starts))
    for position in np.unique(wanted):
        places = np.flatnonzero(wanted[starts] == position)
        order[places] = rng.permutation(places)
    lengths = np.diff(np.append(starts, len(signals)))[order]
    within = np.arange(len(signals)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.roll(signals[np.repeat(starts[order], lengths) + within], rng.integers(len(signals)))


def returns_by_cost(market: MarketData, signals: np.ndarray, rules: ExecutionRules, costs: np.ndarray) -> np.ndarray:
    """Return the total returns of the signals ``(T,)`` at each of `costs` per side, in the order of `costs`."""

    def one(cost: float) -> float:
        return float(run_backtest(market, signals, rules.model_copy(update={"cost": float(cost)}), 1.0).equity[-1] - 1)

    with ThreadPoolExecutor() as pool:
        return np.array(list(pool.map(one, costs)))


def break_even_fee(market: MarketData, signals: np.ndarray, rules: ExecutionRules) -> float:
    """Return the cost per side at which the strategy breaks even, in addition to the slippage of the rules.

    NaN if the strategy never trades or gains nothing even without costs; infinite if it does not lose at 5 % per side.
    """

    def total(cost: float) -> float:
        return float(returns_by_cost(market, signals, rules, np.array([cost]))[0])

    if not signals.any() or total(0.0) <= 0:
        return np.nan
    if total(HIGHEST_FEE) >= 0:
        return np.inf
    return float(bisect(total, 0.0, HIGHEST_FEE, xtol=1e-6))
