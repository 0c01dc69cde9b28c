"""Forecast set: one of the two exchange formats of the project (the other is the candle frame).

Shape letters: N cutoffs, S sample paths, h horizon, C = 6 features.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd

from kronos_lightning.data.formats import CLOSE, FEATURES
from kronos_lightning.forecast.calibration import Calibration
from kronos_lightning.forecast.distribution import path_quantiles, probability_up

QUANTILES = (0.05, 0.25, 0.75, 0.95)


@dataclass(frozen=True, kw_only=True)
class ForecastSet:
    """Rolling-origin forecasts with realised candles.

    cutoffs: open times of the last known candles, ``(N,)``.
    stamps: open times of the forecast candles, ``(N, h)``.
    last_close: closes of the last known candles, ``(N,)``.
    paths: sample paths, float32 ``(N, S, h, C)``.
    actual: realised candles, ``(N, h, C)``.
    up: calibrated probability of a close above the last known close ``(N, h)``; None = the share of the paths.
    calibration: calibration of the paths; None = not calibrated.
    deviations: standard deviation of the log return to each step that a volatility regression expected, ``(N, h)``; for
        a calibration that shrinks the spread towards it.
    """

    cutoffs: np.ndarray
    stamps: np.ndarray
    last_close: np.ndarray
    paths: np.ndarray
    actual: np.ndarray
    up: np.ndarray | None = None
    calibration: Calibration | None = None
    deviations: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.cutoffs)

    @property
    def horizon(self) -> int:
        """Forecast horizon in steps, h."""
        return int(self.actual.shape[1])

    @property
    def close_paths(self) -> np.ndarray:
        """Paths of the close, float64 ``(N, S, h)``."""
        return self.paths[..., CLOSE].astype(np.float64)

    @property
    def actual_close(self) -> np.ndarray:
        """Realised closes, ``(N, h)``."""
        return self.actual[..., CLOSE]

    @property
    def probability_up(self) -> np.ndarray:
        """Probability of a close above the last known close, ``(N, h)``."""
        return probability_up(self.paths, self.last_close) if self.up is None else self.up

    def with_paths(self, paths: np.ndarray) -> Self:
        """Return the same cutoffs with other sample paths ``(N, S, h, C)``, uncalibrated."""
        return replace(self, paths=paths, up=None, calibration=None)

    def calibrated(self, calibration: Calibration) -> Self:
        """Return the same cutoffs with calibrated paths and P(up)."""
        result = self.with_paths(calibration.apply(self.paths, self.last_close, self.deviations))
        return replace(result, up=calibration.probability_up(result.probability_up), calibration=calibration)

    @classmethod
    def join(cls, sets: Sequence[Self]) -> Self:
        """Concatenate forecast sets, all or none calibrated; the result has the calibration of the last set."""
        names = ["cutoffs", "stamps", "last_close", "paths", "actual"]
        names += [name for name in ("up", "deviations") if getattr(sets[-1], name) is not None]
        parts = {name: np.concatenate([getattr(one, name) for one in sets]) for name in names}
        return cls(**parts, calibration=sets[-1].calibration)

    def table(self) -> pd.DataFrame:
        """Return one row per cutoff and step: actual candle, median candle, P(up), mean and quantiles of the close."""
        n, h = self.stamps.shape
        columns: dict[str, np.ndarray] = {
            "cutoff": np.repeat(self.cutoffs, h),
            "step": np.tile(np.arange(1, h + 1), n),
            "timestamps": self.stamps.ravel(),
            "last_close": np.repeat(self.last_close, h),
        }
        median = np.median(self.paths, axis=1)
        for i, name in enumerate(FEATURES):
            columns[f"actual_{name}"] = self.actual[..., i].ravel()
            columns[f"median_{name}"] = median[..., i].ravel()
        columns["probability_up"] = self.probability_up.ravel()
        columns["mean_close"] = self.close_paths.mean(axis=1).ravel()
        for level, values in zip(QUANTILES, path_quantiles(self.close_paths, QUANTILES), strict=True):
            columns[f"close_q{level * 100:02.0f}"] = values.ravel()
        frame = pd.DataFrame(columns)
        for name in ("cutoff", "timestamps"):
            frame[name] = frame[name].dt.tz_localize("UTC")
        return frame

    def save(self, directory: Path) -> None:
        """Write `forecasts.parquet` (the table), `paths.npy` (the paths) and, if calibrated, `calibration.json`."""
        self.table().to_parquet(directory / "forecasts.parquet", index=False)
        np.save(directory / "paths.npy", self.paths)
        if self.calibration is not None:
            self.calibration.save(directory)

    @classmethod
    def load(cls, directory: Path) -> "ForecastSet":
        """Read a forecast set that `save` wrote."""
        frame = pd.read_parquet(directory / "forecasts.parquet")
        paths = np.load(directory / "paths.npy", allow_pickle=False)
        n, h = paths.shape[0], paths.shape[2]
        stamps = {name: frame[name].dt.tz_localize(None).to_numpy().reshape(n, h) for name in ("cutoff", "timestamps")}
        actual = frame[[f"actual_{name}" for name in FEATURES]].to_numpy().reshape(n, h, len(FEATURES))
        last = frame["last_close"].to_numpy().reshape(n, h)[:, 0]
        calibration = Calibration.load(directory)
        return cls(
            cutoffs=stamps["cutoff"][:, 0],
            stamps=stamps["timestamps"],
            last_close=last,
            paths=paths,
            actual=actual,
            up=frame["probability_up"].to_numpy().reshape(n, h) if calibration and "probability_up" in frame else None,
            calibration=calibration,
        )
