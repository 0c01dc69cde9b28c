"""Report of an evaluation for people, as a page and on the terminal."""

import math

import pandas as pd
from rich.console import Console
from rich.table import Table

from kronos_lightning.config.schema import Evaluation
from kronos_lightning.evaluation import metrics
from kronos_lightning.forecast import validity
from kronos_lightning.forecast.calibration import Calibration
from kronos_lightning.pipeline.competitors import MODEL
from kronos_lightning.pipeline.notices import all_notices
from kronos_lightning.pipeline.scoreboard import ADAPTIVE, SAMPLED, Board, EvaluationResult, by_fold
from kronos_lightning.plotting.formats import UNDEFINED, correlation, number, p_value, share, signed

from .backtest_section import trading_plots, trading_tables
from .files import sampling
from .html import Report, ReportPlot, ReportTable
from .plots import fan_charts, pit_chart, reliability_chart, skill_chart, step_chart
from .risk_section import risk_chart, risk_table
from .verdict import sentences

CORRELATIONS = {"ic", "rank_ic", "price_correlation", "return_correlation"}
WIDTH = 140  # minimum width of the tables on the terminal
LONGEST = 30  # maximum length of a path there
BOARD = ("mae", "direction_accuracy", "ic", "coverage_90", "width_90", "brier")
SHARES = {"direction_accuracy", "trend_accuracy", *(f"coverage_{i * 100:.0f}" for i in metrics.INTERVALS)}


def report(result: EvaluationResult) -> Report:
    """Assemble the page."""
    settings, candles, forecasts, board = result.settings, result.candles, result.forecasts, result.board
    whole, sources = result.whole, result.whole.sources
    verdict, tone = sentences(result)
    note = ", SYNTHETIC candles" if candles.synthetic else ""
    span = f"{pd.Timestamp(forecasts.cutoffs[0])} .. {pd.Timestamp(forecasts.stamps[-1, -1])} UTC"
    size = f"{len(forecasts)} cutoffs, {forecasts.horizon} candles ahead, {forecasts.paths.shape[1]} sample paths"
    calibration = [_calibration_table(result)] if whole.calibration else []
    folds = [_fold_table(result)] if len(result.parts) > 1 else []
    return Report(
        title=f"{settings.model.name} on {candles.symbol} {settings.data.interval}",
        subtitle=f"{size}; {span}",
        verdict=verdict,
        tone=tone,
        notices=all_notices(candles, result.parts),
        tables=[
            _board_table(board),
            *([_pair_table(board)] if len(board.pairs) > 1 else []),
            *folds,
            *calibration,
            _metrics_table(board),
            _regime_table(board),
            risk_table(result.risk),
            *trading_tables(result.trading),
        ],
        plots=_plots(result, note),
        facts=[
            ("Candles", f"{candles.source}: {len(candles)} of {settings.data.interval}, {len(candles.gaps)} gap(s)"),
            ("Fingerprint", candles.fingerprint),
            *([("Forecasts", f"read from {place}")] if (place := settings.evaluation.forecasts) else []),
            ("Predictor", sources.predictor),
            ("Tokenizer", sources.tokenizer),
            *(
                (f"Compared: {name}", f"predictor {one.predictor}, tokenizer {one.tokenizer}")
                for name, one in whole.compared_sources.items()
            ),
            ("Candle validity", str(validity(forecasts.paths))),
            ("Baselines", _baselines_text(settings)),
            ("Sampling", ", ".join(f"{key} {value}" for key, value in sampling(result).items())),
            ("Calibration", _calibration_text(result)),
            ("Strategy", ", ".join(f"{key} {value}" for key, value in settings.strategy.items() if key != "_target_")),
            ("Backtest", ", ".join(f"{key} {value}" for key, value in settings.backtest.model_dump().items())),
            ("Seed", str(settings.seed)),
        ],
    )


def _plots(result: EvaluationResult, note: str) -> list[ReportPlot]:
    scores, best = result.board.scores, result.board.best
    shown = {name: scores[name] for name in (MODEL, SAMPLED, best) if name in scores}
    model = scores[MODEL]
    found = [
        ("Fan charts", "fan_charts", fan_charts(result.forecasts, model, result.candles, note)),
        ("Error and coverage by step", "by_step", step_chart(shown, note)),
        ("Where the truth fell", "pit", pit_chart(shown, note)),
        ("Reliability of P(up)", "reliability", reliability_chart(shown, note)),
        ("Risk", "risk", risk_chart(result.risk, note)),
        ("Skill over time", "skill_over_time", skill_chart(model, scores[best], best, note)),
    ]
    plots = [ReportPlot(title=title, name=name, figure=figure) for title, name, figure in found]
    return [*plots, *trading_plots(result.trading, note)]


