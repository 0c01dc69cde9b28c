"""Flipped bits anywhere in last.ckpt: it is read as it was, or previous.ckpt takes its place."""

import random

import pytest
import torch

from kronos_lightning.runs.directory import RunError
from kronos_lightning.runs.resume import find_resume
from kronos_lightning.training.checkpoints import CONTENT, read_checkpoint

FLIPS = 2_000


def content():
    return dict.fromkeys(CONTENT, 1) | {
        "state_dict": {"weight": torch.arange(40.0), "bias": torch.ones(3)},
        "optimizer_states": [{"step": torch.tensor(5), "name": "AdamW"}],
    }


def same(one, two):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(two) and all(map(same, one, two))
    return one == two


def test_no_flipped_bit_is_read_as_another_content(tmp_path):
    path = tmp_path / "last.ckpt"
    torch.save(content(), path)
    whole, generator = path.read_bytes(), random.Random(0)
    damaged = 0
    for bit in generator.sample(range(8 * len(whole)), FLIPS):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        found, problem = read_checkpoint(path)
        damaged += found is None
        assert (found is None and problem) or same(found, content())
    assert damaged > FLIPS // 4


@pytest.mark.parametrize("cut", [0, 100, -30])
def test_a_damaged_last_checkpoint_means_the_previous_one(tmp_path, cut, caplog):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for name in ("last.ckpt", "previous.ckpt"):
        torch.save(content(), folder / name)
    assert find_resume("auto", tmp_path) == folder / "last.ckpt"
    (folder / "last.ckpt").write_bytes((folder / "last.ckpt").read_bytes()[:cut])
    assert find_resume("auto", tmp_path) == folder / "previous.ckpt"
    torch.save({"weights": 1}, folder / "last.ckpt")  # whole, but no checkpoint of a run
    assert find_resume("auto", tmp_path) == folder / "previous.ckpt"
    (folder / "previous.ckpt").write_bytes(b"")
    with pytest.raises(RunError, match=r"last\.ckpt: damaged .*previous\.ckpt: damaged"):
        find_resume("auto", tmp_path)
