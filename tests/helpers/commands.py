"""The commands as a user types them, and a configuration that trains for seconds."""

import os
import re
import subprocess
import sys

import pytest

from tests.helpers import forking_server
from tests.helpers.paths import ROOT

# A configuration that trains for seconds: few small windows of the synthetic candles.
QUICK = [
    "data=sample",
    "data.synthetic.candles=900",
    "data.train_time_range=[2023-01-01,2023-01-24]",
    "data.val_time_range=[2023-01-25,2023-01-31]",
    "data.test_time_range=[2023-02-01,2023-02-07]",
    "data.lookback=24",
    "data.horizon=4",
    "model=kronos-tiny",
    "model.tokenizer.d_model=16",
    "model.tokenizer.ff_dim=16",
    "model.tokenizer.n_heads=2",
    "model.predictor.d_model=16",
    "model.predictor.ff_dim=16",
    "model.predictor.n_heads=2",
    "model.predictor.n_layers=1",
    "forecast.num_paths=5",
]
QUICK_TRAIN = [
    *QUICK,
    "trainer=cpu",
    "logger=csv",  # which draws no plots
    "~callbacks.throughput",  # which measures the machine
    "stage.max_epochs=2",
    "data.batch_size=40",
    "callbacks.validation_paths.windows=4",
]
QUICK_EVALUATE = [*QUICK, "evaluation.max_cutoffs=24", "backtest.random_runs=10"]


def without(arguments, *keys):
    """Arguments that set none of these keys, nor a key inside one of them."""
    return [one for one in arguments if not re.match(rf"~?({'|'.join(map(re.escape, keys))})(\.|=|$)", one)]


def shell_variables(*folders, **more):
    """Variables of a command: one width for its tables, and the folders of its modules; without any, the clone."""
    paths = os.pathsep.join(map(str, folders or [ROOT]))
    return os.environ | {"COLUMNS": "140", "PYTHONPATH": paths} | more


def command(script, *arguments, cwd, check=True, env=None, path=None, timeout=300):
    """Run train.py, evaluate.py or a module of the package as a user would, from folder `cwd`.

    With variables `env` in an interpreter started for it, else in one that has the libraries in memory. `path`: a
    folder with modules that the command may import.
    """
    environment = shell_variables(*[ROOT] if path is None else [ROOT, path], **(env or {}))
    program = [str(ROOT / script)] if script.endswith(".py") else ["-m", script]
    if env is None:
        result = forking_server.server().run([program[-1], *arguments], cwd, environment, timeout)
    else:
        result = subprocess.run(
            [sys.executable, *program, *arguments],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    if check and result.returncode:
        pytest.fail(f"{script} {' '.join(arguments)} ended with {result.returncode}:\n{result.stdout}\n{result.stderr}")
    return result
