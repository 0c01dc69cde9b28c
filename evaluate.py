"""Evaluation of a fine-tuned Kronos: forecasts, scoreboard, backtest, report.

python evaluate.py data=btc [compare=[untuned]]
"""

import logging
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.console import Console

from kronos_lightning.cli.entry import command
from kronos_lightning.config.validation import check_evaluation, fold_configs
from kronos_lightning.data.files import archive, atomic_directory
from kronos_lightning.pipeline.backtesting import trade
from kronos_lightning.pipeline.decision_settings import decision_settings, store_decision
from kronos_lightning.pipeline.forecasting import baseline_paths, forecast_range, join
from kronos_lightning.pipeline.scoreboard import EvaluationResult, score_all
from kronos_lightning.reporting.evaluation_report import print_tables, report
from kronos_lightning.reporting.files import write
from kronos_lightning.runs.builders import build_datamodule

log = logging.getLogger("evaluate")


@command("evaluate")
def main(cfg: DictConfig) -> None:
    """Forecast each fold, score the forecasts against baselines, backtest them and write the report."""
    settings = check_evaluation(cfg)
    trainer = instantiate(cfg.trainer, _convert_="all")
    parts = []
    for fold in map(check_evaluation, fold_configs(cfg)):
        datamodule = build_datamodule(fold.data)
        datamodule.prepare_data()
        (candles,) = datamodule.read()
        parts.append(forecast_range(fold, datamodule, candles, trainer))
    if not trainer.is_global_zero:
        return
    whole = join(parts)
    board = score_all(settings, candles, whole, baseline_paths(settings, candles, whole.forecasts))
    trading = trade(settings, candles, whole.forecasts, whole.validation)

    result = EvaluationResult(
        settings=settings, candles=candles, parts=parts, whole=whole, board=board, trading=trading
    )
    page, output = report(result), Path(settings.evaluation.output_dir)
    decision = decision_settings(result, page.verdict, page.notices)
    with atomic_directory(output) as directory:
        whole.forecasts.save(directory)
        write(result, directory)
        decision.save(directory)
        page.write(directory)
        if (aside := archive(output)) is not None:
            log.info("The earlier report was moved to %s", aside)
    store_decision(decision, settings.tokenizer, whole.sources)
    print_tables(page, Console())
    log.info("Report: %s", output / "report.html")


if __name__ == "__main__":
    main()
