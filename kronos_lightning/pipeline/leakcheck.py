"""Proof that nothing looks ahead, on cutoffs of your own test range.

Changes every candle after a cutoff and compares features, tokens, logits, forecasts, baselines, signals, fills and
equity up to that cutoff bit by bit.
"""

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
from hydra.utils import get_class

from kronos_lightning.backtest import Backtest, ThresholdStrategy
from kronos_lightning.backtest.engine import END
from kronos_lightning.config.schema import Evaluation
from kronos_lightning.data import CandleDataModule, Candles
from kronos_lightning.data.datamodule import SPLITS
from kronos_lightning.data.windows import window_starts
from kronos_lightning.evaluation.calibration import MIN_CALIBRATION_CUTOFFS
from kronos_lightning.evaluation.leakcheck import subjects
from kronos_lightning.evaluation.leakcheck.proof import FUTURES, Arrays, ProofResult, Subject, cached, prove
from kronos_lightning.evaluation.leakcheck.splits import check_calibration, check_record, check_splits
from kronos_lightning.evaluation.rolling import Cutoffs, rolling_forecasts
from kronos_lightning.forecast import Forecaster, ForecastSet
from kronos_lightning.forecast.calibration import Calibration, CalibrationError
from kronos_lightning.runs.checkpoint_lookup import Sources, find_forecaster
from kronos_lightning.runs.directory import best_model
from kronos_lightning.runs.provenance import describe, read_record
from kronos_lightning.settings import end_of

from .backtesting import Trading, trade
from .forecasting import adaptively_corrected, build_baselines, fit_calibration
from .notices import PRETRAINING_END

PAIRS = 4  # places in the test range, with two neighbouring cutoffs each, whose outcomes overlap
PATHS = 5  # maximum number of sample paths per cutoff
ANY_MOVE = {"buy_threshold": 0.0, "sell_threshold": 0.0, "search_thresholds": [0.0]}  # every move signals
FORCED = {"parameters": "configured", "side": "long_short"}
NO_EXIT = {"stop_loss": None, "take_profit": None}
CHEAP = {"random_runs": 1, "intrabar_csv": None}  # no effect on signals, fills and equity; files cannot mutate

