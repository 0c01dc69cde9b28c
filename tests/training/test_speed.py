"""A training says how fast it is and where its time went, and its means to be fast change no result."""

import copy
import csv
import gzip
import itertools
import json
import math
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.flop_counter import FlopCounterMode

from kronos_lightning.config.validation import ConfigError, check_training
from kronos_lightning.training import acceleration, profiling, throughput
from kronos_lightning.training.throughput import Throughput, matmul_peak
from tests.helpers.commands import QUICK_TRAIN, command, without
from tests.helpers.configuration import composed
from tests.helpers.training import HORIZON, LOOKBACK, fit, predictor_module, tokenizer_module, windows

CPU = torch.device("cpu")


def counted(loss):
    """Of a window of eight."""
    with FlopCounterMode(display=False) as counter:
        loss().backward()
    return counter.get_total_flops() / 8


def test_the_operations_of_a_tokenizer_step_are_those_that_torch_counts(tiny_tokenizer):
    module, x = tokenizer_module(tiny_tokenizer), torch.randn(8, 16, 6)
    of_input = 2 * 16 * 6 * 16  # a gradient that nobody needs
    assert module.flops(16) == counted(lambda: tiny_tokenizer(x).loss(x)) + of_input


def test_the_operations_of_a_predictor_step_are_those_that_torch_counts(tiny_tokenizer, tiny_predictor):
    module = predictor_module(tiny_tokenizer, tiny_predictor)
    ids = torch.randint(0, 8, (2, 8, 15))
    stamp = torch.ones(8, 15, 5, dtype=torch.long)
    expected = counted(lambda: sum(part.sum() for part in tiny_predictor(*ids, stamp, ids[0])))
    on_the_fly = module.flops(16)
    module.cached = True
    assert module.flops(16) == expected
    assert on_the_fly > module.flops(16)
    tiny_predictor.requires_grad_(False)
    assert module.flops(16) < 0.75 * expected  # frozen weights need no gradients


def test_measuring_the_peak_draws_no_random_numbers():
    before = torch.get_rng_state()
    assert matmul_peak(CPU, "32-true") > 0
    assert torch.equal(torch.get_rng_state(), before)


def test_the_peak_is_operations_per_second_of_the_fastest_product(monkeypatch):
    readings = iter([0.0, 0.1, 0.1, 0.125, 0.15, 0.15, 0.1625, 9.0])  # end; then loop, start, stop of two products
    monkeypatch.setattr(throughput, "time", SimpleNamespace(perf_counter=lambda: next(readings)))
    assert matmul_peak(CPU, "32-true") == pytest.approx(2 * throughput.SIDES["cpu"] ** 3 / 0.0125)


