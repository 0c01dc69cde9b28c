"""Composition of a configuration in Python, as the commands do it."""

from pathlib import Path

import hydra
from omegaconf import DictConfig

import kronos_lightning

from .resolvers import register_resolvers


def conf_directory() -> Path:
    """Return the configuration folder: inside the installed package, or next to the package in a clone."""
    package = Path(kronos_lightning.__file__).parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def compose(name: str, *overrides: str) -> DictConfig:
    """Compose a command's configuration: ``compose("train", "data=btc", "stage.learning_rate=1e-4")``.

    Args:
        name: train, evaluate, forecast, download, doctor, export, serve or live.
        overrides: Hydra overrides, as on the command line.
    """
    register_resolvers()
    with hydra.initialize_config_dir(str(conf_directory()), version_base="1.3"):
        return hydra.compose(name, list(overrides))
