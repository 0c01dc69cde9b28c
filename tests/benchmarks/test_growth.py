"""The growth script measures in tiny sizes; `make bench-growth` measures for docs/experiments/growth.md."""

import contextlib
import io
import json
import sys

import pytest

from tests.helpers import growth
from tests.helpers.growth import prepare, slope
from tests.helpers.growth_pictures import draw


def test_prepare_is_measured_from_the_files_to_the_first_batch(tmp_path, monkeypatch):
    def numbers(command):  # in this process, which has the libraries in memory
        text = io.StringIO()
        with monkeypatch.context() as patch, contextlib.redirect_stdout(text):
            patch.setattr(sys, "argv", command[2:])
            exec(command[2], {})
        return json.loads(text.getvalue())

    monkeypatch.setattr(growth, "numbers", numbers)
    row = prepare(tmp_path, 2000, symbols=2)
    assert (row["candles"], row["symbols"]) == (4000, 2)
    assert min(row[name] for name in ("seconds", "check seconds", "load seconds", "processed bytes")) > 0
    assert not list(tmp_path.rglob("*.csv"))


def test_a_slope_of_one_is_linear_and_of_two_quadratic():
    assert slope([1, 10, 100, 1000], [5, 3, 30, 300]) == pytest.approx(1)
    assert slope([10, 100, 1000], [1, 100, 10_000]) == pytest.approx(2)


def test_each_part_has_a_picture(tmp_path):
    prepared = [{"candles": n, "seconds": n, "MiB": n, "load seconds": n, "load MiB": n} for n in (10, 100)]
    forecasts = [{"known": n, "horizon": n, "seconds": n} for n in (10, 100)]
    evaluated = [{"cutoffs": 1, "paths": 5, "seconds": 1}, {"cutoffs": 2, "paths": 9, "seconds": 2}]
    trained = [{"processes": 1, "threads": 2, "windows/s": 3.0}]
    rows = {"prepare": prepared, "symbols": prepared, "context": forecasts, "horizon": forecasts}
    draw(rows | {"evaluate": evaluated, "training": trained}, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {f"growth-{name}.png" for name in ("prepare", "forecast", "evaluate")}
