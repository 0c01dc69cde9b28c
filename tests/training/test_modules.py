"""Losses, optimiser and schedule of the stages."""

import copy

import pytest
import torch

from kronos_lightning.training.optimization import build_optimizer, build_schedule
from kronos_lightning.training.stage_module import CodebookUsage
from tests.helpers import training
from tests.helpers.training import HORIZON, LOOKBACK, fit, loader, quiet, recipe, tokenizer_module

RATE = 1e-3


@pytest.fixture
def windows():
    return training.windows()


def predictor_module(tokenizer, predictor, **changes):
    return training.predictor_module(tokenizer, predictor, keep_dropout=True, learning_rate=RATE, **changes)


def validate(module, windows, batch_size=16):
    return quiet(None).validate(module, loader(windows, batch_size), verbose=False)[0]


def test_validation_is_deterministic_teacher_forced_and_independent_of_batches(tiny_tokenizer, tiny_predictor, windows):
    teacher = validate(predictor_module(tiny_tokenizer, tiny_predictor), windows)
    sampled = validate(predictor_module(tiny_tokenizer, tiny_predictor, s1_condition="sampled"), windows, batch_size=7)
    for name in ("val/loss", "val/ce_s1", "val/ce_s2"):
        assert sampled[name] == pytest.approx(teacher[name], abs=1e-6)
    assert teacher["val/loss"] == pytest.approx((teacher["val/ce_s1"] + teacher["val/ce_s2"]) / 2, abs=1e-6)


def test_validation_counts_the_target_rows_alone(tiny_tokenizer, windows):
    batch = windows.__getitems__(list(range(len(windows))))
    error = (tiny_tokenizer(batch.x).full - batch.x)[:, LOOKBACK:].square().mean().item()
    assert validate(tokenizer_module(tiny_tokenizer), windows)["val/loss"] == pytest.approx(error, rel=1e-5)


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
        module = predictor_module(tiny_tokenizer, tiny_predictor, s1_condition=condition)
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
    fit(module, tmp_path, windows, max_steps=3)
    assert seen == [(True, False)] * 3
    assert all(torch.equal(a, b) for a, b in zip(before, tiny_tokenizer.parameters(), strict=True))


def test_training_lowers_the_validation_loss(tmp_path, tiny_tokenizer, windows):
    module = tokenizer_module(tiny_tokenizer, learning_rate=2e-2)
    before = validate(module, windows)["val/loss"]
    fit(module, tmp_path, windows, max_epochs=30)
    assert validate(module, windows)["val/loss"] < 0.8 * before


def test_accumulated_batches_train_as_one_large_batch(tmp_path, tiny_tokenizer, tiny_predictor, windows):
    weights = []
    for batch_size, accumulate in ((20, 1), (10, 2)):
        networks = copy.deepcopy(tiny_tokenizer), copy.deepcopy(tiny_predictor)
        module = training.predictor_module(*networks, learning_rate=RATE)
        options = {"accumulate_grad_batches": accumulate, "limit_train_batches": 4 * accumulate}
        trainer = fit(module, tmp_path, windows, batch_size, gradient_clip_val=1.0, **options)
        assert trainer.global_step == 4
        weights.append(torch.cat([p.flatten() for p in module.predictor.parameters()]).detach())
    torch.testing.assert_close(*weights, atol=1e-5, rtol=0)


def test_decay_is_on_matrices_only(tiny_predictor):
    decayed, plain = build_optimizer(tiny_predictor, recipe().stage).param_groups
    assert decayed["weight_decay"] == 0.1
    assert plain["weight_decay"] == 0.0
    assert all(p.dim() >= 2 for p in decayed["params"])
    assert all(p.dim() == 1 for p in plain["params"])
    assert len(decayed["params"]) + len(plain["params"]) == len(list(tiny_predictor.parameters()))


@pytest.mark.parametrize("total_steps", [2, 3, 33, 34, 100, 1000])
def test_the_schedule_peaks_at_the_learning_rate_and_leaves_the_betas(total_steps, tiny_predictor):
    stage = recipe(learning_rate=RATE).stage
    optimizer = build_optimizer(tiny_predictor, stage)
    schedule = build_schedule(optimizer, stage, total_steps)
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
