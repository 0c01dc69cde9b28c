"""Trackers: what they need, what they get, and which run they resume."""

import importlib.util
import json
import sqlite3
import time
import zipfile

import pandas as pd
import pytest
from lightning.pytorch.utilities import rank_zero_only
from matplotlib.figure import Figure

from kronos_lightning.config.validation import check_training
from kronos_lightning.training.trackers import CSV, Comet, MLflow, TrackerError, WeightsAndBiases
from tests.helpers.commands import QUICK_TRAIN, command
from tests.helpers.configuration import composed

NAMES = ["comet", "mlflow", "wandb"]


def tracker(name, folder, run="run"):
    run_dir = str(folder / run)
    if name == "mlflow":
        return MLflow(run_dir, "kronos", None, str(folder / "store"))
    return {"comet": Comet, "wandb": WeightsAndBiases}[name](run_dir, "kronos", offline=True)


def run_id(name, folder, run="run"):
    return (folder / run / "logs" / f"{name}_run.txt").read_text()


def kept_by_comet(folder):
    """All messages of the offline archives of a run."""
    texts = []
    for path in sorted((folder / "logs" / "comet").glob("*.zip")):
        with zipfile.ZipFile(path) as archive:
            texts.append(archive.read("messages.json").decode())
    return "\n".join(texts)


def written_by_wandb(folders):
    return b"".join(path.read_bytes() for folder in folders for path in folder.glob("run-*.wandb"))


@pytest.mark.parametrize("name", NAMES)
def test_a_tracker_keeps_settings_metrics_and_plots_and_a_resumed_run_continues_there(name, tmp_path):
    ids = []
    for step in (1, 2):  # the second has been resumed
        one = tracker(name, tmp_path)
        one.log_hyperparams({"learning_rate": 0.125, "data": {"interval": "1h"}})
        one.log_metrics({"val/loss": 3.5 / step}, step)
        one.log_figure("val/paths", Figure(), step)
        one.finalize("success")
        ids.append(run_id(name, tmp_path))
    first, second = ids
    assert second == first

    if name == "mlflow":
        with sqlite3.connect(tmp_path / "store" / "mlflow.db") as base:
            assert base.execute("select value, step from metrics order by step").fetchall() == [(3.5, 1), (1.75, 2)]
            settings = dict(base.execute("select key, value from params"))
            assert base.execute("select run_uuid, status from runs").fetchall() == [(first, "FINISHED")]
        assert settings == {"learning_rate": "0.125", "data.interval": "1h"}
        assert len(list((tmp_path / "store").rglob("paths_*.png"))) == 2
    elif name == "wandb":
        folders = [path for path in (tmp_path / "run" / "logs" / "wandb").iterdir() if path.name.endswith(first)]
        assert len(folders) == 2  # one for each time it was at work, which wandb sync joins
        assert len(list((tmp_path / "run").rglob("*.png"))) == 2
        words, deadline = (b"learning_rate", b"0.125", b"data.interval", b"val/loss", b"1.75"), time.monotonic() + 20
        while not all(word in written_by_wandb(folders) for word in words):  # a process of wandb's own writes it
            assert time.monotonic() < deadline
            time.sleep(0.05)
    else:
        messages = kept_by_comet(tmp_path / "run")
        assert all(word in messages for word in ("learning_rate", "0.125", "data.interval", "val/loss", "1.75"))
        assert len(list((tmp_path / "run" / "logs" / "comet").glob(f"{first}*.zip"))) == 2


def test_each_trial_of_a_sweep_is_a_run_of_its_own(tmp_path):
    for run in ("a", "b"):
        one = tracker("wandb", tmp_path, run)
        one.log_metrics({"val/loss": 1.0}, 0)
        one.finalize("failed")
        assert run_id("wandb", tmp_path, run) in next((tmp_path / run / "logs" / "wandb").glob("offline-run-*")).name
    assert run_id("wandb", tmp_path, "a") != run_id("wandb", tmp_path, "b")


