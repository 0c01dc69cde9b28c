"""Run folders: their content, and the archive of earlier runs.

``finetune_{stage}_{data}/`` holds `config.json`, `run_info.json`, `logs/` and `checkpoints/`. The latter holds
`best_model/` and, for a predictor, the `tokenizer/` it was trained with.
"""

import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from kronos_lightning.errors import KronosError
from kronos_lightning.model import KronosTokenizer
from kronos_lightning.model.pretrained import RECORD_FILE
from kronos_lightning.settings import read_stored
from kronos_lightning.settings.text import masked_values
from kronos_lightning.storage import (
    Lock,
    archive,
    atomic_directory,
    atomic_path,
    clear_leftovers,
    exchange,
    require_no_file,
)
from kronos_lightning.training.checkpoints import read_checkpoint
from kronos_lightning.training.stage_module import ScheduleError

from .records import RunInfo, RunState

RECORDS = ["config.json", "run_info.json"]

log = logging.getLogger(__name__)


class RunError(KronosError, ValueError):
    """Error if a run cannot start or cannot be found; the message says what to do."""


def read_info(run_dir: Path) -> dict[str, Any] | None:
    """Read the run's `run_info.json`; return None if there is none.

    Raises:
        RunError: the file is damaged.
    """
    found = read_stored(run_dir / "run_info.json", RunInfo, RunError, "move it away or set another run_dir")
    return None if found is None else found.content()


def read_state(run_dir: Path) -> RunState | None:
    """Read how far a run got from its `run_info.json`; return None if there is none.

    Raises:
        RunError: the file is damaged.
    """
    return read_stored(run_dir / "run_info.json", RunState, RunError, "move it away or set another run_dir")


def is_finished(run_dir: Path) -> bool:
    """Return True if the folder holds a run that finished by itself, with its best checkpoint."""
    state = read_state(run_dir)
    return state is not None and state.status == "finished" and (run_dir / "checkpoints" / "best.ckpt").is_file()


class Begun(AbstractContextManager["Begun"]):
    """Folder of a run that has begun; a `ScheduleError` before the first step puts back what it held before.

    Args:
        run_dir: the folder.
        aside: place of the earlier run that was archived; None if there was none.
        before: contents of the files that `begin` replaces, by name; used if nothing was archived.
    """

    def __init__(self, run_dir: Path, aside: Path | None = None, before: dict[str, bytes] | None = None):
        self.run_dir, self.aside, self.before = run_dir, aside, before or {}

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, ScheduleError) or rank_zero_only.rank != 0:
            return
        if self.aside is not None:
            exchange(self.aside, self.run_dir)
            shutil.rmtree(self.aside)  # which `begin` made in this process
        for name, content in self.before.items():
            with atomic_path(self.run_dir / name) as temporary:
                temporary.write_bytes(content)


def is_first_process() -> bool:
    """Return True in the one process of a command that writes its results: of the first rank, on the first machine."""
    machine = next((os.environ[name] for name in ("GROUP_RANK", "NODE_RANK") if os.environ.get(name)), "0")
    return rank_zero_only.rank == 0 and machine == "0"


@contextmanager
def reserve(folder: Path, key: str) -> Iterator[None]:
    """Reserve the folder of a command's results for its first process.

    Args:
        folder: the folder; it need not exist.
        key: setting that names it, for the messages.

    Raises:
        InUseError: another process writes to the same folder.
        RunError: the folder has no name or cannot be written.
        StorageError: it or one of its parents is a file.
    """
    with ExitStack() as stack:
        if is_first_process():
            if not folder.name:
                raise RunError(f"{key}={folder}: the results need a folder of their own")
            require_no_file(folder)
            try:
                stack.enter_context(Lock(folder, f", or set another {key}"))
            except OSError as error:
                raise RunError(f"{key}={folder}: cannot be written: {error.strerror}") from error
        yield


def begin(
    run_dir: Path, config: dict[str, Any], info: dict[str, Any], tokenizer: KronosTokenizer | None, resume: Path | None
) -> Begun:
    """Create the run's folder, archive an earlier run, and write the metadata known before the first step.

    A run that resumes from `resume` inside its own folder keeps this folder, without files left half-written by a kill.
    A predictor's folder keeps its frozen `tokenizer`, so that both stay together even if another tokenizer is trained.

    Raises:
        RunError: the folder holds other files and no run, or cannot be written.
    """
    if rank_zero_only.rank != 0:
        return Begun(run_dir)
    known = {path.name for path in run_dir.iterdir()} if run_dir.is_dir() else set()
    if known and not known & {"run_info.json", "checkpoints", "logs", "profile"}:
        raise RunError(f"run_dir={run_dir}: contains {min(known)} but no run; choose another folder")
    goes_on = resume is not None and run_dir.resolve() in resume.resolve().parents
    before = {name: (run_dir / name).read_bytes() for name in RECORDS if goes_on and (run_dir / name).is_file()}
    aside = None if goes_on else archive(run_dir)
    if aside is not None:
        log.info("The earlier run was moved to %s", aside)
    try:
        (run_dir / "logs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"run_dir={run_dir}: cannot be written: {error.strerror}") from error
    for folder in (run_dir, run_dir / "checkpoints"):
        clear_leftovers(folder)
    write_json(run_dir / "config.json", masked_values(config))
    write_json(run_dir / "run_info.json", info)
    if tokenizer is not None and not (run_dir / "checkpoints" / "tokenizer").is_dir():
        with atomic_directory(run_dir / "checkpoints" / "tokenizer") as directory:
            tokenizer.save_pretrained(directory)
            if info["tokenizer_record"] is not None:
                write_json(directory / RECORD_FILE, info["tokenizer_record"])
    return Begun(run_dir, aside, before)


@rank_zero_only
def end(run_dir: Path, info: dict[str, Any]) -> None:
    """Mark the run as finished; `info` contains its metrics."""
    write_json(run_dir / "run_info.json", info | {"status": "finished"})


def best_metrics(run_dir: Path) -> dict[str, Any]:
    """Return the validation metrics of the best checkpoint and its epoch (counted from 1)."""
    checkpoint, problem = read_checkpoint(run_dir / "checkpoints" / "best.ckpt")
    if checkpoint is None:
        raise RunError(f"{run_dir / 'checkpoints' / 'best.ckpt'}: damaged ({problem}); train again without resume")
    return {"best_epoch": checkpoint["epoch"] + 1, **checkpoint["figures"]}


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False))


def best_model(directory: Path) -> Path:
    """Return the best model inside a run's folder; any other path is returned unchanged."""
    nested = directory / "checkpoints" / "best_model"
    return nested if nested.is_dir() else directory


def find_bundled_tokenizer(directory: Path) -> Path:
    """Return the tokenizer directory of a predictor's checkpoint: inside it after an export, else next to it."""
    inside = directory / "tokenizer"
    return inside if inside.is_dir() else directory.parent / "tokenizer"
