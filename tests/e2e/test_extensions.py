"""The source, baseline, strategy and regulariser that docs/extend shows: one class and one conf file each."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.commands import QUICK_EVALUATE, QUICK_TRAIN, command, without
from tests.helpers.documents import choices_of, write_extension
from tests.helpers.runs import MODELS

SOURCE, BASELINE, STRATEGY, REGULARISER = (
    f"docs/extend/{part}.md" for part in ("source", "baseline", "strategy", "regulariser")
)


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A folder in which train.py and evaluate.py used all four, written and chosen as the pages show."""
    cwd = tmp_path_factory.mktemp("extended")
    for page in (SOURCE, BASELINE, STRATEGY, REGULARISER):
        write_extension(page, cwd)
    mine = ["--config-dir", "conf", *choices_of(SOURCE)]
    train = [*mine, *without(QUICK_TRAIN, "data"), "data.batch_size=40", "stage.max_epochs=1"]
    command("train.py", *train, *choices_of(REGULARISER), cwd=cwd, path=cwd)
    command("train.py", *train, "stage=predictor", cwd=cwd, path=cwd)
    evaluate = [*mine, *without(QUICK_EVALUATE, "data"), *choices_of(BASELINE), *choices_of(STRATEGY)]
    result = command("evaluate.py", *evaluate, "trainer=cpu", cwd=cwd, path=cwd)
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
    assert "BUY at every 4th cutoff (as configured)" in report
