"""The GPU kit runs through on a CPU in tiny sizes, loses no row, and finds wrong results."""

import json
import os
import time

import pytest
import torch

from tests.benchmarks.gpu import __main__ as kit
from tests.benchmarks.gpu import end_to_end, parity, training
from tests.benchmarks.gpu.machine import Machine
from tests.benchmarks.gpu.plan import measurements
from tests.benchmarks.gpu.rows import Measurement, Report, WrongResultError, run
from tests.helpers.commands import command
from tests.helpers.configuration import CHECKS, composed

CPU = torch.device("cpu")


@pytest.fixture
def machine(tmp_path):
    return Machine(CPU, tmp_path / "work", smoke=True)


def check(script, arguments, cwd):
    name = script.removesuffix(".py")
    CHECKS[name](composed(name, *arguments))


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """Exit code, folder and content of a smoke run; its commands are checked, not run, as tests/e2e runs such ones."""
    folder = tmp_path_factory.mktemp("kit")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(end_to_end, "run_command", check)
        patch.setattr("tests.helpers.floor.COPY_SECONDS", 0.01)
        patch.setattr("kronos_lightning.training.throughput.PEAK_SECONDS", 0.01)
        code = kit.main(["--output", str(folder), "--smoke"])
    return code, folder, json.loads((folder / "report.json").read_text())


def test_a_smoke_run_measures_every_planned_row(smoke):
    code, folder, content = smoke
    planned = [(one.section, one.name) for one in measurements(Machine(CPU, folder, smoke=True))]
    assert [(row["section"], row["name"]) for row in content["rows"]] == planned
    assert {(row["name"], row["state"], row["note"]) for row in content["rows"] if row["state"] != "measured"} == set()
    assert all(row["values"] for row in content["rows"])
    assert code == 0


def test_the_table_shows_each_row_and_that_its_figures_mean_nothing(smoke):
    _, folder, content = smoke
    text = (folder / "report.md").read_text()
    assert "no figure means anything" in text
    for row in content["rows"]:
        assert sum(line.startswith(f"| {row['name']} |") for line in text.splitlines()) == 1
    assert f"{len(content['rows'])} rows: {len(content['rows'])} measured." in text


def test_the_rows_hold_what_the_issue_asks_for(smoke):
    rows = {row["name"]: row["values"] for row in smoke[2]["rows"]}
    assert {"steps/s", "tokens/s", "MFU, measured peak"} <= set(rows["predictor small, bf16, compiled, batch 50"])
    assert rows["tokenizer small, bf16, largest batch"]["limit"] == "data"
    assert {"predictor small, bf16, DDP, batch 50", "predictor small, bf16, FSDP2, batch 50"} <= set(rows)
    many = next(values for name, values in rows.items() if "4096 path(s)" in name and "bfloat16, compiled" in name)
    assert {"forecasts/s", "tokens/s", "share of the floor", "floor"} <= set(many)
    whole = rows["Kronos-mini: both stages and evaluation"]
    parts = [whole[f"{name} s"] for name in ("tokenizer", "predictor", "evaluation")]
    assert whole["all s"] == pytest.approx(sum(parts))


@pytest.mark.parametrize("kind", ["tokenizer", "predictor"])
def test_a_wrong_weight_on_the_device_is_found(kind, machine, monkeypatch):
    def wrong(network, device, honest=parity.moved):
        network = honest(network, device)
        with torch.no_grad():
            network.head.weight.mul_(1.01) if kind == "tokenizer" else network.norm.weight.mul_(1.01)
        return network

    values = parity.compare_networks(machine, kind, "small", "float32")
    assert all(error <= allowed for error, allowed in values.values())
    monkeypatch.setattr(parity, "moved", wrong)
    with pytest.raises(WrongResultError, match="outputs differ by"):
        parity.compare_networks(machine, kind, "small", "float32")


def test_a_wrong_forecast_of_the_device_is_found(machine, monkeypatch):
    honest = Machine.forecaster
    parity.compare_forecasts(machine, torch.float32)

    def wrong(self, model, device=None, **options):
        forecaster = honest(self, model, device, **options)
        if device is None:
            forecaster.predictor.head.proj_s1.bias.data[0] += 1.0
        return forecaster

    monkeypatch.setattr(Machine, "forecaster", wrong)
    with pytest.raises(WrongResultError, match="candles differ by"):
        parity.compare_forecasts(machine, torch.float32)


def test_a_number_that_is_none_is_wrong():
    with pytest.raises(WrongResultError, match="loss differ by nan"):
        parity.checked({"loss": float("nan")}, {"loss": 1.0})


def raises(error):
    def function():
        raise error

    return function


def report_of(tmp_path, plan, budget=100, restart=None):
    report = Report(tmp_path, plan, {"device": "none"})
    run(plan, report, budget, restart)
    return report, {row["name"]: row for row in json.loads(report.path.read_text())["rows"]}


def test_a_measurement_that_raises_becomes_a_row_and_the_next_one_runs(tmp_path):
    plan = [
        Measurement("training", "much", 1, raises(torch.OutOfMemoryError("CUDA out of memory. Tried to …"))),
        Measurement("training", "broken", 1, raises(ValueError("first line\nsecond line"))),
        Measurement("training", "good", 1, lambda: {"steps/s": 2.5}),
    ]
    report, rows = report_of(tmp_path, plan)
    assert (rows["much"]["state"], rows["much"]["note"]) == ("failed", "out of memory")
    assert (rows["broken"]["state"], rows["broken"]["note"]) == ("failed", "ValueError: first line")
    assert rows["good"]["values"] == {"steps/s": 2.5}
    assert report.exit_code == 0
    assert "| much |  | failed: out of memory |" in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize(
    ("section", "error", "code"),
    [
        ("parity", WrongResultError("loss differ by 2", {"loss": [2.0, 0.1]}), 1),
        ("decoding", WrongResultError("not finite", {}), 1),
        ("parity", RuntimeError("could not be compared"), 1),
        ("training", RuntimeError("slow or full"), 0),
    ],
)
def test_a_wrong_result_sets_the_exit_code_and_nothing_else_does(section, error, code, tmp_path):
    report, rows = report_of(tmp_path, [Measurement(section, "one", 1, raises(error))])
    assert report.exit_code == code
    assert rows["one"]["values"] == getattr(error, "values", {})


