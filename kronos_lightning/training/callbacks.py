"""Callbacks of a fine-tuning run."""

import os
from pathlib import Path

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from kronos_lightning.data.files import atomic_directory
from kronos_lightning.forecast.plots import forecast_figure

PICTURED = 3  # forecasts in the validation picture
CLOSE = 3  # column of the close


class PretrainedCheckpoint(ModelCheckpoint):
    """Lightning's checkpoints, each written whole or not at all, with the checkpoint directory of the model beside.

    ``best.ckpt`` stands beside ``best_model/``, ``last.ckpt`` beside ``last_model/``, ``epoch_10.ckpt`` beside
    ``epoch_10/``. Epochs in file names count from 1.

    Args: those of `lightning.pytorch.callbacks.ModelCheckpoint` that `conf/callbacks` uses.
    """

    def __init__(
        self,
        dirpath: str,
        filename: str,
        monitor: str | None = None,
        mode: str = "min",
        save_top_k: int = 1,
        save_last: bool | None = None,
        every_n_epochs: int | None = None,
    ):
        super().__init__(
            dirpath,
            filename,
            monitor=monitor,
            mode=mode,
            save_top_k=save_top_k,
            save_last=save_last,
            every_n_epochs=every_n_epochs,
            auto_insert_metric_name=False,
            enable_version_counter=False,
            save_on_train_epoch_end=True,
        )

    def _monitor_candidates(self, trainer: L.Trainer) -> dict[str, Tensor]:
        candidates = super()._monitor_candidates(trainer)
        candidates["epoch"] = torch.tensor(trainer.current_epoch + 1)
        return candidates

    def _save_checkpoint(self, trainer: L.Trainer, filepath: str) -> None:
        target = Path(filepath)
        temporary = target.with_name(f".{target.name}.tmp")
        super()._save_checkpoint(trainer, str(temporary))
        self._last_checkpoint_saved = filepath
        if trainer.is_global_zero:
            name = target.stem if target.stem.startswith("epoch_") else f"{target.stem}_model"
            with atomic_directory(target.with_name(name)) as directory:
                trainer.lightning_module.save_pretrained(directory)
            os.replace(temporary, target)
        trainer.strategy.barrier()  # the other processes may read it next


class ValidationPaths(L.Callback):
    """After each validation: forecasts of some windows as a picture, and how often their direction was right.

    Logs `val/direction_accuracy` (sign of the close's change from cutoff to horizon, median path) and beside it
    `val/direction_majority`, what always saying the commoner direction would have scored on the same windows.

    Args:
        windows: how many, spread evenly over the validation range.
        every_n_epochs: how often.
    """

    def __init__(self, windows: int, every_n_epochs: int):
        self.windows, self.every_n_epochs = windows, every_n_epochs

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking or trainer.current_epoch % self.every_n_epochs or not trainer.is_global_zero:
            return
        data = trainer.datamodule.windows["val"]
        chosen = np.linspace(0, len(data) - 1, min(self.windows, len(data))).astype(int)
        batch = data.__getitems__(chosen.tolist())
        batch = trainer.strategy.batch_to_device(batch)
        paths = pl_module.validation_paths(batch).float().cpu()
        context = batch.x[:, : pl_module.lookback].cpu()
        actual = batch.x[:, pl_module.lookback : pl_module.lookback + pl_module.horizon].cpu()

        last = context[:, -1, CLOSE]
        realised = (actual[:, -1, CLOSE] - last).sign()
        forecast = (paths[:, :, -1, CLOSE].median(dim=1).values - last).sign()
        moved = realised != 0
        if moved.any():
            up = (realised[moved] > 0).float().mean()
            accuracy = (forecast[moved] == realised[moved]).float().mean()
            pl_module.log("val/direction_accuracy", accuracy, rank_zero_only=True)
            pl_module.log("val/direction_majority", torch.maximum(up, 1 - up), rank_zero_only=True)
        self._picture(trainer, context, paths, actual, chosen)

    def _picture(self, trainer: L.Trainer, context: Tensor, paths: Tensor, actual: Tensor, chosen: np.ndarray) -> None:
        boards = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        if not boards:
            return
        pick = np.linspace(0, len(chosen) - 1, min(PICTURED, len(chosen))).astype(int)
        kind = "reconstruction" if paths.size(1) == 1 else "sample paths"
        synthetic = " (synthetic candles)" if trainer.datamodule.manifest()["synthetic"] else ""
        figure = forecast_figure(
            context[pick, -3 * actual.size(1) :].numpy(),
            paths[pick].numpy(),
            actual[pick].numpy(),
            [f"validation window {chosen[i]}" for i in pick],
            f"Epoch {trainer.current_epoch + 1}: {kind} against reality, normalised prices{synthetic}",
        )
        for board in boards:
            board.experiment.add_figure("val/paths", figure, trainer.global_step, close=False)
