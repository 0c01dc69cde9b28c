"""A source, a baseline, a strategy and a regulariser from outside of the package: one class and one conf file each."""

import json
import textwrap

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.commands import QUICK_EVALUATE, QUICK_TRAIN, command
from tests.helpers.runs import MODELS

CODE = '''
import numpy as np
import pandas as pd
import torch

from kronos_lightning.training import Regulariser


class Waves:
    """A source: the price goes up and down once a day."""

    synthetic = True

    def __init__(self, height: float):
        self.height = height

    def path(self, symbol, interval):
        return None

    def fetch(self, symbol, interval, start, end):
        stamps = pd.date_range("2023-01-01", periods=900, freq=interval, tz="UTC", name="timestamps")
        close = 100 + self.height * np.sin(np.arange(900) * np.pi / 12)
        frame = pd.DataFrame({"open": close, "high": close + 1, "low": close - 1, "close": close, "volume": 1.0})
        return frame.assign(timestamps=stamps)


class Constant:
    """A baseline: the last close, for ever; as whole candles."""

    def __init__(self, share: float):
        self.share = share

    def applies_to(self, interval):
        return True

    def sample_paths(self, candles, cutoffs, horizon, num_paths):
        last = candles.frame["close"].to_numpy()[cutoffs] * self.share
        return np.broadcast_to(last[:, None, None, None], (len(cutoffs), num_paths, horizon, 6)).astype(np.float32)


class EveryNth:
    """A strategy: BUY at every n-th cutoff, SELL at the one after it."""

    def __init__(self, n: int):
        self.n = n

    def signals(self, forecasts):
        place = np.arange(len(forecasts.last_close)) % self.n
        return np.where(place == 0, 1, np.where(place == 1, -1, 0)).astype(np.int8)

    @property
    def parameters(self):
        return {"n": self.n}

    @property
    def free(self):
        return {"n": [2, 3, 5]}

    def with_parameters(self, n):
        return EveryNth(int(n))

    def describe(self):
        return f"BUY at every cutoff number {self.n}"


class Zero(Regulariser):
    """A regulariser: the weights of one part are zero after each step."""

    def __init__(self, part: str):
        self.part = part

    @torch.no_grad()
    def on_weights(self, network, optimizer):
        for name, p in network.named_parameters():
            if name.startswith(self.part):
                p.zero_()
'''
CONF = {
    "data/waves.yaml": """
        defaults: [synthetic]
        name: waves
        symbol: WAVES
        source: waves
        sources:
          waves: {_target_: toys.Waves, height: 10.0}
    """,
    "baselines/constant.yaml": """
        defaults: [default]
        constant: {_target_: toys.Constant, share: 1.0}
    """,
    "strategy/every_nth.yaml": """
        _target_: toys.EveryNth
        n: 4
    """,
    "regularization/zero.yaml": """
        defaults: [default]
        extra:
          zero: {_target_: toys.Zero, part: decoder.0.}
    """,
}


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A folder in which all four were used by train.py and evaluate.py."""
    cwd = tmp_path_factory.mktemp("extended")
    (cwd / "toys.py").write_text(CODE)
    for name, text in CONF.items():
        path = cwd / "conf" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    mine = ["--config-dir", "conf", "data=waves"]
    train = [one for one in QUICK_TRAIN if one != "data=sample"]
    command("train.py", *mine, *train, "regularization=zero", "stage.max_epochs=1", cwd=cwd, path=cwd)
    command("train.py", *mine, *train, "stage=predictor", "stage.max_epochs=1", cwd=cwd, path=cwd)
    evaluate = [one for one in QUICK_EVALUATE if one != "data=sample"]
    chosen = ["baselines=constant", "evaluation.baselines=[constant,drift]", "strategy=every_nth"]
    result = command("evaluate.py", *mine, *evaluate, *chosen, "trainer=cpu", cwd=cwd, path=cwd)
    return cwd, result


def test_a_source_of_ones_own_is_trained_on(extended):
    cwd, _ = extended
    info = json.loads((cwd / MODELS / "finetune_predictor_waves" / "run_info.json").read_text())
    assert info["data"]["span"] == {"WAVES": "2023-01-01 00:00:00+00:00 .. 2023-02-07 11:00:00+00:00"}
    assert info["synthetic"] is True
    assert "fine-tuned on this data" in info["tokenizer"]  # its candles are the same each time


def test_a_regulariser_of_ones_own_acts_on_the_weights(extended):
    cwd, _ = extended
    weights = load_file(cwd / MODELS / "finetune_tokenizer_waves" / "checkpoints" / "last_model" / "model.safetensors")
    zero = {name for name, p in weights.items() if not torch.count_nonzero(p)}
    assert {name for name in weights if name.startswith("decoder.0.") and "rotary" not in name} <= zero
    assert "decoder.1.ffn.w1.weight" in weights.keys() - zero


def test_a_baseline_of_ones_own_is_scored(extended):
    cwd, _ = extended
    folder = cwd / "outputs" / "backtest_results" / "waves"
    table = pd.read_csv(folder / "scoreboard.csv").set_index("forecaster")
    forecasts = pd.read_parquet(folder / "forecasts.parquet")
    error = (forecasts["actual_close"] / forecasts["last_close"] - 1).abs().mean() * 100
    assert table.loc["constant", "crps"] == pytest.approx(error, rel=1e-4)


def test_a_strategy_of_ones_own_is_searched_traded_and_told(extended):
    cwd, result = extended
    trading = json.loads((cwd / "outputs" / "backtest_results" / "waves" / "metrics.json").read_text())["trading"]
    count = len(np.unique(pd.read_parquet(cwd / "outputs/backtest_results/waves/forecasts.parquet")["cutoff"]))
    assert trading["signals"]["BUY"] == -(-count // 4)
    assert trading["thresholds"] == {"n": 4, "from": "as configured"}
    assert {row["n"] for row in trading["search"]["table"]} == {2, 3, 5}
    assert "Parameters and costs on the validation range" in result.stdout
    report = (cwd / "outputs" / "backtest_results" / "waves" / "report.html").read_text()
    assert "BUY at every cutoff number 4 (as configured)" in report
