"""Losses, optimiser and schedule of the stages."""

import copy
import dataclasses

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from kronos_lightning.data import CandleWindows
from kronos_lightning.forecast import Forecaster
from kronos_lightning.training import PredictorModule, TokenizerModule
from kronos_lightning.training.optimization import Optimization
from kronos_lightning.training.stage_module import CodebookUsage
from tests.conftest import frame_with_gap

LOOKBACK, HORIZON = 12, 3
OPTIMIZATION = Optimization(1e-3, (0.9, 0.95), 0.1, 0.03, 10.0)


@pytest.fixture
def windows():
    return CandleWindows(frame_with_gap(120, 120), LOOKBACK, HORIZON + 1, 5.0)


@pytest.fixture
def tokenizer_module(tiny_tokenizer):
    return TokenizerModule(tiny_tokenizer, OPTIMIZATION, LOOKBACK, HORIZON)


def predictor_module(tokenizer, predictor, s1_condition="teacher"):
    forecaster = Forecaster(tokenizer, predictor, 64)
    return PredictorModule(forecaster, OPTIMIZATION, LOOKBACK, HORIZON, s1_condition, num_paths=3, seed=0)


def loader(windows, batch_size):
    return DataLoader(windows, batch_size=batch_size, collate_fn=lambda batch: batch)


def validate(module, windows, batch_size=16):
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    return trainer.validate(module, loader(windows, batch_size), verbose=False)[0]


