"""Networks from published, earlier or random weights, and the forecaster built from two of them."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from kronos_lightning.config.schema import Common, Forecasting, Training
from kronos_lightning.data.representation import LEVELS, AnyRepresentation, read_representation
from kronos_lightning.forecast import Forecaster, Sampling
from kronos_lightning.model import Kronos, KronosTokenizer
from kronos_lightning.model.pretrained import RECORD_FILE, trained_representation, trained_with_volume

from .directory import best_model
from .provenance import read_record

Network = TypeVar("Network", KronosTokenizer, Kronos)

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Inputs of networks: how they see candles; see the fields of `Forecaster`."""

    clip: float
    volume: bool = True
    representation: AnyRepresentation = LEVELS

    @classmethod
    def of(cls, directory: Path, default: "Inputs") -> "Inputs":
        """Return the inputs that a checkpoint directory records; volume is as in `default` if it is not recorded."""
        volume = trained_with_volume(directory)
        return cls(
            clip=default.clip,
            volume=default.volume if volume is None else volume,
            representation=read_representation(trained_representation(directory), str(directory / RECORD_FILE)),
        )


def published_network(cls: type[Network], settings: Common | Forecasting) -> tuple[Network, str]:
    """Load the published network of the model group, or a random network if `model.pretrained` is null.

    Returns:
        The network and a description of its source.
    """
    kind, pretrained = _kind(cls), settings.model.pretrained
    if pretrained is None:
        return cls(**getattr(settings.model, kind).model_dump()), f"random ({settings.model.name} size)"
    name, revision = getattr(pretrained, kind), getattr(pretrained, f"{kind}_revision")
    return cls.from_pretrained(name, revision=revision), name


def initial_network(cls: type[Network], settings: Training) -> tuple[Network, str]:
    """Load the network to fine-tune: from `init_from`, else published, else random.

    Returns:
        The network and a description of its source.
    """
    if settings.init_from is not None:
        source = str(best_model(Path(settings.init_from)))
        network = cls.from_pretrained(source)
    else:
        network, source = published_network(cls, settings)
    log.info("Weights of the %s before training: %s", _kind(cls), source)
    return network, source


def describe_initial(settings: Training, source: str) -> dict[str, Any]:
    """Return the keys of `run_info.json` that tell where the weights come from.

    Args:
        settings: the training's configuration.
        source: description of the weights, from `initial_network`.
    """
    start = settings.init_from
    return {
        "initial_weights": source,
        "random": start is None and settings.model.pretrained is None,
        "initial_record": read_record(best_model(Path(start))) if start is not None else None,
    }


def build_forecaster(
    settings: Common | Forecasting, tokenizer: KronosTokenizer, predictor: Kronos, inputs: Inputs
) -> Forecaster:
    """Build a forecaster from a tokenizer and a predictor with the configured sampling."""
    forecast = settings.forecast
    return Forecaster(
        tokenizer,
        predictor,
        max_context=settings.model.max_context,
        clip=inputs.clip,
        sampling=Sampling.of(forecast),
        rotary_fine_token=forecast.rotary_fine_token,
        dtype=getattr(torch, forecast.precision),
        anchor=forecast.anchor,
        repair=forecast.repair,
        compile=forecast.compile,
        volume=inputs.volume,
        representation=inputs.representation,
    )


def _kind(cls: type) -> str:
    return "tokenizer" if cls is KronosTokenizer else "predictor"
