"""The live half of the service: it reads the record, says when it is stale, and never promises more than was right."""

import json
import threading
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from kronos_lightning.live.record import LiveRecord
from kronos_lightning.pipeline.loaded_model import load_model
from kronos_lightning.serve import live_routes
from kronos_lightning.serve.live_view import LiveView
from tests.helpers.evaluated import HORIZON
from tests.helpers.live import ACCOUNT, HOUR, SYMBOL, follow, hours, live_settings, operation_of
from tests.helpers.service import client_of, service_of

CLOSES = 16
V1 = f"/v1/{SYMBOL}"


@pytest.fixture(scope="module")
def followed(checkpoint, tmp_path_factory):
    """A folder with the record of 16 closes."""
    folder = tmp_path_factory.mktemp("followed")
    follow(folder, load_model(checkpoint, "cpu"), {SYMBOL: hours(CLOSES)}).close()
    return folder


@pytest.fixture(scope="module")
def wall():
    return SimpleNamespace(time=None)


@pytest.fixture(scope="module")
def service(checkpoint, followed, wall):
    record = LiveRecord(followed / "record.db")
    beat = record.meta("heartbeat")
    wall.time = beat["at"]
    record.close()
    view = LiveView(live_settings(followed), "1h", wall=lambda: wall.time)
    return service_of(checkpoint, live=view)


@pytest.fixture
def record(service):
    return service.live.record


def test_the_newest_decision_is_that_of_the_record_and_of_a_request(client, record):
    answer = client.get(f"{V1}/latest").json()
    row = record.newest(ACCOUNT)
    decision = record.read_close(ACCOUNT, row.id).decision
    assert answer["record_id"] == row.id == CLOSES
    assert answer["predicted_price"] == decision.predicted_price
    assert answer["confidence"] == decision.confidence
    assert pd.Timestamp(answer["cutoff"]) == row.cutoff
    computed = client.post(f"{V1}/predict", json={}).json()  # an empty body: the follower's candles
    left_out = ("timestamp", "record_id", "notices")
    assert {k: v for k, v in computed.items() if k not in left_out} == {
        k: v for k, v in answer.items() if k not in left_out
    }
    assert computed["record_id"] is None
    assert answer["age_s"] == 2.0
    assert answer["live"] == {
        "n": CLOSES - HORIZON, "state": "warming", "skill": answer["live"]["skill"],
        "coverage_90": answer["live"]["coverage_90"], "hit_rate": answer["live"]["hit_rate"],
        "hit_rate_interval": answer["live"]["hit_rate_interval"],
    }  # fmt: skip


