"""Walk forward: both stages fold by fold in one command; the checkpoint chosen by the forecasts' score."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kronos_lightning.config.validation import ConfigError, check_training
from kronos_lightning.runs import provenance
from kronos_lightning.runs.builders import build_datamodule
from kronos_lightning.runs.checkpoint_lookup import find_tokenizer
from kronos_lightning.settings import end_of
from tests.helpers.commands import QUICK_EVALUATE, QUICK_TRAIN, command
from tests.helpers.configuration import composed

WALK = ["experiment=walk_forward", "data.folds=2"]
BY_SCORE = ["callbacks.best.monitor=val/crps", "callbacks.early_stopping.monitor=val/crps"]


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """The folder of both stages over two folds, and the command's output."""
    cwd = tmp_path_factory.mktemp("walked")
    swept = ["stage=tokenizer,predictor", "data.fold=0,1", "stage.learning_rate=1e-2"]
    return cwd, command("train.py", "-m", *QUICK_TRAIN, "logger=tensorboard", *WALK, *swept, *BY_SCORE, cwd=cwd)


def run_of(cwd, stage, fold):
    run = cwd / "outputs" / "models" / f"finetune_{stage}_sample_fold{fold}"
    return run, json.loads((run / "run_info.json").read_text())


def test_each_stage_of_each_fold_has_a_run_and_a_row_of_the_table(walked):
    cwd, result = walked
    assert {path.name for path in (cwd / "outputs" / "models").glob("[!.]*")} == {
        f"finetune_{stage}_sample_fold{fold}" for stage in ("tokenizer", "predictor") for fold in (0, 1)
    }
    table = pd.read_csv(next((cwd / "outputs" / "sweeps").rglob("sweep.csv")))
    rows = set(zip(table["stage"], table["data.fold"], strict=True))
    assert rows == {(stage, fold) for stage in ("tokenizer", "predictor") for fold in (0, 1)}
    assert "Trials (metrics of different stages and folds are not comparable)" in result.stdout
    assert "To repeat it" not in result.stdout + result.stderr


def test_the_predictor_of_a_fold_has_the_tokenizer_of_that_fold(walked):
    cwd, _ = walked
    for fold in (0, 1):
        tokenizer, _ = run_of(cwd, "tokenizer", fold)
        predictor, info = run_of(cwd, "predictor", fold)
        assert f"finetune_tokenizer_sample_fold{fold}" in info["tokenizer"]
        best = (tokenizer / "checkpoints" / "best_model" / "model.safetensors").read_bytes()
        assert (predictor / "checkpoints" / "tokenizer" / "model.safetensors").read_bytes() == best


def test_what_a_fold_tests_on_begins_after_all_that_it_was_trained_and_chosen_on(walked):
    cwd, _ = walked
    tested = []
    for fold in (0, 1):
        ranges = run_of(cwd, "predictor", fold)[1]["data"]["ranges"]
        assert end_of(ranges["train"][1]) == pd.Timestamp(ranges["val"][0], tz="UTC")
        assert end_of(ranges["val"][1]) == pd.Timestamp(ranges["test"][0], tz="UTC")
        tested.append(ranges["test"])
    assert end_of(tested[0][1]) == pd.Timestamp(tested[1][0], tz="UTC")
    assert tested[1][1] == "2023-02-07"


def test_the_checkpoint_is_that_of_the_best_score(walked):
    cwd, _ = walked
    for stage in ("tokenizer", "predictor"):
        run, info = run_of(cwd, stage, 0)
        scores = [e.value for e in EventAccumulator(str(run / "logs")).Reload().Scalars("val/crps")]
        assert info["metrics"]["val/crps"] == pytest.approx(min(scores))
        callbacks = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["callbacks"]
        (chosen,) = [state for key, state in callbacks.items() if "Pretrained" in key and "val/crps" in key]
        (stopped,) = [state for key, state in callbacks.items() if "EarlyStopping" in key]
        assert chosen["best_model_score"].item() == pytest.approx(min(scores))
        assert stopped["best_score"].item() == pytest.approx(min(scores))


