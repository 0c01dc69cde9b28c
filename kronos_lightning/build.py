"""Networks and Lightning modules from the checked configuration."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from .data import CandleDataModule
from .forecast import Forecaster, Sampling
from .forecast.forecaster import trained_with_volume
from .model import CheckpointError, Kronos, KronosTokenizer
from .runs import RunError, data_key, find_finished, read_record
from .schema import Common, Evaluation, Forecasting, Training
from .sections import PredictorStage
from .training.lora import add_adapters
from .training.optimization import Optimization
from .training.predictor_module import PredictorModule
from .training.regularization import Regularization, freeze, override_dropout
from .training.scaling import Scale
from .training.stage_module import StageModule
from .training.tokenizer_module import TokenizerModule

Network = TypeVar("Network", KronosTokenizer, Kronos)

log = logging.getLogger(__name__)


def build_module(
    settings: Training, datamodule: CandleDataModule, kept: Path | None = None
) -> tuple[StageModule, dict[str, Any]]:
    """The stage's module, and where its weights came from (for `run_info.json`).

    `kept` is the frozen tokenizer of a run that goes on; None = as the configuration says.
    """
    stage, data = settings.stage, settings.data
    rates = stage.learning_rate, tuple(stage.betas), stage.weight_decay, stage.pct_start, stage.div_factor
    optimization = Optimization(*rates, settings.regularization.layer_decay)
    regularization = build_regularization(settings, datamodule)
    if not isinstance(stage, PredictorStage):
        tokenizer, source = initial_network(KronosTokenizer, settings)
        regularize(tokenizer, settings)
        about = {"initial_weights": source, "initial_record": earlier(settings)}
        return TokenizerModule(tokenizer, optimization, data.lookback, data.horizon, regularization), about
    tokenizer, tokenizer_source, tokenizer_record = find_tokenizer(settings, str(kept or stage.tokenizer), datamodule)
    predictor, source = initial_network(Kronos, settings)
    regularize(predictor, settings)
    forecaster = build_forecaster(settings, tokenizer, predictor, data.clip, data.volume)
    module = PredictorModule(
        forecaster,
        optimization,
        data.lookback,
        data.horizon,
        stage.s1_condition,
        settings.forecast.num_paths,
        settings.seed,
        regularization,
        stage.cache_tokens,
    )
    about = {"initial_weights": source, "initial_record": earlier(settings)}
    return module, about | {"tokenizer": tokenizer_source, "tokenizer_record": tokenizer_record}


def scale(
    settings: Training, module: StageModule, datamodule: CandleDataModule, processes: int
) -> dict[str, int | float]:
    """Set batch size and learning rate for so many processes by the rules of `scaling`; what came out."""
    rules, accumulated = settings.scaling, settings.trainer.get("accumulate_grad_batches", 1)
    found = Scale(settings.data.batch_size, processes, accumulated, settings.stage.learning_rate)
    found = (found.shared() if rules.batch == "global" else found).with_rate(rules.rate, rules.reference_batch)
    datamodule.hparams.batch_size = found.batch_size
    module.optimization = replace(module.optimization, learning_rate=found.learning_rate)
    if processes > 1 or rules.batch == "global" or rules.rate != "none":
        shown = found.batch_size, processes, accumulated, found.global_batch, found.learning_rate
        log.info("A step: %d windows × %d process(es) × %d batch(es) = %d, learning rate %.3g", *shown)
    return found.about()


def build_regularization(settings: Training, datamodule: CandleDataModule) -> Regularization:
    """What the configuration asks for in each step."""
    asked = settings.regularization
    volatility = datamodule.recent_volatility() if asked.volatility == "market" else asked.volatility
    same = asked.model_dump(include={"l1", "l2_pretrained", "label_smoothing", "ema", "volatility_base", "loss_on"})
    return Regularization(volatility=volatility, **same)


def regularize(network: KronosTokenizer | Kronos, settings: Training) -> None:
    """Give the network that is trained its dropout, its adapters and its frozen parts."""
    asked = settings.regularization
    override_dropout(network, **asked.dropout.model_dump())
    if asked.lora is not None:
        add_adapters(network, **asked.lora.model_dump())
    freeze(network, asked.freeze)
    sizes = [p.numel() for p in network.parameters() if p.requires_grad]
    if asked.lora is not None or asked.freeze:
        log.info("Trained: %d parameters in %d tensors, the others are frozen", sum(sizes), len(sizes))


def build_forecaster(
    settings: Common | Forecasting, tokenizer: KronosTokenizer, predictor: Kronos, clip: float, volume: bool = True
) -> Forecaster:
    """Tokenizer and predictor with the configuration's sampling."""
    forecast = settings.forecast
    return Forecaster(
        tokenizer,
        predictor,
        settings.model.max_context,
        clip,
        Sampling(forecast.temperature, forecast.top_k, forecast.top_p),
        forecast.trained_positions,
        getattr(torch, forecast.precision),
        forecast.repair,
        forecast.compile,
        volume=volume,
    )


