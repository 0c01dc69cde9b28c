"""From the checked configuration to forecasts, a backtest and a report: the steps of evaluate.py."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table as TerminalTable

from .backtest import Backtest, Rules, performance, run_backtest
from .backtest.signals import decide, expectation, on_candles
from .build import Sources
from .data import CandleDataModule, Candles
from .data.candles import end_of
from .evaluation import metrics as point_metrics
from .evaluation.metrics import Scores
from .evaluation.pictures import Curve, equity_chart, error_by_step, fan_charts
from .evaluation.report import Picture, Report, Table, number
from .evaluation.rolling import Cutoffs, rolling_forecasts
from .evaluation.significance import Verdict
from .forecast import Forecaster, ForecastSet, validity
from .schema import Evaluation

PRETRAINING_END = "2024-06-30"  # of the published weights' data (arXiv 2508.02739); Binance is in it
SHARES = {"total_return", "annual_return", "max_drawdown", "win_rate"}


@dataclass(frozen=True)
class Trading:
    """The backtest and what stands beside it, all on the same candles."""

    candles: pd.DataFrame
    strategy: Backtest
    figures: dict[str, float]
    hold: Backtest
    hold_figures: dict[str, float]
    random: np.ndarray  # total returns of random strategies
    break_even_fee: float
    signals: dict[str, int]  # how many of each

    @property
    def beaten(self) -> float:
        """Share of the random strategies with a lower total return."""
        return float((self.random < self.figures["total_return"]).mean())


@dataclass(frozen=True)
class Result:
    """All that an evaluation found, and of what."""

    settings: Evaluation
    candles: Candles
    sources: Sources
    forecasts: ForecastSet
    scores: Scores
    verdict: Verdict
    trading: Trading


def forecast(
    settings: Evaluation, datamodule: CandleDataModule, candles: Candles, forecaster: Forecaster, trainer: L.Trainer
) -> ForecastSet:
    """Rolling forecasts over the test range, on all devices of the trainer."""
    cutoffs = Cutoffs(
        candles,
        datamodule.target_masks(candles.frame["timestamps"])["test"],
        settings.data.lookback,
        settings.data.horizon,
        settings.evaluation.max_cutoffs,
        settings.evaluation.cutoffs_per_batch,
    )
    return rolling_forecasts(cutoffs, forecaster, settings.forecast.num_paths, settings.seed, trainer)


def overlap(forecasts: ForecastSet) -> int:
    """How many neighbouring cutoffs share target candles."""
    if len(forecasts) < 2:
        return 1
    candle = (
        np.diff(forecasts.stamps, axis=1).min()
        if forecasts.horizon > 1
        else forecasts.stamps[0, 0] - forecasts.cutoffs[0]
    )
    stride = np.diff(forecasts.cutoffs).min() / candle
    return max(1, math.ceil(forecasts.horizon / stride))


def trade(settings: Evaluation, candles: Candles, forecasts: ForecastSet) -> Trading:
    """Backtest the forecasts' signals from the first cutoff to the last forecast candle."""
    options = settings.backtest
    expected = expectation(forecasts.close_paths, forecasts.last_close, options.signal)
    signals = decide(expected, options.buy_threshold, options.sell_threshold)
    stamps = candles.frame["timestamps"].dt.tz_localize(None).to_numpy()
    first, last = np.searchsorted(stamps, [forecasts.cutoffs[0], forecasts.stamps[-1, -1]])
    frame, stamps = candles.frame.iloc[first : last + 1].reset_index(drop=True), stamps[first : last + 1]
    aligned = on_candles(signals, forecasts.cutoffs, stamps)
    rules = Rules(
        options.cost, options.max_position, options.stop_loss, options.take_profit, options.max_drawdown, options.side
    )
    strategy = run_backtest(frame, aligned, rules, options.initial_equity)
    hold = performance.buy_and_hold(frame, rules, options.initial_equity)
    rows = np.searchsorted(stamps, forecasts.cutoffs)
    return Trading(
        frame,
        strategy,
        performance.figures(strategy, candles.interval),
        hold,
        performance.figures(hold, candles.interval),
        performance.random_returns(frame, aligned, rows, rules, options.random_runs, settings.seed),
        performance.break_even_fee(frame, aligned, rules),
        {"BUY": int((signals == 1).sum()), "HOLD": int((signals == 0).sum()), "SELL": int((signals == -1).sum())},
    )


