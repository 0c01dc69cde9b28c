"""Decision at a cutoff: the one function that evaluation, forecast command and service share.

Shape letters: N cutoffs, S sample paths, h horizon, C features.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from kronos_lightning.backtest import BUY, SELL, Strategy
from kronos_lightning.backtest.strategy import ThresholdStrategy
from kronos_lightning.forecast import Forecaster, ForecastSet, cutoff_name, probability_up, series_generators
from kronos_lightning.forecast.series import Series

Trend = Literal["up", "down", "flat"]
Signal = Literal["BUY", "SELL", "HOLD"]
TOLERANCE = 1e-6  # difference of the expected return that the other series of a batch can make


@dataclass(frozen=True, kw_only=True, eq=False)
class Decision:
    """Signal at a cutoff with the forecast that it comes from.

    cutoff: open time of the last known candle.
    stamps: open times of the forecast candles, ``(h,)``.
    last_close: close of the last known candle.
    paths: sample paths, calibrated if there is a calibration: float32 ``(S, h, C)``.
    signal: signal of the strategy.
    statistic: statistic of the paths that the strategy compares with its thresholds: mean, median or probability;
        None for a strategy without such a statistic.
    compared: its value; the expected return for a strategy without one.
    thresholds: parameters of the strategy, by name.
    expected_return: mean or median return over the horizon; median unless the strategy uses the mean.
    share_up: share of the paths that end above the last close.
    up: calibrated probability of such an end; None without a calibration.
    calibrated_steps: number of steps that the calibration was fitted on; 0 without one.
    """

    cutoff: pd.Timestamp
    stamps: pd.DatetimeIndex
    last_close: float
    paths: np.ndarray
    signal: Signal
    statistic: str | None
    compared: float
    thresholds: dict[str, float]
    expected_return: float
    share_up: float
    up: float | None
    calibrated_steps: int

    @property
    def predicted_price(self) -> float:
        """Price at the horizon that belongs to the expected return."""
        return self.last_close * (1 + self.expected_return)

    @property
    def probability(self) -> float:
        """Probability of an end above the last close: calibrated, or the share of the paths."""
        return self.share_up if self.up is None else self.up

    @property
    def trend(self) -> Trend:
        """Direction of the forecast; flat if P(up) is within the sampling error of one half."""
        if abs(self.probability - 0.5) < 0.5 / math.sqrt(len(self.paths)):
            return "flat"
        return "up" if self.probability > 0.5 else "down"

    @property
    def confidence(self) -> float | None:
        """Calibrated probability of the likelier direction; None without a calibration of the last step."""
        if self.up is None or len(self.stamps) > self.calibrated_steps:
            return None
        return max(self.up, 1 - self.up)

    @property
    def at_threshold(self) -> bool:
        """True if the other series of a batch could turn the signal."""
        return any(abs(self.compared - value) <= TOLERANCE for value in self.thresholds.values())

    @property
    def is_finite(self) -> bool:
        """True if every value of the paths is a number."""
        return bool(np.isfinite(self.paths).all())

    def summary(self) -> dict[str, Any]:
        """Return all but the paths, for a JSON file."""
        return {
            "cutoff": self.cutoff.isoformat(),
            "target_open": self.stamps[-1].isoformat(),
            "last_close": self.last_close,
            "predicted_price": self.predicted_price,
            "expected_return": self.expected_return,
            "signal": self.signal,
            "statistic": self.statistic,
            "compared": self.compared,
            "thresholds": self.thresholds,
            "at_threshold": self.at_threshold,
            "trend": self.trend,
            "probability_up": self.share_up,
            "probability_up_calibrated": self.up,
            "confidence": self.confidence,
        }


def decide_at(series: Series, forecaster: Forecaster, strategy: Strategy, num_paths: int, seed: int) -> Decision:
    """Decide after a series of candles. The same arguments always give the same decision.

    Args:
        series: candles up to the cutoff, at most the lookback.
        forecaster: forecaster with its sampling and, if the decision is calibrated, its calibration.
        strategy: rule that turns the forecast into a signal.
        num_paths: number of sample paths, S.
        seed: seed of the paths.
    """
    return decide_together([series], forecaster, strategy, num_paths, seed)[0]


def decide_together(
    series: Sequence[Series], forecaster: Forecaster, strategy: Strategy, num_paths: int, seed: int
) -> list[Decision]:
    """Decide after several series of one horizon, in one pass; the others change an expected return by up to 1e-6."""
    generators = series_generators(seed, [cutoff_name(one.stamps[-1]) for one in series])
    paths = forecaster.sample_series(series, num_paths, generators)
    last, calibration = np.array([one.last_close for one in series]), forecaster.calibration
    up = None if calibration is None else calibration.probability_up(probability_up(paths, last))
    forecasts = ForecastSet(
        cutoffs=np.array([_plain(one.stamps[-1:])[0] for one in series]),
        stamps=np.stack([_plain(one.future) for one in series]),
        last_close=last,
        paths=paths,
        actual=np.full((len(series), *paths.shape[2:]), np.nan),
        up=up,
        calibration=calibration,
    )
    return decisions(forecasts, strategy)


def decisions(forecasts: ForecastSet, strategy: Strategy) -> list[Decision]:
    """Decide at every cutoff of a forecast set."""
    signals, close = strategy.signals(forecasts), forecasts.close_paths[:, :, -1]
    statistic = strategy.signal if isinstance(strategy, ThresholdStrategy) else None
    returns = close / forecasts.last_close[:, None] - 1
    expected = returns.mean(axis=1) if statistic == "mean" else np.median(returns, axis=1)
    compared = strategy.expected_return(forecasts) if isinstance(strategy, ThresholdStrategy) else expected
    share = probability_up(forecasts.paths, forecasts.last_close)[:, -1]
    steps = 0 if forecasts.calibration is None else len(forecasts.calibration.widening)
    names: dict[int, Signal] = {BUY: "BUY", SELL: "SELL"}
    return [
        Decision(
            cutoff=pd.Timestamp(forecasts.cutoffs[i], tz="UTC"),
            stamps=pd.DatetimeIndex(forecasts.stamps[i], tz="UTC"),
            last_close=float(forecasts.last_close[i]),
            paths=forecasts.paths[i],
            signal=names.get(int(signals[i]), "HOLD"),
            statistic=statistic,
            compared=float(compared[i]),
            thresholds={name: float(value) for name, value in strategy.parameters.items()},
            expected_return=float(expected[i]),
            share_up=float(share[i]),
            up=None if forecasts.up is None else float(forecasts.up[i, -1]),
            calibrated_steps=steps,
        )
        for i in range(len(forecasts))
    ]


def _plain(stamps: pd.DatetimeIndex) -> np.ndarray:
    """Return stamps in UTC without their zone, datetime64[ns]."""
    plain = stamps if stamps.tz is None else stamps.tz_convert("UTC").tz_localize(None)
    found: np.ndarray = plain.as_unit("ns").to_numpy()
    return found
