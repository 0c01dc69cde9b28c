"""Speed of a training: windows and tokens per second, and the share of the machine's peak matmul rate.

Shape letters: B windows, W rows of a window, D d_model.
"""

import logging
import time
from collections import deque

import lightning as L
import torch
from torch import nn

from kronos_lightning.data import WindowBatch
from kronos_lightning.model.layers import Attention

PEAK_SECONDS = 0.25  # duration of the peak measurement
SIDES = {"cpu": 512}  # side of the square matrices in the peak measurement, by device type
SIDE = 8192  # side on other devices
PRECISIONS = {"bf16": torch.bfloat16, "16": torch.float16}

log = logging.getLogger(__name__)


def training_flops(part: nn.Module, rows: int) -> float:
    """Count the floating-point operations of the matrix products of a forward and backward pass over one window.

    Per row, a weight costs 2 operations forward, 2 for the gradient of its input and, if trained, 2 for its own
    gradient. Attention costs 4 W² D forward and twice that backward. As usual, the causal half that kernels skip is
    counted.
    """
    linear = sum((4 + 2 * m.weight.requires_grad) * m.weight.numel() for m in part.modules() if type(m) is nn.Linear)
    return linear * rows + 3 * _attention_flops(part, rows)


def forward_flops(part: nn.Module, rows: int) -> float:
    """Count the floating-point operations of the matrix products of a forward pass over one window."""
    linear = sum(2 * m.weight.numel() for m in part.modules() if type(m) is nn.Linear)
    return linear * rows + _attention_flops(part, rows)


def _attention_flops(part: nn.Module, rows: int) -> float:
    return sum(4 * rows**2 * m.n_heads * m.head_dim for m in part.modules() if isinstance(m, Attention))


def matmul_peak(device: torch.device, precision: str) -> float:
    """Measure the floating-point operations per second of a large matrix product in the training's precision."""
    dtype = next((dtype for name, dtype in PRECISIONS.items() if precision.startswith(name)), torch.float32)
    side = SIDES.get(device.type, SIDE)
    # Not constant: GPUs draw less power, and then run faster, on constant data than on any training.
    a = torch.arange(side * side, device=device, dtype=torch.float32).sin_().view(side, side).to(dtype)
    best, end = float("inf"), time.perf_counter() + PEAK_SECONDS
    while time.perf_counter() < end:
        _synchronize(device)
        start = time.perf_counter()
        torch.mm(a, a)
        _synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best


def _synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


class Throughput(L.Callback):
    """Callback that logs windows and tokens per second of all processes, and this process's share of the matmul peak.

    A token is the token pair of one candle. Rates cover the last `log_every_n_steps` batches. The time between two
    batches includes loading, the step and logging. Intervals that contain a validation, a checkpoint or the start of an
    epoch are excluded. The callback draws no random numbers and stores nothing in checkpoints. Lightning's
    `ThroughputMonitor` counts the samples of one process, includes validations, and knows the peak of some GPUs but of
    no CPU.
    """

    def __init__(self) -> None:
        self._last: float | None = None  # end of the previous batch, if only a step came since
        self._peak: float | None = None
        self._windows = self._seconds = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._recent: deque[tuple[int, float]] = deque(maxlen=max(trainer.log_every_n_steps, 1))
        self._last = None

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._last = None

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._last = None

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict) -> None:
        self._last = None

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: WindowBatch, batch_idx: int
    ) -> None:
        if self._peak is None:  # after the first step, because a starting compiler occupies CPU cores
            self._peak = matmul_peak(pl_module.device, str(trainer.precision))
        now, before = time.perf_counter(), self._last
        self._last = now
        if before is None:
            return
        windows, self._rows = batch.stamp.shape[:2]
        self._recent.append((windows, now - before))
        self._windows += windows
        self._seconds += now - before
        counts, seconds = zip(*self._recent, strict=True)
        pl_module.log_dict(self._metrics(trainer, pl_module, sum(counts) / sum(seconds)))

    def _metrics(self, trainer: L.Trainer, pl_module: L.LightningModule, rate: float) -> dict[str, float]:
        """Compute the logged metrics from the windows per second of this process."""
        total = rate * trainer.world_size
        return {
            "throughput/windows_per_second": total,
            "throughput/tokens_per_second": total * self._rows,
            "throughput/share_of_peak": rate * pl_module.flops(self._rows) / self._peak,
        }

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._seconds and trainer.is_global_zero:
            windows, tokens, share = self._metrics(trainer, pl_module, self._windows / self._seconds).values()
            log.info(
                "Trained at %.1f windows/s (%.0f tokens/s), %.1f %% of the matmul peak of %.2f TFLOP/s",
                windows, tokens, 100 * share, self._peak / 1e12,
            )  # fmt: skip
