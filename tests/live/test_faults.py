"""Each fault of an exchange has one behaviour, and no decision is ever made from a candle that has not closed."""

import threading

import pandas as pd
import pytest

from kronos_lightning.live import market
from tests.helpers.exchange import CUT, SLOW
from tests.helpers.live import ACCOUNT, HOUR, SYMBOL, world_of

KLINES, TIME = "/api/v3/klines", "/api/v3/time"


@pytest.fixture
def world(tmp_path, model, monkeypatch):
    with world_of(tmp_path, model, monkeypatch) as found:
        yield found
        assert all(row.made_at >= row.cutoff + HOUR for row in found.signals())  # all candles had closed
        known = found.record.candles(ACCOUNT)["timestamps"]
        assert (known + HOUR <= found.exchange.now).all()


def once(path, fault, world, first=0):
    """A fault of the next answer of a path."""
    asked = world.exchange.times[path]
    world.exchange.fault = lambda one, before: fault if one == path and before == asked + first else None


def test_each_close_is_decided_once_and_in_time(world):
    for close in range(3):
        assert world.poll(close) == pytest.approx(3600)  # the next close and two seconds
        world.poll(close, 1800)
    assert [row.cutoff for row in world.signals()] == [world.first + i * HOUR for i in range(3)]
    assert all(row.counts for row in world.signals())
    assert world.events("alarm") == world.events("notice") == []


def test_the_candle_that_is_not_there_yet_is_asked_for_again(world):
    world.poll(0)
    held = world.rows.pop(100 - 10)  # the exchange is slow to show its newest candle
    assert world.poll(1) == 2.0
    assert world.poll(1, 4) == 4.0
    assert len(world.signals()) == 1
    world.rows.insert(90, held)
    world.poll(1, 8)
    assert [row.late for row in world.signals()] == [False, False]


@pytest.mark.parametrize("status", [429, 418])
def test_a_limit_is_waited_out_and_the_close_is_late_not_lost(status, world):
    world.poll(0)
    asked = world.exchange.times[KLINES]

    def fault(path, before):
        if path != KLINES or before != asked:
            return None
        world.at(1, 600)  # the exchange's time after the wait
        return status, {"Retry-After": "1"}, b"{}"

    world.exchange.fault = fault
    world.poll(1)
    assert [(row.status, row.late) for row in world.signals()] == [("ok", False), ("ok", True)]
    assert world.exchange.times[KLINES] == asked + 2


@pytest.mark.parametrize("fault", [CUT, SLOW, 500])
@pytest.mark.parametrize("path", [KLINES, TIME])
def test_a_broken_answer_is_asked_for_again(fault, path, world):
    world.poll(0)
    once(path, fault, world)
    world.poll(1)
    assert [row.counts for row in world.signals()] == [True, True]


@pytest.mark.parametrize("body", [b"{}", b"[[1]]", b"not json", b'{"serverTime": null}', b'{"serverTime": 1e400}'])
def test_an_answer_that_is_none_is_an_outage(body, world):
    world.poll(0)
    world.exchange.fault = lambda path, before: (200, {}, body)
    assert world.poll(1) == 2.0
    world.exchange.fault = lambda path, before: None
    world.poll(1, 60)
    assert [row.counts for row in world.signals()] == [True, True]


def test_an_outage_of_three_hours_costs_the_trades_but_no_record(world):
    world.poll(0)
    world.exchange.fault = lambda path, before: 503
    pauses = [world.poll(close) for close in (1, 2, 3)]
    assert pauses == [2.0, 4.0, 8.0]
    assert len(world.signals()) == 1
    world.exchange.fault = lambda path, before: None
    world.poll(4)
    assert [(row.status, row.late) for row in world.signals()] == [
        ("ok", False), ("ok", True), ("ok", True), ("ok", True), ("ok", False),
    ]  # fmt: skip
    assert [event["what"] for event in world.events("alarm")] == ["outage"]
    assert [event["what"] for event in world.events("notice")] == ["recovered"]


def test_a_gap_is_asked_for_during_three_intervals_and_then_recorded(world):
    world.poll(0)
    del world.rows[90]
    for close in (1, 2, 3):
        world.poll(close)
    assert len(world.signals()) == 1
    world.poll(4)
    assert [row.status for row in world.signals()] == ["ok", "gap", "short", "short", "short"]
    assert all(row.signal == "HOLD" for row in world.signals()[1:])
    assert "1 candles since the last gap, 90 are needed" in world.signals()[2].reason
    assert [event["what"] for event in world.events("alarm")] == ["gap"]


def test_a_missing_candle_that_comes_within_three_intervals_is_no_gap(world):
    world.poll(0)
    held = world.rows.pop(90)
    world.poll(2)
    world.rows.insert(90, held)
    world.poll(3)
    assert [(row.status, row.late) for row in world.signals()] == [
        ("ok", False), ("ok", True), ("ok", True), ("ok", False),
    ]  # fmt: skip


