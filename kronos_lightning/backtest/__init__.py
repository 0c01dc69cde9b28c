"""Backtest of signals on candles; it sees forecasts only as arrays and never a model."""

from .engine import FLATTEN, Backtest, run_backtest
from .market_data import MarketData, MarketDataError
from .rules import ExecutionRules
from .strategy import BUY, HOLD, SELL, Strategy, ThresholdStrategy

__all__ = [
    "BUY",
    "FLATTEN",
    "HOLD",
    "SELL",
    "Backtest",
    "ExecutionRules",
    "MarketData",
    "MarketDataError",
    "Strategy",
    "ThresholdStrategy",
    "run_backtest",
]
