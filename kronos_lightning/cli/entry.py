"""Entry point of every command: location of `conf/`, checked arguments, Hydra, one-line errors."""

import functools
import sys
from collections.abc import Callable

import hydra
from hydra.core.plugins import Plugins
from omegaconf import DictConfig

from kronos_lightning.config.compose import conf_directory
from kronos_lightning.config.hydra_files import hide_secrets
from kronos_lightning.config.resolvers import register_resolvers
from kronos_lightning.settings.text import shown

from .arguments import ArgumentError, prepare
from .errors import one_line_errors
from .secrets import without_secrets

Main = Callable[[DictConfig], object]


def command(
    config_name: str, file_key: str | None = None, rewrite: Callable[[list[str]], list[str]] = list
) -> Callable[[Main], Callable[[], object]]:
    """Turn a function of the composed configuration `conf/{config_name}.yaml` into a command.

    Args:
        config_name: name of the configuration.
        file_key: key that an argument without "=" sets, a path; None if there is no such key.
        rewrite: changes the arguments before they are checked.
    """
    register_resolvers()

    def decorate(main: Main) -> Callable[[], object]:
        options = {"version_base": "1.3", "config_path": str(conf_directory()), "config_name": config_name}
        composed = hydra.main(**options)(one_line_errors(main))

        @functools.wraps(main)
        def run() -> object:
            try:
                sys.argv[1:] = prepare(config_name, without_secrets(rewrite(sys.argv[1:])), file_key)
            except ArgumentError as error:
                print(f"error: {' '.join(shown(str(error)).split())}", file=sys.stderr)
                sys.exit(1)
            Plugins.instance()  # which executes the modules of its plugins again
            hide_secrets()
            return composed()

        return run

    return decorate
