"""Measure this project on a GPU, or on a CPU if there is none: ``python -m tests.benchmarks.gpu --output DIR``.

Writes `report.json` and `report.md` into the folder after every measurement. The exit code is 1 if a result differs
from the CPU's by more than its tolerance; being slow is no error. docs/guides/gpu.md explains the columns.
"""

import argparse
import logging
import os
import sys
import warnings
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch

from .machine import Machine, best_device
from .plan import measurements
from .rows import Report, run

ENVIRONMENT = dict(os.environ)  # before Lightning adds the variables of its processes


def main(arguments=None):
    """Measure; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder of the report")
    parser.add_argument("--minutes", type=float, default=8.0, help="time budget; what does not fit is skipped")
    parser.add_argument("--candles", type=Path, help="candle file; without one, synthetic candles")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: does the kit work? No figure means anything")
    parser.add_argument("--continue", action="store_true", dest="again", help="measure what the report still lacks")
    options = parser.parse_args(arguments)
    output = options.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    device = torch.device("cpu") if options.smoke else best_device()
    machine = Machine(device, output / "work", options.smoke, options.candles)
    plan = measurements(machine)
    report = Report(output, plan, machine.description(), options.smoke)
    if options.again:
        report.load()
    again = partial(restart, arguments) if machine.device.type == "cuda" else None
    with uncompiled() if options.smoke else nullcontext():
        run(plan, report, 60 * options.minutes, again)
    print(f"Report: {report.path.with_suffix('.md')}")
    return report.exit_code


def restart(arguments):
    """Replace this process, whose GPU cannot be used any more, by one that continues the report."""
    given = [one for one in (sys.argv[1:] if arguments is None else arguments) if one != "--continue"]
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-m", "tests.benchmarks.gpu", *given, "--continue"], ENVIRONMENT)


@contextmanager
def uncompiled():
    """Let torch.compile do nothing: a compiler would take most of a smoke run."""
    with patch.dict(os.environ, TORCHDYNAMO_DISABLE="1"):
        yield


def be_quiet():
    """Silence what each of many short trainings would say."""
    for name in ("lightning.pytorch", "kronos_lightning", "torch.distributed"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\..*")


if __name__ == "__main__":
    be_quiet()
    sys.exit(main())
