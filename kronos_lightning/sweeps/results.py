"""Record of a sweep: its trials, the table of their results, and the commands that repeat them."""

import logging
import math
import shlex
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from pydantic import AliasChoices, Field, field_validator

from kronos_lightning.errors import KronosError
from kronos_lightning.runs.directory import read_state, write_json
from kronos_lightning.settings import Section, read_stored
from kronos_lightning.settings.stored import Metric

RECORD = "sweep.json"
APART = ("stage", "data.fold")  # keys whose values do not compete, because their metrics are not comparable

log = logging.getLogger(__name__)


class SweepRecordError(KronosError, ValueError):
    """Error for a damaged `sweep.json`; the message says what is wrong with it."""


@dataclass
class Trial:
    """Trial of a sweep: its overrides, its folder, its status and its metrics."""

    overrides: list[str]
    stage: str
    run_dir: str
    monitor: str
    mode: str
    status: str = "not run"  # or "finished", "interrupted", "failed: …"
    metrics: dict[str, Any] = field(default_factory=dict)
    seconds: float | None = None

    @classmethod
    def of(cls, stored: "StoredTrial") -> "Trial":
        """Build a trial from its entry in `sweep.json`."""
        return cls(**dict(stored))

    @property
    def value(self) -> float | None:
        """Monitored metric; None unless the trial finished."""
        return self.metrics.get(self.monitor) if self.status == "finished" else None

    @property
    def group(self) -> str:
        """Stage, and fold if one is given; trials compete within a group."""
        fold = given(self.overrides).get("data.fold", "null")
        return self.stage if fold == "null" else f"{self.stage}, fold {fold}"

    @property
    def failed(self) -> bool:
        """True if the trial ended with an error."""
        return self.status.startswith("failed")

    def refresh(self, since: str) -> None:
        """Update status, metrics and seconds from the run's folder, if the run began at or after `since` (ISO time)."""
        state = read_state(Path(self.run_dir))
        if state is None or state.started < since:
            return
        finished = state.status == "finished"
        self.status = "finished" if finished else "interrupted"
        self.metrics, self.seconds = (state.metrics, state.seconds) if finished else ({}, None)


class StoredTrial(Section):
    """Trial in `sweep.json`; see `Trial`. Earlier versions stored the metrics as "figures"."""

    overrides: list[str]
    stage: Literal["tokenizer", "predictor"]
    run_dir: str
    monitor: str
    mode: Literal["min", "max"]
    status: str
    metrics: dict[str, Metric] = Field(validation_alias=AliasChoices("metrics", "figures"))
    seconds: float | None

    @field_validator("overrides")
    @classmethod
    def _parsable(cls, overrides: list[str]) -> list[str]:
        try:
            given(overrides)
        except HydraException as error:
            raise ValueError(f"not overrides of a command ({error})") from error
        return overrides


class StoredSweep(Section):
    """Content of `sweep.json`."""

    sweep: dict[str, Any]
    swept: list[str]
    trials: list[StoredTrial]


class Record:
    """Trials of a sweep, stored in `sweep.json`, so that the table is complete even after an interruption.

    Args:
        folder: of the sweep.
        identity: values that identify the sweep; two commands with equal values are the same sweep.
        swept: keys that vary.
    """

    def __init__(self, folder: Path, identity: dict[str, Any], swept: list[str]):
        self.folder, self.identity, self.swept = folder, identity, swept
        self.trials: list[Trial] = []
        if (found := _read(folder / RECORD)) is not None:
            self.trials = [Trial.of(trial) for trial in found.trials]

    @property
    def compared(self) -> list[str]:
        """Swept keys whose values compete."""
        return [key for key in self.swept if key not in APART]

    def save(self) -> None:
        """Write the record."""
        trials = [asdict(trial) for trial in self.trials]
        write_json(self.folder / RECORD, {"sweep": self.identity, "swept": self.swept, "trials": trials})


def find_earlier(sweeps: Path, identity: dict[str, Any]) -> Path | None:
    """Return the folder of the newest sweep with the same identity; None if there is none."""
    for path in sorted(sweeps.glob(f"*/{RECORD}"), key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            found = _read(path)
        except SweepRecordError as error:
            log.warning("%s; it was ignored", error)
        else:
            if found is not None and found.sweep == identity:
                return path.parent
    return None


def _read(path: Path) -> "StoredSweep | None":
    return read_stored(path, StoredSweep, SweepRecordError, "move its folder away to start a new sweep")


def table_of(record: Record) -> pd.DataFrame:
    """Build a table with one row per trial, best first within its group.

    Columns: number, stage, the swept keys, metrics, seconds, status, folder.
    """
    rows = []
    for number, trial in enumerate(record.trials):
        values = given(trial.overrides)
        rows.append(
            {"trial": number, "stage": trial.stage}
            | {key: values.get(key) for key in record.swept if key != "stage"}
            | {trial.monitor: None, "best_epoch": None}
            | trial.metrics
            | {"seconds": trial.seconds, "status": trial.status, "folder": trial.run_dir}
        )
    frame = pd.DataFrame(rows)
    for key in record.swept:
        if key in frame:
            frame[key] = numeric(frame[key])
    signs = {"min": 1.0, "max": -1.0}
    ranks = [math.inf if t.value is None else signs[t.mode] * t.value for t in record.trials]
    order = frame.assign(rank=ranks, place=_places([t.group for t in record.trials]))
    frame = frame.loc[order.sort_values(["place", "rank", "trial"], kind="stable").index]
    last = ["seconds", "status", "folder"]
    return frame[[name for name in frame if name not in last] + last].reset_index(drop=True)


def best(record: Record) -> dict[str, Trial]:
    """Return the best finished trial of each group; empty if only stage and fold vary."""
    winners: dict[str, Trial] = {}
    for trial in record.trials if record.compared else []:
        if trial.value is not None:
            sign = -1.0 if trial.mode == "max" else 1.0
            known = winners.get(trial.group)
            if known is None or sign * trial.value < sign * known.value:
                winners[trial.group] = trial
    return winners


def command_of(trial: Trial) -> str:
    """Return the command that repeats a trial as a single run; without the preset, whose values it contains."""
    kept = [text for text in trial.overrides if not text.startswith("sweep=")]
    return shlex.join(["python", sys.argv[0], *kept])


def command_to_continue() -> str:
    """Return the command that resumes this sweep."""
    arguments = [argument for argument in sys.argv if not argument.startswith("resume=")]
    return shlex.join(["python", *arguments, "resume=auto"])


def given(overrides: list[str]) -> dict[str, str]:
    """Return key → value, as text, of overrides that are not sweeps."""
    parsed = OverridesParser.create().parse_overrides(overrides)
    return {o.get_key_element().lstrip("+~"): str(o.input_line).partition("=")[2] for o in parsed}


def numeric(values: pd.Series) -> pd.Series:
    """Convert to numbers if all values are numeric, else return them unchanged."""
    try:
        return pd.to_numeric(values)
    except (ValueError, TypeError):
        return values


def _places(groups: list[str]) -> list[int]:
    order = list(dict.fromkeys(groups))
    return [order.index(group) for group in groups]


def last_parts(keys: list[str]) -> list[str]:
    """Return the last part of each key; the whole key where two last parts are equal."""
    ends = [key.rpartition(".")[2] for key in keys]
    return [end if ends.count(end) == 1 else key for key, end in zip(keys, ends, strict=True)]
