"""Speed and memory of forecasting, against the recomputing decoder. `make bench` prints the table.

Whole forecasts are timed, tokenizer included: same process, same weights (random), float32, all cores.
"""

import os
import subprocess
import sys
import time
from dataclasses import dataclass

import pytest
import torch
from rich.console import Console
from rich.table import Table

from kronos_lightning import Forecaster, Kronos, KronosTokenizer
from kronos_lightning.forecast import Sampling
from kronos_lightning.forecast.sampling import draw_uniforms
from tests.conftest import published_config
from tests.forecast import recomputing


@dataclass(frozen=True)
class Work:
    model: str
    known: int
    horizon: int
    paths: int
    series: int
    least: float  # ratio to reach
    repeats: int  # of each decoder; the best counts

    def __str__(self):
        return f"{self.model}, context {self.known}, horizon {self.horizon}, {self.paths} path(s), {self.series} series"


MINI = Work("mini", 90, 10, 1, 1, 4, 40)
WORKS = [
    Work("small", 360, 24, 30, 1, 100, 1),
    Work("small", 90, 10, 5, 32, 25, 1),
    Work("small", 400, 112, 1, 1, 12, 1),
    MINI,
]


def forecaster(work):
    torch.manual_seed(0)
    tokenizer = KronosTokenizer(
        **published_config("Kronos-Tokenizer-2k" if work.model == "mini" else "Kronos-Tokenizer-base")
    )
    predictor = Kronos(**published_config(f"Kronos-{work.model}"))
    return Forecaster(tokenizer.eval(), predictor.eval(), 2048 if work.model == "mini" else 512, sampling=Sampling())


def given(work):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(work.series, work.known, 6, generator=generator).cumsum(dim=1)
    x = ((x - x.mean(dim=1, keepdim=True)) / x.std(dim=1, keepdim=True)).clamp(-5, 5)
    rows = work.series, work.known + work.horizon
    stamps = torch.stack([torch.randint(0, n, rows, generator=generator) for n in (60, 24, 7, 28, 12)], dim=-1)
    return x, stamps[:, : work.known], stamps[:, work.known :]


def seconds(forecast, repeats):
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        paths = forecast()
        best = min(best, time.perf_counter() - start)
    return best, paths


def race(work):
    """Best seconds of the recomputing and of the cached decoder, interleaved, on the same random numbers."""
    ours, (x, stamp, future) = forecaster(work), given(work)
    uniforms = draw_uniforms(torch.Generator().manual_seed(2), work.series, work.paths, work.horizon)

    def cached():
        return ours.sample_normalised(x, stamp, future, work.paths, torch.Generator().manual_seed(2))

    def recomputed():
        return recomputing.sample_normalised(
            ours.tokenizer, ours.predictor, x, stamp, future, ours.sampling, uniforms, ours.max_context
        )

    cached()  # folds the weights
    slow = fast = float("inf")
    for _ in range(work.repeats):
        took, paths = seconds(cached, 3)
        fast = min(fast, took)
        took, expected = seconds(recomputed, 1)
        slow = min(slow, took)
    same = torch.isclose(paths, expected, atol=1e-3).all(dim=-1).float().mean()
    assert same > 0.99  # the same forecast, but for a draw on the edge of two tokens
    return slow, fast


@pytest.fixture
def all_cores():
    before = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count())
    yield
    torch.set_num_threads(before)


@pytest.mark.minutes
def test_the_cached_decoder_reaches_its_ratios(all_cores):
    table = Table("work", "recomputing", "cached", "ratio", "at least", title="Seconds a forecast")
    ratios = {}
    for work in WORKS:
        slow, fast = race(work)
        ratios[work] = slow / fast
        table.add_row(str(work), f"{slow:.3f}", f"{fast:.4f}", f"{slow / fast:.1f}x", f"{work.least}x")
    print()
    Console(width=120).print(table)
    assert {str(work): ratio for work, ratio in ratios.items() if ratio < work.least} == {}


@pytest.mark.benchmark
def test_ten_paths_cost_a_fraction_of_recomputing_them():
    slow, fast = race(Work("mini", 90, 10, 10, 1, 8, 1))
    assert slow / fast >= 8


MEMORY = """
from tests.benchmarks import peak_mebibytes
from tests.benchmarks.test_decoding import WORKS, forecaster, given
work = WORKS[0]
forecaster(work).sample_normalised(*given(work), work.paths)
print(round(peak_mebibytes()))
"""


@pytest.mark.benchmark
def test_thirty_paths_of_kronos_small_take_under_one_and_a_half_gibibytes():
    result = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    print(f"\n{WORKS[0]}: the whole process took {int(result.stdout)} MiB at its peak")
    assert int(result.stdout) < 1536