log = logging.getLogger("leakcheck")


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """Findings on one test range.

    label: of the data.
    cutoffs: open times of the last known candles.
    findings: one per subject.
    metadata: versions, revision, fingerprints of the candles, settings, checkpoints.
    """

    label: str
    cutoffs: list[str]
    findings: list[ProofResult]
    metadata: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Return the content for the JSON file, in which the key of the metadata is "about"."""
        content = asdict(self)
        return content | {"about": content.pop("metadata")}

    def named(self, verdict: str) -> list[ProofResult]:
        """Return the findings with a verdict."""
        return [finding for finding in self.findings if finding.verdict == verdict]


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """Steps of evaluate.py as functions of the candles, on few cutoffs with few paths.

    forecast: forecasts of the test range. validate: forecasts of the validation range.
    calibration: None = forecasts are used as sampled.
    """

    settings: Evaluation
    forecaster: Forecaster
    forecast: Callable[[Candles], ForecastSet]
    validate: Callable[[Candles], ForecastSet]
    calibration: Calibration | None

    @property
    def forced_strategy(self) -> dict[str, Any]:
        """Configuration of a strategy whose every signal is an order."""
        node = self.settings.strategy
        if issubclass(get_class(node["_target_"]), ThresholdStrategy):
            return node | ANY_MOVE
        return {"_target_": f"{ThresholdStrategy.__module__}.ThresholdStrategy", "signal": "median"} | ANY_MOVE

    def fit(self, candles: Candles) -> tuple[Calibration, np.ndarray]:
        """Fit calibration and conformity scores on the validation range."""
        return fit_calibration(self.settings, candles.symbol, self.validate(candles), self.forecaster.sampling)

    def calibrated(self, forecasts: ForecastSet) -> ForecastSet:
        """Return forecasts as the backtest gets them."""
        return forecasts if self.calibration is None else forecasts.calibrated(self.calibration)

    def trades(
        self, validation: ForecastSet | None, strategy: dict[str, Any] | None = None, **changes: Any
    ) -> Callable[[Candles], Trading]:
        """Build the backtest as a function of the candles, with another strategy and changed settings."""
        backtest = self.settings.backtest.model_copy(update=CHEAP | changes)
        evaluation = self.settings.evaluation.model_copy(update={"bootstrap_samples": 2})
        chosen = {"backtest": backtest, "evaluation": evaluation, "strategy": strategy or self.settings.strategy}
        settings = self.settings.model_copy(update=chosen)
        earlier = None if validation is None else self.calibrated(validation)

        def traded(candles: Candles) -> Trading:
            return trade(settings, candles, self.calibrated(self.forecast(candles)), earlier)

        return cached(traded)


def certify(settings: Evaluation, datamodule: CandleDataModule, trainer: L.Trainer) -> Certificate:
    """Check everything that can be proved on one test range."""
    (candles,), data = datamodule.read(), settings.data
    forecaster, sources = find_forecaster(settings, datamodule)
    kept = Calibration.load(sources.directory) if sources.directory is not None else None
    if kept is not None:
        sampling = forecaster.with_calibration(kept).sampling
        forecaster = replace(forecaster, sampling=sampling)  # the pipeline applies the calibration itself
    masks = datamodule.target_masks(candles.frame["timestamps"])

    def forecasts_of(mask: np.ndarray, at_most: int) -> Callable[[Candles], ForecastSet]:
        def forecast(candles: Candles) -> ForecastSet:
            batch, paths = settings.evaluation.cutoffs_per_batch, min(PATHS, settings.forecast.num_paths)
            cutoffs = Cutoffs(
                candles, mask, lookback=data.lookback, horizon=data.horizon, max_cutoffs=at_most, batch_size=batch
            )
            return rolling_forecasts(cutoffs, forecaster, paths, settings.seed, trainer)

        return cached(forecast)

    places = pairs(candles, masks["test"], data.lookback, data.horizon)
    known = len(window_starts(candles.frame["segment"].to_numpy(), masks["val"], data.lookback, data.horizon))
    # At equal distance, and enough to calibrate.
    enough = -(-known // max(1, known // MIN_CALIBRATION_CUTOFFS))
    test, val = forecasts_of(places, 2 * PAIRS), forecasts_of(masks["val"], enough)
    pipeline = Pipeline(settings=settings, forecaster=forecaster, forecast=test, validate=val, calibration=kept)
    original = test(candles)
    rows = candles.rows_at(original.cutoffs).tolist()
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
            findings.append(ProofResult.unproved(fitting.name, fitting.what, str(error)))
    proved = model_subjects(pipeline) + trading_subjects(pipeline, candles)
    proved += baseline_subjects(settings, candles)
    findings += prove(proved, candles, rows, settings.seed)
    findings += prove(fill_subjects(pipeline), candles, rows[::2], settings.seed)
    if scores is not None:
        adaptive = adaptive_correction(pipeline, fitted, scores)
        try:
            findings += prove([adaptive], candles, rows, settings.seed)
        except CalibrationError as error:
            findings.append(ProofResult.unproved(adaptive.name, adaptive.what, str(error)))
    status = "leak" if any(one.verdict == "leak" for one in findings) else "no leak found"
    metadata = describe(datamodule, settings.seed, status=status, settings=settings.model_dump(mode="json"))
    times = [f"{time:%Y-%m-%d %H:%M}" for time in pd.to_datetime(original.cutoffs)]
    metadata |= {"sources": asdict(sources)}
    return Certificate(label=data.label, cutoffs=times, findings=findings, metadata=metadata)


def pairs(candles: Candles, target: np.ndarray, lookback: int, horizon: int) -> np.ndarray:
    """Return a bool mask of the candles forecast by pairs of neighbouring cutoffs at a few places of a range."""
    starts = window_starts(candles.frame["segment"].to_numpy(), target, lookback, horizon)
    chosen = starts[np.unique(np.linspace(0, max(len(starts) - 2, 0), PAIRS).astype(int))]
    firsts = chosen[:, None] + lookback + np.arange(horizon + 1)
    return target & np.isin(np.arange(len(candles)), firsts)


def model_subjects(pipeline: Pipeline) -> list[Subject]:
    """Build the subjects from candles to calibrated forecasts."""
    data, forecaster = pipeline.settings.data, pipeline.forecaster
    found = [
        subjects.features(data.lookback, data.horizon, data.clip, forecaster.representation),
        subjects.training_windows(forecaster, data.lookback, data.horizon),
        subjects.tokens(forecaster, data.lookback, data.horizon),
        subjects.logits(forecaster, data.lookback, data.horizon),
        subjects.forecasts("forecasts", "sample paths of every cutoff so far", pipeline.forecast),
    ]
    if pipeline.calibration is not None:
        calibrated = cached(lambda candles: pipeline.calibrated(pipeline.forecast(candles)))
        found.append(subjects.forecasts("calibrated forecasts", "the same, calibrated", calibrated))
    return found


def baseline_subjects(settings: Evaluation, candles: Candles) -> list[Subject]:
    """Build the subjects of the scoreboard's baselines."""
    found = build_baselines(settings, candles.interval)
    return [subjects.baseline(name, one, settings.data.horizon, PATHS) for name, one in found.items()]


