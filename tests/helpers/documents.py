"""Pages of the documents: their text, their code, and the extensions that docs/extend shows."""

import re
import shlex

from tests.helpers.paths import ROOT


def text_of(page):
    return (ROOT / page).read_text()


def blocks(page, language):
    """Fenced blocks of a language in a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", text_of(page), flags=re.DOTALL | re.MULTILINE)


def write_extension(page, folder):
    """Write the code and the configuration that a page of docs/extend shows, as the files that it names."""
    (name,) = re.findall(r"^`(my_\w+\.py)`", text_of(page), flags=re.MULTILINE)
    (place,) = re.findall(r"^`(conf/\S+)`:$", text_of(page), flags=re.MULTILINE)
    (code,), (configuration,) = blocks(page, "python"), blocks(page, "yaml")
    (folder / place).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(code)
    (folder / place).write_text(configuration)


def choices_of(page):
    """Arguments of the command with which a page of docs/extend runs its extension."""
    (line,) = re.findall(
        r"^Run it with `PYTHONPATH=\. python (?:train|evaluate)\.py (.+?)`", text_of(page), re.MULTILINE
    )
    return shlex.split(line)
