"""Entry point of every command: location of `conf/`, renamed keys, Hydra, one-line errors."""

import functools
import sys
from collections.abc import Callable

import hydra
from omegaconf import DictConfig

from kronos_lightning.config.compose import conf_directory
from kronos_lightning.config.renamed import new_name
from kronos_lightning.config.resolvers import register_resolvers

from .errors import one_line_errors

Main = Callable[[DictConfig], object]


def command(config_name: str) -> Callable[[Main], Callable[[], object]]:
    """Turn a function of the composed configuration `conf/{config_name}.yaml` into a command."""
    register_resolvers()

    def decorate(main: Main) -> Callable[[], object]:
        options = {"version_base": "1.3", "config_path": str(conf_directory()), "config_name": config_name}
        composed = hydra.main(**options)(one_line_errors(main))

        @functools.wraps(main)
        def run() -> object:
            refuse_renamed_keys(config_name, sys.argv[1:])
            return composed()

        return run

    return decorate


def refuse_renamed_keys(config_name: str, arguments: list[str]) -> None:
    """Print one line and exit with code 1 if an override uses a renamed key."""
    for argument in arguments:
        renamed = None if argument.startswith("-") else new_name(config_name, argument)
        if renamed is not None:
            print(f"error: {argument}: renamed, write {renamed}", file=sys.stderr)
            sys.exit(1)


def file_as_override(arguments: list[str], key: str = "candles") -> list[str]:
    """Convert a command line to Hydra's grammar: an argument without "=" becomes the value of `key`, a path."""
    return [
        argument
        if "=" in argument or argument.startswith(("-", "~"))
        else "{}='{}'".format(key, argument.replace("'", "\\'"))
        for argument in arguments
    ]
