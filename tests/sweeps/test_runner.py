"""A sweep around trials that reach what their learning rate says: what fails, what is interrupted, what goes on."""

import json
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from hydra import version
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from matplotlib.figure import Figure
from omegaconf import OmegaConf

from kronos_lightning.config.resolvers import register_resolvers, swept_suffix
from tests.helpers.paths import ROOT

CONFIG = f"""
defaults:
  - stage: tokenizer
  - regularization: default
  - paths: default
  - _self_
  - sweep: grid
  - override hydra/job_logging: none
  - override hydra/hydra_logging: none
data: {{name: btc, fold: null, csv_path: null, batch_size: 50}}
callbacks: {{best: {{monitor: val/loss, mode: min}}}}
seed: 100
resume: null
run_dir: ${{paths.models}}/finetune_${{stage.name}}_${{data.name}}${{swept:}}
hydra:
  mode: MULTIRUN
  output_subdir: null
  searchpath: [file://{ROOT}/conf]
  sweep: {{dir: "${{paths.sweeps}}/${{now:%H-%M-%S.%f}}", subdir: .}}
"""  # the whole of conf/ takes long to compose, again and again


class Stop(SystemExit):
    """As a run ends that noted a signal."""


def trial_of(figure=lambda cfg: cfg.stage.learning_rate, ends=None):
    """A task that leaves a finished run, or ends as `ends(cfg)` says; and the list of what it was called with."""
    called = []

    def task(cfg):
        called.append(cfg.stage.learning_rate)
        info = {"status": "running", "started": datetime.now(UTC).isoformat(timespec="seconds")}
        path = Path(cfg.run_dir) / "run_info.json"
        if cfg.resume == "auto" and path.exists() and json.loads(path.read_text())["status"] == "finished":
            called.pop()
            return json.loads(path.read_text())["metrics"]["val/loss"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(info))
        if ends:
            ends(cfg)
        value = figure(cfg)
        done = {"status": "finished", "metrics": {"val/loss": value, "best_epoch": 2}, "seconds": 1.5}
        path.write_text(json.dumps(info | done))
        return value

    return task, called


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """Run a sweep in this process; returns its exit code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(version.VersionBase.instance(), "version_base", version.Version("1.3"))
    monkeypatch.setattr("kronos_lightning.sweeps.report.sweep_figure", lambda record: Figure((1, 1)))  # faster
    register_resolvers()
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "train.yaml").write_text(CONFIG)

    def run(task, *overrides):
        monkeypatch.setattr(sys, "argv", ["train.py", "-m", *overrides])
        GlobalHydra.instance().clear()
        hydra = Hydra.create_main_hydra2("train", create_config_search_path(str(tmp_path / "conf")))
        try:
            hydra.multirun("train", task, list(overrides))
            return 0
        except SystemExit as stop:
            return stop.code
        finally:
            GlobalHydra.instance().clear()

    return run


def folders(tmp_path):
    return sorted((tmp_path / "outputs" / "sweeps").glob("[!.]*"))


def table(tmp_path, place=-1):
    return pd.read_csv(folders(tmp_path)[place] / "sweep.csv")


def exits(code):
    raise Stop(code)


def raises(error):
    raise error


def at(rate, end):
    return lambda cfg: end() if cfg.stage.learning_rate == rate else None


def one_line():
    try:
        raise ValueError("the candles are from next year")
    except ValueError:
        sys.exit(1)


FAILURES = {
    0.2: (lambda: raises(RuntimeError("CUDA out of memory")), "failed: CUDA out of memory"),
    0.3: (lambda: raises(MemoryError()), "failed: MemoryError"),
    0.4: (lambda: raises(RuntimeError("-- Process 0\nTraceback\nOSError: disk full")), "failed: OSError: disk full"),
    0.5: (lambda: sys.exit(1), "failed: SystemExit: 1"),
    0.6: (one_line, "failed: the candles are from next year"),
    0.7: (lambda: None, "failed: val/loss is nan"),
}


def test_each_failed_trial_is_a_row_with_its_reason_and_the_others_run(tmp_path, sweep):
    task, called = trial_of(
        figure=lambda cfg: float("nan") if cfg.stage.learning_rate == 0.7 else cfg.stage.learning_rate,
        ends=lambda cfg: FAILURES.get(cfg.stage.learning_rate, (lambda: None,))[0](),
    )
    assert sweep(task, "stage.learning_rate=0.8,0.7,0.6,0.5,0.4,0.3,0.2,0.1") == 1
    assert len(called) == 8
    rows = table(tmp_path).set_index("stage.learning_rate")
    assert list(rows.index[:2]) == [0.1, 0.8]
    assert list(rows["status"][:2]) == ["finished"] * 2
    assert {rate: rows["status"][rate] for rate in FAILURES} == {rate: reason for rate, (_, reason) in FAILURES.items()}
    assert rows["val/loss"][2:].isna().all()


ENDS = [(lambda: exits(130), 130), (lambda: signal.raise_signal(signal.SIGTERM), 143)]


@pytest.mark.parametrize(("end", "code"), ENDS)
def test_an_interrupted_sweep_leaves_its_table_and_goes_on(tmp_path, sweep, end, code):
    command = "stage.learning_rate=0.4,0.3,0.2"
    task, called = trial_of(ends=at(0.3, end))
    assert sweep(task, command) == code
    assert called == [0.4, 0.3]
    assert sorted(table(tmp_path)["status"]) == ["finished", "interrupted", "not run"]

    task, called = trial_of()
    assert sweep(task, command, "resume=auto") == 0
    assert called == [0.3, 0.2]
    assert len(folders(tmp_path)) == 1
    assert list(table(tmp_path)["val/loss"]) == [0.2, 0.3, 0.4]
    assert "resume" not in (folders(tmp_path)[0] / "best.sh").read_text()


def test_a_failed_trial_is_tried_again_when_the_sweep_goes_on(tmp_path, sweep):
    command = "stage.learning_rate=0.2,0.1"
    sweep(trial_of(ends=at(0.2, lambda: raises(OSError("no space left"))))[0], command)
    task, called = trial_of()
    assert sweep(task, command, "resume=auto") == 0
    assert called == [0.2]
    assert set(table(tmp_path)["status"]) == {"finished"}


def test_another_command_is_another_sweep(tmp_path, sweep):
    sweep(trial_of()[0], "stage.learning_rate=0.2,0.1", f"hydra.sweep.dir={tmp_path}/outputs/sweeps/a")
    sweep(trial_of()[0], "stage.learning_rate=0.2,0.3", "resume=auto", f"hydra.sweep.dir={tmp_path}/outputs/sweeps/b")
    assert [folder.name for folder in folders(tmp_path)] == ["a", "b"]
    assert "error" in str(sweep(trial_of()[0], "seed=1,2", f"hydra.sweep.dir={tmp_path}/outputs/sweeps/a"))
    assert list(table(tmp_path, 0)["stage.learning_rate"]) == [0.1, 0.2]


def test_trials_that_would_share_a_folder_are_refused_before_one_runs(tmp_path, sweep):
    task, called = trial_of()
    assert "two trials would share the folder here" in sweep(task, "stage.learning_rate=0.2,0.1", "run_dir=here")
    assert called == []


def test_every_trial_has_a_folder_of_its_own_whatever_is_swept(tmp_path, sweep):
    task, _ = trial_of()
    swept = [
        "stage.betas=[0.9,0.99],[0.9,0.95]",
        f"data.csv_path=a/{'x' * 200}1,a_{'x' * 200}1",
    ]
    assert sweep(task, *swept) == 0
    names = {path.name for path in (tmp_path / "outputs" / "models").iterdir()}
    assert len(names) == 4
    assert max(map(len, names)) < 200
    assert not any(set(name) & set("[]'\" *?") for name in names)


def test_a_preset_sweeps_by_itself_and_names_its_folders(tmp_path, sweep):
    assert sweep(trial_of()[0], "sweep=learning_rate", "stage=predictor") == 0
    names = {path.name for path in (tmp_path / "outputs" / "models").iterdir()}
    assert "finetune_predictor_btc-learning_rate=2e-05" in names
    assert len(names) == 6
    best = (folders(tmp_path)[0] / "best.sh").read_text()
    assert "python train.py stage.learning_rate=5e-06 stage=predictor\n" in best


NAMES = [
    (["stage.learning_rate"], ["stage=predictor", "stage.learning_rate=2e-05"], "-learning_rate=2e-05"),
    (["stage", "data", "data.fold"], ["stage=predictor", "data=btc", "data.fold=1"], ""),
    (["model", "seed"], ["model=b", "stage=tokenizer", "seed=1"], "-model=b-seed=1"),
    ([], ["seed=1"], ""),
]


@pytest.mark.parametrize(("swept", "task", "expected"), NAMES)
def test_a_trials_folder_is_named_after_what_is_swept(monkeypatch, swept, task, expected):
    fake = OmegaConf.create({"mode": "MULTIRUN", "overrides": {"task": task}, "sweeper": {"swept": swept}})
    monkeypatch.setattr(HydraConfig, "initialized", staticmethod(lambda: True))
    monkeypatch.setattr(HydraConfig, "get", staticmethod(lambda: fake))
    assert swept_suffix() == expected


@pytest.mark.parametrize("preset", ["tokenizer", "predictor"])
def test_the_presets_of_the_stages_draw_and_keep_to_their_stage(tmp_path, sweep, preset):
    task, called = trial_of()
    assert sweep(task, f"sweep={preset}", "hydra.sweeper.trials=3", "stage.weight_decay=0.1") == 0
    assert len(set(called)) == 3
    rows = table(tmp_path)
    assert set(rows["stage"]) == {preset}
    assert "stage.weight_decay" not in rows


def test_optuna_minimises_the_monitored_figure_and_its_study_goes_on(tmp_path, sweep):
    command = ["stage.learning_rate=tag(log,interval(1e-6,1e-2))", "hydra/sweeper=optuna", "hydra.sweeper.trials=4"]
    task, called = trial_of(ends=lambda cfg: exits(130) if len(called) == 3 else None)
    assert sweep(task, *command) == 130
    again, more = trial_of()
    assert sweep(again, *command, "resume=auto") == 0
    assert more[0] == called[2]
    assert len({*called, *more}) == 4
    rows = table(tmp_path)
    assert len(rows) == 4
    assert set(rows["status"]) == {"finished"}
    assert rows["val/loss"].is_monotonic_increasing


def test_optuna_does_not_compare_stages_or_folds(sweep):
    assert "sweep a single stage" in sweep(trial_of()[0], "stage=tokenizer,predictor", "hydra/sweeper=optuna")
    assert "sweep a single fold" in sweep(trial_of()[0], "data.fold=0,1", "hydra/sweeper=optuna")


def test_a_predictor_waits_for_the_tokenizer_where_trials_run_in_parallel(tmp_path, sweep, monkeypatch):
    from kronos_lightning.sweeps.runner import Sweep

    batches = []
    launch = Sweep._launch
    monkeypatch.setattr(Sweep, "_launch", lambda self, trials: batches.append(trials) or launch(self, trials))
    launcher = "hydra.launcher._target_=hydra._internal.core_plugins.basic_launcher.BasicLauncher"
    monkeypatch.setattr("kronos_lightning.sweeps.runner.BasicLauncher", type("Other", (), {}))
    assert sweep(trial_of()[0], "stage=tokenizer,predictor", "seed=1,2", launcher) == 0
    assert [[trial.stage for trial in batch] for batch in batches] == [["tokenizer"] * 2, ["predictor"] * 2]


@pytest.mark.parametrize("full", ["", "1"])
def test_why_a_launcher_failed_is_one_line_and_a_traceback_where_asked_for(sweep, monkeypatch, caplog, full):
    monkeypatch.setenv("HYDRA_FULL_ERROR", full)
    dead = SimpleNamespace(launch=lambda *_, **__: raises(RuntimeError("no srun here")))
    monkeypatch.setattr("kronos_lightning.sweeps.runner.Sweep._launcher", lambda *_: dead)
    assert sweep(trial_of()[0], "stage.learning_rate=0.1") == 1
    (line,) = [line for line in caplog.records if "launcher" in line.getMessage()]
    assert line.getMessage() == "The launcher failed: no srun here"
    assert bool(line.exc_info) == bool(full)


def test_a_dead_launcher_costs_only_the_trials_that_had_not_finished(tmp_path, sweep, monkeypatch):
    from hydra._internal.core_plugins.basic_launcher import BasicLauncher

    launch = BasicLauncher.launch

    def dies(self, jobs, initial_job_idx):
        launch(self, jobs, initial_job_idx) if initial_job_idx != 1 else None
        if initial_job_idx < 2:
            raise RuntimeError("a worker was killed")
        return launch(self, jobs, initial_job_idx)

    monkeypatch.setattr(BasicLauncher, "launch", dies)
    assert sweep(trial_of()[0], "stage.learning_rate=0.1,0.2,0.3") == 1
    rows = table(tmp_path).set_index("trial").sort_index()
    assert list(rows["status"]) == ["finished", "failed: a worker was killed", "finished"]
