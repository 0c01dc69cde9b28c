"""Properties of the networks that golden numbers do not show."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kronos_lightning import Kronos, KronosTokenizer
from kronos_lightning.model.quantizer import BinarySphericalQuantizer, bits_to_index, index_to_bits
from tests.helpers.networks import TINY_PREDICTOR, TINY_TOKENIZER


def tokens(rows=2, length=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    s1, s2 = (torch.randint(0, 2**bits, (rows, length), generator=generator) for bits in (4, 3))
    limits = torch.tensor([60, 24, 7, 32, 13])
    stamp = (torch.rand(rows, length, 5, generator=generator) * limits).long()
    return s1, s2, stamp


@pytest.mark.parametrize("training", [False, True])
def test_when_later_tokens_change_then_earlier_logits_do_not(tiny_predictor, training):
    predictor = Kronos(**TINY_PREDICTOR | {k: 0.0 for k in TINY_PREDICTOR if k.endswith("dropout_p")}).train(training)
    s1, s2, stamp = tokens()
    before = predictor(s1, s2, stamp, s1.roll(-1, 1))
    changed = [part.clone() for part in (s1, s2, stamp)]
    for part in changed:
        part[:, 7:] = part[:, 7:].flip(0)
    after = predictor(*changed, torch.cat([s1.roll(-1, 1)[:, :7], changed[0][:, 7:]], dim=1))
    for a, b in zip(before, after, strict=True):
        assert torch.equal(a[:, :7], b[:, :7])
        assert not torch.equal(a[:, 7:], b[:, 7:])


def test_when_later_candles_change_then_earlier_tokens_and_reconstructions_do_not(tiny_tokenizer):
    x = torch.randn(2, 12, 6, generator=torch.Generator().manual_seed(0))
    changed = x.clone()
    changed[:, 7:] += 1
    for a, b in zip(tiny_tokenizer.encode(x, half=True), tiny_tokenizer.encode(changed, half=True), strict=True):
        assert torch.equal(a[:, :7], b[:, :7])
    assert torch.equal(tiny_tokenizer(x).full[:, :7], tiny_tokenizer(changed).full[:, :7])


def test_fine_logits_depend_on_the_coarse_token_of_the_same_step(tiny_predictor):
    s1, s2, stamp = tokens()
    tiny_predictor.eval()
    _, given_a = tiny_predictor(s1, s2, stamp, s1)
    _, given_b = tiny_predictor(s1, s2, stamp, (s1 + 1) % 16)
    assert not torch.allclose(given_a, given_b)


def test_without_a_target_the_coarse_token_is_sampled(tiny_predictor):
    s1, s2, stamp = tokens()
    tiny_predictor.eval()
    torch.manual_seed(0)
    _, first = tiny_predictor(s1, s2, stamp)
    torch.manual_seed(1)
    _, second = tiny_predictor(s1, s2, stamp)
    assert not torch.equal(first, second)


@given(st.lists(st.booleans(), min_size=1, max_size=20))
def test_bits_survive_the_way_to_an_index_and_back(bits):
    bits = torch.tensor([bits])
    assert torch.equal(index_to_bits(bits_to_index(bits), bits.size(1)), bits)


def test_first_bit_has_weight_one():
    assert bits_to_index(torch.tensor([True, False, False])).item() == 1
    assert bits_to_index(torch.tensor([False, False, True])).item() == 4


def test_half_and_whole_ids_decode_to_the_same_candles_when_the_codes_differ_in_length(tiny_tokenizer):
    x = torch.randn(2, 9, 6, generator=torch.Generator().manual_seed(0))
    assert tiny_tokenizer.s1_bits != tiny_tokenizer.s2_bits
    halves, whole = tiny_tokenizer.encode(x, half=True), tiny_tokenizer.encode(x)
    assert torch.equal(halves[0] + halves[1] * 2**tiny_tokenizer.s1_bits, whole)
    assert torch.equal(tiny_tokenizer.decode(halves, half=True), tiny_tokenizer.decode(whole))
    torch.testing.assert_close(tiny_tokenizer.decode(halves, half=True), tiny_tokenizer(x).full)


def test_a_forward_under_inference_mode_does_not_break_the_next_training_step(tiny_predictor):
    s1, s2, stamp = tokens()
    with torch.inference_mode():
        tiny_predictor(s1, s2, stamp, s1)
    tiny_predictor(s1, s2, stamp, s1)[1].sum().backward()
    assert tiny_predictor.head.proj_s2.weight.grad is not None


def test_a_half_precision_copy_keeps_exact_rotary_angles(tiny_predictor):
    s1, s2, stamp = tokens(length=40)
    tiny_predictor.eval()
    rounded = copy.deepcopy(tiny_predictor).bfloat16()
    assert rounded.transformer[0].self_attn.rotary.inv_freq.dtype == torch.bfloat16  # what the reference computes with
    reference = copy.deepcopy(rounded).float()  # the same rounded weights, exact arithmetic
    (ours, _), (exact, _) = rounded(s1, s2, stamp, s1), reference(s1, s2, stamp, s1)
    assert (ours.float() - exact).abs().max() < 0.05 * exact.abs().max()


def test_fixed_time_embeddings_are_sinusoidal_and_not_trained():
    network = Kronos(**TINY_PREDICTOR | {"learn_te": False})
    table = network.time_emb.hour_embed.emb.weight
    assert not table.requires_grad
    assert torch.equal(table[0], torch.tensor([0.0, 1.0] * 8))
    assert table[3, 0].item() == pytest.approx(torch.tensor(3.0).sin().item())


def test_straight_through_gradient_reaches_the_encoder(tiny_tokenizer):
    x = torch.randn(2, 9, 6)
    (tiny_tokenizer(x).full - x).square().mean().backward()
    assert tiny_tokenizer.embed.weight.grad.abs().sum() > 0


def test_group_size_must_divide_the_bits():
    with pytest.raises(ValueError, match="group_size 4 does not divide"):
        KronosTokenizer(**TINY_TOKENIZER | {"group_size": 4})


def test_the_quantisers_loss_and_gradient_of_half_precision_are_those_of_float32():
    """Codebook entropy hangs on how far mean probabilities are from 0.5, which bfloat16 tells to 1/512 only."""
    quantizer = BinarySphericalQuantizer(8, beta=0.0, gamma0=0.0, gamma=1.0, zeta=1.0, group_size=4)
    z = (torch.randn(50, 100, 8, generator=torch.Generator().manual_seed(0)) + 0.05).bfloat16()
    found = []
    for given_z in (z, z.float()):
        given_z = given_z.clone().requires_grad_()
        code, loss = quantizer(given_z)
        loss.backward()
        assert code.dtype == given_z.dtype
        found.append((loss.detach(), given_z.grad.float()))
    (loss, gradient), (exact_loss, exact) = found
    torch.testing.assert_close(loss, exact_loss, rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient, exact, rtol=0.01, atol=1e-9)
