"""From forecasts to the scoreboard: all forecasters side by side, the verdict, and the files for machines."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch.utils.tensorboard import SummaryWriter

from .build import Sources
from .data import Candles
from .data.candles import end_of
from .data.files import sha256
from .evaluation import metrics as figures_of
from .evaluation.metrics import Scores, Truth, score
from .evaluation.significance import Comparison, against_best, compare, mean_interval
from .forecast import ForecastSet, validity
from .measure import Part, overlap
from .model.pretrained import WEIGHTS_FILE
from .runs import trained_until
from .schema import Evaluation
from .trading import Trading, trading_metrics, trading_sentence

PRETRAINING_END = "2024-06-30"  # of the published weights' data (arXiv 2508.02739); Binance is in it
ENOUGH_PATHS = 39  # the first and last of them are the ends of a 95 % interval
MODEL, SAMPLED, MOVING = "model", "model, as sampled", "model, adaptive"


@dataclass(frozen=True)
class Board:
    """All forecasters on the same cutoffs.

    scores: by name: the model (calibrated, where it is), the same as sampled and adaptively corrected, the other
        checkpoints of `compare`, the baselines.
    baselines: which of them are.
    verdict: the model beside the best baseline.
    beside: every other one beside that baseline.
    helped: the model beside the other checkpoints, both as sampled.
    """

    scores: dict[str, Scores]
    baselines: tuple[str, ...]
    verdict: Comparison
    beside: dict[str, Comparison]
    helped: dict[str, Comparison]

    @property
    def best(self) -> str:
        """The best baseline."""
        return self.verdict.other

    def table(self) -> pd.DataFrame:
        """All figures, a row a forecaster."""
        rows = []
        for name, scores in self.scores.items():
            found = self.verdict if name == MODEL else self.beside[name]
            test = {"skill": found.skill, "skill_lower": found.lower, "skill_upper": found.upper}
            rows.append({"forecaster": name, **test, "p_value": found.p_value, **figures_of.figures(scores)})
        return pd.DataFrame(rows)


@dataclass(frozen=True)
class Result:
    """All that an evaluation found, and of what. parts: the folds of a walk-forward, else one."""

    settings: Evaluation
    candles: Candles
    parts: Sequence[Part]
    whole: Part
    board: Board
    trading: Trading

    @property
    def forecasts(self) -> ForecastSet:
        """The model's, calibrated where it is."""
        return self.whole.calibrated or self.whole.forecasts


def score_all(settings: Evaluation, candles: Candles, part: Part, baselines: dict[str, np.ndarray]) -> Board:
    """Score the forecasters of a part beside the baselines' paths on the same cutoffs."""
    truth = Truth.of(part.forecasts, candles)
    sampled = score(part.forecasts.close_paths, truth)
    scores = {MODEL: sampled}
    if part.calibrated is not None:
        scores = {
            MODEL: score(part.calibrated.close_paths, truth, part.up),
            SAMPLED: sampled,
            MOVING: score(part.moving, truth),
        }
    others = {name: score(paths, truth) for name, paths in part.compared.items()}
    measures = {name: score(paths, truth) for name, paths in baselines.items()}
    options = overlap(part.forecasts), settings.evaluation.bootstrap_samples, settings.seed
    verdict = against_best(scores[MODEL].loss, {name: one.loss for name, one in measures.items()}, *options)
    everyone = scores | others | measures
    best = measures[verdict.other].loss
    beside = {name: compare(one.loss, best, verdict.other, *options) for name, one in everyone.items() if name != MODEL}
    helped = {name: compare(sampled.loss, one.loss, name, *options) for name, one in others.items()}
    return Board(everyone, tuple(measures), verdict, beside, helped)


def by_fold(result: Result) -> pd.DataFrame:
    """A row a fold: the model beside its best baseline there."""
    rows, at = [], 0
    options = overlap(result.whole.forecasts), result.settings.evaluation.bootstrap_samples, result.settings.seed
    for k, part in enumerate(result.parts):
        chosen = slice(at, at := at + len(part.forecasts))
        board = {name: scores.select(chosen) for name, scores in result.board.scores.items()}
        verdict = against_best(board[MODEL].loss, {name: board[name].loss for name in result.board.baselines}, *options)
        model, best = figures_of.figures(board[MODEL]), figures_of.figures(board[verdict.other])
        rows.append(
            {
                "fold": k,
                "from": str(pd.Timestamp(part.forecasts.stamps[0, 0])),
                "to": str(pd.Timestamp(part.forecasts.stamps[-1, -1])),
                "cutoffs": len(part.forecasts),
                "crps": model["crps"],
                "best_baseline": verdict.other,
                "baseline_crps": best["crps"],
                "skill": verdict.skill,
                "p_value": verdict.p_value,
                "coverage_90": model["coverage_90"],
                "direction_accuracy": model["direction_accuracy"],
                "verdict": verdict.words,
            }
        )
    return pd.DataFrame(rows)


