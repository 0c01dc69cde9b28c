"""Write docs/reference/configuration.md: every key of conf/, its default and its explanation.

Run ``python docs/generate_configuration.py``; ``make docs`` does so first. Keys and defaults come from the composed
configuration. The explanation of a key is the comment on its line or the comment block above it.
"""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from kronos_lightning.config.compose import compose, conf_directory

PAGE = Path(__file__).parent / "reference" / "configuration.md"
STAGES = ("tokenizer", "predictor")
COMMANDS = {  # other than training: title of the section, and how the command is run
    "evaluate": ("Evaluation", "python evaluate.py"),
    "forecast": ("Forecast", "python -m kronos_lightning.forecast"),
    "download": ("Download", "python -m kronos_lightning.data.binance"),
    "doctor": ("Doctor", "python -m kronos_lightning.data.doctor"),
    "export": ("Export", "python -m kronos_lightning.export"),
    "serve": ("Serve", "python -m kronos_lightning.serve"),
    "live": ("Live", "python -m kronos_lightning.live"),
}
SHARING = {"evaluate", "forecast", "live"}  # commands with sections of training
LEFT_OUT = {"_target_"}  # the name of a class; the key above it says what the class is for
INTRODUCTION = """# Configuration

Every key, its default and what it does. Set a key on the command line: `python train.py data.lookback=120`.
`python train.py --cfg job` prints the composed configuration of a command.

This page is generated from the comments in `conf/` by `docs/generate_configuration.py`. Change the comment there, then
run `make docs`.
"""


@dataclass(frozen=True)
class ConfFile:
    """A file of conf/ and the part of the configuration that it fills.

    package: key under which its keys are placed; empty = the root.
    """

    path: Path
    package: str

    def explanations(self) -> dict[str, str]:
        """Explanation of each key of this file by its full name; a key without a comment is left out."""
        text = self.path.read_text()
        root = yaml.compose(text)
        return dict(_explained(root, self.package, _Comments(text.splitlines()))) if root is not None else {}


class _Comments:
    """Comments of a file by line."""

    def __init__(self, lines: list[str]):
        self.lines = lines

    def beside(self, line: int, column: int) -> str:
        """Comment that starts at or after a column of a line, with the lines that continue it below."""
        rest = self.lines[line][column:]
        if not rest.lstrip(" :").startswith("#"):
            return ""
        start = self.lines[line].index("#", column)
        parts = [self.lines[line][start:]]
        for below in self.lines[line + 1 :]:
            if below.strip()[:1] != "#" or below.index("#") != start:
                break
            parts.append(below)
        return _joined(parts)

    def above(self, line: int) -> str:
        """Comment block directly above a line; the header of the file explains the file, not its first key."""
        first, column = line, len(self.lines[line]) - len(self.lines[line].lstrip())
        while first and self.lines[first - 1][: column + 1] == " " * column + "#":
            first -= 1
        return _joined(self.lines[first:line]) if first else ""


def _joined(comment: list[str]) -> str:
    return " ".join(line.strip().lstrip("#").strip() for line in comment)


def _explained(node: yaml.MappingNode, prefix: str, comments: _Comments) -> Iterator[tuple[str, str]]:
    """Yield each key of a mapping with its explanation; a block above several adjacent keys explains them all."""
    block, previous = "", -1
    for key, value in node.value:
        name, line = f"{prefix}.{key.value}".lstrip("."), key.start_mark.line
        on_one_line = value.end_mark.line == line
        beside = comments.beside(line, (value if on_one_line else key).end_mark.column)
        block = comments.above(line) or (block if previous == line - 1 else "")
        if beside or block:
            yield name, beside or block
        if isinstance(value, yaml.MappingNode) and value.value:
            yield from _explained(value, name, comments)
        previous = line if on_one_line else -1
        block = "" if beside else block


def conf_files(path: Path, package: str = "") -> Iterator[ConfFile]:
    """Files that a configuration is composed of, in the order in which they override each other.

    Args:
        path: such as conf/train.yaml.
        package: key under which the file is placed, unless its header says otherwise.
    """
    text = path.read_text()
    header = re.match(r"# @package (\S+)", text)
    package = package if header is None else header[1].replace("_global_", "")
    own = ConfFile(path, package)
    defaults = (yaml.safe_load(text) or {}).get("defaults", [])
    for entry in defaults:
        group, choice = (entry, "") if isinstance(entry, str) else next(iter(entry.items()))
        if entry == "_self_":
            yield own
        elif isinstance(entry, str):  # another file of the same group
            yield from conf_files(path.with_name(f"{entry}.yaml"), package)
        elif choice is not None and not group.startswith("override "):
            yield from _group_file(group, choice, path, package)
    if "_self_" not in defaults:
        yield own


def _group_file(group: str, choice: str, path: Path, package: str) -> Iterator[ConfFile]:
    folder, _, place = group.partition("@")
    root = conf_directory() if folder.startswith("/") else path.parent
    place = place or folder.strip("/").replace("/", ".")
    inside = package if place == "_here_" else f"{package}.{place}".strip(".")
    yield from conf_files(root / folder.strip("/") / f"{choice}.yaml", inside)


