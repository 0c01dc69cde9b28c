"""A run's folder: what is in it, where earlier runs go, how later stages find it.

``finetune_{stage}_{data}/``: `config.json`, `run_info.json`, `logs/`, and `checkpoints/` with `best_model/` and, for
the predictor, the `tokenizer/` that it was trained with.
"""

import importlib.metadata
import json
import logging
import shutil
import subprocess
import zipfile
from datetime import UTC, datetime
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning.pytorch.utilities import rank_zero_only

from .data import CandleDataModule
from .data.candles import end_of
from .data.files import atomic_directory, atomic_path, set_aside
from .model import KronosTokenizer
from .model.pretrained import RECORD_FILE
from .schema import Training
from .training.checkpoints import LAST, PREVIOUS
from .training.stage_module import changed

PACKAGES = ("torch", "lightning", "hydra-core", "pandas", "numpy", "huggingface-hub")

log = logging.getLogger(__name__)


class RunError(ValueError):
    """A run cannot start or be found as asked; the message says what to do."""


def data_key(datamodule: CandleDataModule) -> dict[str, Any]:
    """What makes two runs' data the same: the candles and the split into train, validation and test."""
    embargo = datamodule.hparams.embargo
    return {"fingerprints": datamodule.fingerprints, "ranges": datamodule.ranges, "embargo": embargo}


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


def record(info: dict[str, Any]) -> dict[str, Any]:
    """What of `run_info.json` goes along with a checkpoint directory, wherever it is taken.

    Those of earlier versions have no `settings` and no `initial_record`.
    """
    keys = "stage", "initial_weights", "initial_record", "synthetic", "data", "settings"
    return {key: info[key] for key in keys if key in info}


def trained_until(info: dict[str, Any] | None, splits: tuple[str, ...] = ("train", "val")) -> pd.Timestamp | None:
    """The end of all candles that a checkpoint, and what it started from, was trained or chosen on; None = unknown."""
    if info is None:
        return None
    ends = [end_of(info["data"]["ranges"][split][1]) for split in splits]
    before = trained_until(info.get("initial_record"), splits)
    return max([*ends, before] if before is not None else ends)


def optimisation(settings: Training) -> dict[str, float | int | str | bool | None]:
    """The settings by which runs on the same data are compared: flat, each a primitive."""
    stage, data, trainer = settings.stage.model_dump(exclude={"name"}), settings.data, settings.trainer
    beta_1, beta_2 = stage.pop("betas")
    means = settings.regularization.model_dump(exclude={"dropout", "freeze", "lora"})
    dropout, lora = settings.regularization.dropout.model_dump(), settings.regularization.lora
    means |= {f"dropout_{place}": p for place, p in dropout.items()}
    means |= {
        "freeze": " ".join(settings.regularization.freeze),
        "lora_rank": lora and lora.rank,
        "lora_alpha": lora and lora.alpha,
        "lora_modules": lora and " ".join(lora.modules),
    }
    return {
        **stage,
        **means,
        "beta_1": beta_1,
        "beta_2": beta_2,
        "model": settings.model.name,
        "lookback": data.lookback,
        "horizon": data.horizon,
        "volume": data.volume,
        "clip": data.clip,
        **{
            f"augmentation_{name}": value
            for name, value in (data.augmentation.model_dump() if data.augmentation else {}).items()
        },
        "batch_size": data.batch_size,
        "samples_per_epoch": data.samples_per_epoch,
        "accumulate_grad_batches": trainer.get("accumulate_grad_batches", 1),
        **{f"scaling_{key}": value for key, value in settings.scaling.model_dump().items()},
        "precision": trainer.get("precision"),
        "monitor": settings.callbacks.get("best", {}).get("monitor"),
        "seed": settings.seed,
    }


def read_record(directory: Path) -> dict[str, Any] | None:
    """What a checkpoint directory says of its training, or None."""
    try:
        return json.loads((directory / RECORD_FILE).read_text())
    except FileNotFoundError:
        return None


def is_finished(run_dir: Path) -> bool:
    """Whether a run ended by itself there."""
    info = read_info(run_dir)
    return info is not None and info["status"] == "finished" and (run_dir / "checkpoints" / "best.ckpt").is_file()


def check_same(run_dir: Path, settings: Training, datamodule: CandleDataModule) -> None:
    """Raise `RunError` where the finished run there is another than the one that is asked for."""
    info, key = read_info(run_dir), data_key(datamodule)
    differences = changed({"stage": info["stage"]}, {"stage": settings.stage.name})
    differences += changed(info.get("settings", {}), optimisation(settings))
    if any(info["data"].get(name, value) != value for name, value in key.items()):
        differences.append("the data or its split")
    if differences:
        raise RunError(
            f"{run_dir} is finished, and was another run than this one: {', '.join(differences)}. Without resume this "
            f"one is trained, and the finished one set aside; or start from its weights with init_from="
        )


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False))


