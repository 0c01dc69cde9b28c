"""Values that `conf/` asks the code for: ``${swept:}``, ``${fold_label:name,fold}`` and ``${ddp_start_method:}``."""

import sys

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import OmegaConf

from .data.folds import fold_label


def swept_suffix() -> str:
    """What a multirun varies, as a suffix of the run's folder: ``-learning_rate=1e-05``; empty in a single run.

    Stage, data and fold do not show: the folder is named after them anyway.
    """
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return ""
    given = [argument for argument in sys.argv[1:] if "=" in argument and not argument.startswith("-")]
    sweeps = {o.key_or_group for o in OverridesParser.create().parse_overrides(given) if o.is_sweep_override()}
    chosen = [text.lstrip("+") for text in HydraConfig.get().overrides.task]
    parts = []
    for text in chosen:
        key, _, value = text.partition("=")
        if key in sweeps - {"stage", "data", "data.fold"}:
            parts.append(f"{key.rpartition('.')[2]}={value}".replace("/", "_"))
    return "".join(f"-{part}" for part in parts)


def ddp_start_method() -> str:
    """How data-parallel processes start: by running the command again, except in a multirun, where that would sweep."""
    multirun = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
    return "spawn" if multirun else "popen"


def register_resolvers() -> None:
    """Make these resolvers known to the configuration."""
    OmegaConf.register_new_resolver("swept", swept_suffix, replace=True)
    OmegaConf.register_new_resolver("fold_label", fold_label, replace=True)
    OmegaConf.register_new_resolver("ddp_start_method", ddp_start_method, replace=True)
