"""Rolling-origin forecasts: at each cutoff the model sees the candles up to it and nothing later.

Lightning's predict loop distributes batches of cutoffs among the processes. Random draws at a cutoff depend only on the
seed and the cutoff. Neither the number of processes nor the choice of cutoffs changes a forecast.

Shape letters: N cutoffs, B cutoffs of a batch, S sample paths, T lookback, h horizon, C = 6 features.
"""

import math
from typing import NamedTuple

import lightning as L
import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from kronos_lightning.data import CandleError, Candles
from kronos_lightning.data.candles import time_features
from kronos_lightning.data.formats import CLOSE, FEATURES
from kronos_lightning.data.volatility_regression import VolatilityRegression
from kronos_lightning.data.windows import ShardSampler, window_starts
from kronos_lightning.forecast import Forecaster, ForecastSet, cutoff_name, series_generators
from kronos_lightning.forecast.device import keep_freed_memory

from .baselines import season_of


class CutoffBatch(NamedTuple):
    """Model inputs at a batch of cutoffs."""

    cutoff: Tensor  # (B,) rows of the cutoffs in the candle frame
    context: Tensor  # (B, T, C) candles up to the cutoff
    stamp: Tensor  # (B, T, 5) time features of the context
    future_stamp: Tensor  # (B, h, 5) time features of the candles to forecast


