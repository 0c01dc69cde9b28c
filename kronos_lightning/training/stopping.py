"""How a run ends before its time: by a signal, or because it diverged."""

import logging
import os
import signal
import subprocess
import threading
from types import FrameType

import torch
from torch import nn

from kronos_lightning.errors import KronosError
from kronos_lightning.training.sharding import share

log = logging.getLogger(__name__)


class DivergedError(KronosError, RuntimeError):
    """Weights or gradients are no numbers any more; the message says what to do."""


class Stopped(SystemExit):
    """A run ended by a signal, after saving. Exit code 128 + the signal's number, as shells have it.

    Processes other than the first end with 0: Lightning kills all at once where one of them ends otherwise.
    """

    def __init__(self, number: int, rank: int):
        super().__init__(0 if rank else 128 + number)


class StopSignals:
    """Notes SIGINT, SIGTERM and, in a SLURM job, SIGUSR1, for the training loop to act on between two steps.

    The second one is not noted but obeyed at once, by whoever handled it before.
    """

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[int, signal.Handlers] = {}

    def install(self) -> None:
        """Take over the signals; only the main thread can."""
        if threading.current_thread() is not threading.main_thread():
            return
        numbers = [signal.SIGINT, signal.SIGTERM] + [signal.SIGUSR1] * ("SLURM_JOB_ID" in os.environ)
        self._before = {number: signal.signal(number, self._note) for number in numbers}

    def restore(self) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            self.restore()
            signal.raise_signal(number)
        else:
            self.received = number
            os.write(2, b"\nStopping after this step; once more stops at once\n")


def requeue() -> None:
    """Put this SLURM job back into the queue."""
    environment = os.environ
    job = environment["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in environment:
        job = f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, timeout=60, capture_output=True, text=True)
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("The job was saved but not requeued: %s", error)
    else:
        log.info("Job %s is in the queue again", job)


def all_finite(network: nn.Module) -> bool:
    """Whether every weight that this process has is a finite number."""
    return bool(torch.stack([share(p.detach()).isfinite().all() for p in network.parameters()]).all())


def diverged(what: str, step: int) -> DivergedError:
    """The error, in words that help."""
    return DivergedError(
        f"{what} became infinite or NaN at step {step}, and nothing of that was saved. Usual reasons: too high a "
        f"stage.learning_rate, no stage.gradient_clip, 16-mixed precision (bf16-mixed is safer)"
    )
