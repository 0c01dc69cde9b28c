"""Networks and Lightning modules from the checked configuration."""

import logging
from pathlib import Path
from typing import Any

from kronos_lightning.config import Common, PredictorStage, Training
from kronos_lightning.data import CandleDataModule
from kronos_lightning.forecast import Forecaster, Sampling
from kronos_lightning.model import Kronos, KronosTokenizer

from .optimization import Optimization
from .predictor_module import PredictorModule
from .run import data_key, find_finished
from .stage_module import StageModule
from .tokenizer_module import TokenizerModule

log = logging.getLogger(__name__)


def build_module(settings: Training, datamodule: CandleDataModule) -> tuple[StageModule, dict[str, Any]]:
    """The stage's module, and where its weights came from (for `run_info.json`)."""
    stage, data = settings.stage, settings.data
    optimization = Optimization(
        stage.learning_rate, tuple(stage.betas), stage.weight_decay, stage.pct_start, stage.div_factor
    )
    if not isinstance(stage, PredictorStage):
        tokenizer, source = initial_network(KronosTokenizer, settings)
        return TokenizerModule(tokenizer, optimization, data.lookback, data.horizon), {"initial_weights": source}
    tokenizer, tokenizer_source = find_tokenizer(settings, stage.tokenizer, datamodule)
    predictor, source = initial_network(Kronos, settings)
    forecaster = build_forecaster(settings, tokenizer, predictor)
    module = PredictorModule(
        forecaster,
        optimization,
        data.lookback,
        data.horizon,
        stage.s1_condition,
        settings.forecast.num_paths,
        settings.seed,
    )
    return module, {"initial_weights": source, "tokenizer": tokenizer_source}


def build_forecaster(settings: Common, tokenizer: KronosTokenizer, predictor: Kronos) -> Forecaster:
    """Tokenizer and predictor with the configuration's sampling."""
    forecast = settings.forecast
    return Forecaster(
        tokenizer,
        predictor,
        settings.model.max_context,
        settings.data.clip,
        Sampling(forecast.temperature, forecast.top_k, forecast.top_p),
        forecast.trained_positions,
    )


def initial_network[Network: (KronosTokenizer, Kronos)](
    cls: type[Network], settings: Training
) -> tuple[Network, str]:
    """The network to fine-tune: from `init_from`, else published, else random; and a sentence about it."""
    if settings.init_from is not None:
        directory = Path(settings.init_from)
        nested = directory / "checkpoints" / "best_model"
        source = str(nested if nested.is_dir() else directory)
        network = cls.from_pretrained(source)
    else:
        network, source = published_network(cls, settings)
    log.info("Weights of the %s before training: %s", _kind(cls), source)
    return network, source


def published_network[Network: (KronosTokenizer, Kronos)](
    cls: type[Network], settings: Common
) -> tuple[Network, str]:
    """The model group's published network, or a random one where `model.pretrained` is null."""
    kind, pretrained = _kind(cls), settings.model.pretrained
    if pretrained is None:
        return cls(**getattr(settings.model, kind).model_dump()), f"random ({settings.model.name} size)"
    name, revision = getattr(pretrained, kind), getattr(pretrained, f"{kind}_revision")
    return cls.from_pretrained(name, revision=revision), name


def find_tokenizer(settings: Common, wanted: str, datamodule: CandleDataModule) -> tuple[KronosTokenizer, str]:
    """The frozen tokenizer of the predictor stage, and a sentence about it."""
    if wanted not in ("auto", "published"):
        tokenizer, source = KronosTokenizer.from_pretrained(wanted), wanted
    else:
        directory, source = None, ""
        if wanted == "auto":
            run_dir = Path(settings.paths.models) / f"finetune_tokenizer_{settings.data.name}"
            directory, source = find_finished(run_dir, data_key(datamodule))
        if directory is not None:
            tokenizer = KronosTokenizer.from_pretrained(directory)
        else:
            reason = source
            tokenizer, source = published_network(KronosTokenizer, settings)
            source += f" ({reason})" if reason else ""
            if settings.model.pretrained is None:
                log.warning("The tokenizer has random weights: %s. Run stage=tokenizer first", reason)
    log.info("Tokenizer: %s", source)
    return tokenizer, source


def _kind(cls: type) -> str:
    return "tokenizer" if cls is KronosTokenizer else "predictor"
