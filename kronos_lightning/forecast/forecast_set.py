"""The forecast set: one of the two exchange formats of the project (the other is the candle frame).

Shape letters: N cutoffs, S sample paths, h horizon, C = 6 features.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd

from kronos_lightning.data.formats import FEATURES

from .distribution import CLOSE, path_quantiles

QUANTILES = (0.05, 0.25, 0.75, 0.95)


@dataclass(frozen=True)
class ForecastSet:
    """Rolling forecasts and what came.

    cutoffs: open times of the last known candles, ``(N,)``.
    stamps: open times of the forecast candles, ``(N, h)``.
    last_close: closes of the last known candles, ``(N,)``.
    paths: sample paths, float32 ``(N, S, h, C)``.
    actual: the candles that came, ``(N, h, C)``.
    """

    cutoffs: np.ndarray
    stamps: np.ndarray
    last_close: np.ndarray
    paths: np.ndarray
    actual: np.ndarray

    def __len__(self) -> int:
        return len(self.cutoffs)

    @property
    def horizon(self) -> int:
        """Steps ahead, h."""
        return self.actual.shape[1]

    @property
    def close_paths(self) -> np.ndarray:
        """Paths of the close, float64 ``(N, S, h)``."""
        return self.paths[..., CLOSE].astype(np.float64)

    @property
    def actual_close(self) -> np.ndarray:
        """``(N, h)``."""
        return self.actual[..., CLOSE]

    def with_paths(self, paths: np.ndarray) -> Self:
        """The same cutoffs with other sample paths."""
        return replace(self, paths=paths)

    @classmethod
    def join(cls, sets: Sequence[Self]) -> Self:
        """Several forecast sets after one another."""
        return cls(*(np.concatenate([getattr(one, f.name) for one in sets]) for f in fields(cls)))

    def table(self) -> pd.DataFrame:
        """One row per cutoff and step: actual candle, median candle, mean and quantiles of the close."""
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
        columns["mean_close"] = self.close_paths.mean(axis=1).ravel()
        for level, values in zip(QUANTILES, path_quantiles(self.close_paths, QUANTILES), strict=True):
            columns[f"close_q{level * 100:02.0f}"] = values.ravel()
        frame = pd.DataFrame(columns)
        for name in ("cutoff", "timestamps"):
            frame[name] = frame[name].dt.tz_localize("UTC")
        return frame

    def save(self, directory: Path) -> None:
        """Write `forecasts.parquet` (the table) and `paths.npy` (the raw paths)."""
        self.table().to_parquet(directory / "forecasts.parquet", index=False)
        np.save(directory / "paths.npy", self.paths)

    @classmethod
    def load(cls, directory: Path) -> "ForecastSet":
        """Read what `save` wrote."""
        frame = pd.read_parquet(directory / "forecasts.parquet")
        paths = np.load(directory / "paths.npy", allow_pickle=False)
        n, h = paths.shape[0], paths.shape[2]
        stamps = {name: frame[name].dt.tz_localize(None).to_numpy().reshape(n, h) for name in ("cutoff", "timestamps")}
        actual = frame[[f"actual_{name}" for name in FEATURES]].to_numpy().reshape(n, h, len(FEATURES))
        last = frame["last_close"].to_numpy().reshape(n, h)[:, 0]
        return cls(stamps["cutoff"][:, 0], stamps["timestamps"], last, paths, actual)
