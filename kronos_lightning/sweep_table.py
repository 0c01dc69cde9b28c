"""What a sweep leaves in its folder: the record of its trials, the table, a picture, the command of the best."""

import json
import logging
import math
import shlex
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hydra.core.override_parser.overrides_parser import OverridesParser
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from .data.files import atomic_path
from .runs import read_info, write_json

RECORD = "sweep.json"
BEYOND = 0.05  # past the end of an axis is drawn all that lies further out
WIDE = 10.0  # a numeric axis whose ends differ by more than this factor is logarithmic
APART = ("stage", "data.fold")  # keys whose values are no rivals: their figures do not compare
LONG = 60  # characters after which a status is broken over lines
GREY = "#9ca3af"
PAPER = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1.0}  # behind labels

log = logging.getLogger(__name__)


@dataclass
class Trial:
    """One trial: what it was given, where it runs, what became of it."""

    overrides: list[str]
    stage: str
    run_dir: str
    monitor: str
    mode: str
    status: str = "not run"  # or finished, interrupted, failed: …
    figures: dict[str, Any] = field(default_factory=dict)
    seconds: float | None = None

    @property
    def value(self) -> float | None:
        """The monitored figure; None unless finished."""
        return self.figures.get(self.monitor) if self.status == "finished" else None

    @property
    def group(self) -> str:
        """Stage, and fold if one is given: what it competes in."""
        fold = given(self.overrides).get("data.fold", "null")
        return self.stage if fold == "null" else f"{self.stage}, fold {fold}"

    @property
    def failed(self) -> bool:
        """Whether it ended with an error."""
        return self.status.startswith("failed")

    def look(self, since: str) -> None:
        """Take over what its run's folder says, if that run began at or after `since` (ISO time)."""
        info = read_info(Path(self.run_dir))
        if info is None or info["started"] < since:
            return
        finished = info["status"] == "finished"
        self.status = "finished" if finished else "interrupted"
        self.figures, self.seconds = (info["metrics"], info["seconds"]) if finished else ({}, None)


class Record:
    """The trials of a sweep, kept in `sweep.json`, so that the table is complete after an interruption too.

    Args:
        folder: of the sweep.
        identity: what makes two commands the same sweep.
        swept: the keys that vary.
    """

    def __init__(self, folder: Path, identity: dict[str, Any], swept: list[str]):
        self.folder, self.identity, self.swept = folder, identity, swept
        self.trials: list[Trial] = []
        if (folder / RECORD).exists():
            self.trials = [Trial(**trial) for trial in json.loads((folder / RECORD).read_text())["trials"]]

    @property
    def compared(self) -> list[str]:
        """The swept keys whose values compete."""
        return [key for key in self.swept if key not in APART]

    def save(self) -> None:
        """Write the record."""
        trials = [asdict(trial) for trial in self.trials]
        write_json(self.folder / RECORD, {"sweep": self.identity, "swept": self.swept, "trials": trials})


