"""Figures of a strategy. Undefined ones (no loss, no trade) are NaN.

The guide's own formulas for drawdown (largest less smallest cumulative return) and Sharpe (annual return over annual
volatility) are rough; these are the usual ones, for a market that never closes (365 days a year).
"""

import numpy as np
import pandas as pd
from scipy.optimize import bisect

from .engine import Backtest, run_backtest
from .risk import Rules
from .signals import BUY, HOLD

DESCRIPTIONS = {
    "total_return": "final / initial equity − 1",
    "annual_return": "the same a year (365 days)",
    "sharpe_ratio": "mean / deviation of the candle returns, a year",
    "sortino_ratio": "mean / downside deviation of the candle returns, a year",
    "max_drawdown": "largest fall from the highest equity before",
    "calmar_ratio": "annual return / |maximum drawdown|",
    "win_rate": "share of closed trades with a profit after costs",
    "profit_factor": "sum of profits / |sum of losses|, by trade",
    "trades": "closed trades",
}
YEAR = pd.Timedelta(days=365)
HIGHEST_FEE = 0.05  # where the search for the break-even fee ends


def figures(backtest: Backtest, interval: pd.Timedelta) -> dict[str, float]:
    """All figures of a backtest on candles of this interval; see `DESCRIPTIONS`."""
    profits = np.array([trade.profit for trade in backtest.trades])
    wins, losses = profits[profits > 0].sum(), profits[profits <= 0].sum()
    return equity_figures(backtest.equity, interval) | {
        "win_rate": float((profits > 0).mean()) if len(profits) else np.nan,
        "profit_factor": float(wins / -losses) if losses < 0 else np.nan,
        "trades": len(profits),
    }


def equity_figures(equity: np.ndarray, interval: pd.Timedelta) -> dict[str, float]:
    """The figures that need the equity ``(T,)`` alone, starting equity included."""
    returns = equity[1:] / equity[:-1] - 1
    per_year = YEAR / interval
    total = equity[-1] / equity[0] - 1
    annual = (1 + total) ** (per_year / len(returns)) - 1 if len(returns) and total > -1 else -1.0
    drawdown = max_drawdown(equity)
    deviation = returns.std(ddof=1) if len(returns) > 1 else np.nan
    downside = np.sqrt(np.square(np.minimum(returns, 0)).mean()) if len(returns) else np.nan
    return {
        "total_return": float(total),
        "annual_return": float(annual),
        "sharpe_ratio": _ratio(returns.mean() * np.sqrt(per_year), deviation),
        "sortino_ratio": _ratio(returns.mean() * np.sqrt(per_year), downside),
        "max_drawdown": drawdown,
        "calmar_ratio": _ratio(annual, -drawdown),
    }


def max_drawdown(equity: np.ndarray) -> float:
    """Smallest equity / running maximum − 1: negative, or zero."""
    return float((equity / np.maximum.accumulate(equity) - 1).min())


def buy_and_hold(candles: pd.DataFrame, rules: Rules, initial_equity: float) -> Backtest:
    """Buy at the first open with all equity, hold to the last close, pay both sides, obey no limit."""
    signals = np.full(len(candles), HOLD, dtype=np.int8)
    signals[0] = BUY
    return run_backtest(candles, signals, Rules(rules.cost, 1.0, None, None, None), initial_equity)


def random_returns(
    candles: pd.DataFrame, signals: np.ndarray, cutoffs: np.ndarray, rules: Rules, runs: int, seed: int
) -> np.ndarray:
    """Total returns ``(runs,)`` of strategies with the same signals in random order.

    Args:
        candles: candle frame, T rows.
        signals: ``(T,)`` of the real strategy.
        cutoffs: rows on which it could decide; only their signals are shuffled.
        rules, runs, seed: as named.
    """
    rng = np.random.default_rng(seed)
    results = np.empty(runs)
    for i in range(runs):
        shuffled = signals.copy()
        shuffled[cutoffs] = rng.permutation(signals[cutoffs])
        results[i] = run_backtest(candles, shuffled, rules, 1.0).equity[-1] - 1
    return results


def break_even_fee(candles: pd.DataFrame, signals: np.ndarray, rules: Rules) -> float:
    """Cost per side at which the strategy would just lose nothing.

    NaN if it never trades, loses even without costs, or still wins at 5 % a side.
    """

    def total(cost: float) -> float:
        changed = Rules(cost, rules.max_position, rules.stop_loss, rules.take_profit, rules.max_drawdown, rules.side)
        return run_backtest(candles, signals, changed, 1.0).equity[-1] - 1

    if not signals.any() or total(0.0) <= 0 or total(HIGHEST_FEE) >= 0:
        return np.nan
    return float(bisect(total, 0.0, HIGHEST_FEE, xtol=1e-6))


def _ratio(a: float, b: float) -> float:
    return float(a / b) if b > 0 else np.nan
