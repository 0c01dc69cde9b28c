"""Machine-readable files of an evaluation: `metrics.json`, tables as CSV, TensorBoard."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch.utils.tensorboard import SummaryWriter

from kronos_lightning.backtest.performance import backtest_metrics
from kronos_lightning.backtest.search import ParameterSearch
from kronos_lightning.evaluation.metrics import by_slice, by_step, forecast_metrics, majority_direction
from kronos_lightning.forecast import validity
from kronos_lightning.model.pretrained import WEIGHTS_FILE
from kronos_lightning.pipeline.backtesting import Trading
from kronos_lightning.pipeline.competitors import MODEL
from kronos_lightning.pipeline.notices import all_notices
from kronos_lightning.pipeline.scoreboard import EvaluationResult, by_fold
from kronos_lightning.runs.checkpoint_lookup import Sources
from kronos_lightning.storage import sha256

from .risk_section import risk_metrics
from .verdict import sentences


def tables(result: EvaluationResult) -> dict[str, pd.DataFrame]:
    """Build the machine-readable tables, by file name without suffix."""
    scores = result.board.scores
    found = {"scoreboard": result.board.table(), "risk": result.risk.by_step}
    for name, cut in (("by_step", None), ("by_month", "month"), ("by_regime", "regime")):
        parts = [
            (by_step(one) if cut is None else by_slice(one, cut)).assign(forecaster=who) for who, one in scores.items()
        ]
        found[name] = pd.concat(parts, ignore_index=True)
    if len(result.parts) > 1:
        found["by_fold"] = by_fold(result)
    return found


def metrics(result: EvaluationResult) -> dict[str, Any]:
    """Build the content of `metrics.json`: all metrics, undefined values as null."""
    board, forecasts, whole = result.board, result.forecasts, result.whole
    verdict_text, _ = sentences(result)
    content = {
        "verdict": verdict_text,
        "notices": all_notices(result.candles, result.parts),
        "synthetic": result.candles.synthetic,
        "fingerprint": result.candles.fingerprint,
        "sources": {
            "predictor": whole.sources.predictor,
            "tokenizer": whole.sources.tokenizer,
            "info": whole.sources.info,
        },
        "weights": [weights(part.sources) for part in result.parts],
        "cutoffs": len(forecasts),
        "horizon": forecasts.horizon,
        "num_paths": forecasts.paths.shape[1],
        "impossible_candles": asdict(validity(forecasts.paths)),
        "best_baseline": board.best,
        "against_best_baseline": asdict(board.verdict),
        "best_baseline_on_test": board.on_test.other,
        "against_best_baseline_on_test": asdict(board.on_test),
        "against_others_as_sampled": {name: asdict(one) for name, one in board.vs_checkpoints.items()},
        "pairs_as_sampled": [{"forecaster": one} | asdict(found) for (one, _), found in board.pairs.items()],
        "over_seeds": None
        if board.over_seeds is None
        else asdict(board.over_seeds) | {"deviation": board.over_seeds.deviation},
        "majority_direction": majority_direction(board.scores[MODEL].truth),
        "figures": {name: forecast_metrics(one) for name, one in board.scores.items()},
        "calibration": whole.calibration.as_dict() if whole.calibration else None,
        "combination": result.competitors.weights or None,
        "risk": risk_metrics(result.risk),
        "trading": trading_metrics(result.trading),
    }
    return _without_nan(content)


def trading_metrics(trading: Trading) -> dict[str, Any]:
    """Collect all metrics of the backtest for `metrics.json`; undefined values are NaN."""
    run, search = trading.run, trading.search
    low, middle, high = np.quantile(trading.random, [0.05, 0.5, 0.95]).tolist()
    return {
        "backtest": trading.metrics,
        "buy_and_hold": backtest_metrics(trading.hold),
        "always_flat": backtest_metrics(trading.flat),
        "final_equity": float(run.equity[-1]),
        "signals": trading.signals,
        "thresholds": dict(trading.strategy.parameters) | {"from": trading.parameters_from},
        "sharpe_interval": list(trading.sharpe_interval),
        "probabilistic_sharpe": trading.probabilistic_sharpe,
        "random_strategies": {"q05": low, "q50": middle, "q95": high, "beaten": trading.beaten},
        "break_even_fee": trading.break_even_fee,
        "ambiguous_candles": run.ambiguous,
        "settled_candles": run.resolved_intrabar,
        "halts": [str(time) for time in run.halts],
        "search": None if search is None else _search_metrics(search),
    }


def _search_metrics(search: ParameterSearch) -> dict[str, Any]:
    """Collect the search results; the best value of a single free parameter is a number, several are a dict by name."""
    best = search.best if search.best is None or len(search.best) > 1 else next(iter(search.best.values()))
    return {
        "table": search.table.to_dict("records"),
        "best": best,
        "trials": search.trials,
        "deflated_sharpe": search.deflated_sharpe,
    }


def weights(sources: Sources) -> dict[str, str | None]:
    """Hash the measured weight files with SHA-256; None for Hub or random weights."""
    places = {"predictor": sources.directory, "tokenizer": sources.tokenizer_directory}
    return {name: sha256(place / WEIGHTS_FILE) if place else None for name, place in places.items()}


def write(result: EvaluationResult, directory: Path) -> None:
    """Write `metrics.json`, the tables, trades and signals as CSV, and TensorBoard's hparams."""
    found = metrics(result)
    (directory / "metrics.json").write_text(json.dumps(found, indent=2, allow_nan=False))
    for name, table in tables(result).items():
        table.to_csv(directory / f"{name}.csv", index=False)
    trading = result.trading
    trading.run.trade_table().to_csv(directory / "trades.csv", index=False)
    trading.run.signal_table(trading.orders).to_csv(directory / "signals.csv", index=False)
    shown = found["figures"][MODEL] | {"skill": found["against_best_baseline"]["skill"]} | found["trading"]["backtest"]
    reached = {f"evaluation/{name}": value for name, value in shown.items() if value is not None}
    with SummaryWriter(str(directory / "tensorboard")) as writer:
        writer.add_hparams(hyperparameters(result), reached, run_name=".")


def hyperparameters(result: EvaluationResult) -> dict[str, str | float | bool]:
    """Collect the settings in which evaluations differ for TensorBoard's table: model, training, sampling."""
    settings, sources = result.settings, result.whole.sources
    given = {
        "model": settings.model.name,
        "data": settings.data.label,
        "predictor": sources.predictor,
        "lookback": settings.data.lookback,
        "horizon": settings.data.horizon,
        "calibrated": result.whole.calibration is not None,
        **{f"forecast.{name}": value for name, value in sampling(result).items()},
    }
    stage = (sources.info or {}).get("settings", {})
    return given | {f"stage.{name}": value for name, value in stage.items() if isinstance(value, str | float | int)}


def sampling(result: EvaluationResult) -> dict[str, Any]:
    """Return the `forecast` settings with the sampling actually used; with several folds, that of the last fold."""
    found, calibration = result.settings.forecast.model_dump(), result.whole.calibration
    if calibration is None:
        return found
    return found | {"temperature": calibration.temperature, "top_p": calibration.top_p}


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
