"""Measure a fine-tuned Kronos: python evaluate.py data=btc [compare=[untuned]] → forecasts, scoreboard, report."""

import logging
from pathlib import Path

import hydra
from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.console import Console

from kronos_lightning import measure, page, scoreboard
from kronos_lightning.command import one_line_errors
from kronos_lightning.config import check_evaluation, fold_configs
from kronos_lightning.data.files import atomic_directory, set_aside
from kronos_lightning.resolvers import register_resolvers
from kronos_lightning.trading import trade

log = logging.getLogger("evaluate")
register_resolvers()


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
@one_line_errors
def main(cfg: DictConfig) -> None:
    """Compose, validate, forecast (each fold), score beside the baselines, trade, report."""
    settings = check_evaluation(cfg)
    trainer = instantiate(cfg.trainer, _convert_="all")
    parts = []
    for fold in fold_configs(cfg):
        datamodule = instantiate(fold.data, _convert_="all")
        datamodule.prepare_data()
        (candles,) = datamodule.read()
        parts.append(measure.measure(check_evaluation(fold), datamodule, candles, trainer))
    if not trainer.is_global_zero:
        return
    whole = measure.join(parts)
    baselines = measure.baselines(settings, candles, whole.forecasts)
    board = scoreboard.score_all(settings, candles, whole, baselines)
    forecasts = whole.calibrated or whole.forecasts
    ups = (None if up is None else up[:, -1] for up in (whole.up, whole.validation_up))
    trading = trade(settings, candles, forecasts, whole.validation, *ups)

    result = scoreboard.Result(settings, candles, parts, whole, board, trading)
    report, output = page.report(result), Path(settings.evaluation.output_dir)
    with atomic_directory(output) as directory:
        forecasts.save(directory)
        scoreboard.write(result, directory)
        report.write(directory)
        if (aside := set_aside(output)) is not None:
            log.info("The earlier report was moved to %s", aside)
    page.print_tables(report, Console())
    log.info("Report: %s", output / "report.html")


if __name__ == "__main__":
    main()
