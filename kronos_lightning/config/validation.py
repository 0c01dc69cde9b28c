"""Validation of a composed configuration within seconds; errors name the wrong key."""

import inspect
from collections import defaultdict
from pathlib import Path
from typing import Any, TypeVar, cast, get_type_hints

import torch
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from kronos_lightning.config.monitors import METRICS, NOT_MONITORABLE, SAMPLE_PATH_METRICS
from kronos_lightning.config.resolvers import ddp_start_method
from kronos_lightning.config.schema import (
    Doctor,
    Download,
    Evaluation,
    Export,
    Following,
    Forecasting,
    Serving,
    Training,
)
from kronos_lightning.data.settings import DataSection
from kronos_lightning.errors import KronosError
from kronos_lightning.settings import Section, as_list

Schema = TypeVar("Schema", bound=Section)


class ConfigError(KronosError, ValueError):
    """Error for an invalid configuration; the message names the keys."""


def check_training(cfg: DictConfig) -> Training:
    """Validate the configuration of train.py; raise `ConfigError` if it is invalid."""
    plain = _plain(cfg)
    settings = _validate(Training, plain)
    if settings.data.fold == "all":
        folds = ",".join(map(str, range(settings.data.folds)))
        raise ConfigError(f"data.fold=all: a run trains on one fold; train on each with train.py -m data.fold={folds}")
    _check_source(settings.data)
    check_call(plain["trainer"], "trainer")
    _check_trainer(plain["trainer"])
    _check_precision(plain["trainer"])
    _check_sharding(plain["trainer"], settings)
    for name, node in settings.regularization.extra.items():
        check_call(node, f"regularization.extra.{name}")
    for group in ("callbacks", "logger"):
        for name, node in plain[group].items():
            check_call(node, f"{group}.{name}")
            if node.get("monitor") is not None:
                _check_monitor(node, f"{group}.{name}", settings.stage.name, plain["callbacks"])
    if "best" not in plain["callbacks"]:
        raise ConfigError("callbacks.best: missing; every run needs it to save its best model")
    return settings


def _check_trainer(trainer: dict[str, Any]) -> None:
    """Reject Trainer arguments that Lightning accepts but that break a run of this project."""
    if trainer.get("fast_dev_run"):
        raise ConfigError(
            "trainer.fast_dev_run: not supported, because it saves no checkpoint; use stage.max_epochs=1 "
            "data.samples_per_epoch=100"
        )
    for key in ("log_every_n_steps", "accumulate_grad_batches", "limit_val_batches"):
        if trainer.get(key, 1) is not None and trainer.get(key, 1) <= 0:
            raise ConfigError(f"trainer.{key}: must be above 0 (it is {trainer[key]})")


def _check_monitor(node: dict[str, Any], place: str, stage: str, callbacks: dict[str, Any]) -> None:
    """Check that a callback monitors a metric of its stage, in the right direction, measured in every epoch."""
    name, names = node["monitor"], METRICS[stage]
    if name not in names:
        why = f" ({NOT_MONITORABLE[name]})" if name in NOT_MONITORABLE else ""
        raise ConfigError(
            f"{place}.monitor: {name!r} cannot be monitored with stage={stage}{why}; use one of "
            f"{', '.join(sorted(names))}"
        )
    if node.get("mode", "min") != names[name]:
        raise ConfigError(f"{place}.mode: wrong direction for {name}; set {place}.mode={names[name]}")
    if name in SAMPLE_PATH_METRICS and callbacks.get("validation_paths", {}).get("every_n_epochs") != 1:
        raise ConfigError(
            f"{place}.monitor: {name} must be measured in every epoch; set callbacks.validation_paths.every_n_epochs=1"
        )


def _check_precision(trainer: dict[str, Any]) -> None:
    precision, accelerator = str(trainer.get("precision")), trainer.get("accelerator")
    if precision.endswith("-true") and precision != "32-true":
        raise ConfigError(
            f"trainer.precision={precision}: not supported, weights are kept in float32; use 32-true, bf16-mixed or "
            "16-mixed"
        )
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not torch.accelerator.is_available())
    if on_cpu and precision in ("16", "16-mixed"):
        raise ConfigError(f"trainer.precision={precision}: needs a GPU; on a CPU use bf16-mixed or 32-true")


