"""The demo as a control of the whole tool: it finds what was planted, and nothing where nothing was."""

import json
import shlex
import subprocess

import pytest

from tests.helpers.commands import command
from tests.helpers.paths import ROOT

pytestmark = pytest.mark.minutes
RESULT = "outputs/backtest_results/synthetic/metrics.json"


def demo_commands():
    """The scripts that make demo runs, with their arguments."""
    lines = subprocess.run(["make", "-n", "demo"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    words = [shlex.split(line) for line in lines.splitlines() if "python train.py" in line or "evaluate.py" in line]
    return [one[1:] for one in words]


@pytest.mark.parametrize(("planted", "verdict"), [("momentum", "better than"), ("none", "no edge")])
def test_the_demo_finds_an_edge_where_one_was_planted(planted, verdict, tmp_path):
    scripts = demo_commands()
    assert [one[0] for one in scripts] == ["train.py", "evaluate.py"]
    for script, *arguments in scripts:
        assert "data.synthetic.planted=momentum" in arguments
        changed = [f"data.synthetic.planted={planted}" if "planted" in one else one for one in arguments]
        command(script, *changed, cwd=tmp_path, timeout=900)
    said = json.loads((tmp_path / RESULT).read_text())["verdict"]
    assert said[0].startswith(f"Forecast: {verdict}")
    print("\n".join(said))
