"""Checkpoints of a fine-tuning run: the best by a validation metric, and the last for an exact resume."""

import logging
import os
import signal
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.utilities.types import STEP_OUTPUT
from pydantic import Field
from safetensors import SafetensorError
from torch import Tensor

from kronos_lightning.data import WindowBatch
from kronos_lightning.errors import KronosError
from kronos_lightning.forecast.calibration import FILE as CALIBRATION
from kronos_lightning.storage import atomic_directory, atomic_path, sync
from kronos_lightning.training.sharding import gather_network
from kronos_lightning.training.stopping import Stopped, StopSignals, all_finite, diverged, requeue

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
AGREE_EVERY = 10  # steps after which several processes agree on whether to save or stop
CONTENT = ("pytorch-lightning_version", "epoch", "global_step", "loops", "state_dict", "optimizer_states", "figures")
RESUME = "resume"  # key of the state that `LastCheckpoint` adds to a checkpoint
UNFINISHED = {"ready": 1, "started": 1, "processed": 0, "completed": 0}  # progress of a validation that has just begun

log = logging.getLogger(__name__)


class SavingError(KronosError, RuntimeError):
    """Error if a checkpoint cannot be written; the previous checkpoint is intact."""


class PretrainedCheckpoint(ModelCheckpoint):
    """Lightning checkpoints, each written atomically together with the model's checkpoint directory.

    ``best.ckpt`` comes with ``best_model/``, ``epoch_10.ckpt`` with ``epoch_10/``. Epochs in file names count from 1.

    Args: those of `lightning.pytorch.callbacks.ModelCheckpoint` that `conf/callbacks` uses.
    """

    def __init__(
        self,
        dirpath: str,
        filename: str,
        monitor: str | None = None,
        mode: str = "min",
        save_top_k: int = 1,
        every_n_epochs: int | None = None,
    ):
        super().__init__(
            dirpath,
            filename,
            monitor=monitor,
            mode=mode,
            save_top_k=save_top_k,
            every_n_epochs=every_n_epochs,
            auto_insert_metric_name=False,
            enable_version_counter=False,
            save_on_train_epoch_end=True,
        )

    def _monitor_candidates(self, trainer: L.Trainer) -> dict[str, Tensor]:
        candidates = super()._monitor_candidates(trainer)
        candidates["epoch"] = torch.tensor(trainer.current_epoch + 1)
        return candidates

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best checkpoints so far, even if the run's folder was moved. (Lightning forgets them then.)"""
        places = {str(path): str(Path(self.dirpath) / Path(path).name) for path in state_dict["best_k_models"]}
        if all(Path(place).is_file() for place in places.values()):
            here = {
                key: places.get(state_dict[key], state_dict[key]) for key in ("best_model_path", "kth_best_model_path")
            }
            best = {places[path]: score for path, score in state_dict["best_k_models"].items()}
            state_dict = state_dict | here | {"dirpath": self.dirpath, "best_k_models": best}
        super().load_state_dict(state_dict)

    def _save_checkpoint(self, trainer: L.Trainer, filepath: str) -> None:
        target = Path(filepath)
        export(trainer, target.with_name(target.stem if target.stem.startswith("epoch_") else f"{target.stem}_model"))
        save(trainer, target)
        self._last_checkpoint_saved = filepath


class LastCheckpoint(Checkpoint):
    """Last checkpoint ``last.ckpt`` and the one before, ``previous.ckpt``: a resumed run ends as if never stopped.

    They are written at the end of every epoch, together with ``last_model/``, and within an epoch at given intervals.
    SIGINT (Ctrl-C), SIGTERM and SLURM's requeue signal save a checkpoint after the current step and end the run. During
    validation they end the run after the current batch, or after the validation if there are several processes. The
    resumed run repeats an interrupted validation from its start.

    Args:
        dirpath: folder of the checkpoints.
        every_n_minutes: minutes between two checkpoints within an epoch; None = none by time.
        every_n_steps: optimiser steps between two checkpoints within an epoch; None = none by steps.
        seed: of dropout and all other random numbers of the training; each process has its own stream.
    """

    def __init__(
        self,
        dirpath: str,
        every_n_minutes: Annotated[float, Field(gt=0)] | None,
        every_n_steps: Annotated[int, Field(ge=1)] | None,
        seed: int,
    ):
        self.directory = Path(dirpath)
        self.every_n_minutes, self.every_n_steps, self.seed = every_n_minutes, every_n_steps, seed
        self.signals = StopSignals()
        self._restored: dict[str, Any] | None = None
        self._saved_at = 0.0

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._restored is not None and self._restored["should_stop"]:
            trainer.should_stop = True  # early stopping had triggered before the run was killed

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        torch.manual_seed(self.seed + 1_000_003 * trainer.global_rank)
        if self._restored is not None:
            _go_to(trainer, self._restored["batches"])
            if len(self._restored["random"]) == trainer.world_size:
                _set_random_state(self._restored["random"][trainer.global_rank])
        self._saved_at = time.monotonic()
        self.signals.install()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: STEP_OUTPUT, batch: WindowBatch, batch_idx: int
    ) -> None:
        if trainer.fit_loop._should_accumulate() or trainer.is_last_batch:
            return  # save only between two steps; after the last step of an epoch, validation comes first
        by_steps = self.every_n_steps is not None and trainer.global_step % self.every_n_steps == 0
        if by_steps or trainer.world_size == 1 or trainer.global_step % AGREE_EVERY == 0:
            self._save_or_stop(trainer, by_steps or self._is_time())

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.sanity_checking:
            self._save_or_stop(trainer, self._is_time())

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: STEP_OUTPUT, batch: WindowBatch, batch_idx: int
    ) -> None:
        # Processes may have different numbers of batches, so they cannot synchronise after each batch.
        if not trainer.sanity_checking and trainer.world_size == 1:
            self._save_or_stop(trainer, False)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        export(trainer, self.directory / "last_model")
        self._save_or_stop(trainer, True)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self.signals.restore()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self.signals.restore()

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[RESUME] = {
            "random": _gather(_random_state()),
            "batches": trainer.fit_loop.epoch_loop.batch_progress.current.ready % trainer.num_training_batches,
            "should_stop": trainer.should_stop,
        }
        if trainer.validating:
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
            progress.update(total=dict(UNFINISHED), current=dict(UNFINISHED), is_last_batch=False)

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self._restored = checkpoint.get(RESUME)  # None: written by an earlier version

    def _is_time(self) -> bool:
        return self.every_n_minutes is not None and time.monotonic() - self._saved_at >= 60 * self.every_n_minutes

    def _save_or_stop(self, trainer: L.Trainer, due: bool) -> None:
        """Save if any process is due; stop if any process received a signal."""
        received = self.signals.received
        if trainer.world_size > 1:
            flags = torch.tensor([int(due), received], device=trainer.strategy.root_device)
            due, received = trainer.strategy.reduce(flags, reduce_op="max").tolist()
        if received:
            self.signals.received = received
            self.signals.restore()
        if due or received:
            self._save(trainer)
        if received:
            log.warning(
                "Stopped after step %d. To continue, run the same command with resume=auto", trainer.global_step
            )
            if received == signal.SIGUSR1 and trainer.is_global_zero:
                requeue()
            raise Stopped(received, trainer.global_rank)

    def _save(self, trainer: L.Trainer) -> None:
        save(trainer, self.directory / LAST, self.directory / PREVIOUS)
        self._saved_at = time.monotonic()


