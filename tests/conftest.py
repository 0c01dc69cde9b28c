"""What many tests share: golden numbers, tiny networks, small candle files, the commands."""

import json
import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: tests run side by side, and waiting threads burn time

import numpy as np
import pandas as pd
import pytest
import torch

from kronos_lightning import Kronos, KronosTokenizer
from kronos_lightning.data.sample import sample_candles
from tests import warm

ROOT = Path(__file__).parents[1]
GOLDEN = Path(__file__).parent / "golden"
torch.set_num_threads(1)

TINY_BITS = {"s1_bits": 4, "s2_bits": 3}
TINY_TOKENIZER = TINY_BITS | {
    "d_in": 6, "d_model": 16, "n_heads": 2, "ff_dim": 24, "n_enc_layers": 2, "n_dec_layers": 2, "ffn_dropout_p": 0.0,
    "attn_dropout_p": 0.0, "resid_dropout_p": 0.0, "beta": 0.05, "gamma0": 1.0, "gamma": 1.1, "zeta": 0.05,
    "group_size": 7,
}  # fmt: skip
TINY_PREDICTOR = TINY_BITS | {
    "n_layers": 2, "d_model": 16, "n_heads": 2, "ff_dim": 24, "ffn_dropout_p": 0.3, "attn_dropout_p": 0.1,
    "resid_dropout_p": 0.3, "token_dropout_p": 0.1, "learn_te": True,
}  # fmt: skip


@pytest.fixture(scope="session")
def golden():
    """Golden arrays as tensors, by name."""
    with np.load(GOLDEN / "golden.npz", allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


def published_config(name):
    """Constructor arguments of a published checkpoint."""
    return json.loads((GOLDEN / "published_models.json").read_text())[f"NeoQuasar/{name}"]["config"]


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
    return sample_candles(600, "1h", "2023-01-01", seed=3, start_price=100.0, volatility=0.8)


@pytest.fixture
def guide_csv(tmp_path, candles):
    """The same candles in the guide's CSV layout."""
    path = tmp_path / "candles.csv"
    candles.frame.drop(columns="segment").assign(
        timestamps=lambda f: f["timestamps"].dt.strftime("%Y-%m-%d %H:%M:%S")
    ).to_csv(path, index=False)
    return path


# A configuration that trains for seconds: few small windows of the synthetic candles.
QUICK = [
    "data=sample",
    "data.sample.candles=900",
    "data.train_time_range=[2023-01-01,2023-01-24]",
    "data.val_time_range=[2023-01-25,2023-01-31]",
    "data.test_time_range=[2023-02-01,2023-02-07]",
    "data.lookback=24",
    "data.horizon=4",
    "model=kronos-tiny",
    "model.tokenizer.d_model=16",
    "model.tokenizer.ff_dim=16",
    "model.tokenizer.n_heads=2",
    "model.predictor.d_model=16",
    "model.predictor.ff_dim=16",
    "model.predictor.n_heads=2",
    "model.predictor.n_layers=1",
    "forecast.num_paths=5",
]
QUICK_TRAIN = [
    *QUICK,
    "trainer=cpu",
    "stage.max_epochs=2",
    "data.batch_size=40",
    "callbacks.validation_paths.windows=4",
]
QUICK_EVALUATE = [*QUICK, "evaluation.max_cutoffs=24", "backtest.random_runs=10"]


def command(script, *arguments, cwd, check=True, env=None, timeout=300):
    """Run train.py, evaluate.py or a module of the package as a user would, from folder `cwd`.

    With variables `env` in an interpreter started for it, else in one that has the libraries in memory.
    """
    environment = os.environ | {"COLUMNS": "140", "PYTHONPATH": str(ROOT)} | (env or {})
    program = [str(ROOT / script)] if script.endswith(".py") else ["-m", script]
    if env is None:
        result = warm.server().run([program[-1], *arguments], cwd, environment, timeout)
    else:
        result = subprocess.run(
            [sys.executable, *program, *arguments],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    if check and result.returncode:
        pytest.fail(f"{script} {' '.join(arguments)} ended with {result.returncode}:\n{result.stdout}\n{result.stderr}")
    return result


def frame_with_gap(rows, gap_at):
    """A candle frame whose row `gap_at` begins a new segment."""
    frame = sample_candles(rows, "1h", "2023-01-01", seed=5, start_price=50.0, volatility=0.5).frame
    return frame.assign(segment=(np.arange(rows) >= gap_at).astype(np.int64), target=True)


def utc(text):
    return pd.Timestamp(text, tz="UTC")
