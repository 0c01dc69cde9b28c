"""Performance metrics of a strategy; undefined metrics (no loss, no trade) are NaN.

The guide's own formulas for drawdown (largest minus smallest cumulative return) and Sharpe ratio (annual return over
annual volatility) are rough. This module uses the usual formulas, for a market that never closes (365 days a year).

Shape letters: T candles, K trades.
"""

import numpy as np
import pandas as pd

from .engine import Backtest

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


def backtest_metrics(backtest: Backtest) -> dict[str, float]:
    """Return all metrics of a backtest; see `DESCRIPTIONS`."""
    return equity_metrics(backtest.equity, backtest.returns, backtest.interval) | trade_metrics(
        backtest.trades["profit"]
    )


def trade_metrics(profits: np.ndarray) -> dict[str, float]:
    """Return the metrics of closed trades, from their profits after costs ``(K,)`` in quote units."""
    losses = -profits[profits < 0].sum()
    return {
        "win_rate": float((profits > 0).mean()) if len(profits) else np.nan,
        "profit_factor": _ratio(profits[profits > 0].sum(), losses),
        "trades": len(profits),
    }


def equity_metrics(equity: np.ndarray, returns: np.ndarray, interval: pd.Timedelta) -> dict[str, float]:
    """Return the metrics that need no trades.

    Args:
        equity: equity at each close ``(T,)``, including the initial equity.
        returns: net return of each candle except the first, ``(T − 1,)``.
        interval: length of a candle.
    """
    total = equity[-1] / equity[0] - 1
    annual = annual_return(total, len(returns), interval)
    drawdown = max_drawdown(equity)
    root = float(np.sqrt(YEAR / interval))
    downside = np.sqrt(np.square(np.minimum(returns, 0)).mean()) if len(returns) > 1 else np.nan
    return {
        "total_return": float(total),
        "annual_return": annual,
        "sharpe_ratio": sharpe_ratio(returns) * root,
        "sortino_ratio": _ratio(returns.mean(), downside) * root if len(returns) else np.nan,
        "max_drawdown": drawdown,
        "calmar_ratio": _ratio(annual, -drawdown),
    }


def annual_return(total: float, candles: int, interval: pd.Timedelta) -> float:
    """Return the annualised return, (1 + total)^(365 days / length) − 1.

    −1 if no equity is left, infinite if the result overflows, NaN without candles.
    """
    if candles == 0:
        return np.nan
    with np.errstate(over="ignore"):
        return float(np.float64(max(1 + total, 0.0)) ** (YEAR / interval / candles) - 1)


def sharpe_ratio(returns: np.ndarray) -> float:
    """Return mean / standard deviation (ddof 1) of the returns, per candle and not annualised; NaN if undefined."""
    return _ratio(returns.mean(), returns.std(ddof=1)) if len(returns) > 1 else np.nan


def max_drawdown(equity: np.ndarray) -> float:
    """Return the minimum of equity / running maximum − 1, which is negative or zero."""
    return float((equity / np.maximum.accumulate(equity) - 1).min())


def _ratio(a: float, b: float) -> float:
    return float(a / b) if b > 0 else np.nan