def test_rates_count_windows_per_second_and_the_share_of_the_peak(tiny_tokenizer, tmp_path, monkeypatch):
    ticks = itertools.count(step=0.5)  # seconds a batch
    monkeypatch.setattr(throughput, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    monkeypatch.setattr(throughput, "matmul_peak", lambda *_: 1e9)
    module = tokenizer_module(tiny_tokenizer)
    trainer = fit(module, tmp_path, callbacks=[Throughput()])
    rates = {name: float(value) for name, value in trainer.logged_metrics.items() if name.startswith("throughput/")}
    rows = LOOKBACK + HORIZON + 1
    per_second = rates["throughput/windows_per_second"]
    later = len(windows()) - 20  # windows after the first batch, before which there is no reading of the clock
    assert per_second == pytest.approx(later / (0.5 * math.ceil(later / 20)))
    assert rates["throughput/tokens_per_second"] == pytest.approx(rows * per_second)
    assert rates["throughput/share_of_peak"] == pytest.approx(module.flops(rows) * per_second / 1e9)


def test_the_peak_is_measured_once_and_after_the_first_step(tiny_tokenizer, tmp_path, monkeypatch):
    module, steps_before = tokenizer_module(tiny_tokenizer), []
    monkeypatch.setattr(throughput, "matmul_peak", lambda *_: steps_before.append(module.global_step) or 1e12)
    fit(module, tmp_path, max_epochs=2, callbacks=[Throughput()])
    assert steps_before == [1]


def test_a_run_logs_its_throughput_and_where_its_time_went(tmp_path):
    shipped = without(QUICK_TRAIN, "logger", "callbacks.throughput")
    arguments = [*shipped, "stage=predictor", "profile=true", "trainer.log_every_n_steps=2", "run_dir=run"]
    result = command("train.py", *arguments, cwd=tmp_path)
    events = EventAccumulator(str(tmp_path / "run" / "logs")).Reload()
    rates, tokens, share = (
        [event.value for event in events.Scalars(f"throughput/{name}")]
        for name in ("windows_per_second", "tokens_per_second", "share_of_peak")
    )
    assert len(rates) >= 10
    assert min(rates) > 0
    assert tokens == pytest.approx([29 * rate for rate in rates], rel=1e-4)
    assert all(0 < value < math.inf for value in share)
    assert "windows/s" in result.stderr + result.stdout

    folder = tmp_path / "run" / "profile"
    with (folder / "parts.csv").open() as file:
        parts = {row["part"]: row for row in csv.DictReader(file)}
    expected = {"data loading", "encoding", "forward", "backward", "optimiser", "validation", "checkpoints"}
    assert expected <= set(parts)
    assert math.fsum(float(row["share"]) for row in parts.values()) == pytest.approx(1, abs=0.01)
    assert int(parts["backward"]["calls"]) == 26
    assert float(parts["validation"]["seconds"]) > 0
    with (folder / "operators.csv").open() as file:
        assert {"aten::mm", "forward"} <= {row["operator"] for row in csv.DictReader(file)}
    with gzip.open(folder / "trace.json.gz") as file:
        names = [event.get("name") for event in json.load(file)["traceEvents"]]
    assert names.count("backward") == 5
    assert "Time by part" in result.stdout
    assert list((tmp_path / "data" / "processed_datasets").glob("sample_train_tokens_*.npy"))


@pytest.mark.parametrize(("steps", "traced"), [(2, 0), (3, 0), (4, 1), (9, 5)])
def test_the_profile_says_how_many_steps_were_traced_and_where_none_were(tmp_path, capsys, caplog, steps, traced):
    caplog.set_level("INFO")
    profiler = profiling.PartsProfiler(tmp_path)
    for _ in range(steps):
        profiler.start("run_training_batch")
        torch.ones(2).sum()
        profiler.stop("run_training_batch")
    profiler.describe()
    printed = capsys.readouterr().out
    assert "Time by part" in printed
    assert (f"of {traced} traced step(s)" in printed) == (traced > 0)
    assert (f"No trace: the run has only {steps} step(s), at least 4 are needed" in caplog.text) == (traced == 0)
    files = {"parts.csv"} | ({"operators.csv", "trace.json.gz"} if traced else set())
    assert {path.name for path in tmp_path.iterdir()} == files


def test_a_compiled_network_gives_the_same_and_keeps_its_names(tiny_tokenizer):
    x, before = torch.randn(4, 16, 6), list(tiny_tokenizer.state_dict())
    plain = tiny_tokenizer(x).loss(x)
    plain.backward()
    gradient = tiny_tokenizer.embed.weight.grad.clone()
    tiny_tokenizer.zero_grad()
    acceleration.compile_networks(CPU, tiny_tokenizer)
    compiled = tiny_tokenizer(x).loss(x)
    compiled.backward()
    assert compiled.item() == pytest.approx(plain.item(), rel=1e-5)
    torch.testing.assert_close(tiny_tokenizer.embed.weight.grad, gradient, atol=1e-5, rtol=1e-4)
    assert list(tiny_tokenizer.state_dict()) == before


def test_without_a_compiler_compile_stops_with_a_reason(monkeypatch, tiny_tokenizer):
    def fails(function):
        raise RuntimeError("InvalidCxxCompiler: no working C++ compiler")

    monkeypatch.setattr(torch, "compile", fails)
    with pytest.raises(acceleration.CompilerError, match=r"needs a C\+\+ compiler.*no working"):
        acceleration.compile_networks(CPU, tiny_tokenizer)


@pytest.mark.minutes
def test_compiled_runs_train_to_the_same_loss_and_export_plain_names(tmp_path):
    arguments = [*QUICK_TRAIN, "stage.max_epochs=1"]
    losses, names = [], []
    for compiled in ("false", "true"):
        run = tmp_path / f"compiled_{compiled}"
        command("train.py", *arguments, f"compile={compiled}", f"run_dir={run.name}", cwd=tmp_path, timeout=900)
        losses.append(json.loads((run / "run_info.json").read_text())["metrics"]["val/loss"])
        names.append(sorted(load_file(run / "checkpoints" / "best_model" / "model.safetensors")))
        kept = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        assert not any("_orig_mod" in name for name in kept)
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert names[0] == names[1]


def test_float16_on_a_cpu_is_refused():
    with pytest.raises(ConfigError, match=r"trainer.precision=16-mixed: needs a GPU; on a CPU use bf16-mixed"):
        check_training(composed("train", "trainer=cpu", "trainer.precision=16-mixed"))
    assert check_training(composed("train", "trainer=cpu", "trainer.precision=bf16-mixed"))


@pytest.mark.parametrize("stage", ["tokenizer", "predictor"])
def test_half_precision_trains_to_nearly_the_same_with_a_clipped_gradient(
    stage, tmp_path, tiny_tokenizer, tiny_predictor
):
    losses = []
    for precision in ("32-true", "bf16-mixed"):
        tokenizer, predictor = copy.deepcopy(tiny_tokenizer), copy.deepcopy(tiny_predictor)
        module = tokenizer_module(tokenizer) if stage == "tokenizer" else predictor_module(tokenizer, predictor)
        trainer = fit(module, tmp_path, precision=precision, max_epochs=3, gradient_clip_val=0.5)
        assert trainer.optimizers[0].defaults["fused"]
        losses.append(float(trainer.callback_metrics["val/loss"]))
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert losses[1] != losses[0]


@pytest.mark.parametrize(("algorithm", "longest"), [("norm", 0.01), ("value", None)])
def test_gradients_are_clipped_by_their_norm_or_by_value(algorithm, longest, tmp_path, tiny_tokenizer):
    class Look(L.Callback):
        norms, values = [], []

        def on_before_zero_grad(self, trainer, pl_module, optimizer):
            gradients = [p.grad.flatten() for p in pl_module.trained.parameters() if p.grad is not None]
            if gradients:
                self.norms.append(float(torch.cat(gradients).norm()))
                self.values.append(float(torch.cat(gradients).abs().max()))

    look = Look()
    options = {"gradient_clip_val": 0.01, "gradient_clip_algorithm": algorithm}
    fit(tokenizer_module(tiny_tokenizer), tmp_path, callbacks=[look], **options)
    assert max(look.values) <= 0.01
    assert max(look.norms) == pytest.approx(longest, rel=1e-3) if longest else max(look.norms) > 0.02


def test_half_precision_is_validated_in_float32(tiny_predictor):
    from kronos_lightning.model import token_losses

    ids = torch.randint(0, 8, (2, 3, 9))
    tiny_predictor.eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = tiny_predictor(*ids, None, ids[0])
        losses = token_losses(*logits, *ids)
    assert logits[0].dtype == torch.bfloat16
    assert all(loss.dtype == torch.float32 for loss in losses)
    exact = torch.nn.functional.cross_entropy(logits[0].flatten(0, 1).float(), ids[0].flatten(), reduction="none")
    assert torch.equal(losses[0].flatten(), exact)


def test_a_slow_precision_is_warned_of(monkeypatch, caplog):
    monkeypatch.setattr(acceleration, "has_bfloat16", lambda: False)
    acceleration.warn_of_slow_precision(CPU, "32-true")
    assert not caplog.text
    acceleration.warn_of_slow_precision(CPU, "bf16-mixed")
    assert "no bfloat16 instructions" in caplog.text