def _is_sharding(trainer: dict[str, Any]) -> bool:
    strategy = trainer.get("strategy")
    return isinstance(strategy, dict) and strategy["_target_"].endswith(".BlockSharding")


def _check_sharding(trainer: dict[str, Any], settings: Training) -> None:
    if not _is_sharding(trainer):
        return
    if ddp_start_method() != "popen":
        raise ConfigError(
            "trainer=fsdp: not supported in a multirun, because each process would start its own sweep; run train.py "
            "without -m"
        )
    asked = settings.regularization
    for name, value in (("ema", asked.ema), ("l2_pretrained", asked.l2_pretrained), ("lora", asked.lora)):
        if value:
            raise ConfigError(
                f"regularization.{name}: not supported with trainer=fsdp, because each process needs all weights; use "
                "trainer=ddp"
            )


def check_evaluation(cfg: DictConfig) -> Evaluation:
    """Validate the configuration of evaluate.py; raise `ConfigError` if it is invalid."""
    plain = _plain(cfg)
    settings = _validate(Evaluation, plain)
    _check_source(settings.data)
    check_call(plain["trainer"], "trainer")
    check_call(plain["strategy"], "strategy")
    for name in settings.evaluation.baselines:
        check_call(settings.baselines[name], f"baselines.{name}")
    if _is_sharding(plain["trainer"]):
        raise ConfigError("trainer=fsdp: only for training; use trainer=ddp or trainer=auto with evaluate.py")
    if len(as_list(settings.data.symbol)) > 1:
        raise ConfigError(
            f"data.symbol: evaluate.py evaluates one market at a time; to evaluate each, use evaluate.py -m "
            f"data.symbol={','.join(settings.data.symbol)} with your data group"
        )
    intrabar_csv = settings.backtest.intrabar_csv
    if intrabar_csv is not None and not Path(intrabar_csv).is_file():
        raise ConfigError(f"backtest.intrabar_csv: {intrabar_csv}: no such file")
    strategy = plain["trainer"].get("strategy")
    start = strategy.get("start_method") if isinstance(strategy, dict) else str(strategy)
    if start is not None and any(method in start for method in ("spawn", "notebook", "fork")):
        raise ConfigError(
            "trainer: several processes are not supported in a multirun, because spawned processes cannot return their "
            "forecasts; run evaluate.py without -m, or use one process (trainer.devices=1)"
        )
    return settings


def fold_configs(cfg: DictConfig) -> list[DictConfig]:
    """Return one configuration per fold if ``data.fold=all``, else the configuration itself."""
    if cfg.data.fold != "all":
        return [cfg]
    folds = [cfg.copy() for _ in range(cfg.data.folds)]
    for k, fold in enumerate(folds):
        OmegaConf.update(fold, "data.fold", k)
    return folds


def check_forecasting(cfg: DictConfig) -> Forecasting:
    """Validate the configuration of python -m kronos_lightning.forecast; raise `ConfigError` if it is invalid."""
    return _validate(Forecasting, _plain(cfg))


def check_download(cfg: DictConfig) -> Download:
    """Validate the configuration of python -m kronos_lightning.data.binance; raise `ConfigError` if it is invalid."""
    return _validate(Download, _plain(cfg))


def check_doctor(cfg: DictConfig) -> Doctor:
    """Validate the configuration of python -m kronos_lightning.data.doctor; raise `ConfigError` if it is invalid."""
    return _validate(Doctor, _plain(cfg))


def check_export(cfg: DictConfig) -> Export:
    """Validate the configuration of python -m kronos_lightning.export; raise `ConfigError` if it is invalid."""
    return _validate(Export, _plain(cfg))


def check_serving(cfg: DictConfig) -> Serving:
    """Validate the configuration of python -m kronos_lightning.serve; raise `ConfigError` if it is invalid."""
    return _validate(Serving, _plain(cfg))


