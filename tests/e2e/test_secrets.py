"""Passwords planted in a configuration are in no file and on no terminal of a run, sweep, evaluation or export."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.helpers.commands import QUICK_EVALUATE, QUICK_TRAIN, command, without

WORD, RUN, OWN = "PLANTED", "runs/one", "own"
SECRETS = [
    f"data.binance.proxy=http://user:{WORD}1@127.0.0.1:9",
    f"data.binance.rest_url=http://user:{WORD}2@127.0.0.1:9/x",
]
FEW = [
    *("evaluation.max_cutoffs=20", "evaluation.baselines=[drift]", "evaluation.bootstrap_samples=20"),
    *("calibration.max_cutoffs=30", "calibration.temperatures=[1.0]", "backtest.random_runs=2"),
]


class Tracking(BaseHTTPRequestHandler):
    """Server of MLflow that agrees to everything; `asked` keeps the requests with what authorises them."""

    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        run = {"run_id": "1", "run_uuid": "1", "experiment_id": "1", "status": "RUNNING", "start_time": 0}
        run["artifact_uri"] = self.server.store.as_uri()
        experiment = {"experiment_id": "1", "name": "kronos", "lifecycle_stage": "active"}
        body = json.dumps({"experiment": experiment, "run": {"info": run, "data": {}}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PATCH = answer

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("secrets")
    tracking = ThreadingHTTPServer(("127.0.0.1", 0), Tracking)
    tracking.asked, tracking.store = [], cwd / "artifacts"
    threading.Thread(target=tracking.serve_forever, daemon=True).start()
    own = cwd / OWN / "experiment"
    own.mkdir(parents=True)
    uri = f"http://user:{WORD}3@127.0.0.1:{tracking.server_port}"
    (own / "hosts.yaml").write_text(f"# @package data.binance\narchive_url: http://user:{WORD}4@127.0.0.1:9\n")
    (own / "tracked.yaml").write_text(
        f"# @package _global_\ndefaults: [hosts]\nlogger: {{mlflow: {{tracking_uri: '{uri}'}}}}\n"
    )
    train = [*without(QUICK_TRAIN, "logger"), "logger=[csv,mlflow]", *SECRETS, "stage.max_epochs=1"]
    mine = [f"hydra.searchpath=[file://{cwd / OWN}]", "hydra.output_subdir=.hydra"]
    rates, stage = "stage.learning_rate=choice(1e-3)", ["stage=predictor", f"run_dir={RUN}"]
    runs = [
        command("train.py", "-m", *train, *mine, "experiment=tracked", rates, *stage, cwd=cwd),
        command(
            "evaluate.py",
            "-m",
            *QUICK_EVALUATE,
            *FEW,
            *SECRETS,
            *mine,
            "experiment=hosts",
            f"predictor={RUN}",
            "seed=1",
            cwd=cwd,
        ),
        command("kronos_lightning.export", RUN, "evaluation=null", cwd=cwd),
    ]
    tracking.shutdown()
    return cwd, runs, tracking.asked


def test_no_file_holds_a_planted_password(planted):
    cwd, *_ = planted
    files = [path for path in cwd.rglob("*") if path.is_file() and OWN not in path.relative_to(cwd).parts]
    names = {"config.json", "last.ckpt", "sweep.json", "multirun.yaml", "config.yaml", "hydra.yaml", "README.md"}
    assert names <= {path.name for path in files}
    assert [str(path) for path in files if WORD.encode() in path.read_bytes()] == []


def test_no_output_tells_a_planted_password(planted):
    _, runs, _ = planted
    told = "\n".join(run.stdout + run.stderr for run in runs)
    assert [line for line in told.splitlines() if WORD in line] == []


def test_the_server_that_a_password_is_for_gets_it(planted):
    *_, asked = planted
    assert asked
    assert all(authorization.startswith("Basic ") for _, authorization in asked)
