"""Two commands at once in one place: one is refused and told by whom, or both results are whole."""

import json
import os
import random
import re
import time
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest

from tests.helpers.commands import QUICK_EVALUATE, QUICK_TRAIN, shell_variables
from tests.helpers.exchange import Exchange, made_up_rows
from tests.helpers.forking_server import Server
from tests.helpers.paths import ROOT
from tests.helpers.runs import MODELS

pytestmark = pytest.mark.minutes

REPETITIONS = int(os.environ.get("RACES", "30"))
LONGEST_START = 1.0  # most seconds from the first command to the second
TRAIN = [*QUICK_TRAIN, "stage.max_epochs=1"]
EVALUATE = [
    *(*QUICK_EVALUATE, "trainer=cpu", "predictor=p", "tokenizer=t", "evaluation.baselines=[drift]"),
    *("calibration.max_cutoffs=30", "calibration.temperatures=[1.0]", "evaluation.bootstrap_samples=20"),
]


@pytest.fixture(scope="module")
def racers():
    servers = Server(dict(os.environ)), Server(dict(os.environ))

    def race(cwd, *commands):
        """Run two commands, one up to a second later than the other, or a single one."""
        delays = random.sample([0.0, random.choice([0.0, random.uniform(0, LONGEST_START)])], 2)

        def run(server, delay, command):
            time.sleep(delay)
            script, *arguments = command
            program = str(ROOT / script) if script.endswith(".py") else script
            return server.run([program, *arguments], cwd, shell_variables(), 300)

        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(run, servers, delays, commands))

    yield race
    for server in servers:
        server.process.kill()


def refused(result, reason="in use by process"):
    """Return whether a command ended with this reason; any other failure fails the test."""
    assert result.returncode in (0, 1), result.stderr
    assert not result.returncode or reason in result.stderr + result.stdout, result.stderr
    assert "Traceback" not in result.stderr
    return bool(result.returncode)


def told(kind, refusals):
    print(f"{kind}: {REPETITIONS} repetitions, {sum(refusals)} refused, 0 mixed up")


def trained(run):
    """What a training leaves that its seed and settings decide."""
    found = json.loads((run / "run_info.json").read_text())
    assert found["status"] == "finished"
    assert not list(run.glob(".tmp*"))
    config = json.loads((run / "config.json").read_text())
    best = (run / "checkpoints" / "best_model" / "model.safetensors").read_bytes()
    return config["seed"], config["data"]["horizon"], found["metrics"], best


def whole(cwd, place, read, expected, refusals):
    """Check that each folder of a place holds one of the expected results, and as many as commands that succeeded."""
    found = [read(folder) for folder in cwd.glob(f"{place}*")]
    assert all(one in expected for one in found)
    assert len(found) == len(refusals) - sum(refusals)
    if len(found) == len(expected):
        assert found[0] != found[1]


@pytest.mark.parametrize("place", ["one folder", "one data set"])
def test_two_trainings(racers, tmp_path, place):
    shared = place == "one folder"
    changes = ["seed=1", "seed=2"] if shared else ["data.horizon=4", "data.horizon=5"]
    expected = []
    for i, change in enumerate(changes):
        cwd = tmp_path / f"alone{i}"
        cwd.mkdir()
        racers(cwd, ["train.py", *TRAIN, change, "run_dir=run"])
        expected.append(trained(cwd / "run"))
    refusals = []
    for i in range(REPETITIONS):
        (cwd := tmp_path / str(i)).mkdir()
        runs = ["run", "run"] if shared else ["run1", "run2"]
        both = [["train.py", *TRAIN, change, f"run_dir={run}"] for change, run in zip(changes, runs, strict=True)]
        ended = [refused(result) for result in racers(cwd, *both)]
        whole(cwd, "run", trained, expected, ended)
        refusals += ended
    assert shared or not any(refusals)
    told(f"trainings into {place}", refusals)


def evaluated(folder):
    found = json.loads((folder / "metrics.json").read_text())
    return found["figures"], (folder / "paths.npy").read_bytes(), sorted(path.name for path in folder.iterdir())


