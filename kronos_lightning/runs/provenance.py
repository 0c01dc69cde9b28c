"""Origin of a run's weights: data, settings, versions, and the training metadata stored with a checkpoint."""

import importlib.metadata
import json
import subprocess
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from kronos_lightning.config.schema import Training
from kronos_lightning.data import CandleDataModule
from kronos_lightning.model.pretrained import read_record as read_record
from kronos_lightning.settings import end_of

PACKAGES = ("torch", "lightning", "hydra-core", "pandas", "numpy", "huggingface-hub")


def data_key(datamodule: CandleDataModule) -> dict[str, Any]:
    """Return the identity of a run's data: candle fingerprints, split ranges and embargo."""
    embargo = datamodule.config.embargo
    return {"fingerprints": datamodule.fingerprints, "ranges": datamodule.ranges, "embargo": embargo}


def describe(datamodule: CandleDataModule, seed: int, **more: Any) -> dict[str, Any]:
    """Build the initial content of `run_info.json`: versions, Git revision, data, seed and `more`."""
    manifest = datamodule.manifest()
    return {
        "status": "running",
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "git_revision": _git_revision(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "seed": seed,
        "synthetic": manifest["synthetic"],
        "representation": datamodule.representation.model_dump(),
        "data": data_key(datamodule)
        | {
            "candles": manifest["candles"],
            "span": {symbol: market["span"] for symbol, market in manifest["markets"].items()},
            "dropped": sum(len(market["dropped"]) for market in manifest["markets"].values()),
            "windows": manifest["windows"],
        },
        **more,
    }


def record(info: dict[str, Any]) -> dict[str, Any]:
    """Return the subset of `run_info.json` stored with every checkpoint as training.json.

    Runs of earlier versions have no `settings`, no `initial_record` and no `random`.
    """
    keys = "stage", "initial_weights", "random", "initial_record", "synthetic", "representation", "data", "settings"
    return {key: info[key] for key in keys if key in info}


def trained_until(info: dict[str, Any] | None, splits: tuple[str, ...] = ("train", "val")) -> pd.Timestamp | None:
    """Return the end of all candles used to train or select a checkpoint and its ancestors; None = unknown.

    Args:
        info: training metadata of the checkpoint; None = unknown.
        splits: splits whose ranges count.
    """
    if info is None:
        return None
    ends = [end_of(info["data"]["ranges"][split][1]) for split in splits]
    before = trained_until(info.get("initial_record"), splits)
    return max([*ends, before] if before is not None else ends)


def optimisation(settings: Training) -> dict[str, float | int | str | bool | None]:
    """Return the settings by which runs on the same data are compared, as a flat dict of primitive values."""
    stage, data, trainer = settings.stage.model_dump(exclude={"name"}), settings.data, settings.trainer
    beta_1, beta_2 = stage.pop("betas")
    means = settings.regularization.model_dump(exclude={"dropout", "freeze", "lora", "extra"})
    means |= {f"extra_{name}": json.dumps(node) for name, node in settings.regularization.extra.items()}
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
        "representation": data.representation,
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


def _git_revision() -> str | None:
    try:
        result = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()
