"""Fixtures that many tests share: golden numbers, tiny networks, small candle files."""

import logging
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: tests run side by side, and waiting threads burn time

import numpy as np
import pytest
import torch

from kronos_lightning import Kronos, KronosTokenizer
from kronos_lightning.data.sources.synthetic import synthetic_candles
from tests.helpers.networks import TINY_PREDICTOR, TINY_TOKENIZER
from tests.helpers.paths import GOLDEN

torch.set_num_threads(1)


def pytest_collection_modifyitems(items):
    """Begin with the slow ones, so that at the end no process waits for another."""
    items.sort(key=lambda item: not ("e2e" in item.path.parts or item.path.stem == "test_distributed"))


@pytest.fixture(scope="session")
def golden():
    """Golden arrays as tensors, by name."""
    with np.load(GOLDEN / "golden.npz", allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


@pytest.fixture
def golden_tokenizer():
    return KronosTokenizer.from_pretrained(GOLDEN / "tiny-tokenizer")


@pytest.fixture
def golden_predictor():
    return Kronos.from_pretrained(GOLDEN / "tiny-predictor")


@pytest.fixture
def tiny_tokenizer():
    torch.manual_seed(0)
    return KronosTokenizer(**TINY_TOKENIZER)


@pytest.fixture
def tiny_predictor():
    torch.manual_seed(1)
    return Kronos(**TINY_PREDICTOR)


@pytest.fixture
def candles():
    """600 synthetic hourly candles."""
    return synthetic_candles(600, "1h", "2023-01-01", seed=3, start_price=100.0, volatility=0.8)


@pytest.fixture
def guide_csv(tmp_path, candles):
    """The same candles in the guide's CSV layout."""
    path = tmp_path / "candles.csv"
    candles.frame.drop(columns="segment").assign(
        timestamps=lambda f: f["timestamps"].dt.strftime("%Y-%m-%d %H:%M:%S")
    ).to_csv(path, index=False)
    return path


@pytest.fixture(autouse=True)
def _own_log_handlers():
    """Remove log handlers that a command left in this process: they write to a stream that is closed after the test."""
    root = logging.getLogger()
    before = list(root.handlers)
    yield
    for handler in set(root.handlers) - set(before):
        if not type(handler).__module__.startswith("_pytest"):
            root.removeHandler(handler)
