"""Scoreboard: all forecasters on the same cutoffs, and the verdict on the model."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
import pandas as pd

from kronos_lightning.config.schema import Evaluation
from kronos_lightning.data import Candles
from kronos_lightning.evaluation.metrics import Scores, Truth, forecast_metrics, score
from kronos_lightning.evaluation.risk import RiskReport, assess
from kronos_lightning.evaluation.significance import Bootstrap, Comparison, against_best, compare, corrected
from kronos_lightning.forecast import ForecastSet

from .backtesting import Trading
from .competitors import MODEL, Competitors
from .forecasting import RangeForecasts, overlap

SAMPLED, ADAPTIVE, COMBINATION = "model, as sampled", "model, adaptive", "combination"


@dataclass(frozen=True, kw_only=True)
class OverSeeds:
    """Skill of the model and of trainings with other seeds, all against the baseline of the verdict.

    skills: by name. mean: comparison of their mean loss with that baseline.
    """

    skills: dict[str, float]
    mean: Comparison

    @property
    def deviation(self) -> float:
        """Standard deviation of the skill over the seeds."""
        return float(np.std(list(self.skills.values()), ddof=1))


@dataclass(frozen=True, kw_only=True)
class Board:
    """Scores and comparisons of all forecasters on the same cutoffs.

    scores: by name: the model (calibrated if there is a calibration), then the model as sampled and with the adaptive
        correction, the other checkpoints of `compare`, the combination, the baselines.
    baselines: names of the baselines.
    verdict: comparison of the model with the best baseline on validation; without forecasts of that range, on test.
    on_test: comparison of the model with the best baseline on the test cutoffs, which nobody knew beforehand.
    vs_best_baseline: comparison of every other forecaster with the baseline of the verdict; those of the compared
        checkpoints are corrected for their number.
    vs_checkpoints: comparison of the model with each other checkpoint, both as sampled, corrected for their number.
    pairs: comparison of every two of these, the model among them, corrected for the number of pairs; by (name, other).
    over_seeds: skill over the seeds of the training; None without other seeds.
    """

    scores: dict[str, Scores]
    baselines: tuple[str, ...]
    verdict: Comparison
    on_test: Comparison
    vs_best_baseline: dict[str, Comparison]
    vs_checkpoints: dict[str, Comparison]
    pairs: dict[tuple[str, str], Comparison]
    over_seeds: OverSeeds | None = None

    @property
    def best(self) -> str:
        """Name of the best baseline, with which everything is compared: that of the verdict."""
        return self.verdict.other

    def table(self) -> pd.DataFrame:
        """Build the table of all metrics, one row per forecaster."""
        rows = []
        for name, scores in self.scores.items():
            found = self.verdict if name == MODEL else self.vs_best_baseline[name]
            test = {"skill": found.skill, "skill_lower": found.lower, "skill_upper": found.upper}
            rows.append(
                {
                    "forecaster": name,
                    **test,
                    "p_value": found.p_value,
                    "p_holm": found.corrected,
                    **forecast_metrics(scores),
                }
            )
        return pd.DataFrame(rows)


@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """Results of an evaluation.

    parts: one per fold of a walk-forward, else one.
    """

    settings: Evaluation
    candles: Candles
    parts: Sequence[RangeForecasts]
    whole: RangeForecasts
    competitors: Competitors
    board: Board
    trading: Trading

    @property
    def forecasts(self) -> ForecastSet:
        """Forecasts of the model, calibrated if there is a calibration."""
        return self.whole.forecasts

    @cached_property
    def risk(self) -> RiskReport:
        """Risk that these forecasts state, against what happened; stop and target are those of the backtest."""
        rules = self.settings.backtest
        return assess(self.forecasts, overlap(self.forecasts), rules.stop_loss, rules.take_profit)


def bootstrap_of(settings: Evaluation, forecasts: ForecastSet) -> Bootstrap:
    """Build the bootstrap settings for cutoffs with overlapping targets."""
    return Bootstrap(overlap=overlap(forecasts), samples=settings.evaluation.bootstrap_samples, seed=settings.seed)


def score_all(
    settings: Evaluation,
    candles: Candles,
    part: RangeForecasts,
    competitors: Competitors,
) -> Board:
    """Score the forecasters of a part and the model's competitors on the same cutoffs.

    Args:
        settings: the whole configuration.
        candles: all candles.
        part: forecasts of the test range.
        competitors: on the same cutoffs. The verdict is against their best baseline on validation, or the best on these
            cutoffs if that is not known.
    """
    truth = Truth.of(part.sampled, candles)
    sampled = score(part.sampled.close_paths, truth, part.sampled.up)
    scores = {MODEL: sampled}
    if part.calibrated is not None and part.adaptive is not None:
        scores = {
            MODEL: score(part.calibrated.close_paths, truth, part.calibrated.up),
            SAMPLED: sampled,
            ADAPTIVE: score(part.adaptive, truth),
        }
    others = {name: score(paths, truth) for name, paths in part.compared.items()}
    mixture = competitors.combination
    combined = {} if mixture is None else {COMBINATION: score(mixture, truth)}
    measures = {name: score(paths, truth) for name, paths in competitors.baselines.items()}
    bootstrap = bootstrap_of(settings, part.sampled)
    losses = {name: one.loss for name, one in measures.items()}
    on_test = against_best(scores[MODEL].loss, losses, bootstrap)
    chosen = competitors.best_on_validation
    known = chosen is not None and chosen != on_test.other
    verdict = compare(scores[MODEL].loss, losses[str(chosen)], str(chosen), bootstrap) if known else on_test
    seeds = {name: score(paths, truth) for name, paths in part.seeds.items()}
    everyone = scores | others | seeds | combined | measures
    best = measures[verdict.other].loss
    vs_best_baseline = {
        name: compare(one.loss, best, verdict.other, bootstrap) for name, one in everyone.items() if name != MODEL
    }
    vs_best_baseline |= corrected({name: vs_best_baseline[name] for name in others})
    sides = {MODEL: sampled.loss} | {name: one.loss for name, one in others.items()}
    pairs = {(one, two): compare(sides[one], sides[two], two, bootstrap) for one, two in combinations(sides, 2)}
    over_seeds = None
    if seeds:
        skills = {MODEL: verdict.skill} | {name: vs_best_baseline[name].skill for name in seeds}
        mean = np.mean([scores[MODEL].loss, *(one.loss for one in seeds.values())], axis=0)
        over_seeds = OverSeeds(skills=skills, mean=compare(mean, best, verdict.other, bootstrap))
    return Board(
        scores=everyone,
        baselines=tuple(measures),
        verdict=verdict,
        on_test=on_test,
        vs_best_baseline=vs_best_baseline,
        vs_checkpoints=corrected({name: pairs[MODEL, name] for name in others}),
        pairs=corrected(pairs),
        over_seeds=over_seeds,
    )


def by_fold(result: EvaluationResult) -> pd.DataFrame:
    """Build a table with one row per fold: the model compared with its best baseline in that fold."""
    rows, at = [], 0
    bootstrap = bootstrap_of(result.settings, result.forecasts)
    for k, part in enumerate(result.parts):
        chosen = slice(at, at := at + len(part.forecasts))
        board = {name: scores.select(chosen) for name, scores in result.board.scores.items()}
        verdict = against_best(
            board[MODEL].loss, {name: board[name].loss for name in result.board.baselines}, bootstrap
        )
        model, best = forecast_metrics(board[MODEL]), forecast_metrics(board[verdict.other])
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
                "verdict": verdict.text,
            }
        )
    return pd.DataFrame(rows)
