"""Evaluation of a fine-tuned Kronos: forecasts, scoreboard, backtest, report.

python evaluate.py data=btc [compare=[untuned]]
"""

import logging
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig

from kronos_lightning.cli.entry import command
from kronos_lightning.config.schema import Evaluation
from kronos_lightning.config.validation import check_evaluation, fold_configs
from kronos_lightning.pipeline.backtesting import trade
from kronos_lightning.pipeline.forecasting import baseline_paths, forecast_range, join
from kronos_lightning.pipeline.scoreboard import EvaluationResult, score_all
from kronos_lightning.plotting.terminal import Terminal
from kronos_lightning.reporting.evaluation_report import print_tables, report
from kronos_lightning.reporting.files import write
from kronos_lightning.runs.builders import build_datamodule
from kronos_lightning.runs.directory import reserve
from kronos_lightning.storage import atomic_directory

log = logging.getLogger("evaluate")


@command("evaluate")
def main(cfg: DictConfig) -> None:
    """Forecast each fold, score the forecasts against baselines, backtest them and write the report."""
    settings = check_evaluation(cfg)
    with reserve(Path(settings.evaluation.output_dir), "evaluation.output_dir"):
        evaluate(cfg, settings)


def evaluate(cfg: DictConfig, settings: Evaluation) -> None:
    """Evaluate a checked configuration."""
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
    with atomic_directory(output, keep=True) as directory:
        whole.forecasts.save(directory)
        write(result, directory)
        page.write(directory)
    print_tables(page, Terminal())
    log.info("Report: %s", output / "report.html")


if __name__ == "__main__":
    main()
