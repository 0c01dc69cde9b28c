"""A checkpoint folder as evaluate.py leaves it: golden networks, calibration, `decision.json`."""

import shutil
from dataclasses import replace
from pathlib import Path

import lightning as L
import numpy as np
import pandas as pd

from kronos_lightning.backtest import ExecutionRules
from kronos_lightning.config.sections import ForecastSection
from kronos_lightning.data import Candles, read_candles
from kronos_lightning.data.volatility_regression import HOURS as HOURS_OF_WEEK
from kronos_lightning.data.volatility_regression import VolatilityRegression
from kronos_lightning.evaluation.rolling import Cutoffs, rolling_forecasts
from kronos_lightning.forecast import Forecaster
from kronos_lightning.forecast.calibration import INTERVALS, Calibration, SpreadShrinkage
from kronos_lightning.pipeline.decision_settings import DecisionSettings, EvaluationSummary, digest, weights
from kronos_lightning.runs.checkpoint_lookup import Sources
from tests.helpers.paths import GOLDEN

HOURS = GOLDEN / "btc_usdt_1h_300.csv"
LOOKBACK, HORIZON, PATHS, SEED = 90, 12, 20, 100
THRESHOLDS = {
    "_target_": "kronos_lightning.backtest.ThresholdStrategy",
    "signal": "median",
    "buy_threshold": 0.02,
    "sell_threshold": -0.02,
    "search_thresholds": [0.0],
}


REGRESSION = VolatilityRegression(
    season=[1.0 + 0.3 * (hour % 24 > 12) for hour in range(HOURS_OF_WEEK)], spans=[1, 24], coefficients=[-1.0, 0.2, 0.7]
)


def btc_hours() -> Candles:
    return read_candles(HOURS, "1h", "BTCUSDT")


def calibration_of(steps: int = HORIZON, slope: float = 0.8) -> Calibration:
    """A calibration that takes half of the drift out, shrinks the spread, and widens a little."""
    widening = tuple(tuple(0.1 * (i + 1) for i in range(len(INTERVALS))) for _ in range(steps))
    metadata = {"symbol": "BTCUSDT", "fitted_from": "2024-01-01T00", "fitted_to": "2024-03-01T00", "cutoffs": 100}
    metadata |= {"lookback": LOOKBACK, "top_k": 0, "rotary_fine_token": False, "anchor": False}
    return Calibration(
        temperature=0.9,
        top_p=1.0,
        widening=widening,
        slope=slope,
        intercept=0.1,
        interval="1h",
        drift=0.5,
        shrinkage=SpreadShrinkage(exponent=0.5, regression=REGRESSION),
        metadata=metadata,
    )


def evaluated_checkpoint(
    folder: Path, calibration: Calibration | None = None, predictor: Path = GOLDEN / "tiny-predictor", **changes
) -> DecisionSettings:
    """Write a checkpoint folder with its tokenizer inside; return its `decision.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    for source, target in ((predictor, folder), (GOLDEN / "tiny-tokenizer", folder / "tokenizer")):
        target.mkdir(exist_ok=True)
        for name in ("config.json", "model.safetensors"):
            shutil.copyfile(source / name, target / name)
    if calibration is not None:
        calibration.save(folder)
    sources = Sources(
        predictor="x", tokenizer="y", info=None, directory=folder, tokenizer_directory=folder / "tokenizer"
    )
    sampling = {"temperature": 1.0} if calibration is None else {"temperature": calibration.temperature}
    fields = {
        "symbol": "BTCUSDT",
        "interval": "1h",
        "model": "golden",
        "max_context": 512,
        "lookback": LOOKBACK,
        "horizon": HORIZON,
        "clip": 5.0,
        "volume": True,
        "seed": SEED,
        "forecast": ForecastSection(
            num_paths=PATHS, rotary_fine_token=False, precision="float32", anchor=False, repair=False, compile=False,
            **sampling,
        ),
        "strategy": THRESHOLDS,
        "parameters": None,
        "execution": ExecutionRules(cost=0.001, stop_loss=0.05, take_profit=0.15),
        "act_every_n_cutoffs": 1,
        "calibration": None if calibration is None else digest(calibration),
        "weights": weights(sources),
        "evaluation": EvaluationSummary(
            verdict=["Forecast: no edge over last_price_60, the best baseline here."], notices=[],
            first="2024-05-01T00:00:00", last="2024-06-01T00:00:00", cutoffs=100, predictor="tiny golden weights",
            random_weights=True, synthetic=False,
        ),
    }  # fmt: skip
    decision = DecisionSettings(**fields | changes)
    decision.save(folder)
    return decision


def evaluated_at(candles: Candles, cutoffs: np.ndarray, forecaster: Forecaster, decision: DecisionSettings):
    """What evaluate.py forecasts at rows `cutoffs`, one at a time and uncalibrated."""
    target = np.zeros(len(candles), dtype=bool)
    for row in cutoffs:
        target[row + 1 : row + 1 + decision.horizon] = True
    dataset = Cutoffs(candles, target, decision.lookback, decision.horizon, None, batch_size=1)
    kept = np.isin(dataset.rows[:, decision.lookback - 1].numpy(), cutoffs)
    dataset.rows = dataset.rows[kept]
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    found = rolling_forecasts(dataset, forecaster, decision.forecast.num_paths, decision.seed, trainer)
    return replace(found, deviations=dataset.deviations(REGRESSION, decision.max_context))


def known(candles: Candles, row: int, lookback: int = LOOKBACK) -> pd.DataFrame:
    """The last `lookback` candles up to a row."""
    return candles.frame.iloc[row - lookback + 1 : row + 1]