def initial_network(cls: type[Network], settings: Training) -> tuple[Network, str]:
    """The network to fine-tune: from `init_from`, else published, else random; and a sentence about it."""
    if settings.init_from is not None:
        source = str(best_model(Path(settings.init_from)))
        network = cls.from_pretrained(source)
    else:
        network, source = published_network(cls, settings)
    log.info("Weights of the %s before training: %s", _kind(cls), source)
    return network, source


def earlier(settings: Training) -> dict[str, Any] | None:
    """What the checkpoint that a run starts from says of its own training."""
    return read_record(best_model(Path(settings.init_from))) if settings.init_from is not None else None


def published_network(cls: type[Network], settings: Common | Forecasting) -> tuple[Network, str]:
    """The model group's published network, or a random one where `model.pretrained` is null."""
    kind, pretrained = _kind(cls), settings.model.pretrained
    if pretrained is None:
        return cls(**getattr(settings.model, kind).model_dump()), f"random ({settings.model.name} size)"
    name, revision = getattr(pretrained, kind), getattr(pretrained, f"{kind}_revision")
    return cls.from_pretrained(name, revision=revision), name


def find_tokenizer(
    settings: Common, wanted: str, datamodule: CandleDataModule
) -> tuple[KronosTokenizer, str, dict[str, Any] | None]:
    """The frozen tokenizer of the predictor stage, a sentence about it, and what is known of its training."""
    directory, source = None, ""
    if wanted not in ("auto", "published"):
        directory, source = best_model(Path(wanted)), wanted
        tokenizer = KronosTokenizer.from_pretrained(directory)
    else:
        if wanted == "auto":
            run_dir = Path(settings.paths.models) / f"finetune_tokenizer_{settings.data.label}"
            directory, source = find_finished(run_dir, data_key(datamodule))
            volume = trained_with_volume(directory) if directory is not None else None
            if volume is not None and volume != settings.data.volume:
                directory, source = None, f"{run_dir} was fine-tuned {'with' if volume else 'without'} volume"
        if directory is not None:
            tokenizer = KronosTokenizer.from_pretrained(directory)
        else:
            reason = source
            tokenizer, source = published_network(KronosTokenizer, settings)
            source += f" ({reason})" if reason else ""
            if settings.model.pretrained is None:
                log.warning("The tokenizer has random weights: %s. Run stage=tokenizer first", reason)
    log.info("Tokenizer: %s", source)
    return tokenizer, source, read_record(directory) if directory is not None else None


@dataclass(frozen=True)
class Sources:
    """Where the parts of a forecaster came from.

    predictor, tokenizer: a sentence each.
    info, tokenizer_info: what their checkpoints say of their training, or None where they say nothing.
    directory, tokenizer_directory: their checkpoint directories; None from the Hub or at random.
    """

    predictor: str
    tokenizer: str
    info: dict[str, Any] | None
    directory: Path | None = None
    tokenizer_info: dict[str, Any] | None = None
    tokenizer_directory: Path | None = None


