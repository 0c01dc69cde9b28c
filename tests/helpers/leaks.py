"""Candles to examine for leaks, planted leaks with their honest twins, and what the proof says of them."""

import numpy as np
import pytest

from kronos_lightning.data.sources.synthetic import synthetic_candles
from kronos_lightning.evaluation.baselines import LastPrice
from kronos_lightning.evaluation.leakcheck import prove
from kronos_lightning.model import layers
from tests.helpers.forecasts import forecasts_on

LOOKBACK, HORIZON = 24, 4
CUTOFFS = [300, 301, 450]
DENSE = np.arange(300, 330)  # neighbouring cutoffs
CANDLES = synthetic_candles(600, "1h", "2023-01-01", seed=3, start_price=100.0, volatility=0.8)


def verdict(subject, cutoffs=CUTOFFS):
    (finding,) = prove([subject], CANDLES, cutoffs, seed=1)
    return finding.verdict


def planted(honest, leaking):
    """Parameters of a test that runs an honest function and its leaking twin."""
    twins = [pytest.param(honest, "proved", id="honest"), pytest.param(leaking, "leak", id="leak")]
    return pytest.mark.parametrize(("function", "expected"), twins)


def feature(of_close):
    """A column made from the whole close, looked up at the row."""
    return lambda candles, row: {"feature": of_close(candles.frame["close"]).to_numpy()[row : row + 1]}


class Unmasked(layers.Attention):
    """Attention to all positions, later ones too."""

    def forward(self, query, memory, rotary, causal):
        return super().forward(query, memory, rotary, causal=False)


def rolling(candles):
    """Forecasts of a baseline from neighbouring cutoffs."""
    return forecasts_on(candles, DENSE, LastPrice(count=20, seed=1).sample_paths(candles, DENSE, HORIZON, 9))
