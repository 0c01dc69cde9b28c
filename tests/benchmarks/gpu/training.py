"""Speed, share of the peak, and memory of training steps, by the project's own modules, loaders and trainers.

A run is that of `train.py` without its callbacks: it starts from random weights, makes some steps to warm up, and is
timed until the seconds are over. The loader gathers the batches meanwhile, as in any training.
"""

import functools
import gc
import time

import lightning as L
import torch
from hydra.utils import instantiate

from kronos_lightning.config.compose import compose
from kronos_lightning.config.validation import check_training
from kronos_lightning.runs.builders import build_datamodule, build_module
from tests.helpers.floor import wait_for
from tests.helpers.networks import TINY_PREDICTOR, TINY_TOKENIZER

from .candles import data_overrides
from .machine import tf32
from .rows import WrongResultError

BATCH = 50  # the guide's
FIRST_LARGE = 400  # where the search for the largest batch begins
TINY_BATCH = 4  # in a smoke run
WARM_UP = 3  # steps
MOST_STEPS = 1000
LIGHTNING = {"float32": "32-true", "tf32": "32-true", "bf16": "bf16-mixed"}
QUIET = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "limit_val_batches": 0,
    "num_sanity_val_steps": 0,
    "max_epochs": -1,
    "max_steps": MOST_STEPS,
}


class Steps(L.Callback):
    """Callback that times the steps after the warm-up and stops when the seconds are over."""

    def __init__(self, warm_up, most, seconds):
        self.warm_up, self.most, self.limit = warm_up, most, seconds
        self.steps = self.windows = self.seen = 0
        self.seconds = self.began = 0.0
        self.finite = True

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen += 1
        if self.seen == self.warm_up:
            wait_for(pl_module.device)
            self.began = time.perf_counter()
        if self.seen <= self.warm_up:
            return
        windows, self.rows = batch.stamp.shape[:2]
        self.steps, self.windows = self.steps + 1, self.windows + windows
        if time.perf_counter() - self.began >= self.limit or self.steps == self.most:
            wait_for(pl_module.device)
            self.seconds = time.perf_counter() - self.began
            self.finite = bool(outputs["loss"].isfinite())
            trainer.should_stop = True


def measure(machine, stage, model, precision, *, batch=BATCH, compiled=False, trainer="auto"):
    """Measure steps of a stage with one batch size; see the module."""
    machine.forget_memory()
    settings, trainer = configuration(machine, stage, model, precision, trainer)
    torch.manual_seed(0)  # the same tokenizer each time, so that its encoded windows are reused
    datamodule = build_datamodule(settings.data)
    datamodule.prepare_data()
    module, _ = build_module(settings, datamodule)
    datamodule.batch_size, module.compiled = min(batch, TINY_BATCH) if machine.smoke else batch, compiled
    steps = Steps(1, 1, 0.0) if machine.smoke else Steps(WARM_UP, MOST_STEPS - WARM_UP, machine.seconds)
    if compiled:
        torch.compiler.reset()  # otherwise it counts the networks of earlier rows, and gives up at the eighth
    with tf32(precision == "tf32"):
        fitter = instantiate(trainer, callbacks=[steps], _convert_="all", **QUIET)
        fitter.fit(module, datamodule)
    if not steps.seconds:
        raise RuntimeError(f"only {steps.seen} steps were made")
    return figures(machine, module, steps, precision)


def configuration(machine, stage, model, precision, trainer):
    """Return checked settings, and the trainer's configuration."""
    sizes = [f"model=kronos-{model}", "model.pretrained=null"]
    if machine.smoke:
        sizes += [f"model.tokenizer.{key}={value}" for key, value in TINY_TOKENIZER.items()]
        sizes += [f"model.predictor.{key}={value}" for key, value in TINY_PREDICTOR.items() if "bits" not in key]
    cache = ["stage.cache_tokens=true"] if stage == "predictor" else []
    device = "gpu" if machine.device.type == "cuda" else "cpu"
    cfg = composed(
        *data_overrides(machine, 900 if machine.smoke else machine.synthetic), f"stage={stage}", *sizes, *cache,
        f"trainer={trainer}", f"trainer.accelerator={device}", "trainer.devices=1", f"run_dir={machine.folder / 'run'}",
    )  # fmt: skip
    cfg.trainer.precision = LIGHTNING[precision]
    return check_training(cfg), cfg.trainer


@functools.cache
def composed(*overrides):
    """Compose a training once for all precisions, which takes longer than many a measurement."""
    return compose("train", *overrides)


def figures(machine, module, steps, precision):
    """Return the columns of a row.

    Raises:
        WrongResultError: the loss of the last step is not a finite number.
    """
    rate, memory = steps.windows / steps.seconds, machine.peak_memory()
    operations = rate * module.flops(steps.rows)
    values = {
        "batch": steps.windows // steps.steps,
        "steps/s": steps.steps / steps.seconds,
        "tokens/s": rate * steps.rows,
        "MFU, measured peak": operations / machine.rate(precision),
    }
    if nominal := machine.nominal(precision):
        values["MFU, nominal peak"] = operations / nominal
    if memory is not None:
        values["GiB"] = memory
    if not steps.finite:
        raise WrongResultError("the loss is not finite", values)
    return values


def measure_largest(machine, stage, model, precision, *, seconds=40.0):
    """Double the batch until it does not fit any more; return the row of the largest that did.

    Column `limit` says what ended the search: memory, time, or data (nearly half of the training windows).
    """
    batch, most = (TINY_BATCH // 2, TINY_BATCH) if machine.smoke else (FIRST_LARGE, machine.synthetic * 2 // 5)
    tried, largest, why, end = {}, None, "data", time.perf_counter() + seconds
    while batch <= most and why == "data":
        try:
            largest = measure(machine, stage, model, precision, batch=batch)
            tried[largest["batch"]], batch = largest["tokens/s"], 2 * batch
            why = "data" if time.perf_counter() < end else "time"
        except torch.OutOfMemoryError:
            if largest is None:
                raise
            why = "memory"
        clean_up()
    machine.largest[stage, model, precision] = largest["batch"]
    return largest | {"limit": why, "fastest batch": max(tried, key=tried.get)}


def measure_filled(machine, stage, model):
    """Measure compiled networks with the largest batch that fits without compiling."""
    batch = machine.largest.get((stage, model, "bf16"))
    if batch is None:
        raise RuntimeError("the largest batch of bf16 was not found in this process")
    return measure(machine, stage, model, "bf16", batch=batch, compiled=True)


def clean_up():
    """Free what the last measurement held, and its group of processes."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()
