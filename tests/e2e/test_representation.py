"""Fine-tuning on returns, from training to the exported model."""

import json
import shutil

import pytest

from kronos_lightning.forecast import Forecaster, ForecastSet
from tests.helpers.commands import QUICK_EVALUATE, QUICK_TRAIN, command
from tests.helpers.runs import MODELS, info

TOKENIZER, PREDICTOR = (f"{MODELS}/finetune_{stage}_sample" for stage in ("tokenizer", "predictor"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("returns")
    command("train.py", "-m", "stage=tokenizer,predictor", *QUICK_TRAIN, "data.representation=scaled_returns", cwd=cwd)
    return cwd


def test_a_checkpoint_records_its_representation_and_evaluation_follows_the_record(trained):
    recorded = info(trained / PREDICTOR)["representation"]
    assert recorded["name"] == "scaled_returns"
    assert recorded == info(trained / TOKENIZER)["representation"]
    for run in (TOKENIZER, PREDICTOR):
        record = json.loads((trained / run / "checkpoints" / "best_model" / "training.json").read_text())
        assert record["representation"] == recorded
    command("evaluate.py", *QUICK_EVALUATE, cwd=trained)  # of data.representation=levels
    found = ForecastSet.load(trained / "outputs" / "backtest_results" / "sample")
    assert found.paths.shape[1] > 1
    first = found.paths[:, :, 0]
    assert (first[..., 1] >= first[..., [0, 2, 3]].max(axis=-1) * (1 - 1e-6)).all()
    metrics = json.loads((trained / "outputs" / "backtest_results" / "sample" / "metrics.json").read_text())
    assert metrics["sources"]["info"]["representation"] == recorded


def test_an_exported_model_forecasts_in_its_representation(trained):
    command("kronos_lightning.export", PREDICTOR, "output_dir=exported", cwd=trained)
    (folder,) = (path.parent for path in (trained / "exported").rglob("tokenizer"))
    forecaster = Forecaster.from_pretrained(folder / "tokenizer", folder)
    assert forecaster.representation.model_dump() == info(trained / PREDICTOR)["representation"]
    assert "scaled_returns" in (folder / "README.md").read_text()


def test_networks_of_two_representations_are_not_put_together(trained):
    other = command("train.py", "stage=predictor", *QUICK_TRAIN, "data.representation=returns",
                    f"stage.frozen_tokenizer={TOKENIZER}", cwd=trained, check=False)  # fmt: skip
    assert other.returncode == 1
    assert "data.representation=scaled_returns, not returns" in other.stderr
    shutil.copytree(trained / PREDICTOR / "checkpoints" / "best_model", trained / "levels")
    record = json.loads((trained / "levels" / "training.json").read_text())
    (trained / "levels" / "training.json").write_text(json.dumps(record | {"representation": {"name": "levels"}}))
    mixed = command("evaluate.py", *QUICK_EVALUATE, "predictor=levels", f"tokenizer={TOKENIZER}", cwd=trained,
                    check=False)  # fmt: skip
    assert mixed.returncode == 1
    assert "representation=levels" in mixed.stderr.splitlines()[-1]
    assert all("Traceback" not in run.stderr for run in (other, mixed))