def sentences(scores: Scores, verdict: Verdict, trading: Trading) -> tuple[list[str], str]:
    """The verdict in words, and its tone for the page."""
    interval = "" if math.isnan(verdict.lower) else f" (95 % interval {verdict.lower:+.1%} to {verdict.upper:+.1%})"
    forecast_words = f"Forecast: {verdict.words}. Skill on absolute error {verdict.skill:+.1%}{interval}."
    accuracy, majority = scores.model["direction_accuracy"], scores.majority_direction
    if math.isnan(accuracy):
        direction = "Direction: the forecasts name none."
    else:
        comparison = "above" if accuracy > majority else "not above"
        direction = (
            f"Direction: right in {accuracy:.1%} of the cutoffs, {comparison} the commoner direction's {majority:.1%}."
        )
    figures, hold = trading.figures, trading.hold_figures
    if figures["trades"] == 0:
        strategy = "Strategy: it never traded; no forecast passed a threshold."
    else:
        strategy = (
            f"Strategy: {figures['total_return']:+.1%} after costs, buy-and-hold {hold['total_return']:+.1%}; better "
            f"than {trading.beaten:.0%} of strategies with the same signals in random order."
        )
    tone = "good" if verdict.lower > 0 else "bad" if verdict.upper < 0 else ""
    return [forecast_words, direction, strategy], tone


def notices(candles: Candles, forecasts: ForecastSet, sources: Sources) -> list[str]:
    """What a reader has to know before any figure."""
    found = []
    first = pd.Timestamp(forecasts.stamps[0, 0], tz="UTC")
    info = sources.info or {"initial_weights": sources.predictor, "data": None}
    random_start = info["initial_weights"].startswith("random")
    if candles.synthetic:
        found.append("SYNTHETIC CANDLES: made by a generator. No figure here says anything about a market.")
    elif not random_start and first < end_of(PRETRAINING_END):
        found.append(
            f"CONTAMINATED: the test range begins before {PRETRAINING_END}, and the published weights' pretraining may "
            f"have seen it. If these weights descend from them, the forecasts look better than they are."
        )
    if info["data"] is not None:
        seen = max(end_of(info["data"]["ranges"][split][1]) for split in ("train", "val"))
        if first < seen:
            found.append(f"LEAK: the predictor was fine-tuned on candles up to {seen}, the test begins at {first}.")
        if candles.fingerprint not in info["data"]["fingerprints"].values():
            found.append("OTHER DATA: the predictor was fine-tuned on other candles than it is measured on.")
    elif random_start:
        found.append("RANDOM WEIGHTS: the predictor was never trained.")
    if sources.tokenizer.startswith("random"):
        found.append("RANDOM WEIGHTS: the tokenizer was never trained.")
    return found


def report(result: Result) -> Report:
    """Assemble the page."""
    settings, candles, forecasts = result.settings, result.candles, result.forecasts
    scores, trading, sources = result.scores, result.trading, result.sources
    words, tone = sentences(scores, result.verdict, trading)
    note = ", SYNTHETIC candles" if candles.synthetic else ""
    span = f"{pd.Timestamp(forecasts.cutoffs[0])} .. {pd.Timestamp(forecasts.stamps[-1, -1])} UTC"
    size = f"{len(forecasts)} cutoffs, {forecasts.horizon} candles ahead, {forecasts.paths.shape[1]} sample paths"
    strategy = Curve("strategy", trading.strategy.equity)
    benchmark = Curve("buy and hold", trading.hold.equity)
    trades = trading.strategy.trade_table()
    return Report(
        title=f"{settings.model.name} on {candles.symbol} {settings.data.interval}",
        subtitle=f"{size}; {span}",
        verdict=words,
        tone=tone,
        notices=notices(candles, forecasts, sources),
        tables=[_metrics_table(scores), _trading_table(trading)],
        pictures=[
            Picture("Fan charts", "fan_charts", fan_charts(forecasts, scores, candles.frame, note)),
            Picture("Error and coverage by step", "error_by_step", error_by_step(scores, forecasts, note)),
            Picture("Backtest", "equity", equity_chart(trading.candles, strategy, benchmark, trades, note)),
        ],
        facts=[
            ("Candles", f"{candles.source}: {len(candles)} of {settings.data.interval}, {len(candles.gaps)} gap(s)"),
            ("Fingerprint", candles.fingerprint),
            ("Predictor", sources.predictor),
            ("Tokenizer", sources.tokenizer),
            ("Candle validity", str(validity(forecasts.paths))),
            ("Sampling", ", ".join(f"{key} {value}" for key, value in settings.forecast.model_dump().items())),
            ("Backtest", ", ".join(f"{key} {value}" for key, value in settings.backtest.model_dump().items())),
            ("Seed", str(settings.seed)),
        ],
    )


