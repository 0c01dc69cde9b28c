"""Networks from published, earlier or random weights, and the forecaster made of two of them."""

import logging
from pathlib import Path
from typing import Any, TypeVar

import torch

from kronos_lightning.config.schema import Common, Forecasting, Training
from kronos_lightning.forecast import Forecaster, Sampling
from kronos_lightning.model import Kronos, KronosTokenizer

from .directory import best_model
from .provenance import read_record

Network = TypeVar("Network", KronosTokenizer, Kronos)

log = logging.getLogger(__name__)


def published_network(cls: type[Network], settings: Common | Forecasting) -> tuple[Network, str]:
    """The model group's published network, or a random one where `model.pretrained` is null."""
    kind, pretrained = _kind(cls), settings.model.pretrained
    if pretrained is None:
        return cls(**getattr(settings.model, kind).model_dump()), f"random ({settings.model.name} size)"
    name, revision = getattr(pretrained, kind), getattr(pretrained, f"{kind}_revision")
    return cls.from_pretrained(name, revision=revision), name


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


def build_forecaster(
    settings: Common | Forecasting, tokenizer: KronosTokenizer, predictor: Kronos, clip: float, volume: bool = True
) -> Forecaster:
    """Tokenizer and predictor with the configuration's sampling."""
    forecast = settings.forecast
    return Forecaster(
        tokenizer,
        predictor,
        max_context=settings.model.max_context,
        clip=clip,
        sampling=Sampling.of(forecast),
        rotary_fine_token=forecast.rotary_fine_token,
        dtype=getattr(torch, forecast.precision),
        repair=forecast.repair,
        compile=forecast.compile,
        volume=volume,
    )


def _kind(cls: type) -> str:
    return "tokenizer" if cls is KronosTokenizer else "predictor"
