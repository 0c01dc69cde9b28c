"""Both stages, then evaluation, as a user types them, on few candles."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import torch
from hydra.utils import instantiate
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kronos_lightning import Kronos, KronosTokenizer
from kronos_lightning.config.validation import check_evaluation
from kronos_lightning.evaluation.significance import Bootstrap, compare
from kronos_lightning.forecast import ForecastSet
from kronos_lightning.forecast.calibration import Calibration, CalibrationError
from kronos_lightning.forecast.distribution import crps
from kronos_lightning.pipeline.forecasting import forecast_range
from kronos_lightning.runs.builders import build_datamodule
from tests.helpers.commands import QUICK_EVALUATE, QUICK_TRAIN, command
from tests.helpers.configuration import composed
from tests.helpers.pages import loaded
from tests.helpers.runs import MODELS, info


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Both stages in one multirun, and their evaluation."""
    cwd = tmp_path_factory.mktemp("trained")
    settings = [*QUICK_TRAIN, "stage.learning_rate=1e-2", "logger=tensorboard", "callbacks.periodic.every_n_epochs=1"]
    logs = command("train.py", "-m", "stage=tokenizer,predictor", *settings, cwd=cwd)
    evaluated = command("evaluate.py", *QUICK_EVALUATE, cwd=cwd)
    return cwd, logs, evaluated


def test_a_multirun_over_the_stages_trains_both_in_order_with_one_tokenizer(trained):
    cwd, logs, _ = trained
    tokenizer, predictor = (cwd / MODELS / f"finetune_{stage}_sample" for stage in ("tokenizer", "predictor"))
    kept = load_file(predictor / "checkpoints" / "tokenizer" / "model.safetensors")
    best = load_file(tokenizer / "checkpoints" / "best_model" / "model.safetensors")
    assert all(torch.equal(kept[key], best[key]) for key in best)
    assert "Tokenizer: fine-tuned on this data" in logs.stderr
    assert "fine-tuned on this data" in info(predictor)["tokenizer"]
    assert "Trials (metrics of different stages are not comparable)" in logs.stdout


def test_a_runs_folder_is_the_guides_and_both_checkpoints_load(trained):
    cwd, *_ = trained
    for stage, cls in (("tokenizer", KronosTokenizer), ("predictor", Kronos)):
        run = cwd / MODELS / f"finetune_{stage}_sample"
        names = {path.name for path in (run / "checkpoints").iterdir()} - {"tokenizer"}
        assert names == {f"{n}.ckpt" for n in ("best", "last", "previous", "epoch_1", "epoch_2")} | {
            *("best_model", "last_model", "epoch_1", "epoch_2")
        }
        for name in ("best", "last"):
            exported = cls.from_pretrained(run / "checkpoints" / f"{name}_model").state_dict()
            checkpoint = torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)
            for key, value in exported.items():
                assert torch.equal(checkpoint["state_dict"][f"{stage}.{key}"], value)
        config = json.loads((run / "config.json").read_text())
        assert config["stage"]["name"] == stage
        assert config["run_dir"] == f"{MODELS}/finetune_{stage}_sample"


def test_the_runs_log_is_kept_in_its_folder_from_the_first_line(trained):
    cwd, *_ = trained
    text = (cwd / MODELS / "finetune_predictor_sample" / "logs" / "train.log").read_text()
    assert "Tokenizer: fine-tuned on this data" in text
    assert "Best val/loss" in text
    assert "Best val/loss" not in text.split("Tokenizer:")[0]  # that of the stage before is not in it


def test_run_info_tells_versions_data_seed_and_metrics(trained):
    cwd, *_ = trained
    content = info(cwd / MODELS / "finetune_predictor_sample")
    assert content["status"] == "finished"
    assert content["synthetic"] is True
    assert content["versions"]["torch"] == torch.__version__
    assert len(content["data"]["fingerprints"]["SYNTHETIC"]) == 64
    assert content["seed"] == 100
    assert content["initial_weights"] == "random (kronos-tiny size)"
    assert 1 <= content["metrics"]["best_epoch"] <= 2
    assert content["metrics"]["val/loss"] > 0


def test_run_info_tells_what_the_training_took_and_the_log_what_it_will_take(trained):
    cwd, logs, _ = trained
    content = info(cwd / MODELS / "finetune_predictor_sample")
    windows = int(re.search(r"train: (\d+) windows", logs.stderr).group(1))
    full = windows - windows % content["scale"]["global_batch"]  # an incomplete batch is left out
    assert content["tokens"] == 2 * full * (24 + 4 + 1)
    assert content["device"].startswith("cpu (")
    assert content["processes"] == 1
    assert content["peak_memory"] > 2**26
    assert content["seconds"] > 0
    assert re.search(r"About \d+ s left for 1 more epochs at most", logs.stderr)


