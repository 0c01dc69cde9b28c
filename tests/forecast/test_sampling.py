"""Drawing tokens."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kronos_lightning.forecast import Sampling
from kronos_lightning.forecast.sampling import draw, draw_uniforms, token_probabilities


@pytest.mark.parametrize(
    ("name", "sampling"),
    [
        ("filter_k0_p0.9", Sampling(temperature=0.6, top_k=0, top_p=0.9)),
        ("filter_k4_p1.0", Sampling(temperature=0.6, top_k=4, top_p=1.0)),
        ("filter_k0_p0.5", Sampling(temperature=0.6, top_k=0, top_p=0.5)),
    ],
)
def test_filtered_probabilities_are_the_references(name, sampling, golden):
    torch.testing.assert_close(token_probabilities(golden["filter_logits"], sampling), golden[name])


FILTERS = st.integers(0, 12), st.floats(0.01, 1)  # top_k, top_p
LOGITS = st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=10)


@settings(deadline=None)
@given(st.floats(0, 3), *FILTERS, LOGITS)
def test_top_k_and_top_p_compose_to_a_distribution(temperature, top_k, top_p, logits):
    logits = torch.tensor([logits])
    p = token_probabilities(logits, Sampling(temperature=temperature, top_k=top_k, top_p=top_p))
    assert p.sum().item() == pytest.approx(1, abs=1e-4)
    assert logits[p > 0].max() >= logits.max() - 1e-4  # a likeliest token stays
    kept = token_probabilities(logits, Sampling(temperature=temperature, top_k=top_k))
    assert ((p > 0) <= (kept > 0)).all()
    scaled = (logits[0] - logits.max()) / (temperature or 1.0)  # float32 may no longer tell 0 from 1e-38
    if top_k > 0 and len(set(scaled.tolist())) == logits.size(1):
        assert (p > 0).sum() <= top_k


@settings(deadline=None)
@given(st.floats(0.1, 3), *FILTERS, LOGITS, st.integers(0, 2**32))
def test_a_token_without_probability_is_never_drawn(temperature, top_k, top_p, logits, seed):
    logits, sampling = torch.tensor([logits]), Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    uniforms = draw_uniforms(torch.Generator().manual_seed(seed), 1, 20, 1)[:, :, 0, 0]
    uniforms[0, 0], uniforms[0, 1] = 0, uniforms.new_tensor(1 - 2**-22)  # both ends
    assert (token_probabilities(logits, sampling)[0, draw(logits, sampling, uniforms)[0]] > 0).all()


def test_sampled_tokens_follow_the_probabilities():
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0]])
    drawn = draw(logits, Sampling(), draw_uniforms(torch.Generator().manual_seed(0), 1, 20_000, 1)[:, :, 0, 0])
    frequency = torch.bincount(drawn[0], minlength=4) / 20_000
    torch.testing.assert_close(frequency, logits.softmax(-1)[0], atol=0.015, rtol=0)


@pytest.mark.parametrize(
    "sampling", [Sampling(temperature=0.0), Sampling(top_k=1), Sampling(temperature=1e-9, top_k=5, top_p=0.5)]
)
def test_zero_temperature_and_top_k_1_are_greedy(sampling):
    logits = torch.tensor([[0.0, 3.0, 2.999, -1.0]])
    assert draw(logits, sampling, torch.rand(1, 50)).unique().tolist() == [1]


@pytest.mark.parametrize(
    ("bad", "bound"),
    [
        ({"temperature": -1.0}, "greater than or equal to 0"),
        ({"top_k": -1}, "greater than or equal to 0"),
        ({"top_p": 0.0}, "greater than 0"),
        ({"top_p": 1.1}, "less than or equal to 1"),
    ],
)
def test_impossible_sampling_is_refused(bad, bound):
    (name,) = bad
    with pytest.raises(ValueError, match=rf"{name}\s+Input should be {bound}"):
        Sampling(**bad)


def test_numbers_stay_below_one_and_do_not_depend_on_how_series_are_grouped():
    together = draw_uniforms(torch.Generator().manual_seed(3), 5, 4, 3)
    generator = torch.Generator().manual_seed(3)
    apart = torch.cat([draw_uniforms(generator, n, 4, 3) for n in (2, 1, 2)])
    assert torch.equal(together, apart)
    assert together.shape == (5, 4, 3, 2)
    assert 0 <= together.min() < together.max() < 1
    with pytest.raises(ValueError, match="2 generators for 5 series"):
        draw_uniforms([torch.Generator(), torch.Generator()], 5, 1, 1)
