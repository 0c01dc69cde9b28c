"""The whole evaluation: what it does beyond its parts."""

import pytest
import torch

from kronos_lightning import Kronos
from kronos_lightning.evaluation.metrics import score
from kronos_lightning.pipeline.evaluating import evaluate
from kronos_lightning.pipeline.forecasting import baseline_paths
from kronos_lightning.pipeline.scoreboard import MODEL, best_on
from tests.helpers.configuration import composed
from tests.helpers.leaks import checkpoints
from tests.helpers.networks import TINY_PREDICTOR

BASELINES = "evaluation.baselines=[last_price_20,drift,ewma]"


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """An evaluation of three trainings: the model and two with other seeds, one of which is the model itself."""
    folder = tmp_path_factory.mktemp("run")
    arguments = checkpoints(folder)
    for name, seed in (("same", 0), ("other", 1)):
        (folder / name).mkdir()
        (folder / name / "tokenizer").symlink_to(folder / "t")
        if name == "same":
            for path in (folder / "p").iterdir():
                (folder / name / path.name).symlink_to(path)
        else:
            torch.manual_seed(seed)
            Kronos(**TINY_PREDICTOR).save_pretrained(folder / name)
    seeds = f"seeds=[{folder / 'same'},{folder / 'other'}]"
    paths = [f"paths.{key}={folder / key}" for key in ("processed", "models", "results")]
    return evaluate(composed("evaluate", *arguments, BASELINES, seeds, *paths))


def test_another_seed_is_calibrated_like_the_model(result):
    (same, other), model = result.whole.seeds.values(), result.forecasts
    assert (same == model.close_paths).all()
    assert (other != model.close_paths).any()
    skills = list(result.board.over_seeds.skills.values())
    assert skills[0] == pytest.approx(result.board.verdict.skill)
    assert skills[1] != skills[2]


def test_the_verdict_is_against_the_best_baseline_on_validation(result):
    validation = result.whole.validation
    paths = baseline_paths(result.settings, result.candles, validation)
    assert result.board.best == best_on(validation, paths)
    truth = result.board.scores[MODEL].truth
    losses = {name: score(one, truth).loss.mean() for name, one in result.baselines.items()}
    assert result.board.on_test.other == min(losses, key=losses.get)
