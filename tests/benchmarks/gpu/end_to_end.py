"""A whole run through the commands: both stages of Kronos-mini and the evaluation, each in a process of its own."""

import subprocess
import sys
import time

from tests.helpers.commands import shell_variables
from tests.helpers.networks import TINY_PREDICTOR, TINY_TOKENIZER
from tests.helpers.paths import ROOT

from .candles import data_overrides

CANDLES = 8000  # enough for 500 cutoffs in the test range
EPOCHS = 2
LONGEST = 150  # seconds of a command


def commands(machine):
    """Return the commands: name, script, arguments."""
    model = ["model=kronos-mini", "model.pretrained=null"]
    if machine.smoke:
        model += [f"model.tokenizer.{key}={value}" for key, value in TINY_TOKENIZER.items()]
        model += [f"model.predictor.{key}={value}" for key, value in TINY_PREDICTOR.items() if "bits" not in key]
        model += ["forecast.num_paths=4"]
    device = "gpu" if machine.device.type == "cuda" else "cpu"
    common = [*data_overrides(machine, 900 if machine.smoke else CANDLES), *model, f"trainer={device}", "seed=1"]
    epochs = ["stage.max_epochs=1" if machine.smoke else f"stage.max_epochs={EPOCHS}", "logger=csv"]
    evaluation = (
        ["evaluation.max_cutoffs=12", "backtest.random_runs=5"] if machine.smoke else ["evaluation.max_cutoffs=500"]
    )
    yield "tokenizer", "train.py", ["stage=tokenizer", *common, *epochs]
    yield "predictor", "train.py", ["stage=predictor", *common, *epochs]
    yield "evaluation", "evaluate.py", [*common, *evaluation]


def run_command(script, arguments, cwd):
    """Run a command in a new process; raise an error with its last line if it fails."""
    started = [sys.executable, str(ROOT / script), *arguments]
    result = subprocess.run(
        started, cwd=cwd, env=shell_variables(), capture_output=True, text=True, timeout=LONGEST, check=False
    )
    if result.returncode:
        last = ((result.stderr.strip() or result.stdout.strip()).splitlines() or ["no output"])[-1]
        raise RuntimeError(f"{script} ended with {result.returncode}: {last}")


def measure(machine):
    """Time each command and all of them."""
    cwd, seconds = machine.folder / "end_to_end", {}
    cwd.mkdir(parents=True, exist_ok=True)
    for name, script, arguments in commands(machine):
        began = time.perf_counter()
        run_command(script, arguments, cwd)
        seconds[f"{name} s"] = time.perf_counter() - began
    return seconds | {"all s": sum(seconds.values())}
