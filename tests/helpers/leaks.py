"""Candles to examine for leaks, and leaks planted into the real evaluation or into a single computation."""

import json
import pkgutil
from functools import cache

import numpy as np
import pytest
import torch

from kronos_lightning import Kronos, KronosTokenizer
from kronos_lightning.data.sources.synthetic import synthetic_candles
from kronos_lightning.evaluation.leakcheck import prove
from kronos_lightning.model import layers
from kronos_lightning.pipeline.leakcheck import certify
from tests.helpers.commands import QUICK_EVALUATE
from tests.helpers.configuration import composed
from tests.helpers.networks import TINY_PREDICTOR, TINY_TOKENIZER

LOOKBACK, HORIZON = 24, 4
CUTOFFS = [300, 301, 450]
CANDLES = synthetic_candles(600, "1h", "2023-01-01", seed=3, start_price=100.0, volatility=0.8)
CHEAP = ["evaluation.baselines=[drift]", "calibration.temperatures=[1.0]", "evaluation.cutoffs_per_batch=64"]


def verdict(subject, cutoffs=CUTOFFS):
    (finding,) = prove([subject], CANDLES, cutoffs, seed=1)
    return finding.verdict


def planted(honest, leaking):
    """Parameters of a test that runs an honest function and its leaking twin."""
    twins = [pytest.param(honest, "proved", id="honest"), pytest.param(leaking, "leak", id="leak")]
    return pytest.mark.parametrize(("function", "expected"), twins)


def plant(monkeypatch, target, leak):
    """Replace the function at a dotted path by what ``leak(real)`` returns."""
    monkeypatch.setattr(target, leak(pkgutil.resolve_name(target)))


def checkpoints(folder, representation=None, **ranges):
    """Tiny networks in `folder`/t and `folder`/p, with records of their training; and the arguments that name them."""
    torch.manual_seed(0)
    KronosTokenizer(**TINY_TOKENIZER).save_pretrained(folder / "t")
    Kronos(**TINY_PREDICTOR).save_pretrained(folder / "p")
    known = {"train": ["2023-01-01", "2023-01-24"], "val": ["2023-01-25", "2023-01-31"]}
    for name in ("t", "p"):
        data = {"ranges": ranges.get(name, known), "fingerprints": {}}
        record = {"initial_weights": "random", "synthetic": True, "data": data}
        record |= {} if representation is None else {"representation": representation}
        (folder / name / "training.json").write_text(json.dumps(record))
    return [*QUICK_EVALUATE, "trainer=cpu", f"predictor={folder / 'p'}", f"tokenizer={folder / 't'}"]


def certified(run, arguments, places=1):
    """Verdict by subject of a certificate."""
    findings = certify(_composed(*arguments).copy(), run, places).findings
    return {finding.name: finding.verdict for finding in findings}


@cache
def _composed(*arguments):
    return composed("evaluate", *arguments)


def leaking(found):
    """Subjects with a leak."""
    return {name for name, verdict in found.items() if verdict == "leak"}


def feature(of_close):
    """A column made from the whole close, looked up at the row."""
    return lambda candles, row: {"feature": of_close(candles.frame["close"]).to_numpy()[row : row + 1]}


class Unmasked(layers.Attention):
    """Attention to all positions, later ones too."""

    def forward(self, query, memory, rotary, causal):
        return super().forward(query, memory, rotary, causal=False)


class Remembering:
    """A baseline whose cache of closes outlives a call, and knows the close after the cutoff."""

    cache = np.empty(0)

    def applies_to(self, interval):
        return True

    def sample_paths(self, candles, cutoffs, horizon, num_paths):
        if not len(self.cache):
            Remembering.cache = candles.frame["close"].to_numpy()
        spread = np.linspace(0.99, 1.01, num_paths * horizon).reshape(num_paths, horizon)
        return self.cache[cutoffs + 1, None, None] * spread
