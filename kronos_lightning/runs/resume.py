"""Resuming a run: lookup of its checkpoint, and comparison of a finished run with the requested one."""

import logging
from pathlib import Path

from kronos_lightning.config.schema import Training
from kronos_lightning.data import CandleDataModule
from kronos_lightning.training.checkpoints import LAST, PREVIOUS, read_checkpoint
from kronos_lightning.training.stage_module import changed, require_same_run

from .directory import RunError, read_info
from .provenance import data_key, optimisation

log = logging.getLogger(__name__)


def find_resume(resume: str | None, run_dir: Path) -> Path | None:
    """Find the Lightning checkpoint to resume from; return None to start a new run.

    Args:
        resume: None, "auto" or the path of a checkpoint.
        run_dir: folder of the run, searched by "auto": last.ckpt first, then previous.ckpt.

    Raises:
        RunError: the named checkpoint does not exist, or every checkpoint is damaged.
    """
    if resume is None:
        return None
    checkpoints = run_dir / "checkpoints"
    candidates = [checkpoints / LAST, checkpoints / PREVIOUS] if resume == "auto" else [Path(resume)]
    found = [path for path in candidates if path.is_file()]
    if not found and resume == "auto":
        log.info("resume=auto: no checkpoint in %s, starting a new run", checkpoints)
        return None
    if not found:
        raise RunError(f"resume={resume}: no such file; resume=auto looks in {run_dir}")
    problems = []
    for path in found:
        checkpoint, problem = read_checkpoint(path)
        if checkpoint is not None:
            log.info("Resuming from %s", path)
            return path
        problems.append(f"{path}: damaged ({problem})")
        log.warning("%s is damaged and was ignored (%s)", path, problem)
    raise RunError(f"{'; '.join(problems)}; set resume=PATH to a checkpoint such as RUN/checkpoints/last.ckpt")


def check_resumable(resume: Path | None, settings: Training) -> None:
    """Raise an error, before anything is written, if a checkpoint belongs to another stage or other settings.

    Raises:
        ScheduleError: the run cannot be resumed like this.
        RunError: the file is no checkpoint of this project.
    """
    if resume is None:
        return
    checkpoint, problem = read_checkpoint(resume)
    if checkpoint is None:
        raise RunError(f"{resume}: damaged ({problem}); set resume=PATH to another checkpoint")
    require_same_run(checkpoint, settings.stage.name, optimisation(settings))


def kept_tokenizer(resume: Path | None) -> Path | None:
    """Return the frozen tokenizer that the run of a checkpoint began with; None if there is none.

    It is a copy in the run's folder, so tokenizers trained later do not change it.
    """
    kept = resume.parent / "tokenizer" if resume is not None else None
    return kept if kept is not None and kept.is_dir() else None


def check_same(run_dir: Path, settings: Training, datamodule: CandleDataModule) -> None:
    """Raise `RunError` if the finished run in the folder differs from the requested run in stage, settings or data."""
    info, key = read_info(run_dir), data_key(datamodule)
    differences = changed({"stage": info["stage"]}, {"stage": settings.stage.name})
    differences += changed(info.get("settings", {}), optimisation(settings))
    if any(info["data"].get(name, value) != value for name, value in key.items()):
        differences.append("the data or its split")
    if differences:
        raise RunError(
            f"{run_dir}: holds a finished run that differs in {', '.join(differences)}. Omit resume to train a new run "
            f"(the finished run is archived), or use init_from=DIR"
        )
