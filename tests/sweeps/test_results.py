"""What a sweep leaves: table, plot, commands."""

import shlex
import sys
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.image import imread

from kronos_lightning.sweeps.plot import sweep_figure
from kronos_lightning.sweeps.report import write
from kronos_lightning.sweeps.results import (
    RECORD,
    Record,
    Trial,
    best,
    command_of,
    command_to_continue,
    find_earlier,
    table_of,
)


def trial(rate, value=None, status="finished", stage="tokenizer", mode="min", more=("seed=1",)):
    metrics = {} if value is None else {"val/loss": value, "best_epoch": 3}
    return Trial([f"stage.learning_rate={rate}", *more], stage, f"runs/{rate}", "val/loss", mode, status, metrics, 2.0)


def record(folder, *trials, swept=("stage.learning_rate",)):
    made = Record(folder, {"command": "this"}, list(swept))
    made.trials += trials
    return made


@pytest.fixture
def mixed(tmp_path):
    return record(
        tmp_path,
        trial(1e-3, status="failed: out of memory"),
        trial(1e-4, 3.0, stage="predictor"),
        trial(1e-2, 2.0),
        trial(1e-5, status="interrupted"),
        trial(1e-1, 1.0),
    )


def test_the_table_has_the_best_first_within_each_stage(mixed):
    table = table_of(mixed)
    assert list(table["stage"]) == ["tokenizer"] * 4 + ["predictor"]
    assert list(table["stage.learning_rate"]) == [1e-1, 1e-2, 1e-3, 1e-5, 1e-4]
    assert list(table["trial"]) == [4, 2, 0, 3, 1]


def test_where_more_is_better_the_greatest_is_first(tmp_path):
    trials = [trial(1, 0.5, mode="max"), trial(2, 0.7, mode="max"), trial(3, 0.6, mode="max")]
    made = record(tmp_path, *trials)
    assert list(table_of(made)["val/loss"]) == [0.7, 0.6, 0.5]
    assert best(made)["tokenizer"].run_dir == "runs/2"


def test_a_failed_trial_is_never_the_best_whatever_metrics_it_left(tmp_path):
    made = record(tmp_path, trial(1, 0.1, status="failed: NaN"), trial(2, 0.7))
    assert best(made)["tokenizer"].run_dir == "runs/2"


def test_the_files_are_written_and_undefined_metrics_are_dashes(mixed, tmp_path, capsys):
    write(mixed)
    assert {path.name for path in tmp_path.iterdir()} == {"sweep.csv", "sweep.png", "best.sh"}
    assert len(pd.read_csv(tmp_path / "sweep.csv")) == 5
    assert imread(tmp_path / "sweep.png").shape[0] > 300
    shown = capsys.readouterr().out
    assert "–" in shown
    assert "nan" not in shown
    assert "failed: out of memory" in shown


def test_of_the_table_only_the_status_is_broken_over_lines(tmp_path, capsys):
    keys = [f"stage.a_setting_with_a_long_name_{number}" for number in range(8)]
    more = [f"{key}=7.3626e-06" for key in keys]
    trials = [trial(7.3626e-06, 1.0, more=more), trial(1, status=f"failed: {'no space left ' * 20}", more=more)]
    write(record(tmp_path, *trials, swept=["stage.learning_rate", *keys]))
    lines = capsys.readouterr().out.splitlines()
    assert max(line.count("a_setting_with_a_long_name") for line in lines) == 8
    assert sum(line.count("7.3626e-06") for line in lines) == 17
    assert sum("no space left" in line for line in lines) > 1


def test_a_sweep_of_which_nothing_finished_has_a_table_and_no_plot(tmp_path):
    write(record(tmp_path, trial(1, status="not run"), trial(2, status="failed: x")))
    assert {path.name for path in tmp_path.iterdir()} == {"sweep.csv"}


@pytest.mark.parametrize("swept", [["stage"], ["stage", "data.fold"]])
def test_where_only_stage_and_fold_vary_there_is_no_best_and_no_plot(tmp_path, capsys, swept):
    write(record(tmp_path, trial(1, 2.0), trial(2, 3.0, stage="predictor", more=["data.fold=0"]), swept=swept))
    assert {path.name for path in tmp_path.iterdir()} == {"sweep.csv"}
    assert "best val/loss" not in capsys.readouterr().out


def test_folds_are_apart_as_stages_are(tmp_path, capsys):
    figures = [(0, 1, 2.0), (0, 2, 1.0), (1, 1, 7.0), (1, 2, 8.0)]
    trials = [trial(rate, value, more=[f"data.fold={fold}"]) for fold, rate, value in figures]
    made = record(tmp_path, *trials, swept=["data.fold", "stage.learning_rate"])
    assert list(table_of(made)["val/loss"]) == [1, 2, 7, 8]
    assert {group: t.value for group, t in best(made).items()} == {"tokenizer, fold 0": 1, "tokenizer, fold 1": 7}
    write(made)
    assert "(metrics of different folds are not comparable)" in " ".join(capsys.readouterr().out.split())
    assert "# tokenizer, fold 1: val/loss 7\n" in (tmp_path / "best.sh").read_text()
    assert [axes.get_title("left").split(", best")[0] for axes in sweep_figure(made).axes] == list(best(made))