def check_following(cfg: DictConfig) -> Following:
    """Validate the configuration of python -m kronos_lightning.live; raise `ConfigError` if it is invalid."""
    settings = _validate(Following, _plain(cfg))
    _check_source(settings.data)
    return settings


def _check_source(data: DataSection) -> None:
    name = data.source if data.csv_path is None else "file"
    check_call(data.source_node, f"data.sources.{name}")


def check_call(node: dict[str, Any], place: str) -> None:
    """Check the keys and value types of an `instantiate` node against the signature of its `_target_`.

    Args:
        node: the node, with its `_target_`.
        place: dotted path of the node in the configuration, for error messages.

    Raises:
        ConfigError: `_target_` is missing or cannot be imported, a key is unknown, or a value has the wrong type.
    """
    if not isinstance(node, dict) or not isinstance(node.get("_target_"), str):
        raise ConfigError(f"{place}: needs a _target_ that names a class (it is {node!r})")
    try:
        target = get_class(node["_target_"])
    except (ImportError, ValueError) as error:
        raise ConfigError(f"{place}._target_: {node['_target_']!r} cannot be imported ({error})") from error
    if issubclass(target, Section):
        _validate(target, {key: value for key, value in node.items() if key != "_target_"}, f"{place}.")
        return
    parameters = inspect.signature(target).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    hints = get_type_hints(target.__init__, include_extras=True)
    for key, value in node.items():
        if key.startswith("_") and key.endswith("_"):
            continue
        if key not in parameters and not open_ended:
            raise ConfigError(f"{place}.{key}: unknown key; {target.__name__} takes {', '.join(parameters)}")
        if isinstance(value, dict) and "_target_" in value:
            check_call(value, f"{place}.{key}")
        elif key in hints and (key in parameters):
            adapter = TypeAdapter(hints[key], config=ConfigDict(arbitrary_types_allowed=True, strict=True))
            try:
                adapter.validate_python(value)
            except ValidationError as error:
                reasons = dict.fromkeys(e["msg"] for e in error.errors() if e["type"] != "is_instance_of")
                raise ConfigError(f"{place}.{key}: {value!r}: {'; or '.join(reasons)}") from None


def _plain(cfg: DictConfig) -> dict[str, Any]:
    try:
        return cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True))
    except MissingMandatoryValue as error:
        raise ConfigError(f"{error.full_key}: has no default; set {error.full_key}=…") from error
    except OmegaConfBaseException as error:
        raise ConfigError(f"configuration: {' '.join(str(error).split())}") from error


def _validate(schema: type[Schema], plain: dict[str, Any], prefix: str = "") -> Schema:
    try:
        return schema.model_validate(plain)
    except ValidationError as error:
        found = defaultdict(list)
        for e in error.errors():
            found[_key(e, plain)].append(e)
        lines = [
            _reason(f"{prefix}{key}".rstrip("."), errors)
            for key, errors in found.items()
            if not any(other.startswith(f"{key}.") for other in found)  # a list's own error, if an item has one
        ]
        raise ConfigError("; ".join(lines)) from None


def _key(error: ErrorDetails, plain: Any) -> str:
    """Return the dotted key of an error, without the names that pydantic gives to the branches of a union."""
    parts, node = [], plain
    for part in error["loc"]:
        inside = part in node if isinstance(node, dict) else isinstance(node, list) and isinstance(part, int)
        if inside:
            node = node[part]
        if inside or (error["type"] == "missing" and part == error["loc"][-1]):
            parts.append(str(part))
    return ".".join(parts)


def _reason(key: str, errors: list[ErrorDetails]) -> str:
    """Describe the error of a key from all branches of its union; the list branch counts only if it is alone."""
    told = [e for e in errors if e["type"] != "list_type"] or errors
    first = told[0]
    reasons = dict.fromkeys(e["msg"].removeprefix("Value error, ") for e in told)
    what = "unknown key" if first["type"] == "extra_forbidden" else "; or ".join(reasons)
    value = "" if first["type"] in ("missing", "value_error") else f" (it is {first['input']!r})"
    return f"{key}: {what}{value}" if key else what
