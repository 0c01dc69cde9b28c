"""Model card of an exported run: origin, training data, measured quality, and how to load it."""

import html
import re
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined

from kronos_lightning.plotting.formats import number
from kronos_lightning.settings.text import shown

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
CARD_METRICS = ("crps", "mae", "direction_accuracy", "coverage_90")  # metrics of a forecaster in the card's table


def render(info: dict[str, Any], config: dict[str, Any], measured: dict[str, Any] | None, push: str | None) -> str:
    """Render the model card in Markdown, with the Hub's front matter.

    Args:
        info: `run_info.json` of the run.
        config: `config.json` of the run.
        measured: `metrics.json` of an evaluation of these weights; None = not evaluated.
        push: repository name on the Hub; None = the directory stays local.
    """
    environment = Environment(
        trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined, keep_trailing_newline=True, finalize=escaped
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


def escaped(value: Any) -> Any:
    """Return a value of a template with the characters escaped that Markdown or HTML would act on."""
    if not isinstance(value, str):
        return value
    text = html.escape(" ".join(shown(value).split()), quote=False)
    return re.sub(r"([|\[\]`])", r"\\\1", text)


def base_model(info: dict[str, Any]) -> str | None:
    """Return the Hub name of the published weights that a run descends from; None if there are none."""
    before = info.get("initial_record")
    if before is not None:
        return base_model(before)
    return info["initial_weights"] if HUB_NAME.fullmatch(info["initial_weights"]) else None


def board(measured: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """Build the table rows of an evaluation: the model and the best baseline, each with its formatted metrics."""
    chosen = ("model", measured["best_baseline"])
    return [(name, [number(measured["figures"][name].get(key)) for key in CARD_METRICS]) for name in chosen]
