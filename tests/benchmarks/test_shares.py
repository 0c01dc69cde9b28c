"""Shares of the machine's limit. `make bench` prints them and writes outputs/bench/shares.md."""

import pytest
import torch

from tests.benchmarks.gpu.machine import Machine
from tests.helpers.decoding_work import Work
from tests.helpers.paths import ROOT
from tests.helpers.shares import Share, Sizes, markdown, shares, write

CPU = torch.device("cpu")
JOBS = {
    "predictor step", "tokenizer step", "forecast", "rolling forecasts", "windows", "candle parsing", "backtest",
}  # fmt: skip
TINY = Sizes(works=(Work("mini", 12, 3, 2, 1),), cutoffs=3, paths=2, windows=600, minutes=100, backtest=5000)


@pytest.mark.minutes
def test_each_job_is_measured_against_the_limit_of_this_machine(all_cores, tmp_path):
    machine = Machine(CPU, tmp_path, synthetic=1200, seconds=10.0)
    found = []
    print()
    for one in shares(machine, Sizes()):
        found.append(one)
        print(f"{one.job}, {one.size}: {one.share:.0%} of the floor", flush=True)
    write(ROOT / "outputs" / "bench", machine, found)
    table = (ROOT / "outputs" / "bench" / "shares.md").read_text()
    print(table)
    assert {one.job for one in found} == JOBS  # a wrong result is an error in the job itself
    assert all(f"{one.job} | {one.size}" in table and one.share > 0 for one in found)


def test_the_measured_jobs_give_right_results_in_tiny_sizes(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.helpers.floor.COPY_SECONDS", 0.01)
    monkeypatch.setattr("kronos_lightning.training.throughput.PEAK_SECONDS", 0.01)
    machine = Machine(CPU, tmp_path / "work", smoke=True)
    found = list(shares(machine, TINY))
    assert {one.job for one in found} == JOBS
    assert all(one.least > 0 and one.seconds > 0 for one in found)
    write(tmp_path / "bench", machine, found)
    text = (tmp_path / "bench" / "shares.md").read_text()
    assert all(word in text for word in ("revision", "GFLOP/s", "GB/s", "cores", *(one.job for one in found)))


def test_a_share_is_the_least_time_over_the_measured_time():
    one = Share("forecast", "small", least=0.03, bound="bytes", seconds=1.5)
    assert one.share == pytest.approx(0.02)
    machine = Machine(CPU, None, _rates={"float32": 5e11, "copies": 2e10})
    assert "| forecast | small | 30 ms | bytes | 1.5 s | 2% |" in markdown(machine, [one])
