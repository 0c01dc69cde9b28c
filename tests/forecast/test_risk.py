"""Value at risk, expected shortfall and drawdown of sample paths."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from kronos_lightning.forecast import drawdowns, tail_risk


def closes(values):
    """Paths ``(N, S, h, 6)`` whose candles are flat at closes ``(N, S, h)``."""
    return np.repeat(np.asarray(values, float)[..., None], 6, axis=-1)


@pytest.mark.parametrize("level", [0.01, 0.05])
def test_the_tail_of_normal_returns_is_that_of_the_formulas(level):
    returns = 0.02 * stats.norm.ppf((np.arange(20_000) + 0.5) / 20_000)
    found = tail_risk(closes(100 * (1 + returns))[None, :, None], np.array([100.0]), level)
    assert found.value_at_risk[0, 0] == pytest.approx(-0.02 * stats.norm.ppf(level), rel=1e-3)
    assert found.expected_shortfall[0, 0] == pytest.approx(
        0.02 * stats.norm.pdf(stats.norm.ppf(level)) / level, rel=0.01
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.sampled_from([0.01, 0.05, 0.3]))
def test_the_shortfall_is_no_smaller_than_the_value_at_risk_and_both_grow_with_rarity(seed, paths, level):
    sample = closes(100 * np.exp(np.random.default_rng(seed).normal(0, 0.1, (2, paths, 3))))
    last = np.array([100.0, 90.0])
    found, rarer = tail_risk(sample, last, level), tail_risk(sample, last, level / 2)
    assert (found.expected_shortfall >= found.value_at_risk - 1e-12).all()
    assert (rarer.value_at_risk >= found.value_at_risk - 1e-12).all()
    assert (rarer.expected_shortfall >= found.expected_shortfall - 1e-12).all()


@pytest.mark.parametrize(
    ("path", "expected"), [([110, 99, 120], 0.1), ([90, 95, 81], 0.19), ([101, 102, 103], 0.0), ([50, 100, 100], 0.5)]
)
def test_the_drawdown_is_the_largest_fall_from_the_highest_close_so_far(path, expected):
    assert drawdowns(closes([[path]]), np.array([100.0]))[0, 0] == pytest.approx(expected)


def test_a_level_that_is_no_probability_is_refused():
    with pytest.raises(ValueError, match="must be between 0 and 1"):
        tail_risk(closes([[[1.0]]]), np.ones(1), 1.0)
