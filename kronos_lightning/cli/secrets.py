"""Passwords in arguments, moved to the environment before Hydra, a sweep or a launcher can write them to a file."""

import os
import re

from kronos_lightning.settings.text import NAMED, QUERY, USER

VARIABLE = "KRONOS_SECRET_{}"  # numbered in the order of the command line, so that a resumed sweep is the same sweep


def without_secrets(arguments: list[str]) -> list[str]:
    """Replace credentials in the arguments by references to environment variables, which are set in this process.

    ``data.binance.proxy=http://user:password@host`` becomes ``data.binance.proxy=http://${oc.env:KRONOS_SECRET_1}@host``.
    Processes started by this one inherit the variables.
    """
    found: list[str] = []

    def moved(secret: str) -> str:
        found.append(secret)
        name = VARIABLE.format(len(found))
        os.environ[name] = secret
        return f"${{oc.env:{name}}}"

    def after_name(match: re.Match[str]) -> str:
        value = match[0][len(match[1]) :]
        quoted = value[:1] in ("'", '"')
        kept = value if "${" in value else moved(value[1:-1] if quoted else value)
        return match[1] + (value[0] + kept + value[0] if quoted and "${" not in value else kept)

    def of(argument: str) -> str:
        if "://" in argument:
            argument = USER.sub(lambda match: match[0] if "${" in match[0] else moved(match[0]), argument)
            argument = QUERY.sub(after_name, argument)
        return NAMED.sub(after_name, argument)

    return [of(argument) for argument in arguments]
