"""Metrics of the forecasts after each validation."""

import numpy as np
import pytest
import scoringrules
import torch

from kronos_lightning.data.formats import CLOSE
from kronos_lightning.training.validation_paths import ValidationPaths, path_metrics
from tests.helpers.data import SETTINGS, data_module
from tests.helpers.training import predictor_module, quiet, tokenizer_module

LOOKBACK, HORIZON, WINDOWS = SETTINGS["lookback"], SETTINGS["horizon"], 7
WINDOW = {"lookback": LOOKBACK, "horizon": HORIZON}


@pytest.fixture
def fit(tmp_path):
    def fitted(module, batch_size=16, max_epochs=1, **callback):
        data = data_module(processed_dir=str(tmp_path), batch_size=batch_size)
        watch = ValidationPaths(**{"windows": WINDOWS, "every_n_epochs": 1} | callback)
        few = {"limit_train_batches": 2, "limit_val_batches": 1}
        trainer = quiet(tmp_path, max_epochs=max_epochs, callbacks=[watch], **few)
        trainer.fit(module, data)
        return trainer, data

    return fitted


def test_path_metrics_are_the_fair_score_the_coverage_and_the_direction():
    rng = np.random.default_rng(0)
    known, paths, actual = rng.normal(size=40), rng.normal(size=(40, 19, 3)), rng.normal(size=(40, 3))
    found = path_metrics(known, paths, actual)
    assert found["crps"] == pytest.approx(scoringrules.crps_ensemble(actual, paths, m_axis=1, estimator="fair").mean())
    # Of 19 paths the 5 and 95 % quantiles are the least and the greatest.
    assert found["coverage_90"] == ((paths.min(axis=1) <= actual) & (actual <= paths.max(axis=1))).mean()
    rose = actual[:, -1] > known
    assert found["direction_accuracy"] == ((np.median(paths[:, :, -1], axis=1) > known) == rose).mean()
    assert found["direction_majority"] == max(rose.mean(), 1 - rose.mean())


def test_windows_that_did_not_move_have_no_direction_and_one_path_has_no_interval():
    paths = np.array([[[1.0, 2.0]], [[1.0, 4.0]]])
    actual = np.array([[1.0, 3.0], [2.0, 3.0]])
    found = path_metrics(np.array([3.0, 2.0]), paths, actual)
    assert found == {"crps": 0.75, "direction_accuracy": 1.0, "direction_majority": 1.0}
    assert path_metrics(np.array([3.0, 3.0]), paths, actual).keys() == {"crps"}


def test_the_score_of_a_reconstruction_is_its_absolute_error(fit, tiny_tokenizer):
    trainer, data = fit(tokenizer_module(tiny_tokenizer, **WINDOW))
    windows = data.windows["val"]
    batch = windows.__getitems__(np.linspace(0, len(windows) - 1, WINDOWS).astype(int).tolist())
    with torch.no_grad():
        error = (tiny_tokenizer.eval()(batch.x).full - batch.x)[:, LOOKBACK : LOOKBACK + HORIZON, CLOSE].abs().mean()
    assert trainer.callback_metrics["val/crps"].item() == pytest.approx(error.item(), rel=1e-5)
    assert "val/coverage_90" not in trainer.callback_metrics


def test_forecasts_are_measured_in_batches_and_alike_in_every_epoch(fit, tiny_tokenizer, tiny_predictor, monkeypatch):
    unchanged = {"learning_rate": 1e-30, "weight_decay": 0.0}
    module = predictor_module(tiny_tokenizer, tiny_predictor, num_paths=4, keep_dropout=True, **unchanged, **WINDOW)
    found, sizes = [], []
    measure, paths = ValidationPaths._measure, module.validation_paths
    monkeypatch.setattr(ValidationPaths, "_measure", lambda *a: found.append(measure(*a)) or found[-1])
    module.validation_paths = lambda batch, network: sizes.append(len(batch.x)) or paths(batch, network)
    trainer, _ = fit(module, batch_size=3, max_epochs=2)
    assert sizes == [3, 2, 2] * 2
    assert found[0] == found[1]
    assert {f"val/{name}": pytest.approx(value) for name, value in found[1].items()}.items() <= {
        name: value.item() for name, value in trainer.callback_metrics.items()
    }.items()
    assert found[0].keys() == {"crps", "coverage_90", "direction_accuracy", "direction_majority"}


def test_an_epoch_without_forecasts_has_no_figure_instead_of_an_old_one(fit, tiny_tokenizer):
    for max_epochs, measured in ((1, True), (2, False), (3, True)):
        module = tokenizer_module(tiny_tokenizer, **WINDOW)
        trainer, _ = fit(module, max_epochs=max_epochs, every_n_epochs=2)
        assert ("val/crps" in trainer.callback_metrics) is measured
        assert "val/loss" in trainer.callback_metrics