def _metrics_table(scores: Scores) -> Table:
    rows = []
    for name, description in point_metrics.DESCRIPTIONS.items():
        model, last = scores.model[name], scores.last_price[name]
        loss = name in ("mae", "rmse", "mape", "volatility_error")
        skill = 1 - model / last if loss and last > 0 else math.nan
        rows.append([name, number(model), number(last), f"{skill:+.2%}" if math.isfinite(skill) else "–", description])
    rows.append(
        [
            "majority_direction",
            "–",
            number(scores.majority_direction),
            "–",
            "what always saying the commoner direction scores",
        ]
    )
    columns = ["Figure", "Model", "Last price", "Skill", ""]
    return Table("Forecasts beside the last price", columns, rows, words=True)


def _trading_table(trading: Trading) -> Table:
    rows = [
        [name, number(trading.figures[name], name in SHARES), number(trading.hold_figures[name], name in SHARES), text]
        for name, text in performance.DESCRIPTIONS.items()
    ]
    low, middle, high = np.quantile(trading.random, [0.05, 0.5, 0.95])
    halted = (
        f"Trading was halted by the drawdown limit at {trading.strategy.halted}." if trading.strategy.halted else ""
    )
    fee = trading.break_even_fee
    notes = [
        f"Signals: {', '.join(f'{count} {name}' for name, count in trading.signals.items())}. "
        f"Candles that held both stop and target (the stop counts): {trading.strategy.ambiguous}. {halted}",
        f"Always flat: 0.00 %. Same signals in random order: median {middle:+.2%}, 5–95 % {low:+.2%} to {high:+.2%}. "
        f"Break-even fee a side: {'none (no profit without costs)' if math.isnan(fee) else f'{fee:.3%}'}.",
        "Decided at a candle's close, filled at the next open. Sharpe, Sortino and drawdown are the usual definitions, "
        "not the guide's rougher ones.",
    ]
    return Table(
        "Backtest beside buy-and-hold", ["Figure", "Strategy", "Buy and hold", ""], rows, words=True, notes=notes
    )


def metrics(result: Result) -> dict[str, Any]:
    """`metrics.json`: all figures for machines, undefined ones as null."""
    candles, forecasts, scores = result.candles, result.forecasts, result.scores
    verdict, trading, sources = result.verdict, result.trading, result.sources
    words, _ = sentences(scores, verdict, trading)
    content = {
        "verdict": words,
        "notices": notices(candles, forecasts, sources),
        "synthetic": candles.synthetic,
        "fingerprint": candles.fingerprint,
        "sources": asdict(sources),
        "cutoffs": len(forecasts),
        "horizon": forecasts.horizon,
        "num_paths": forecasts.paths.shape[1],
        "impossible_candles": asdict(validity(forecasts.paths)),
        "model": scores.model,
        "last_price": scores.last_price,
        "majority_direction": scores.majority_direction,
        "skill": {"mae": verdict.skill, "lower": verdict.lower, "upper": verdict.upper},
        "backtest": trading.figures,
        "buy_and_hold": trading.hold_figures,
        "signals": trading.signals,
        "random_strategies": dict(
            zip(("q05", "q50", "q95"), np.quantile(trading.random, [0.05, 0.5, 0.95]).tolist(), strict=True)
        ),
        "break_even_fee": trading.break_even_fee,
        "ambiguous_candles": trading.strategy.ambiguous,
        "halted": str(trading.strategy.halted) if trading.strategy.halted else None,
    }
    return _without_nan(content)


def print_tables(page: Report, console: Console) -> None:
    """Verdict and tables on the terminal."""
    for notice in page.notices:
        console.print(notice, style="bold yellow")
    for table in page.tables:
        grid = TerminalTable(title=table.title)
        for name in table.columns[:-1]:
            grid.add_column(name, justify="left" if name == "Figure" else "right")
        for row in table.rows:
            grid.add_row(*row[:-1])
        console.print(grid)
    for sentence in page.verdict:
        console.print(sentence, style="bold")


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
