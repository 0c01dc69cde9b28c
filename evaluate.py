"""Measure a fine-tuned Kronos: python evaluate.py data=btc [predictor=…] → forecasts, metrics, backtest, report."""

import json
import logging
from pathlib import Path

import hydra
from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.console import Console

from kronos_lightning import measure
from kronos_lightning.build import find_forecaster
from kronos_lightning.command import one_line_errors
from kronos_lightning.config import check_evaluation
from kronos_lightning.data.files import atomic_directory
from kronos_lightning.evaluation.metrics import score
from kronos_lightning.evaluation.significance import judge
from kronos_lightning.resolvers import register_resolvers

log = logging.getLogger("evaluate")
register_resolvers()


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
@one_line_errors
def main(cfg: DictConfig) -> None:
    """Compose, validate, load, forecast, score, trade, report."""
    settings = check_evaluation(cfg)
    datamodule = instantiate(cfg.data, _convert_="all")
    datamodule.prepare_data()
    (candles,) = datamodule.read()
    forecaster, sources = find_forecaster(settings, datamodule)

    trainer = instantiate(cfg.trainer, _convert_="all")
    forecasts = measure.forecast(settings, datamodule, candles, forecaster, trainer)
    if not trainer.is_global_zero:
        return
    scores = score(forecasts)
    verdict = judge(scores, measure.overlap(forecasts), settings.evaluation.bootstrap_samples, settings.seed)
    trading = measure.trade(settings, candles, forecasts)

    result = measure.Result(settings, candles, sources, forecasts, scores, verdict, trading)
    report, output = measure.report(result), Path(settings.evaluation.output_dir)
    with atomic_directory(output) as directory:
        forecasts.save(directory)
        trading.strategy.trade_table().to_csv(directory / "trades.csv", index=False)
        (directory / "metrics.json").write_text(json.dumps(measure.metrics(result), indent=2, allow_nan=False))
        report.write(directory)
    measure.print_tables(report, Console())
    log.info("Report: %s", output / "report.html")


if __name__ == "__main__":
    main()
