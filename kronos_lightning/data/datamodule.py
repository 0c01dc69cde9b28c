"""Candles → splits on disk → loaders, the same for both stages and any number of processes."""

import json
import logging
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
from filelock import FileLock
from torch.utils.data import DataLoader

from .candles import FEATURES, Candles, end_of, in_range, read_candles
from .files import atomic_path, sha256
from .formats import CandleError, require_file
from .sample import sample_candles
from .windows import CandleWindows, EpochSampler, ShardSampler, WindowBatch, window_starts

SPLITS = ("train", "val", "test")
FORMAT = 1  # of the processed files; a change makes old ones stale

log = logging.getLogger(__name__)


class CandleDataModule(L.LightningDataModule):
    """Windows of one market, split by date.

    `prepare_data` reads and checks the source and writes ``{name}_{train,val,test}_data.parquet`` and
    ``{name}_manifest.json``; when neither source nor settings changed it reuses them.

    Args: every key of `conf/data/*.yaml`, documented there.
    """

    def __init__(
        self,
        name: str,
        symbol: str,
        interval: str,
        csv_path: str | None,
        sample: dict[str, Any] | None,
        sessions: bool,
        dataset_begin_time: str | None,
        dataset_end_time: str | None,
        train_time_range: list[str],
        val_time_range: list[str],
        test_time_range: list[str],
        lookback: int,
        horizon: int,
        clip: float,
        batch_size: int,
        samples_per_epoch: int | None,
        num_workers: int,
        processed_dir: str,
        seed: int,
    ):
        super().__init__()
        self.save_hyperparameters()
        self.ranges = {"train": train_time_range, "val": val_time_range, "test": test_time_range}
        self.target_rows = horizon + 1  # one row more than the horizon: inputs and targets are shifted by one
        self.windows: dict[str, CandleWindows] = {}
        self.prepared = False

    # --- candles ------------------------------------------------------------------------------------------------

    def read(self) -> Candles:
        """The validated candles of the source, within the data set's begin and end."""
        hp = self.hparams
        if hp.csv_path is not None:
            candles = read_candles(hp.csv_path, hp.interval, hp.symbol, hp.sessions)
        else:
            candles = sample_candles(interval=hp.interval, **hp.sample)
        return candles.between(hp.dataset_begin_time, hp.dataset_end_time)

    def target_masks(self, stamps: pd.Series) -> dict[str, np.ndarray]:
        """Which candles each split may forecast: its range, less what belongs to an earlier split."""
        masks, previous_end = {}, None
        for split in SPLITS:
            begin, end = self.ranges[split]
            masks[split] = in_range(stamps, begin, end)
            if previous_end is not None:
                masks[split] &= (stamps >= previous_end).to_numpy()
            previous_end = end_of(end)
        return masks

    # --- files --------------------------------------------------------------------------------------------------

    def path(self, split: str) -> Path:
        """Where the candles of a split are kept."""
        return Path(self.hparams.processed_dir) / f"{self.hparams.name}_{split}_data.parquet"

    @property
    def manifest_path(self) -> Path:
        return Path(self.hparams.processed_dir) / f"{self.hparams.name}_manifest.json"

    def manifest(self) -> dict[str, Any]:
        """What `prepare_data` wrote about source, settings, fingerprint, gaps and windows."""
        return json.loads(self.manifest_path.read_text())

    def _settings(self) -> dict[str, Any]:
        """All that decides the content of the processed files."""
        keys = ("symbol", "interval", "sample", "sessions", "dataset_begin_time", "dataset_end_time", "lookback")
        settings = {key: self.hparams[key] for key in (*keys, "horizon", *(f"{s}_time_range" for s in SPLITS))}
        source, fingerprint = self.hparams.csv_path, None
        if source is not None:
            require_file(Path(source))
            fingerprint = sha256(Path(source))
        return {"format": FORMAT, "source": source, "source_sha256": fingerprint, **settings}

    def _is_current(self, settings: dict[str, Any]) -> bool:
        try:
            manifest = self.manifest()
        except (FileNotFoundError, json.JSONDecodeError):
            return False
        files = manifest.get("files", {})
        return manifest.get("settings") == settings and all(
            self.path(split).is_file() and self.path(split).stat().st_size == files.get(split) for split in SPLITS
        )

    def prepare_data(self) -> None:
        if self.prepared:
            return
        settings = self._settings()
        Path(self.hparams.processed_dir).mkdir(parents=True, exist_ok=True)
        with FileLock(self.manifest_path.with_suffix(".lock")):  # other processes and runs may want the same files
            if self._is_current(settings):
                log.info("Processed data in %s is up to date, reused", self.hparams.processed_dir)
            else:
                self._process(settings)
        self.prepared = True

    def _process(self, settings: dict[str, Any]) -> None:
        candles = self.read()
        frame = candles.frame
        segment, masks = frame["segment"].to_numpy(), self.target_masks(frame["timestamps"])
        self.manifest_path.unlink(missing_ok=True)  # from here to the end the files are not valid together
        counts = {}
        for split in SPLITS:
            starts = window_starts(segment, masks[split], self.hparams.lookback, self.target_rows)
            own_range = in_range(frame["timestamps"], *self.ranges[split])
            wanted = len(window_starts(segment, own_range, self.hparams.lookback, self.target_rows))
            if len(starts) == 0:
                raise CandleError(
                    f"{candles.source}: no {split} window: data.{split}_time_range {self.ranges[split]} with lookback "
                    f"{self.hparams.lookback} and horizon {self.hparams.horizon} finds none in the candles "
                    f"{_span(frame)}"
                )
            if wanted > len(starts):
                log.info(
                    "%s: %d window(s) dropped: their targets belong to an earlier split", split, wanted - len(starts)
                )
            counts[split] = {"windows": len(starts), "dropped_for_earlier_split": wanted - len(starts)}
            rows = slice(starts[0], starts[-1] + self.hparams.lookback + self.target_rows)
            part = frame.iloc[rows].assign(target=masks[split][rows]).astype(dict.fromkeys(FEATURES, "float32"))
            with atomic_path(self.path(split)) as temporary:
                part.to_parquet(temporary, index=False)
        manifest = {
            "settings": settings,
            "fingerprint": candles.fingerprint,
            "synthetic": candles.synthetic,
            "candles": len(candles),
            "span": _span(frame),
            "gaps": [[str(before), str(after)] for before, after in candles.gaps],
            "windows": counts,
            "files": {split: self.path(split).stat().st_size for split in SPLITS},
        }
        with atomic_path(self.manifest_path) as temporary:
            temporary.write_text(json.dumps(manifest, indent=2))
        log.info("%s: %d candles, %s", candles.source, len(candles), _span(frame))

    # --- loaders ------------------------------------------------------------------------------------------------

    def setup(self, stage: str | None = None) -> None:
        if not self._is_current(self._settings()):
            raise CandleError(f"{self.manifest_path} was written for other settings: did another run use data.name?")
        splits = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}.get(stage, SPLITS)
        for split in splits:
            frame = pd.read_parquet(self.path(split))
            windows = CandleWindows(frame, self.hparams.lookback, self.target_rows, self.hparams.clip)
            self.windows[split] = windows
            log.info("%s: %d windows", split, len(windows))

    def train_dataloader(self) -> DataLoader:
        hp, windows = self.hparams, self.windows["train"]
        sampler = EpochSampler(len(windows), hp.batch_size, hp.samples_per_epoch, hp.seed, *self._rank())
        return self._loader(windows, sampler)

    def val_dataloader(self) -> DataLoader:
        return self._loader(self.windows["val"], ShardSampler(len(self.windows["val"]), *self._rank()))

    def test_dataloader(self) -> DataLoader:
        return self._loader(self.windows["test"], ShardSampler(len(self.windows["test"]), *self._rank()))

    def _rank(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)

    def _loader(self, windows: CandleWindows, sampler: EpochSampler | ShardSampler) -> DataLoader:
        return DataLoader(
            windows,
            batch_size=self.hparams.batch_size,
            sampler=sampler,
            num_workers=self.hparams.num_workers,
            collate_fn=_as_it_is,
            persistent_workers=self.hparams.num_workers > 0,
        )


def _as_it_is(batch: WindowBatch) -> WindowBatch:
    return batch


def _span(frame: pd.DataFrame) -> str:
    if frame.empty:
        return "(none between dataset_begin_time and dataset_end_time)"
    return f"{frame['timestamps'].iloc[0]} .. {frame['timestamps'].iloc[-1]}"