def find_resume(resume: str | None, run_dir: Path) -> Path | None:
    """The Lightning checkpoint to continue from; None = start anew.

    Raises:
        RunError: there are checkpoints, and none of them is whole.
    """
    if resume is None:
        return None
    checkpoints = run_dir / "checkpoints"
    candidates = [checkpoints / LAST, checkpoints / PREVIOUS] if resume == "auto" else [Path(resume)]
    found = [path for path in candidates if path.is_file()]
    if not found and resume == "auto":
        log.info("resume=auto: no checkpoint in %s, starting anew", checkpoints)
        return None
    if not found:
        raise RunError(f"resume={resume}: no such file; resume=auto looks in {run_dir}")
    for path in found:
        if is_whole(path):
            log.info("Going on from %s", path)
            return path
        log.warning("%s is damaged, not used", path)
    raise RunError(f"{' and '.join(map(str, found))}: damaged; another checkpoint can be named with resume=PATH")


def is_whole(checkpoint: Path) -> bool:
    """Whether a file that torch wrote is as it was written, by its own checksums."""
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError):
        return False


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


def kept_tokenizer(resume: Path | None) -> Path | None:
    """The frozen tokenizer that the run of a checkpoint began with, whatever was trained since."""
    kept = resume.parent / "tokenizer" if resume is not None else None
    return kept if kept is not None and kept.is_dir() else None


@rank_zero_only
def end(run_dir: Path, info: dict[str, Any]) -> None:
    """Mark the run as finished, with its figures."""
    write_json(run_dir / "run_info.json", info | {"status": "finished"})


class RunLog:
    """Keeps the log of a run in its folder, lines from before the folder was made included."""

    def __init__(self) -> None:
        self._buffer = MemoryHandler(capacity=10_000, flushLevel=logging.CRITICAL + 1)

    def __enter__(self) -> "RunLog":
        logging.getLogger().addHandler(self._buffer)
        return self

    @rank_zero_only
    def write_to(self, path: Path) -> None:
        """Write what was logged so far, and from now on every line at once."""
        file = logging.FileHandler(path, encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._buffer.setTarget(file)
        self._buffer.flush()
        self._buffer.flushLevel = logging.NOTSET

    def __exit__(self, *exception: object) -> None:
        logging.getLogger().removeHandler(self._buffer)
        self._buffer.close()
        if self._buffer.target is not None:
            self._buffer.target.close()


def best_figures(run_dir: Path) -> dict[str, Any]:
    """Validation figures of the best checkpoint and the epoch it was reached after (from 1)."""
    checkpoint = torch.load(run_dir / "checkpoints" / "best.ckpt", map_location="cpu", weights_only=True, mmap=True)
    return {"best_epoch": checkpoint["epoch"] + 1, **checkpoint["figures"]}


def describe(datamodule: CandleDataModule, seed: int, **more: Any) -> dict[str, Any]:
    """First content of `run_info.json`: versions, revision, data, seed."""
    manifest = datamodule.manifest()
    return {
        "status": "running",
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "git_revision": _git_revision(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "seed": seed,
        "synthetic": manifest["synthetic"],
        "data": data_key(datamodule)
        | {
            "candles": manifest["candles"],
            "span": {symbol: market["span"] for symbol, market in manifest["markets"].items()},
            "dropped": sum(len(market["dropped"]) for market in manifest["markets"].values()),
            "windows": manifest["windows"],
        },
        **more,
    }


def find_finished(run_dir: Path, key: dict[str, Any]) -> tuple[Path | None, str]:
    """The best model of a finished run on the same data.

    Returns:
        Its checkpoint directory and a sentence about it, or None and why there is none to use.

    Raises:
        RunError: there is a run, but it did not finish.
    """
    info = read_info(run_dir)
    if info is None:
        return None, f"no run in {run_dir}"
    trained = info["data"]["fingerprints"]
    others = {symbol for symbol in key["fingerprints"] if trained.get(symbol) != key["fingerprints"][symbol]}
    split = info["data"]["ranges"], info["data"].get("embargo", 0)  # earlier versions had none
    if others or split != (key["ranges"], key["embargo"]):
        return None, f"{run_dir} was fine-tuned on other data or split ranges"
    if not is_finished(run_dir):
        raise RunError(
            f"{run_dir} was not finished: continue it with resume=auto, or name a checkpoint directory yourself, "
            f"such as {run_dir / 'checkpoints' / 'best_model'}"
        )
    return run_dir / "checkpoints" / "best_model", f"fine-tuned on this data ({run_dir})"


def _git_revision() -> str | None:
    try:
        result = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()
