"""The notebooks run from top to bottom."""

import nbformat
import pytest
from nbclient import NotebookClient

from tests.helpers.paths import ROOT


@pytest.mark.parametrize("name", [path.name for path in (ROOT / "notebooks").glob("*.ipynb")])
def test_notebook_runs_and_shows_its_tables_and_plot(name, tmp_path):
    notebook = nbformat.read(ROOT / "notebooks" / name, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output.data for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    assert any("image/png" in data for data in shown)
    assert any("text/html" in data for data in shown)
