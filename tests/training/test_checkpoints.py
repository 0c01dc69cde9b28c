"""Checkpoints of a run: the best so far is remembered wherever the folder stands; a full disk is a sentence."""

import shutil

import pytest
from safetensors import SafetensorError

from kronos_lightning.training.checkpoints import PretrainedCheckpoint, SavingError
from tests.helpers.training import fit, tokenizer_module


def best(directory):
    return PretrainedCheckpoint(str(directory), "best", monitor="val/loss")


@pytest.fixture
def trained(tiny_tokenizer, tmp_path):
    callback = best(tmp_path / "run")
    fit(tokenizer_module(tiny_tokenizer), tmp_path, enable_checkpointing=True, callbacks=[callback])
    return callback


@pytest.mark.parametrize("moved", [False, True])
def test_a_run_that_goes_on_knows_its_best_also_in_a_folder_that_was_moved(trained, moved, tmp_path):
    place = shutil.move(tmp_path / "run", tmp_path / "elsewhere") if moved else tmp_path / "run"
    found = best(place)
    found.load_state_dict(trained.state_dict())
    assert found.best_model_score == trained.best_model_score
    assert found.kth_value == trained.kth_value
    assert found.best_model_path == found.kth_best_model_path == str(place / "best.ckpt")
    assert list(found.best_k_models) == [found.best_model_path]


def test_a_folder_without_the_best_checkpoint_has_no_best_yet(trained, tmp_path):
    found = best(tmp_path / "new")
    with pytest.warns(UserWarning, match="dirpath has changed"):
        found.load_state_dict(trained.state_dict())
    assert found.best_model_score is None


def test_a_disk_that_is_full_before_the_model_directory_is_written_is_told_in_a_sentence(
    tiny_tokenizer, tmp_path, monkeypatch
):
    def full(*arguments):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    module = tokenizer_module(tiny_tokenizer)
    monkeypatch.setattr(module, "save_pretrained", full)
    with pytest.raises(SavingError, match=r"cannot write .*best_model: .*No space left.*resume=auto"):
        fit(module, tmp_path, enable_checkpointing=True, callbacks=[best(tmp_path / "run")])
    assert not list((tmp_path / "run").rglob("*"))