def find_earlier(sweeps: Path, identity: dict[str, Any]) -> Path | None:
    """The folder of the newest sweep of the same command."""
    for path in sorted(sweeps.glob(f"*/{RECORD}"), key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            same = json.loads(path.read_text())["sweep"] == identity
        except (ValueError, KeyError, TypeError) as error:
            log.warning("%s is damaged (%s), not used", path, error)
        else:
            if same:
                return path.parent
    return None


def table_of(record: Record) -> pd.DataFrame:
    """A row a trial, best first within its group: number, stage, the swept keys, figures, seconds, status, folder."""
    rows = []
    for number, trial in enumerate(record.trials):
        values = given(trial.overrides)
        rows.append(
            {"trial": number, "stage": trial.stage}
            | {key: values.get(key) for key in record.swept if key != "stage"}
            | {trial.monitor: None, "best_epoch": None}
            | trial.figures
            | {"seconds": trial.seconds, "status": trial.status, "folder": trial.run_dir}
        )
    frame = pd.DataFrame(rows)
    for key in record.swept:
        if key in frame:
            frame[key] = _numeric(frame[key])
    signs = {"min": 1.0, "max": -1.0}
    ranks = [math.inf if t.value is None else signs[t.mode] * t.value for t in record.trials]
    order = frame.assign(rank=ranks, place=_places([t.group for t in record.trials]))
    frame = frame.loc[order.sort_values(["place", "rank", "trial"], kind="stable").index]
    last = ["seconds", "status", "folder"]
    return frame[[name for name in frame if name not in last] + last].reset_index(drop=True)


def best(record: Record) -> dict[str, Trial]:
    """The best finished trial of each group; none where only stage and fold vary."""
    winners: dict[str, Trial] = {}
    for trial in record.trials if record.compared else []:
        if trial.value is not None:
            sign = -1.0 if trial.mode == "max" else 1.0
            known = winners.get(trial.group)
            if known is None or sign * trial.value < sign * known.value:
                winners[trial.group] = trial
    return winners


def command_of(trial: Trial) -> str:
    """The command that repeats a trial as a run of its own; without the preset, whose values stand in it."""
    kept = [text for text in trial.overrides if not text.startswith("sweep=")]
    return shlex.join(["python", sys.argv[0], *kept])


def command_to_continue() -> str:
    """The command that goes on with this sweep."""
    arguments = [argument for argument in sys.argv if not argument.startswith("resume=")]
    return shlex.join(["python", *arguments, "resume=auto"])


def write(record: Record) -> None:
    """Write `sweep.csv`, `sweep.png` and `best.sh`, and print the table."""
    frame = table_of(record)
    with atomic_path(record.folder / "sweep.csv") as temporary:
        frame.to_csv(temporary, index=False)
    winners = best(record)
    if winners:
        with atomic_path(record.folder / "sweep.png") as temporary:
            parallel_coordinates(record).savefig(temporary, dpi=130)
        with atomic_path(record.folder / "best.sh") as temporary:
            lines = (f"# {group}: {t.monitor} {t.value:.5g}\n{command_of(t)}\n" for group, t in winners.items())
            temporary.write_text("".join(lines))
    _print(frame, record)


def parallel_coordinates(record: Record) -> Figure:
    """A line a finished trial through what it was given to the figure it reached, coloured by it; failed ones grey."""
    groups = list(best(record))
    width = max(7.0, 2.0 * (len(record.compared) + 2))
    figure = Figure(figsize=(width, 4.2 * len(groups)), layout="constrained")
    for axes, group in zip(figure.subplots(len(groups), 1, squeeze=False)[:, 0], groups, strict=True):
        _coordinates(figure, axes, [t for t in record.trials if t.group == group], record.compared)
        axes.set_title(f"{group}: {len(record.trials)} trials" if len(groups) == 1 else group, fontsize=10, pad=24)
    return figure


def _coordinates(figure: Figure, axes: Axes, trials: list[Trial], keys: list[str]) -> None:
    trials = [trial for trial in trials if trial.value is not None or trial.failed]
    winner = min((t for t in trials if t.value is not None), key=lambda t: t.value if t.mode == "min" else -t.value)
    values = [given(trial.overrides) for trial in trials]
    reached = np.array([math.nan if t.value is None else t.value for t in trials], dtype=float)
    finished = np.isfinite(reached)
    scales = [_Scale(_numeric(pd.Series([v.get(key) for v in values], dtype=object)), finished) for key in keys]
    scales.append(_Scale(pd.Series(reached), finished))
    heights = np.column_stack([scale.heights for scale in scales])

    low, high = np.nanmin(reached), np.nanmax(reached)
    norm = LogNorm(low, high) if scales[-1].logarithmic else Normalize(low, high if high > low else low + 1e-9)
    colours = colormaps["viridis"]
    for line, trial, value in zip(heights, trials, reached, strict=True):
        drawn = np.isfinite(line)
        if trial.value is None:
            axes.plot(np.flatnonzero(drawn), line[drawn], color=GREY, linestyle=":", linewidth=1.2, marker="x", ms=5)
        else:
            thick = 3.0 if trial is winner else 1.3
            axes.plot(np.flatnonzero(drawn), line[drawn], color=colours(norm(value)), linewidth=thick, marker="o", ms=4)
    short = _short([*keys, winner.monitor])
    for place, (name, scale) in enumerate(zip(short, scales, strict=True)):
        axes.axvline(place, color="#374151", linewidth=0.8, zorder=0)
        for height, label in scale.ticks:
            right = place == len(scales) - 1
            axes.annotate(label, (place, height), xytext=(6 if right else -6, 0), textcoords="offset points",
                          ha="left" if right else "right", va="center", fontsize=8, bbox=PAPER)  # fmt: skip
        axes.annotate(
            name, (place, 1.07), ha="center", va="bottom", fontsize=9, fontweight="bold", annotation_clip=False
        )
    axes.set(xlim=(-0.45, len(scales) - 0.55), ylim=(-0.06, 1.06), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    notes = [f"thick: the best, {winner.value:.5g}"]
    notes += ["dotted grey: failed"] if any(trial.failed for trial in trials) else []
    axes.set_xlabel("; ".join(notes), fontsize=8)


class _Scale:
    """Heights of the values of one axis, and its ticks.

    The finished trials have those between 0 and 1; a failed one may stand a little beyond the end, however far it is.
    """

    def __init__(self, values: pd.Series, finished: np.ndarray):
        self.logarithmic = False
        if not pd.api.types.is_numeric_dtype(values) or values.dtype == bool:
            names = sorted(values.dropna().astype(str).unique())
            steps = np.linspace(0, 1, len(names)) if len(names) > 1 else [0.5]
            places = dict(zip(names, steps, strict=True))
            self.heights = np.array([places.get(str(value), math.nan) for value in values])
            self.ticks = [(height, name if len(name) < 20 else f"…{name[-18:]}") for name, height in places.items()]
            return
        numbers = values.to_numpy(dtype=float)
        known = numbers if np.isnan(numbers[finished]).all() else numbers[finished]
        low, high = np.nanmin(known), np.nanmax(known)
        self.logarithmic = bool(low > 0 and high / low >= WIDE)
        inside = np.clip(numbers, low, high)
        scaled = np.log(inside) if self.logarithmic else inside
        bottom, span = np.nanmin(scaled), np.nanmax(scaled) - np.nanmin(scaled)
        self.heights = (scaled - bottom) / span if span else np.where(np.isfinite(scaled), 0.5, math.nan)
        self.heights += BEYOND * np.sign(numbers - inside)
        distinct = np.unique(known[np.isfinite(known)])
        if len(distinct) > 6:
            distinct = np.geomspace(low, high, 5) if self.logarithmic else np.linspace(low, high, 5)
        places = np.log(distinct) if self.logarithmic else distinct
        at = (places - bottom) / span if span else np.full(len(places), 0.5)
        self.ticks = []
        for height, number in zip(at, distinct, strict=True):
            if not self.ticks or height - self.ticks[-1][0] > 0.05:  # labels that would cover one another are left out
                self.ticks.append((height, f"{number:.4g}"))


def given(overrides: list[str]) -> dict[str, str]:
    """Key → value, as text, of overrides without a sweep."""
    parsed = OverridesParser.create().parse_overrides(overrides)
    return {o.get_key_element().lstrip("+~"): str(o.input_line).partition("=")[2] for o in parsed}


def _numeric(values: pd.Series) -> pd.Series:
    """As numbers, if all are."""
    try:
        return pd.to_numeric(values)
    except (ValueError, TypeError):
        return values


def _places(groups: list[str]) -> list[int]:
    order = list(dict.fromkeys(groups))
    return [order.index(group) for group in groups]


def _short(keys: list[str]) -> list[str]:
    """Last parts of the keys, the whole key where two would read the same."""
    ends = [key.rpartition(".")[2] for key in keys]
    return [end if ends.count(end) == 1 else key for key, end in zip(keys, ends, strict=True)]


def _print(frame: pd.DataFrame, record: Record) -> None:
    shown = frame.drop(columns="folder")
    apart = [key for key in APART if key in frame and len(frame[key].unique()) > 1]
    if "stage" not in apart:
        shown = shown.drop(columns="stage")
    monitors = {trial.monitor for trial in record.trials}
    extra = {name for trial in record.trials for name in trial.figures} - monitors - {"val/loss", "best_epoch"}
    shown = shown.drop(columns=[name for name in extra if name in shown])
    kinds = " and ".join(f"{key.rpartition('.')[2]}s" for key in apart)
    notes = f" (figures of different {kinds} do not compare)" if apart else ""
    order = f", best {' and '.join(sorted(monitors))} first" if record.compared else ""
    table = Table(title=f"Trials{order}{notes}")
    for name, label in zip(shown.columns, _short(list(shown.columns)), strict=True):
        if name == "status":
            table.add_column(label, overflow="fold", max_width=LONG)
        else:  # a number over two lines reads as another
            table.add_column(label, no_wrap=True, justify="left" if name == "stage" else "right")
    for row in shown.itertuples(index=False):
        table.add_row(*(_cell(value) for value in row))
    console = Console(markup=False)  # brackets in values and reasons are no colours
    console.width = max(console.width, console.measure(table, options=console.options.update(width=10_000)).maximum)
    console.print(table)


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    return f"{value:.5g}" if isinstance(value, float) else str(value)
