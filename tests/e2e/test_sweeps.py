"""Sweeps as a user runs them: one trial fails, everything is interrupted, it goes on, the table is complete."""

import json
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.helpers.commands import QUICK_TRAIN, command, shell_variables, without
from tests.helpers.paths import ROOT
from tests.helpers.runs import MODELS, info

RUN = "finetune_tokenizer_sample-learning_rate="


def sweep_until(cwd, arguments, rate, number):
    """Send the whole process group a signal as soon as the trial with this rate has begun to train."""
    with (cwd / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "train.py"), "-m", *arguments],
            cwd=cwd, env=shell_variables(), stdout=log, stderr=log, start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip
    checkpoint = cwd / MODELS / f"{RUN}{rate}" / "checkpoints" / "last.ckpt"
    try:
        while not checkpoint.exists() and process.poll() is None:
            time.sleep(0.05)
        assert process.poll() is None, (cwd / "log").read_text()
        os.killpg(process.pid, number)
        process.wait()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return process.returncode, (cwd / "log").read_text()


def table(cwd):
    (folder,) = (cwd / "outputs" / "sweeps").glob("[!.]*")
    return pd.read_csv(folder / "sweep.csv")


def test_an_interrupted_sweep_with_a_failing_trial_goes_on_to_a_complete_table(tmp_path):
    sweep = [*QUICK_TRAIN, "stage.learning_rate=1e-3,1e30,-1,1e-2", "stage.max_epochs=12", "stage.patience=12"]
    code, output = sweep_until(tmp_path, sweep, "0.01", signal.SIGINT)
    assert code == 130, output
    assert "To continue it, run:\npython" in output
    assert sorted(table(tmp_path)["status"].str.partition(":")[0]) == ["failed", "failed", "finished", "interrupted"]
    first = info(tmp_path / MODELS / f"{RUN}0.001")

    result = command("train.py", "-m", *sweep, "resume=auto", cwd=tmp_path, check=False)
    assert result.returncode == 1, result.stderr
    assert "2 of 4 trials failed" in result.stderr + result.stdout
    assert "[HYDRA]" not in result.stderr + result.stdout  # lines of Hydra's and of ours look alike
    assert info(tmp_path / MODELS / f"{RUN}0.001") == first
    rows = table(tmp_path)
    assert list(rows["status"].str.partition(":")[0]) == ["finished", "finished", "failed", "failed"]
    assert rows["val/loss"].dropna().is_monotonic_increasing


@pytest.mark.minutes
def test_a_killed_sweep_with_two_processes_in_each_trial_goes_on_to_a_complete_table(tmp_path):
    arguments = without(QUICK_TRAIN, "trainer", "logger")
    sweep = [
        *arguments,
        "trainer=ddp_cpu",
        "stage.max_epochs=4",
        "stage.learning_rate=-1,1e-3,1e-2",
    ]
    code, _ = sweep_until(tmp_path, sweep, "0.001", signal.SIGKILL)
    assert code == -signal.SIGKILL
    result = command("train.py", "-m", *sweep, "resume=auto", cwd=tmp_path, check=False)
    assert result.returncode == 1, result.stderr
    rows = table(tmp_path)
    assert list(rows["status"].str.partition(":")[0]) == ["finished", "finished", "failed"]
    assert rows["val/loss"].dropna().nunique() == 2
    for rate in (1e-3, 1e-2):
        run = tmp_path / MODELS / f"{RUN}{rate}"
        assert json.loads((run / "config.json").read_text())["stage"]["learning_rate"] == rate
        assert info(run)["status"] == "finished"
        events = EventAccumulator(str(run / "logs")).Reload()
        assert max(e.value for e in events.Scalars("lr-AdamW/pg1")) <= rate * 1.001


def test_a_study_of_optuna_runs_its_trials_in_parallel(tmp_path):
    command(
        "train.py", *QUICK_TRAIN, "stage.max_epochs=1", "sweep=tokenizer", "hydra/sweeper=optuna",
        "hydra/launcher=parallel", "hydra.sweeper.trials=2", cwd=tmp_path,
    )  # fmt: skip
    rows = table(tmp_path)
    assert list(rows["status"]) == ["finished"] * 2
    (folder,) = (tmp_path / "outputs" / "sweeps").glob("[!.]*")
    assert {path.name for path in folder.glob("[!.]*")} == {
        "best.sh",
        "study.db",
        "sweep.csv",
        "sweep.json",
        "sweep.png",
    }
