"""Command that forecasts the candles after the end of a file.

python -m kronos_lightning.forecast candles.csv horizon=24
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.table import Table

from kronos_lightning.backtest import ThresholdStrategy
from kronos_lightning.cli.entry import command
from kronos_lightning.config.schema import Forecasting
from kronos_lightning.config.validation import check_forecasting
from kronos_lightning.data import Candles
from kronos_lightning.data.candles import validate
from kronos_lightning.data.formats import CLOSE, read_raw, usual_distance
from kronos_lightning.data.sessions import describe_sessions, next_opens
from kronos_lightning.forecast.calibration import FILE, Calibration
from kronos_lightning.forecast.device import best_device
from kronos_lightning.forecast.distribution import (
    expected_volatility,
    probability_touch,
    probability_up,
    quantile_table,
    quantiles,
    validity,
)
from kronos_lightning.forecast.forecaster import Forecaster
from kronos_lightning.forecast.plots import live_figure
from kronos_lightning.forecast.risk import RISK_LEVELS, drawdowns, tail_risk
from kronos_lightning.forecast.series import Series, read_series
from kronos_lightning.pipeline.decision_settings import DecisionSettings, as_evaluated
from kronos_lightning.pipeline.signals import Decision, decide_at
from kronos_lightning.plotting.terminal import Terminal
from kronos_lightning.runs.checkpoint_lookup import Sources, load_forecaster
from kronos_lightning.runs.directory import best_model
from kronos_lightning.runs.networks import Inputs
from kronos_lightning.settings import parse_interval
from kronos_lightning.storage import atomic_directory

LEVELS = (0.025, 0.1, 0.25, 0.5, 0.75, 0.9, 0.975)
MAX_TABLE_STEPS = 24  # maximum number of steps in the terminal's table
STAMP = "%Y-%m-%d %H:%M UTC"
USUAL_LOOKBACK = 360  # candles; for a predictor that does not record its lookback
SAMPLING = {"forecast.temperature", "forecast.top_p"}  # that a calibration sets
UNEVALUATED = ThresholdStrategy(signal="median", buy_threshold=0.0, sell_threshold=0.0, search_thresholds=[0.0])
PLOTTED = 120  # maximum number of known candles in the plot

log = logging.getLogger("forecast")


@command("forecast", file_key="candles")
def main(cfg: DictConfig) -> None:
    """Forecast the candles after a file; write quantiles, paths and a fan chart, and print a table."""
    settings = check_forecasting(cfg)
    candles = read_market(settings)
    directory = None if settings.predictor == "published" else best_model(Path(settings.predictor))
    evaluated = None if directory is None else DecisionSettings.load(directory)
    overrides: Mapping[str, Any] = {}
    if evaluated is not None:
        settings, overrides = as_evaluated(settings, evaluated, given_keys())
    forecaster, sources = load_forecaster(settings, directory, settings.predictor, Inputs(clip=settings.clip))
    lookback = settings.lookback or trained_lookback(sources)
    series = last_series(candles, lookback, settings)
    if settings.calibrated and not overrides.keys() & SAMPLING:
        forecaster = calibrated(forecaster, sources, candles.interval, lookback)
    forecaster.to(best_device(settings.device))
    strategy = UNEVALUATED if evaluated is None else evaluated.build_strategy()
    decision = decide_at(series, forecaster, strategy, settings.forecast.num_paths, settings.seed)
    paths = decision.paths

    output = Path(settings.output_dir) / candles.symbol
    with atomic_directory(output, origin=str(Path(settings.candles).resolve())) as folder:
        quantile_table(paths, series.future, LEVELS, timestamp_column="timestamps").to_csv(
            folder / "quantiles.csv", index=False
        )
        risk_table(series, paths).to_csv(folder / "risk.csv", index=False)
        np.save(folder / "paths.npy", paths)
        if evaluated is not None:
            told = decision.summary() | {"overrides": overrides}
            (folder / "signal.json").write_text(json.dumps(told, indent=2, allow_nan=False))
        known, title = (
            series.last(PLOTTED),
            f"{candles.symbol}: {len(paths)} sample paths after {series.stamps[-1]:{STAMP}}",
        )
        live_figure(known.values, paths, known.stamps.append(series.future), title).savefig(folder / "fan.png", dpi=120)
    print_summary(series, paths, settings, sources, forecaster.calibration)
    if evaluated is not None:
        print_signal(decision, evaluated, candles.interval, overrides)
    also = "" if evaluated is None else ", signal.json"
    log.info("Written to %s: quantiles.csv, risk.csv, paths.npy, fan.png%s", output, also)


def given_keys() -> set[str]:
    """Return the keys that the user has set on the command line."""
    return {text.partition("=")[0].lstrip("+~") for text in HydraConfig.get().overrides.task}


def read_market(settings: Forecasting) -> Candles:
    """Read the file; without `calendar`, find out whether its market closes."""
    path = Path(settings.candles)
    raw, sessions = read_raw(path, settings), settings.calendar == "sessions"
    if settings.calendar is None:
        stamps = pd.DatetimeIndex(raw["timestamps"].sort_values().unique())
        closes = describe_sessions(stamps, usual_distance(raw, path))
        if closes:
            log.info("Forecasts follow the sessions of this market (%s); use calendar=24x7 if it never closes", closes)
        sessions = bool(closes)
    return validate(raw, path, settings.interval, path.stem, sessions)


def trained_lookback(sources: Sources) -> int:
    """Return the lookback of the predictor's fine-tuning, else 360; another lookback changes the normalisation."""
    trained = (sources.info or {}).get("settings", {}).get("lookback")
    if trained is not None:
        log.info("Lookback: %d candles, as in training", trained)
    return trained or USUAL_LOOKBACK


