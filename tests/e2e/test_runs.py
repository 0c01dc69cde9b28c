"""What happens around a run: repeated, stopped, resumed, swept."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pandas as pd
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.conftest import QUICK_TRAIN, ROOT, command

MODELS = "outputs/models"


def info(run_dir):
    return json.loads((run_dir / "run_info.json").read_text())


def test_a_second_run_moves_the_first_aside(tmp_path):
    run = tmp_path / "run"
    for _ in range(2):
        result = command("train.py", *QUICK_TRAIN, "stage.max_epochs=1", f"run_dir={run}", cwd=tmp_path)
    others = [path for path in tmp_path.iterdir() if path.name.startswith("run.")]
    assert len(others) == 1
    assert info(others[0])["status"] == info(run)["status"] == "finished"
    assert f"The earlier run was moved to {others[0]}" in result.stderr


def last_weights(run):
    return load_file(run / "checkpoints" / "last_model" / "model.safetensors")


def test_a_killed_run_resumes_to_the_weights_of_an_undisturbed_one(tmp_path):
    arguments = [*QUICK_TRAIN, "stage.max_epochs=6", "stage.learning_rate=1e-2", "trainer.log_every_n_steps=1"]
    command("train.py", *arguments, "run_dir=whole", cwd=tmp_path)
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *arguments, "run_dir=cut"],
        cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not (tmp_path / "cut" / "checkpoints" / "last_model").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert info(tmp_path / "cut")["status"] == "running"
    result = command("train.py", *arguments, "run_dir=cut", "resume=auto", cwd=tmp_path)
    assert info(tmp_path / "cut")["status"] == "finished", result.stderr
    whole, cut = last_weights(tmp_path / "whole"), last_weights(tmp_path / "cut")
    for key in whole:
        torch.testing.assert_close(cut[key], whole[key], atol=1e-6, rtol=0)
    again = command("train.py", *arguments, "run_dir=cut", "resume=auto", cwd=tmp_path)
    assert "is finished, nothing to resume" in again.stderr


def test_what_follows_a_tokenizer_run(tmp_path):
    command("train.py", *QUICK_TRAIN, cwd=tmp_path)
    run = tmp_path / MODELS / "finetune_tokenizer_sample"

    # Of other data: not used, and said so.
    result = command(
        "train.py", *QUICK_TRAIN, "stage=predictor", "stage.max_epochs=1", "data.sample.seed=8", cwd=tmp_path
    )
    assert "was fine-tuned on other data or split ranges" in result.stderr
    assert "random (kronos-tiny size)" in info(tmp_path / MODELS / "finetune_predictor_sample")["tokenizer"]

    # Unfinished: not taken for a result.
    (run / "run_info.json").write_text(json.dumps(info(run) | {"status": "running"}))
    result = command("train.py", *QUICK_TRAIN, "stage=predictor", cwd=tmp_path, check=False)
    assert result.returncode == 1
    assert "was not finished: continue it with resume=auto" in result.stderr

    # Resumed with another number of steps: refused.
    result = command("train.py", *QUICK_TRAIN, "stage.max_epochs=5", "resume=auto", cwd=tmp_path, check=False)
    assert result.returncode != 0
    assert "the resumed run was planned for" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_sweep_over_learning_rates_ends_with_a_table_and_keeps_every_run(tmp_path):
    result = command(
        "train.py", "-m", *QUICK_TRAIN, "stage.max_epochs=1", "stage.learning_rate=1e-3,1e-2", cwd=tmp_path
    )
    names = {path.name for path in (tmp_path / MODELS).iterdir()}
    assert names == {f"finetune_tokenizer_sample-learning_rate={rate}" for rate in ("0.001", "0.01")}
    table = pd.read_csv(next((tmp_path / "outputs" / "sweeps").rglob("sweep.csv")))
    assert table["val/loss"].is_monotonic_increasing
    assert set(table["overrides"]) == {"stage.learning_rate=0.001", "stage.learning_rate=0.01"}
    assert "stage.learning_rate=0.01" in result.stdout.replace("\n", "")


def test_a_multirun_with_two_processes_trains_each_run_on_its_own_parameters(tmp_path):
    arguments = [a for a in QUICK_TRAIN if not a.startswith("trainer=")]
    command("train.py", "-m", *arguments, "trainer=ddp_sim", "stage.max_epochs=1", "stage.learning_rate=1e-3,1e-2",
            "trainer.log_every_n_steps=1", cwd=tmp_path)  # fmt: skip
    runs = sorted((tmp_path / MODELS).iterdir())
    assert len(runs) == 2
    assert len(list((tmp_path / "outputs" / "sweeps").iterdir())) == 1
    for run in runs:
        rate = float(run.name.rpartition("=")[2])
        assert json.loads((run / "config.json").read_text())["stage"]["learning_rate"] == rate
        assert info(run)["status"] == "finished"
        events = EventAccumulator(str(run / "logs")).Reload()
        assert max(e.value for e in events.Scalars("lr-AdamW/pg1")) <= rate * 1.001
    assert info(runs[0])["metrics"]["val/loss"] != info(runs[1])["metrics"]["val/loss"]


def interrupted(process):
    """Press Ctrl-C until it ends: Python drops an interrupt that falls into a weak reference's callback."""
    errors = ""
    try:
        for _ in range(4):
            process.send_signal(signal.SIGINT)
            try:
                errors = process.communicate(timeout=20)[1]
                break
            except subprocess.TimeoutExpired:
                continue
    finally:
        process.kill()
    return re.sub(r"Exception ignored in.*?KeyboardInterrupt:? *\n", "", errors, flags=re.DOTALL)


def test_ctrl_c_ends_without_a_traceback_and_the_run_can_be_resumed(tmp_path):
    arguments = [*QUICK_TRAIN, "stage.max_epochs=200", "callbacks.early_stopping.patience=200"]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *arguments],
        cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background jobs ignore it
    )  # fmt: skip
    run = tmp_path / MODELS / "finetune_tokenizer_sample"
    deadline = time.monotonic() + 120
    while not (run / "checkpoints" / "last_model").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    errors = interrupted(process)
    assert process.returncode != 0
    assert "Traceback" not in errors
    assert info(run)["status"] == "running"
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] >= 0


def test_an_early_stop_ends_a_run_that_does_not_improve(tmp_path):
    slow = ["stage.learning_rate=1e-30", "stage.patience=2", "stage.max_epochs=50"]
    command("train.py", *QUICK_TRAIN, *slow, "run_dir=run", cwd=tmp_path)
    epochs = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] + 1
    assert epochs <= 5
