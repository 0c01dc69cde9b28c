"""Means against overfitting: what each does to losses, steps, rates and exports, and that none does by default."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch.callbacks import Callback
from torch import nn

from kronos_lightning import Kronos, KronosTokenizer
from kronos_lightning.data.representation import LEVELS
from kronos_lightning.training.optimization import build_optimizer, build_schedule
from kronos_lightning.training.regularisers import L2SP, Regulariser, SoftThreshold
from kronos_lightning.training.regularization import (
    RegularizationError,
    WeightAverage,
    depths,
    freeze,
    override_dropout,
    window_volatility,
)
from tests.helpers.candles import frame_with_gap
from tests.helpers.networks import TINY_PREDICTOR
from tests.helpers.training import (
    HORIZON,
    LOOKBACK,
    RATES,
    fit,
    loader,
    predictor_module,
    quiet,
    recipe,
    same,
    tokenizer_module,
    weights,
    windows,
)

NUMBER = st.floats(-2, 2, width=32)


def group(*tensors, lr):
    params = [nn.Parameter(tensor.clone()) for tensor in tensors]
    return torch.optim.SGD(params, lr=lr), params


# --- one step ---------------------------------------------------------------------------------------------------------


@given(st.lists(NUMBER, min_size=4, max_size=4), st.floats(0, 2), st.floats(1e-4, 1))
def test_l1_takes_rate_times_l1_off_each_entry_of_a_matrix_and_no_more(values, l1, rate):
    before = torch.tensor(values)
    optimizer, (matrix, vector) = group(before.view(2, 2), before, lr=rate)
    SoftThreshold(l1).on_weights(nn.ParameterList([matrix, vector]), optimizer)
    expected = before.double().sign() * (before.double().abs() - rate * l1).clamp_min(0)
    torch.testing.assert_close(matrix.detach().flatten().double(), expected, atol=1e-6, rtol=0)
    assert (matrix.flatten()[before.double().abs() < rate * l1 - 1e-6] == 0).all()
    assert torch.equal(vector, before)


@given(st.lists(NUMBER, min_size=3, max_size=3), st.lists(NUMBER, min_size=3, max_size=3), st.floats(0, 1))
def test_l2_pretrained_goes_its_share_of_the_way_to_the_start_at_each_groups_rate(values, start, share):
    before, origin = torch.tensor(values), torch.tensor(start)
    fast, slow = nn.Parameter(before.clone()), nn.Parameter(before.clone())
    optimizer = torch.optim.SGD([{"params": [fast], "lr": 0.5}, {"params": [slow], "lr": 0.25}], lr=1)
    L2SP(share, [origin, origin]).on_weights(nn.ParameterList([fast, slow]), optimizer)
    torch.testing.assert_close(fast.detach(), before - 0.5 * share * (before - origin))
    torch.testing.assert_close(slow.detach(), before - 0.25 * share * (before - origin))


def test_l2_pretrained_never_passes_the_start():
    optimizer, (p,) = group(torch.tensor([1.0]), lr=1.0)
    L2SP(3.0, [torch.tensor([0.25])]).on_weights(nn.ParameterList([p]), optimizer)
    assert p.item() == 0.25


@settings(max_examples=30)
@given(st.lists(NUMBER, min_size=1, max_size=30), st.floats(0.05, 0.999))
def test_the_average_forgets_by_its_decay_and_faster_in_its_first_steps(values, decay):
    network = nn.Linear(1, 1, bias=True)
    network.bias.requires_grad_(False)
    with torch.no_grad():
        network.weight.fill_(1.0)
    average, expected, bias = WeightAverage(network, decay), 1.0, network.bias.item()
    for n, value in enumerate(values):
        with torch.no_grad():
            network.weight.fill_(value)
        average.update(network)
        kept = min(decay, (1 + n) / (10 + n))
        expected = kept * expected + (1 - kept) * value
    assert average.network.weight.item() == pytest.approx(expected, abs=1e-4)
    assert average.network.bias.item() == bias
    assert network.weight.item() == pytest.approx(values[-1])


# --- by default, nothing ----------------------------------------------------------------------------------------------


def test_without_any_of_them_a_run_is_plain_adamw_bit_for_bit(tmp_path, tiny_tokenizer, tiny_predictor):
    module = predictor_module(tiny_tokenizer, tiny_predictor)
    plain = copy.deepcopy(tiny_predictor).train()
    steps = len(loader(windows()))
    decayed = [p for p in plain.parameters() if p.dim() >= 2]
    groups = [{"params": decayed, "weight_decay": 0.1},
              {"params": [p for p in plain.parameters() if p.dim() < 2], "weight_decay": 0.0}]  # fmt: skip
    optimizer = torch.optim.AdamW(groups, lr=RATES["learning_rate"], betas=RATES["betas"], fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, RATES["learning_rate"], total_steps=steps, pct_start=2 / steps, div_factor=10.0, cycle_momentum=False
    )
    for i, batch in enumerate(loader(windows())):
        s1, s2 = tiny_tokenizer.encode(batch.x, half=True)
        logits = plain(s1[:, :-1], s2[:, :-1], batch.stamp[:, :-1], s1[:, 1:])
        parts = [nn.functional.cross_entropy(logit.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
                 for logit, ids in zip(logits, (s1, s2), strict=True)]  # fmt: skip
        optimizer.zero_grad()
        (sum(part.view(len(s1), -1).mean() for part in parts) / 2).backward()
        optimizer.step()
        if i + 1 < steps:
            schedule.step()
    fit(module, tmp_path)
    assert same(weights(module.predictor), weights(plain))


@pytest.mark.parametrize("inert", [{"volatility": "market", "market_volatility": 0.0}, {"ema": 0.9}])
def test_what_must_not_touch_the_steps_does_not(tmp_path, tiny_tokenizer, inert):
    plain, other = tokenizer_module(copy.deepcopy(tiny_tokenizer)), tokenizer_module(tiny_tokenizer, **inert)
    fit(plain, tmp_path)
    fit(other, tmp_path)
    assert same(weights(plain.tokenizer), weights(other.tokenizer))


@pytest.mark.parametrize(
    "means",
    [{"l1": 1.0}, {"l2_pretrained": 1.0}, {"volatility": "batch"}, {"loss_rows": "horizon"}, {"layer_decay": 0.5}],
)
@pytest.mark.parametrize("stage", ["tokenizer", "predictor"])
def test_each_of_them_changes_the_weights_in_both_stages(tmp_path, tiny_tokenizer, tiny_predictor, stage, means):
    found = []
    for options in ({}, means):
        tokenizer, predictor = copy.deepcopy(tiny_tokenizer), copy.deepcopy(tiny_predictor)
        if stage == "tokenizer":
            module = tokenizer_module(tokenizer, **options)
        else:
            module = predictor_module(tokenizer, predictor, **options)
        fit(module, tmp_path, max_steps=3, limit_val_batches=0)
        found.append(weights(module.trained))
    assert not same(*found)


# --- dropout ----------------------------------------------------------------------------------------------------------


def dropouts(network):
    found = {m.p for name, m in network.named_modules() if isinstance(m, nn.Dropout) and name.endswith("ffn.dropout")}
    resid = {m.p for name, m in network.named_modules() if name.endswith("resid_dropout")}
    attn = {m.attn_dropout_p for m in network.modules() if hasattr(m, "attn_dropout_p")}
    return found, attn, resid


def test_dropout_of_a_loaded_network_is_overridden_and_its_export_says_so(tmp_path, tiny_predictor, tiny_tokenizer):
    tiny_predictor.save_pretrained(tmp_path / "published")
    loaded = Kronos.from_pretrained(tmp_path / "published")
    override_dropout(loaded, ffn=0.5, token=0.4)
    assert dropouts(loaded) == ({0.5}, {0.1}, {0.3})
    assert loaded.token_drop.p == 0.4
    predictor_module(tiny_tokenizer, loaded)  # sets all to zero
    override_dropout(loaded, ffn=0.5, attn=0.25, resid=0.125, token=0.4)
    loaded.save_pretrained(tmp_path / "tuned")
    again = Kronos.from_pretrained(tmp_path / "tuned")
    assert dropouts(again) == ({0.5}, {0.25}, {0.125})
    assert again.config == TINY_PREDICTOR | {
        "ffn_dropout_p": 0.5, "attn_dropout_p": 0.25, "resid_dropout_p": 0.125, "token_dropout_p": 0.4
    }  # fmt: skip
    assert tiny_predictor.config == TINY_PREDICTOR


def test_a_tokenizer_has_no_token_dropout_and_says_nothing_of_it(tmp_path, tiny_tokenizer):
    before = tiny_tokenizer.config
    override_dropout(tiny_tokenizer, ffn=0.5, token=0.4)
    assert tiny_tokenizer.config == before | {"ffn_dropout_p": 0.5}
    tiny_tokenizer.save_pretrained(tmp_path)
    assert dropouts(KronosTokenizer.from_pretrained(tmp_path)) == ({0.5}, {0.0}, {0.0})


# --- losses -----------------------------------------------------------------------------------------------------------


def silent(module):
    module.log = module.log_dict = lambda *a, **k: None
    return module


def test_smoothed_labels_give_a_share_of_the_target_to_all_tokens_in_training_alone(
    tmp_path, tiny_tokenizer, tiny_predictor
):
    batch = windows().__getitems__(list(range(9)))
    module = silent(predictor_module(tiny_tokenizer, tiny_predictor, label_smoothing=0.2))
    s1, s2 = tiny_tokenizer.encode(batch.x, half=True)
    logits = tiny_predictor(s1[:, :-1], s2[:, :-1], batch.stamp[:, :-1], s1[:, 1:])
    expected = 0.0
    for logit, ids in zip(logits, (s1, s2), strict=True):
        log_p = logit.log_softmax(dim=-1)
        right = log_p.gather(-1, ids[:, 1:, None]).mean()
        expected -= (0.8 * right + 0.2 * log_p.mean()) / 2
    assert module.training_step(batch, 0).item() == pytest.approx(expected.item(), rel=1e-5)

    plain = predictor_module(tiny_tokenizer, tiny_predictor)
    smoothed = predictor_module(tiny_tokenizer, tiny_predictor, label_smoothing=0.2)
    figures = [quiet(tmp_path).validate(m, loader(windows()), verbose=False)[0] for m in (plain, smoothed)]
    assert figures[0] == figures[1]


def test_a_loss_on_the_horizon_counts_the_target_rows_alone(tiny_tokenizer, tiny_predictor):
    batch = windows().__getitems__(list(range(9)))
    changed = batch._replace(x=batch.x.clone())
    changed.x[:, : LOOKBACK - 1] += 0.5

    module = silent(predictor_module(tiny_tokenizer, tiny_predictor, loss_rows="horizon")).eval()
    s1, s2 = tiny_tokenizer.encode(batch.x, half=True)
    s1_logits, s2_logits = tiny_predictor(s1[:, :-1], s2[:, :-1], batch.stamp[:, :-1], s1[:, 1:])
    rows = range(LOOKBACK, LOOKBACK + HORIZON + 1)
    parts = [nn.functional.cross_entropy(logits[:, row - 1], ids[:, row])
             for logits, ids in ((s1_logits, s1), (s2_logits, s2)) for row in rows]  # fmt: skip
    assert module.training_step(batch, 0).item() == pytest.approx(torch.stack(parts).mean().item(), rel=1e-5)

    module = silent(tokenizer_module(tiny_tokenizer, loss_rows="horizon"))
    output = tiny_tokenizer(batch.x)
    errors = [(part - batch.x)[:, LOOKBACK:].square().mean() for part in (output.coarse, output.full)]
    expected = (sum(errors) + output.quantizer_loss) / 2
    assert module.training_step(batch, 0).item() == pytest.approx(expected.item(), rel=1e-5)


# --- freezing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ema", [None, 0.5])
def test_frozen_parameters_stay_bit_for_bit_whatever_else_pulls_at_the_weights(
    tmp_path, tiny_tokenizer, tiny_predictor, ema
):
    freeze(tiny_predictor, ["embedding*", "transformer.[0]*", "*.bias"])
    before = weights(tiny_predictor)
    module = predictor_module(tiny_tokenizer, tiny_predictor, l1=1.0, l2_pretrained=0.5, ema=ema)
    fit(module, tmp_path, max_epochs=2)
    module.save_pretrained(tmp_path / "out", module.eval_network)
    exported = weights(Kronos.from_pretrained(tmp_path / "out"))
    for name, start in before.items():
        frozen = name.startswith(("embedding", "transformer.0")) or name.endswith("bias")
        assert torch.equal(exported[name], start) is frozen, name


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["embedding*", "encoder*"], "'encoder\\*' matches no parameter .* embedding, time_emb, .*transformer, norm"),
        (["*"], "nothing is left to train"),
    ],
)
def test_a_pattern_that_freezes_nothing_or_everything_is_refused(tiny_predictor, patterns, message):
    with pytest.raises(RegularizationError, match=message):
        freeze(tiny_predictor, patterns)


# --- rates ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["tokenizer", "predictor"])
def test_layers_hold_every_parameter_once_and_stand_in_the_order_of_the_pass(tiny_tokenizer, tiny_predictor, stage):
    network = tiny_tokenizer if stage == "tokenizer" else tiny_predictor
    names = {id(p): name for name, p in network.named_parameters()}
    layers = [[names[id(p)] for p in layer] for layer in depths(network)]
    assert sorted(name for layer in layers for name in layer) == sorted(names.values())
    firsts = [layer[0].split(".")[0] for layer in layers]
    if stage == "tokenizer":
        assert firsts == ["embed", "encoder", "quant_embed", "post_quant_embed_pre", "decoder", "head"]
    else:
        assert firsts == ["embedding", "transformer", "transformer", "norm"]


@pytest.mark.parametrize("stage", ["tokenizer", "predictor"])
def test_each_layer_keeps_its_share_of_the_rate_all_along_the_schedule(tiny_tokenizer, tiny_predictor, stage):
    network = tiny_tokenizer if stage == "tokenizer" else tiny_predictor
    asked = recipe(stage, layer_decay=0.5)
    optimizer = build_optimizer(network, asked.stage, asked.regularization.layer_decay)
    schedule = build_schedule(optimizer, asked.stage, 50)
    layers, peak = depths(network), 0.0
    for _ in range(49):
        rates = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
        head = optimizer.param_groups[0]["lr"]
        for below, layer in enumerate(reversed(layers)):
            assert all(rates[id(p)] == pytest.approx(head * 0.5**below, rel=1e-6) for p in layer)
        peak = max(peak, head)
        optimizer.step()
        schedule.step()
    assert peak == pytest.approx(RATES["learning_rate"], rel=0.01)
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert all(decay[id(p)] == (0.1 if p.dim() >= 2 else 0.0) for p in network.parameters())


def test_the_volatility_of_windows_is_that_of_their_closes():
    data = windows()
    batch = data.__getitems__([0, 30, 60])
    close = frame_with_gap(120, 120)["close"].to_numpy()
    found = [np.diff(np.log(close[i : i + LOOKBACK + HORIZON + 1])).std() for i in (0, 30, 60)]
    assert batch.x.abs().max() < 5
    assert window_volatility(batch, LEVELS, 5.0).item() == pytest.approx(np.mean(found), rel=1e-3)


class Watch(Callback):
    """Rates that the optimiser steps with, and those it has between the steps."""

    def __init__(self):
        self.used, self.between, self.logged = [], [], []

    def on_train_start(self, trainer, pl_module):
        optimizer = trainer.optimizers[0]
        optimizer.register_step_post_hook(lambda o, *_: self.used.append(o.param_groups[0]["lr"]))

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.between.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.logged.append({k: v.item() for k, v in trainer.callback_metrics.items() if k.startswith("train/")})


@pytest.mark.parametrize("accumulate", [1, 2])
def test_volatile_windows_lower_the_rate_of_their_step_alone(tmp_path, tiny_tokenizer, accumulate):
    batches = list(loader(windows(), 10))[:6]
    seen = [window_volatility(batch, LEVELS, 5.0).item() for batch in batches]
    watch, plain = Watch(), Watch()
    for watched, options in ((watch, {"volatility": "batch", "volatility_base": 0.004}), (plain, {})):
        module = tokenizer_module(copy.deepcopy(tiny_tokenizer), **options)
        fit(module, tmp_path, batch_size=10, max_epochs=1, limit_train_batches=6, callbacks=[watched],
            accumulate_grad_batches=accumulate, limit_val_batches=0)  # fmt: skip
    volatility = np.array(seen).reshape(-1, accumulate).mean(axis=1)
    assert watch.between == plain.between  # the schedule does not notice
    np.testing.assert_allclose(watch.used, np.array(plain.used) / (1 + volatility / 0.004), rtol=1e-5)
    assert watch.logged[-1]["train/volatility"] == pytest.approx(volatility[-1], rel=1e-5)
    assert watch.logged[-1]["train/rate_factor"] == pytest.approx(1 / (1 + volatility[-1] / 0.004), rel=1e-5)
    assert 0.05 < watch.logged[-1]["train/rate_factor"] < 0.95


@pytest.mark.parametrize(("volatility", "base", "factor"), [(0.02, 0.02, 0.5), (0.03, 0.01, 0.25), (0.0, 0.02, 1.0)])
def test_a_given_volatility_lowers_every_rate_alike(tiny_tokenizer, volatility, base, factor):
    options = {"volatility": "market", "market_volatility": volatility, "volatility_base": base}
    module, logged = tokenizer_module(tiny_tokenizer, layer_decay=0.5, **options), {}
    module.log_dict = logged.update
    optimizer = build_optimizer(tiny_tokenizer, module.recipe.stage, layer_decay=0.5)
    planned = [group["lr"] for group in optimizer.param_groups]
    assert len(set(planned)) > 2
    module.on_before_optimizer_step(optimizer)
    assert [group["lr"] for group in optimizer.param_groups] == [rate * factor for rate in planned]
    assert logged == {"train/volatility": volatility, "train/rate_factor": factor}


class Recorder(Regulariser):
    """Notes where it is asked, and doubles the loss."""

    def __init__(self):
        self.asked = []

    def on_loss(self, loss, network):
        self.asked.append("loss")
        return 2 * loss

    def on_gradient(self, network, optimizer):
        self.asked.append("gradient")
        self.gradient = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}

    def on_weights(self, network, optimizer):
        self.asked.append("weights")


def test_a_regulariser_is_asked_for_loss_gradient_and_weights_of_each_step(tiny_tokenizer, tmp_path):
    doubling, watching = Recorder(), Recorder()
    watching.on_loss = lambda loss, network: loss
    gradients = []
    for regulariser in (doubling, watching):
        network = copy.deepcopy(tiny_tokenizer)
        module = tokenizer_module(network, regularisers=[regulariser])
        fit(module, tmp_path, max_steps=1)
        gradients.append(regulariser.gradient)
    assert doubling.asked == ["loss", "gradient", "weights"]
    for name, gradient in gradients[1].items():
        torch.testing.assert_close(gradients[0][name], 2 * gradient)
