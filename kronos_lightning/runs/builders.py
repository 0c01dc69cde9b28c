"""Construction of data modules, networks and Lightning modules from the checked configuration."""

import logging
from pathlib import Path
from typing import Any

from hydra.utils import instantiate

from kronos_lightning.config.schema import Training
from kronos_lightning.config.sections import PredictorStage
from kronos_lightning.data import CandleDataModule
from kronos_lightning.data.settings import DataSection
from kronos_lightning.model import Kronos, KronosTokenizer
from kronos_lightning.training.lora import add_adapters
from kronos_lightning.training.predictor_module import PredictorModule
from kronos_lightning.training.recipe import Recipe
from kronos_lightning.training.regularization import freeze, override_dropout
from kronos_lightning.training.scaling import Scale
from kronos_lightning.training.stage_module import StageModule
from kronos_lightning.training.tokenizer_module import TokenizerModule

from .checkpoint_lookup import find_tokenizer
from .networks import Inputs, build_forecaster, describe_initial, initial_network

log = logging.getLogger(__name__)


def build_datamodule(config: DataSection) -> CandleDataModule:
    """Build the data module with the candle source named in the configuration."""
    return CandleDataModule(config, instantiate(config.source_node, _convert_="all"))


def build_module(
    settings: Training, datamodule: CandleDataModule, kept: Path | None = None
) -> tuple[StageModule, dict[str, Any]]:
    """Build the Lightning module of a stage; return it and the origin of its weights for `run_info.json`.

    Args:
        settings: the training's configuration.
        datamodule: prepared data of the training.
        kept: directory of the frozen tokenizer of a resumed run; None = the tokenizer that the configuration names.
    """
    recipe, data = build_recipe(settings, datamodule), settings.data
    if not isinstance(settings.stage, PredictorStage):
        tokenizer, source = initial_network(KronosTokenizer, settings)
        regularize(tokenizer, settings)
        return TokenizerModule(tokenizer, recipe), describe_initial(settings, source)
    wanted = str(kept or settings.stage.frozen_tokenizer)
    tokenizer, tokenizer_source, tokenizer_record = find_tokenizer(settings, wanted, datamodule)
    predictor, source = initial_network(Kronos, settings)
    regularize(predictor, settings)
    inputs = Inputs(clip=data.clip, volume=data.volume, representation=datamodule.representation)
    forecaster = build_forecaster(settings, tokenizer, predictor, inputs)
    module = PredictorModule(forecaster, recipe, num_paths=settings.forecast.num_paths, seed=settings.seed)
    metadata = {"tokenizer": tokenizer_source, "tokenizer_record": tokenizer_record}
    return module, describe_initial(settings, source) | metadata


def build_recipe(settings: Training, datamodule: CandleDataModule) -> Recipe:
    """Build the recipe of a training: stage, regularisation and window."""
    regularization = settings.regularization
    return Recipe(
        stage=settings.stage,
        regularization=regularization,
        lookback=settings.data.lookback,
        horizon=settings.data.horizon,
        clip=settings.data.clip,
        representation=datamodule.representation,
        market_volatility=datamodule.recent_volatility() if regularization.volatility == "market" else None,
        regularisers=tuple(instantiate(node, _convert_="all") for node in regularization.extra.values()),
    )


def scale(
    settings: Training, module: StageModule, datamodule: CandleDataModule, processes: int
) -> dict[str, int | float]:
    """Scale batch size and learning rate to the world size by the rules of `scaling`; return the resolved values.

    Sets `datamodule.batch_size` and `module.recipe` in place.
    """
    rules, accumulated = settings.scaling, settings.trainer.get("accumulate_grad_batches", 1)
    found = Scale(
        batch_size=settings.data.batch_size,
        processes=processes,
        accumulated=accumulated,
        learning_rate=settings.stage.learning_rate,
    )
    found = (found.shared() if rules.batch == "global" else found).with_rate(rules.rate, rules.reference_batch)
    datamodule.batch_size = found.batch_size
    module.recipe = module.recipe.with_rate(found.learning_rate)
    if processes > 1 or rules.batch == "global" or rules.rate != "none":
        log.info(
            "Optimizer step: %d windows × %d process(es) × %d batch(es) = %d, learning rate %.3g",
            found.batch_size, processes, accumulated, found.global_batch, found.learning_rate,
        )  # fmt: skip
    return found.as_dict()


def regularize(network: KronosTokenizer | Kronos, settings: Training) -> None:
    """Set dropout, add LoRA adapters and freeze parameters of the network to train, as configured."""
    asked = settings.regularization
    override_dropout(network, **asked.dropout.model_dump())
    if asked.lora is not None:
        add_adapters(network, **asked.lora.model_dump())
    freeze(network, asked.freeze)
    sizes = [p.numel() for p in network.parameters() if p.requires_grad]
    if asked.lora is not None or asked.freeze:
        log.info("Training %d parameters in %d tensors; the others are frozen", sum(sizes), len(sizes))
