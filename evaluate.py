"""Evaluation of a fine-tuned Kronos: forecasts, scoreboard, backtest, report.

python evaluate.py data=btc [compare=[untuned]]
"""

import logging
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from kronos_lightning.cli.entry import command
from kronos_lightning.data.files import archive, atomic_directory
from kronos_lightning.pipeline.evaluating import evaluate
from kronos_lightning.reporting.evaluation_report import print_tables, report
from kronos_lightning.reporting.files import write

log = logging.getLogger("evaluate")


@command("evaluate")
def main(cfg: DictConfig) -> None:
    """Forecast each fold, score the forecasts against baselines, backtest them and write the report."""
    if (result := evaluate(cfg)) is None:
        return
    page, output = report(result), Path(result.settings.evaluation.output_dir)
    with atomic_directory(output) as directory:
        result.forecasts.save(directory)
        write(result, directory)
        page.write(directory)
        if (aside := archive(output)) is not None:
            log.info("The earlier report was moved to %s", aside)
    print_tables(page, Console())
    log.info("Report: %s", output / "report.html")


if __name__ == "__main__":
    main()
