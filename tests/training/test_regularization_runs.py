"""Means against overfitting, from the configuration to a finished run, and models that were trained without volume."""

import json
import logging
from pathlib import Path

import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf

import train
from kronos_lightning import Kronos, KronosTokenizer
from kronos_lightning.config.validation import ConfigError, check_evaluation, check_training
from kronos_lightning.data.augmentation import Augmentation
from kronos_lightning.data.windows import CandleWindows
from kronos_lightning.forecast import Forecaster
from kronos_lightning.model.pretrained import RECORD_FILE
from kronos_lightning.runs.builders import build_datamodule, build_module, build_recipe, regularize
from kronos_lightning.runs.checkpoint_lookup import find_forecaster, find_tokenizer
from kronos_lightning.runs.log import RunLog
from kronos_lightning.runs.provenance import optimisation
from kronos_lightning.training.regularisers import L2SP, SoftThreshold
from tests.helpers.candles import frame_with_gap
from tests.helpers.commands import QUICK, QUICK_TRAIN
from tests.helpers.configuration import composed
from tests.helpers.data import SETTINGS, data_module


def settings_of(*overrides):
    return check_training(composed("train", *QUICK_TRAIN, "model.pretrained=null", *overrides))


def run(tmp_path, monkeypatch, *overrides):
    """train.py in this process, in an empty folder; the run's folder."""
    monkeypatch.chdir(tmp_path)
    cfg = composed("train", *QUICK_TRAIN, "model.pretrained=null", "logger=csv", *overrides)
    OmegaConf.set_struct(cfg, False)
    settings = check_training(cfg)
    L.seed_everything(settings.seed, verbose=False)
    with RunLog() as run_log:
        train.train(cfg, settings, run_log)
    return Path(settings.run_dir)


# --- configuration ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("regularization.dropout.ffn=2", "regularization.dropout.ffn"),
        ("regularization.label_smoothing=1", "regularization.label_smoothing"),
        ("regularization.ema=1", "regularization.ema"),
        ("regularization.l1=-1", "regularization.l1"),
        ("regularization.layer_decay=0", "regularization.layer_decay"),
        ("regularization.volatility=yearly", "regularization.volatility"),
        ("regularization=lora regularization.freeze=[embedding*]", "freeze must be \\[\\]"),
        ("regularization=lora regularization.l2_pretrained=0.1", "stage.weight_decay already pulls"),
        ("regularization=lora regularization.lora.rank=0", "regularization.lora.rank"),
        ("+regularization.l2=0.1", "regularization.l2: unknown key"),
    ],
)
def test_what_cannot_be_is_refused(overrides, message):
    with pytest.raises(ConfigError, match=message):
        check_training(composed("train", *overrides.split()))


def test_the_record_of_a_run_tells_every_setting():
    plain, changed = (
        optimisation(settings_of(*overrides))
        for overrides in (
            [],
            ["regularization=lora", "data.volume=false"]
            + [f"regularization.{key}" for key in (
                "dropout.ffn=0.1", "dropout.attn=0.1", "dropout.resid=0.1", "dropout.token=0.1", "l1=0.1",
                "label_smoothing=0.1", "ema=0.9", "layer_decay=0.9", "volatility=batch", "volatility_base=0.1",
                "loss_rows=horizon",
            )],
        )
    )  # fmt: skip
    assert all(value is None or isinstance(value, str | int | float | bool) for value in changed.values())
    differing = {key for key in plain if plain[key] != changed[key]}
    assert differing == {
        "dropout_ffn", "dropout_attn", "dropout_resid", "dropout_token", "l1", "label_smoothing", "ema", "layer_decay",
        "volatility", "volatility_base", "loss_rows", "lora_rank", "lora_alpha", "lora_modules", "volume",
    }  # fmt: skip
    assert optimisation(settings_of("regularization.freeze=[a*,b*]"))["freeze"] == "a* b*"
    assert optimisation(settings_of("regularization.l2_pretrained=0.1"))["l2_pretrained"] == 0.1


