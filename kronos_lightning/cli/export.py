"""Command that publishes a run.

python -m kronos_lightning.export outputs/models/finetune_predictor_btc [push=owner/name]
"""

import logging
from pathlib import Path

from huggingface_hub import get_token
from omegaconf import DictConfig

from kronos_lightning.cli.entry import command
from kronos_lightning.config.validation import check_export
from kronos_lightning.export import model_card
from kronos_lightning.export.model_directory import configuration, copy, evaluation, finished, push
from kronos_lightning.runs.directory import RunError
from kronos_lightning.storage import atomic_directory

log = logging.getLogger("export")


@command("export", file_key="run")
def main(cfg: DictConfig) -> None:
    """Write the model directory and card of a finished run; push it to the Hub if `push` is set."""
    settings = check_export(cfg)
    if settings.push is not None and get_token() is None:
        raise RunError(
            f"push={settings.push}: no token; set the environment variable HF_TOKEN to a token with write access, or "
            "run hf auth login"
        )
    run, output = Path(settings.run), Path(settings.output_dir) / Path(settings.run).name
    if output.exists():
        raise RunError(f"{output}: already exists; remove it or set output_dir")
    info = finished(run)
    config = configuration(run)
    measured = None if info["stage"] == "tokenizer" else evaluation(settings.evaluation, run, config)
    with atomic_directory(output) as directory:
        copy(run, directory, info["stage"])
        (directory / "README.md").write_text(model_card.render(info, config, measured, settings.push), encoding="utf-8")
    log.info("Model directory: %s", output)
    if settings.push is not None:
        log.info("On the Hub: %s", push(output, settings.push, settings.private))


if __name__ == "__main__":
    main()
