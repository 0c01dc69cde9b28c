"""Progress bar of a training."""

from lightning.pytorch.callbacks import RichProgressBar


class Progress(RichProgressBar):
    """Lightning's progress bar, with epochs counted from 1, as everywhere else in this project."""

    def _get_train_description(self, current_epoch: int) -> str:
        description = f"Epoch {current_epoch + 1}/{self.trainer.max_epochs}"
        return f"{description:{len(self.validation_description)}}"
