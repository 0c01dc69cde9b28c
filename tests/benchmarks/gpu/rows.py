"""Measurements within a time budget: each becomes a row of the report, whatever happens to it."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import torch

from kronos_lightning.storage import atomic_path

from .table import markdown

PATIENCE = 4  # a measurement that takes this many times its expected seconds hangs
LEAST_PATIENCE = 60  # seconds


class WrongResultError(AssertionError):
    """Error if a result is wrong; `values` holds what was measured."""

    def __init__(self, message, values):
        super().__init__(message)
        self.values = values


@dataclass(frozen=True)
class Measurement:
    """A planned measurement.

    section, name: of its row.
    seconds: expected; it starts only if so many are left.
    function: returns the values of its row by column, and raises `WrongResultError` if a result is wrong.
    """

    section: str
    name: str
    seconds: float
    function: Callable[[], dict]


@dataclass
class Row:
    """A row of the report. State: planned, measured, wrong, failed or skipped; `note` says why."""

    section: str
    name: str
    state: str = "planned"
    note: str = ""
    seconds: float = 0.0
    values: dict = field(default_factory=dict)


class Report:
    """Rows of all planned measurements in `report.json` and `report.md`, written anew after each measurement."""

    def __init__(self, directory, plan, machine, smoke=False):
        self.directory, self.machine, self.smoke, self.started = directory, machine, smoke, time.time()
        self.rows = {(one.section, one.name): Row(one.section, one.name) for one in plan}
        assert len(self.rows) == len(plan), "two measurements have one name"

    @property
    def path(self):
        return self.directory / "report.json"

    def load(self):
        """Continue a report of the same plan: keep its rows and its start."""
        content = json.loads(self.path.read_text())
        self.started = content["started"]
        for row in (Row(**values) for values in content["rows"]):
            self.rows[row.section, row.name] = row

    def write(self):
        """Replace both files, each at once."""
        content = {"started": self.started, "smoke": self.smoke, "machine": self.machine}
        content["rows"] = [asdict(row) for row in self.rows.values()]
        for path, text in (
            (self.path, json.dumps(content, indent=1)),
            (self.path.with_suffix(".md"), markdown(content)),
        ):
            with atomic_path(path) as temporary:
                temporary.write_text(text)

    @property
    def exit_code(self):
        """1 if a result is wrong or could not be compared; a slow machine or little memory is no error."""
        return int(
            any(row.state == "wrong" or (row.section, row.state) == ("parity", "failed") for row in self.rows.values())
        )


def run(plan, report, budget, restart=None):
    """Run the planned measurements in their order, as far as the budget allows.

    Args:
        plan: the measurements, the most telling ones first.
        report: receives their rows; rows that are no longer planned stay as they are.
        budget: seconds since the report's start.
        restart: called if the device or a measurement is stuck; starts a new process that continues the report.
    """
    report.write()
    for one in plan:
        row = report.rows[one.section, one.name]
        if row.state != "planned":
            continue
        left = report.started + budget - time.time()
        if left < one.seconds:
            row.state, row.note = "skipped", f"{max(left, 0):.0f} s were left, about {one.seconds:.0f} s are needed"
        else:
            _measure(one, row, report, restart)
        report.write()
        print(f"{row.section}: {row.name}: {row.state} {row.note}", flush=True)


def _measure(one, row, report, restart):
    started, watch, lost = time.perf_counter(), None, False
    if restart is not None:
        limit = max(LEAST_PATIENCE, PATIENCE * one.seconds)

        def give_up():
            row.state, row.note = "failed", f"no result after {limit:.0f} s"
            report.write()
            restart()

        watch = threading.Timer(limit, give_up)
        watch.daemon = True
        watch.start()
    try:
        row.values, row.state = one.function(), "measured"
    except WrongResultError as error:
        row.state, row.note, row.values = "wrong", str(error), error.values
    except Exception as error:
        row.state, row.note, lost = "failed", reason(error), device_is_lost(error)
    finally:
        if watch is not None:
            watch.cancel()
        row.seconds = round(time.perf_counter() - started, 2)
    if lost and restart is not None:
        report.write()
        restart()


def reason(error):
    """Describe an error in one short line."""
    if isinstance(error, torch.OutOfMemoryError):
        return "out of memory"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]


def device_is_lost(error):
    """Return True for an error after which this process cannot use its GPU any more."""
    return "CUDA error" in str(error) and not isinstance(error, torch.OutOfMemoryError)