def calibration_fit(pipeline: Pipeline) -> Subject:
    """Build the subject of the calibration fitted on validation, checked at the first cutoff of the test."""

    def at(candles: Candles, row: int) -> Arrays:
        found, scores = pipeline.fit(candles)
        return {
            "widening": np.array(found.widening),
            "platt": np.array([found.slope, found.intercept]),
            "scores": scores,
        }

    return Subject(
        name="calibration", what="interval widths and probabilities, fitted on the validation range", function=at
    )


def adaptive_correction(pipeline: Pipeline, fitted: Calibration, scores: np.ndarray) -> Subject:
    """Build the subject of the adaptive correction, which learns from the test's own outcomes once they are known."""

    def corrected(candles: Candles) -> ForecastSet:
        found = pipeline.forecast(candles)
        return found.with_paths(adaptively_corrected(found, fitted, scores))

    return subjects.forecasts("adaptive correction", "closes corrected by the outcomes known so far", cached(corrected))


def trading_subjects(pipeline: Pipeline, candles: Candles) -> list[Subject]:
    """Build the subjects of signals and backtest, as configured and with every forecast traded."""
    searched = pipeline.settings.backtest.parameters == "validation"
    validation = pipeline.validate(candles) if searched else None
    configured, forced = pipeline.trades(validation), pipeline.trades(None, pipeline.forced_strategy, **FORCED)

    def signals(candles: Candles, row: int) -> Arrays:
        forecasts = pipeline.calibrated(pipeline.forecast(candles))
        known = forecasts.cutoffs <= subjects.time_of(candles, row)
        named = {"as configured": configured, "every forecast traded": forced}
        found = {}
        for name, trades in named.items():
            strategy = trades(candles).strategy
            found[f"signals, {name}"] = strategy.signals(forecasts)[known]
            if isinstance(strategy, ThresholdStrategy):  # its expected return shows more than its signals
                found[f"expected return, {name}"] = strategy.expected_return(forecasts)[known]
        return found | {"P(up)": forecasts.probability_up[known]}

    def backtest(candles: Candles, row: int) -> Arrays:
        found = {}
        for name, trades in (("as configured", configured), ("every forecast traded", forced)):
            run, n = _until(trades(candles), candles, row)
            for series in ("equity", "position", "halted"):
                found[f"{series}, {name}"] = getattr(run, series)[:n]
            found[f"trades, {name}"] = run.trades[run.trades["exit"] < n]
        return found

    return [
        Subject(
            name="signals",
            what="BUY, SELL or HOLD, what they are decided by, and the calibrated P(up)",
            function=signals,
        ),
        Subject(
            name="backtest",
            what="equity, position, halts and trades, as configured and with every forecast traded",
            function=backtest,
        ),
    ]


def fill_subjects(pipeline: Pipeline) -> list[Subject]:
    """Build the subjects of orders decided at a close and filled at the next open: only that price may matter.

    Without stop loss and take profit, because those are filled inside a candle.
    """
    forced = pipeline.trades(None, pipeline.forced_strategy, **FORCED, **NO_EXIT)

    def filled(candles: Candles, row: int) -> Arrays:
        run, n = _until(forced(candles), candles, row)
        trades = run.trades[(run.trades["exit"] <= n) & (run.trades["reason"] != END)]
        return {"position": run.position[: n + 1], "trades": trades}

    def prices(candles: Candles, row: int) -> Arrays:
        run, n = _until(forced(candles), candles, row)
        return {"entry price": run.trades["entry_price"][run.trades["entry"] == n]}

    what = "positions and trades at the next open, the rest of its candle changed"
    hidden = "entry prices, which must not be known when the order is decided"
    return [
        Subject(name="fills", what=what, function=filled, knows="open"),
        Subject(name="fill prices", what=hidden, function=prices, knows="nothing"),
    ]


def _until(trading: Trading, candles: Candles, row: int) -> tuple[Backtest, int]:
    """Return a backtest and the number of its candles up to a row."""
    run = trading.run
    return run, int(run.stamps.searchsorted(candles.frame["timestamps"].iloc[row], side="right"))


def records(
    settings: Evaluation,
    datamodule: CandleDataModule,
    candles: Candles,
    sources: Sources,
    calibration: Calibration | None,
    forecasts: ForecastSet,
) -> list[ProofResult]:
    """Check what files and checkpoints record: splits, training data, calibration, pretraining, intrabar candles."""
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
        found.append(check_calibration(calibration.metadata, pd.Timestamp(forecasts.cutoffs[0], tz="UTC")))
    if not (candles.synthetic or sources.started_at_random) and first < end_of(PRETRAINING_END):
        detail = f"the test begins at {first}, the published weights may have seen candles up to {PRETRAINING_END}"
        found.append(ProofResult.unproved("pretraining", "training data of the initial weights", detail))
    if settings.backtest.intrabar_csv is not None:
        detail = "they come from a file that is not mutated; the backtest was proved without them"
        found.append(ProofResult.unproved("intrabar candles", "what came first inside a candle", detail))
    return found