def test_a_revised_candle_is_told_and_past_forecasts_keep_what_they_saw(world):
    world.poll(0)
    before = world.record.read_close(ACCOUNT, 1)
    world.poll(1)
    row = world.rows[89]  # the candle of the first close
    row[4] = repr(float(row[4]) * 1.001)
    row[2] = repr(max(float(row[2]), float(row[4])))
    world.poll(2)
    (event,) = world.events("revised")
    assert event["before"]["close"] == before.decision.last_close
    assert event["after"]["close"] == float(row[4])
    assert world.record.read_close(ACCOUNT, 1).candles_sha256 == before.candles_sha256
    known = world.record.candles(ACCOUNT).set_index("timestamps")["close"]
    assert known[world.first] == float(row[4])


def test_the_score_against_a_revised_candle_is_made_again(world):
    world.poll(0)
    world.poll(1)
    first = world.record.scores(ACCOUNT)
    row = world.rows[90]
    row[2] = row[4] = repr(float(row[2]) * 1.001)
    world.poll(2)
    again = world.record.scores(ACCOUNT)
    assert len(first) == 1
    assert again["close"].iloc[0] == float(row[4]) != first["close"].iloc[0]


def test_a_frozen_candle_stops_trading_and_raises_an_alarm(world):
    for close in range(2):
        world.poll(close)
    world.rows[91][1:6] = world.rows[90][1:6]  # filled forward
    world.rows[91][7] = world.rows[90][7]
    world.poll(2)
    (alarm,) = world.events("alarm")
    assert alarm["what"] == "defect"
    assert "filled forward" in alarm["reason"]
    assert [row.status for row in world.signals()] == ["ok", "ok", "defect"]
    assert world.signals()[-1].signal == "HOLD"


def test_an_impossible_candle_is_left_out_as_if_it_were_missing(world):
    world.poll(0)
    world.rows[90][2] = "1.0"  # the high
    world.poll(1)
    world.poll(1, 10)
    (alarm,) = world.events("alarm")  # told once
    assert alarm["what"] == "impossible candle"
    assert len(world.signals()) == 1
    world.poll(4)  # the good candles beside it were kept
    assert [row.status for row in world.signals()] == ["ok", "gap", "short", "short", "short"]
    assert len(world.record.candles(ACCOUNT)) == 93


@pytest.mark.parametrize(("ahead", "kind"), [(30, "alarm"), (-30, "alarm"), (3, "notice"), (0.5, None)])
def test_closes_follow_the_clock_of_the_exchange(ahead, kind, world):
    world.ahead = ahead
    world.poll(0)
    world.poll(0, 3590)  # by the local clock the next candle may have closed
    assert [row.late for row in world.signals()] == [False]
    world.poll(1)
    told = [event["what"] for event in world.events(kind)] if kind else []
    assert told == ["clock"] * bool(kind)
    assert len(world.signals()) == 2


def test_a_clock_that_goes_back_makes_no_second_record(world):
    for close in (0, 1, 0, 1, 2):
        world.poll(close)
    assert len(world.signals()) == 3


def test_a_model_that_gives_no_numbers_is_recorded_as_failed(world, monkeypatch):
    real = market.decide_at

    def broken(series, *arguments):
        found = real(series, *arguments)
        found.paths[0, 0, 0] = float("nan")
        return found

    for close, replacement in enumerate([real, broken, None, real]):  # None cannot be called
        monkeypatch.setattr(market, "decide_at", replacement)
        world.poll(close)
    assert [row.status for row in world.signals()] == ["ok", "failed", "failed", "ok"]
    assert [row.signal for row in world.signals()[1:3]] == ["HOLD", "HOLD"]
    assert len(world.events("alarm")) == 2


def test_a_full_disk_stops_trading_and_the_close_is_recorded_when_there_is_room(world):
    world.poll(0)
    writer = world.operation.follower._around.record._connection
    pages = writer.execute("PRAGMA page_count").fetchone()[0]
    writer.execute(f"PRAGMA max_page_count = {pages}")
    assert world.poll(1) == 2.0
    assert world.poll(1, 10) == 4.0
    assert len(world.signals()) == 1
    assert len(world.record.candles(ACCOUNT)) == 90  # nothing of it
    writer.execute("PRAGMA max_page_count = 1000000")
    world.poll(1, 20)
    assert [row.counts for row in world.signals()] == [True, True]


def test_the_first_close_of_a_new_record_may_be_too_old_to_trade(world):
    world.poll(0, 1800)
    assert [(row.status, row.late) for row in world.signals()] == [("ok", True)]


def test_a_stop_ends_a_request_that_is_under_way(world):
    world.poll(0)
    world.exchange.fault = lambda path, before: SLOW if path == KLINES else None
    world.at(1)
    thread = threading.Thread(target=world.operation.follower.poll, args=(threading.Event(),))
    thread.start()
    world.feed.close()
    thread.join(20)
    assert not thread.is_alive()


def test_candles_after_a_long_pause_are_fetched_page_by_page(world):
    world.poll(0)
    found = world.feed.candles(SYMBOL, "1h", world.first - 50 * HOUR, world.first + pd.Timedelta("90D"))
    assert found["timestamps"].iloc[-1] == world.first
    assert len(found) == 51
