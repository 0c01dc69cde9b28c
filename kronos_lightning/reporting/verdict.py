"""Verdict of an evaluation as text."""

import math

import numpy as np

from kronos_lightning.backtest.performance import backtest_metrics
from kronos_lightning.evaluation.metrics import forecast_metrics, majority_direction
from kronos_lightning.evaluation.significance import Comparison, mean_interval
from kronos_lightning.pipeline.backtesting import Trading
from kronos_lightning.pipeline.competitors import MODEL
from kronos_lightning.pipeline.scoreboard import COMBINATION, SAMPLED, EvaluationResult, bootstrap_of
from kronos_lightning.plotting.formats import p_value


def sentences(result: EvaluationResult) -> tuple[list[str], str]:
    """Build the sentences of the verdict and its tone for the page: good, bad or empty."""
    board, verdict = result.board, result.board.verdict
    model, truth = board.scores[MODEL], board.scores[MODEL].truth
    values = forecast_metrics(model)
    where = "on validation" if result.whole.validation is not None else "here"
    if board.on_test.other == verdict.other and result.whole.validation is not None:
        where = "on validation and on test"
    lines = [f"Forecast: {verdict.text}, the best baseline {where}. {_test_text(verdict)}"]
    if board.on_test.other != verdict.other:
        lines.append(f"Against the best baseline on test: {board.on_test.text}. {_test_text(board.on_test)}")
    if SAMPLED in board.vs_best_baseline:
        sampled = board.vs_best_baseline[SAMPLED]
        lines.append(f"Without calibration of the model: {sampled.text}. {_test_text(sampled)}")
    if COMBINATION in board.vs_best_baseline:
        found = board.vs_best_baseline[COMBINATION]
        members = ", ".join(f"{weight:.0%} {name}" for name, weight in result.competitors.weights.items())
        lines.append(f"Combination ({members}): {found.text}. {_test_text(found)}")
    if board.over_seeds is not None:
        seeds, low, high = (
            board.over_seeds,
            min(board.over_seeds.skills.values()),
            max(board.over_seeds.skills.values()),
        )
        lines.append(
            f"Over {len(seeds.skills)} training seeds: {seeds.mean.text} on average; skill {low:+.1%} to {high:+.1%}, "
            f"standard deviation {seeds.deviation:.1%}. {_test_text(seeds.mean)}"
        )
    for comparison in board.vs_checkpoints.values():
        lines.append(f"As sampled, against another checkpoint: {comparison.text}. {_test_text(comparison)}")
    if verdict.is_tested:
        lines.append(
            f"Power: {len(model.loss)} cutoffs like these show a skill of {verdict.detectable:.1%} against "
            f"{verdict.other} in four of five cases (two-sided 5 %); a smaller one can be missed."
        )
    coverage = f"Intervals: the 90 % interval held {values['coverage_90']:.1%} of the actual closes"
    if SAMPLED in board.scores:
        coverage += f" after calibration, {forecast_metrics(board.scores[SAMPLED])['coverage_90']:.1%} before"
    lines.append(coverage + ".")
    change = np.sign(truth.actual[:, -1] - truth.last_close)
    said = np.sign(model.point[:, -1] - truth.last_close)
    if not said.any() or not change.any():
        lines.append("Direction: undefined, because no forecast or no close changed.")
    else:
        right, majority = (said == change)[change != 0], majority_direction(truth)
        lower, upper = mean_interval(right.astype(float), bootstrap_of(result.settings, result.forecasts))
        side = "above" if lower > majority else "below" if upper < majority else "no different from"
        lines.append(
            f"Direction: right in {right.mean():.1%} of the cutoffs (95 % interval {lower:.1%} to {upper:.1%}), {side} "
            f"the commoner direction's {majority:.1%}."
        )
    lines.append(trading_sentence(result.trading))
    return lines, "good" if verdict.better else "bad" if verdict.worse else ""


def trading_sentence(trading: Trading) -> str:
    """Build the sentence of the strategy's verdict."""
    got = trading.metrics
    if got["trades"] == 0:
        return "Strategy: it never traded; no forecast passed a threshold in time."
    held = backtest_metrics(trading.hold)["total_return"]
    text = (
        f"Strategy: {got['total_return']:+.1%} after costs, buy-and-hold {held:+.1%}; better than {trading.beaten:.0%} "
        f"of strategies with the same signals at random times."
    )
    if math.isnan(trading.probabilistic_sharpe):
        return text
    return f"{text} Probability that its true Sharpe ratio is above zero: {trading.probabilistic_sharpe:.0%}."


def _test_text(found: Comparison) -> str:
    if np.isnan(found.skill):
        return "Skill undefined."
    holm = f", {p_value(found.corrected)} corrected for {found.family} comparisons" if found.family > 1 else ""
    test = f" (95 % interval {found.lower:+.1%} to {found.upper:+.1%}, Diebold–Mariano {p_value(found.p_value)}{holm})"
    return f"Skill on CRPS {found.skill:+.1%}{test if found.is_tested else ''}."
