"""Self-contained HTML pages with tables and plots; all pages extend one base template."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from kronos_lightning.plotting import theme

TEMPLATES = Environment(
    loader=PackageLoader("kronos_lightning.reporting"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)
TEMPLATES.globals["theme"] = theme
TEMPLATES.filters["data_url"] = lambda image: f"data:image/png;base64,{base64.b64encode(image).decode()}"


@dataclass(frozen=True, kw_only=True)
class ReportTable:
    """Table of the report; with `prose` the last column is text that the terminal leaves out."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    prose: bool = False
    notes: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class ReportPlot:
    """Plot of the report: its title, its file name without suffix, and the figure."""

    title: str
    name: str
    figure: Figure


@dataclass(kw_only=True)
class Report:
    """Content of the page, top to bottom. tone: good, bad or empty; sets the verdict's colour."""

    title: str
    subtitle: str
    verdict: Sequence[str]
    tone: str
    notices: Sequence[str] = ()
    tables: list[ReportTable] = field(default_factory=list)
    plots: list[ReportPlot] = field(default_factory=list)
    facts: Sequence[tuple[str, str]] = ()

    def write(self, directory: Path) -> None:
        """Write `report.html` and one PNG per plot."""
        images = {plot.name: png(plot.figure) for plot in self.plots}
        for name, image in images.items():
            (directory / f"{name}.png").write_bytes(image)
        page = render("report.html.jinja", report=self, images=images)
        (directory / "report.html").write_text(page, encoding="utf-8")


def render(template: str, **values: Any) -> str:
    """Render a template of this package."""
    return TEMPLATES.get_template(template).render(**values)


def png(figure: Figure) -> bytes:
    """Render a figure as a PNG image."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()
