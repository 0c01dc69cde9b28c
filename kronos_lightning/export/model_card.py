"""The model card of an exported run: what it is, what it was trained on, what it can do, how to load it."""

import re
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined

from kronos_lightning.plotting.formats import number

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
SHOWN = ("crps", "mae", "direction_accuracy", "coverage_90")  # of a forecaster's figures


def render(info: dict[str, Any], config: dict[str, Any], measured: dict[str, Any] | None, push: str | None) -> str:
    """The card in Markdown, with the Hub's front matter.

    Args:
        info: `run_info.json` of the run.
        config: its `config.json`.
        measured: `metrics.json` of an evaluation of these weights; None = there is none.
        push: name on the Hub; None = the directory stays local.
    """
    environment = Environment(
        trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    template = environment.from_string(files(__package__).joinpath("model_card.md.jinja").read_text(encoding="utf-8"))
    return template.render(
        info=info,
        data=config["data"],
        max_context=config["model"]["max_context"],
        base=base_model(info),
        measured=measured,
        board=board(measured) if measured else [],
        push=push,
        title=f"{info['model']} {info['stage']}, fine-tuned on {', '.join(info['data']['fingerprints'])}",
    )


def base_model(info: dict[str, Any]) -> str | None:
    """The Hub name of the published weights that a run descends from, if it does from any."""
    before = info.get("initial_record")
    if before is not None:
        return base_model(before)
    return info["initial_weights"] if HUB_NAME.fullmatch(info["initial_weights"]) else None


def board(measured: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """Rows of the table of an evaluation: the model and the best baseline."""
    chosen = ("model", measured["best_baseline"])
    return [(name, [number(measured["figures"][name].get(key)) for key in SHOWN]) for name in chosen]
