"""What stands in the way is set aside, and never lost; at no moment is there nothing."""

import os
import stat
import subprocess
import sys
import threading

import numpy as np
import pytest
from safetensors.numpy import save_file

from kronos_lightning.storage import StorageError, archive, atomic_directory, atomic_path, clear_leftovers, folders
from tests.helpers.paths import ROOT

WEIGHTS = {"weight": np.ones(2)}
WRITE = """
import os, signal, sys
from pathlib import Path
from kronos_lightning.storage import atomic_directory, atomic_path
path = Path(sys.argv[1])
with atomic_path(path / "file.txt"), atomic_directory(path / "folder") as place:
    (place / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def write(path, text, **options):
    with atomic_directory(path, **options) as place:
        (place / "result").write_text(text)


def test_what_is_set_aside_gets_the_time_of_its_last_change_and_replaces_nothing(tmp_path):
    for name in ("", "+"):
        place = tmp_path / "report"
        place.mkdir()
        (place / "file").write_text(name)
        os.utime(place, (1_700_000_000, 1_700_000_000))
        aside = archive(place)
        assert aside.name == f"report.2023-11-14_22-13-20{name}"
        assert (aside / "file").read_text() == name
        assert not place.exists()
    assert archive(tmp_path / "report") is None


@pytest.fixture(params=[True, False], ids=["exchange", "two renames"])
def any_system(request, monkeypatch):
    """Both ways to exchange: in one step, and on a system that cannot do that."""
    if not request.param:
        monkeypatch.setattr(folders, "_renameat2", lambda *arguments: False)


@pytest.mark.usefixtures("any_system")
def test_a_folder_of_this_project_is_replaced_and_leaves_nothing(tmp_path):
    for text in ("one", "two"):
        write(tmp_path / "made", text, may_gain=["added.json"])
        assert (tmp_path / "made" / "result").read_text() == text
        (tmp_path / "made" / "added.json").write_text("")
    assert os.listdir(tmp_path) == ["made"]


@pytest.mark.usefixtures("any_system")
@pytest.mark.parametrize(
    "kind", ["folder of a user", "own folder with a note", "other origin", "link", "damaged marker"]
)
def test_what_this_project_did_not_make_is_set_aside(tmp_path, caplog, kind):
    path, real = tmp_path / "place", tmp_path / "place"
    if kind == "link":
        real = tmp_path / "elsewhere"
        path.symlink_to(real)
    if kind in ("user's folder", "link"):
        real.mkdir()
    else:
        write(path, "first", origin="a.csv" if kind == "other origin" else "b.csv")
    (real / ("result" if kind == "other origin" else "notes.txt")).write_text("precious")
    if kind == "damaged marker":
        next(path.glob(".*.json")).write_text("[]")
    write(path, "second", origin="b.csv")
    assert (path / "result").read_text() == "second"
    (aside,) = tmp_path.glob("place.*")
    assert "precious" in {file.read_text() for file in aside.iterdir()}
    assert f"moved to {aside}" in caplog.text


def test_the_earlier_folder_is_kept_on_request(tmp_path):
    for text in ("one", "two"):
        write(tmp_path / "report", text, keep=True)
    (aside,) = tmp_path.glob("report.*")
    assert (aside / "result").read_text() == "one"


def test_a_failure_leaves_what_was_there(tmp_path):
    write(tmp_path / "made", "one")
    with pytest.raises(ZeroDivisionError):
        write(tmp_path / "made", 1 / 0)
    assert (tmp_path / "made" / "result").read_text() == "one"
    assert os.listdir(tmp_path) == ["made"]


def test_a_file_in_the_way_is_refused_before_any_work(tmp_path):
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "inside"):
        with pytest.raises(StorageError, match=r"file: is a file, but a folder is needed"), atomic_directory(path):
            raise AssertionError("begun")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_reader_finds_a_whole_folder_at_every_moment(tmp_path):
    path, stop, missing = tmp_path / "model", threading.Event(), []
    write(path, "0")

    def read():
        while not stop.is_set():
            try:
                os.stat(path / "result")
            except FileNotFoundError:
                missing.append(True)

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(40):
        write(path, str(i))
    stop.set()
    reader.join()
    assert not missing


def test_leftovers_of_killed_processes_are_removed_and_nothing_else(tmp_path):
    (tmp_path / ".notes").write_text("mine")
    (tmp_path / ".folder.mine").mkdir()
    for _ in range(2):
        subprocess.run([sys.executable, "-c", WRITE, tmp_path], cwd=ROOT, check=False)
        assert len(list(tmp_path.glob(".*kronos-tmp*"))) == 2  # the second run removed those of the first
    with atomic_path(tmp_path / "other.txt"), atomic_directory(tmp_path / "living") as place:
        clear_leftovers(tmp_path)
        assert place.is_dir()  # in use
        assert len(list(tmp_path.glob(".*kronos-tmp*"))) == 2
    assert sorted(os.listdir(tmp_path)) == [".folder.mine", ".notes", "living", "other.txt"]


def test_files_of_a_user_in_a_leftover_stay(tmp_path):
    subprocess.run([sys.executable, "-c", WRITE, tmp_path], cwd=ROOT, check=False)
    (leftover,) = tmp_path.glob(".folder.*")
    (leftover / ".kronos-lightning.json").write_text('{"files": ["half"], "may_gain": []}')
    (leftover / "notes.txt").write_text("mine")
    clear_leftovers(tmp_path)
    assert (leftover / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_permissions_are_those_of_any_new_file(tmp_path, mask):
    before = os.umask(mask)
    try:
        with atomic_path(tmp_path / "file") as place:
            place.write_text("")
        with atomic_path(tmp_path / "weights") as place:
            save_file(WEIGHTS, place)  # which leaves a file of its owner alone
        with atomic_directory(tmp_path / "folder") as place:
            (place / "inside").mkdir()
            save_file(WEIGHTS, place / "inside" / "weights")
    finally:
        os.umask(before)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o666 & ~mask}
    assert modes[tmp_path / "folder"] == 0o777 & ~mask
