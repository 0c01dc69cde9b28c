"""Speed and memory of market data: years of minutes. `make bench` prints the figures."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from kronos_lightning.data.sources.binance.candle_table import SCHEMA
from kronos_lightning.data.sources.binance.stored_series import write_csv
from kronos_lightning.data.sources.synthetic import synthetic_candles

MINUTES = 1_300_000

PREPARE = """
import sys, time
from tests.helpers.data import data_module
from tests.helpers.memory import peak_mebibytes

begin = time.perf_counter()
module = data_module(
    interval="1m", source="file", csv_path=sys.argv[1], synthetic=None, processed_dir=sys.argv[2],
    train_time_range=sys.argv[3:5], val_time_range=sys.argv[5:7], test_time_range=sys.argv[7:], lookback=360,
    horizon=60, batch_size=50, samples_per_epoch=50_000,
)
module.prepare_data()
module.setup()
print(len(module.windows["train"]), time.perf_counter() - begin, peak_mebibytes())
"""

EXAMINE = """
import sys, time
from kronos_lightning.data.doctor import diagnose

begin = time.perf_counter()
print(diagnose(sys.argv[1]).candles, time.perf_counter() - begin)
"""


RANGES = ["2021-01-01", "2023-01-31", "2023-02-01", "2023-04-15", "2023-04-16", "2023-06-20"]


def write_minutes(path, count):
    """A CSV of minutes: one half, and once more from where the first ended."""
    frame = synthetic_candles(count // 2, "1m", "2021-01-01", 1, 30_000.0, 0.6).frame
    values = frame[SCHEMA.names[1:]].to_numpy()
    ratio = values[-1, 3] / values[0, 0]
    second = values * np.array([ratio] * 4 + [1.0, ratio])
    time_ = frame["timestamps"].astype("int64").to_numpy() // 10**6
    time_ = np.concatenate([time_, time_ + count // 2 * 60_000])
    columns = [time_, *np.concatenate([values, second]).T]
    write_csv(pa.Table.from_arrays([pa.array(c) for c in columns], schema=SCHEMA), path)
    return path


@pytest.fixture(scope="module")
def minutes(tmp_path_factory):
    return write_minutes(tmp_path_factory.mktemp("minutes") / "minutes.csv", MINUTES)


def run(program, *arguments):
    result = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    return [float(number) for number in result.stdout.split()]


def test_the_measured_programs_read_every_minute(tmp_path):
    days = [f"2021-01-{day:02}" for day in (1, 10, 11, 12, 13, 14)]
    path = write_minutes(tmp_path / "minutes.csv", 14 * 1440)
    assert run(PREPARE, path, tmp_path, *days)[0] == 10 * 1440 - 360 - 60
    assert run(EXAMINE, path)[0] == 14 * 1440


@pytest.mark.benchmark
def test_1_3_million_minutes_are_windows_in_one_gibibyte(minutes, tmp_path):
    windows, seconds, mebibytes = run(PREPARE, minutes, tmp_path, *RANGES)
    print(f"\n{MINUTES:,} rows read, examined, checked, windowed: {seconds:.1f} s, {mebibytes:.0f} MiB with torch")
    assert windows > 1_000_000
    assert mebibytes < 1024


@pytest.mark.benchmark
def test_the_doctor_examines_1_3_million_minutes(minutes):
    candles, seconds = run(EXAMINE, minutes)
    print(f"\nthe doctor on {MINUTES:,} rows: {seconds:.1f} s")
    assert candles == MINUTES
