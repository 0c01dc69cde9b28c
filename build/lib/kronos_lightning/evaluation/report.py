"""The report: one self-contained HTML page, the pictures as PNG beside it."""

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment
from matplotlib.figure import Figure

UNDEFINED = "–"


@dataclass(frozen=True)
class Table:
    """A table of the report; with `words` the last column is prose."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: bool = False
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Picture:
    """A figure, its title and its file name without ending."""

    title: str
    name: str
    figure: Figure


@dataclass
class Report:
    """Everything the page shows, top to bottom. tone: good, bad or empty, the verdict's colour."""

    title: str
    subtitle: str
    verdict: Sequence[str]
    tone: str
    notices: Sequence[str] = ()
    tables: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    facts: Sequence[tuple[str, str]] = ()

    def write(self, directory: Path) -> None:
        """Write `report.html` and one PNG a picture."""
        embedded = []
        for picture in self.pictures:
            path = directory / f"{picture.name}.png"
            picture.figure.savefig(path, dpi=130)
            embedded.append({"title": picture.title, "data": base64.b64encode(path.read_bytes()).decode()})
        source = files(__package__).joinpath("report.html.jinja").read_text(encoding="utf-8")
        template = Environment(autoescape=True).from_string(source)
        page = template.render(vars(self) | {"pictures": embedded})
        (directory / "report.html").write_text(page, encoding="utf-8")


def number(value: float, percent: bool = False) -> str:
    """A figure for people: five digits, or per cent with two decimals; NaN as a dash."""
    if not math.isfinite(value):
        return UNDEFINED
    if percent:
        return f"{value * 100:.2f} %"
    return f"{value:,.2f}" if abs(value) >= 1000 else f"{value:.5g}"
