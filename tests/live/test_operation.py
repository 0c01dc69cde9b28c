"""A live operation as a whole: the same decisions as every other route, no loss when it is killed, one writer."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from kronos_lightning.config.validation import ConfigError, check_following
from kronos_lightning.forecast import ForecastSet
from kronos_lightning.forecast.series import read_series
from kronos_lightning.live import operation
from kronos_lightning.live.database import RecordError
from kronos_lightning.live.operation import accounts_of
from kronos_lightning.live.outbox import Deliverer
from kronos_lightning.live.paper import Terms
from kronos_lightning.live.record import LiveRecord
from kronos_lightning.live.track import track_record
from kronos_lightning.pipeline.decision_settings import DecisionSettings
from kronos_lightning.pipeline.signals import decide_at, decisions
from kronos_lightning.storage.lock import InUseError
from tests.helpers.commands import command, shell_variables
from tests.helpers.configuration import composed
from tests.helpers.evaluated import HORIZON, btc_hours, evaluated_at, known
from tests.helpers.live import ACCOUNT, HOUR, LOOKBACK, SYMBOL, content, follow, hours, operation_of


def assert_same_decisions(folder, model, closes):
    """Compare the decisions of a followed record with evaluate.py's and with `decide_at`, to the bit."""
    record = follow(folder, model, {SYMBOL: hours(closes)})
    rows, decision = np.arange(LOOKBACK - 1, LOOKBACK - 1 + closes), model.decision
    evaluated_rows = rows[rows < 300 - HORIZON]
    evaluated = decisions(
        evaluated_at(btc_hours(), evaluated_rows, model.plain, decision).calibrated(model.calibration), model.strategy
    )
    signals = record.signals(ACCOUNT)
    assert len(signals) == closes
    for row, signal_row in zip(rows, signals, strict=True):
        live = record.read_close(ACCOUNT, signal_row.id).decision
        series = read_series(known(btc_hours(), row), HORIZON)
        alone = decide_at(series, model.calibrated, model.strategy, decision.forecast.num_paths, decision.seed)
        for other in [alone, *evaluated[row - rows[0] : row - rows[0] + 1]]:
            assert live.summary() == other.summary()
            assert np.array_equal(live.paths, other.paths)
            assert live.stamps.equals(other.stamps)
    record.close()


def test_the_follower_decides_as_the_evaluation_did(tmp_path, model):
    assert_same_decisions(tmp_path, model, closes=12)


@pytest.mark.minutes
def test_the_follower_decides_as_the_evaluation_did_at_every_golden_close(tmp_path, model):
    assert_same_decisions(tmp_path, model, closes=300 - LOOKBACK + 1)


class Receiver:
    """A webhook on this machine that acts once on each key; it fails at some requests."""

    def __init__(self, failing=lambda count: False):
        receiver, self.acted, self.requests = self, [], []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                key = self.headers["Idempotency-Key"]
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                receiver.requests.append((key, body))
                if failing(len(receiver.requests)):
                    self.send_response(500)
                else:
                    if key not in dict(receiver.acted):
                        receiver.acted.append((key, body))
                    self.send_response(204)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook?token=secret"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def receiver():
    found = Receiver(failing=lambda count: count % 7 == 3)
    yield found
    found.close()


def kill_often(folder, checkpoint, receiver, closes, kills):
    """Follow candles in processes of their own, each of which is killed at a random moment."""
    folder.mkdir()
    hours(closes).to_csv(folder / "BTCUSDT_1h.csv", index=False)
    arguments = [
        "data=btc_1h", "data.csv_path=BTCUSDT_1h.csv", "data.dataset_begin_time=null", f"checkpoint={checkpoint}",
        "live=replay", "live.speed=40", "live.record=record.db", "live.initial_equity=1000.0", "device=cpu",
    ]  # fmt: skip
    rng, record = np.random.default_rng(7), folder / "record.db"
    for _ in range(kills):
        goal = recorded(record) + rng.integers(1, max(2, 2 * closes // (kills + 1)))
        with (folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "kronos_lightning.live", *arguments],
                cwd=folder, stdout=log, stderr=log, env=shell_variables(KRONOS_WEBHOOK_URL=receiver.url),
            )  # fmt: skip
        while recorded(record) < min(goal, closes - 1):
            assert process.poll() is None, (folder / "log").read_text()[-2000:]
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.05))  # anywhere within a close
        os.kill(process.pid, signal.SIGKILL)
        process.wait()