def fit(module, windows, tmp_path, **options):
    defaults = {"max_epochs": 1, "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = L.Trainer(accelerator="cpu", enable_model_summary=False, default_root_dir=tmp_path, **defaults | options)
    trainer.fit(module, loader(windows, 20), loader(windows, 20))
    return trainer


def test_validation_is_deterministic_teacher_forced_and_independent_of_batches(tiny_tokenizer, tiny_predictor, windows):
    teacher = validate(predictor_module(tiny_tokenizer, tiny_predictor), windows)
    sampled = validate(predictor_module(tiny_tokenizer, tiny_predictor, "sampled"), windows, batch_size=7)
    for name in ("val/loss", "val/ce_s1", "val/ce_s2"):
        assert sampled[name] == pytest.approx(teacher[name], abs=1e-6)
    assert teacher["val/loss"] == pytest.approx((teacher["val/ce_s1"] + teacher["val/ce_s2"]) / 2, abs=1e-6)


def test_validation_counts_the_target_rows_alone(tokenizer_module, tiny_tokenizer, windows):
    batch = windows.__getitems__(list(range(len(windows))))
    error = (tiny_tokenizer(batch.x).full - batch.x)[:, LOOKBACK:].square().mean().item()
    assert validate(tokenizer_module, windows)["val/loss"] == pytest.approx(error, rel=1e-5)


def test_predictor_validation_is_the_cross_entropy_of_the_target_rows(tiny_tokenizer, tiny_predictor, windows):
    module = predictor_module(tiny_tokenizer, tiny_predictor).eval()
    batch = windows.__getitems__(list(range(len(windows))))
    s1, s2 = tiny_tokenizer.encode(batch.x, half=True)
    s1_logits, _ = tiny_predictor(s1[:, :-1], s2[:, :-1], batch.stamp[:, :-1], s1[:, 1:])
    rows = range(LOOKBACK, LOOKBACK + HORIZON + 1)
    expected = torch.stack(
        [torch.nn.functional.cross_entropy(s1_logits[:, row - 1], s1[:, row]) for row in rows]
    ).mean()
    assert validate(module, windows)["val/ce_s1"] == pytest.approx(expected.item(), rel=1e-5)


def test_sampled_condition_changes_training_only(tiny_tokenizer, tiny_predictor, windows):
    tiny_predictor.eval()
    batch = windows.__getitems__([0, 1, 2])
    torch.manual_seed(0)
    losses = {}
    for condition in ("teacher", "sampled"):
        module = predictor_module(tiny_tokenizer, tiny_predictor, condition)
        module.log = module.log_dict = lambda *a, **k: None
        losses[condition] = module.training_step(batch, 0).item()
    assert losses["teacher"] != losses["sampled"]


def test_networks_loaded_in_eval_mode_train_with_dropout_and_the_tokenizer_stays_frozen(
    tmp_path, tiny_tokenizer, tiny_predictor, windows
):
    module = predictor_module(tiny_tokenizer.eval(), tiny_predictor.eval())
    before = [p.clone() for p in tiny_tokenizer.parameters()]
    seen = []
    step = module.training_step
    module.training_step = lambda *a: seen.append((tiny_predictor.training, tiny_tokenizer.training)) or step(*a)
    fit(module, windows, tmp_path, max_steps=3)
    assert seen == [(True, False)] * 3
    assert all(torch.equal(a, b) for a, b in zip(before, tiny_tokenizer.parameters(), strict=True))


def test_training_lowers_the_validation_loss(tmp_path, tiny_tokenizer, windows):
    faster = dataclasses.replace(OPTIMIZATION, learning_rate=2e-2)
    tokenizer_module = TokenizerModule(tiny_tokenizer, faster, LOOKBACK, HORIZON)
    before = validate(tokenizer_module, windows)["val/loss"]
    fit(tokenizer_module, windows, tmp_path, max_epochs=30)
    assert validate(tokenizer_module, windows)["val/loss"] < 0.8 * before


def test_accumulated_batches_train_as_one_large_batch(tmp_path, tiny_tokenizer, tiny_predictor, windows):
    for module in tiny_predictor.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if hasattr(module, "attn_dropout_p"):
            module.attn_dropout_p = 0.0
    weights = []
    for batch_size, accumulate in ((20, 1), (10, 2)):
        module = predictor_module(copy.deepcopy(tiny_tokenizer), copy.deepcopy(tiny_predictor))
        trainer = L.Trainer(
            accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, accumulate_grad_batches=accumulate, limit_train_batches=4 * accumulate,
            gradient_clip_val=1.0,
        )  # fmt: skip
        trainer.fit(module, loader(windows, batch_size))
        assert trainer.global_step == 4
        weights.append(torch.cat([p.flatten() for p in module.predictor.parameters()]).detach())
    torch.testing.assert_close(*weights, atol=1e-5, rtol=0)


def test_decay_is_on_matrices_only(tiny_predictor):
    decayed, plain = OPTIMIZATION.optimizer(tiny_predictor).param_groups
    assert decayed["weight_decay"] == 0.1
    assert plain["weight_decay"] == 0.0
    assert all(p.dim() >= 2 for p in decayed["params"])
    assert all(p.dim() == 1 for p in plain["params"])
    assert len(decayed["params"]) + len(plain["params"]) == len(list(tiny_predictor.parameters()))


@pytest.mark.parametrize("total_steps", [2, 3, 33, 34, 100, 1000])
def test_the_schedule_peaks_at_the_learning_rate_and_leaves_the_betas(total_steps, tiny_predictor):
    optimizer = OPTIMIZATION.optimizer(tiny_predictor)
    schedule = OPTIMIZATION.schedule(optimizer, total_steps)
    rates = []
    for _ in range(total_steps):
        rates.append(schedule.get_last_lr()[0])
        assert optimizer.param_groups[0]["betas"] == (0.9, 0.95)
        optimizer.step()
        if len(rates) < total_steps:
            schedule.step()
    assert rates[0] == pytest.approx(1e-4)
    if total_steps > 2:
        assert max(rates) == pytest.approx(1e-3, rel=0.05)
        assert rates[-1] < rates[0]
    if total_steps == 1000:
        assert rates.index(max(rates)) == pytest.approx(30, abs=2)


def test_codebook_usage_is_the_share_of_codes_seen():
    usage = CodebookUsage(3)
    usage.update(torch.tensor([[0, 1], [1, 1]]))
    usage.update(torch.tensor([[7, 0]]))
    assert usage.compute() == pytest.approx(3 / 8)
