"""The first process of a command reserves the folder of its results; the others of the same command do not."""

import pytest
from lightning.pytorch.utilities import rank_zero_only

from kronos_lightning.runs.directory import RunError, begin, reserve
from kronos_lightning.storage import InUseError


def test_a_folder_is_reserved_by_the_first_process_alone(tmp_path, monkeypatch):
    with reserve(tmp_path / "run", "run_dir"):
        with pytest.raises(InUseError, match="or set another run_dir"), reserve(tmp_path / "run", "run_dir"):
            raise AssertionError("reserved twice")
        monkeypatch.setattr(rank_zero_only, "rank", 1)
        with reserve(tmp_path / "run", "run_dir"):
            pass
        monkeypatch.undo()
        monkeypatch.setenv("NODE_RANK", "1")  # the first process of a second machine
        with reserve(tmp_path / "run", "run_dir"):
            pass
    monkeypatch.undo()
    with reserve(tmp_path / "run", "run_dir"):
        pass


def test_a_place_that_is_no_folder_of_its_own_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with (
        pytest.raises(RunError, match=r"run_dir=\.: the results need a folder of their own"),
        reserve(tmp_path.relative_to(tmp_path), "run_dir"),
    ):
        raise AssertionError("reserved")


def test_a_resumed_run_keeps_hidden_files_of_others(tmp_path):
    checkpoints = tmp_path / "checkpoints"
    (checkpoints / ".git").mkdir(parents=True)
    kept = [checkpoints / ".mine", checkpoints / ".git" / "config", tmp_path / ".notes"]
    for path in kept:
        path.write_text("mine")
    begin(tmp_path, {}, {}, None, resume=checkpoints / "last.ckpt")
    assert [path.read_text() for path in kept] == ["mine"] * 3