@pytest.mark.parametrize(
    ("stage", "metrics"),
    [
        ("tokenizer", {"train/mse_full", "train/mse_coarse", "train/quantizer_loss", "val/mse_coarse"}),
        ("predictor", {"train/ce_s1", "train/ce_s2", "val/ce_s1", "val/ce_s2"}),
    ],
)
def test_tensorboard_shows_losses_rate_gradients_codebook_direction_and_a_plot(trained, stage, metrics):
    cwd, *_ = trained
    events = EventAccumulator(str(cwd / MODELS / f"finetune_{stage}_sample" / "logs")).Reload()
    common = {"train/loss", "val/loss", "lr-AdamW/pg1", "train/gradient_norm", "val/codebook_usage_s1",
              "val/codebook_usage_s2", "val/direction_accuracy", "val/direction_majority"}  # fmt: skip
    assert common | metrics <= set(events.Tags()["scalars"])
    assert len(events.Images("val/paths")) == 2  # one each validation
    assert 0 < events.Scalars("val/codebook_usage_s1")[0].value <= 1


def test_evaluation_leaves_forecasts_scoreboard_report_and_plots(trained):
    cwd, _, evaluated = trained
    folder = cwd / "outputs" / "backtest_results" / "sample"
    results = {
        "forecasts.parquet",
        "paths.npy",
        "metrics.json",
        "report.html",
        "trades.csv",
        "signals.csv",
        "calibration.json",
        "risk.csv",
        "risk.png",
    }
    results |= {"decision.json"}
    tables = {f"{name}.csv" for name in ("scoreboard", "by_step", "by_month", "by_regime")}
    plots = {f"{name}.png" for name in ("fan_charts", "by_step", "pit", "reliability", "skill_over_time", "equity",
                                           "random_strategies", "costs", "search")}  # fmt: skip
    assert {path.name for path in folder.glob("[!.]*")} == results | tables | plots | {"tensorboard"}
    forecasts = ForecastSet.load(folder)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["cutoffs"] == len(forecasts)
    assert forecasts.paths.shape[1:] == (5, 4, 6)
    error = np.abs(np.median(forecasts.close_paths, axis=1) - forecasts.actual_close).mean()
    assert metrics["figures"]["model"]["mae"] == pytest.approx(error)
    assert len(pd.read_csv(folder / "trades.csv")) == metrics["trading"]["backtest"]["trades"]
    page = (folder / "report.html").read_text()
    assert "SYNTHETIC CANDLES" in page
    refitted = "(refitted every 500 candles)"
    assert f"ewma, garch {refitted}, seasonal_garch {refitted}, har {refitted}; from past candles alone" in page
    assert metrics["verdict"][0].split(" Skill")[0] in page
    assert "Report: outputs/backtest_results/sample/report.html" in evaluated.stderr


def test_the_pages_of_a_run_load_nothing_that_is_not_in_them(trained):
    cwd, *_ = trained
    assert loaded(cwd) == {}


def test_the_calibration_is_kept_beside_the_checkpoint_with_the_sampling_that_validation_chose(trained):
    cwd, _, evaluated = trained
    stored = cwd / MODELS / "finetune_predictor_sample" / "checkpoints" / "best_model"
    calibration = Calibration.load(stored)
    assert calibration == Calibration.load(cwd / "outputs" / "backtest_results" / "sample")
    assert f"the model at temperature {calibration.temperature:g}" in evaluated.stderr
    assert calibration.metadata["fitted_to"] < "2023-02-01"  # validation ends on 31 January
    assert len(calibration.widening) == 4


def test_the_sampling_of_lowest_crps_on_validation_is_chosen(trained, monkeypatch, caplog):
    cwd, *_ = trained
    monkeypatch.chdir(cwd)
    caplog.set_level("INFO")
    part = measured("calibration.temperatures=[0.5]", "calibration.top_ps=[0.7]", "forecast.temperature=1.1")
    told = [record.getMessage() for record in caplog.records]
    tried = [text.split(", ")[1:3] for text in told if "the model at temperature" in text]
    assert len(tried) == len(set(map(tuple, tried))) == 4
    scores = [float(text.split()[-2]) for text in told if text.startswith("CRPS on validation")]
    chosen = f"the model at temperature {part.calibration.temperature:g}"
    assert tried[int(np.argmin(scores))] == [chosen, f"top_p {part.calibration.top_p:g}: {told_cutoffs(told)} cutoffs"]


def told_cutoffs(told):
    return next(text.rpartition(": ")[2].split()[0] for text in told if "the model at temperature" in text)


