"""Validation metrics that can be monitored: they are the logged ones."""

from functools import cache

import pytest
import yaml
from omegaconf import OmegaConf

from kronos_lightning.config.monitors import METRICS, NOT_MONITORABLE, SAMPLE_PATH_METRICS, better
from kronos_lightning.config.validation import ConfigError, check_training
from kronos_lightning.training.validation_paths import PATH_METRICS, ValidationPaths
from tests.helpers.configuration import composed
from tests.helpers.data import SETTINGS, data_module
from tests.helpers.training import predictor_module, quiet, tokenizer_module


@pytest.mark.parametrize("stage", ["tokenizer", "predictor"])
def test_the_metrics_of_a_stage_are_those_that_it_logs(tmp_path, tiny_tokenizer, tiny_predictor, stage):
    window = {name: SETTINGS[name] for name in ("lookback", "horizon")}
    if stage == "tokenizer":
        module = tokenizer_module(tiny_tokenizer, **window)
    else:
        module = predictor_module(tiny_tokenizer, tiny_predictor, **window)
    data = data_module(processed_dir=str(tmp_path))
    trainer = quiet(tmp_path, limit_train_batches=1, limit_val_batches=1, callbacks=[ValidationPaths(4, 1)])
    trainer.fit(module, data)
    logged = {name for name in trainer.callback_metrics if name.startswith("val/")}
    assert set(METRICS[stage]) <= logged <= set(METRICS[stage]) | set(NOT_MONITORABLE)
    assert {f"val/{name}" for name in PATH_METRICS} & set(METRICS[stage]) == SAMPLE_PATH_METRICS


@cache
def configuration(stage):
    return composed("train", f"stage={stage}")


def checked(stage, *overrides):
    cfg = configuration(stage).copy()
    for text in overrides:
        OmegaConf.update(cfg, "callbacks." + text.split("=")[0], yaml.safe_load(text.split("=")[1]))
    return check_training(cfg).callbacks


@pytest.mark.parametrize("stage", METRICS)
def test_each_figure_can_stop_a_run_that_another_chooses_the_checkpoint_of(stage):
    for metric, mode in METRICS[stage].items():
        found = checked(stage, f"early_stopping.monitor={metric}")
        assert (found["early_stopping"]["monitor"], found["early_stopping"]["mode"]) == (metric, mode)
        assert (found["best"]["monitor"], found["best"]["mode"]) == ("val/loss", "min")
        both = checked(stage, f"best.monitor={metric}")
        assert [both[name]["mode"] for name in ("best", "early_stopping")] == [mode, mode]
        assert better(metric) == mode


@pytest.mark.parametrize(
    ("stage", "overrides", "message"),
    [
        ("tokenizer", "early_stopping.monitor=val/ce_s1", "val/ce_s1' cannot be monitored with stage=tokenizer"),
        ("predictor", "best.monitor=val/mse_coarse", "val/mse_coarse' cannot be monitored"),
        ("predictor", "best.monitor=val/coverage_90", "how wide the paths are, not how accurate"),
        ("predictor", "best.monitor=val/codebook_usage_s1", "it depends on the frozen tokenizer"),
        (
            "predictor",
            "best.mode=max",
            "callbacks.best.mode: wrong direction for val/loss; set callbacks.best.mode=min",
        ),
        ("tokenizer", "early_stopping.monitor=val/codebook_usage_s2 early_stopping.mode=min", "mode=max"),
        ("predictor", "best.monitor=val/direction_accuracy validation_paths.every_n_epochs=2", "every_n_epochs=1"),
    ],
)
def test_a_metric_that_cannot_be_monitored_or_a_wrong_direction_is_refused(stage, overrides, message):
    with pytest.raises(ConfigError, match=message):
        checked(stage, *overrides.split())
