"""The commands lose nothing that is in their way, and no two of them write to one place at once."""

import os
import shutil

import pytest

from kronos_lightning.storage import Lock
from tests.helpers.commands import QUICK_EVALUATE, QUICK_TRAIN, command
from tests.helpers.paths import GOLDEN

HOURS = GOLDEN / "btc_usdt_1h_rows_500_559.csv"


def test_the_doctor_removes_no_folder_but_its_own_on_the_same_file(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        shutil.copy(HOURS, tmp_path / name / "btc.csv")
    (tmp_path / "out" / "btc").mkdir(parents=True)
    (tmp_path / "out" / "btc" / "notes.txt").write_text("mine")

    def examine(name):
        return command("kronos_lightning.data.doctor", f"{name}/btc.csv", "output_dir=out", cwd=tmp_path).stderr

    assert "moved to out/btc.2" in examine("one")
    assert [path.read_text() for path in (tmp_path / "out").glob("btc.*/notes.txt")] == ["mine"]
    assert "moved to out/btc.2" in examine("two")
    assert len(list((tmp_path / "out").glob("btc*/doctor.json"))) == 2


@pytest.mark.parametrize("place", ["run", "run/inside"])
def test_a_file_in_place_of_a_run_is_refused_and_stays(tmp_path, place):
    (tmp_path / "run").write_text("mine")
    result = command("train.py", *QUICK_TRAIN, f"run_dir={place}", cwd=tmp_path, check=False)
    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        "error: run: is a file, but a folder is needed; move it away or name another folder"
    ]
    assert os.listdir(tmp_path) == ["run"]
    assert (tmp_path / "run").read_text() == "mine"


@pytest.mark.parametrize(
    ("script", "arguments", "key"),
    [
        ("train.py", [*QUICK_TRAIN, "run_dir=place"], "run_dir"),
        ("train.py", [*QUICK_TRAIN, "run_dir=place", "resume=auto"], "run_dir"),
        ("evaluate.py", [*QUICK_EVALUATE, "evaluation.output_dir=place"], "evaluation.output_dir"),
        ("train.py", ["-m", *QUICK_TRAIN, "seed=1,2", "hydra.sweep.dir=place"], "hydra.sweep.dir"),
    ],
)
def test_the_second_command_in_one_place_is_refused_at_once_and_told_the_first(tmp_path, script, arguments, key):
    with Lock(tmp_path / "place"):
        result = command(script, *arguments, cwd=tmp_path, check=False)
    assert result.returncode == 1
    assert f"error: place: in use by process {os.getpid()} since 2" in result.stderr
    assert f"; wait until it ends, or set another {key}" in result.stderr
    assert not (tmp_path / "place").exists()
