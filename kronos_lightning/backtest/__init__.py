"""Backtest of signals on candles; knows forecasts only as arrays, never a model."""

from .engine import Backtest, run_backtest
from .market import Market
from .risk import Rules

__all__ = ["Backtest", "Market", "Rules", "run_backtest"]
