"""Reports to compare: folders as evaluate.py leaves them, with signals that no model has made."""

import json

import numpy as np
import pandas as pd

from kronos_lightning.backtest import BUY, HOLD, SELL, ExecutionRules, MarketData, run_backtest
from kronos_lightning.settings import parse_interval

RULES = ExecutionRules(cost=0.001, stop_loss=0.05, take_profit=0.15, max_drawdown=0.20, cooldown=20)
EQUITY = 1e6  # large, so that freqtrade's rounding to whole lots does not count


def random_signals(candles, seed=100):
    """Signals that know nothing."""
    generator = np.random.default_rng(seed)
    return generator.choice([BUY, HOLD, SELL], len(candles), p=[0.3, 0.5, 0.2]).astype(np.int8)


def momentum_signals(candles):
    """BUY after three candles that rose by more than they usually move in one, SELL after such a fall."""
    close = np.log(candles["close"].to_numpy())
    gain = np.concatenate([np.zeros(3), close[3:] - close[:-3]])
    usual = pd.Series(np.diff(close, prepend=close[0])).rolling(30).std().shift(1).fillna(np.inf).to_numpy()
    return np.where(gain > usual, BUY, np.where(gain < -usual, SELL, HOLD)).astype(np.int8)


def backtested(candles, signals, interval, rules=RULES):
    """The engine's run on candles."""
    return run_backtest(MarketData.of(candles, parse_interval(interval)), signals, rules, EQUITY)


def write_report(folder, candles, signals, symbol, interval):
    """Write what the comparison and the strategy read of an evaluation's folder."""
    folder.mkdir(parents=True)
    run = backtested(candles, signals, interval)
    decision = {"symbol": symbol, "interval": interval, "execution": RULES.model_dump()}
    (folder / "decision.json").write_text(json.dumps(decision))
    run.trade_table().to_csv(folder / "trades.csv", index=False)
    run.signal_table(signals).to_csv(folder / "signals.csv", index=False)
