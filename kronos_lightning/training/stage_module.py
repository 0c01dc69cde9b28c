"""What both fine-tuning stages share: optimiser, schedule, gradient norm, validation means."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric

from kronos_lightning.data import WindowBatch
from kronos_lightning.model import Kronos, KronosTokenizer

from .optimization import Optimization

RECORD = "training.json"  # in a checkpoint directory: on what it was trained


class ScheduleError(RuntimeError):
    """A run is resumed with another number of steps than it was planned with."""


class CodebookUsage(Metric):
    """Share of a codebook's entries that occur among the tokens seen."""

    def __init__(self, bits: int):
        super().__init__()
        self.add_state("counts", torch.zeros(2**bits, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, ids: Tensor) -> None:
        """Count ids of any shape."""
        self.counts = self.counts + torch.bincount(ids.flatten(), minlength=self.counts.numel())

    def compute(self) -> Tensor:
        return (self.counts > 0).float().mean()


class StageModule(L.LightningModule):
    """Base of `TokenizerModule` and `PredictorModule`.

    Validation figures are means over windows, accumulated in float64 and summed over processes: they do not depend
    on the number of processes. Only the target rows of a window count (those after the lookback): the rows before may
    have been trained on.

    Args:
        bits: code lengths (s1, s2), for the usage of the codebooks.
        lookback: rows of a window before its targets.
        figures: names of the validation means.
    """

    frozen: KronosTokenizer | None = None  # the tokenizer, where it is not what is trained
    record: dict[str, Any] | None = None  # what stands in a checkpoint directory about its training

    def __init__(self, bits: tuple[int, int], optimization: Optimization, lookback: int, figures: tuple[str, ...]):
        super().__init__()
        self.optimization, self.lookback = optimization, lookback
        self.means = nn.ModuleDict({name: MeanMetric() for name in figures})
        self.usage = nn.ModuleDict({"s1": CodebookUsage(bits[0]), "s2": CodebookUsage(bits[1])})

    @property
    def trained(self) -> KronosTokenizer | Kronos:
        """The network that is fine-tuned and exported."""
        raise NotImplementedError

    def validation_paths(self, batch: WindowBatch) -> Tensor:
        """Forecasts of the horizon for a picture, normalised: ``(B, S, h, 6)``."""
        raise NotImplementedError

    def save_pretrained(self, directory: Path) -> None:
        """Write what was trained as a checkpoint directory, with what is known of its training."""
        self.trained.save_pretrained(directory)
        if self.record is not None:
            (directory / RECORD).write_text(json.dumps(self.record, indent=2))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        figures = self.trainer.callback_metrics
        checkpoint["figures"] = {name: float(value) for name, value in figures.items() if name.startswith("val/")}

    def setup(self, stage: str) -> None:
        if self.trainer.strategy.root_device.type != "mps":  # which has no float64
            for mean in self.means.values():
                mean.set_dtype(torch.float64)

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = self.optimization.optimizer(self.trained.parameters())
        schedule = self.optimization.schedule(optimizer, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_fit_start(self) -> None:
        self.train()  # loaded networks are in eval mode, and Lightning would leave them there: no dropout

    def on_train_start(self) -> None:
        planned = self.lr_schedulers().total_steps
        if planned != self.trainer.estimated_stepping_batches:
            raise ScheduleError(
                f"the resumed run was planned for {planned} steps, this one has "
                f"{int(self.trainer.estimated_stepping_batches)}: epochs, batch size or data changed. Resume with the "
                f"same settings, or start from its weights with init_from="
            )

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if self.trainer.global_step % self.trainer.log_every_n_steps == 0:
            norms = [p.grad.norm() for p in self._gradients()]
            self.log("train/gradient_norm", torch.stack(norms).norm())

    def _gradients(self) -> Iterator[nn.Parameter]:
        return (p for p in self.trained.parameters() if p.grad is not None)

    def log_training(self, loss: Tensor, **parts: Tensor) -> None:
        """Log the loss of a step (also on the progress bar) and its parts."""
        self.log("train/loss", loss, prog_bar=True)
        self.log_dict({f"train/{name}": value.detach() for name, value in parts.items()})

    def update_validation(self, ids: tuple[Tensor, Tensor], **per_window: Tensor) -> None:
        """Add the figures of a batch, each ``(B,)``, and its token ids."""
        for name, values in per_window.items():
            self.means[name].update(values.to(self.means[name].dtype))
        for usage, part in zip(self.usage.values(), ids, strict=True):
            usage.update(part)

    def on_validation_epoch_start(self) -> None:
        for metric in (*self.means.values(), *self.usage.values()):
            metric.reset()

    def on_validation_epoch_end(self) -> None:
        for name, mean in self.means.items():
            self.log(f"val/{name}", mean.compute().float(), prog_bar=name == "loss")
        for name, usage in self.usage.items():
            self.log(f"val/codebook_usage_{name}", usage.compute())
