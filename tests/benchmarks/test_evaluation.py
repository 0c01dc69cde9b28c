"""Speed of a whole evaluation. `make bench` prints the time."""

import json
import os
import time

import pytest

from tests.helpers.commands import command


@pytest.mark.minutes
def test_five_hundred_cutoffs_of_a_hundred_paths(tmp_path):
    """Calibration, baselines, backtest and report included; random weights take as long as others."""
    start = time.perf_counter()
    sizes = [
        "data=sample",
        "data.lookback=360",
        "data.horizon=24",
        "data.test_time_range=[2023-08-07,'2023-08-28 18:00']",
    ]
    model = ["model=kronos-mini", "model.pretrained=null", "predictor=published", "trainer=cpu"]
    cores = {"OMP_NUM_THREADS": str(os.cpu_count())}
    command("evaluate.py", *sizes, *model, "evaluation.max_cutoffs=null", cwd=tmp_path, env=cores, timeout=3600)
    seconds = time.perf_counter() - start
    metrics = json.loads((tmp_path / "outputs" / "backtest_results" / "sample" / "metrics.json").read_text())
    assert (metrics["cutoffs"], metrics["num_paths"], metrics["horizon"]) == (500, 100, 24)
    print(f"\nKronos-mini, 500 cutoffs x 100 paths x 24 steps, context 360: {seconds:.0f} s for the whole evaluation")
