"""Early end of a run: by a signal, or because the training diverged."""

import logging
import os
import signal
import subprocess
import threading
from types import FrameType

import torch
from torch import nn

from kronos_lightning.errors import KronosError
from kronos_lightning.training.sharding import local_shard

log = logging.getLogger(__name__)


class DivergedError(KronosError, RuntimeError):
    """Error if weights or gradients are not finite; the message says what to do."""


class Stopped(SystemExit):
    """Exit of a run that a signal stopped, after saving. Exit code: 128 + signal number, as in shells.

    Processes other than the first exit with 0, because Lightning kills all processes if one of them exits otherwise.
    """

    def __init__(self, number: int, rank: int):
        super().__init__(0 if rank else 128 + number)


class StopSignals:
    """Recorder of SIGINT, SIGTERM and, in a SLURM job, SIGUSR1; the training loop acts on them between two steps.

    A second signal is not recorded; the previous handler handles it immediately.
    """

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[int, signal.Handlers] = {}

    def install(self) -> None:
        """Install the signal handlers; does nothing outside the main thread."""
        if threading.current_thread() is not threading.main_thread():
            return
        numbers = [signal.SIGINT, signal.SIGTERM] + [signal.SIGUSR1] * ("SLURM_JOB_ID" in os.environ)
        self._before = {number: signal.signal(number, self._note) for number in numbers}

    def restore(self) -> None:
        """Restore the previous signal handlers."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            self.restore()
            signal.raise_signal(number)
        else:
            self.received = number
            os.write(2, b"\nStopping after this step; interrupt again to stop immediately\n")


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
        log.info("Requeued job %s", job)


def all_finite(network: nn.Module) -> bool:
    """Return True if every weight of this process is finite."""
    return bool(torch.stack([local_shard(p.detach()).isfinite().all() for p in network.parameters()]).all())


def diverged(what: str, step: int) -> DivergedError:
    """Build the error for a training that diverged, with advice in its message."""
    return DivergedError(
        f"{what} became infinite or NaN at step {step}, which was not saved. Common causes: stage.learning_rate is too "
        f"high, stage.gradient_clip is not set, or 16-mixed precision (bf16-mixed is safer)"
    )
