"""Folder of a run: what is in it, where earlier runs go.

``finetune_{stage}_{data}/``: `config.json`, `run_info.json`, `logs/`, and `checkpoints/` with `best_model/` and, for
the predictor, the `tokenizer/` that it was trained with.
"""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_only

from kronos_lightning.data.files import atomic_directory, atomic_path, set_aside
from kronos_lightning.errors import KronosError
from kronos_lightning.model import KronosTokenizer
from kronos_lightning.model.pretrained import RECORD_FILE

log = logging.getLogger(__name__)


class RunError(KronosError, ValueError):
    """A run cannot start or be found as asked; the message says what to do."""


def read_info(run_dir: Path) -> dict[str, Any] | None:
    """The run's `run_info.json`, or None."""
    try:
        return json.loads((run_dir / "run_info.json").read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise RunError(
            f"{run_dir / 'run_info.json'}: damaged ({error}); name another run_dir, or move it away"
        ) from error


def is_finished(run_dir: Path) -> bool:
    """Whether a run ended by itself there."""
    info = read_info(run_dir)
    return info is not None and info["status"] == "finished" and (run_dir / "checkpoints" / "best.ckpt").is_file()


@rank_zero_only
def begin(
    run_dir: Path, config: dict[str, Any], info: dict[str, Any], tokenizer: KronosTokenizer | None, resume: Path | None
) -> None:
    """Make the run's folder, setting an earlier run aside, and write what is known before the first step.

    A run that goes on from `resume` in its folder loses what a kill left half-written. A predictor's folder keeps its
    frozen `tokenizer`, so that the two stay together whatever is trained later.
    """
    if not run_dir.name:
        raise RunError(f"run_dir={run_dir}: a run needs a folder of its own")
    known = {path.name for path in run_dir.iterdir()} if run_dir.is_dir() else set()
    if known and not known & {"run_info.json", "checkpoints", "logs", "profile"}:
        raise RunError(f"run_dir={run_dir}: holds {min(known)} and no run, and stays as it is; name another folder")
    goes_on = resume is not None and run_dir.resolve() in resume.resolve().parents
    if not goes_on and (aside := set_aside(run_dir)) is not None:
        log.info("The earlier run was moved to %s", aside)
    try:
        (run_dir / "logs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"run_dir={run_dir}: cannot be written: {error.strerror}") from error
    for leftover in (run_dir / "checkpoints").glob(".*"):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    write_json(run_dir / "config.json", config)
    write_json(run_dir / "run_info.json", info)
    if tokenizer is not None and not (run_dir / "checkpoints" / "tokenizer").is_dir():
        with atomic_directory(run_dir / "checkpoints" / "tokenizer") as directory:
            tokenizer.save_pretrained(directory)
            if info["tokenizer_record"] is not None:
                write_json(directory / RECORD_FILE, info["tokenizer_record"])


@rank_zero_only
def end(run_dir: Path, info: dict[str, Any]) -> None:
    """Mark the run as finished, with its figures."""
    write_json(run_dir / "run_info.json", info | {"status": "finished"})


def best_figures(run_dir: Path) -> dict[str, Any]:
    """Validation figures of the best checkpoint and the epoch it was reached after (from 1)."""
    checkpoint = torch.load(run_dir / "checkpoints" / "best.ckpt", map_location="cpu", weights_only=True, mmap=True)
    return {"best_epoch": checkpoint["epoch"] + 1, **checkpoint["figures"]}


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False))


def best_model(directory: Path) -> Path:
    """The best model inside a run's folder; any other path is itself."""
    nested = directory / "checkpoints" / "best_model"
    return nested if nested.is_dir() else directory


def tokenizer_beside(directory: Path) -> Path:
    """Where the tokenizer of a predictor's checkpoint directory is kept: in it, if it was exported, else beside it."""
    inside = directory / "tokenizer"
    return inside if inside.is_dir() else directory.parent / "tokenizer"
