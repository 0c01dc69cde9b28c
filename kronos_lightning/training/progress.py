"""Progress bar of a training."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar


class Progress(RichProgressBar):
    """Lightning's progress bar, with epochs counted from 1, as everywhere else in this project.

    Lightning reads the metrics after every step. On a GPU this waits for the step to end, so that the next one is not
    launched meanwhile; there they are read at logged steps and at the end of an epoch only.
    """

    _shown: dict[str, Any] | None = None

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        due = trainer.global_step % max(trainer.log_every_n_steps, 1) == 0
        if due or self._shown is None or pl_module.device.type == "cpu":
            self._shown = super().get_metrics(trainer, pl_module)
        return self._shown

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._shown = None
        super().on_train_epoch_end(trainer, pl_module)

    def _get_train_description(self, current_epoch: int) -> str:
        description = f"Epoch {current_epoch + 1}/{self.trainer.max_epochs}"
        return f"{description:{len(self.validation_description)}}"
