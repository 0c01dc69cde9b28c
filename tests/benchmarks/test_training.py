"""Speed of a training step against the plain one: float32, encoding on the fly, nothing fused. `make bench` prints it.

Two runs of train.py on Kronos-small, random weights, batches of 50 windows of 101 candles, two cores. They take
turns of a few steps one after the other, each from loading the batch to its end; the median of each run counts. The
first step of a turn does not: a process that has waited is slower at first, and a training does not wait.
"""

import json
import os
import subprocess
import sys
from statistics import median

import pytest
from rich.console import Console
from rich.table import Table

from kronos_lightning.training.acceleration import has_bfloat16
from tests.helpers.commands import shell_variables
from tests.helpers.paths import ROOT

pytestmark = pytest.mark.minutes

RUN = [
    "data=sample", "data.synthetic.candles=1200", "data.train_time_range=[2023-01-01,2023-02-10]",
    "data.val_time_range=[2023-02-11,2023-02-13]", "data.test_time_range=[2023-02-14,2023-02-16]",
    "data.lookback=90", "data.horizon=10", "data.batch_size=50", "model=kronos-small", "model.pretrained=null",
    "trainer=cpu", "callbacks.validation_paths.windows=1",
    "+callbacks.stepper={_target_: tests.helpers.stepping.Stepper}",
]  # fmt: skip
TURNS, STEPS = 3, 3

# With instructions for bfloat16 products: what is asked for. Without, products of float32 are most of both steps.
WANTED = {"bf16-mixed": {"predictor": 2.3, "tokenizer": 2.5}, "32-true": {"predictor": 1.1, "tokenizer": 1.15}}


def keep_to_two_cores():
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])


class Run:
    """A process that trains, and makes a step when asked."""

    def __init__(self, cwd, stage, way, precision):
        script = ROOT / ("train.py" if way == "fast" else "tests/helpers/stepping.py")
        options = [f"stage.cache_tokens={way == 'fast'}"] if stage == "predictor" else [f"compile={way == 'fast'}"]
        environment = {name: value for name, value in shell_variables().items() if name != "OMP_NUM_THREADS"}
        with (cwd / f"{way}.log").open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(script), *RUN, f"stage={stage}", *options, f"trainer.precision={precision}",
                 f"run_dir={way}"],
                cwd=cwd, env=environment, preexec_fn=keep_to_two_cores,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        self.step()  # the first, which is slower

    def step(self):
        """CPU and wall seconds and the loss of the step just made."""
        for line in self.process.stdout:
            if line.startswith("["):
                return json.loads(line)
        raise AssertionError("the run ended before its time")

    def turn(self):
        """Make some more; seconds and losses of all but the first."""
        taken = []
        for _ in range(1 + STEPS):
            print(file=self.process.stdin, flush=True)
            taken.append(self.step())
        return taken[1:]


@pytest.mark.parametrize("stage", ["predictor", "tokenizer"])
def test_a_training_step_against_the_plain_one(stage, tmp_path):
    precisions = {"plain": "32-true", "fast": "bf16-mixed" if has_bfloat16() else "32-true"}
    least, runs = WANTED[precisions["fast"]][stage], {}
    try:
        for way, precision in precisions.items():
            runs[way] = Run(tmp_path, stage, way, precision)
        taken = {way: [] for way in runs}
        for _ in range(TURNS):
            for way, run in runs.items():
                taken[way] += run.turn()
    finally:
        for run in runs.values():
            run.process.kill()
    cpu, wall, loss = ({way: median(t[i] for t in times) for way, times in taken.items()} for i in range(3))
    table = Table("step", "CPU s", "wall s", "ratio", "wanted", title=f"A step of the {stage}")
    for way, precision in precisions.items():
        seconds = f"{cpu[way]:.2f}", f"{wall[way]:.2f}", f"{wall['plain'] / wall[way]:.2f}x"
        table.add_row(f"{way}, {precision}", *seconds, f"{least}x" if way == "fast" else "")
    print()
    Console(width=100).print(table)
    assert loss["fast"] == pytest.approx(loss["plain"], rel=0.05)  # both have trained on the same windows
