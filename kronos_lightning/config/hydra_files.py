"""Files that Hydra writes on request (config.yaml, multirun.yaml), without secrets."""

from pathlib import Path
from typing import Any

from hydra._internal.core_plugins import basic_sweeper
from hydra.core import utils
from omegaconf import OmegaConf

from kronos_lightning.settings.text import masked


class _WithoutSecrets(OmegaConf):
    """OmegaConf that writes a configuration without the secrets that a user's own YAML file may hold."""

    @staticmethod
    def to_yaml(cfg: Any, *, resolve: bool = False, sort_keys: bool = False) -> str:
        return masked(OmegaConf.to_yaml(cfg, resolve=resolve, sort_keys=sort_keys))

    @staticmethod
    def save(config: Any, f: Any, resolve: bool = False) -> None:
        Path(f).write_text(_WithoutSecrets.to_yaml(config, resolve=resolve), encoding="utf-8")


def hide_secrets() -> None:
    """Make Hydra write its files without secrets, in this process."""
    for module in (utils, basic_sweeper):
        module.OmegaConf = _WithoutSecrets  # type: ignore[attr-defined]
