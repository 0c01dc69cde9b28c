"""The freqtrade strategy file, without freqtrade: which orders it makes of signals, and when it refuses."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kronos_lightning.backtest import ExecutionRules
from tests.helpers.freqtrade.bot import BRIDGE
from tests.helpers.freqtrade.strategy import configured, load

STRATEGY = load()
Refused = STRATEGY.OperationalException
EXAMPLE = json.loads((BRIDGE / "config.example.json").read_text())
GUIDE = ExecutionRules(cost=0.001, stop_loss=0.05, take_profit=0.15, max_drawdown=0.20)
HOURS = pd.date_range("2024-05-01", periods=6, freq="h", tz="UTC")
HOUR = pd.Timedelta("1h")


def decision(interval="1d", **rules):
    execution = GUIDE.model_copy(update=rules).model_dump(mode="json")
    return {"symbol": "BTCUSDT", "interval": interval, "execution": execution, "horizon": 24}


def row(cutoff, signal, halted=False, late=False, **others):
    return {"cutoff": cutoff.isoformat(), "signal": signal, "halted": halted, "late": late} | others


def ordered(*rows):
    """Entries and exits on the six hours, as text: + entry, - exit, . nothing."""
    found = STRATEGY.orders(pd.Series(HOURS), STRATEGY.indexed(pd.DataFrame(rows)))
    return "".join("±"[:both] or "+"[:enter] or "-"[:exit_] or "." for enter, exit_, both in zip(
        found["enter_long"], found["exit_long"], found["enter_long"] * found["exit_long"], strict=True
    ))  # fmt: skip


def configuration(**changes):
    return {name: EXAMPLE.get(name) for name in ("timeframe", "fee", "stoploss", "minimal_roi")} | (
        STRATEGY.FLAGS | changes
    )


# --- orders -----------------------------------------------------------------------------------------------------


def test_a_signal_acts_on_the_candle_of_its_cutoff_alone():
    assert ordered(row(HOURS[1], "BUY"), row(HOURS[2], "HOLD"), row(HOURS[4], "SELL")) == ".+..-."


def test_a_candle_without_a_signal_has_no_order():
    assert ordered(row(HOURS[0], "HOLD"), row(HOURS[5] + HOUR, "BUY"), row(HOURS[0] - HOUR, "SELL")) == "......"


def test_a_late_signal_is_not_traded():
    assert ordered(row(HOURS[1], "BUY", late=True), row(HOURS[2], "SELL", late=True)) == "......"


def test_a_halt_closes_and_keeps_out():
    halts = [row(HOURS[i], "BUY", halted=True) for i in (1, 2)]
    assert ordered(row(HOURS[0], "BUY"), *halts, row(HOURS[3], "BUY")) == "+--+.."


def test_other_columns_do_not_disturb_and_the_last_row_of_a_cutoff_counts():
    assert ordered(row(HOURS[1], "BUY", made_at="x"), row(HOURS[1], "HOLD", price=3.0)) == "......"


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(-3, 9), st.sampled_from(["BUY", "HOLD", "SELL"]), st.booleans(), st.booleans())))
def test_no_candle_enters_and_exits(rows):
    made = [row(HOURS[0] + HOUR * at, signal, halted, late) for at, signal, halted, late in rows]
    if made:
        assert "±" not in ordered(*made)


@pytest.mark.parametrize("missing", ["cutoff", "signal", "halted", "late"])
def test_a_missing_column_is_named(missing):
    with pytest.raises(Refused, match=f"lack {missing}"):
        STRATEGY.indexed(pd.DataFrame([row(HOURS[0], "BUY")]).drop(columns=missing))


@pytest.mark.parametrize("wrong", [{"signal": "buy"}, {"halted": None}, {"late": "no"}])
def test_an_unknown_value_is_refused(wrong):
    with pytest.raises(Refused, match="not a signal"):
        STRATEGY.indexed(pd.DataFrame([row(HOURS[0], "BUY"), row(HOURS[1], "BUY") | wrong]))


@pytest.mark.parametrize(
    ("tag", "now", "current"),
    [
        ("2024-05-01T00:00:00+00:00", "2024-05-01T00:59:59Z", False),  # not closed
        ("2024-05-01T00:00:00+00:00", "2024-05-01T01:00:00Z", True),
        ("2024-05-01T00:00:00+00:00", "2024-05-01T01:59:59Z", True),
        ("2024-05-01T00:00:00+00:00", "2024-05-01T02:00:00Z", False),  # another has closed
        ("force_entry", "2024-05-01T01:00:00Z", False),
        ("", "2024-05-01T01:00:00Z", False),
        (None, "2024-05-01T01:00:00Z", False),
    ],
)
def test_an_entry_needs_the_signal_of_the_last_closed_candle(tag, now, current):
    assert STRATEGY.is_current(tag, pd.Timestamp(now).to_pydatetime(), HOUR.to_pytimedelta()) is current


def test_the_tag_of_an_entry_is_its_cutoff():
    tags = STRATEGY.orders(pd.Series(HOURS), STRATEGY.indexed(pd.DataFrame([row(HOURS[3], "BUY")])))["enter_tag"]
    assert STRATEGY.is_current(tags[3], HOURS[4].to_pydatetime(), HOUR.to_pytimedelta())


# --- rules ------------------------------------------------------------------------------------------------------


def test_the_example_configuration_has_the_rules_of_the_guide():
    assert STRATEGY.differences(decision(), configuration()) == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"timeframe": "1h"}, "timeframe"),
        ({"fee": None}, "fee"),
        ({"fee": 0.0}, "fee"),
        ({"stoploss": -0.06}, "stoploss"),
        ({"minimal_roi": {"0": 0.15}}, "minimal_roi"),
        ({"minimal_roi": EXAMPLE["minimal_roi"] | {"60": 0.01}}, "minimal_roi"),
        ({"trailing_stop": True}, "trailing_stop"),
        ({"exit_profit_only": True}, "exit_profit_only"),
    ],
)
def test_a_difference_is_named(change, named):
    (found,) = STRATEGY.differences(decision(), configuration(**change))
    assert found.startswith(f"{named} is ")


def test_rules_without_stop_and_target_need_none():
    free = configuration(stoploss=-1.0, minimal_roi={})
    assert STRATEGY.differences(decision(stop_loss=None, take_profit=None), free) == []


def test_short_positions_are_refused():
    assert "short" in STRATEGY.differences(decision(side="long_short"), configuration())[0]


def test_the_target_is_net_of_both_fees():
    roi = STRATEGY.wanted(decision(cost=0.002, take_profit=0.1))["minimal_roi"]["0"]
    paid, got = 100 * 1.002, 110 * (1 - 0.002)
    assert got / paid - 1 == pytest.approx(roi)


# --- sources ----------------------------------------------------------------------------------------------------


@contextmanager
def service(answers):
    """A service that answers with `answers(path, query, number)`: a status and a body; yields URL and requests."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            parts = urlsplit(self.path)
            query = {key: one[0] for key, one in parse_qs(parts.query).items()}
            asked.append((parts.path, query, self.headers.get("X-API-Key")))
            status, body = answers(parts.path, query, len(asked))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body if isinstance(body, bytes) else json.dumps(body).encode())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", asked
    finally:
        server.shutdown()
        server.server_close()