def test_two_evaluations(racers, tmp_path, tiny_tokenizer, tiny_predictor):
    def made(name):
        tiny_tokenizer.save_pretrained(tmp_path / name / "t")
        tiny_predictor.save_pretrained(tmp_path / name / "p")
        return tmp_path / name

    changes = ["seed=1", "seed=2"]
    expected = []
    for change in changes:
        cwd = made(f"alone{change}")
        racers(cwd, ["evaluate.py", *EVALUATE, change, "evaluation.output_dir=report"])
        expected.append(evaluated(cwd / "report"))
    refusals = []
    for i in range(REPETITIONS):
        cwd = made(str(i))
        both = [["evaluate.py", *EVALUATE, change, "evaluation.output_dir=report"] for change in changes]
        ended = [refused(result) for result in racers(cwd, *both)]
        whole(cwd, "report", evaluated, expected, ended)
        refusals += ended
    told("evaluations into one folder", refusals)


def swept(folder):
    return set(pd.read_csv(folder / "sweep.csv")["stage.learning_rate"])


@pytest.mark.parametrize("place", ["one folder", "the same runs"])
def test_two_sweeps(racers, tmp_path, place):
    rates = {0.001, 0.002}, ({0.003, 0.004} if place == "one folder" else {0.001, 0.002})
    sweeps = [["train.py", "-m", *TRAIN, f"stage.learning_rate={','.join(map(str, sorted(one)))}"] for one in rates]
    (cwd := tmp_path / "alone").mkdir()
    for sweep in sweeps:
        racers(cwd, sweep)
    expected = {run.name: trained(run) for run in (cwd / MODELS).glob("[!.]*")}
    refusals = []
    for i in range(REPETITIONS):
        (cwd := tmp_path / str(i)).mkdir()
        if place == "one folder":
            both = [[*sweep, "hydra.sweep.dir=sweep"] for sweep in sweeps]
            ended = [refused(one, ", or set another hydra.sweep.dir") or refused(one) for one in racers(cwd, *both)]
            assert sum(ended) == 1
            assert swept(cwd / "sweep") == rates[ended.index(False)]
        else:
            both = [[*sweep, f"hydra.sweep.dir=sweep{n}"] for n, sweep in enumerate(sweeps)]
            ended = [refused(one) for one in racers(cwd, *both)]
            assert all(swept(cwd / f"sweep{n}") == rates[n] for n in range(2))
        runs = {run.name: trained(run) for run in (cwd / MODELS).glob("[!.]*")}
        assert all(found == expected[re.sub(r"\.20\d\d-.*", "", name)] for name, found in runs.items())
        refusals += ended
    told(f"sweeps into {place}", refusals)


def test_two_downloads(racers, tmp_path):
    series = {("BTCUSDT", "1d"): made_up_rows("2024-01-01", "1d", 90)}
    exchange = Exchange(series)
    exchange.publish("BTCUSDT", "1d", "monthly", "2024-02")
    wanted = [
        "kronos_lightning.data.binance", "symbol=BTCUSDT", "interval=1d",
        f"archive_url={exchange.url}", f"rest_url={exchange.url}",
    ]  # fmt: skip
    spans = ["start=2024-01-10", "end=2024-02-10"], ["start=2024-01-20", "end=2024-03-10"]
    both = [[*wanted, *span] for span in spans]

    def downloaded(cwd):
        return [(cwd / "csv" / f"BTCUSDT_1d.{suffix}").read_bytes() for suffix in ("csv", "parquet")]

    (cwd := tmp_path / "alone").mkdir()
    racers(cwd, [*wanted, "start=2024-01-10", "end=2024-03-10"])
    expected = downloaded(cwd)
    for i in range(REPETITIONS):
        (cwd := tmp_path / str(i)).mkdir()
        assert not any(result.returncode for result in racers(cwd, *both))
        assert downloaded(cwd) == expected
    exchange.close()
    told("downloads of one series", [])