def test_the_configuration_reaches_the_network_the_steps_and_the_rates(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    overrides = ["dropout.resid=0.5", "freeze=[encoder*]", "l1=0.1", "l2_pretrained=0.2", "ema=0.9", "layer_decay=0.7",
                 "volatility=market", "loss_rows=horizon", "label_smoothing=0.1"]  # fmt: skip
    settings = settings_of(*[f"regularization.{text}" for text in overrides])
    data = build_datamodule(settings.data)
    data.prepare_data()
    module, _ = build_module(settings, data)
    assert {block.self_attn.resid_dropout.p for block in module.tokenizer.decoder} == {0.5}
    frozen = {name.split(".")[0] for name, p in module.tokenizer.named_parameters() if not p.requires_grad}
    assert frozen == {"encoder"}
    means = module.recipe.regularization
    assert (means.l1, means.l2_pretrained, means.ema, means.loss_rows) == (0.1, 0.2, 0.9, "horizon")
    assert means.label_smoothing == 0.1
    assert means.layer_decay == 0.7
    assert means.volatility == "market"
    assert module.recipe.market_volatility == data.recent_volatility() > 0
    assert {type(step): step.strength for step in module.regularisers} == {SoftThreshold: 0.1, L2SP: 0.2}


def test_adapters_of_the_configuration_are_the_trained_parameters(tiny_predictor):
    regularize(tiny_predictor, settings_of("stage=predictor", "regularization=lora", "regularization.lora.rank=3"))
    trained = {name for name, p in tiny_predictor.named_parameters() if p.requires_grad}
    assert trained
    assert all("_proj.parametrizations.weight.0." in name for name in trained)
    assert tiny_predictor.transformer[0].self_attn.q_proj.parametrizations.weight[0].down.shape[0] == 3


def test_the_markets_volatility_is_that_of_its_last_training_candles(tmp_path):
    data = data_module(processed_dir=str(tmp_path))
    data.prepare_data()
    (candles,) = data.read()
    frame = candles.frame
    end = np.flatnonzero(data.target_masks(frame["timestamps"])["train"])[-1]
    close = frame["close"].to_numpy()[end - SETTINGS["lookback"] : end + 1]
    assert data.recent_volatility() == pytest.approx(np.diff(np.log(close)).std(), rel=1e-6)
    by_batch = build_recipe(settings_of("regularization.volatility=batch"), data)
    assert (by_batch.regularization.volatility, by_batch.market_volatility) == ("batch", None)


# --- presets ----------------------------------------------------------------------------------------------------------

PRESETS = {
    "guide": ["experiment=guide"],
    "gentle": ["experiment=gentle", "callbacks.validation_paths.windows=4"],
    "lora": ["regularization=lora", "regularization.ema=0.9"],
    "market": ["regularization.volatility=market", "regularization.l2_pretrained=0.1", "data.volume=false"],
}


@pytest.mark.parametrize("stage", ["tokenizer", "predictor"])
@pytest.mark.parametrize("preset", PRESETS)
def test_each_preset_trains_both_stages_and_leaves_a_plain_model(tmp_path, monkeypatch, preset, stage):
    few = ["stage.max_epochs=1", "+trainer.limit_train_batches=3", "trainer.log_every_n_steps=1"]
    folder = run(tmp_path, monkeypatch, f"stage={stage}", *few, *PRESETS[preset])
    info = json.loads((folder / "run_info.json").read_text())
    assert info["status"] == "finished"
    network = KronosTokenizer if stage == "tokenizer" else Kronos
    for name in ("best_model", "last_model"):
        network.from_pretrained(folder / "checkpoints" / name)
        record = json.loads((folder / "checkpoints" / name / RECORD_FILE).read_text())["settings"]
        assert record["volume"] is (preset != "market")
    logged = pd.read_csv(next((folder / "logs").rglob("metrics.csv")))
    assert ("train/volatility" in logged) is (preset in ("guide", "market"))


def test_the_presets_hold_the_guides_numbers_for_each_stage():
    found = {}
    for stage in ("tokenizer", "predictor"):
        settings = check_training(composed("train", "experiment=guide", f"stage={stage}", "data=btc"))
        assert (settings.stage.max_epochs, settings.data.batch_size, settings.data.lookback) == (30, 50, 90)
        assert (settings.regularization.volatility, settings.regularization.volatility_base) == ("batch", 0.02)
        found[stage] = settings.stage.learning_rate, settings.stage.patience
    assert found == {"tokenizer": (1e-4, 5), "predictor": (2e-5, 3)}


# --- volume -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("augmented", [False, True])
def test_windows_without_volume_hold_zeros_and_the_same_prices(augmented):
    frame = frame_with_gap(120, 120)
    changed = Augmentation(price_noise=0.02, time_warp=0.1, magnitude=0.1, reversal=0.5, seed=1) if augmented else None
    with_it, without = (CandleWindows(frame, 12, 4, 5.0, changed, volume).__getitems__([0, 40]) for volume in (1, 0))
    assert with_it.x[..., 4:].abs().max() > 0.5
    assert (without.x[..., 4:] == 0).all()
    if not augmented:  # the typical price of an augmented candle is weighted by volume
        assert torch.equal(with_it.x[..., :4], without.x[..., :4])


def test_a_forecaster_without_volume_does_not_look_at_it_and_forecasts_none(tiny_tokenizer, tiny_predictor):
    frame = frame_with_gap(60, 60)
    other = frame.assign(volume=frame["volume"] * 3 + 1, amount=5.0)
    blind, seeing = (
        Forecaster(tiny_tokenizer, tiny_predictor, max_context=64, volume=volume) for volume in (False, True)
    )

    def paths(forecaster, candles):
        return forecaster.sample_paths(candles, 3, 4, generator=torch.Generator().manual_seed(0))

    assert np.array_equal(paths(blind, frame), paths(blind, other))
    assert not np.array_equal(paths(seeing, frame), paths(seeing, other))
    assert (paths(blind, frame)[..., 4:] == 0).all()
    assert np.array_equal(paths(blind, frame)[..., :4], paths(seeing, other.assign(volume=0.0, amount=0.0))[..., :4])

    stamp = torch.zeros(1, 20, 5, dtype=torch.int8)
    known = torch.tensor(frame[["open", "high", "low", "close", "volume", "amount"]].to_numpy(np.float32)[None, :20])
    again = known.clone()
    again[..., 4:] = 7.0
    found = [blind.sample_windows(x, stamp, stamp[:, :2], 3, torch.Generator().manual_seed(0)) for x in (known, again)]
    assert torch.equal(*found)
    assert (known[..., 4:] > 0).any()  # what was given is not changed


def saved(folder, network, volume):
    network.save_pretrained(folder)
    if volume is not None:
        ranges = {"train": ["2023-01-01", "2023-01-24"], "val": ["2023-01-25", "2023-01-31"]}
        record = {"stage": "predictor", "initial_weights": "random", "data": {"fingerprints": {}, "ranges": ranges}}
        record |= {"settings": {"volume": volume, "model": "kronos-tiny"}, "synthetic": True}
        (folder / RECORD_FILE).write_text(json.dumps(record))
    return folder


@pytest.mark.parametrize(("recorded", "expected"), [(False, False), (True, True), (None, True)])
def test_a_checkpoint_knows_whether_it_saw_volume(tmp_path, tiny_tokenizer, tiny_predictor, recorded, expected):
    tokenizer, predictor = saved(tmp_path / "t", tiny_tokenizer, None), saved(tmp_path / "p", tiny_predictor, recorded)
    assert Forecaster.from_pretrained(tokenizer, predictor, device="cpu").volume is expected
    assert Forecaster.from_pretrained(tokenizer, predictor, device="cpu", volume=False).volume is False


@pytest.mark.parametrize(
    ("recorded", "asked", "used"), [(False, True, False), (True, False, True), (None, False, False), (None, True, True)]
)
def test_an_evaluation_follows_the_checkpoint_and_its_setting_where_that_is_silent(
    tmp_path, tiny_tokenizer, tiny_predictor, caplog, recorded, asked, used
):
    predictor, tokenizer = saved(tmp_path / "p", tiny_predictor, recorded), saved(tmp_path / "t", tiny_tokenizer, None)
    arguments = [f"predictor={predictor}", f"tokenizer={tokenizer}", f"data.volume={str(asked).lower()}"]
    with caplog.at_level(logging.INFO):
        forecaster, _ = find_forecaster(check_evaluation(composed("evaluate", *QUICK, *arguments)), None)
    assert forecaster.volume is used
    assert ("and forecasts the same way" in caplog.text) is (recorded is not None and recorded != asked)


def test_a_tokenizer_tuned_with_volume_is_not_taken_for_a_predictor_without(tmp_path, monkeypatch):
    run(tmp_path, monkeypatch, "stage=tokenizer", "stage.max_epochs=1", "+trainer.limit_train_batches=1")
    data = build_datamodule(settings_of("stage=predictor").data)
    data.prepare_data()
    for volume, expected in (("true", "fine-tuned on this data"), ("false", "was fine-tuned with volume")):
        settings = settings_of("stage=predictor", f"data.volume={volume}")
        _, source, _ = find_tokenizer(settings, "auto", data)
        assert expected in source