def recorded(rows, page=1000):
    """Answers of a service with these rows, `page` of them at a time."""

    def answers(path, query, number):
        if path == "/v1/model":
            return 200, {"decision": decision("1h")}
        span = pd.Timestamp(query["from"]), pd.Timestamp(query["to"])
        found = [one for one in rows if span[0] <= pd.Timestamp(one["cutoff"]) <= span[1]]
        return 200, {"signals": found[:page], "next": "x" if len(found) > page else None}

    return answers


def test_signals_come_page_by_page_with_the_key(monkeypatch):
    monkeypatch.setenv("KRONOS_API_KEY", "a-long-random-secret")
    rows = [row(hour, "BUY", price=1.0) for hour in HOURS]
    with service(recorded(rows, page=2)) as (url, asked):
        found = STRATEGY.Service(url, 2).rows("BTCUSDT", HOURS[0], HOURS[4])
    assert found[~found.index.duplicated()].index.tolist() == list(HOURS[:5])
    assert {key for *_, key in asked} == {"a-long-random-secret"}


def test_a_busy_service_is_asked_again(monkeypatch):
    answers = recorded([row(HOURS[0], "BUY")])
    monkeypatch.setattr("time.sleep", lambda _: None)
    with service(lambda path, query, number: (503, {}) if number < 4 else answers(path, query, number)) as (url, asked):
        assert STRATEGY.Service(url, 2).decision["symbol"] == "BTCUSDT"
    assert len(asked) == 4