def last_series(candles: Candles, lookback: int, settings: Forecasting) -> Series:
    """Return the last `lookback` candles without a gap; fewer if the last segment is shorter."""
    frame = candles.frame[candles.frame["segment"] == candles.frame["segment"].iloc[-1]].tail(lookback)
    if len(frame) < min(lookback, len(candles)):
        log.warning("Using only the %d candles after the last gap (%s)", len(frame), candles.gaps[-1][0])
    future = None
    if candles.sessions:
        known = pd.DatetimeIndex(candles.frame["timestamps"]).tz_convert(settings.timezone or "UTC")
        future = next_opens(known, settings.horizon, candles.interval).tz_convert("UTC")
    return read_series(frame, settings.horizon, future=future, label=settings.candles)


def calibrated(forecaster: Forecaster, sources: Sources, interval: pd.Timedelta, lookback: int) -> Forecaster:
    """Apply the calibration stored with the checkpoint, if it was fitted on the same interval and settings.

    Returns:
        The calibrated forecaster, or `forecaster` unchanged.
    """
    calibration = Calibration.load(sources.directory) if sources.directory is not None else None
    if calibration is None:
        return forecaster
    if parse_interval(calibration.interval) != interval:
        log.warning("Not calibrated: %s was fitted on candles of %s", sources.directory / FILE, calibration.interval)
        return forecaster
    metadata = calibration.metadata
    if missing := {"lookback", "top_k", "fitted_from", "fitted_to"} - metadata.keys():
        log.warning("Not calibrated: %s does not record %s", sources.directory / FILE, ", ".join(sorted(missing)))
        return forecaster
    rotary = metadata.get("rotary_fine_token", metadata.get("trained_positions"))  # key name in earlier versions
    fitted = metadata["lookback"], metadata["top_k"], rotary, metadata.get("anchor", False)
    if fitted != (lookback, forecaster.sampling.top_k, forecaster.rotary_fine_token, forecaster.anchor):
        log.warning(
            "Not calibrated: %s was fitted with lookback=%d forecast.top_k=%d forecast.rotary_fine_token=%s "
            "forecast.anchor=%s",
            *(sources.directory / FILE, *fitted[:2], *(str(flag).lower() for flag in fitted[2:])),
        )
        return forecaster
    log.info("Calibration: %s", sources.directory / FILE)
    return forecaster.with_calibration(calibration)


def print_signal(
    decision: Decision, evaluated: DecisionSettings, interval: pd.Timedelta, overrides: Mapping[str, Any]
) -> None:
    """Print the signal of the evaluated strategy and what is not as in the evaluation."""
    console = Terminal()
    limits = ", ".join(f"{name} {value:+g}" for name, value in decision.thresholds.items())
    reason = f"{decision.statistic or 'median'} {decision.compared:+.4g}" + (f"; {limits}" if limits else "")
    console.print(f"Signal: {decision.signal} ({reason}), as in the evaluation on {evaluated.symbol}.")
    if parse_interval(evaluated.interval) != interval:
        console.print(f"NOT COMPARABLE: the evaluation was on candles of {evaluated.interval}.", style="bold yellow")
    if overrides:
        changed = ", ".join(f"{key}={value}" for key, value in overrides.items())
        console.print(f"NOT COMPARABLE: other settings than in the evaluation: {changed}.", style="bold yellow")


