"""Evaluation from the configuration to its results: what evaluate.py runs, and what the leak certificate checks."""

from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from kronos_lightning.config.validation import check_evaluation, fold_configs
from kronos_lightning.runs.builders import build_datamodule

from .backtesting import trade
from .baselines import build_baselines
from .competitors import compete
from .forecasting import forecast_range, join
from .scoreboard import EvaluationResult, score_all
from .stored_forecasts import stored_range


def evaluate(cfg: DictConfig) -> EvaluationResult | None:
    """Forecast each fold, score the forecasts and the baselines, and backtest.

    Returns:
        The results; None in every process of a trainer but the first.
    """
    settings = check_evaluation(cfg)
    trainer: Any = instantiate(cfg.trainer, _convert_="all")
    parts = []
    for fold in map(check_evaluation, fold_configs(cfg)):
        datamodule = build_datamodule(fold.data)
        datamodule.prepare_data()
        (candles,) = datamodule.read()
        build_baselines(fold, candles.interval)  # reports their errors before the forecasts
        if fold.evaluation.forecasts is None:
            parts.append(forecast_range(fold, datamodule, candles, trainer))
        else:
            parts.append(stored_range(fold, Path(fold.evaluation.forecasts), datamodule, candles))
    if not trainer.is_global_zero:
        return None
    whole = join(parts)
    competitors = compete(settings, candles, whole)
    return EvaluationResult(
        settings=settings,
        candles=candles,
        parts=parts,
        whole=whole,
        competitors=competitors,
        board=score_all(settings, candles, whole, competitors),
        trading=trade(settings, candles, whole.forecasts, whole.validation),
    )