def test_without_a_fold_the_tokenizer_of_one_is_not_taken(walked, monkeypatch):
    cwd, _ = walked
    monkeypatch.chdir(cwd)
    for fold, expected in ((1, "finetune_tokenizer_sample_fold1"), ("null", "no run in")):
        cfg = composed("train", *QUICK_TRAIN, *WALK, f"data.fold={fold}", "stage=predictor")
        settings = check_training(cfg)
        datamodule = build_datamodule(settings.data)
        datamodule.prepare_data()
        assert expected in find_tokenizer(settings, "auto", datamodule)[1]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.fold=2", "fold 2: out of range, data.folds=2 has folds 0 to 1"),
        ("data.fold=-1", "data.fold"),
        ("data.fold_scheme=rolling", "data.fold_scheme"),
        ("data.embargo=-1", "data.embargo"),
        ("callbacks.validation_paths.every_n_epochs=2", "val/crps must be measured in every epoch"),
        ("~callbacks.validation_paths", "val/crps must be measured in every epoch"),
    ],
)
def test_folds_and_monitors_that_cannot_be_are_refused(override, message):
    with pytest.raises(ConfigError, match=message):
        check_training(composed("train", *WALK, *BY_SCORE, override))


def test_early_stopping_follows_what_chooses_the_checkpoint():
    cfg = composed("train", "callbacks.best.monitor=val/direction_accuracy", "callbacks.best.mode=max")
    assert cfg.callbacks.early_stopping.monitor == "val/direction_accuracy"
    assert cfg.callbacks.early_stopping.mode == "max"


def test_the_experiment_overrides_the_data_group_and_the_command_line_the_experiment():
    data = composed("train", "experiment=walk_forward", "data=btc_1h").data
    assert (data.fold, data.embargo, data.horizon) == (0, 12, 12)
    assert composed("train", "experiment=walk_forward", "data.embargo=3").data.embargo == 3
    assert composed("train").data.fold is None


def test_the_settings_that_runs_are_compared_by_are_flat_and_may_be_missing():
    found = provenance.optimisation(check_training(composed("train", "stage=predictor", "stage.learning_rate=0.1")))
    assert (found["learning_rate"], found["beta_2"], found["monitor"]) == (0.1, 0.95, "val/loss")
    assert all(value is None or isinstance(value, (int, float, str)) for value in found.values())
    old = {"stage": "predictor", "initial_weights": "x", "synthetic": True, "data": {}}
    assert provenance.record(old | {"seed": 1}) == old
    assert provenance.record(old | {"settings": found})["settings"] == found


def test_evaluation_joins_the_folds_into_one_table(walked):
    cwd, _ = walked
    result = command("evaluate.py", *QUICK_EVALUATE, *WALK, "data.fold=all", cwd=cwd)
    folder = cwd / "outputs" / "backtest_results" / "sample_folds"
    folds, whole = pd.read_csv(folder / "by_fold.csv"), pd.read_csv(folder / "scoreboard.csv").set_index("forecaster")
    assert folds["fold"].tolist() == [0, 1]
    assert folds["to"][0] < folds["from"][1]
    mean = np.average(folds["crps"], weights=folds["cutoffs"])
    assert whole.loc["model", "crps"] == pytest.approx(mean)
    assert "Walk-forward folds" in result.stdout
    metrics = json.loads((folder / "metrics.json").read_text())
    assert not [text for text in metrics["notices"] if text.startswith(("LEAK", "OTHER"))]
    assert metrics["cutoffs"] == folds["cutoffs"].sum()


def test_training_on_all_folds_at_once_is_refused():
    with pytest.raises(ConfigError, match=r"train on each with train\.py -m data\.fold=0,1"):
        check_training(composed("train", *WALK, "data.fold=all"))
