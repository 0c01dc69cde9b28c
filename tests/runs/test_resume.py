"""Resuming takes the last checkpoint that is whole, whatever happened to the others."""

import pytest
import torch

from kronos_lightning.runs.directory import RunError
from kronos_lightning.runs.resume import find_resume
from kronos_lightning.training.checkpoints import CONTENT


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    weights = {f"layer.{i}": torch.arange(float(6 * i)) for i in range(1, 3)}
    for step, name in enumerate(("previous.ckpt", "last.ckpt")):
        content = {"global_step": step, "state_dict": weights, "resume": {"random": [weights]}}
        torch.save(dict.fromkeys(CONTENT) | content, folder / name)
    return tmp_path


@pytest.mark.parametrize("damage", ["empty", "half", "text", "folder of the archive", "pickle"])
def test_damage_of_any_kind_means_the_previous_checkpoint(run, damage):
    path = run / "checkpoints" / "last.ckpt"
    content = path.read_bytes()
    end = content.rindex(b"PK\x01\x02")
    contents = {
        "empty": b"",
        "half": content[: len(content) // 2],
        "text": b"not a checkpoint",
        "folder of the archive": content[:end] + b"PK\x01\x02" + bytes(40) + content[end + 44 :],
        "pickle": b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.",
    }
    path.write_bytes(contents[damage])
    assert find_resume("auto", run) == run / "checkpoints" / "previous.ckpt"
    (run / "checkpoints" / "previous.ckpt").unlink()
    with pytest.raises(RunError, match=r"last.ckpt: damaged .*; set resume=PATH"):
        find_resume("auto", run)
