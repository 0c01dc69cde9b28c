"""The search space, and the ways through it."""

import sys

import pytest

from kronos_lightning.sweeps.search import Bayesian, Space, SweepError, draws, grid

RATE = "stage.learning_rate=tag(log,interval(1e-6,1e-3))"


def values(trial):
    return dict(text.split("=", 1) for text in trial)


def test_a_grid_is_every_combination():
    space = Space.parse({}, ["seed=1", "stage.learning_rate=1e-3,1e-2", "data.batch_size=range(10,31,10)"])
    trials = grid(space).ask(None)
    assert len(trials) == 6
    assert trials[0] == ["seed=1", "stage.learning_rate=0.001", "data.batch_size=10"]
    assert trials[-1] == ["seed=1", "stage.learning_rate=0.01", "data.batch_size=30"]


def test_the_command_line_wins_over_a_preset_and_adds_to_it():
    preset = {"stage": "predictor", "stage.learning_rate": "1e-5,2e-5", "data.batch_size": "10,20"}
    space = Space.parse(preset, ["data.batch_size=50", "seed=1,2"])
    assert set(space.swept) == {"stage.learning_rate", "seed"}
    assert {values(t)["data.batch_size"] for t in grid(space).ask(None)} == {"50"}


def test_a_grid_hands_out_its_trials_in_parts():
    search = grid(Space.parse({}, ["seed=1,2,3"]))
    assert [len(search.ask(2)) for _ in range(3)] == [2, 1, 0]


def test_a_grid_refuses_an_interval():
    with pytest.raises(SweepError, match=r"stage.learning_rate: a grid .*hydra/sweeper=random"):
        grid(Space.parse({}, [RATE]))


@pytest.mark.parametrize("interval", ["interval(1,1)", "interval(2,1)", "tag(log,interval(0,1))"])
def test_an_impossible_interval_is_named(interval):
    with pytest.raises(SweepError, match=r"stage\.learning_rate: "):
        Space.parse({}, [f"stage.learning_rate={interval}"])


def test_draws_stay_within_their_space_and_repeat_with_their_seed():
    space = Space.parse({}, [RATE, "data.batch_size=int(interval(3,5))", "stage=tokenizer,predictor", "seed=7"])
    trials = draws(space, 60, seed=1).ask(None)
    rates = [float(values(t)["stage.learning_rate"]) for t in trials]
    assert all(1e-6 <= rate <= 1e-3 for rate in rates)
    assert 15 < sum(rate < 10**-4.5 for rate in rates) < 45  # even on a logarithmic axis
    assert {values(t)["data.batch_size"] for t in trials} == {"3", "4", "5"}
    assert {values(t)["stage"] for t in trials} == {"tokenizer", "predictor"}
    assert draws(space, 20, seed=1).ask(None) == trials[:20]
    assert draws(space, 20, seed=2).ask(None) != trials[:20]


def test_a_small_space_is_drawn_only_once():
    assert sorted(draws(Space.parse({}, ["seed=1,2,3"]), 10, seed=1).ask(None)) == [["seed=1"], ["seed=2"], ["seed=3"]]


def study(tmp_path, trials, arguments=(RATE, "seed=1,2"), direction="min"):
    return Bayesian(Space.parse({}, list(arguments)), trials, 5, tmp_path / "study.db", direction)


def test_a_study_goes_on_where_it_was_interrupted(tmp_path):
    first = study(tmp_path, 6)
    a, b, c = (first.ask(1)[0] for _ in range(3))
    first.tell(a, 1.0)
    first.tell(b, None)  # and c is interrupted
    second = study(tmp_path, 6)
    assert second.planned() == [a, b, c]
    assert second.ask(1) == [c]
    second.tell(c, 3.0)
    more = []
    while asked := second.ask(1):
        more += asked
        second.tell(asked[0], 2.0)
    assert len(more) == 3
    assert all(trial not in (a, b, c) for trial in more)
    assert [t.state.name for t in second.study.trials] == ["COMPLETE", "FAIL", *["COMPLETE"] * 4]
    assert second.study.best_value == 1.0
    assert study(tmp_path, 6).ask(None) == []


def test_a_study_learns_in_its_direction(tmp_path):
    search = study(tmp_path, 25, ["stage.learning_rate=interval(0,10)"], direction="max")
    found = []
    while asked := search.ask(1):
        found.append(float(values(asked[0])["stage.learning_rate"]))
        search.tell(asked[0], -abs(found[-1] - 7))
    assert sum(abs(x - 7) for x in found[-5:]) < 0.5 * sum(abs(x - 7) for x in found[:5])


def test_a_study_does_not_run_the_same_trial_twice(tmp_path):
    search = study(tmp_path, 6, ["seed=1,2"])
    asked = []
    while new := search.ask(2):
        asked += new
        for trial in new:
            search.tell(trial, float(values(trial)["seed"]))
    assert sorted(asked) == [["seed=1"], ["seed=2"]]


def test_ranges_are_numbers_to_a_study(tmp_path):
    search = study(tmp_path, 8, ["data.horizon=range(2,20,4)"])
    seen = set()
    while new := search.ask(1):
        seen.add(values(new[0])["data.horizon"])
        search.tell(new[0], 1.0)
    assert seen <= {"2", "6", "10", "14", "18"}
    assert len(seen) > 2


def test_a_missing_optuna_is_told_with_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(SweepError, match=r"pip install -e '\.\[optuna\]'; hydra/sweeper=random"):
        study(tmp_path, 3)
