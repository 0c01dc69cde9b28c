"""The paper account is the backtest up to now: nothing is stored that could be counted twice."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kronos_lightning.backtest import BUY, FLATTEN, HOLD, SELL, MarketData, run_backtest
from kronos_lightning.live.closes import Close, SignalRow
from kronos_lightning.live.database import RecordError
from kronos_lightning.live.paper import Terms, newest_trades, orders, paper_account
from kronos_lightning.live.record import Account, LiveRecord
from tests.helpers.markets import DAY, FLAT, LIMITED, market, random_frame, run

ACCOUNT = Account(symbol="BTCUSDT", interval="1d", step=DAY, name="paper")
TERMS = Terms(rules=LIMITED.model_copy(update={"cooldown": 5}), act_every=1, initial_equity=1000.0)


def row(number, cutoff, signal="BUY", **changes):
    plain = {"status": "ok", "reason": "", "late": False, "halted": False, "model": "m"}
    numbers = dict.fromkeys(("expected_return", "share_up", "up", "last_close"), 0.0)
    return SignalRow(id=number, cutoff=cutoff, made_at=cutoff, signal=signal, **plain | changes, **numbers)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["long_only", "long_short"]))
def test_a_run_that_goes_on_equals_the_longer_run_on_every_prefix(seed, side):
    rng = np.random.default_rng(seed)
    frame, rules = random_frame(rng, 25), TERMS.rules.model_copy(update={"side": side})
    signals = rng.choice([BUY, HOLD, SELL, FLATTEN], 25, p=[0.3, 0.4, 0.25, 0.05])
    whole = run_backtest(MarketData.of(frame, DAY), signals, rules, 1000.0, close_at_end=False)
    for n in range(1, 26):
        part = run_backtest(MarketData.of(frame.iloc[:n], DAY), signals[:n], rules, 1000.0, close_at_end=False)
        assert np.array_equal(part.equity, whole.equity[:n])
        assert np.array_equal(part.position, whole.position[:n])
        assert np.array_equal(part.halted, whole.halted[:n])
        assert np.array_equal(part.trades, whole.trades[whole.trades["exit"] < n])
        assert (part.open_trade is not None) == (part.position[-1] != 0)


def test_an_open_position_is_no_trade_yet():
    candles, signals = market(FLAT, FLAT, (100, 110, 99, 110)), np.array([BUY, HOLD, HOLD])
    ended = run(candles, signals, LIMITED)
    going_on = run_backtest(candles, signals, LIMITED, 1000.0, close_at_end=False)
    assert (len(ended.trades), len(going_on.trades)) == (1, 0)
    assert going_on.open_trade == (candles.stamps[1], 100.0)
    assert going_on.equity[-1] > ended.equity[-1]  # the costs of the exit are not paid yet


def test_a_halt_closes_the_position_and_opens_none():
    found = run(market(*[FLAT] * 5), [BUY, HOLD, FLATTEN, FLATTEN, HOLD], LIMITED)
    assert found.trade_table()["reason"].tolist() == ["halt"]
    assert (found.position != 0).tolist() == [False, True, True, False, False]


def test_what_was_not_decided_in_time_is_not_traded():
    stamps = pd.date_range("2024-01-01", periods=6, freq="D", tz="UTC")
    changes = [{}, {"late": True}, {"status": "failed"}, {"halted": True}, {"signal": "SELL"}]
    rows = [row(i, stamps[i], **change) for i, change in enumerate(changes)]
    rows.append(row(9, stamps[5] + DAY))  # its candle is missing
    found, ordered = orders(rows, stamps, act_every=1)
    assert found.tolist() == [BUY, HOLD, HOLD, FLATTEN, SELL, HOLD]
    assert ordered.tolist() == [False] * 3 + [True] + [False] * 2
    assert orders(rows, stamps, act_every=4)[0].tolist() == [BUY, HOLD, HOLD, FLATTEN, SELL, HOLD]
    assert orders(rows, stamps, act_every=5)[0].tolist() == [BUY, HOLD, HOLD, FLATTEN, HOLD, HOLD]


@pytest.fixture
def record(tmp_path):
    record = LiveRecord(tmp_path / "record.db", write=True)
    yield record
    record.close()


def test_the_account_of_a_record_is_the_backtest_of_its_signals(record):
    frame = random_frame(np.random.default_rng(3), 30).assign(volume=1.0, amount=1.0)
    TERMS.open(record, ACCOUNT)
    assert paper_account(record, ACCOUNT) is None
    entries = exits = 0
    for stamp in frame["timestamps"]:
        with record.transaction():
            record.put_candles(ACCOUNT, frame[frame["timestamps"] == stamp])
            record.put_close(
                Close(
                    symbol="BTCUSDT", interval="1d", account="paper", cutoff=stamp, made_at=stamp, status="ok",
                    late=False, halted=False, model="m",
                )
            )  # fmt: skip
        record._connection.execute("UPDATE forecasts SET signal = 'BUY' WHERE id % 3 = 1")
        found = paper_account(record, ACCOUNT)
        acts = [trade["act"] for trade in newest_trades(found.run)]
        entries, exits = entries + acts.count("entry"), exits + acts.count("exit")
    signals = np.array([BUY if i % 3 == 0 else HOLD for i in range(30)])
    expected = run_backtest(MarketData.of(frame, DAY), signals, TERMS.rules, 1000.0, close_at_end=False)
    assert np.array_equal(found.run.equity, expected.equity)
    assert (entries, exits) == (len(expected.trades) + (expected.open_trade is not None), len(expected.trades))
    assert exits > 0
    assert found.hold.equity[-1] == pytest.approx(
        1000 / (1 + TERMS.rules.cost) * frame["close"].iloc[-1] / frame["open"].iloc[1]
    )
    assert (found.flat.equity == 1000).all()


def test_an_account_keeps_its_terms(record):
    TERMS.open(record, ACCOUNT)
    TERMS.open(record, ACCOUNT)
    other = Terms(rules=LIMITED, act_every=1, initial_equity=1000.0)
    with pytest.raises(RecordError, match="opened with other execution rules"):
        other.open(record, ACCOUNT)
    assert Terms.read(record, ACCOUNT) == TERMS