@pytest.mark.parametrize("name", NAMES)
def test_only_the_first_process_tracks(name, tmp_path, monkeypatch):
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    one = tracker(name, tmp_path)
    one.log_hyperparams({"learning_rate": 1.0})
    one.log_metrics({"val/loss": 1.0}, 0)
    one.log_figure("val/paths", Figure(), 0)
    one.finalize("success")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_package_is_named_with_the_extra_that_brings_it(name, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    with pytest.raises(
        TrackerError, match=rf"logger={name}: .* not installed: pip install 'kronos-lightning\[{name}\]'"
    ):
        tracker(name, tmp_path)


@pytest.mark.parametrize(("name", "cls", "variable"), [("comet", Comet, "COMET"), ("wandb", WeightsAndBiases, "WANDB")])
def test_a_missing_key_is_named_and_a_key_is_enough(name, cls, variable, tmp_path, monkeypatch):
    monkeypatch.delenv(f"{variable}_API_KEY", raising=False)
    with pytest.raises(TrackerError, match=f"{variable}_API_KEY, or stay offline: logger.{name}.offline=true"):
        cls(str(tmp_path), "kronos", offline=False)
    monkeypatch.setenv(f"{variable}_API_KEY", "secret")
    cls(str(tmp_path), "kronos", offline=False)


def test_wandb_mode_in_the_environment_needs_no_key(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert WeightsAndBiases(str(tmp_path), "kronos", offline=False).mode == "offline"


def test_a_service_that_refuses_is_told_in_a_sentence(tmp_path):
    one = MLflow(str(tmp_path / "run"), "kronos", "nonsense://server", str(tmp_path))
    with pytest.raises(TrackerError, match="logger=mlflow: cannot start"):
        one.log_metrics({"val/loss": 1.0}, 0)


def test_metrics_in_csv_survive_a_resume_and_take_new_columns(tmp_path):
    for step, more in ((1, {}), (2, {"val/crps": 0.5})):
        one = CSV(str(tmp_path), "logs", "")
        one.log_metrics({"val/loss": 3.5 / step, **more}, step)
        one.finalize("success")
    table = pd.read_csv(tmp_path / "logs" / "metrics.csv").set_index("step")
    assert table["val/loss"].tolist() == [3.5, 1.75]
    assert table["val/crps"].isna().tolist() == [True, False]


def test_several_loggers_compose(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:///somewhere")
    settings = check_training(composed("train", f"logger=[tensorboard,csv,{','.join(NAMES)}]"))
    assert set(settings.logger) == {"tensorboard", "csv", *NAMES}
    assert settings.logger["mlflow"]["tracking_uri"] == "file:///somewhere"


def test_a_run_that_lacks_a_key_stops_before_anything_is_made(tmp_path):
    env = {"WANDB_API_KEY": "", "WANDB_MODE": "online"}
    result = command("train.py", *QUICK_TRAIN, "logger=wandb", cwd=tmp_path, check=False, env=env)
    assert result.returncode == 1
    assert result.stderr.strip().startswith("error: logger=wandb: no key: set the environment variable WANDB_API_KEY")
    assert not list(tmp_path.iterdir())


def test_a_run_is_tracked_with_the_settings_that_it_is_compared_by(tmp_path):
    choices = ["logger=[csv,comet]", "logger.comet.offline=true", "stage.learning_rate=0.0123", "run_dir=run"]
    command("train.py", *QUICK_TRAIN, *choices, cwd=tmp_path)
    messages = kept_by_comet(tmp_path / "run")
    settings = json.loads((tmp_path / "run" / "run_info.json").read_text())["settings"]
    assert "0.0123" in messages
    assert all(f'"{name}"' in messages for name in settings)
    assert all(f'"{name}"' in messages for name in ("train/loss", "val/loss", "val/crps"))
    assert pd.read_csv(tmp_path / "run" / "logs" / "metrics.csv")["val/loss"].count() == 2