def _board_table(board: Board) -> ReportTable:
    rows = []
    for row in board.table().sort_values("crps").to_dict("records"):
        name = row["forecaster"]
        test = board.verdict if name == MODEL else board.vs_best_baseline[name]
        interval = f"{test.lower:+.1%} … {test.upper:+.1%}" if test.is_tested else UNDEFINED
        compared = [signed(test.skill), interval, p_value(test.p_value).removeprefix("p = ").removeprefix("p ")]
        if name == board.best:
            compared = ["best baseline", "", ""]
        elif test.family > 1:
            compared[2] += f" ({number(test.corrected)})"
        rows.append([name, number(row["crps"]), *compared, *(_format(key, row[key]) for key in BOARD)])
    columns = ["Forecaster", "CRPS %", "Skill", "95 % interval", "p (DM)"]
    columns += ["MAE", "Direction", "IC", "Cov. 90", "Width 90 %", "Brier"]
    majority = metrics.majority_direction(board.scores[MODEL].truth)
    notes = [
        f"Skill: 1 − CRPS / CRPS of {board.best}, the best baseline of the verdict (on these cutoffs: "
        f"{board.on_test.other}); its interval from blocks of neighbouring cutoffs; DM: p-value of the Diebold–Mariano "
        f"test, in parentheses corrected for the number of compared checkpoints (Holm). Always saying the commoner "
        f"direction is right in {majority:.1%}.",
    ]
    return ReportTable(title="Scoreboard, best CRPS first", columns=columns, rows=rows, notes=notes)


def _pair_table(board: Board) -> ReportTable:
    """Build the matrix of the skills of checkpoints against each other."""
    names = list(dict.fromkeys(name for pair in board.pairs for name in pair))
    rows = []
    for one in names:
        cells = []
        for two in names:
            found = board.pairs.get((one, two))
            mark = " *" if found is not None and (found.better or found.worse) else ""
            cells.append("" if found is None else signed(found.skill) + mark)
        rows.append([one, *cells[1:]])
    notes = [
        f"Skill on CRPS of the row against the column, both as sampled. *: both tests show a difference, the p-values "
        f"corrected for {len(board.pairs)} pairs (Holm)."
    ]
    return ReportTable(title="Checkpoints against each other", columns=["", *names[1:]], rows=rows[:-1], notes=notes)


def _calibration_table(result: EvaluationResult) -> ReportTable:
    names = ("crps", *(f"coverage_{i * 100:.0f}" for i in metrics.INTERVALS), "width_90", "brier")
    rows = []
    labels = {SAMPLED: "before", MODEL: "after (split conformal)", ADAPTIVE: "after (adaptive conformal)"}
    for name, label in labels.items():
        found = metrics.forecast_metrics(result.board.scores[name])
        rows.append([label, *(_format(metric, found[metric]) for metric in names)])
    columns = ["Calibration", "CRPS %", "Cov. 50", "Cov. 80", "Cov. 90", "Cov. 95", "Width 90 %", "Brier"]
    notes = [
        f"{_calibration_text(result)}. The adaptive correction also learns from the test's own outcomes, each once it "
        f"is known; it is shown, not used."
    ]
    title = "Calibration, fitted on validation, measured on test"
    return ReportTable(title=title, columns=columns, rows=rows, notes=notes)


def _baselines_text(settings: Evaluation) -> str:
    """Name each baseline, and how often its parameters are refitted if they are."""
    refits = {name: settings.baselines[name].get("refit_every") for name in settings.evaluation.baselines}
    named = [name if every is None else f"{name} (refitted every {every} candles)" for name, every in refits.items()]
    return f"{', '.join(named)}; from past candles alone"