@pytest.mark.parametrize(
    ("status", "body", "tries"), [(503, {}, 4), (401, {"error": "key"}, 1), (200, b"<html>", 1), (302, {}, 1)]
)
def test_a_service_without_an_answer_is_left_after_a_few_tries(monkeypatch, status, body, tries):
    monkeypatch.setattr("time.sleep", lambda _: None)
    with service(lambda *_: (status, body)) as (url, asked), pytest.raises(Refused, match="/v1/model"):
        STRATEGY.Service(url, 2)
    assert len(asked) == tries


def folder_of(path, rows, **changes):
    path.mkdir(exist_ok=True)
    (path / "decision.json").write_text(json.dumps(decision(**changes)))
    pd.DataFrame(rows).to_csv(path / "signals.csv", index=False)
    return path


def candles():
    return pd.DataFrame({"date": HOURS.as_unit("ms"), "close": 1.0}, index=range(5, 11))


def populated(strategy, pair="BTC/USDT"):
    frame = strategy.populate_indicators(candles(), {"pair": pair})
    return strategy.populate_exit_trend(strategy.populate_entry_trend(frame, {}), {})


def started(config, mode):
    strategy = configured(STRATEGY, EXAMPLE | config, mode)
    strategy.bot_start()
    return strategy


def test_a_folder_serves_a_backtest(tmp_path):
    folder = folder_of(tmp_path, [row(HOURS[1], "BUY"), row(HOURS[3], "SELL")], interval="1h")
    strategy = started({"kronos": {"source": str(folder)}, "timeframe": "1h"}, "backtest")
    frame = populated(strategy)
    assert frame["enter_long"].tolist() == [0, 1, 0, 0, 0, 0]
    assert frame["exit_long"].tolist() == [0, 0, 0, 1, 0, 0]
    assert strategy.custom_stake_amount("", None, 1.0, 1001.0, None, 1e9, 1.0, None, "long") == pytest.approx(1000)
    opening = HOURS[2].to_pydatetime()
    entries = [("", "market", 1.0, 1.0, "GTC", opening, cutoff.isoformat(), "long") for cutoff in HOURS[:3]]
    assert [strategy.confirm_trade_entry(*entry) for entry in entries] == [False, True, False]
    with pytest.raises(Refused, match="not of ETHUSDT"):
        populated(strategy, "ETH/USDT")


@pytest.mark.parametrize("mode", ["live", "dry_run"])
def test_a_folder_is_no_source_of_live_signals(tmp_path, mode):
    with pytest.raises(Refused, match="URL of a service"):
        started({"kronos": {"source": str(folder_of(tmp_path, [row(HOURS[0], "BUY")]))}}, mode)


def test_a_bot_of_other_rules_does_not_start(tmp_path):
    folder = folder_of(tmp_path, [row(HOURS[0], "BUY")], stop_loss=0.04)
    with pytest.raises(Refused, match=r"refused to start: stoploss is -0.05, the evaluation's rules need -0.04"):
        started({"kronos": {"source": str(folder)}}, "backtest")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(Refused, match="not the folder of an evaluation"):
        started({"kronos": {"source": str(tmp_path / "none")}}, "backtest")


def test_a_live_bot_asks_for_its_last_candle_and_keeps_its_trade_while_the_service_is_away():
    with service(recorded([row(hour, "BUY") for hour in HOURS])) as (url, asked):
        strategy = started({"kronos": {"source": url, "timeout": 0.2}, "timeframe": "1h"}, "dry_run")
        assert populated(strategy)["enter_long"].tolist() == [0, 0, 0, 0, 0, 1]
    assert asked[-1][1]["to"] == HOURS[-1].isoformat()
    frame = populated(strategy)
    assert not frame["enter_long"].any()
    assert not frame["exit_long"].any()
