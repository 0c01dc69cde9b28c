"""Speed and memory of the data path. `make bench` prints the figures."""

import subprocess
import sys
import time

import pytest

from kronos_lightning.data import CandleWindows
from kronos_lightning.data.windows import EpochSampler
from tests.helpers.candles import frame_with_gap


@pytest.mark.benchmark
def test_windows_of_101_candles_in_batches_of_three_sizes():
    windows = CandleWindows(frame_with_gap(100_000, 50_000), lookback=90, target_rows=11, clip=5.0)
    for batch_size in (50, 256, 1024):
        order = list(EpochSampler([len(windows)], None, batch_size, None, 0, 0, 1))
        batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
        rate = 0.0
        for _ in range(3):
            start = time.perf_counter()
            for batch in batches:
                windows.__getitems__(batch)
            rate = max(rate, len(order) / (time.perf_counter() - start))
        print(f"\nbatches of {batch_size:4d}: {rate:10,.0f} windows/s", end="")
        assert len(order) > len(windows) - batch_size
    print()


LOAD = """
import sys
from pathlib import Path
import numpy as np, pandas as pd
from kronos_lightning.data.formats import FEATURES
from tests.helpers.data import data_module
from tests.helpers.memory import peak_mebibytes

folder, candles, step = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
stamps = pd.date_range("2015-01-01", periods=candles, freq="min", tz="UTC")
bounds = [str(stamps[int(share * (candles - 1))].tz_localize(None)) for share in (0, 0.95, 0.951, 0.975, 0.976, 1)]
module = data_module(
    symbol_weights=None, interval="1m", source="file", csv_path=str(folder / "candles.parquet"), synthetic=None,
    train_time_range=bounds[:2], val_time_range=bounds[2:4], test_time_range=bounds[4:], lookback=90, horizon=10,
    batch_size=50, samples_per_epoch=1000, processed_dir=str(folder / "processed"),
)
if step == "write":
    close = (100 + np.sin(np.arange(candles) / 1000)).astype("float32")
    frame = pd.DataFrame({"timestamps": stamps} | dict.fromkeys(FEATURES, close))
    frame.to_parquet(folder / "candles.parquet")
    module.prepare_data()
else:
    before = peak_mebibytes()
    module.setup("fit")
    next(iter(module.train_dataloader()))
    used = peak_mebibytes() - before
    print(f"{len(module.windows['train'])} {used:.0f}")
"""


def load(folder, candles):
    """Number of training windows, and MiB more at the peak, of a process that loads prepared data."""
    for step in ("write", "load"):
        result = subprocess.run(
            [sys.executable, "-c", LOAD, str(folder), str(candles), step], capture_output=True, text=True, timeout=300
        )
        assert result.returncode == 0, result.stderr
    return map(int, result.stdout.split())


@pytest.mark.minutes
def test_the_measured_program_cuts_a_window_from_every_candle(tmp_path):
    windows, _ = load(tmp_path, 20_001)
    assert windows == 19_001 - 90 - 10


@pytest.mark.benchmark
def test_five_million_candles_load_as_windows_in_under_one_gibibyte(tmp_path):
    windows, mebibytes = load(tmp_path, 5_000_000)
    print(f"\n{windows:,} windows of 101 candles: {mebibytes} MiB more at the peak")
    assert windows > 4_700_000
    assert mebibytes < 1024
