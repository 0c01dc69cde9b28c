"""A loaded model on golden networks for all tests of the package."""

import pytest

from kronos_lightning.pipeline.loaded_model import load_model
from tests.helpers.evaluated import calibration_of, evaluated_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("live")
    evaluated_checkpoint(folder, calibration_of())
    return folder


@pytest.fixture(scope="session")
def model(checkpoint):
    return load_model(checkpoint, "cpu")