def find_forecaster(settings: Evaluation, datamodule: CandleDataModule) -> tuple[Forecaster, Sources]:
    """What evaluate.py measures.

    Raises:
        RunError: there is nothing to measure.
    """
    directory, source = None, settings.predictor
    if settings.predictor == "auto":
        run_dir = Path(settings.paths.models) / f"finetune_predictor_{settings.data.label}"
        directory, source = find_finished(run_dir, data_key(datamodule))
        if directory is None and settings.model.pretrained is None:
            raise RunError(f"no fine-tuned predictor: {source}. Run train.py stage=predictor, or name predictor=DIR")
    elif settings.predictor != "published":
        directory = best_model(Path(settings.predictor))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)  # random weights, where any are asked for, are the same each time
        return load_forecaster(settings, directory, source, settings.data.clip, settings.data.volume)


def find_candidate(
    settings: Evaluation, name: str, measured: Sources, datamodule: CandleDataModule
) -> tuple[Forecaster, Sources]:
    """What `compare` names: a word, or a predictor's folder, if need be with its tokenizer's (``DIR@DIR``).

    untuned: the published weights. tokenizer: the tokenizer of what is measured with the published predictor.
    predictor: the predictor of what is measured with the published tokenizer. both: what is measured.
    """
    beside = str(tokenizer_beside(measured.directory)) if measured.directory else "published"
    words = {
        "untuned": ("published", "published"),
        "tokenizer": ("published", beside if settings.tokenizer == "auto" else settings.tokenizer),
        "predictor": (settings.predictor, "published"),
        "both": (settings.predictor, settings.tokenizer),
    }
    folder, _, tokenizer = name.partition("@")
    predictor, tokenizer = words.get(name, (folder, tokenizer or "auto"))
    return find_forecaster(settings.model_copy(update={"predictor": predictor, "tokenizer": tokenizer}), datamodule)


def load_forecaster(
    settings: Evaluation | Forecasting, directory: Path | None, source: str, clip: float, volume: bool = True
) -> tuple[Forecaster, Sources]:
    """The predictor in a checkpoint directory (None: the published one) and the tokenizer that belongs to it.

    `volume` holds for a predictor that does not say whether it was trained with volume.
    """
    if directory is None:
        predictor, name = published_network(Kronos, settings)
        source = name if settings.predictor == "published" else f"{name}, not fine-tuned ({source})"
    else:
        predictor = Kronos.from_pretrained(directory)

    beside = None
    if settings.tokenizer not in ("auto", "published"):
        tokenizer_source, beside = settings.tokenizer, best_model(Path(settings.tokenizer))
        tokenizer = KronosTokenizer.from_pretrained(beside)
    elif directory is None or settings.tokenizer == "published":
        tokenizer, tokenizer_source = published_network(KronosTokenizer, settings)
    else:
        kept = tokenizer_beside(directory)
        if not kept.is_dir():
            raise CheckpointError(f"{kept}: missing; name the tokenizer that belongs to {directory}: tokenizer=DIR")
        tokenizer, tokenizer_source = KronosTokenizer.from_pretrained(kept), f"kept beside the predictor ({kept})"
        beside = kept
    log.info("Predictor: %s", source)
    log.info("Tokenizer: %s", tokenizer_source)
    info, tokenizer_info = (read_record(place) if place is not None else None for place in (directory, beside))
    size = (info or {}).get("settings", {}).get("model", settings.model.name)
    if size != settings.model.name:
        raise RunError(f"{directory} is a {size}, not a {settings.model.name}: model={size}")
    known = trained_with_volume(directory) if directory is not None else None
    if known is not None and known != volume:
        log.info("%s was trained %s volume, and forecasts so", directory, "with" if known else "without")
    sources = Sources(source, tokenizer_source, info, directory, tokenizer_info, beside)
    return build_forecaster(settings, tokenizer, predictor, clip, volume if known is None else known), sources


def tokenizer_beside(directory: Path) -> Path:
    """Where the tokenizer of a predictor's checkpoint directory is kept: in it, if it was exported, else beside it."""
    inside = directory / "tokenizer"
    return inside if inside.is_dir() else directory.parent / "tokenizer"


def best_model(directory: Path) -> Path:
    """The best model inside a run's folder; any other path is itself."""
    nested = directory / "checkpoints" / "best_model"
    return nested if nested.is_dir() else directory


def _kind(cls: type) -> str:
    return "tokenizer" if cls is KronosTokenizer else "predictor"
