"""OmegaConf resolvers used in `conf/`.

``${swept:}``, ``${fold_label:name,fold}``, ``${ddp_start_method:}``, ``${better:metric}`` and
``${by_stage:stage,tokenizer value,predictor value}``.
"""

import hashlib
import re
import sys
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import OmegaConf

from kronos_lightning.config.monitors import better
from kronos_lightning.data.folds import fold_label

MAX_SUFFIX_LENGTH = 120  # maximum length of a suffix, in characters


def swept_suffix() -> str:
    """Return the swept settings as a suffix of the run folder: ``-learning_rate=1e-05``; empty in a single run.

    Stage, data and fold are left out because the folder name contains them already. If characters that are not
    allowed in file names were replaced, or the suffix was cut to 120 characters, eight digits of a hash keep two trials
    apart.
    """
    swept = _swept_keys() - {"stage", "data", "data.fold"}
    parts = []
    for text in HydraConfig.get().overrides.task if swept else []:
        key, _, value = text.lstrip("+").partition("=")
        if key in swept:
            parts.append(f"-{key.rpartition('.')[2]}={value}")
    suffix = "".join(parts)
    name = re.sub(r"[^\w.,=+-]+", "_", suffix)[:MAX_SUFFIX_LENGTH]
    return name if name == suffix else f"{name}-{hashlib.sha256(suffix.encode()).hexdigest()[:8]}"


def _swept_keys() -> set[str]:
    if not HydraConfig.initialized():
        return set()
    if (known := HydraConfig.get().sweeper.get("swept")) is not None:
        return set(known)
    if HydraConfig.get().mode != RunMode.MULTIRUN:
        return set()
    given = [text for text in sys.argv[1:] if "=" in text and not text.startswith("-")]  # for evaluate.py -m
    return {o.key_or_group for o in OverridesParser.create().parse_overrides(given) if o.is_sweep_override()}


def ddp_start_method() -> str:
    """Return how data-parallel processes start: "popen" runs the command again; "spawn" in a multirun.

    In a multirun, running the command again would start the whole sweep in every process.
    """
    multirun = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
    return "spawn" if multirun else "popen"


def by_stage(stage: str, tokenizer: Any, predictor: Any) -> Any:
    """Return the value that belongs to the trained stage."""
    return predictor if stage == "predictor" else tokenizer


def register_resolvers() -> None:
    """Register these resolvers with OmegaConf."""
    OmegaConf.register_new_resolver("swept", swept_suffix, replace=True)
    OmegaConf.register_new_resolver("fold_label", fold_label, replace=True)
    OmegaConf.register_new_resolver("better", better, replace=True)
    OmegaConf.register_new_resolver("by_stage", by_stage, replace=True)
    OmegaConf.register_new_resolver("ddp_start_method", ddp_start_method, replace=True)
