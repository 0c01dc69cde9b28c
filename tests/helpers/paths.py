"""Places of the repository, and the golden numbers in them."""

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"


def published_config(name):
    """Constructor arguments of a published checkpoint."""
    return json.loads((GOLDEN / "published_models.json").read_text())[f"NeoQuasar/{name}"]["config"]
