"""Prove that nothing looks ahead: python -m kronos_lightning.evaluation.leakcheck [what evaluate.py takes]

Changes every candle after a cutoff of your own test range and compares features, tokens, logits, forecasts, baselines,
signals, fills and equity up to that cutoff bit for bit; ends with exit code 2 where one of them changed.
"""

import json
import logging
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import hydra
import lightning as L
import numpy as np
import pandas as pd
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from kronos_lightning.backtest import Backtest
from kronos_lightning.backtest.engine import END
from kronos_lightning.backtest.signals import decide, expectation
from kronos_lightning.build import Sources, best_model, find_forecaster
from kronos_lightning.command import one_line_errors
from kronos_lightning.config import check_evaluation, fold_configs
from kronos_lightning.data import CandleDataModule, Candles
from kronos_lightning.data.candles import end_of
from kronos_lightning.data.datamodule import SPLITS
from kronos_lightning.data.windows import window_starts
from kronos_lightning.evaluation.calibration import FEWEST, adaptive
from kronos_lightning.evaluation.rolling import Cutoffs, rolling_forecasts
from kronos_lightning.forecast import Forecaster, ForecastSet
from kronos_lightning.forecast.calibration import Calibration, CalibrationError
from kronos_lightning.forecast.distribution import probability_up
from kronos_lightning.measure import fit_calibration
from kronos_lightning.resolvers import register_resolvers
from kronos_lightning.runs import describe, read_record, write_json
from kronos_lightning.schema import Evaluation
from kronos_lightning.scoreboard import PRETRAINING_END
from kronos_lightning.trading import Trading, trade

from . import subjects
from .proof import FUTURES, Arrays, Finding, Subject, prove, remembered
from .splits import check_calibration, check_record, check_splits

SUFFIX = "_leak_certificate.json"  # beside the report's folder, which each evaluation replaces
PAIRS = 4  # places in the test range, with two neighbouring cutoffs each: their outcomes overlap
PATHS = 5  # sample paths a cutoff at most
STYLES = {"proved": "green", "leak": "bold red", "unproved": "yellow"}
EVERY_FORECAST = {"thresholds": "configured", "buy_threshold": 0.0, "sell_threshold": 0.0, "side": "long_short"}
NO_EXIT = {"stop_loss": None, "take_profit": None}
CHEAP = {"random_runs": 1, "finer_csv": None}  # what does not change signals, fills and equity; files cannot mutate

log = logging.getLogger("leakcheck")
register_resolvers()


@dataclass(frozen=True)
class Certificate:
    """What was found on one test range.

    label: of the data.
    cutoffs: open times of the last known candles.
    about: versions, revision, fingerprints of the candles, settings, checkpoints.
    """

    label: str
    cutoffs: list[str]
    findings: list[Finding]
    about: dict[str, Any]

    def named(self, verdict: str) -> list[Finding]:
        """The findings with a verdict."""
        return [finding for finding in self.findings if finding.verdict == verdict]


@dataclass(frozen=True)
class Pipeline:
    """The steps of evaluate.py as functions of the candles, on few cutoffs with few paths.

    forecast: of the test range. validate: of the validation range.
    calibration: None = forecasts stay as sampled.
    """

    settings: Evaluation
    forecaster: Forecaster
    forecast: Callable[[Candles], ForecastSet]
    validate: Callable[[Candles], ForecastSet]
    calibration: Calibration | None

    def fit(self, candles: Candles) -> tuple[Calibration, np.ndarray]:
        """Calibration and conformity scores from the validation range."""
        return fit_calibration(self.settings, candles.symbol, self.validate(candles), self.forecaster.sampling)

    def calibrated(self, forecasts: ForecastSet) -> tuple[ForecastSet, np.ndarray | None]:
        """As the backtest gets them, and P(up) over the horizon ``(N,)``."""
        if self.calibration is None:
            return forecasts, None
        found = forecasts.with_paths(self.calibration.apply(forecasts.paths, forecasts.last_close))
        return found, self.calibration.probability_up(probability_up(found.paths, found.last_close))[:, -1]

    def trades(self, validation: ForecastSet | None, **changes: Any) -> Callable[[Candles], Trading]:
        """The backtest, with changes to its settings."""
        backtest = self.settings.backtest.model_copy(update=CHEAP | changes)
        evaluation = self.settings.evaluation.model_copy(update={"bootstrap_samples": 2})
        settings = self.settings.model_copy(update={"backtest": backtest, "evaluation": evaluation})
        earlier, earlier_up = (None, None) if validation is None else self.calibrated(validation)

        def traded(candles: Candles) -> Trading:
            forecasts, up = self.calibrated(self.forecast(candles))
            return trade(settings, candles, forecasts, earlier, up, earlier_up)

        return remembered(traded)


