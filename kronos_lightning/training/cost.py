"""Cost of a training: the time that it will take, and what it took."""

import logging
import platform
import resource
import sys
import time
from typing import Any

import lightning as L
import torch

from kronos_lightning.data import WindowBatch

log = logging.getLogger(__name__)


class Cost(L.Callback):
    """Callback that estimates the time left after the first validation, and counts what the training took.

    It draws no random numbers and stores nothing in checkpoints: a resumed run counts from its last start.
    """

    def __init__(self) -> None:
        self._started = 0.0
        self._tokens = self._processes = 0
        self._told = False
        self._device = torch.device("cpu")

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._started, self._first = time.monotonic(), trainer.current_epoch
        self._device, self._processes = pl_module.device, trainer.world_size
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: WindowBatch, batch_idx: int
    ) -> None:
        windows, rows = batch.stamp.shape[:2]
        self._tokens += windows * rows

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._told or not trainer.is_global_zero or trainer.max_epochs is None:
            return
        self._told = True  # the epoch includes its validation
        left = trainer.max_epochs - trainer.current_epoch - 1
        if left > 0:
            taken = (time.monotonic() - self._started) / (trainer.current_epoch + 1 - self._first)
            log.info(
                "About %s left for %d more epochs at most; early stopping can end the training before",
                duration(taken * left),
                left,
            )

    def summary(self) -> dict[str, Any]:
        """Return what the training took, for `run_info.json`.

        device: name of the device. processes: their number. tokens: token pairs trained on, of all processes.
        peak_memory: largest memory of this process in bytes, that of the GPU if there is one.
        """
        return {
            "device": device_name(self._device),
            "processes": self._processes,
            "tokens": self._tokens * self._processes,
            "peak_memory": peak_memory(self._device),
        }


def duration(seconds: float) -> str:
    """Format a duration for people: ``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


def device_name(device: torch.device) -> str:
    """Return the name of a device as its maker writes it, or that of the processor's architecture."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} ({platform.machine()})"


def peak_memory(device: torch.device) -> int:
    """Return the largest memory that this process has used so far, in bytes."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
