"""Backtest of signals on candles; knows forecasts only as arrays, never a model."""

from .engine import Backtest, run_backtest
from .risk import Rules

__all__ = ["Backtest", "Rules", "run_backtest"]
