"""A local exchange for the tests of downloading."""

import pytest

from tests.helpers.exchange import build, fetch, files


@pytest.fixture
def exchange():
    served = build()
    yield served
    served.close()


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """The files of a download that nothing disturbed."""
    served, path = build(), tmp_path_factory.mktemp("undisturbed") / "BTCUSDT_1h.csv"
    fetch(served, path)
    served.close()
    return files(path)
