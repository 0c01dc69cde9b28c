"""Model directory of a finished run: networks, calibration and card; pushed to the Hub where that was asked for."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi

from kronos_lightning.data.files import sha256
from kronos_lightning.data.folds import fold_label
from kronos_lightning.forecast.calibration import FILE as CALIBRATION
from kronos_lightning.model import Kronos, KronosTokenizer
from kronos_lightning.model.pretrained import CONFIG_FILE, RECORD_FILE, WEIGHTS_FILE
from kronos_lightning.runs.directory import RunError, is_finished, read_info

log = logging.getLogger("export")


def finished(run: Path) -> dict[str, Any]:
    """The `run_info.json` of a finished run.

    Raises:
        RunError: there is none, or the run goes on.
    """
    info = read_info(run)
    if info is None:
        raise RunError(
            f"{run}: no run_info.json; name the folder of a run, such as outputs/models/finetune_predictor_btc"
        )
    if not is_finished(run):
        raise RunError(f"{run} was not finished: continue it with resume=auto, then export it")
    return info


def copy(run: Path, directory: Path, stage: str) -> None:
    """The best model of a run as a model directory, the tokenizer of a predictor in ``tokenizer/``.

    Raises:
        CheckpointError: what is there is no plain Kronos checkpoint.
    """
    places = {run / "checkpoints" / "best_model": (directory, KronosTokenizer if stage == "tokenizer" else Kronos)}
    if stage == "predictor":
        places[run / "checkpoints" / "tokenizer"] = directory / "tokenizer", KronosTokenizer
    for source, (target, network) in places.items():
        network.from_pretrained(source)
        target.mkdir(exist_ok=True)
        for name in (CONFIG_FILE, WEIGHTS_FILE, RECORD_FILE, CALIBRATION):
            if (source / name).is_file():
                shutil.copyfile(source / name, target / name)


def evaluation(wanted: str | None, run: Path, config: dict[str, Any]) -> dict[str, Any] | None:
    """The `metrics.json` that the card may quote: it was measured with the very weights of this run.

    Raises:
        RunError: one was asked for by name that is not there or measured others.
    """
    if wanted is None:
        return None
    label = fold_label(config["data"]["name"], config["data"]["fold"])
    path = (Path(config["paths"]["results"]) / label if wanted == "auto" else Path(wanted)) / "metrics.json"
    if not path.is_file():
        if wanted != "auto":
            raise RunError(f"evaluation={wanted}: no {path}; evaluate.py makes one")
        log.info("Not evaluated: no %s; the card says so", path)
        return None
    found = json.loads(path.read_text())
    own = {
        name: sha256(run / "checkpoints" / folder / WEIGHTS_FILE)
        for name, folder in (("predictor", "best_model"), ("tokenizer", "tokenizer"))
    }
    if found.get("weights") == [own]:
        return found
    if wanted != "auto":
        raise RunError(f"evaluation={wanted}: {path} measured other weights than those of {run}")
    log.warning("%s measured other weights and is not quoted: evaluate.py … predictor=%s", path, run)
    return None


def push(directory: Path, repository: str, private: bool) -> str:
    """Upload a model directory to the Hub; returns its address.

    Raises:
        RunError: the Hub refuses or cannot be reached.
    """
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # each request of the Hub's client
    api = HfApi()
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.upload_folder(repo_id=repository, folder_path=directory, commit_message="Fine-tuned Kronos")
    except Exception as error:  # of the Hub, of its client and of the client's network library
        raise RunError(
            f"push={repository}: {type(error).__name__}: {str(error).strip().splitlines()[0]}. The model directory is "
            f"written; to try again: hf upload {repository} {directory}{' --private' if private else ''}"
        ) from error
    return str(commit.repo_url)
