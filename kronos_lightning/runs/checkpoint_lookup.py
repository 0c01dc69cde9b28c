"""Lookup of checkpoints: by name, by folder, or from the last run on the same data."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from kronos_lightning.config.schema import Common, Evaluation, Forecasting
from kronos_lightning.data import CandleDataModule
from kronos_lightning.data.processed import differing
from kronos_lightning.data.representation import LEVELS
from kronos_lightning.forecast import Forecaster
from kronos_lightning.model import CheckpointError, Kronos, KronosTokenizer
from kronos_lightning.model.pretrained import trained_with_volume
from kronos_lightning.model.record import started_at_random

from .directory import RunError, best_model, find_bundled_tokenizer, is_finished, read_info
from .networks import Inputs, build_forecaster, published_network
from .provenance import data_key, read_record

ANCHORED = "anchored:"  # prefix of a compared checkpoint

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Origin of a forecaster's networks.

    predictor, tokenizer: a one-sentence description of each.
    info, tokenizer_info: training metadata stored with their checkpoints; None if there is none.
    directory, tokenizer_directory: their checkpoint directories; None for Hub or random weights.
    random, random_tokenizer: True if the network was drawn at random and never trained.
    substitute: True if published weights stand in for fine-tuned ones that were not found.
    """

    predictor: str
    tokenizer: str
    info: dict[str, Any] | None
    directory: Path | None = None
    tokenizer_info: dict[str, Any] | None = None
    tokenizer_directory: Path | None = None
    random: bool = False
    random_tokenizer: bool = False
    substitute: bool = False

    @property
    def started_at_random(self) -> bool:
        """True if the predictor's weights descend from random instead of from published weights."""
        return self.random if self.info is None else started_at_random(self.info)


def find_tokenizer(
    settings: Common, wanted: str, datamodule: CandleDataModule
) -> tuple[KronosTokenizer, str, dict[str, Any] | None]:
    """Find the frozen tokenizer of the predictor stage; return it, its description and its training metadata.

    Args:
        settings: configuration with the model and the folder of runs.
        wanted: "auto" = fine-tuned on the same data if there is such a run, else published; "published"; or a path.
        datamodule: data that a run must have been trained on for "auto".

    Returns:
        Tokenizer, a sentence that describes its source, and its `training.json`; None if there is none.

    Raises:
        RunError: with "auto", a run on the same data exists but did not finish.
        CheckpointError: the tokenizer was trained on another representation of the candles.
    """
    directory, source = None, ""
    if wanted not in ("auto", "published"):
        directory, source = best_model(Path(wanted)), wanted
        tokenizer = KronosTokenizer.from_pretrained(directory)
    else:
        if wanted == "auto":
            run_dir = Path(settings.paths.models) / f"finetune_tokenizer_{settings.data.label}"
            directory, source = find_finished(run_dir, data_key(datamodule), "stage.frozen_tokenizer")
            volume = trained_with_volume(directory) if directory is not None else None
            if volume is not None and volume != settings.data.volume:
                directory, source = None, f"{run_dir} was fine-tuned {'with' if volume else 'without'} volume"
            if directory is not None and (trained := _representation_name(directory)) != settings.data.representation:
                directory, source = None, f"{run_dir} was fine-tuned on representation={trained}"
        if directory is not None:
            tokenizer = KronosTokenizer.from_pretrained(directory)
        else:
            reason = source
            tokenizer, source = published_network(KronosTokenizer, settings)
            source += f" ({reason})" if reason else ""
            if settings.model.pretrained is None:
                log.warning("The tokenizer has random weights: %s. Run stage=tokenizer first", reason)
    wanted_representation, random = settings.data.representation, directory is None and not settings.model.pretrained
    trained = wanted_representation if random else _representation_name(directory)
    if trained != wanted_representation:
        raise CheckpointError(
            f"{source}: a tokenizer of data.representation={trained}, not {wanted_representation}; run stage=tokenizer "
            f"on the same data first, or set data.representation={trained}"
        )
    log.info("Tokenizer: %s", source)
    return tokenizer, source, read_record(directory) if directory is not None else None


def find_forecaster(settings: Evaluation, datamodule: CandleDataModule) -> tuple[Forecaster, Sources]:
    """Load the forecaster that evaluate.py measures, with the sources of its networks.

    Raises:
        RunError: with predictor=auto, there is no usable predictor, or the run did not finish.
    """
    directory, source = None, settings.predictor
    if settings.predictor == "auto":
        run_dir = Path(settings.paths.models) / f"finetune_predictor_{settings.data.label}"
        directory, source = find_finished(run_dir, data_key(datamodule), "predictor")
        if directory is None and settings.model.pretrained is None:
            raise RunError(f"no fine-tuned predictor: {source}. Run train.py stage=predictor, or set predictor=DIR")
    elif settings.predictor != "published":
        directory = best_model(Path(settings.predictor))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)  # random weights, if requested, are the same in every call
        random = directory is None and settings.model.pretrained is None
        inputs = Inputs(
            clip=settings.data.clip,
            volume=settings.data.volume,
            representation=datamodule.representation if random else LEVELS,
        )
        return load_forecaster(settings, directory, source, inputs)