@hydra.main(version_base="1.3", config_path=str(Path(__file__).parents[3] / "conf"), config_name="evaluate")
@one_line_errors
def main(cfg: DictConfig) -> None:
    """Prove on each test range, tell, write; ends with exit code 2 where something looks ahead."""
    whole, parts = check_evaluation(cfg), []
    for fold in fold_configs(cfg):
        settings = check_evaluation(fold)
        datamodule = instantiate(fold.data, _convert_="all")
        datamodule.prepare_data()
        options = OmegaConf.to_container(fold.trainer, resolve=True)
        options |= {"devices": 1, "strategy": "auto", "enable_progress_bar": False}
        parts.append(certify(settings, datamodule, instantiate(options)))
        tell(parts[-1])
    output, leaks = Path(whole.evaluation.output_dir), any(part.named("leak") for part in parts)
    path = output.with_name(output.name + SUFFIX)
    content = {"leaks": leaks, "futures": [future._asdict() for future in FUTURES], "parts": [asdict(p) for p in parts]}
    write_json(path, json.loads(json.dumps(content, default=str)))
    log.info("Certificate: %s", path)
    if leaks:
        sys.exit(2)


def certify(settings: Evaluation, datamodule: CandleDataModule, trainer: L.Trainer) -> Certificate:
    """All that can be proved on one test range."""
    (candles,), data = datamodule.read(), settings.data
    forecaster, sources = find_forecaster(settings, datamodule)
    kept = Calibration.load(sources.directory) if sources.directory is not None else None
    if kept is not None:
        sampling = forecaster.with_calibration(kept).sampling
        forecaster = replace(forecaster, sampling=sampling)  # the pipeline calibrates by itself
    masks = datamodule.target_masks(candles.frame["timestamps"])

    def forecasts_of(mask: np.ndarray, at_most: int) -> Callable[[Candles], ForecastSet]:
        def forecast(candles: Candles) -> ForecastSet:
            batch, paths = settings.evaluation.cutoffs_per_batch, min(PATHS, settings.forecast.num_paths)
            cutoffs = Cutoffs(candles, mask, data.lookback, data.horizon, at_most, batch)
            return rolling_forecasts(cutoffs, forecaster, paths, settings.seed, trainer)

        return remembered(forecast)

    places = pairs(candles, masks["test"], data.lookback, data.horizon)
    known = len(window_starts(candles.frame["segment"].to_numpy(), masks["val"], data.lookback, data.horizon))
    enough = -(-known // max(1, known // FEWEST))  # at equal distance, and as few as can be calibrated on
    test, val = forecasts_of(places, 2 * PAIRS), forecasts_of(masks["val"], enough)
    pipeline = Pipeline(settings, forecaster, test, val, kept)
    original = test(candles)
    rows = np.searchsorted(candles.frame["timestamps"].dt.tz_localize(None).to_numpy(), original.cutoffs).tolist()
    findings = records(settings, datamodule, candles, sources, kept, original)

    log.info("Proof on %d cutoffs, %d futures each", len(rows), len(FUTURES))
    scores = None
    if settings.calibration.fit:
        fitting = calibration_fit(pipeline)
        try:
            fitted, scores = pipeline.fit(candles)
            pipeline = replace(pipeline, calibration=kept or fitted)
            findings += prove([fitting], candles, rows[:1], settings.seed)
        except CalibrationError as error:
            findings.append(Finding(fitting.name, fitting.what, 0, 0, "unproved", str(error)))
    proved = model_subjects(pipeline) + trading_subjects(pipeline, candles)
    proved += [one for one in baseline_subjects(settings) if one.function(candles, rows[0])]
    findings += prove(proved, candles, rows, settings.seed)
    findings += prove(fill_subjects(pipeline), candles, rows[::2], settings.seed)
    if scores is not None:
        moving = moving_correction(pipeline, scores)
        try:
            findings += prove([moving], candles, rows, settings.seed)
        except CalibrationError as error:
            findings.append(Finding(moving.name, moving.what, 0, 0, "unproved", str(error)))
    status = "leak" if any(one.verdict == "leak" for one in findings) else "no leak found"
    about = describe(datamodule, settings.seed, status=status, settings=settings.model_dump(mode="json"))
    times = [f"{time:%Y-%m-%d %H:%M}" for time in pd.to_datetime(original.cutoffs)]
    return Certificate(data.label, times, findings, about | {"sources": asdict(sources)})


def pairs(candles: Candles, target: np.ndarray, lookback: int, horizon: int) -> np.ndarray:
    """Bool mask of the candles that neighbouring cutoffs at some places of a range forecast."""
    starts = window_starts(candles.frame["segment"].to_numpy(), target, lookback, horizon)
    chosen = starts[np.unique(np.linspace(0, max(len(starts) - 2, 0), PAIRS).astype(int))]
    firsts = chosen[:, None] + lookback + np.arange(horizon + 1)
    return target & np.isin(np.arange(len(candles)), firsts)


def model_subjects(pipeline: Pipeline) -> list[Subject]:
    """From candles to calibrated forecasts."""
    data, forecaster = pipeline.settings.data, pipeline.forecaster
    window = data.lookback, data.horizon
    found = [
        subjects.features(*window, data.clip),
        subjects.training_windows(*window, data.clip, forecaster.volume),
        subjects.tokens(forecaster, *window),
        subjects.logits(forecaster, *window),
        subjects.forecasts("forecasts", "sample paths of every cutoff so far", pipeline.forecast),
    ]
    if pipeline.calibration is not None:
        calibrated = remembered(lambda candles: pipeline.calibrated(pipeline.forecast(candles))[0])
        found.append(subjects.forecasts("calibrated forecasts", "the same, calibrated", calibrated))
    return found


def baseline_subjects(settings: Evaluation) -> list[Subject]:
    """Those that the scoreboard shows."""
    options = settings.data.horizon, PATHS, settings.evaluation.refit_every, settings.seed
    return [subjects.baseline(name, *options) for name in settings.evaluation.baselines]


def calibration_fit(pipeline: Pipeline) -> Subject:
    """What validation teaches, asked for at the first cutoff of the test."""

    def at(candles: Candles, row: int) -> Arrays:
        found, scores = pipeline.fit(candles)
        return {
            "widening": np.array(found.widening),
            "platt": np.array([found.slope, found.intercept]),
            "scores": scores,
        }

    return Subject("calibration", "interval widths and probabilities, fitted on the validation range", at)


def moving_correction(pipeline: Pipeline, scores: np.ndarray) -> Subject:
    """The adaptive correction, which learns from the test's own outcomes once they are known."""

    def corrected(candles: Candles) -> ForecastSet:
        found = pipeline.forecast(candles)
        truth = found.last_close, found.actual_close, found.cutoffs, found.stamps
        return found.with_paths(adaptive(found.close_paths, *truth, scores))

    return subjects.forecasts(
        "adaptive correction", "closes corrected by the outcomes known so far", remembered(corrected)
    )


def trading_subjects(pipeline: Pipeline, candles: Candles) -> list[Subject]:
    """Signals and the backtest, as configured and with every forecast traded."""
    options = pipeline.settings.backtest
    validation = pipeline.validate(candles) if options.thresholds == "validation" else None
    configured, forced = pipeline.trades(validation), pipeline.trades(None, **EVERY_FORECAST)

    def signals(candles: Candles, row: int) -> Arrays:
        forecasts, up = pipeline.calibrated(pipeline.forecast(candles))
        known, trading = forecasts.cutoffs <= subjects.time_of(candles, row), configured(candles)
        if options.signal == "probability" and up is not None:
            expected = up - 0.5
        else:
            expected = expectation(forecasts.close_paths, forecasts.last_close, options.signal)
        decided = decide(expected, trading.buy_threshold, trading.sell_threshold)
        return {"expected": expected[known], "signal": decided[known]}

    def backtest(candles: Candles, row: int) -> Arrays:
        found = {}
        for name, trades in (("as configured", configured), ("every forecast traded", forced)):
            run, n = _until(trades(candles), candles, row)
            for series in ("equity", "position", "halted"):
                found[f"{series}, {name}"] = getattr(run, series)[:n]
            found[f"trades, {name}"] = run.trades[run.trades["exit"] < n]
        return found

    return [
        Subject("signals", f"{options.signal} of the paths, and BUY, SELL or HOLD", signals),
        Subject(
            "backtest", "equity, position, halts and trades, as configured and with every forecast traded", backtest
        ),
    ]


def fill_subjects(pipeline: Pipeline) -> list[Subject]:
    """Orders of a close, filled at the next open: at that price, and by nothing else of its candle.

    Without stop and target, because those are filled inside a candle.
    """
    forced = pipeline.trades(None, **EVERY_FORECAST, **NO_EXIT)

    def filled(candles: Candles, row: int) -> Arrays:
        run, n = _until(forced(candles), candles, row)
        trades = run.trades[(run.trades["exit"] <= n) & (run.trades["reason"] != END)]
        return {"position": run.position[: n + 1], "trades": trades}

    def prices(candles: Candles, row: int) -> Arrays:
        run, n = _until(forced(candles), candles, row)
        return {"entry price": run.trades["entry_price"][run.trades["entry"] == n]}

    what = "positions and trades at the next open, the rest of its candle changed"
    hidden = "entry prices, which must not be known when the order is decided"
    return [Subject("fills", what, filled, "open"), Subject("fill prices", hidden, prices, "nothing")]


def _until(trading: Trading, candles: Candles, row: int) -> tuple[Backtest, int]:
    """A run, and how many of its candles stand up to a row."""
    run = trading.strategy
    return run, int(run.stamps.searchsorted(candles.frame["timestamps"].iloc[row], side="right"))


def records(
    settings: Evaluation,
    datamodule: CandleDataModule,
    candles: Candles,
    sources: Sources,
    calibration: Calibration | None,
    forecasts: ForecastSet,
) -> list[Finding]:
    """What files and checkpoints tell of the time before the test."""
    files = {split: pd.read_parquet(datamodule.path(split), columns=["timestamps", "target"]) for split in SPLITS}
    first = files["test"].loc[files["test"]["target"], "timestamps"].min()
    found = check_splits(files, candles.frame["timestamps"], settings.data.embargo)
    if sources.directory is not None:
        found.append(check_record("predictor", sources.info, first))
    if settings.tokenizer not in ("auto", "published"):
        found.append(check_record("tokenizer", read_record(best_model(Path(settings.tokenizer))), first))
    elif sources.directory is not None and settings.tokenizer == "auto":
        found.append(check_record("tokenizer", read_record(sources.directory.parent / "tokenizer"), first))
    if calibration is not None:
        found.append(check_calibration(calibration.about, pd.Timestamp(forecasts.cutoffs[0], tz="UTC")))
    start = sources.info["initial_weights"] if sources.info is not None else sources.predictor
    if not (candles.synthetic or start.startswith("random")) and first < end_of(PRETRAINING_END):
        detail = f"the test begins at {first}, the published weights may have seen candles up to {PRETRAINING_END}"
        found.append(Finding("pretraining", "what the weights were made from before", 0, 0, "unproved", detail))
    if settings.backtest.finer_csv is not None:
        detail = "they come from a file that is not mutated; the backtest was proved without them"
        found.append(Finding("finer candles", "what came first inside a candle", 0, 0, "unproved", detail))
    return found


def tell(certificate: Certificate) -> None:
    """The findings as a table and sentences on the terminal."""
    console, cutoffs = Console(), certificate.cutoffs
    table = Table(title=f"{certificate.label}: every candle after a cutoff changed, everything up to it compared")
    for name in ("", "compared", "cutoffs", "values", "verdict"):
        table.add_column(name, justify="right" if name in ("cutoffs", "values") else "left")
    for one in certificate.findings:
        counts = str(one.cutoffs or ""), f"{one.values:,}"
        table.add_row(one.name, one.what, *counts, one.verdict, style=STYLES[one.verdict])
    console.print(table)

    mutated = ", ".join(one.name for one in certificate.named("proved") if one.cutoffs)
    console.print(
        f"Proved on {len(cutoffs)} cutoffs from {cutoffs[0]} to {cutoffs[-1]} (fills on every other, calibration on "
        f"the first), {len(FUTURES)} other futures after each: no later candle reaches {mutated or 'nothing here'}."
    )
    for one in certificate.named("proved"):
        if not one.cutoffs:
            console.print(f"Proved from files: {one.name}: {one.detail}.")
    console.print("Not looked at: the search for a temperature, and the checkpoints of compare.")
    for verdict, word in (("unproved", "Not proved"), ("leak", "LEAK")):
        for one in certificate.named(verdict):
            console.print(f"{word}: {one.name}: {one.detail}.", style=STYLES[verdict], markup=False)


if __name__ == "__main__":
    main()
