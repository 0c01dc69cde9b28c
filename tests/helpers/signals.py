"""A callback that sends a signal to its own process at a chosen moment."""

import os
import signal

import lightning as L


class SendSignal(L.Callback):
    """In `hook`, the `count`-th time that it is called in the first process."""

    def __init__(self, hook: str, count: int, signal_name: str):
        self.left, self.number = count, getattr(signal, signal_name)
        setattr(self, hook, self._called)

    def _called(self, trainer: L.Trainer, *arguments: object) -> None:
        if trainer.is_global_zero and not trainer.sanity_checking:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), self.number)
