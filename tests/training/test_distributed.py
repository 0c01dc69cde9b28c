"""Two processes compute what one does, from the command line."""

import json

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.commands import QUICK_TRAIN, command, without

COMMON = without(QUICK_TRAIN, "trainer", "data.batch_size", "logger")
NO_DROPOUT = ["model.predictor.ffn_dropout_p=0.0", "model.predictor.resid_dropout_p=0.0"]
ONE = ["trainer=cpu", "data.batch_size=40"]
TWO = ["trainer=ddp_cpu", "data.batch_size=20"]  # the same global batch
SHARDED = ["trainer=fsdp", "trainer.accelerator=cpu", "trainer.devices=2", "data.batch_size=20"]


def train(cwd, run_dir, *arguments):
    command("train.py", *COMMON, *NO_DROPOUT, f"run_dir={run_dir}", *arguments, cwd=cwd)
    info = json.loads((cwd / run_dir / "run_info.json").read_text())
    weights = load_file(cwd / run_dir / "checkpoints" / "last_model" / "model.safetensors")
    return info["metrics"], weights


@pytest.fixture(scope="module")
def cwd(tmp_path_factory):
    return tmp_path_factory.mktemp("ddp")


@pytest.fixture(scope="module", params=["tokenizer", "predictor"])
def runs(request, cwd):
    stage = [f"stage={request.param}", "stage.learning_rate=1e-3"]
    if request.param == "predictor":
        stage.append("stage.frozen_tokenizer=tokenizer_one")
    one = train(cwd, f"{request.param}_one", *stage, *ONE)
    return stage, request.param, one, train(cwd, f"{request.param}_two", *stage, *TWO)


def test_two_processes_train_to_the_weights_of_one_with_the_same_global_batch(runs):
    _, _, (one, weights_one), (two, weights_two) = runs
    assert two["val/loss"] == pytest.approx(one["val/loss"], abs=1e-4)
    for key in weights_one:
        torch.testing.assert_close(weights_two[key], weights_one[key], atol=1e-4, rtol=0)


def test_two_processes_validate_to_the_metrics_of_one_for_the_same_weights(runs, cwd):
    """The checkpoint is chosen and the run stopped by the forecasts' score, which one process measures."""
    stage, name, *_ = runs
    unchanged = [f"init_from={name}_one", "stage.learning_rate=1e-30", "stage.max_epochs=1"]
    by_score = "callbacks.best.monitor=val/crps"
    one, two = (
        train(cwd, f"{name}_again", *stage[:1], *stage[2:], *unchanged, by_score, *processes)[0]
        for processes in (ONE, TWO)
    )
    assert two["val/loss"] == pytest.approx(one["val/loss"], abs=1e-6)
    assert two["val/crps"] == pytest.approx(one["val/crps"], abs=1e-6)


def test_two_processes_share_one_output_folder(runs, cwd):
    _, name, *_ = runs
    run = cwd / f"{name}_two"
    assert {p.name for p in run.iterdir()} == {"checkpoints", "config.json", "logs", "run_info.json"}
    assert len(list((run / "logs").glob("events.out.tfevents.*"))) == 1
    assert not list(cwd.glob(f"{name}_two.*"))


@pytest.mark.parametrize("runs", ["predictor", pytest.param("tokenizer", marks=pytest.mark.minutes)], indirect=True)
def test_two_processes_that_share_the_weights_out_train_to_those_of_two_that_have_them_all(runs, cwd):
    """Stopped in the middle and resumed, so that shares are put together into a checkpoint and dealt out again."""
    stage, name, _, (two, expected) = runs
    stop = "+callbacks.send={_target_: tests.helpers.signals.SendSignal, hook: on_train_batch_end, count: 20, \
signal_name: SIGTERM}"
    arguments = [*COMMON, *NO_DROPOUT, *stage, *SHARDED, f"run_dir={name}_shared"]
    stopped = command("train.py", *arguments, stop, cwd=cwd, check=False)
    assert stopped.returncode == 143, stopped.stderr
    metrics, weights = train(cwd, f"{name}_shared", *stage, *SHARDED, "resume=auto")
    assert metrics == pytest.approx(two, abs=1e-5)
    assert weights.keys() == expected.keys()
    for key in expected:
        torch.testing.assert_close(weights[key], expected[key], atol=1e-5, rtol=0)
