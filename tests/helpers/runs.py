"""Folders of runs."""

import json

MODELS = "outputs/models"


def info(run_dir):
    return json.loads((run_dir / "run_info.json").read_text())