def sentences(result: Result) -> tuple[list[str], str]:
    """The verdict in words, and its tone for the page."""
    board, verdict = result.board, result.board.verdict
    model, truth = board.scores[MODEL], board.scores[MODEL].truth
    figures = figures_of.figures(model)
    words = [f"Forecast: {verdict.words}, the best baseline here. {_test_words(verdict)}"]
    if SAMPLED in board.beside:
        sampled = board.beside[SAMPLED]
        words.append(f"Without calibration, which no baseline has: {sampled.words}. {_test_words(sampled)}")
    for comparison in board.helped.values():
        words.append(f"As sampled, beside another checkpoint: {comparison.words}. {_test_words(comparison)}")
    coverage = f"Intervals: the 90 % interval held {figures['coverage_90']:.1%} of the actual closes"
    if SAMPLED in board.scores:
        coverage += f" after calibration, {figures_of.figures(board.scores[SAMPLED])['coverage_90']:.1%} before"
    words.append(coverage + ".")
    change = np.sign(truth.actual[:, -1] - truth.last_close)
    said = np.sign(model.point[:, -1] - truth.last_close)
    if not said.any() or not change.any():
        words.append("Direction: there is none, in the forecasts or in the market.")
    else:
        right, majority = (said == change)[change != 0], figures_of.majority_direction(truth)
        options = overlap(result.forecasts), result.settings.evaluation.bootstrap_samples, result.settings.seed
        lower, upper = mean_interval(right.astype(float), *options)
        side = "above" if lower > majority else "below" if upper < majority else "no different from"
        words.append(
            f"Direction: right in {right.mean():.1%} of the cutoffs (95 % interval {lower:.1%} to {upper:.1%}), {side} "
            f"the commoner direction's {majority:.1%}."
        )
    words.append(trading_sentence(result.trading))
    return words, "good" if verdict.better else "bad" if verdict.worse else ""


def _test_words(found: Comparison) -> str:
    if np.isnan(found.skill):
        return "Skill undefined."
    test = f" (95 % interval {found.lower:+.1%} to {found.upper:+.1%}, Diebold–Mariano {p_words(found.p_value)})"
    return f"Skill on CRPS {found.skill:+.1%}{test if found.judged else ''}."


def notices(candles: Candles, part: Part) -> list[str]:
    """What a reader has to know before any figure of a part."""
    found = _notices(candles, part.forecasts, part.sources)
    if part.validation is not None:
        first = pd.Timestamp(part.validation.stamps[0, 0], tz="UTC")
        for name, info in (("predictor", part.sources.info), ("tokenizer", part.sources.tokenizer_info)):
            trained = trained_until(info, ("train",))
            if trained is not None and first < trained:
                found.append(
                    f"LEAK: calibrated from {first} on, but the {name} was trained on candles up to {trained}."
                )
        if not candles.synthetic and not _random_start(part.sources) and first < end_of(PRETRAINING_END):
            found.append(
                f"CALIBRATION: the validation range begins before {PRETRAINING_END}; if the pretraining has seen it, "
                f"the intervals are too narrow and the thresholds too good."
            )
        if (paths := part.forecasts.paths.shape[1]) < ENOUGH_PATHS:
            found.append(f"FEW PATHS: {paths} cannot tell the ends of a 95 % interval, {ENOUGH_PATHS} can.")
    for name, sources in part.compared_sources.items():
        others = _notices(candles, part.forecasts, sources)
        found += [f"{name}: {text}" for text in others if text not in found]
    return found


def all_notices(result: Result) -> list[str]:
    """Those of every fold, each once."""
    return list(dict.fromkeys(text for part in result.parts for text in notices(result.candles, part)))


def _random_start(sources: Sources) -> bool:
    """Whether the predictor's weights began at random, and not with published ones."""
    return (sources.info or {"initial_weights": sources.predictor})["initial_weights"].startswith("random")


