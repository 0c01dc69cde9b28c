"""The model computes what the published one computes."""

import json

import pytest
import torch

from kronos_lightning import Kronos, KronosTokenizer
from kronos_lightning.model import token_losses
from tests.helpers.levels import normalise
from tests.helpers.paths import GOLDEN


def assert_close(actual, expected, tolerance=1e-5):
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=0)


def predictor_losses(predictor, golden):
    s1, s2, stamp = golden["s1_ids"], golden["s2_ids"], golden["stamp"]
    logits = predictor(s1[:, :-1], s2[:, :-1], stamp[:, :-1], s1[:, 1:])
    return logits, [loss.mean() for loss in token_losses(*logits, s1[:, 1:], s2[:, 1:])]


def test_tokenizer_reconstructs_as_the_reference(golden, golden_tokenizer):
    output = golden_tokenizer(golden["x"])
    assert_close(output.coarse, golden["tok_recon_s1"])
    assert_close(output.full, golden["tok_recon"])
    assert_close(output.code, golden["tok_quantized"])


def test_tokenizer_losses_are_the_references(golden, golden_tokenizer):
    x = golden["x"]
    output = golden_tokenizer(x)
    assert output.quantizer_loss.item() == pytest.approx(golden["tok_bsq_loss"].item(), abs=1e-5)
    assert output.loss(x).item() == pytest.approx(golden["tok_loss"].item(), abs=1e-5)
    assert (output.full - x).square().mean().item() == pytest.approx(golden["tok_recon_loss"].item(), abs=1e-5)


def test_token_ids_are_exactly_the_references(golden, golden_tokenizer):
    s1_ids, s2_ids = golden_tokenizer.encode(golden["x"], half=True)
    assert torch.equal(s1_ids, golden["s1_ids"])
    assert torch.equal(s2_ids, golden["s2_ids"])
    assert torch.equal(golden_tokenizer.encode(golden["x"]), golden["full_ids"])


def test_decoded_candles_are_the_references(golden, golden_tokenizer):
    assert_close(golden_tokenizer.decode((golden["s1_ids"], golden["s2_ids"]), half=True), golden["decoded"])
    assert_close(golden_tokenizer.decode(golden["full_ids"]), golden["decoded_full"])


def test_predictor_logits_and_losses_are_the_references(golden, golden_predictor):
    (s1_logits, s2_logits), (ce_s1, ce_s2) = predictor_losses(golden_predictor, golden)
    assert_close(s1_logits, golden["s1_logits"])
    assert_close(s2_logits, golden["s2_logits_causal"])
    for ours, name in ((ce_s1, "ce_s1"), (ce_s2, "ce_s2"), ((ce_s1 + ce_s2) / 2, "ce")):
        assert ours.item() == pytest.approx(golden[name].item(), abs=1e-5)


def test_one_decoding_step_is_the_references(golden, golden_predictor):
    s1, s2, stamp = (golden[name][:, :48] for name in ("s1_ids", "s2_ids", "stamp"))
    s1_logits, context = golden_predictor.decode_s1(s1, s2, stamp)
    assert_close(s1_logits[:, -1], golden["step_s1_logits"])
    assert_close(context, golden["step_context"])
    assert torch.equal(s1_logits[:, -1:].argmax(-1), golden["step_s1"])
    assert_close(golden_predictor.decode_s2(context, golden["step_s1"])[:, -1], golden["step_s2_logits"])


@pytest.mark.parametrize("part", ["tokenizer", "predictor"])
def test_every_gradient_norm_is_the_references(part, golden, golden_tokenizer, golden_predictor):
    expected = json.loads((GOLDEN / "grad_norms.json").read_text())[f"{part}_grad_norms"]
    if part == "tokenizer":
        network = golden_tokenizer
        network(golden["x"]).loss(golden["x"]).backward()
    else:
        network = golden_predictor
        _, (ce_s1, ce_s2) = predictor_losses(network, golden)
        ((ce_s1 + ce_s2) / 2).backward()
    norms = {name: p.grad.norm().item() for name, p in network.named_parameters() if p.grad is not None}
    assert norms == pytest.approx(expected, rel=1e-4, abs=1e-9)


def test_normalisation_uses_the_lookback_rows_alone(golden):
    x, _, _ = normalise(golden["raw"], 48, 5.0)
    assert_close(x, golden["x"], 1e-4)  # amounts of 1e8 in float32 leave no more


PUBLISHED = json.loads((GOLDEN / "published_models.json").read_text())


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configuration_has_the_published_keys_shapes_and_count(name):
    expected = PUBLISHED[name]
    cls = KronosTokenizer if "Tokenizer" in name else Kronos
    with torch.device("meta"):
        network = cls(**expected["config"])
    found = {key: [list(t.shape), str(t.dtype).removeprefix("torch.")] for key, t in network.state_dict().items()}
    assert found == expected["state_dict"]
    assert sum(p.numel() for p in network.parameters()) == expected["parameters"]