def read_checkpoint(path: Path) -> tuple[dict[str, Any] | None, str]:
    """Read Lightning's checkpoint of a run of this project.

    Returns:
        The checkpoint and an empty text, or None and the reason why it cannot be used. The readers of zip files,
        pickles and tensors raise many types of errors; whatever they raise means that the file is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if (name := archive.testzip()) is not None:
                return None, f"{name} does not match its checksum"
            if any(entry.external_attr for entry in archive.infolist()):  # torch would read a folder as noise
                return None, "an entry is marked as a folder"
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        return None, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    missing = [key for key in CONTENT if not isinstance(checkpoint, dict) or key not in checkpoint]
    return (None, f"not a checkpoint of train.py, without {missing[0]}") if missing else (checkpoint, "")


def save(trainer: L.Trainer, path: Path, keep: Path | None = None) -> None:
    """Write Lightning's checkpoint atomically; move the existing file at `path` to `keep`.

    Raises:
        DivergedError: a weight is not finite.
        SavingError: the file cannot be written.
    """
    finite = torch.tensor(int(all_finite(trainer.lightning_module)), device=trainer.strategy.root_device)
    if not trainer.strategy.reduce(finite, reduce_op="min"):
        raise diverged("the weights", trainer.global_step)
    checkpoint = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)

    def write() -> None:
        with atomic_path(path) as temporary:
            with temporary.open("wb") as file:
                torch.save(checkpoint, file)
            sync(temporary)
            if keep is not None and path.exists():
                os.replace(path, keep)

    _first_process(trainer, write, path)


def export(trainer: L.Trainer, directory: Path) -> None:
    """Write the checkpoint directory of the validated network.

    Raises:
        SavingError: the directory cannot be written.
    """

    network = gather_network(trainer.lightning_module.eval_network, trainer.strategy.root_device)

    def write() -> None:
        with atomic_directory(directory, may_gain=[CALIBRATION]) as temporary:
            trainer.lightning_module.save_pretrained(temporary, network)

    _first_process(trainer, write, directory)


def _first_process(trainer: L.Trainer, write: Callable[[], None], path: Path) -> None:
    """Run `write` in the first process while the others wait; if it fails, raise `SavingError` in all processes."""
    problem = None
    if trainer.is_global_zero:
        try:
            write()
        except (OSError, SafetensorError) as error:
            problem = getattr(error, "strerror", None) or str(error)
    if problem := trainer.strategy.broadcast(problem):
        raise SavingError(
            f"cannot write {path}: {problem}. Earlier checkpoints are intact; free disk space, then continue with "
            f"resume=auto"
        )


def _go_to(trainer: L.Trainer, batches: int) -> None:
    """Continue the training loader within its epoch. (Lightning creates its iterator before it knows the position.)"""
    loader = trainer.train_dataloader
    loader.sampler.set_epoch(trainer.current_epoch)
    loader.sampler.skip(batches * loader.batch_size)
    iter(trainer.fit_loop._data_fetcher)


def _random_state() -> dict[str, Tensor]:
    state = {"cpu": torch.get_rng_state()}
    return state | {"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_initialized() else state


def _set_random_state(state: dict[str, Tensor]) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def _gather(state: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """Gather the random states of all processes, in the order of their ranks."""
    if not (dist.is_available() and dist.is_initialized()):
        return [state]
    states: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(states, state)
    return states
