"""The whole evaluation: what it does beyond its parts."""

from unittest.mock import patch

import numpy as np
import pytest
import torch

from kronos_lightning import Kronos
from kronos_lightning.config.validation import ConfigError, check_evaluation
from kronos_lightning.data.formats import CLOSE, FEATURES
from kronos_lightning.evaluation.calibration import fit_correction
from kronos_lightning.evaluation.metrics import score
from kronos_lightning.forecast import ForecastSet, Sampling
from kronos_lightning.pipeline.baselines import baseline_paths
from kronos_lightning.pipeline.competitors import CALIBRATED, MODEL, best_on, compete
from kronos_lightning.pipeline.evaluating import evaluate
from kronos_lightning.pipeline.forecasting import fit_calibration
from kronos_lightning.pipeline.scoreboard import COMBINATION
from kronos_lightning.reporting.files import metrics
from kronos_lightning.reporting.verdict import sentences
from tests.helpers.configuration import composed
from tests.helpers.evaluated import REGRESSION
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
    combined = "evaluation.combine=[ewma,drift]"
    return evaluate(composed("evaluate", *arguments, BASELINES, combined, seeds, *paths))


def test_another_seed_is_calibrated_like_the_model(result):
    (same, other), model = result.whole.seeds.values(), result.forecasts
    assert (same == model.close_paths).all()
    assert (other != model.close_paths).any()
    skills = list(result.board.over_seeds.skills.values())
    assert skills[0] == pytest.approx(result.board.verdict.skill)
    assert skills[1] != skills[2]


def test_the_verdict_is_against_the_best_baseline_on_validation_calibrated_or_not(result):
    validation = result.whole.validation
    paths = baseline_paths(result.settings, result.candles, validation)
    for name in list(paths):
        expected = validation.deviations
        correction, _ = fit_correction(paths[name], validation.last_close, validation.actual_close, expected)
        paths[CALIBRATED.format(name)] = correction.apply(paths[name], validation.last_close, expected)
    assert result.board.best == best_on(validation, paths)
    truth = result.board.scores[MODEL].truth
    found = result.competitors.baselines
    assert set(found) == set(paths) == set(result.board.baselines)
    losses = {name: score(one, truth).loss.mean() for name, one in found.items()}
    assert result.board.on_test.other == min(losses, key=losses.get)


def test_every_baseline_is_calibrated_as_the_model_is(result):
    """A baseline that is calibrated once more changes as the model's paths would."""
    found, test = result.competitors.baselines, result.forecasts
    known = result.whole.validation
    earlier = baseline_paths(result.settings, result.candles, known)["drift"]
    alike = ForecastSet(**vars(known) | {"paths": as_candles(earlier), "up": None, "calibration": None})
    calibration, _ = fit_calibration(result.settings, "X", alike, Sampling(), REGRESSION)
    moved = calibration.apply(as_candles(found["drift"]), test.last_close, test.deviations)[..., CLOSE]
    np.testing.assert_allclose(found["calibrated drift"], moved, rtol=1e-6)
    assert (found["calibrated drift"] != found["drift"]).any()


@pytest.mark.parametrize("shrinkage", [False, True])
def test_forecasts_know_the_expected_volatility_if_the_spread_may_shrink(shrinkage, tmp_path):
    paths = [f"paths.{key}={tmp_path / key}" for key in ("processed", "models", "results")]
    few = ["evaluation.max_cutoffs=4", "calibration.max_cutoffs=40", f"calibration.shrinkage={str(shrinkage).lower()}"]
    result = evaluate(composed("evaluate", *checkpoints(tmp_path), BASELINES, *few, *paths))
    expected = result.whole.validation.deviations
    assert (expected is not None) == shrinkage
    if shrinkage:
        assert expected.shape == result.whole.validation.actual_close.shape


def as_candles(close):
    """Candles ``(N, S, h, C)`` without a range, of closes ``(N, S, h)``."""
    return np.repeat(close[..., None], len(FEATURES), axis=-1)


def test_the_combination_is_a_mixture_with_the_weights_of_validation(result):
    found, model = result.competitors, result.forecasts.close_paths
    assert list(found.weights) == [MODEL, "calibrated ewma", "calibrated drift"]
    assert sum(found.weights.values()) == pytest.approx(1)
    members = {MODEL: model} | found.baselines
    for name, weight in found.weights.items():
        shared = (found.combination[:, :, None] == members[name][:, None]).all(-1).any(-1).mean()
        assert shared == pytest.approx(weight, abs=1 / model.shape[1])
    assert COMBINATION in result.board.scores
    assert any(sentence.startswith("Combination (") for sentence in sentences(result)[0])
    assert metrics(result)["combination"] == found.weights


@pytest.mark.parametrize(
    ("setting", "named"),
    [(["evaluation.combine=[oracle]"], "oracle"), (["evaluation.combine=[drift]", "calibration.fit=false"], "fit")],
)
def test_a_combination_that_cannot_be_is_refused(setting, named):
    with pytest.raises(ConfigError, match=f"evaluation.combine.*{named}"):
        check_evaluation(composed("evaluate", "data=sample", BASELINES, *setting))


def test_a_baseline_without_a_spread_competes_as_it_is(result, caplog):
    caplog.set_level("INFO", "evaluate")

    class Constant:
        def applies_to(self, interval):
            return True

        def sample_paths(self, candles, cutoffs, horizon, num_paths):
            close = candles.frame["close"].to_numpy()[cutoffs]
            return np.broadcast_to(close[:, None, None], (len(cutoffs), num_paths, horizon))

    with patch("kronos_lightning.pipeline.baselines.build_baselines", lambda *_: {"drift": Constant()}):
        found = compete(result.settings.model_copy(update={"evaluation": few(result)}), result.candles, result.whole)
    assert list(found.baselines) == ["drift"]
    assert list(found.weights) == [MODEL, "drift"]
    assert "Baseline drift: not calibrated, only 0 cutoffs have paths that differ" in caplog.text


def few(result):
    return result.settings.evaluation.model_copy(update={"baselines": ["drift"], "combine": ["drift"]})


def test_baselines_compete_as_sampled_alone_if_so_asked(result):
    plain = result.settings.calibration.model_copy(update={"baselines": False})
    settings = result.settings.model_copy(update={"calibration": plain})
    found = compete(settings, result.candles, result.whole)
    assert list(found.baselines) == ["last_price_20", "drift", "ewma"]
    assert list(found.weights) == [MODEL, "ewma", "drift"]
