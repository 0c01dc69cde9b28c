"""Time and memory of the jobs as their work grows: ``python -m tests.helpers.growth --output DIR``.

Writes `growth.json` and three pictures, which docs/experiments/growth.md explains. Seconds are those of the processor
on one core, which other work of the machine changes little; only the training's windows a second are of wall time.
Each row of `prepare`, `symbols` and `training` is a process of its own.
"""

import argparse
import json
import math
import os
import re
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from kronos_lightning.data.sources.binance.candle_table import SCHEMA
from kronos_lightning.data.sources.binance.stored_series import write_csv
from kronos_lightning.data.sources.synthetic import synthetic_candles
from kronos_lightning.evaluation.rolling import rolling_forecasts
from tests.helpers.decoding_work import Work, forecaster, given, rolling_inputs
from tests.helpers.paths import ROOT

MINUTE = 60_000  # ms
BLOCK = 500_000  # candles that are generated at once
FIRST = 946_684_800_000  # 2000-01-01
FULL = {
    "prepare": [10**4, 3 * 10**4, 10**5, 3 * 10**5, 10**6, 3 * 10**6, 10**7],
    "symbols": [(10**5, n) for n in (1, 3, 10, 30)],  # candles of each, and their number
    "evaluate": [(n, 25) for n in (6, 12, 25, 50, 100)] + [(6, s) for s in (10, 30, 100, 300)],
    "context": [32, 64, 128, 256, 488],  # with a horizon of 24
    "horizon": [14, 28, 56, 112, 126, 140],  # after 400 candles: to 113 within the context
    "training": [(1, 1), (1, 2), (2, 1)],  # processes, threads of each
}
SMOKE = {
    "prepare": [3000, 6000],
    "symbols": [(2000, 1), (2000, 2)],
    "evaluate": [(2, 2), (4, 2)],
    "context": [8, 16],
    "horizon": [2, 4],
    "training": [],
}

PREPARE = """
import json, sys, time
from pathlib import Path
import pandas as pd
from tests.helpers.data import data_module
from tests.helpers.memory import peak_mebibytes

folder, candles, symbols = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
places = [int(share * (candles - 1)) for share in (0, 0.8, 0.8, 0.9, 0.9, 1)]
bounds = [str(pd.Timestamp("2000-01-01") + place * pd.Timedelta("1min")) for place in places]
names = [f"S{i}" for i in range(symbols)]
module = data_module(
    symbol=names, interval="1m", source="binance", csv_dir=str(folder), synthetic=None,
    processed_dir=str(folder / "processed"), train_time_range=bounds[:2], val_time_range=bounds[2:4],
    test_time_range=bounds[4:], lookback=90, horizon=10, batch_size=50,
)
before, marks = peak_mebibytes(), [time.process_time()]
module.prepare_data()
marks.append(time.process_time())
peak = peak_mebibytes()
if len(sys.argv) > 4:
    module.setup("fit")
    next(iter(module.train_dataloader()))
    marks.append(time.process_time())
print(json.dumps([marks[i + 1] - marks[i] for i in range(len(marks) - 1)] + [peak - before, peak_mebibytes() - before]))
"""


def write_minutes(path, candles, seed=1):
    """Write so many synthetic minutes from 2000 on into a CSV, block by block: each begins where the last one ended."""
    parts, price = [], 1.0
    block = synthetic_candles(min(candles, BLOCK), "1m", "2000-01-01", seed, 100.0, 0.1).frame
    values = block[SCHEMA.names[1:]].to_numpy()
    while sum(map(len, parts)) < candles:
        scaled = values * ([price] * 4 + [1.0, price])
        parts.append(scaled[: candles - sum(map(len, parts))])
        price *= values[-1, 3] / values[0, 0]
    stamps = FIRST + MINUTE * np.arange(candles)
    columns = [stamps, *np.concatenate(parts).T]
    write_csv(pa.Table.from_arrays([pa.array(column) for column in columns], schema=SCHEMA), path)


def prepare(folder, candles, symbols=1):
    """Measure reading, examining and writing of files of minutes, then the first batch of prepared ones."""
    folder = folder / f"{candles}x{symbols}"
    folder.mkdir(parents=True)
    for i in range(symbols):
        write_minutes(folder / f"S{i}_1m.csv", candles, seed=i)
    given = [sys.executable, "-c", PREPARE, str(folder), str(candles), str(symbols)]
    seconds, peak, _ = numbers(given)
    check, load, _, loaded = numbers([*given, "load"])
    size = sum(path.stat().st_size for path in folder.rglob("processed/**/*") if path.is_file())
    source = sum(path.stat().st_size for path in folder.glob("*.csv"))
    row = {"candles": candles * symbols, "symbols": symbols, "seconds": seconds, "MiB": peak, "check seconds": check}
    row |= {"load seconds": load, "load MiB": loaded, "processed bytes": size, "source bytes": source}
    for path in (*folder.glob("*.csv"), *folder.rglob("processed/**/*")):
        with suppress(IsADirectoryError):
            path.unlink()
    return row