def find_compared_forecaster(
    settings: Evaluation, name: str, measured: Sources, datamodule: CandleDataModule
) -> tuple[Forecaster, Sources]:
    """Load a forecaster named in `compare`: a keyword, or a predictor's folder, also with a tokenizer (``DIR@DIR``).

    untuned: the published weights. tokenizer: the measured tokenizer with the published predictor.
    predictor: the measured predictor with the published tokenizer. both: the measured pair. With the prefix
    ``anchored:`` its forecasts are anchored.
    """
    anchored, name = name.startswith(ANCHORED), name.removeprefix(ANCHORED)
    bundled = str(find_bundled_tokenizer(measured.directory)) if measured.directory else "published"
    keywords = {
        "untuned": ("published", "published"),
        "tokenizer": ("published", bundled if settings.tokenizer == "auto" else settings.tokenizer),
        "predictor": (settings.predictor, "published"),
        "both": (settings.predictor, settings.tokenizer),
    }
    folder, _, tokenizer = name.partition("@")
    predictor, tokenizer = keywords.get(name, (folder, tokenizer or "auto"))
    chosen = settings.model_copy(update={"predictor": predictor, "tokenizer": tokenizer})
    forecaster, sources = find_forecaster(chosen, datamodule)
    return (replace(forecaster, anchor=True) if anchored else forecaster), sources


def load_forecaster(
    settings: Evaluation | Forecasting, directory: Path | None, source: str, inputs: Inputs
) -> tuple[Forecaster, Sources]:
    """Load a predictor and a tokenizer that belong together.

    Args:
        settings: configuration of the command.
        directory: checkpoint directory of the predictor; None = the published weights.
        source: sentence that describes the predictor's source.
        inputs: what the networks see of candles, where the checkpoint does not record it.

    Raises:
        RunError: the checkpoint has another model size than the configuration.
        CheckpointError: the checkpoint's tokenizer is missing, or was trained on another representation.
    """
    if directory is None:
        predictor, name = published_network(Kronos, settings)
        source = name if settings.predictor == "published" else f"{name}, not fine-tuned ({source})"
    else:
        predictor = Kronos.from_pretrained(directory)

    bundled = None
    if settings.tokenizer not in ("auto", "published"):
        tokenizer_source, bundled = settings.tokenizer, best_model(Path(settings.tokenizer))
        tokenizer = KronosTokenizer.from_pretrained(bundled)
    elif directory is None or settings.tokenizer == "published":
        tokenizer, tokenizer_source = published_network(KronosTokenizer, settings)
    else:
        kept = find_bundled_tokenizer(directory)
        if not kept.is_dir():
            raise CheckpointError(f"{kept}: missing; set tokenizer=DIR to the tokenizer that belongs to {directory}")
        tokenizer, tokenizer_source = KronosTokenizer.from_pretrained(kept), f"stored with the predictor ({kept})"
        bundled = kept
    log.info("Predictor: %s", source)
    log.info("Tokenizer: %s", tokenizer_source)
    info, tokenizer_info = (read_record(place) if place is not None else None for place in (directory, bundled))
    size = (info or {}).get("settings", {}).get("model", settings.model.name)
    if size != settings.model.name:
        raise RunError(f"{directory} is a {size}, not a {settings.model.name}; set model={size}")
    if directory is not None:
        asked, inputs = inputs, Inputs.of(directory, inputs)
        if inputs.volume != asked.volume:
            word = "with" if inputs.volume else "without"
            log.info("%s was trained %s volume and forecasts the same way", directory, word)
    names = inputs.representation.name, _representation_name(bundled) if bundled else inputs.representation.name
    if bundled is None and directory is not None and settings.model.pretrained is not None:
        names = names[0], LEVELS.name  # the published tokenizer
    if names[0] != names[1]:
        raise CheckpointError(
            f"{source} was trained on representation={names[0]}, {tokenizer_source} on {names[1]}; use the tokenizer "
            f"that the predictor was trained with"
        )
    sources = Sources(
        predictor=source,
        tokenizer=tokenizer_source,
        info=info,
        directory=directory,
        tokenizer_info=tokenizer_info,
        tokenizer_directory=bundled,
        random=directory is None and settings.model.pretrained is None,
        random_tokenizer=bundled is None and settings.model.pretrained is None,
        substitute=directory is None and settings.predictor != "published",
    )
    return build_forecaster(settings, tokenizer, predictor, inputs), sources


def _representation_name(directory: Path | None) -> str:
    """Return the name of the representation that a checkpoint directory records; None = published weights."""
    return "levels" if directory is None else Inputs.of(directory, Inputs(clip=1.0)).representation.name


def find_finished(run_dir: Path, key: dict[str, Any], setting: str) -> tuple[Path | None, str]:
    """Find the best model of a finished run on the same data.

    Args:
        run_dir: folder of the run.
        key: identity of the data, see `provenance.data_key`.
        setting: key that can name another checkpoint, for the messages.

    Returns:
        Checkpoint directory and a sentence that describes it, or None and the reason why no model is usable.

    Raises:
        RunError: the run exists but did not finish, or the candles have changed since.
    """
    info = read_info(run_dir)
    if info is None:
        return None, f"no run in {run_dir}"
    trained = info["data"]["fingerprints"]
    if changed := differing(trained, key["fingerprints"]):
        raise RunError(
            f"{run_dir} was fine-tuned on other candles: {changed}. Train it again on these candles, or set {setting}="
            f"published or {setting}={run_dir}"
        )
    others = {symbol for symbol in key["fingerprints"] if trained.get(symbol) != key["fingerprints"][symbol]}
    split = info["data"]["ranges"], info["data"].get("embargo", 0)  # earlier versions had no embargo
    if others or split != (key["ranges"], key["embargo"]):
        return None, f"{run_dir} was fine-tuned on other data or split ranges"
    if not is_finished(run_dir):
        raise RunError(
            f"{run_dir} is not finished; continue it with resume=auto, or set a checkpoint directory "
            f"such as {run_dir / 'checkpoints' / 'best_model'}"
        )
    return run_dir / "checkpoints" / "best_model", f"fine-tuned on this data ({run_dir})"
