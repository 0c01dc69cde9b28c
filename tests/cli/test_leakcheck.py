"""The command that writes the leak certificate."""

import inspect
import json

import pytest
import torch

from kronos_lightning import Kronos, KronosTokenizer
from kronos_lightning.cli.errors import one_line_errors
from kronos_lightning.cli.leakcheck import SUFFIX, main
from kronos_lightning.model import layers
from tests.helpers.commands import QUICK_EVALUATE, command
from tests.helpers.configuration import composed
from tests.helpers.leaks import Unmasked
from tests.helpers.networks import TINY_PREDICTOR, TINY_TOKENIZER


@pytest.fixture
def arguments(tmp_path):
    torch.manual_seed(0)
    KronosTokenizer(**TINY_TOKENIZER).save_pretrained(tmp_path / "t")
    Kronos(**TINY_PREDICTOR).save_pretrained(tmp_path / "p")
    ranges = {"train": ["2023-01-01", "2023-01-24"], "val": ["2023-01-25", "2023-01-31"]}
    for folder in ("t", "p"):
        record = {"initial_weights": "random", "synthetic": True, "data": {"ranges": ranges, "fingerprints": {}}}
        (tmp_path / folder / "training.json").write_text(json.dumps(record))
    return [*QUICK_EVALUATE, "trainer=cpu", "predictor=p", "tokenizer=t"]


def certificate(folder):
    content = json.loads((folder / "outputs" / "backtest_results" / f"sample{SUFFIX}").read_text())
    (part,) = content["parts"]
    return content, part, {finding["name"]: finding["verdict"] for finding in part["findings"]}


def test_the_command_proves_each_step_and_leaves_a_certificate(tmp_path, arguments):
    result = command("kronos_lightning.evaluation.leakcheck", *arguments, cwd=tmp_path)
    content, part, verdicts = certificate(tmp_path)
    assert content["leaks"] is False
    assert set(verdicts.values()) == {"proved"}, verdicts
    assert {"split targets", "predictor's record", "features", "training windows", "tokens", "logits", "forecasts"} | {
        *("calibration", "calibrated forecasts", "adaptive correction", "signals", "backtest", "fills", "fill prices"),
        *("baseline drift", "baseline garch"),
    } <= set(verdicts)
    assert len(part["cutoffs"]) == 8
    assert part["about"]["versions"]["torch"] == torch.__version__
    assert len(part["about"]["data"]["fingerprints"]["SYNTHETIC"]) == 64
    assert part["about"]["settings"]["data"]["horizon"] == 4
    assert "Proved on 8 cutoffs from 2023-01-31 23:00 to 2023-02-07" in result.stdout
    assert "LEAK" not in result.stdout


def run_here(*overrides):
    """The command in this process, where a leak can be planted."""
    one_line_errors(inspect.unwrap(main))(composed("evaluate", *overrides))


def test_the_command_ends_with_2_where_attention_sees_later_candles(tmp_path, arguments, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(layers, "Attention", Unmasked)
    cheap = ["calibration.fit=false", "evaluation.baselines=[drift]", "evaluation.cutoffs_per_batch=8"]
    with pytest.raises(SystemExit) as ended:
        run_here(*arguments, *cheap)
    assert ended.value.code == 2
    content, _, verdicts = certificate(tmp_path)
    assert content["leaks"] is True
    assert {name for name, found in verdicts.items() if found == "leak"} == {"tokens", "logits"}
    assert "LEAK: tokens: s1[" in capsys.readouterr().out


def test_the_command_says_in_one_line_that_there_is_no_checkpoint(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        run_here(*QUICK_EVALUATE, "trainer=cpu")
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith("error: no fine-tuned predictor")