def numbers(command):
    """Run a program; return the numbers of its last line."""
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": "."})
    if result.returncode:
        raise RuntimeError(result.stderr[-2000:])
    return json.loads(result.stdout.splitlines()[-1])


def evaluation(folder, cutoffs, paths):
    """Measure the forecasts of an evaluation with Kronos-mini, 360 known candles and 24 steps."""
    wanted, trainer = rolling_inputs(folder, 360, 24, cutoffs, 32)
    ours = forecaster(Work("mini", 360, 24, paths, 32))
    start = time.process_time()
    found = rolling_forecasts(wanted, ours, paths, 0, trainer)
    seconds = time.process_time() - start
    assert found.paths.shape[:2] == (cutoffs, paths)
    return {"cutoffs": cutoffs, "paths": paths, "seconds": seconds}


def forecast(known, horizon, paths=10, seconds=2.0):
    """Measure a forecast of Kronos-small; the best of some tries."""
    work = Work("small", known, horizon, paths, 1)
    ours, inputs = forecaster(work), given(work)
    ours.sample_normalised(*inputs, paths)  # folds the weights
    best, end = math.inf, time.process_time() + seconds
    while best == math.inf or time.process_time() < end:
        start = time.process_time()
        ours.sample_normalised(*inputs, paths)
        best = min(best, time.process_time() - start)
    return {"known": known, "horizon": horizon, "paths": paths, "seconds": best}


def training(folder, processes, threads, steps=24):
    """Measure a training of Kronos-mini's predictor; the windows a second of all processes."""
    folder.mkdir(parents=True, exist_ok=True)
    several = ["trainer=ddp_cpu", f"trainer.devices={processes}"] if processes > 1 else ["trainer=cpu"]
    batch = 48 // processes
    command = [sys.executable, str(ROOT / "train.py"), "stage=predictor", "data=sample", "data.lookback=90",
               "data.horizon=10", f"data.batch_size={batch}", f"data.samples_per_epoch={batch * processes * steps}",
               "data.val_time_range=[2023-07-16,2023-07-22]", "callbacks.validation_paths.windows=1",
               "model=kronos-mini", "model.pretrained=null", "stage.max_epochs=1", "stage.cache_tokens=false",
               "logger=csv", f"run_dir={folder / f'train{processes}x{threads}'}", *several]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(threads)}
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    found = re.search(r"Trained at ([\d.]+) windows/s", result.stdout + result.stderr)
    if found is None:
        raise RuntimeError((result.stdout + result.stderr)[-2000:])
    return {"processes": processes, "threads": threads, "windows/s": float(found[1])}


def measure(folder, sizes, store):
    """Measure everything; `store` is called with all rows after each one."""
    rows = {name: [] for name in sizes}
    plan = [("prepare", prepare, (folder, n)) for n in sizes["prepare"]]
    plan += [("symbols", prepare, (folder / "symbols", *both)) for both in sizes["symbols"]]
    plan += [("evaluate", evaluation, (folder, *both)) for both in sizes["evaluate"]]
    plan += [("context", forecast, (known, 24)) for known in sizes["context"]]
    plan += [("horizon", forecast, (400, horizon)) for horizon in sizes["horizon"]]
    plan += [("training", training, (folder, *both)) for both in sizes["training"]]
    for name, function, arguments in plan:
        rows[name].append(function(*arguments))
        print(name, rows[name][-1], flush=True)
        store(rows)
    return rows


def slope(x, y):
    """Slope of a line through the last points of a log-log plot: 1 = linear."""
    return float(np.polyfit(np.log(x[-3:]), np.log(y[-3:]), 1)[0])


def main(arguments=None):
    """Measure, or measure anew only some rows, and draw all that was measured."""
    from .growth_pictures import draw

    parser = argparse.ArgumentParser(prog="python -m tests.helpers.growth", description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder of the figures and pictures")
    parser.add_argument("--only", nargs="*", help="names of the rows to measure; others stay as they were")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: does it work?")
    options = parser.parse_args(arguments)
    output = options.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    path, before = output / "growth.json", {}
    if path.exists():
        before = json.loads(path.read_text())
    sizes = SMOKE if options.smoke else FULL
    chosen = {name: steps if options.only is None or name in options.only else [] for name, steps in sizes.items()}
    rows = measure(
        output / f"work{os.getpid()}",
        chosen,
        lambda rows: path.write_text(json.dumps(before | {k: v for k, v in rows.items() if v}, indent=1)),
    )
    draw(before | {name: found for name, found in rows.items() if found}, output)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
