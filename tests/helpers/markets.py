"""Small markets for the engine."""

import numpy as np
import pandas as pd

from kronos_lightning.backtest import ExecutionRules, MarketData, run_backtest

DAY = pd.Timedelta("1D")
FLAT = (100, 100, 100, 100)
FREE = ExecutionRules()
LIMITED = ExecutionRules(cost=0.001, stop_loss=0.05, take_profit=0.15, max_drawdown=0.20)


def frame(*candles, interval=DAY, start="2024-01-01"):
    """Candles from (open, high, low, close)."""
    stamps = pd.date_range(start, periods=len(candles), freq=interval, tz="UTC")
    table = pd.DataFrame(np.array(candles, dtype=float), columns=["open", "high", "low", "close"])
    return table.assign(timestamps=stamps)


def market(*candles):
    return MarketData.of(frame(*candles), DAY)


def run(where, signals, rules, equity=1000.0):
    return run_backtest(where, np.array(signals, dtype=np.int8), rules, equity)


def random_frame(rng, length, interval=DAY, deviation=0.03):
    """Candles that gap at every open and reach beyond both open and close."""
    walk = 100 * np.exp(np.cumsum(rng.normal(0, deviation, (length, 2)).ravel())).reshape(length, 2)
    reach = np.exp(np.abs(rng.normal(0, deviation, (length, 2))))
    return frame(
        *[(o, max(o, c) * up, min(o, c) / down, c) for (o, c), (up, down) in zip(walk, reach, strict=True)],
        interval=interval,
    )
