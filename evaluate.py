"""Evaluation of a fine-tuned Kronos: forecasts, scoreboard, backtest, report.

python evaluate.py data=btc [compare=[untuned]]
"""

import logging
from pathlib import Path

from omegaconf import DictConfig

from kronos_lightning.cli.entry import command
from kronos_lightning.config.validation import check_evaluation
from kronos_lightning.pipeline.decision_settings import decision_settings, store_decision
from kronos_lightning.pipeline.evaluating import evaluate
from kronos_lightning.plotting.terminal import Terminal
from kronos_lightning.reporting.evaluation_report import print_tables, report
from kronos_lightning.reporting.files import write
from kronos_lightning.runs.directory import reserve
from kronos_lightning.storage import atomic_directory

log = logging.getLogger("evaluate")


@command("evaluate")
def main(cfg: DictConfig) -> None:
    """Forecast each fold, score the forecasts against baselines, backtest them and write the report."""
    output = Path(check_evaluation(cfg).evaluation.output_dir)
    with reserve(output, "evaluation.output_dir"):
        if (result := evaluate(cfg)) is None:
            return
        page = report(result)
        stored = result.settings.evaluation.forecasts is not None  # by decisions of their own
        decision = None if stored else decision_settings(result, page.verdict, page.notices)
        with atomic_directory(output, keep=True) as directory:
            result.forecasts.save(directory)
            write(result, directory)
            page.write(directory)
            if decision is not None:
                decision.save(directory)
        if decision is not None:
            store_decision(decision, result.settings.tokenizer, result.whole.sources)
    print_tables(page, Terminal())
    log.info("Report: %s", output / "report.html")


if __name__ == "__main__":
    main()
