"""The progress bar does not make a GPU wait."""

from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks import RichProgressBar

from kronos_lightning.training.progress import Progress


@pytest.mark.parametrize(("device", "expected"), [("cpu", [1, 2, 3, 4, 5, 6, 7, 7]), ("cuda", [1, 3, 6, 7])])
def test_the_loss_of_a_gpu_is_read_at_logged_steps_and_at_the_end_of_an_epoch(device, expected, monkeypatch):
    reads = []

    def read(self, trainer, module):
        reads.append(trainer.global_step)
        return {"train/loss": float(trainer.global_step)}

    monkeypatch.setattr(RichProgressBar, "get_metrics", read)
    progress, trainer = Progress(), SimpleNamespace(global_step=0, log_every_n_steps=3)
    module = SimpleNamespace(device=torch.device(device))
    monkeypatch.setattr(
        RichProgressBar, "on_train_epoch_end", lambda self, trainer, module: self.get_metrics(trainer, module)
    )
    for trainer.global_step in range(1, 8):
        shown = progress.get_metrics(trainer, module)
    assert shown == {"train/loss": 7.0 if device == "cpu" else 6.0}
    progress.on_train_epoch_end(trainer, module)
    assert reads == expected