def test_what_does_not_fit_into_the_budget_is_skipped_and_says_so(tmp_path):
    plan = [
        Measurement("decoding", "long", 500, raises(AssertionError("must not run"))),
        Measurement("decoding", "short", 1, lambda: {"ms": 1.0}),
    ]
    report, rows = report_of(tmp_path, plan)
    assert rows["long"]["state"] == "skipped"
    assert rows["long"]["note"].endswith("about 500 s are needed")
    assert rows["short"]["state"] == "measured"
    assert report.exit_code == 0


def test_a_killed_run_has_its_rows_in_both_files_and_names_the_others(tmp_path):
    plan = [
        Measurement("training", "one", 1, lambda: {"steps/s": 1.0}),
        Measurement("training", "two", 1, raises(KeyboardInterrupt())),
    ]
    with pytest.raises(KeyboardInterrupt):
        report_of(tmp_path, plan)
    states = {row["name"]: row["state"] for row in json.loads((tmp_path / "report.json").read_text())["rows"]}
    assert states == {"one": "measured", "two": "planned"}
    assert "| two |" in (tmp_path / "report.md").read_text()


def test_a_lost_gpu_restarts_the_kit_which_continues_with_the_next_row(tmp_path):
    calls = []
    plan = [
        Measurement("training", "one", 1, lambda: calls.append("one") or {"steps/s": 1.0}),
        Measurement("training", "two", 1, raises(RuntimeError("CUDA error: device-side assert triggered"))),
        Measurement("training", "three", 1, lambda: calls.append("three") or {"steps/s": 3.0}),
    ]
    with pytest.raises(SystemExit):  # stands for the new process
        report_of(tmp_path, plan, restart=raises(SystemExit()))
    continued = Report(tmp_path, plan, {"device": "none"})
    continued.load()
    run(plan, continued, 100)
    assert calls == ["one", "three"]
    assert [row.state for row in continued.rows.values()] == ["measured", "failed", "measured"]


def test_a_stuck_measurement_restarts_the_kit(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.benchmarks.gpu.rows.LEAST_PATIENCE", 0.0)
    restarted = []

    def stuck():
        while not restarted:
            time.sleep(0.01)
        return {}

    plan = [Measurement("training", "stuck", 0.01, stuck)]
    report = Report(tmp_path, plan, {})
    run(plan, report, 100, restart=lambda: restarted.append(report.path.read_text()))
    (row,) = json.loads(restarted[0])["rows"]
    assert (row["state"], row["note"]) == ("failed", "no result after 0 s")


def test_the_new_process_continues_with_the_same_arguments_and_environment(monkeypatch):
    started = []
    monkeypatch.setattr(os, "execve", lambda *arguments: started.append(arguments))
    monkeypatch.setenv("LOCAL_RANK", "0")  # as Lightning leaves it
    kit.restart(["--output", "x", "--continue"])
    ((_, arguments, environment),) = started
    assert arguments[1:] == ["-m", "tests.benchmarks.gpu", "--output", "x", "--continue"]
    assert "LOCAL_RANK" not in environment


def test_the_batch_doubles_until_memory_ends(machine, monkeypatch):
    def measure(machine, stage, model, precision, batch):
        if batch > 1600:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return {"batch": batch, "tokens/s": 1000.0 if batch == 800 else 500.0}

    monkeypatch.setattr(training, "measure", measure)
    big = Machine(CPU, machine.folder)
    row = training.measure_largest(big, "predictor", "small", "bf16")
    assert row == {"batch": 1600, "tokens/s": 500.0, "limit": "memory", "fastest batch": 800}
    assert big.largest == {("predictor", "small", "bf16"): 1600}
    monkeypatch.setattr(training, "FIRST_LARGE", 3200)
    with pytest.raises(torch.OutOfMemoryError):
        training.measure_largest(big, "predictor", "small", "bf16")


def test_the_settings_of_a_real_run_are_valid(tmp_path, guide_csv):
    """Sizes, ranges and trainers of a run on a GPU, for synthetic candles and for a file; nothing is trained."""
    synthetic, of_file = (Machine(CPU, tmp_path / "work", candles=candles) for candles in (None, guide_csv))
    settings, _ = training.configuration(synthetic, "predictor", "base", "bf16", "fsdp")
    assert settings.model.name == "kronos-base"
    settings, trainer = training.configuration(of_file, "tokenizer", "small", "tf32", "ddp")
    assert (settings.data.csv_path, settings.data.interval) == (str(guide_csv), "1h")
    assert trainer.precision == "32-true"
    for _, script, arguments in end_to_end.commands(of_file):
        check(script, arguments, tmp_path)


@pytest.mark.minutes
def test_a_whole_smoke_run_from_the_command_line(tmp_path):
    """With the commands of both stages and of the evaluation."""
    result = command("tests.benchmarks.gpu", "--output", "report", "--smoke", cwd=tmp_path, env={}, timeout=900)
    assert "wrong" not in result.stdout
    rows = {row["name"]: row for row in json.loads((tmp_path / "report" / "report.json").read_text())["rows"]}
    assert rows["Kronos-mini: both stages and evaluation"]["state"] == "measured"