@dataclass(frozen=True)
class Row:
    """A key in the table.

    default: as Markdown; empty for a section.
    explanation: plain text; empty if there is none.
    """

    default: str
    explanation: str


def rows(name: str, **choices: str) -> dict[str, Row]:
    """Row of each key of a command, and of each section that conf/ explains.

    Args:
        name: train, evaluate, forecast, download, doctor or export.
        choices: files of groups other than the default ones, such as ``stage="predictor"``.
    """
    known: dict[str, str] = {}
    for file in conf_files(conf_directory() / f"{name}.yaml"):
        chosen = file.path.with_stem(choices.get(file.path.parent.name, file.path.stem))
        known |= ConfFile(chosen, file.package).explanations()
    config = compose(name, *(f"{group}={choice}" for group, choice in choices.items()))
    return dict(_rows(OmegaConf.to_container(config, resolve=False), "", known))


def _rows(node: dict[str, Any], prefix: str, known: dict[str, str]) -> Iterator[tuple[str, Row]]:
    for key, value in node.items():
        name = f"{prefix}.{key}".lstrip(".")
        if isinstance(value, dict) and value:
            if name in known:
                yield name, Row("", known[name])
            yield from _rows(value, name, known)
        elif key not in LEFT_OUT:
            yield name, Row(_value(value), known.get(name) or _reference(value))


def _reference(value: Any) -> str:
    """Explanation of a key whose default is another key."""
    found = re.fullmatch(r"\$\{([a-z_]+(?:\.[a-z_0-9]+)*)\}", str(value))
    return f"follows {found[1]}" if found else ""


def training_rows() -> dict[str, Row]:
    """Row of each key of training; where the stages differ, with the default of each."""
    stages = {stage: rows("train", stage=stage) for stage in STAGES}
    merged: dict[str, Row] = {}
    for key in dict.fromkeys(key for own in stages.values() for key in own):
        found = {stage: own[key] for stage, own in stages.items() if key in own}
        row = next(iter(found.values()))
        if len(found) < len(stages) or len({one.default for one in found.values()}) > 1:
            row = Row(", ".join(f"{one.default} ({stage})" for stage, one in found.items()), row.explanation)
        merged[key] = row
    return merged


def unexplained(name: str) -> list[str]:
    """Keys of a command that no comment in conf/ explains."""
    found = training_rows() if name == "train" else rows(name)
    return [key for key, row in found.items() if not row.explanation]


def _value(value: Any) -> str:
    """Code span with a default as it is written on the command line."""
    return "required" if value == "???" else f"`{_plain(value)}`"


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_plain, value))}]"
    if isinstance(value, float):
        return f"{value:g}"
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    return str(value) or '""'


def _cell(text: str) -> str:
    """Plain text in a cell of a Markdown table."""
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", text).replace("<", "&lt;")


def _table(table: dict[str, Row]) -> str:
    lines = ["| key | default | explanation |", "|---|---|---|"]
    lines += [f"| `{key}` | {row.default} | {_cell(row.explanation)} |" for key, row in table.items()]
    return "\n".join(lines) + "\n"


def _by_section(table: dict[str, Row]) -> Iterator[tuple[str, dict[str, Row]]]:
    sections = list(dict.fromkeys(key.split(".")[0] for key in table if "." in key))
    yield "", {key: row for key, row in table.items() if key.split(".")[0] not in sections}
    for section in sections:
        yield section, {key: row for key, row in table.items() if key.split(".")[0] == section}


def group_table() -> str:
    """Choices of each configuration group and the first comment of each; files named ``_…`` are no choices."""
    lines = ["| choice | what it is |", "|---|---|"]
    for path in sorted(conf_directory().rglob("*.yaml")):
        group = path.parent.relative_to(conf_directory()).as_posix()
        if group != "." and "logging" not in group and not path.stem.startswith("_"):
            text = _joined([line for line in _header(path) if not line.startswith("# @package")])
            lines.append(f"| `{group}={path.stem}` | {_cell(text)} |")
    return "\n".join(lines) + "\n"


def _header(path: Path) -> list[str]:
    lines = path.read_text().splitlines()
    end = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return lines[:end]


def page() -> str:
    """Return the whole page."""
    training = training_rows()
    parts = [INTRODUCTION, "## Groups\n", "A group is chosen by name: `data=btc_1h trainer=cpu`.\n", group_table()]
    parts += ["## Training\n", "Keys of `python train.py`.\n"]
    for section, table in _by_section(training):
        parts += [f"### {section}\n"] * bool(section) + [_table(table)]
    for name, (title, command) in COMMANDS.items():
        own = {key: row for key, row in rows(name).items() if training.get(key) != row}
        note = " A key with the same default as in training is not repeated." if name in SHARING else ""
        parts += [f"## {title}\n", f"Keys of `{command}`.{note}\n", _table(own)]
    return "\n".join(parts)


def main() -> None:
    """Write the page; name the keys of training and evaluation that lack an explanation."""
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page())
    for key in dict.fromkeys([*unexplained("train"), *unexplained("evaluate")]):
        print(f"no explanation in conf/: {key}", file=sys.stderr)


if __name__ == "__main__":
    main()