def recorded(path):
    if not path.is_file():
        return 0
    try:
        record = LiveRecord(path)
    except RecordError:  # just being made
        return 0
    newest = record.newest(ACCOUNT)
    record.close()
    return 0 if newest is None else newest.id


def assert_nothing_lost_or_doubled(tmp_path, checkpoint, model, receiver, closes, kills):
    kill_often(tmp_path / "killed", checkpoint, receiver, closes, kills)
    (tmp_path / "whole").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KRONOS_WEBHOOK_URL", receiver.url)
        for folder in ("killed", "whole"):
            follow(tmp_path / folder, model, {SYMBOL: hours(closes)}).close()
    killed, whole = (content(tmp_path / folder / "record.db") for folder in ("killed", "whole"))
    for table in killed:
        assert killed[table] == whole[table], table
    assert len(killed["forecasts"]) == closes
    record = LiveRecord(tmp_path / "killed" / "record.db", write=True)  # what the killed processes did not send
    while record.messages():
        Deliverer(record, receiver.url, timeout=5, attempts=8, first_pause=0).deliver()
    record.close()
    sent = {key: {json.dumps(body, sort_keys=True) for one, body in receiver.requests if one == key}
            for key, _ in receiver.requests}  # fmt: skip
    assert {key for key, _ in receiver.acted} == {key for key, _ in whole["outbox"]}
    assert all(len(bodies) == 1 for bodies in sent.values())  # whichever request arrives, it means the same


def test_a_follower_that_is_killed_loses_and_doubles_nothing(tmp_path, checkpoint, model, receiver):
    assert_nothing_lost_or_doubled(tmp_path, checkpoint, model, receiver, closes=16, kills=1)


@pytest.mark.minutes
def test_twenty_kills_in_200_closes_lose_and_double_nothing(tmp_path, checkpoint, model, receiver):
    assert_nothing_lost_or_doubled(tmp_path, checkpoint, model, receiver, closes=200, kills=20)


def test_a_record_has_one_writer_and_any_number_of_readers(tmp_path, model):
    first = operation_of(tmp_path, model)
    with pytest.raises(InUseError, match="in use by process"):
        operation_of(tmp_path, model)
    LiveRecord(tmp_path / "record.db").close()
    first.close()
    operation_of(tmp_path, model).close()


def test_a_replay_does_not_go_into_the_record_of_an_exchange(tmp_path, model):
    operation_of(tmp_path, model).close()
    with pytest.raises(RecordError, match=r"live\.clock=replay; set live\.record"):
        operation_of(tmp_path, model, feed=object(), clock="exchange")


def test_several_markets_are_followed_in_one_process(tmp_path, model):
    other = hours(5).assign(**{name: hours(5)[name] * 2 for name in ("open", "high", "low", "close", "amount")})
    record = follow(tmp_path, model, {SYMBOL: hours(5), "ETHUSDT": other})
    eth = ACCOUNT.__class__(symbol="ETHUSDT", interval="1h", step=HOUR, name="paper")
    assert [len(record.signals(one)) for one in (ACCOUNT, eth)] == [5, 5]
    assert record.signals(ACCOUNT)[0].up is not None
    assert record.signals(eth)[0].up is None  # the calibration is that of another market
    record.close()


