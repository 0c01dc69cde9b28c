"""Passwords planted in a configuration are in no file and on no terminal of a run, sweep, evaluation or export."""

import pytest

from tests.helpers.commands import QUICK_EVALUATE, QUICK_TRAIN, command

WORD, RUN = "PLANTED", "runs/one"
SECRETS = [
    f"data.binance.proxy=http://user:{WORD}1@127.0.0.1:9",
    f"data.binance.rest_url=http://user:{WORD}2@127.0.0.1:9/x",
]
FEW = ["evaluation.max_cutoffs=20", "calibration.max_cutoffs=30", "calibration.temperatures=[1.0]"]


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("secrets")
    train = [*QUICK_TRAIN, *SECRETS, "stage.max_epochs=1", "hydra.output_subdir=.hydra", "logger=tensorboard"]
    runs = [
        command(
            "train.py", "-m", *train, "stage.learning_rate=choice(1e-3)", "stage=predictor", f"run_dir={RUN}", cwd=cwd
        ),
        command("evaluate.py", "-m", *QUICK_EVALUATE, *FEW, *SECRETS, f"predictor={RUN}", "seed=1", cwd=cwd),
        command("kronos_lightning.export", RUN, "evaluation=null", cwd=cwd),
    ]
    return cwd, runs


def test_no_file_holds_a_planted_password(planted):
    cwd, _ = planted
    files = [path for path in cwd.rglob("*") if path.is_file()]
    assert {"config.json", "last.ckpt", "sweep.json", "multirun.yaml", "README.md"} <= {path.name for path in files}
    assert [str(path) for path in files if WORD.encode() in path.read_bytes()] == []


def test_no_output_tells_a_planted_password(planted):
    _, runs = planted
    assert not any(WORD in run.stdout + run.stderr for run in runs)
