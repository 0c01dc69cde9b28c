"""Speed and memory of forecasting, against the recomputing decoder. `make bench` prints the table.

Whole forecasts are timed, tokenizer included: same process, same weights (random), float32, all cores.
"""

import subprocess
import sys

import pytest
import torch
from rich.console import Console
from rich.table import Table

from kronos_lightning.forecast.sampling import draw_uniforms
from tests.helpers import recomputing_decoder as recomputing
from tests.helpers.decoding_work import TEN_PATHS, WORKS, forecaster, given
from tests.helpers.timing import best_of


def race(work):
    """Best seconds of the recomputing and of the cached decoder, interleaved, on the same random numbers.

    Also the share of the candles that both forecast alike.
    """
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
        took, paths = best_of(cached, 3)
        fast = min(fast, took)
        took, expected = best_of(recomputed, 1)
        slow = min(slow, took)
    same = torch.isclose(paths, expected, atol=1e-3).all(dim=-1).float().mean()
    return slow, fast, float(same)


@pytest.mark.minutes
def test_the_cached_decoder_makes_the_forecasts_of_the_recomputing_one(all_cores):
    table = Table("work", "recomputing", "cached", "ratio", "wanted", title="Seconds a forecast")
    alike = {}
    for work in (*WORKS, TEN_PATHS):
        slow, fast, alike[str(work)] = race(work)
        table.add_row(str(work), f"{slow:.3f}", f"{fast:.4f}", f"{slow / fast:.1f}x", f"{work.least}x")
    print()
    Console(width=120).print(table)
    assert min(alike.values()) > 0.99, alike  # the same forecasts, but for a draw on the edge of two tokens


MEMORY = """
from tests.helpers.memory import peak_mebibytes
from tests.helpers.decoding_work import WORKS, forecaster, given
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
