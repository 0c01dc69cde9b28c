"""Our engine beside trades that the real freqtrade made; `make parity` makes them anew."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from kronos_lightning.backtest import BUY, HOLD, SELL, ExecutionRules
from tests.helpers.freqtrade.comparison import compare, initial_equity
from tests.helpers.freqtrade.reports import EQUITY, backtested, random_signals
from tests.helpers.paths import GOLDEN, ROOT

STORED = GOLDEN / "freqtrade"
DECISION = json.loads((STORED / "decision.json").read_text())
RULES = ExecutionRules(**DECISION["execution"])


@pytest.fixture(scope="module")
def candles():
    return pd.read_csv(STORED / "candles.csv.gz", parse_dates=["timestamps"])


@pytest.fixture(scope="module")
def signals():
    return pd.read_csv(STORED / "signals.csv.gz", parse_dates=["cutoff"])


@pytest.fixture(scope="module")
def theirs():
    return pd.read_csv(STORED / "trades.csv.gz", parse_dates=["entry_time", "exit_time"])


def ours(candles, signals, rules=RULES):
    orders = signals["signal"].map({"BUY": BUY, "HOLD": HOLD, "SELL": SELL}).to_numpy(np.int8)
    return backtested(candles, orders, DECISION["interval"], rules)


def compared(candles, signals, theirs, rules=RULES):
    return compare(ours(candles, signals, rules).trade_table(), theirs, signals["cutoff"].iloc[-1], EQUITY)


def test_the_engine_trades_as_freqtrade_did(candles, signals, theirs):
    found = compared(candles, signals, theirs)
    assert found.equal, found
    assert found.ours > 250
    assert set(found.reasons) == {"signal", "stop", "target", "drawdown"}


@pytest.mark.parametrize(
    "change", [{"stop_loss": 0.051}, {"take_profit": 0.151}, {"cost": 0.0011}, {"max_drawdown": 0.21}, {"cooldown": 19}]
)
def test_other_rules_would_be_noticed(candles, signals, theirs, change):
    assert not compared(candles, signals, theirs, RULES.model_copy(update=change)).equal


def test_a_candle_later_would_be_noticed(candles, signals, theirs):
    late = signals.assign(signal=signals["signal"].shift(1, fill_value="HOLD"))
    assert not compared(candles, late, theirs).equal


def test_the_stored_signals_hold_the_halts_of_the_engine(candles, signals):
    run = ours(candles, signals)
    assert signals["halted"].to_numpy().tolist() == run.halted.tolist()
    assert len(run.halts) >= 4
    pd.testing.assert_frame_equal(
        run.signal_table(random_signals(candles)), signals, check_dtype=False, check_index_type=False
    )


def test_the_first_trade_tells_the_initial_equity(candles, signals):
    assert initial_equity(ours(candles, signals).trade_table(), DECISION["execution"]) == pytest.approx(EQUITY)


def test_the_package_does_not_know_freqtrade():
    files = [*(ROOT / "kronos_lightning").rglob("*.py"), ROOT / "pyproject.toml", ROOT / "constraints.txt"]
    known = re.compile(r"import freqtrade|from freqtrade|^\W*freqtrade\b", re.MULTILINE)
    assert [str(path) for path in files if known.search(path.read_text())] == []
