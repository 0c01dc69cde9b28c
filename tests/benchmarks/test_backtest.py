"""Speed of the backtest on 4 million candles. `make bench` prints the figures."""

import os
import subprocess
import sys

import pytest

# A process of its own, because compiling counts, and so does reading what was compiled before. CPU time, because
# other work of the machine does not.
RUN = """
import sys, time
import numpy as np, pandas as pd
from kronos_lightning.backtest import ExecutionRules, MarketData, run_backtest
from tests.helpers.memory import peak_mebibytes

n, rng = int(sys.argv[1]), np.random.default_rng(0)
close = 100 * np.exp(np.cumsum(rng.normal(0, 0.001, n)))
open_ = np.concatenate([[100.0], close[:-1]])
prices = dict(open=open_, high=np.maximum(open_, close) * 1.0005, low=np.minimum(open_, close) * 0.9995, close=close)
candles = pd.DataFrame(prices | dict(timestamps=pd.date_range("2015-01-01", periods=n, freq="min", tz="UTC")))
signals = rng.choice(np.array([1, 0, -1], dtype=np.int8), n, p=[0.02, 0.96, 0.02])
limits = dict(stop_loss=0.05, take_profit=0.15, max_drawdown=0.20, cooldown=1000)
rules = ExecutionRules(side="long_short", slippage=0.00001, **limits)
before, seconds = peak_mebibytes(), []
for _ in range(2):
    start = time.process_time()
    result = run_backtest(MarketData.of(candles, pd.Timedelta("1min")), signals, rules, 10_000.0)
    seconds.append(time.process_time() - start)
assert len(result.trades) > n / 80
print(*seconds, peak_mebibytes() - before)
"""


def measure(candles, cache):
    """Seconds of the first and of the second run, and MiB more at the peak, with a folder for compiled code."""
    result = subprocess.run(
        [sys.executable, "-c", RUN, str(candles)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env=os.environ | {"NUMBA_CACHE_DIR": str(cache)},
    )
    return [float(word) for word in result.stdout.split()]


def test_the_measured_program_trades(tmp_path):
    assert len(measure(20_000, tmp_path)) == 3


@pytest.mark.benchmark
def test_four_million_candles_with_and_without_compilation(tmp_path):
    figures = {name: measure(4_000_000, tmp_path) for name in ("freshly compiled", "from the disk")}
    print()
    for name, (first, second, memory) in figures.items():
        print(f"{name}: first run {first:.2f} s, second {second:.3f} s, {memory:,.0f} MiB more")
    assert max(memory for *_, memory in figures.values()) < 1024