def test_brackets_of_a_reason_are_shown(tmp_path, capsys):
    write(record(tmp_path, trial(1, 1.0), trial(2, status="failed: [/a,b] is none of [red]")))
    assert "failed: [/a,b] is none of [red]" in capsys.readouterr().out


def test_the_commands_can_be_pasted(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", "a=[1,2],[3]", "resume=null"])
    one = trial(1, 1.0, more=["data.val_time_range=[2023-01-01,2023-02-01]", "sweep=predictor"])
    assert shlex.split(command_of(one)) == [
        "python", "train.py", "stage.learning_rate=1", "data.val_time_range=[2023-01-01,2023-02-01]",
    ]  # fmt: skip
    assert shlex.split(command_to_continue()) == ["python", "train.py", "-m", "a=[1,2],[3]", "resume=auto"]


def test_a_record_is_found_again_by_what_was_swept(tmp_path):
    for name, identity in (("old", {"a": 1}), ("new", {"a": 1}), ("other", {"a": 2})):
        (tmp_path / name).mkdir()
        made = Record(tmp_path / name, identity, ["seed"])
        made.trials.append(trial(1, 2.0))
        made.save()
    (tmp_path / "of evaluate.py").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / RECORD).write_text("{")
    assert find_earlier(tmp_path, {"a": 1}) == tmp_path / "new"
    assert find_earlier(tmp_path, {"a": 3}) is None
    assert Record(tmp_path / "new", {"a": 1}, ["seed"]).trials == [trial(1, 2.0)]


def dots(axes):
    """Places of the dots of a panel, by label."""
    return {found.get_label(): found.get_offsets().tolist() for found in axes.collections}


def test_the_plot_has_a_logarithmic_axis_for_rates_and_places_for_choices(tmp_path):
    trials = [
        trial(rate, value, more=[f"stage.s1_condition={name}"])
        for rate, value, name in ((1e-6, 3.0, "teacher"), (1e-5, 1.0, "sampled"), (1e-4, 2.0, "teacher"))
    ]
    trials.append(trial(1e-4, status="failed: x", more=["stage.s1_condition=sampled"]))
    swept = ["stage.learning_rate", "stage.s1_condition"]
    rates, conditions = sweep_figure(record(tmp_path, *trials, swept=swept)).axes
    assert (rates.get_xscale(), conditions.get_xscale()) == ("log", "linear")
    assert (rates.get_xlabel(), conditions.get_xlabel()) == ("learning_rate", "s1_condition")
    assert dots(rates) == {
        "finished": [[1e-6, 3.0], [1e-5, 1.0], [1e-4, 2.0]], "best": [[1e-5, 1.0]], "failed": [[1e-4, 0.03]]
    }  # fmt: skip
    assert dots(conditions)["finished"] == [[1, 3.0], [0, 1.0], [1, 2.0]]
    assert [label.get_text() for label in conditions.get_xticklabels()] == ["sampled", "teacher"]


def test_an_absurd_rate_that_failed_does_not_stretch_the_axis(tmp_path):
    trials = [trial(1e-4, 3.0), trial(1e-3, 1.0), trial(1e30, status="failed: x"), trial(-1.0, status="failed: x")]
    (axes,) = sweep_figure(record(tmp_path, *trials)).axes
    assert [x for x, _ in dots(axes)["failed"]] == [1e-3, 1e-4]
    low, high = axes.get_xlim()
    assert 1e-5 < low < high < 1e-2


@pytest.mark.parametrize("values", [[("1e-3", 2.0)], [("1e-3", 2.0), ("1e-2", 2.0)], [("null", 1.0), ("0.99", 2.0)]])
def test_the_plot_takes_one_trial_equal_metrics_and_null(tmp_path, values):
    made = record(tmp_path, *(trial(rate, value) for rate, value in values))
    sweep_figure(made).savefig(tmp_path / "a.png", dpi=30)
    assert Path(tmp_path / "a.png").exists()


def test_a_record_of_an_earlier_version_is_read(tmp_path):
    record(tmp_path, trial(0.1, 0.5)).save()
    content = (tmp_path / RECORD).read_text()
    (tmp_path / RECORD).write_text(content.replace('"metrics"', '"figures"'))
    (found,) = record(tmp_path).trials
    assert found == trial(0.1, 0.5)
    assert found.value == 0.5