def test_calibration_looks_at_as_many_cutoffs_as_it_is_given(trained, monkeypatch, caplog):
    cwd, *_ = trained
    monkeypatch.chdir(cwd)
    caplog.set_level("INFO")
    stored = cwd / MODELS / "finetune_predictor_sample" / "checkpoints" / "best_model"
    before = Calibration.load(stored)
    part = measured("calibration.search_cutoffs=6", "calibration.max_cutoffs=30")
    searched = int(told_cutoffs([record.getMessage() for record in caplog.records]))
    assert searched <= 6 < part.calibration.metadata["cutoffs"] <= 30
    assert Calibration.load(stored) == before  # which was fitted on more
    caplog.clear()
    part = measured("calibration.search_cutoffs=60", "calibration.max_cutoffs=30", "calibration.overwrite=true")
    searched = int(told_cutoffs([record.getMessage() for record in caplog.records]))
    assert searched == part.calibration.metadata["cutoffs"]
    assert Calibration.load(stored) == part.calibration != before


def test_too_few_validation_cutoffs_are_an_error_with_a_way_out_before_any_forecast(trained, monkeypatch, caplog):
    cwd, *_ = trained
    monkeypatch.chdir(cwd)
    caplog.set_level("INFO")
    for most, there_are in ((5, 5), (20, 19)):  # of 165 every ninth: less than asked for
        message = rf"{there_are} validation cutoffs, 20 are needed.*calibration\.fit=false"
        with pytest.raises(CalibrationError, match=message):
            measured(f"calibration.max_cutoffs={most}")
    assert not [record for record in caplog.records if "Forecasts, " in record.getMessage()]


def test_without_calibration_the_model_is_as_it_samples(trained, monkeypatch):
    cwd, *_ = trained
    monkeypatch.chdir(cwd)
    part = measured("calibration.fit=false", "forecast.temperature=0.7")
    assert part.calibration is part.calibrated is part.validation is None


def test_greedy_forecasts_cannot_be_calibrated(trained, monkeypatch):
    cwd, *_ = trained
    monkeypatch.chdir(cwd)
    with pytest.raises(CalibrationError, match=r"calibration\.fit=false"):
        measured("forecast.top_k=1")


def test_other_checkpoints_and_ensembles_are_forecast_on_the_same_cutoffs(trained, monkeypatch):
    cwd, *_ = trained
    monkeypatch.chdir(cwd)
    run = f"{MODELS}/finetune_predictor_sample"
    compared = f"compare=[untuned,tokenizer,predictor,both,untuned+both,{run}@{MODELS}/finetune_tokenizer_sample]"
    part = measured("calibration.fit=false", compared)
    sampled = part.forecasts.close_paths
    np.testing.assert_array_equal(part.compared["both"], sampled)
    np.testing.assert_array_equal(list(part.compared.values())[-1], sampled)  # its tokenizer is that one
    for name in ("untuned", "tokenizer", "predictor"):
        assert part.compared[name].shape == sampled.shape
        assert not np.array_equal(part.compared[name], sampled)
    pool, paths = part.compared["untuned+both"], sampled.shape[1]
    np.testing.assert_array_equal(pool[:, :paths], part.compared["untuned"])
    assert pool.shape[1] == 2 * paths
    assert (pool[:, paths:] == sampled).mean() < 0.1  # of the same model, drawn independently of the first member


def test_did_it_help_forecasts_each_stage_as_it_is_anchored_and_pooled_with_a_baseline(trained, monkeypatch):
    cwd, *_ = trained
    monkeypatch.chdir(cwd)
    part = measured("calibration.fit=false", "experiment=did_it_help")
    stages = ["untuned", "tokenizer", "predictor", "both"]
    anchored, pooled = [f"anchored:{name}" for name in stages], [f"{name}+har" for name in stages]
    assert sorted(part.compared) == sorted([*stages[:3], *anchored, *pooled])  # both as it is, is the model
    plain, shifted = part.forecasts.close_paths, part.compared["anchored:both"]
    (factor,) = np.unique(np.round(shifted - plain, 2)[0, :, 0])  # each cutoff's paths move together
    assert factor != 0
    paths, pools = plain.shape[1], [part.compared[name] for name in pooled]
    assert len({pool[:, paths:].tobytes() for pool in pools}) == 1  # the same baseline in each
    np.testing.assert_array_equal(part.compared["both+har"][:, :paths], plain)