def test_signals_come_page_by_page_and_unchanged_ones_are_not_sent_again(client):
    first = client.get(f"{V1}/signals", params={"limit": 10})
    rest = client.get(f"{V1}/signals", params={"limit": 10, "cursor": first.json()["next"]}).json()
    assert rest["next"] is None
    cutoffs = [pd.Timestamp(one["cutoff"]) for one in first.json()["signals"] + rest["signals"]]
    assert cutoffs == [cutoffs[0] + i * HOUR for i in range(CLOSES)]
    assert {"cutoff", "signal", "halted", "late"} <= rest["signals"][0].keys()
    again = client.get(f"{V1}/signals", params={"limit": 10}, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    span = {"from": cutoffs[2].isoformat(), "to": cutoffs[4].isoformat()}
    assert len(client.get(f"{V1}/signals", params=span).json()["signals"]) == 3


def test_a_recorded_forecast_is_shown_over_what_came(client, record):
    found = client.get(f"{V1}/forecasts/2").json()
    closes = hours()["close"]
    assert [one["close"] for one in found["actual"]] == closes.iloc[91 : 91 + HORIZON].tolist()
    assert found["known"][-1]["close"] == found["last_close"] == closes[90]
    assert found["quantiles"]["0.5"][-1] == pytest.approx(found["predicted_price"])
    assert client.get(f"{V1}/forecasts/99").json()["error"]["code"] == "no_forecast"


def test_the_score_and_the_paper_account_are_those_of_the_record(client, service):
    score = client.get(f"{V1}/score").json()
    assert (score["n"], score["late"], score["state"]) == (CLOSES - HORIZON, 0, "warming")
    scores = service.live.record.scores(ACCOUNT)
    whole = scores[scores["forecast"] <= CLOSES - HORIZON]
    assert score["crps"]["model"] == pytest.approx(whole["crps"].mean())
    assert score["skill"]["ewma"] == pytest.approx(1 - whole["crps"].mean() / whole["crps_ewma"].mean())
    assert sum(score["pit"]) == pytest.approx(1)
    paper = client.get(f"{V1}/paper").json()
    assert len(paper["equity"]) == len(paper["hold"]) == len(paper["times"]) == CLOSES
    assert paper["equity"][0] == paper["initial_equity"] == 1000.0


def test_a_close_without_a_decision_makes_the_service_unready(checkpoint, followed, tmp_path, wall):
    operation = operation_of(tmp_path, load_model(checkpoint, "cpu"), {SYMBOL: hours(2)}, speed=1.0)
    stop = threading.Event()
    for _ in range(2):
        operation.follower.poll(stop)
        operation.follower._around.feed._now += HOUR
    operation.close()
    beat = LiveRecord(tmp_path / "record.db").meta("heartbeat")
    view = LiveView(live_settings(tmp_path), "1h", wall=lambda: wall.time)
    wall.time = beat["at"]
    with client_of(service_of(checkpoint, live=view)) as client:
        assert client.get("/readyz").status_code == client.get(f"{V1}/latest").status_code == 200
        assert not client.get(f"{V1}/state").json()["stale"]
        wall.time += 1.0  # an hour of the replay
        assert client.get("/readyz").status_code == 200
        wall.time += 6.0
        assert (client.get("/readyz").status_code, client.get("/readyz").json()["status"]) == (503, "stale")
        assert client.get(f"{V1}/latest").json()["error"]["code"] == "stale"
        assert client.get(f"{V1}/state").json()["stale"]
        assert 'kronos_live_stale{symbol="BTCUSDT"} 1.0' in client.get("/metrics").text


def test_confidence_is_withheld_while_the_drift_alarm_is_on(client, service, monkeypatch):
    monkeypatch.setattr("kronos_lightning.live.track.evidence", lambda *_: 100.0)
    service.live._derived.clear()
    for answer in (client.get(f"{V1}/latest").json(), client.post(f"{V1}/predict", json={}).json()):
        assert answer["confidence"] is None
        assert answer["live"]["state"] == "drifted"
        assert "drift alarm" in answer["calibration"]["reason_if_not"]
        assert any("DRIFT" in notice for notice in answer["notices"])
    service.live._derived.clear()


def test_events_go_on_after_the_last_one_that_was_seen(client, service, monkeypatch):
    events = service.live.record.events()
    monkeypatch.setattr(live_routes, "LOOK", 0.01)
    monkeypatch.setattr(live_routes.Request, "is_disconnected", _after_three_looks())
    answer = client.get(f"{V1}/events", headers={"Last-Event-ID": str(events[-3][0])})
    assert answer.headers["content-type"].startswith("text/event-stream")
    blocks = [block.splitlines() for block in answer.text.split("\n\n") if block.startswith("id: ")]
    assert [int(block[0][4:]) for block in blocks] == [number for number, _ in events[-2:]]
    assert json.loads(blocks[0][2][6:])["content"] == events[-2][1].content


def _after_three_looks():
    count = iter([False, False, False, True])

    async def is_disconnected(self):
        return next(count, True)

    return is_disconnected


@pytest.mark.parametrize("path", ["latest", "state", "signals", "forecasts/1", "score", "paper", "events"])
def test_a_market_that_is_not_followed_is_told(path, client):
    assert client.get(f"/v1/DOGEUSDT/{path}").json()["error"]["code"] == "not_followed"


def test_a_service_without_a_record_says_so(checkpoint):
    with client_of(service_of(checkpoint)) as client:
        assert client.get(f"{V1}/latest").json()["error"]["code"] == "no_record"
        assert client.get("/v1/model").json()["live"] is None
        assert client.get("/readyz").status_code == 200


def test_the_candles_of_the_chart_are_the_followers(client):
    shown = client.get("/v1/candles?limit=5").json()
    assert [one["close"] for one in shown] == hours(CLOSES)["close"].tail(5).tolist()
    assert client.get("/v1/model").json()["live"] == SYMBOL
    assert np.isfinite([one["open"] for one in shown]).all()