def _calibration_text(result: EvaluationResult) -> str:
    calibration = result.whole.calibration
    if calibration is None:
        return "none" if result.settings.evaluation.forecasts is None else "as in the stored forecasts"
    metadata, fold = calibration.metadata, "last fold: " if len(result.parts) > 1 else ""
    return (
        f"{fold}temperature {calibration.temperature:g}, top_p {calibration.top_p:g}, drift × {calibration.drift:g}, "
        f"{_spread_text(calibration)}, intervals and P(up) (slope {calibration.slope:.2f}, intercept "
        f"{calibration.intercept:+.2f}) from {metadata['cutoffs']} cutoffs, "
        f"{metadata['fitted_from'][:16]} .. {metadata['fitted_to'][:16]}"
    )


def _spread_text(calibration: Calibration) -> str:
    """Name the factors of the spread and the shrinkage that come before them."""
    factors = calibration.spread or (1.0,)
    least, most = f"{min(factors):.2f}", f"{max(factors):.2f}"
    found = f"spread × {least}" + ("" if least == most else f" to {most}")
    if calibration.shrinkage is None:
        return found
    return f"{found}, drawn to the volatility regression with exponent {calibration.shrinkage.exponent:g}"


def _metrics_table(board: Board) -> ReportTable:
    model, best = (metrics.forecast_metrics(board.scores[name]) for name in (MODEL, board.best))
    rows = []
    for name, description in metrics.DESCRIPTIONS.items():
        skill = 1 - model[name] / best[name] if name in metrics.LOSSES and best[name] > 0 else math.nan
        shown = signed(skill, 2)
        values = (_format(name, one[name]) for one in (model, best))
        rows.append([name, *values, shown, description])
    columns = ["Metric", "Model", board.best, "Skill", ""]
    return ReportTable(title="All metrics of the model and the best baseline", columns=columns, rows=rows, prose=True)


def _regime_table(board: Board) -> ReportTable:
    rows, other = [], board.best
    model, best = (metrics.by_slice(board.scores[name], "regime") for name in (MODEL, other))
    for one, two in zip(model.to_dict("records"), best.to_dict("records"), strict=True):
        skill = signed(1 - one["crps"] / two["crps"] if two["crps"] > 0 else math.nan, 2)
        shares = (one["coverage_90"], two["coverage_90"], one["direction_accuracy"])
        scores = [number(one["crps"]), number(two["crps"]), skill]
        rows.append([one["regime"], str(one["cutoffs"]), *scores, *(_format("coverage_90", share) for share in shares)])
    columns = ["Known volatility", "Cutoffs", "CRPS %", f"of {other}", "Skill", "Cov. 90", f"of {other}", "Direction"]
    return ReportTable(title="By volatility regime (thirds of the cutoffs)", columns=columns, rows=rows)


def _fold_table(result: EvaluationResult) -> ReportTable:
    rows = []
    for row in by_fold(result).to_dict("records"):
        span = f"{row['from'][:16]} .. {row['to'][:16]}"
        scores = [number(row["crps"]), number(row["baseline_crps"]), row["best_baseline"]]
        test = [signed(row["skill"]), p_value(row["p_value"])]
        shares = [_format(name, row[name]) for name in ("coverage_90", "direction_accuracy")]
        rows.append([str(row["fold"]), span, str(row["cutoffs"]), *scores, *test, *shares])
    columns = [
        "Fold",
        "Test",
        "Cutoffs",
        "CRPS %",
        "Baseline's",
        "Best baseline",
        "Skill",
        "DM",
        "Cov. 90",
        "Direction",
    ]
    return ReportTable(title="Walk-forward folds", columns=columns, rows=rows)


def _format(name: str, value: float) -> str:
    """Format a metric for people: shares in per cent, correlations with three decimals."""
    if name in SHARES:
        return share(value)
    return correlation(value) if name in CORRELATIONS else number(value)


def _shortened(name: str) -> str:
    """Shorten the path of a checkpoint to its end, by which it differs from others."""
    return name if "/" not in name or len(name) <= LONGEST else "…" + name[1 - LONGEST :]


def print_tables(page: Report, console: Console) -> None:
    """Print notices, tables and verdict on the terminal."""
    console.width = max(console.width, WIDTH)
    for notice in page.notices:
        console.print(notice, style="bold yellow")
    for table in page.tables:
        grid = Table(title=table.title)
        for i, name in enumerate(table.columns[: -1 if table.prose else None]):
            grid.add_column(name, justify="right" if i else "left")
        for row in table.rows:
            grid.add_row(_shortened(row[0]), *row[1 : -1 if table.prose else None])
        console.print(grid)
    for sentence in page.verdict:
        console.print(sentence, style="bold")