def _notices(candles: Candles, forecasts: ForecastSet, sources: Sources) -> list[str]:
    found, first = [], pd.Timestamp(forecasts.stamps[0, 0], tz="UTC")
    if candles.synthetic:
        found.append("SYNTHETIC CANDLES: made by a generator. No figure here says anything about a market.")
    elif not _random_start(sources) and first < end_of(PRETRAINING_END):
        found.append(
            f"CONTAMINATED: the test range begins before {PRETRAINING_END}, and the published weights' pretraining may "
            f"have seen it. If these weights descend from them, the forecasts look better than they are."
        )
    for name, info in (("predictor", sources.info), ("tokenizer", sources.tokenizer_info)):
        seen = trained_until(info)
        if seen is not None and first < seen:
            found.append(f"LEAK: the {name} was fine-tuned on candles up to {seen}, the test begins at {first}.")
    if sources.info is not None:
        if candles.fingerprint not in sources.info["data"]["fingerprints"].values():
            found.append("OTHER DATA: the predictor was fine-tuned on other candles than it is measured on.")
    elif _random_start(sources):
        found.append("RANDOM WEIGHTS: the predictor was never trained.")
    elif "not fine-tuned" in sources.predictor:
        found.append(f"NOT FINE-TUNED: {sources.predictor}.")
    if sources.tokenizer.startswith("random"):
        found.append("RANDOM WEIGHTS: the tokenizer was never trained.")
    return found


def tables(result: Result) -> dict[str, pd.DataFrame]:
    """The tables for machines, by file name without ending."""
    scores = result.board.scores
    found = {"scoreboard": result.board.table()}
    for name, cut in (("by_step", None), ("by_month", "month"), ("by_regime", "regime")):
        parts = [
            (figures_of.by_step(one) if cut is None else figures_of.by_slice(one, cut)).assign(forecaster=who)
            for who, one in scores.items()
        ]
        found[name] = pd.concat(parts, ignore_index=True)
    if len(result.parts) > 1:
        found["by_fold"] = by_fold(result)
    return found


def metrics(result: Result) -> dict[str, Any]:
    """`metrics.json`: all figures for machines, undefined ones as null."""
    board, forecasts, whole = result.board, result.forecasts, result.whole
    page_words, _ = sentences(result)
    content = {
        "verdict": page_words,
        "notices": all_notices(result),
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
        "against_others_as_sampled": {name: asdict(one) for name, one in board.helped.items()},
        "majority_direction": figures_of.majority_direction(board.scores[MODEL].truth),
        "figures": {name: figures_of.figures(one) for name, one in board.scores.items()},
        "calibration": asdict(whole.calibration) if whole.calibration else None,
        "trading": trading_metrics(result.trading),
    }
    return _without_nan(content)


def weights(sources: Sources) -> dict[str, str | None]:
    """SHA-256 of the files that were measured; None from the Hub or at random."""
    places = {"predictor": sources.directory, "tokenizer": sources.tokenizer_directory}
    return {name: sha256(place / WEIGHTS_FILE) if place else None for name, place in places.items()}


def write(result: Result, directory: Path) -> None:
    """Write `metrics.json`, the tables and trades as CSV, `calibration.json`, and TensorBoard's hparams."""
    found = metrics(result)
    (directory / "metrics.json").write_text(json.dumps(found, indent=2, allow_nan=False))
    for name, table in tables(result).items():
        table.to_csv(directory / f"{name}.csv", index=False)
    result.trading.strategy.trade_table().to_csv(directory / "trades.csv", index=False)
    if result.whole.calibration is not None:
        result.whole.calibration.save(directory)
    shown = found["figures"][MODEL] | {"skill": found["against_best_baseline"]["skill"]} | found["trading"]["backtest"]
    reached = {f"evaluation/{name}": value for name, value in shown.items() if value is not None}
    with SummaryWriter(str(directory / "tensorboard")) as writer:
        writer.add_hparams(hyperparameters(result), reached, run_name=".")


def hyperparameters(result: Result) -> dict[str, str | float | bool]:
    """What evaluations differ in, for TensorBoard's table: the model, how it was trained, how it sampled."""
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


def sampling(result: Result) -> dict[str, Any]:
    """The `forecast` settings with the sampling that was really used; of the last fold where there are several."""
    found, calibration = result.settings.forecast.model_dump(), result.whole.calibration
    if calibration is None:
        return found
    return found | {"temperature": calibration.temperature, "top_p": calibration.top_p}


def p_words(value: float) -> str:
    """A p-value for people."""
    return "–" if math.isnan(value) else "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
