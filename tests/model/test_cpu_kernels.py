"""What is done by hand on the CPU is what torch does."""

import pytest
import torch
import torch.nn.functional as F

from kronos_lightning import KronosTokenizer
from kronos_lightning.model import layers
from kronos_lightning.model.cpu_kernels import RootMeanSquareNorm, Rotation, attention_in_training, dropout
from kronos_lightning.model.layers import Dropout, RMSNorm, rotary_table, rotate, run_blocks
from tests.helpers.networks import TINY_TOKENIZER


def draws(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_the_norm_and_its_gradients_are_torchs():
    x, gain = draws(2, 5, 8).requires_grad_(), draws(8, seed=1).requires_grad_()
    torch.testing.assert_close(RootMeanSquareNorm.apply(x, gain, 1e-5), F.rms_norm(x, (8,), gain, 1e-5))
    assert torch.autograd.gradcheck(lambda *a: RootMeanSquareNorm.apply(*a, 1e-5), (x, gain))


def test_the_norm_of_half_precision_is_computed_in_float32():
    norm, x = RMSNorm(16), draws(3, 16, dtype=torch.float32) * 300
    exact = norm(x.bfloat16().float())
    torch.testing.assert_close(norm(x.bfloat16()).float(), exact, rtol=1e-2, atol=1e-3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert norm(x).dtype == torch.bfloat16


def test_the_rotation_and_its_gradient_are_right():
    cos, sin = rotary_table(5, 8, torch.device("cpu")).double().squeeze(2)
    x = draws(2, 3, 5, 8).requires_grad_()
    first, second = x.chunk(2, dim=-1)
    expected = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    torch.testing.assert_close(Rotation.apply(x, cos, sin), expected)
    assert torch.autograd.gradcheck(lambda x: Rotation.apply(x, cos, sin), (x,))
    swapped = draws(2, 5, 3, 8, dtype=torch.float32).transpose(1, 2)  # as attention has it, not contiguous
    table = rotary_table(5, 8, torch.device("cpu"))
    assert torch.equal(rotate(swapped, table), rotate(swapped.contiguous(), table))


def test_the_rotation_for_other_devices_and_compilers_is_the_same(monkeypatch):
    table, x = rotary_table(11, 6, torch.device("cpu")), torch.randn(2, 3, 11, 6)
    own = rotate(x, table)
    monkeypatch.setattr(layers, "use_cpu_kernels", lambda x: False)
    assert torch.allclose(rotate(x, table), own, atol=1e-6)
    assert rotate(x.bfloat16(), table).dtype == torch.bfloat16


@pytest.mark.parametrize("p", [0.1, 0.25, 0.5])
def test_dropout_leaves_out_the_share_asked_for_and_scales_the_rest(p):
    torch.manual_seed(0)
    n = 400_000
    x = draws(n, dtype=torch.float32).requires_grad_()
    y = dropout(x, p)
    kept = y != 0
    assert kept.double().mean().item() == pytest.approx(1 - p, abs=5 * (p * (1 - p) / n) ** 0.5)
    torch.testing.assert_close(y[kept], x[kept] / (1 - p), rtol=1e-4, atol=0)
    y.sum().backward()
    assert torch.equal(x.grad != 0, kept)
    for lag in (1, 2, 3, 4, 100):  # neighbours share a random number, and are independent all the same
        both = (kept[lag:] & kept[:-lag]).double().mean().item()
        assert both == pytest.approx((1 - p) ** 2, abs=5 / n**0.5)
    assert not torch.equal(dropout(x, p) != 0, kept)
    torch.manual_seed(0)
    assert torch.equal(dropout(x, p), y)


def test_dropout_of_nothing_and_of_all_and_in_eval_mode():
    x = draws(7, 3, dtype=torch.float32)
    assert dropout(x, 0.0) is x
    assert not dropout(x, 1.0).any()
    assert Dropout(0.5).eval()(x) is x
    assert dropout(x.bfloat16(), 0.5).dtype == torch.bfloat16


@pytest.mark.parametrize("causal", [True, False])
def test_attention_whose_dropout_leaves_nothing_out_is_torchs(causal):
    q, k, v = (draws(2, 3, 9, 8, seed=seed, dtype=torch.float32) for seed in range(3))
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    torch.testing.assert_close(attention_in_training(q, k, v, 0.0, causal), expected)


@pytest.mark.parametrize("p", [0.0, 0.4])
@pytest.mark.parametrize("causal", [True, False])
def test_the_gradients_of_attention_are_right(p, causal):
    def attend(*parts):
        torch.manual_seed(0)  # the same is left out each time
        return attention_in_training(*parts, p, causal)

    assert torch.autograd.gradcheck(attend, [draws(2, 2, 5, 4, seed=seed).requires_grad_() for seed in range(3)])


def test_attention_of_half_precision_is_near_that_of_float32():
    q, k, v = (draws(2, 3, 9, 8, seed=seed, dtype=torch.float32) for seed in range(3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = attention_in_training(q.bfloat16(), k.bfloat16(), v.bfloat16(), 0.0, True)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), F.scaled_dot_product_attention(q, k, v, is_causal=True), atol=0.03, rtol=0)


def test_attention_with_dropout_is_right_on_average():
    torch.manual_seed(0)
    q, k, v = (draws(1, 2, 6, 4, seed=seed, dtype=torch.float32) for seed in range(3))
    wide = [part.expand(20_000, -1, -1, -1) for part in (q, k, v)]
    mean = attention_in_training(*wide, 0.3, True).mean(dim=0)
    torch.testing.assert_close(mean, F.scaled_dot_product_attention(q, k, v, is_causal=True)[0], atol=0.03, rtol=0)


def test_both_decodings_in_one_batch_are_those_apart():
    torch.manual_seed(0)
    tokenizer, x = KronosTokenizer(**TINY_TOKENIZER).eval(), draws(3, 12, 6, dtype=torch.float32)
    output = tokenizer(x)
    code = output.code[..., : tokenizer.s1_bits], output.code
    layers = tokenizer.post_quant_embed_pre, tokenizer.post_quant_embed
    for got, layer, part in zip((output.coarse, output.full), layers, code, strict=True):
        apart = tokenizer.head(run_blocks(tokenizer.decoder, layer(part)))
        torch.testing.assert_close(got, apart, atol=1e-6, rtol=0)
    assert not torch.allclose(output.coarse, output.full)
