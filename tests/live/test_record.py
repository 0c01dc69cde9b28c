"""The record's file: what is no record is refused in one sentence, and nothing is half written."""

import sqlite3

import numpy as np
import pandas as pd
import pytest

from kronos_lightning.live.closes import Close, Event
from kronos_lightning.live.database import RecordError
from kronos_lightning.live.outbox import Deliverer
from kronos_lightning.live.record import LiveRecord
from kronos_lightning.pipeline.signals import Decision
from tests.helpers.live import ACCOUNT, HOUR, SYMBOL, hours

CUTOFF = pd.Timestamp("2024-04-20 05:00", tz="UTC")


def close_of(**changes):
    decision = Decision(
        cutoff=CUTOFF, stamps=pd.date_range(CUTOFF + HOUR, periods=3, freq="h"), last_close=64000.1,
        paths=np.random.default_rng(0).normal(64000, 1, (5, 3, 6)).astype(np.float32), signal="BUY",
        statistic="median", compared=0.1 + 0.2, thresholds={"sell": -0.02, "buy": 0.02}, expected_return=1 / 3,
        share_up=0.6, up=None, calibrated_steps=0,
    )  # fmt: skip
    plain = {
        "symbol": SYMBOL, "interval": "1h", "account": "paper", "cutoff": CUTOFF, "made_at": CUTOFF + HOUR,
        "status": "ok", "late": False, "halted": False, "model": "m", "decision": decision, "candles_sha256": "x",
    }  # fmt: skip
    return Close(**plain | changes)


@pytest.fixture
def record(tmp_path):
    record = LiveRecord(tmp_path / "record.db", write=True)
    yield record
    record.close()


def test_a_decision_is_read_back_to_the_bit(record):
    close = close_of()
    with record.transaction():
        number = record.put_close(close)
    found = record.read_close(ACCOUNT, number)
    assert found.decision.summary() == close.decision.summary()
    assert np.array_equal(found.decision.paths, close.decision.paths)
    assert found.decision.stamps.equals(close.decision.stamps)
    assert (found.made_at, found.signal, found.id) == (close.made_at, "BUY", number)
    (row,) = record.signals(ACCOUNT)
    assert (row.signal, row.expected_return, row.counts) == ("BUY", 1 / 3, True)


def test_a_close_is_recorded_once(record):
    with record.transaction():
        record.put_close(close_of())

    def again():
        with record.transaction():
            record.put_event(Event(symbol=SYMBOL, time=CUTOFF, kind="notice"))
            record.put_close(close_of(late=True))

    with pytest.raises(sqlite3.IntegrityError):
        again()
    assert record.events() == []  # nothing of the failed transaction
    assert not record.signals(ACCOUNT)[0].late


def test_signals_are_read_page_by_page_and_by_time(record):
    with record.transaction():
        for i in range(5):
            record.put_close(close_of(cutoff=CUTOFF + i * HOUR, decision=None, status="failed"))
    first = record.signals(ACCOUNT, limit=2)
    rest = record.signals(ACCOUNT, after=first[-1].id)
    assert [row.cutoff for row in first + rest] == [CUTOFF + i * HOUR for i in range(5)]
    assert len(record.signals(ACCOUNT, since=CUTOFF + HOUR, until=CUTOFF + 2 * HOUR)) == 2


def test_candles_keep_their_values(record):
    frame = hours(3)
    with record.transaction():
        record.put_candles(ACCOUNT, frame)
        record.put_candles(ACCOUNT, frame.tail(1))
    pd.testing.assert_frame_equal(record.candles(ACCOUNT), frame, check_freq=False)
    assert len(record.candles(ACCOUNT, count=2)) == 2


def text(path):
    path.write_text("no database " * 100)


def foreign(path):
    sqlite3.connect(path).execute("CREATE TABLE x (y)")


def newer(path):
    record = LiveRecord(path, write=True)
    record._connection.execute("UPDATE meta SET value = '2' WHERE key = 'schema_version'")
    record.close()


@pytest.mark.parametrize("write", [True, False])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (text, "is not a live record"),
        (foreign, "is not a live record"),
        (newer, r"made by a newer \(2\) version"),
        (lambda path: path.mkdir(), "is a folder"),
    ],
)
def test_what_is_no_record_of_this_version_is_refused(make, message, write, tmp_path):
    make(tmp_path / "x.db")
    with pytest.raises(RecordError, match=message):
        LiveRecord(tmp_path / "x.db", write=write)


def test_a_reader_makes_no_record(tmp_path):
    with pytest.raises(RecordError, match="no such record"):
        LiveRecord(tmp_path / "x.db")
    assert list(tmp_path.iterdir()) == []


def test_messages_are_sent_in_order_and_given_up_after_their_attempts(record, monkeypatch):
    with record.transaction():
        for key in ("a", "b", "a"):
            record.put_message(key, {"key": key})
    sent, answers = [], iter(["status 500", "Timeout", None])
    sender = Deliverer(record, "http://localhost/x?token=secret", timeout=1, attempts=2, first_pause=0.5)
    monkeypatch.setattr(sender, "_post", lambda key, body: sent.append(key) or next(answers))
    assert [sender.deliver() for _ in range(4)] == [0.5, 1.0, 1e-3, 0.0]
    assert sent == ["a", "a", "b"]
    states = record._connection.execute("SELECT key, state, attempts FROM outbox ORDER BY id").fetchall()
    assert [tuple(row) for row in states] == [("a", "failed", 2), ("b", "sent", 1)]


def test_an_unreachable_webhook_is_told_without_its_address(record, caplog):
    with record.transaction():
        record.put_message("a", {})
    Deliverer(record, "http://127.0.0.1:1/x?token=secret", timeout=1, attempts=2).deliver()
    assert "ConnectionError" in caplog.text
    assert "secret" not in caplog.text
