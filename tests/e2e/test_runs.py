"""What happens around a run: repeated, stopped, resumed."""

import json

import torch

from tests.helpers.commands import QUICK_TRAIN, command
from tests.helpers.runs import MODELS, info


def test_a_second_run_moves_the_first_aside(tmp_path):
    run = tmp_path / "run"
    for _ in range(2):
        result = command("train.py", *QUICK_TRAIN, "stage.max_epochs=1", f"run_dir={run}", cwd=tmp_path)
    others = [path for path in tmp_path.iterdir() if path.name.startswith("run.")]
    assert len(others) == 1
    assert info(others[0])["status"] == info(run)["status"] == "finished"
    assert f"The earlier run was moved to {others[0]}" in result.stderr


def test_a_folder_that_holds_no_run_is_not_taken_for_one(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("")
    result = command("train.py", *QUICK_TRAIN, "run_dir=thesis", cwd=tmp_path, check=False)
    assert result.returncode == 1
    assert "error: run_dir=thesis: contains chapter.tex but no run" in result.stderr
    assert (tmp_path / "thesis" / "chapter.tex").exists()
    result = command("train.py", *QUICK_TRAIN, "run_dir=.", cwd=tmp_path, check=False)
    assert "error: run_dir=.: the results need a folder of their own" in result.stderr
    damaged = tmp_path / "damaged"
    (damaged / "checkpoints").mkdir(parents=True)
    (damaged / "run_info.json").write_text("{")
    result = command("train.py", *QUICK_TRAIN, "run_dir=damaged", "resume=auto", cwd=tmp_path, check=False)
    assert "error: damaged/run_info.json: damaged" in result.stderr


def test_what_follows_a_tokenizer_run(tmp_path):
    command("train.py", *QUICK_TRAIN, cwd=tmp_path)
    run = tmp_path / MODELS / "finetune_tokenizer_sample"

    # Of candles that have changed since: refused, with both fingerprints.
    predictor = [*QUICK_TRAIN, "stage=predictor", "stage.max_epochs=1"]
    result = command("train.py", *predictor, "data.synthetic.seed=8", cwd=tmp_path, check=False)
    assert result.returncode == 1
    before = info(run)["data"]["fingerprints"]["SYNTHETIC"][:16]
    assert f"was fine-tuned on other candles: SYNTHETIC (fingerprint {before} before, " in result.stderr
    assert "or set stage.frozen_tokenizer=published or stage.frozen_tokenizer=outputs/models/" in result.stderr

    # Of other ranges: not used, and said so.
    result = command("train.py", *predictor, "data.val_time_range=[2023-01-25,2023-01-30]", cwd=tmp_path)
    assert "was fine-tuned on other data or split ranges" in result.stderr
    assert "random (kronos-tiny size)" in info(tmp_path / MODELS / "finetune_predictor_sample")["tokenizer"]

    # Unfinished: not taken for a result.
    (run / "run_info.json").write_text(json.dumps(info(run) | {"status": "running"}))
    result = command("train.py", *QUICK_TRAIN, "stage=predictor", cwd=tmp_path, check=False)
    assert result.returncode == 1
    assert "is not finished; continue it with resume=auto" in result.stderr

    # Resumed with another number of steps: refused.
    result = command("train.py", *QUICK_TRAIN, "stage.max_epochs=5", "resume=auto", cwd=tmp_path, check=False)
    assert result.returncode == 1
    assert "these settings changed: max_epochs (2 before, 5 now)" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_early_stop_ends_a_run_that_does_not_improve(tmp_path):
    slow = ["stage.learning_rate=1e-30", "stage.patience=2", "stage.max_epochs=50"]
    command("train.py", *QUICK_TRAIN, *slow, "run_dir=run", cwd=tmp_path)
    epochs = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] + 1
    assert epochs <= 5
