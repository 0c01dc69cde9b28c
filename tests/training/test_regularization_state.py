"""The average of the weights and the weights of the start: what is validated, exported, stored and resumed."""

import copy

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from kronos_lightning import Kronos, KronosTokenizer
from tests.helpers.training import (
    fit,
    loader,
    predictor_module,
    quiet,
    same,
    tokenizer_module,
    weights,
    windows,
)


class Steps(Callback):
    """The trained weights after each optimiser step; saves a checkpoint after one of them."""

    def __init__(self, path=None, save_after=None):
        self.path, self.save_after, self.seen = path, save_after, []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step > len(self.seen):
            self.seen.append(weights(pl_module.trained))
        if trainer.global_step == self.save_after and not self.path.exists():
            trainer.save_checkpoint(self.path)


def average_of(start, steps, decay):
    """By the formula, from the weights after each step."""
    average = dict(start)
    for n, step in enumerate(steps):
        kept = min(decay, (1 + n) / (10 + n))
        average = {name: kept * average[name] + (1 - kept) * step[name] for name in average}
    return average


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_average_is_over_the_optimisers_steps_and_is_what_an_export_holds(tmp_path, tiny_tokenizer, accumulate):
    start, steps = weights(tiny_tokenizer), Steps()
    module = tokenizer_module(tiny_tokenizer, ema=0.5)
    fit(module, tmp_path, batch_size=10, max_epochs=2, limit_train_batches=4, accumulate_grad_batches=accumulate,
        callbacks=[steps])  # fmt: skip
    assert len(steps.seen) == 8 // accumulate
    expected = average_of(start, steps.seen, 0.5)
    module.save_pretrained(tmp_path / "out", module.eval_network)
    exported = weights(KronosTokenizer.from_pretrained(tmp_path / "out"))
    assert same(exported, weights(module.average.network))
    for name, value in exported.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6)
    assert same(weights(module.trained), steps.seen[-1])
    assert not same(exported, steps.seen[-1])


@pytest.mark.parametrize("stage", ["tokenizer", "predictor"])
def test_validation_and_its_forecasts_are_those_of_the_average(tmp_path, tiny_tokenizer, tiny_predictor, stage):
    def module(tokenizer, predictor, **options):
        return (
            tokenizer_module(tokenizer, **options)
            if stage == "tokenizer"
            else predictor_module(tokenizer, predictor, **options)
        )

    averaged = module(tiny_tokenizer, tiny_predictor, ema=0.9)
    trainer = fit(averaged, tmp_path)
    found = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
    nets = {"tokenizer": (averaged.eval_network, None), "predictor": (tiny_tokenizer, averaged.eval_network)}[stage]
    alone = module(*(copy.deepcopy(net) for net in nets))
    expected = quiet(tmp_path).validate(alone, loader(windows()), verbose=False)[0]
    assert found == pytest.approx(expected, rel=1e-6)
    batch = windows().__getitems__([0, 1])
    assert torch.equal(*(module.eval().validation_paths(batch, module.eval_network) for module in (averaged, alone)))
    raw = module(*(copy.deepcopy(net) for net in (tiny_tokenizer, tiny_predictor)))
    assert quiet(tmp_path).validate(raw, loader(windows()), verbose=False)[0]["val/loss"] != expected["val/loss"]


def test_the_average_is_never_in_training_mode(tmp_path, tiny_tokenizer):
    module, modes = tokenizer_module(tiny_tokenizer, ema=0.9), []
    step = module.training_step
    module.training_step = lambda *a: modes.append((module.training, module.average.network.training)) or step(*a)
    fit(module, tmp_path, max_steps=2)
    assert modes == [(True, False)] * 2


EVERY = {"ema": 0.9, "l2_pretrained": 0.5, "l1": 0.1, "volatility": "batch", "label_smoothing": 0.1}


class OneBatch:
    """Always the same windows: where in an epoch a run goes on does not matter here."""

    def __init__(self):
        self.data = windows()

    def __len__(self):
        return 120

    def __getitems__(self, indices):
        return self.data.__getitems__(list(range(20)))


@pytest.mark.parametrize("stage", ["tokenizer", "predictor"])
def test_a_run_resumed_amid_an_epoch_ends_with_the_same_weights_average_and_start(
    tmp_path, tiny_tokenizer, tiny_predictor, stage
):
    """Whatever weights the module is built with then: those of the checkpoint count, for the start as well."""

    def module():
        tokenizer, predictor = copy.deepcopy(tiny_tokenizer), copy.deepcopy(tiny_predictor)
        if stage == "tokenizer":
            return tokenizer_module(tokenizer, layer_decay=0.8, **EVERY)
        return predictor_module(tokenizer, predictor, layer_decay=0.8, **EVERY)

    path, options = tmp_path / "amid.ckpt", {"max_epochs": 2, "accumulate_grad_batches": 2, "limit_val_batches": 0}
    whole = module()
    start = weights(whole.trained)
    trainer = fit(whole, tmp_path, OneBatch(), callbacks=[Steps(path, save_after=2)], **options)
    assert trainer.global_step == 6

    resumed = module()
    with torch.no_grad():  # the files that it began from changed
        for p in resumed.parameters():
            p.add_(1.0)
    again = fit(resumed, tmp_path, OneBatch(), ckpt_path=path, **options)
    assert again.global_step == 6
    assert int(resumed.average.steps) == 6
    assert same(weights(resumed), weights(whole))
    assert all(torch.equal(a, b) for a, b in zip(resumed.start, start.values(), strict=True))
    resumed.save_pretrained(tmp_path / "out", resumed.eval_network)
    cls = KronosTokenizer if stage == "tokenizer" else Kronos
    assert same(weights(cls.from_pretrained(tmp_path / "out")), weights(whole.average.network))


def test_a_checkpoint_without_them_holds_the_networks_alone(tmp_path, tiny_tokenizer):
    module = tokenizer_module(tiny_tokenizer)
    trainer = fit(module, tmp_path, max_steps=1)
    trainer.save_checkpoint(tmp_path / "plain.ckpt")
    state = torch.load(tmp_path / "plain.ckpt", weights_only=True)["state_dict"]
    assert {name.split(".")[0] for name in state} == {"tokenizer"}
