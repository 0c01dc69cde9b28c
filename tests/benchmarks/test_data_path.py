"""Speed and memory of the data path. `make bench` prints the figures."""

import subprocess
import sys
import time

import pytest

from kronos_lightning.data import CandleWindows
from kronos_lightning.data.windows import EpochSampler
from tests.helpers.candles import frame_with_gap

pytestmark = pytest.mark.benchmark


def test_windows_of_101_candles_come_at_200_000_a_second():
    windows = CandleWindows(frame_with_gap(100_000, 50_000), lookback=90, target_rows=11, clip=5.0)
    best = 0.0
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
        best = max(best, rate)
    print()
    assert best >= 200_000


MEMORY = """
import sys
from pathlib import Path
import numpy as np, pandas as pd
from kronos_lightning.data import CandleDataModule
from kronos_lightning.data.formats import FEATURES
from tests.helpers.memory import peak_mebibytes

folder, step = Path(sys.argv[1]), sys.argv[2]
source, n = folder / "candles.parquet", 5_000_000
settings = dict(
    name="big", symbol="X", symbol_weights=None, interval="1m", csv_dir="", csv_path=str(source), binance=None,
    on_defect="error", sample=None, sessions=False, dataset_begin_time=None, dataset_end_time=None,
    train_time_range=["2015-01-01", "2023-12-31"], val_time_range=["2024-01-01", "2024-03-31"],
    test_time_range=["2024-04-01", "2024-12-31"], lookback=90, horizon=10, clip=5.0, batch_size=50,
    samples_per_epoch=1000, num_workers=0, processed_dir=str(folder / "processed"), seed=0,
)
if step == "write":
    close = (100 + np.sin(np.arange(n) / 1000)).astype("float32")
    frame = pd.DataFrame({"timestamps": pd.date_range("2015-01-01", periods=n, freq="min", tz="UTC")})
    for name in FEATURES:
        frame[name] = close
    frame.to_parquet(source)
    CandleDataModule(**settings).prepare_data()
else:
    module = CandleDataModule(**settings)
    before = peak_mebibytes()
    module.setup("fit")
    next(iter(module.train_dataloader()))
    used = peak_mebibytes() - before
    print(f"{len(module.windows['train'])} {used:.0f}")
"""


def test_five_million_candles_load_as_windows_in_under_one_gibibyte(tmp_path):
    for step in ("write", "load"):
        result = subprocess.run(
            [sys.executable, "-c", MEMORY, str(tmp_path), step], capture_output=True, text=True, timeout=300
        )
        assert result.returncode == 0, result.stderr
    windows, mebibytes = map(int, result.stdout.split())
    print(f"\n{windows:,} windows of 101 candles: {mebibytes} MiB more at the peak")
    assert windows > 4_700_000
    assert mebibytes < 1024