class Cutoffs(Dataset[CutoffBatch]):
    """Dataset of regular cutoffs over the candles that `target` allows; each item is a batch of cutoffs.

    Args:
        candles: all candles; candles before the target range are context.
        target: bool ``(len(candles),)``, True for candles that may be forecast.
        lookback, horizon: T and h.
        max_cutoffs: maximum number of cutoffs, as `spread_evenly` chooses them; None = all.
        batch_size: B.

    Cutoffs with a gap inside their window are left out.
    """

    def __init__(
        self,
        candles: Candles,
        target: np.ndarray,
        lookback: int,
        horizon: int,
        max_cutoffs: int | None,
        batch_size: int,
    ):
        frame = candles.frame
        starts = window_starts(frame["segment"].to_numpy(), target, lookback, horizon)
        if max_cutoffs and len(starts):
            season = season_of(candles.interval)
            starts = starts[spread_evenly(len(starts), max_cutoffs, season // candles.interval if season else 1)]
        self.rows = torch.from_numpy(starts)[:, None] + torch.arange(lookback + horizon)
        self.lookback, self.horizon, self.batch_size, self.frame = lookback, horizon, batch_size, frame
        self.batches = torch.split(self.rows, batch_size)
        self.values = torch.from_numpy(frame[FEATURES].to_numpy(np.float32, copy=True))
        self.stamps = torch.from_numpy(time_features(frame["timestamps"]))
        self.times = candles.times

    def share(self, processes: int) -> None:
        """Split the cutoffs into batches so that every process gets at least one batch.

        Raises:
            CandleError: there are fewer cutoffs than processes.
        """
        if len(self.rows) < processes:
            raise CandleError(f"{len(self.rows)} cutoff(s) are too few for {processes} process(es); use trainer=cpu")
        self.batches = torch.split(self.rows, min(self.batch_size, len(self.rows) // processes))

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, i: int) -> CutoffBatch:
        past, future = self.batches[i][:, : self.lookback], self.batches[i][:, self.lookback :]
        return CutoffBatch(past[:, -1], self.values[past], self.stamps[past], self.stamps[future])

    def deviations(self, regression: VolatilityRegression, max_context: int) -> np.ndarray:
        """Return the volatility that is expected at each cutoff, ``(N, h)``; see `VolatilityRegression.deviations`.

        Args:
            regression: the regression.
            max_context: maximum number of candles that a forecaster sees.
        """
        rows = self.rows[:, max(0, self.lookback - max_context) :]
        return regression.deviations(self.values[rows[:, : -self.horizon]], self.stamps[rows])

    def forecast_set(self, paths: np.ndarray) -> ForecastSet:
        """Combine all paths ``(N, S, h, C)``, in the order of the cutoffs, with the actual candles."""
        cutoff, future = self.rows[:, self.lookback - 1].numpy(), self.rows[:, self.lookback :].numpy()
        exact = self.frame[FEATURES].to_numpy()
        return ForecastSet(
            cutoffs=self.times[cutoff],
            stamps=self.times[future],
            last_close=exact[cutoff, CLOSE],
            paths=paths,
            actual=exact[future],
        )


def spread_evenly(available: int, at_most: int, season: int) -> np.ndarray:
    """Choose at most `at_most` of the places 0 … available − 1 at an almost equal distance, ascending.

    A distance that shares a divisor with the season, such as 12 of 24 hourly candles, would choose the same few hours.
    From four on, it becomes longer by one place whenever these have been gone through, so that every hour has its turn.

    Args:
        available, at_most: both at least 1.
        season: number of candles of a day, or of another season.
    """
    distance = -(-available // at_most)
    cycle = season // math.gcd(distance, season)
    order = np.arange(at_most)
    places: np.ndarray = order * distance + (order // cycle if distance > 3 and cycle < season else 0)
    return places[places < available]


class RollingData(L.LightningDataModule):
    """Data module that distributes the cutoffs among the processes by batch."""

    def __init__(self, cutoffs: Cutoffs):
        super().__init__()
        self.cutoffs = cutoffs

    def setup(self, stage: str) -> None:
        _, world_size = self._rank()
        self.cutoffs.share(world_size)

    def predict_dataloader(self) -> DataLoader[CutoffBatch]:
        sampler = ShardSampler(len(self.cutoffs), *self._rank())
        return DataLoader(self.cutoffs, batch_size=None, sampler=sampler)

    def _rank(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)


class RollingModule(L.LightningModule):
    """Lightning module that forecasts batches of cutoffs.

    paths: sample paths ``(S, h, C)`` by the row of their cutoff; complete in every process after prediction.
    """

    def __init__(self, forecaster: Forecaster, times: np.ndarray, num_paths: int, seed: int):
        super().__init__()
        self.tokenizer, self.predictor = forecaster.tokenizer, forecaster.predictor
        self.forecaster, self.times, self.num_paths, self.seed = forecaster, times, num_paths, seed
        self.paths: dict[int, np.ndarray] = {}

    def on_predict_start(self) -> None:
        keep_freed_memory()

    def predict_step(self, batch: CutoffBatch, batch_idx: int) -> None:
        rows = batch.cutoff.tolist()
        generators = series_generators(self.seed, [cutoff_name(self.times[row]) for row in rows])
        paths = self.forecaster.sample_windows(
            batch.context, batch.stamp, batch.future_stamp, self.num_paths, generators
        )
        self.paths |= dict(zip(rows, paths.cpu().numpy(), strict=True))

    def on_predict_epoch_end(self) -> None:
        if self.trainer.world_size > 1:
            parts: list[dict[int, np.ndarray]] = [{}] * self.trainer.world_size
            dist.all_gather_object(parts, self.paths)
            self.paths = {row: paths for part in parts for row, paths in part.items()}


def rolling_forecasts(
    cutoffs: Cutoffs, forecaster: Forecaster, num_paths: int, seed: int, trainer: L.Trainer
) -> ForecastSet:
    """Forecast from all cutoffs on the trainer's devices.

    Args:
        cutoffs: the cutoffs and their contexts.
        forecaster: the forecaster to measure; moved to the trainer's device.
        num_paths: S.
        seed: of the paths.
        trainer: Lightning trainer; every one of its processes gets the result.
    """
    module = RollingModule(forecaster, cutoffs.times, num_paths, seed)
    trainer.predict(module, RollingData(cutoffs), return_predictions=False)
    rows = cutoffs.rows[:, cutoffs.lookback - 1].tolist()
    return cutoffs.forecast_set(np.stack([module.paths[row] for row in rows]))
