"""One service on golden networks for all tests of the package."""

import pytest

from tests.helpers.evaluated import calibration_of, evaluated_checkpoint
from tests.helpers.service import client_of, service_of


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """An evaluated checkpoint with a calibration; not to be changed."""
    folder = tmp_path_factory.mktemp("served")
    evaluated_checkpoint(folder, calibration_of())
    return folder


@pytest.fixture(scope="module")
def service(checkpoint):
    return service_of(checkpoint)


@pytest.fixture(scope="module")
def client(service):
    with client_of(service) as found:
        yield found
