"""The program: starts with one command, ends on SIGTERM after the running requests, and says in one line why not."""

import json
import os
import re
import signal
import threading

import httpx
import pytest

from kronos_lightning.config.validation import check_serving
from kronos_lightning.errors import KronosError
from kronos_lightning.serve.server import build_service
from tests.helpers.commands import command
from tests.helpers.configuration import composed
from tests.helpers.evaluated import HOURS, calibration_of, evaluated_checkpoint
from tests.helpers.service import rows, running


def test_the_service_starts_answers_and_ends_with_zero_after_its_requests(checkpoint, tmp_path):
    with running(f"checkpoint={checkpoint}", "report=null", cwd=tmp_path) as (address, process):
        assert httpx.get(f"{address}/healthz").json()["status"] == "ok"
        body, answers = {"candles": rows(), "num_paths": 200, "horizon": 60}, []
        send = lambda: answers.append(httpx.post(f"{address}/btc/predict", json=body, timeout=60))  # noqa: E731
        clients = [threading.Thread(target=send) for _ in range(3)]
        for one in clients:
            one.start()
        while httpx.get(f"{address}/metrics").text.count('route="/healthz",status="200"') == 0:
            pass
        threading.Event().wait(0.2)
        os.kill(process.pid, signal.SIGTERM)
        for one in clients:
            one.join(60)
        assert process.wait(30) == 0
        assert [one.status_code for one in answers] == [200] * 3
    lines = (tmp_path / "service.log").read_text().splitlines()
    assert all(json.loads(line)["time"] for line in lines)


def settings_of(*arguments):
    return check_serving(composed("serve", "device=cpu", *arguments))


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        ("not evaluated", [], "no decision.json; run evaluate.py on this checkpoint first"),
        ("other weights", [], "written for another predictor"),
        ("other code", [], "is not of this package; set trusted_strategy="),
        ("nothing", ["host=0.0.0.0"], "host=0.0.0.0: other machines could use this service"),
        ("nothing", ["report=nowhere"], "report=nowhere: no forecasts of an evaluation there"),
        ("nothing", ["candles=nowhere.csv"], "candles=nowhere.csv: nowhere.csv: no such file"),
        ("nothing", ["rate_limit=often"], "rate_limit=often"),
    ],
    ids=["not evaluated", "other weights", "other code", "host", "report", "candles", "rate"],
)
def test_what_cannot_be_served_is_told_before_anything_listens(change, arguments, message, tmp_path):
    evaluated_checkpoint(tmp_path, calibration_of())
    path = tmp_path / "decision.json"
    decision = json.loads(path.read_text())
    if change == "not evaluated":
        path.unlink()
    elif change == "other weights":
        decision["weights"]["predictor"] = "0" * 64
        path.write_text(json.dumps(decision))
    elif change == "other code":
        decision["strategy"] = {"_target_": "os.system"}
        path.write_text(json.dumps(decision))
    with pytest.raises(KronosError, match=re.escape(message)):
        build_service(settings_of(f"checkpoint={tmp_path}", *arguments))


def test_every_setting_of_the_service_changes_it(checkpoint, monkeypatch):
    monkeypatch.setenv("KRONOS_API_KEYS", "desk:a-secret-of-sixteen")
    changes = ["threads=2", "max_batch=3", "batch_wait=0.5", "max_queue=7", "max_body=99", "rate_limit=5/minute"]
    service = build_service(settings_of(f"checkpoint={checkpoint}", "host=0.0.0.0", f"candles={HOURS}", *changes))
    batcher = service.batcher
    assert (batcher.threads, batcher.max_batch, batcher.wait, batcher._waiting.maxsize) == (2, 3, 0.5, 7)
    assert (service.max_body, service.limit.retry_after, len(service.candles)) == (99, "60", 300)
    batcher.close()


def test_a_start_that_fails_ends_with_one_line(tmp_path):
    result = command("kronos_lightning.serve", "nowhere", cwd=tmp_path, check=False)
    assert (result.returncode, result.stderr) == (1, "error: checkpoint=nowhere: no such directory\n")
