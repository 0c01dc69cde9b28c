"""A service on the golden networks, in this process and as a program of its own."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime

import httpx
import uvicorn
from starlette.testclient import TestClient

from kronos_lightning.serve.access import Keys, RateLimit
from kronos_lightning.serve.app import Service, create_app
from kronos_lightning.serve.batching import Batcher
from kronos_lightning.serve.metrics import Metrics
from kronos_lightning.serve.model_holder import ModelHolder
from tests.helpers.commands import shell_variables
from tests.helpers.evaluated import LOOKBACK, btc_hours

NOW = datetime(2024, 4, 25, 21, 0, tzinfo=UTC)  # the last golden hour has just closed
ORIGIN = "http://localhost:8000"


def rows(last=299, count=LOOKBACK, amount=True):
    """Candles of a body: `count` golden hours up to row `last`."""
    frame = btc_hours().frame.iloc[last - count + 1 : last + 1]
    names = ["open", "high", "low", "close", "volume", *["amount"] * amount]
    return [
        {"timestamp": row.timestamps.isoformat(), **{name: getattr(row, name) for name in names}}
        for row in frame.itertuples()
    ]


def service_of(folder, **changes):
    """Parts of a service on an evaluated checkpoint; its clock stands at the end of the golden hours."""
    metrics, limits = Metrics(), {"max_batch": 32, "max_queue": 256, "wait": 0.002, "threads": 1}
    limits |= {name: changes.pop(name) for name in list(changes) if name in limits}
    parts = {
        "models": changes.pop("models", None) or ModelHolder(folder, "cpu"),
        "batcher": Batcher(**limits, measured=metrics.batch),
        "metrics": metrics,
        "keys": Keys(changes.pop("keys", None)),
        "limit": RateLimit(changes.pop("limit", None)),
        "clock": lambda: NOW,
    }
    return Service(**parts | changes)


@contextmanager
def client_of(service, **options):
    with TestClient(create_app(service), base_url=ORIGIN, raise_server_exceptions=False, **options) as client:
        yield client


@contextmanager
def listening(service):
    """A service in a thread of this process on a free port; yields its address."""
    options = {"host": "127.0.0.1", "port": 0, "log_config": None, "access_log": False}
    server = uvicorn.Server(uvicorn.Config(create_app(service), **options))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.02)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)


@contextmanager
def running(*arguments, cwd, **variables):
    """A service in a process of its own on a free port; yields its address and the process."""
    log = cwd / "service.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "kronos_lightning.serve", *arguments, "port=0"],
            cwd=cwd, env=shell_variables(**variables), stdout=output, stderr=output,
        )  # fmt: skip
    try:
        yield _address(process, log), process
    finally:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _address(process, log):
    for _ in range(600):
        text = log.read_text()
        if "running on http://" in text:
            address = "http://" + text.split("running on http://")[1].split(" ")[0].split('"')[0]
            if httpx.get(f"{address}/readyz").status_code == 200:
                return address
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise AssertionError(f"the service did not start: {log.read_text()[-2000:]}")