def print_summary(
    series: Series, paths: np.ndarray, settings: Forecasting, sources: Sources, calibration: Calibration | None
) -> None:
    """Print the forecast as a table and sentences."""
    console, last = Terminal(), np.array([series.last_close])
    steps = np.unique(np.linspace(0, len(series.future) - 1, MAX_TABLE_STEPS).round().astype(int))
    edges, up = quantiles(paths[None], LEVELS)[0, :, CLOSE], probability_up(paths[None], last)[0]
    up = up if calibration is None else calibration.probability_up(up)
    table = Table(title=f"Quantiles of the close after {series.stamps[-1]:{STAMP}}, last {series.last_close:,.6g}")
    shown = [LEVELS.index(level) for level in (0.025, 0.1, 0.5, 0.9, 0.975)]
    for name in ("UTC", *(f"{LEVELS[q] * 100:g} %" for q in shown), "P(up)"):
        table.add_column(name, justify="right", no_wrap=True)
    stamp = "%Y-%m-%d" if (series.future == series.future.normalize()).all() else "%Y-%m-%d %H:%M"
    for i in steps:
        row = (f"{edges[i, q]:,.6g}" for q in shown)
        table.add_row(f"{series.future[i]:{stamp}}", *row, f"{up[i]:.0%}")
    console.print(table)
    touch = probability_touch(paths[None], last, settings.touch_down, settings.touch_up)
    console.print(
        f"Within {len(series.future)} candles: falls {settings.touch_down:.1%} first {touch.down[0]:.0%}, rises "
        f"{settings.touch_up:.1%} first {touch.up[0]:.0%}, neither {touch.neither[0]:.0%}. "
        f"Expected volatility {expected_volatility(paths[None], last)[0]:.3%} a candle."
    )
    console.print(_risk_text(paths, last))
    console.print(f"Candle validity: {validity(paths[None])}.")
    if sources.random or sources.random_tokenizer:
        console.print("RANDOM WEIGHTS: the model is untrained, so this forecast is meaningless.", style="bold yellow")
    if sources.info is not None and sources.info["synthetic"]:
        console.print("SYNTHETIC: the predictor was fine-tuned on made-up candles.", style="bold yellow")
    if calibration is None:
        console.print(
            "The probabilities are not calibrated; run evaluate.py to calibrate them and to measure their accuracy."
        )
    else:
        fitted, known = calibration.metadata, len(calibration.widening)
        console.print(
            f"Calibrated on {fitted.get('symbol', 'candles')} from {fitted['fitted_from'][:10]} to "
            f"{fitted['fitted_to'][:10]}: sample paths, with a separate correction for P(up)."
            + (f" Steps beyond {known} are treated like step {known}." if len(series.future) > known else "")
        )


def risk_table(series: Series, paths: np.ndarray) -> pd.DataFrame:
    """Build a table of value at risk and expected shortfall by step, as shares of the last close."""
    columns: dict[str, np.ndarray | pd.DatetimeIndex] = {"timestamps": series.future}
    for level in RISK_LEVELS:
        found = tail_risk(paths[None], np.array([series.last_close]), level)
        columns[f"value_at_risk_{level:g}"] = found.value_at_risk[0]
        columns[f"expected_shortfall_{level:g}"] = found.expected_shortfall[0]
    return pd.DataFrame(columns)


def _risk_text(paths: np.ndarray, last: np.ndarray) -> str:
    """Return the sentence on the risk of a long position over the horizon."""
    found = [tail_risk(paths[None], last, level) for level in RISK_LEVELS]
    tails = ", ".join(
        f"{one.value_at_risk[0, -1]:.2%} at {one.level:.0%} (mean loss then {one.expected_shortfall[0, -1]:.2%})"
        for one in found
    )
    middle, most = np.quantile(drawdowns(paths[None], last)[0], (0.5, 0.95))
    return (
        f"Risk of a long position after {paths.shape[1]} candles: value at risk {tails}. Drawdown on the way: median "
        f"{middle:.2%}, in one of twenty paths over {most:.2%}."
    )


if __name__ == "__main__":
    main()
