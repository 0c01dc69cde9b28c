"""A run that is killed or stopped at any step, and resumed, ends bit for bit as one that nothing disturbed."""

import contextlib
import json
import os
import random
import resource
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.commands import QUICK_TRAIN, command, shell_variables, without
from tests.helpers.paths import ROOT

RUN = [
    *without(QUICK_TRAIN, "callbacks.throughput"),
    "stage.max_epochs=3",
    "stage.learning_rate=1e-2",
    "augmentation=light",
    "regularization.dropout.resid=0.2",
    "data.batch_size=20",
    "trainer.accumulate_grad_batches=2",  # of 27 batches: 14 steps an epoch, the last of one batch
    "callbacks.last.every_n_steps=2",
]
BATCHES = 3 * 27
TWO = ["trainer=ddp_cpu", "data.batch_size=10"]
EVERYTHING = ["regularization.ema=0.9", "regularization.l2_pretrained=0.1", "regularization.volatility=batch"]
KINDS = {
    "predictor, one process": ["stage=predictor", "stage.frozen_tokenizer=tokenizer", "stage.s1_condition=sampled"],
    "tokenizer, two processes": ["stage=tokenizer", *TWO, *EVERYTHING, "logger=tensorboard"],
}
MORE_KINDS = {
    "tokenizer, one process": ["stage=tokenizer", "data.num_workers=1"],
    "predictor, two processes": ["stage=predictor", "stage.frozen_tokenizer=tokenizer", *TWO],
}


def run_until(cwd, arguments, hook, count, signal_name, limits=None, **environment):
    """Train until the process sends itself a signal. Returns the exit code and what it said."""
    send = "{_target_: tests.helpers.signals.SendSignal, hook: %s, count: %d, signal_name: %s}"
    if hook is not None:
        arguments = [*arguments, "+callbacks.send=" + send % (hook, count, signal_name)]
    if limits is None and not environment and TWO[0] not in arguments:
        result = command("train.py", *arguments, cwd=cwd, check=False)
        return result.returncode, result.stderr

    def before() -> None:
        if limits is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limits, limits))

    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *arguments],
        cwd=cwd, env=shell_variables(**environment),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=before,
    )  # fmt: skip
    try:
        code = process.wait(timeout=240)
        if signal_name == "SIGKILL":
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # what it started goes down with it
        return code, process.stderr.read()
    finally:
        process.kill()


def end_of(run):
    """All that a run leaves and that could differ: weights, optimiser, figures, random numbers."""
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    metrics = json.loads((run / "run_info.json").read_text())["metrics"]
    models = {
        name: load_file(run / "checkpoints" / name / "model.safetensors") for name in ("best_model", "last_model")
    }
    state = {key: checkpoint[key] for key in ("state_dict", "optimizer_states", "lr_schedulers", "figures", "resume")}
    return {"metrics": metrics, "models": models, **state}


def differences(one, two, path=""):
    """Where two nests of containers and tensors differ in a single bit."""
    if isinstance(one, dict) and isinstance(two, dict):
        keys = one.keys() | two.keys()
        return [d for key in keys for d in differences(one.get(key), two.get(key), f"{path}/{key}")]
    if isinstance(one, (list, tuple)) and len(one) == len(two):
        return [d for i, pair in enumerate(zip(one, two, strict=True)) for d in differences(*pair, f"{path}/{i}")]
    same = torch.equal(one, two) if isinstance(one, torch.Tensor) else one == two
    return [] if same else [path]


def step_of(checkpoint):
    return torch.load(checkpoint, weights_only=True)["global_step"]