def test_anchoring_makes_the_first_step_better(trained, monkeypatch):
    cwd, *_ = trained
    monkeypatch.chdir(cwd)
    more = ["evaluation.max_cutoffs=150", "forecast.num_paths=20"]
    part = measured("calibration.fit=false", "compare=[anchored:both]", *more)
    last, actual = part.forecasts.last_close[:, None], part.forecasts.actual_close / part.forecasts.last_close[:, None]
    plain, anchored = (
        crps(paths / last[:, None], actual)[:, 0]
        for paths in (part.forecasts.close_paths, part.compared["anchored:both"])
    )
    assert compare(anchored, plain, "plain", Bootstrap(overlap=1, samples=500, seed=0)).better


def measured(*overrides):
    """Forecasts of the trained model, as evaluate.py makes them."""
    cfg = composed("evaluate", *QUICK_EVALUATE, "trainer=cpu", "+trainer.enable_progress_bar=false", *overrides)
    settings = check_evaluation(cfg)
    datamodule = build_datamodule(settings.data)
    datamodule.prepare_data()
    (candles,) = datamodule.read()
    return forecast_range(settings, datamodule, candles, instantiate(cfg.trainer, _convert_="all"))


STORED = "evaluation.forecasts=outputs/backtest_results/sample"


def test_stored_forecasts_are_reported_as_they_are(trained):
    cwd, *_ = trained
    results = cwd / "outputs" / "backtest_results" / "sample"
    decision = cwd / MODELS / "finetune_predictor_sample" / "checkpoints" / "best_model" / "decision.json"
    before = decision.read_bytes()
    found = command("evaluate.py", *QUICK_EVALUATE, STORED, "evaluation.output_dir=again", cwd=cwd)
    assert "Predicting" not in found.stdout
    first, again = (json.loads((folder / "metrics.json").read_text()) for folder in (results, cwd / "again"))
    for name in ("crps", "brier", "coverage_90"):
        assert again["figures"]["model"][name] == pytest.approx(first["figures"]["model"][name], rel=1e-6)
    assert again["figures"]["garch"] == first["figures"]["garch"]
    assert again["trading"]["backtest"] == first["trading"]["backtest"]
    assert decision.read_bytes() == before
    assert "read from outputs/backtest_results/sample" in (cwd / "again" / "report.html").read_text()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([STORED, "data.horizon=3"], "of 4 candles; set data.horizon=4"),
        ([STORED, "tokenizer=published"], "made by other weights"),
        (["evaluation.forecasts=nowhere"], "nowhere holds no forecasts of an evaluation or record"),
        ([STORED, "compare=[untuned]"], "nothing is forecast; leave out compare"),
    ],
)
def test_forecasts_that_are_not_of_this_checkpoint_and_market_are_refused(trained, settings, message):
    cwd, *_ = trained
    found = command("evaluate.py", *QUICK_EVALUATE, *settings, cwd=cwd, check=False)
    assert found.returncode == 1
    assert found.stderr.splitlines()[-1].startswith("error: ")
    assert message in found.stderr


def test_two_processes_forecast_what_one_does(trained):
    cwd, *_ = trained
    paths = []
    for trainer in ("cpu", "ddp_cpu"):
        options = [f"trainer={trainer}", "evaluation.output_dir=there", "evaluation.cutoffs_per_batch=5"]
        result = command("evaluate.py", *QUICK_EVALUATE, *options, cwd=cwd)
        assert result.stdout.count("Scoreboard") == 1
        paths.append(np.load(cwd / "there" / "paths.npy"))
    (aside,) = cwd.glob("there.*")
    assert f"The earlier folder was moved to {aside.name}" in result.stderr
    np.testing.assert_array_equal(np.load(aside / "paths.npy"), paths[0])
    np.testing.assert_array_equal(paths[0], paths[1])
    batched_otherwise = np.load(cwd / "outputs" / "backtest_results" / "sample" / "paths.npy")
    np.testing.assert_allclose(paths[0], batched_otherwise, rtol=1e-4)


def test_the_forecast_command_takes_a_runs_folder_and_says_that_its_candles_were_made_up(trained, guide_csv):
    cwd, *_ = trained
    run = cwd / MODELS / "finetune_predictor_sample"
    arguments = [str(guide_csv), f"predictor={run}", "horizon=3"]
    refused = command("kronos_lightning.forecast", *arguments, "model=kronos-small", cwd=cwd, check=False)
    assert "is a kronos-tiny, not a kronos-small; set model=kronos-tiny" in refused.stderr
    result = command("kronos_lightning.forecast", *arguments, "model=kronos-tiny", cwd=cwd)
    assert "Calibrated on SYNTHETIC from" in result.stdout
    assert "SYNTHETIC: the predictor was fine-tuned on made-up candles" in result.stdout
    assert (cwd / "outputs" / "forecasts" / "candles" / "fan.png").is_file()
