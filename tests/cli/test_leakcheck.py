"""The command that writes the leak certificate."""

import inspect
import json
from functools import partial

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from kronos_lightning.cli import leakcheck
from kronos_lightning.cli.errors import one_line_errors
from kronos_lightning.cli.figures import FreshProcessError, in_fresh_process, in_this_process
from kronos_lightning.cli.leakcheck import SUFFIX, main
from kronos_lightning.evaluation.leakcheck.figures import load_figures
from kronos_lightning.model import layers
from tests.helpers.commands import QUICK_EVALUATE, command
from tests.helpers.configuration import composed
from tests.helpers.leaks import CHEAP, Remembering, Unmasked, certified, checkpoints, leaking


@pytest.fixture
def arguments(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return checkpoints(tmp_path)


def certificate(folder):
    content = json.loads((folder / "outputs" / "backtest_results" / f"sample{SUFFIX}").read_text())
    (part,) = content["parts"]
    return content, part, {finding["name"]: finding["verdict"] for finding in part["findings"]}


def fresh(folder):
    """Evaluations in new processes, as those of the command, but with the libraries in memory."""

    def run(cfg):
        OmegaConf.save(cfg, folder / "configuration.yaml", resolve=True)
        command("kronos_lightning.cli.figures", "configuration.yaml", "figures.npz", cwd=folder)
        return load_figures(folder / "figures.npz")

    return run


def test_in_a_process_of_its_own_a_cache_that_knows_the_next_close_is_caught(tmp_path, arguments, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "planted.py").write_text(f"import numpy as np\n\n\n{inspect.getsource(Remembering)}")
    planted = ["+baselines.remembering._target_=planted.Remembering", "evaluation.baselines=[drift,remembering]"]
    found = certified(fresh(tmp_path), [*arguments, *CHEAP, *planted])
    assert leaking(found) == {"baseline remembering", "baseline calibrated remembering"}
    assert found["baseline drift"] == "proved"


def test_the_command_evaluates_in_a_new_process_whose_error_it_passes_on(tmp_path, arguments):
    cfg = composed("evaluate", *arguments, f"data.csv_path={tmp_path / 'none.csv'}")
    with pytest.raises(FreshProcessError, match=r"candles failed: .*none\.csv: no such file"):
        in_fresh_process(cfg)


def change_after_few_cutoffs_in_this_process(monkeypatch, places):
    monkeypatch.setattr(leakcheck, "in_fresh_process", in_this_process)
    monkeypatch.setattr(leakcheck, "certify", partial(leakcheck.certify, places=places))


def test_the_command_proves_each_step_and_leaves_a_certificate(tmp_path, arguments, monkeypatch, capsys):
    change_after_few_cutoffs_in_this_process(monkeypatch, places=6)
    run_here(*arguments)
    content, part, verdicts = certificate(tmp_path)
    assert content["leaks"] is False
    assert set(verdicts.values()) == {"proved"}, verdicts
    assert {"split targets", "predictor's record", "tokenizer's record", "training windows", "tokens", "logits"} | {
        *(
            "sampled",
            "calibrated",
            "calibrated: calibration",
            "adaptive",
            "validation",
            "choices on validation",
            "scores",
        ),
        *("signals", "backtest", "fills", "fill prices", "baseline drift", "baseline garch", "baseline har"),
    } <= set(verdicts)
    assert len(np.unique(part["cutoffs"])) >= 3
    assert part["about"]["versions"]["torch"] == torch.__version__
    assert len(part["about"]["data"]["fingerprints"]["SYNTHETIC"]) == 64
    assert part["about"]["settings"]["data"]["horizon"] == 4
    told = " ".join(capsys.readouterr().out.split())
    assert "changed after 2023-01-31 23:00 to 2023-02-0" in told
    assert "Not covered: what your source does before the candles are read" in told
    assert "LEAK" not in told
    assert not list(tmp_path.rglob("calibration.json"))  # that of a few changed candles stays with no checkpoint


def run_here(*overrides):
    """The command in this process, where a leak can be planted."""
    one_line_errors(inspect.unwrap(main))(composed("evaluate", *overrides))


def test_the_command_ends_with_2_where_attention_sees_later_candles(tmp_path, arguments, monkeypatch, capsys):
    monkeypatch.setattr(layers, "Attention", Unmasked)
    change_after_few_cutoffs_in_this_process(monkeypatch, places=1)
    cheap = ["calibration.fit=false", "evaluation.baselines=[drift]", "evaluation.cutoffs_per_batch=32"]
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