@pytest.fixture(scope="module")
def cwd(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resume")
    command("train.py", *QUICK_TRAIN, "stage=tokenizer", "stage.max_epochs=1", "run_dir=tokenizer", cwd=folder)
    return folder


@pytest.fixture(scope="module", params=[*KINDS, *(pytest.param(k, marks=pytest.mark.minutes) for k in MORE_KINDS)])
def undisturbed(request, cwd):
    arguments = [*RUN, *(KINDS | MORE_KINDS)[request.param]]
    name = request.param.replace(", ", "_").replace(" ", "_")
    command("train.py", *arguments, f"run_dir={name}", cwd=cwd)
    return arguments, cwd / name


@pytest.fixture(scope="module")
def whole(cwd):
    command("train.py", *RUN, "run_dir=whole", cwd=cwd)
    return cwd / "whole"


def kill_and_resume(cwd, undisturbed, batch):
    arguments, whole = undisturbed
    run = cwd / f"{whole.name}_killed"
    code, errors = run_until(cwd, [*arguments, f"run_dir={run}"], "on_train_batch_end", batch, "SIGKILL")
    assert code == -signal.SIGKILL, errors
    assert json.loads((run / "run_info.json").read_text())["status"] == "running"
    result = command("train.py", *arguments, f"run_dir={run}", "resume=auto", cwd=cwd)
    assert differences(end_of(whole), end_of(run)) == [], f"killed after batch {batch}"
    return result


def test_a_run_killed_at_a_random_step_and_resumed_ends_bit_for_bit_as_an_undisturbed_one(undisturbed, cwd):
    result = kill_and_resume(cwd, undisturbed, random.randint(6, BATCHES - 1))
    assert "Resuming from" in result.stderr


@pytest.mark.minutes
def test_so_do_five_more_of_each_kind(undisturbed, cwd):
    chosen = sorted(random.sample(range(1, BATCHES + 1), 5))
    for batch in chosen:
        kill_and_resume(cwd, undisturbed, batch)
    print(f"{undisturbed[1].name}: killed after batches {chosen} of {BATCHES}, all bit-identical")


@pytest.mark.parametrize(
    ("hook", "count", "name"),
    [
        ("on_train_batch_start", 40, "SIGTERM"),
        ("on_validation_batch_start", 5, "SIGINT"),
        pytest.param("on_train_epoch_end", 2, "SIGTERM", marks=pytest.mark.minutes),
    ],
)
def test_a_run_that_is_told_to_stop_saves_ends_cleanly_and_goes_on_exactly(hook, count, name, whole, cwd):
    """In an epoch, in the middle of a validation, between two epochs."""
    arguments = [*RUN, "callbacks.last.every_n_steps=null", f"run_dir=stopped_{hook}"]
    code, errors = run_until(cwd, arguments, hook, count, name)
    assert code == 128 + getattr(signal, name)
    assert "To continue, run the same command" in errors
    assert "Traceback" not in errors
    command("train.py", *arguments, "resume=auto", cwd=cwd)
    assert differences(end_of(whole), end_of(cwd / f"stopped_{hook}")) == []


def test_a_damaged_checkpoint_is_noticed_and_the_one_before_it_used(whole, cwd):
    arguments = [*RUN, "run_dir=damaged"]
    run_until(cwd, arguments, "on_train_batch_end", 45, "SIGINT")
    last, previous = (cwd / "damaged" / "checkpoints" / name for name in ("last.ckpt", "previous.ckpt"))
    assert step_of(previous) < step_of(last)
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.write_bytes(content)
    result = command("train.py", *arguments, "resume=auto", cwd=cwd)
    assert "last.ckpt is damaged and was ignored" in result.stderr
    assert differences(end_of(whole), end_of(cwd / "damaged")) == []

    last.write_bytes(b"")
    previous.unlink()
    (cwd / "damaged" / "run_info.json").unlink()
    result = command("train.py", *arguments, "resume=auto", cwd=cwd, check=False)
    assert result.returncode == 1
    assert "last.ckpt: damaged (BadZipFile: File is not a zip file); set resume=PATH to" in result.stderr


def test_a_run_killed_after_early_stopping_had_spoken_trains_no_further(cwd):
    arguments = [*QUICK_TRAIN, "stage.learning_rate=1e-30", "stage.patience=1", "stage.max_epochs=9", "run_dir=early"]
    code, errors = run_until(cwd, arguments, "on_train_end", 1, "SIGKILL")
    assert code == -signal.SIGKILL, errors
    assert json.loads((cwd / "early" / "run_info.json").read_text())["status"] == "running"
    step = step_of(cwd / "early" / "checkpoints" / "last.ckpt")
    command("train.py", *arguments, "resume=auto", cwd=cwd)
    assert step_of(cwd / "early" / "checkpoints" / "last.ckpt") == step
    assert json.loads((cwd / "early" / "run_info.json").read_text())["status"] == "finished"
    again = command("train.py", *arguments, "resume=auto", cwd=cwd)
    assert "is finished, nothing to resume" in again.stderr
    assert "Resuming" not in again.stderr
    other = command("train.py", *arguments, "stage.max_epochs=10", "resume=auto", cwd=cwd, check=False)
    assert other.returncode == 1
    assert "holds a finished run that differs in max_epochs (9 before, 10 now)" in other.stderr
    other = command("train.py", *arguments, "stage=predictor", "resume=auto", cwd=cwd, check=False)
    assert "a finished run that differs in stage (tokenizer before, predictor now)" in other.stderr


def test_a_requeue_signal_of_slurm_saves_and_requeues_the_job(cwd):
    scontrol = cwd / "scontrol"
    scontrol.write_text('#!/bin/sh\necho "$@" > requeued\n')
    scontrol.chmod(0o755)
    slurm = {"SLURM_JOB_ID": "77", "PATH": f"{cwd}:{os.environ['PATH']}"}
    arguments = [*RUN, "run_dir=requeued_run"]
    code, errors = run_until(cwd, arguments, "on_train_batch_end", 30, "SIGUSR1", **slurm)
    assert code == 128 + signal.SIGUSR1, errors
    assert (cwd / "requeued").read_text() == "requeue 77\n"
    assert step_of(cwd / "requeued_run" / "checkpoints" / "last.ckpt") == 16


def test_a_run_that_diverges_stops_with_a_sentence_and_saves_no_nan(cwd):
    arguments = [*RUN, *TWO, "stage.learning_rate=1e30", "run_dir=diverged"]
    result = command("train.py", *arguments, "callbacks.last.every_n_steps=1", cwd=cwd, check=False)
    assert result.returncode == 1
    assert "infinite or NaN at step" in result.stderr
    assert "Traceback" not in result.stderr
    for path in (cwd / "diverged" / "checkpoints").glob("*.ckpt"):
        state = torch.load(path, weights_only=True)["state_dict"]
        assert all(value.isfinite().all() for value in state.values()), path


def test_a_full_disk_stops_with_a_sentence_and_leaves_what_was_there(cwd):
    """A limit on the size of files fails as a full disk does: within the write of the checkpoint."""
    arguments = [*RUN, "run_dir=full"]
    run_until(cwd, arguments, "on_train_batch_end", 10, "SIGINT")
    last = cwd / "full" / "checkpoints" / "last.ckpt"
    before = last.read_bytes()
    code, errors = run_until(cwd, [*arguments, "resume=auto"], None, 0, "", limits=len(before) // 2)
    assert code == 1
    assert "cannot write full/checkpoints/last.ckpt: File too large" in errors
    assert "Traceback" not in errors
    assert last.read_bytes() == before
    assert not list(last.parent.glob(".*"))


def test_a_folder_that_cannot_be_written_is_refused_at_once(cwd):
    (cwd / "file").write_text("")
    result = command("train.py", *QUICK_TRAIN, "run_dir=file/run", cwd=cwd, check=False)
    assert result.returncode == 1
    assert "error: file: is a file, but a folder is needed" in result.stderr


def test_a_resumed_run_with_other_settings_is_refused(cwd):
    arguments = [*QUICK_TRAIN, "run_dir=other"]
    run_until(cwd, arguments, "on_train_epoch_end", 1, "SIGINT")
    changes = ["stage.learning_rate=0.5", "data.batch_size=13", "seed=7", "regularization.ema=0.9"]
    result = command("train.py", *arguments, *changes, "resume=auto", cwd=cwd, check=False)
    assert result.returncode == 1
    assert "these settings changed" in result.stderr
    for message in ("learning_rate (0.0001 before, 0.5 now)", "batch_size (40", "seed (100", "ema (None"):
        assert message in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (["stage.learning_rate=0.5"], "these settings changed: learning_rate (2e-05 before, 0.5 now)"),
        (["stage=tokenizer"], "cannot resume stage=tokenizer from a checkpoint of stage=predictor"),
    ],
)
def test_a_refused_resume_leaves_the_finished_run_as_it_was(cwd, changes, reason):
    arguments = [*QUICK_TRAIN, "stage=predictor", "stage.frozen_tokenizer=tokenizer"]
    run = cwd / "refused"
    if not run.is_dir():
        command("train.py", *arguments, "run_dir=refused", cwd=cwd)
    before = {path.relative_to(run): path.read_bytes() for path in run.rglob("*") if path.suffix in (".json", ".ckpt")}
    if changes == ["stage=tokenizer"]:
        arguments = QUICK_TRAIN
    checkpoint = "resume=refused/checkpoints/last.ckpt"
    result = command("train.py", *arguments, "run_dir=refused", *changes, checkpoint, cwd=cwd, check=False)
    assert result.returncode == 1
    assert reason in result.stderr
    assert "Traceback" not in result.stderr
    assert {path: (run / path).read_bytes() for path in before} == before
    assert not list(cwd.glob("refused.*"))
    assert json.loads((run / "run_info.json").read_text())["status"] == "finished"


def test_a_resume_with_fewer_steps_is_refused_and_changes_nothing(cwd):
    arguments = [*QUICK_TRAIN, "run_dir=shorter"]
    run_until(cwd, arguments, "on_train_epoch_end", 1, "SIGINT")
    records = [cwd / "shorter" / name for name in ("run_info.json", "config.json", "checkpoints/last.ckpt")]
    before = [path.read_bytes() for path in records]
    shorter = "+trainer.limit_train_batches=3"
    result = command("train.py", *arguments, shorter, "resume=auto", cwd=cwd, check=False)
    assert result.returncode == 1
    assert "the run was planned for" in result.stderr
    assert [path.read_bytes() for path in records] == before
