"""Low-rank adapters: what trains, and that what is exported is what was trained."""

import copy

import pytest
import torch

from kronos_lightning import Kronos, KronosTokenizer
from kronos_lightning.forecast import Forecaster
from kronos_lightning.training.lora import add_adapters, merged
from kronos_lightning.training.regularization import RegularizationError
from tests.helpers.networks import TINY_PREDICTOR
from tests.helpers.training import fit, predictor_module, same, tokenizer_module, weights, windows

SETTINGS = {"rank": 2, "alpha": 8.0, "modules": ["*.q_proj", "*.v_proj"]}


def adapted(network, **changes):
    add_adapters(network, **SETTINGS | changes)
    return network


def test_adapters_begin_as_nothing_and_alone_are_trained(tiny_predictor):
    before, total = copy.deepcopy(tiny_predictor), sum(p.numel() for p in tiny_predictor.parameters())
    adapted(tiny_predictor)
    trained = {name for name, p in tiny_predictor.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * 2 * 3  # up and down, of q and v, in two blocks and the dependency layer
    assert sum(p.numel() for name, p in tiny_predictor.named_parameters() if name in trained) == 6 * 2 * (16 + 16)
    assert sum(p.numel() for p in tiny_predictor.parameters()) == total + 6 * 2 * (16 + 16)
    assert same(weights(merged(tiny_predictor)), weights(before))


def test_a_merged_matrix_is_the_old_one_and_alpha_over_rank_times_the_product(tiny_tokenizer):
    before = tiny_tokenizer.encoder[0].self_attn.q_proj.weight.detach().clone()
    adapted(tiny_tokenizer)
    adapter = tiny_tokenizer.encoder[0].self_attn.q_proj.parametrizations.weight[0]
    with torch.no_grad():
        adapter.up.normal_()
    expected = before + 8.0 / 2 * adapter.up @ adapter.down
    plain = merged(tiny_tokenizer)
    torch.testing.assert_close(plain.encoder[0].self_attn.q_proj.weight, expected)
    x = torch.randn(2, 9, 6)
    assert torch.equal(plain(x).full, tiny_tokenizer.eval()(x).full)
    assert not torch.equal(before, plain.encoder[0].self_attn.q_proj.weight)


@pytest.mark.parametrize("ema", [None, 0.5])
def test_an_export_is_a_plain_model_that_forecasts_as_the_adapted_one(tmp_path, tiny_tokenizer, tiny_predictor, ema):
    before, names = weights(tiny_predictor), list(tiny_predictor.state_dict())
    module = predictor_module(tiny_tokenizer, adapted(tiny_predictor), ema=ema, l1=0.01, layer_decay=0.9)
    fit(module, tmp_path, max_epochs=2)
    module.save_pretrained(tmp_path / "out", module.eval_network)
    exported = Kronos.from_pretrained(tmp_path / "out")
    assert list(exported.state_dict()) == names
    assert exported.config.keys() == TINY_PREDICTOR.keys()
    for name, start in before.items():
        touched = name.endswith(("q_proj.weight", "v_proj.weight"))
        assert torch.equal(weights(exported)[name], start) is not touched, name

    batch = windows().__getitems__([0, 50])
    given = batch.x[:, :12], batch.stamp[:, :12], batch.stamp[:, 12:]
    both = [
        Forecaster(tiny_tokenizer, net, max_context=64).sample_normalised(*given, 4, torch.Generator().manual_seed(0))
        for net in (exported, module.eval_network.eval())
    ]
    assert torch.equal(*both)
    assert torch.equal(module.eval().validation_paths(batch, module.eval_network)[:, :, :3], Forecaster(
        tiny_tokenizer, exported, max_context=64).sample_normalised(
            batch.x[:, :12], batch.stamp[:, :12], batch.stamp[:, 12:15], 3, torch.Generator().manual_seed(0)
        ))  # fmt: skip


def test_exporting_takes_no_random_number_and_leaves_the_adapters(tmp_path, tiny_tokenizer):
    module = tokenizer_module(adapted(tiny_tokenizer))
    before, state = weights(tiny_tokenizer), torch.get_rng_state()
    module.save_pretrained(tmp_path, module.eval_network)
    assert torch.equal(torch.get_rng_state(), state)
    assert same(weights(tiny_tokenizer), before)
    KronosTokenizer.from_pretrained(tmp_path)


def test_adapters_are_in_the_checkpoint(tmp_path, tiny_tokenizer):
    module = tokenizer_module(adapted(copy.deepcopy(tiny_tokenizer)))
    trainer = fit(module, tmp_path, max_epochs=1)
    trainer.save_checkpoint(tmp_path / "some.ckpt")
    other = tokenizer_module(adapted(tiny_tokenizer))
    other.load_state_dict(torch.load(tmp_path / "some.ckpt", weights_only=True)["state_dict"])
    assert same(weights(other), weights(module))
    assert any(p.abs().max() > 0 for name, p in other.named_parameters() if name.endswith("up"))


def test_a_pattern_without_a_linear_layer_is_refused_and_says_what_there_is(tiny_predictor):
    with pytest.raises(RegularizationError, match=r"'\*.w9' matches no linear layer.*transformer.0.self_attn.q_proj"):
        adapted(tiny_predictor, modules=["*.q_proj", "*.w9"])
