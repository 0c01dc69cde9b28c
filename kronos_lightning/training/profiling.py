"""Profile of a training: a table of the time of its parts, and a trace of a few steps."""

import csv
import logging
import time
from collections import defaultdict
from pathlib import Path

import torch
from lightning.pytorch.profilers import Profiler
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, record_function

# Substrings of Lightning's action names and the part each one counts for; the first match wins. The time of other
# actions counts for the part that contains them.
PARTS = {
    "Checkpoint": "checkpoints",
    "save_checkpoint": "checkpoints",
    ".setup": "setting up",
    "dataloader_next": "data loading",
    "batch_to_device": "data loading",
    "on_after_batch_transfer": "encoding",
    ".training_step": "forward",
    ".backward": "backward",
    "optimizer": "optimiser",
    "configure_gradient_clipping": "optimiser",
}
WARM_UP, TRACED = 3, 5  # steps before the trace, and steps in the trace
ROWS = 15  # maximum number of printed rows of a table

log = logging.getLogger(__name__)


class PartsProfiler(Profiler):
    """Profiler of the seconds in each part of a training, each moment counted once, with a torch trace of a few steps.

    It writes ``parts.csv``. For a run of more than `WARM_UP` steps it also writes ``operators.csv`` and
    ``trace.json.gz`` (for chrome://tracing or ui.perfetto.dev). Process r > 0 adds ``_r`` to the names. On a GPU the
    profiler synchronises with the device at each change of part, which costs some speed.

    Args:
        directory: folder of the files.
    """

    def __init__(self, directory: str | Path):
        super().__init__()
        self.directory = Path(directory)
        self.seconds, self.calls, self.operators = defaultdict(float), defaultdict(int), []
        self._stack: list[tuple[str, record_function]] = []
        self._since, self._steps, self._tracer = time.perf_counter(), 0, None
        self._validating = self._finished = False

    def start(self, action_name: str) -> None:
        if action_name == "run_training_batch":
            self._count_step()
        if action_name.endswith(".on_validation_start") and not self._validating:
            self._validating = True
            self._enter("validation")
        if (part := self._part(action_name)) is not None:
            self._enter(part)

    def stop(self, action_name: str) -> None:
        if self._part(action_name) is not None:
            self._leave()
        if action_name.startswith("[Strategy]") and action_name.endswith(".on_validation_end") and self._validating:
            self._validating = False
            self._leave()

    def _part(self, action_name: str) -> str | None:
        if self._validating or self._finished:
            return None
        return next((part for name, part in PARTS.items() if name in action_name), None)

    def _enter(self, part: str) -> None:
        self._account()
        scope = record_function(part)
        scope.__enter__()
        self._stack.append((part, scope))
        self.calls[part] += 1

    def _leave(self) -> None:
        self._account()
        self._stack.pop()[1].__exit__(None, None, None)

    def _account(self) -> None:
        """Add the time since the last change to the part on top of the stack."""
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()
        now = time.perf_counter()
        self.seconds[self._stack[-1][0] if self._stack else "other"] += now - self._since
        self._since = now

    def _count_step(self) -> None:
        if self._steps == WARM_UP:
            cuda = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
            self._tracer = torch.profiler.profile(activities=[ProfilerActivity.CPU, *cuda])
            self._tracer.start()
        elif self._steps == WARM_UP + TRACED:
            self._end_trace()
        self._steps += 1

    def _end_trace(self) -> None:
        if self._tracer is not None:
            self._tracer.stop()
            tracer, self._tracer = self._tracer, None
            self.directory.mkdir(parents=True, exist_ok=True)
            tracer.export_chrome_trace(str(self._file("trace.json.gz")))
            self.operators = tracer.key_averages()

    def _file(self, name: str) -> Path:
        stem, dot, suffix = name.partition(".")
        return self.directory / (f"{stem}_{self._local_rank}{dot}{suffix}" if self._local_rank else name)

    def describe(self) -> None:
        """Write the tables; print them in the first process."""
        if self._finished:
            return
        self._account()
        self._end_trace()
        self._finished = True
        self.directory.mkdir(parents=True, exist_ok=True)
        total = sum(self.seconds.values())
        parts = [
            [part, f"{self.seconds[part]:.3f}", f"{self.seconds[part] / total:.3f}", self.calls[part]]
            for part in sorted(self.seconds, key=self.seconds.get, reverse=True)
        ]
        self._tell("Time by part", "parts.csv", ["part", "seconds", "share", "calls"], parts)
        operators = [
            [e.key, f"{e.self_cpu_time_total / 1e6:.4f}", f"{e.self_device_time_total / 1e6:.4f}", e.count]
            for e in sorted(self.operators, key=lambda e: -max(e.self_cpu_time_total, e.self_device_time_total))
        ]
        if operators:
            title = f"Costliest operators of {min(self._steps - WARM_UP, TRACED)} traced step(s)"
            self._tell(title, "operators.csv", ["operator", "CPU seconds", "device seconds", "calls"], operators)
        if not self._local_rank:
            if not operators:
                log.info("No trace: the run has only %d step(s), at least %d are needed", self._steps, WARM_UP + 1)
            log.info("Profile: %s", self.directory)

    def _tell(self, title: str, name: str, header: list[str], rows: list[list]) -> None:
        self._write(name, header, rows)
        if not self._local_rank:
            self._print(title, header, rows[:ROWS])

    def _write(self, name: str, header: list[str], rows: list[list]) -> None:
        with self._file(name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header, *rows])

    @staticmethod
    def _print(title: str, header: list[str], rows: list[list]) -> None:
        table = Table(*header, title=title)
        for row in rows:
            table.add_row(*map(str, row))
        Console(markup=False).print(table)
