"""Model directory of a finished run: networks, calibration and card, optionally pushed to the Hub."""

import logging
import shutil
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi

from kronos_lightning.data.folds import fold_label
from kronos_lightning.forecast.calibration import FILE as CALIBRATION
from kronos_lightning.model import Kronos, KronosTokenizer
from kronos_lightning.model.pretrained import CONFIG_FILE, RECORD_FILE, WEIGHTS_FILE
from kronos_lightning.runs.directory import RunError, is_finished, read_state
from kronos_lightning.settings import read_stored
from kronos_lightning.storage import MARKER, sha256

from .records import ExportedRun, Measured, RunConfig

DECISION = "decision.json"  # of the pipeline, which is above this floor

log = logging.getLogger("export")


def finished(run: Path) -> dict[str, Any]:
    """Read the `run_info.json` of a finished run.

    Raises:
        RunError: the file is missing, or the run has not finished.
    """
    if read_state(run) is None:
        raise RunError(
            f"{run}: no run_info.json; name the folder of a run, such as outputs/models/finetune_predictor_btc"
        )
    if not is_finished(run):
        raise RunError(f"{run} is not finished; continue it with resume=auto, then export it")
    found = read_stored(run / "run_info.json", ExportedRun, RunError, "name the folder of another run")
    assert found is not None  # it was there
    return found.content()


def configuration(run: Path) -> dict[str, Any]:
    """Read the `config.json` of a run.

    Raises:
        RunError: the file is missing or damaged.
    """
    found = read_stored(run / "config.json", RunConfig, RunError, "name the folder of another run")
    if found is None:
        raise RunError(f"{run / 'config.json'}: missing; name the folder of a run")
    return found.content()


def copy(run: Path, directory: Path, stage: str) -> None:
    """Copy the best model of a run into a model directory; a predictor's tokenizer goes into ``tokenizer/``.

    Args:
        run: folder of the run.
        directory: the model directory.
        stage: tokenizer or predictor.

    Raises:
        CheckpointError: a source is not a Kronos checkpoint.
    """
    places = {run / "checkpoints" / "best_model": (directory, KronosTokenizer if stage == "tokenizer" else Kronos)}
    if stage == "predictor":
        places[run / "checkpoints" / "tokenizer"] = directory / "tokenizer", KronosTokenizer
    for source, (target, network) in places.items():
        network.from_pretrained(source)
        target.mkdir(exist_ok=True)
        for name in (CONFIG_FILE, WEIGHTS_FILE, RECORD_FILE, CALIBRATION, DECISION):
            if (source / name).is_file():
                shutil.copyfile(source / name, target / name)


def evaluation(wanted: str | None, run: Path, config: dict[str, Any]) -> dict[str, Any] | None:
    """Read the `metrics.json` that the card may quote, measured with exactly the weights of this run.

    Args:
        wanted: None = no evaluation; "auto" = the report on the run's data, if it fits; or the folder of a report.
        run: folder of the run.
        config: `config.json` of the run.

    Returns:
        The metrics, or None if there are none to quote.

    Raises:
        RunError: the named report does not exist or measured other weights.
    """
    if wanted is None:
        return None
    label = fold_label(config["data"]["name"], config["data"]["fold"])
    path = (Path(config["paths"]["results"]) / label if wanted == "auto" else Path(wanted)) / "metrics.json"
    found = read_stored(path, Measured, RunError, "evaluate again, or set evaluation=null")
    if found is None:
        if wanted != "auto":
            raise RunError(f"evaluation={wanted}: no {path}; run evaluate.py first")
        log.info("No evaluation found in %s; the model card says so", path)
        return None
    own = {
        name: sha256(run / "checkpoints" / folder / WEIGHTS_FILE)
        for name, folder in (("predictor", "best_model"), ("tokenizer", "tokenizer"))
    }
    if found.weights == [own]:
        return found.content()
    if wanted != "auto":
        raise RunError(f"evaluation={wanted}: {path} evaluates other weights than those of {run}")
    log.warning("%s evaluates other weights and is not quoted; run evaluate.py predictor=%s first", path, run)
    return None


def push(directory: Path, repository: str, private: bool) -> str:
    """Upload a model directory to the Hub and return its URL.

    Args:
        directory: the model directory.
        repository: owner/name on the Hub.
        private: visibility of a repository that this call creates.

    Raises:
        RunError: the Hub refuses the upload or cannot be reached.
    """
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # it logs each request of the Hub's client
    api = HfApi()
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository, folder_path=directory, ignore_patterns=MARKER, commit_message="Fine-tuned Kronos"
        )
    except Exception as error:  # errors of the Hub, its client and the client's network library
        raise RunError(
            f"push={repository}: {type(error).__name__}: {str(error).strip().splitlines()[0]}. The model directory is "
            f"written; to try again: hf upload {repository} {directory}{' --private' if private else ''}"
        ) from error
    return str(commit.repo_url)
