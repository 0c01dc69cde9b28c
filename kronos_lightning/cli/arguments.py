"""Command-line arguments in Hydra's grammar: files under any name, and one sentence for each wrong argument."""

import difflib
import re
from collections.abc import Iterator
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from kronos_lightning.config.compose import compose, conf_directory
from kronos_lightning.config.renamed import new_name
from kronos_lightning.errors import KronosError

OTHER_CONFIGURATION = ("--config-name", "-cn", "--config-path", "-cp", "--config-dir", "-cd", "--help", "-h")
WITH_VALUE = ("--cfg", "-c", "--package", "-p", "--info", "-i", "--experimental-rerun")


class ArgumentError(KronosError, ValueError):
    """Error for an argument that cannot be understood; the message shows how to write it."""


def prepare(config_name: str, arguments: list[str], file_key: str | None = None) -> list[str]:
    """Quote file names for Hydra, and check each argument.

    Args:
        config_name: configuration of the command, such as train.
        arguments: command line without the program.
        file_key: key that an argument without "=" sets, a path; None if there is no such key.

    Returns:
        Arguments that Hydra understands.

    Raises:
        ArgumentError: an argument is not in Hydra's grammar, or names an unknown or renamed key.
    """
    prepared = quote_files(arguments, file_key)
    if any(argument.split("=")[0] in OTHER_CONFIGURATION for argument in arguments):
        return prepared
    overrides = [_parsed(config_name, argument) for argument in prepared if _is_override(argument)]
    sweeps = any(argument in ("-m", "--multirun") for argument in arguments)
    _compose(config_name, [_first_choice(override) if sweeps else str(override.input_line) for override in overrides])
    return prepared


def quote_files(arguments: list[str], file_key: str | None = None) -> list[str]:
    """Return the arguments with file names in quotes, so that Hydra takes them as they are."""
    quoted, after_option = [], False
    for argument in arguments:
        option, value = argument.startswith("-"), after_option
        after_option = argument in WITH_VALUE
        key, equals, rest = argument.partition("=")
        if option or value:
            quoted.append(argument)
        elif file_key is not None and (not equals or Path(argument).is_file()) and not argument.startswith("~"):
            quoted.append(f"{file_key}={_quote(argument)}")
        elif equals and rest and _needs_quotes(argument) and Path(rest).exists():
            quoted.append(f"{key}={_quote(rest)}")
        else:
            quoted.append(argument)
    return quoted


def _quote(text: str) -> str:
    return "'{}'".format(text.replace("'", "\\'"))


def _is_override(argument: str) -> bool:
    return not argument.startswith("-") and ("=" in argument or argument.startswith("~"))


def _needs_quotes(argument: str) -> bool:
    try:
        parsed = OverridesParser.create().parse_override(argument)
    except HydraException:
        return True
    return parsed.is_sweep_override() or isinstance(parsed.value(), (list, dict))  # a number stays a number


def _parsed(config_name: str, argument: str) -> Override:
    renamed = new_name(config_name, argument)
    if renamed is not None:
        raise ArgumentError(f"{argument}: renamed, write {renamed}")
    try:
        return OverridesParser.create().parse_override(argument)
    except HydraException as error:
        key, _, value = argument.partition("=")
        shown = "'{}=\"{}\"'".format(key, value.replace('"', '\\"'))
        raise ArgumentError(f"{argument}: quote a value with special characters, for the shell too: {shown}") from error


def _first_choice(override: Override) -> str:
    """Return an override with the first of the values that a sweep tries."""
    line = str(override.input_line)
    if not override.is_sweep_override() or override.is_delete():
        return line
    if not override.is_discrete_sweep():
        return f"{override.get_key_element()}={override.value().start}"  # interval(start, end)
    return f"{override.get_key_element()}={next(iter(override.sweep_string_iterator()))}"


def _compose(config_name: str, overrides: list[str]) -> None:
    """Compose the configuration, and explain what is wrong with the arguments."""
    try:
        compose(config_name, *overrides)
    except MissingConfigException as error:
        choices = [line.strip() for line in str(error).splitlines() if line.startswith("\t") and "=" not in line]
        choices = [name for name in choices if not name.startswith("_")]
        missing = str(error.missing_cfg_file)
        group, _, name = missing.rpartition("/")
        raise ArgumentError(f"{group}={name}: no such choice; {group} is one of {', '.join(choices)}") from error
    except (ConfigCompositionException, OmegaConfBaseException) as error:
        wrong = next((line for line in overrides if _is_wrong(config_name, line, overrides)), None)
        if wrong is None:
            raise ArgumentError(" ".join(str(error).split())) from error
        raise ArgumentError(_advice(config_name, wrong, " ".join(str(error).split()))) from error


def _is_wrong(config_name: str, line: str, overrides: list[str]) -> bool:
    """Return True if an override fails together with the choices of groups alone."""
    groups = [other for other in overrides if _is_group(other) and other != line]
    try:
        compose(config_name, *groups, line)
    except HydraException:
        return True
    return False


def _is_group(line: str) -> bool:
    return (conf_directory() / re.split("[=@]", line.lstrip("+~"))[0]).is_dir()


def _advice(config_name: str, line: str, reason: str) -> str:
    key, _, value = line.lstrip("+~").partition("=")
    if reason.startswith("Ambiguous value"):
        return f"{line}: several values need -m (a sweep); a list is written {key}=[{value}]"
    if "Could not override" not in reason:
        return f"{line}: {reason}"
    known = sorted(_keys(compose(config_name)))
    same_end = [name for name in known if name.rpartition(".")[2] == key.rpartition(".")[2]]
    near = same_end[:3] or difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    meant = f"; did you mean {' or '.join(near)}?" if near else "; --cfg job shows all keys"
    return f"{key}: unknown key{meant}"


def _keys(cfg: DictConfig, prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys of a configuration."""
    for key in cfg:
        yield f"{prefix}{key}"
        node = None if OmegaConf.is_interpolation(cfg, key) or OmegaConf.is_missing(cfg, key) else cfg._get_node(key)
        if isinstance(node, DictConfig) and not node._is_none():
            yield from _keys(node, f"{prefix}{key}.")