def test_a_halt_by_setting_or_file_is_recorded_with_each_close(tmp_path, model):
    (tmp_path / "HALT").touch()
    record = follow(tmp_path, model, {SYMBOL: hours(2)})
    assert [row.halted for row in record.signals(ACCOUNT)] == [True, True]
    record.close()
    (tmp_path / "HALT").unlink()
    record = follow(tmp_path, model, {SYMBOL: hours(3)})
    assert [row.halted for row in record.signals(ACCOUNT)] == [True, True, False]
    record.close()
    record = follow(tmp_path, model, {SYMBOL: hours(4)}, halt=True)
    assert [row.halted for row in record.signals(ACCOUNT)] == [True, True, False, True]
    record.close()


def test_the_export_is_an_evaluation_of_the_live_forecasts(tmp_path, checkpoint, model):
    record = follow(tmp_path, model, {SYMBOL: hours(15)})
    command("kronos_lightning.live", "export=out", "data=btc_1h", f"live.record={tmp_path / 'record.db'}", cwd=tmp_path)
    found = ForecastSet.load(tmp_path / "out")
    assert len(found) == 15 - HORIZON
    exported = decisions(found, DecisionSettings.of(tmp_path / "out").build_strategy())
    for row, one in zip(record.signals(ACCOUNT), exported, strict=False):
        recorded_decision = record.read_close(ACCOUNT, row.id).decision
        assert one.summary() == recorded_decision.summary()
        assert np.array_equal(one.paths, recorded_decision.paths)
    assert np.array_equal(found.actual_close[0], hours()["close"].iloc[LOOKBACK : LOOKBACK + HORIZON])
    summary = track_record(record, ACCOUNT, model.id, HORIZON)
    assert (summary.n, summary.late, summary.state) == (3, 0, "warming")
    record.close()


def test_another_interval_than_that_of_the_checkpoint_ends_in_one_line(checkpoint, tmp_path):
    arguments = ["data=btc", f"checkpoint={checkpoint}", "device=cpu"]
    result = command("kronos_lightning.live", *arguments, cwd=tmp_path, check=False)
    assert result.returncode == 1
    assert "data.interval=1d: the checkpoint decides on candles of 1h" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["live.clock=none", "checkpoint=x"], "nothing to follow"),
        (["live.speed=2", "checkpoint=x"], "speed and start are for a replay"),
        ([], "set checkpoint=DIR"),
    ],
)
def test_settings_that_cannot_work_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        check_following(composed("live", *arguments))


def test_a_replay_begins_where_it_is_told_and_an_account_of_its_own_begins_anew(tmp_path, model):
    start = hours()["timestamps"].iloc[LOOKBACK + 2]
    record = follow(tmp_path, model, {SYMBOL: hours(6)}, start=f"{start:%Y-%m-%d %H:%M}")
    assert record.signals(ACCOUNT)[0].cutoff + HOUR == start
    record.close()
    record = follow(tmp_path, model, {SYMBOL: hours(6)}, account="second", initial_equity=5.0)
    (second,) = accounts_of([SYMBOL], "1h", "second")
    assert len(record.signals(second)) == 6
    assert [Terms.read(record, one).initial_equity for one in (ACCOUNT, second)] == [1000.0, 5.0]
    record.close()


def test_a_replay_keeps_its_speed(tmp_path, model):
    running = operation_of(tmp_path, model, speed=2.0)
    assert running._feed.rate == 2 * 3600  # two hourly candles a second
    running.close()


def test_the_webhook_is_tried_as_often_as_told(tmp_path, model, monkeypatch):
    monkeypatch.setenv("KRONOS_WEBHOOK_URL", "http://127.0.0.1:1/x")
    made = []
    monkeypatch.setattr(operation, "Deliverer", lambda *arguments: made.append(arguments[2:]) or Receiver)
    monkeypatch.setattr(Receiver, "run", lambda stop: None, raising=False)
    operation_of(tmp_path, model, webhook_timeout=3.0, webhook_attempts=4).close()
    assert made == [(3.0, 4)]
