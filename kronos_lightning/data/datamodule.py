"""Data module: candles → splits on disk → loaders, the same for both stages and any number of processes."""

import logging
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import lightning as L
import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader

from kronos_lightning.data.augmentation import Augmentation
from kronos_lightning.data.candles import Candles, in_range
from kronos_lightning.data.folds import fold_ranges
from kronos_lightning.data.formats import FEATURES, CandleError, LayoutSection
from kronos_lightning.data.processed import ProcessedCandles, differing
from kronos_lightning.data.representation import LEVELS, RETURNS, AnyRepresentation, ScaledReturns
from kronos_lightning.data.settings import DataSection
from kronos_lightning.data.sources import CandleSource
from kronos_lightning.data.split_files import SplitFiles
from kronos_lightning.data.symbol_candles import SymbolCandles
from kronos_lightning.data.volatility_regression import VolatilityRegression
from kronos_lightning.data.windows import (
    CandleWindows,
    EpochSampler,
    ShardSampler,
    WindowArrays,
    WindowBatch,
    window_starts,
)
from kronos_lightning.settings import as_list, end_of, parse_interval

SPLITS = ("train", "val", "test")
FITTED_WINDOWS = 20_000  # maximum number of training windows that the volatility regression is fitted on
FORMAT = 4  # version of the processed files; a new version makes old files stale

log = logging.getLogger(__name__)
Batch = TypeVar("Batch")


class WindowCounts(TypedDict):
    """Numbers of windows of a split, in the manifest."""

    windows: int
    dropped_for_earlier_split: int
    by_symbol: dict[str, int]


class CandleDataModule(L.LightningDataModule):
    """Data module with windows of one or several markets, split by date; no window mixes candles of two markets.

    `prepare_data` fetches, diagnoses and validates the candles. It writes the candles of each split to a Parquet file,
    and the same data to ``.npy`` arrays that all processes of a machine share; see `ProcessedCandles`. If neither
    sources nor settings have changed, it reuses these files.

    Args:
        config: settings of the data set.
        source: source of its candles.
    """

    def __init__(self, config: DataSection, source: CandleSource):
        super().__init__()
        self.save_hyperparameters(config.model_dump(exclude={"binance", "sources"}))  # shown by the trackers
        self.config, self.batch_size = config, config.batch_size
        self.ranges = split_ranges(config)
        self.label = config.label
        self.target_rows = config.horizon + 1  # one row more than the horizon: inputs and targets are shifted by one
        self.windows: dict[str, CandleWindows] = {}
        self.prepared = False
        self.markets = [SymbolCandles(symbol, source, config) for symbol in as_list(config.symbol)]
        changes = config.augmentation
        self.augmentation = (
            Augmentation(**changes.model_dump(), seed=config.seed) if changes is not None and changes.active else None
        )

    # --- candles ------------------------------------------------------------------------------------------------

    def read(self) -> list[Candles]:
        """Read the candles of each market, as `prepare_data` prepared them.

        Raises:
            CandleError: the source has changed since.
        """
        metadata = self.manifest()["markets"]
        read = [market.read(metadata[market.symbol]["dropped"]) for market in self.markets]
        now = {market.symbol: candles.fingerprint for market, candles in zip(self.markets, read, strict=True)}
        if changed := differing(self.fingerprints, now):
            raise CandleError(f"{changed}: the candles changed after this command had prepared them; run it again")
        return read

    def target_masks(self, stamps: pd.Series) -> dict[str, np.ndarray]:
        """Return, for each split, a bool mask ``(T,)`` of the candles that it may forecast.

        A mask covers the split's range without candles of an earlier split and without its embargo.

        Args:
            stamps: open times of one market's candles ``(T,)``, in time order.
        """
        masks, previous_end = {}, None
        for split in SPLITS:
            begin, end = self.ranges[split]
            masks[split] = in_range(stamps, begin, end)
            if previous_end is not None:
                masks[split][: stamps.searchsorted(previous_end) + self.config.embargo] = False
            previous_end = end_of(end)
        return masks

    @cached_property
    def representation(self) -> AnyRepresentation:
        """Representation of the candles for the network; what it estimates comes from the training windows alone."""
        if self.config.representation == "levels":
            return LEVELS
        if self.config.representation == "returns":
            return RETURNS
        return ScaledReturns(**self.volatility_regression.model_dump())

    @cached_property
    def volatility_regression(self) -> VolatilityRegression:
        """Volatility regression, fitted on the training windows."""
        windows = CandleWindows(self._arrays("train"), self.config.lookback, self.target_rows, self.config.clip)
        chosen = np.unique(np.linspace(0, len(windows) - 1, FITTED_WINDOWS).astype(int))
        return VolatilityRegression.fit(*windows.raw(torch.from_numpy(chosen)), self.config.lookback)

    def recent_volatility(self) -> float:
        """Return the standard deviation of log returns per candle over the last `lookback` training candles.

        The result is the mean over the markets.
        """
        found = []
        for frame in (candles.frame for candles in self.read()):
            rows = np.flatnonzero(self.target_masks(frame["timestamps"])["train"])
            known = frame[: rows[-1] + 1] if len(rows) else frame[:0]
            returns = np.log(known["close"]).diff()[known["segment"].diff() == 0]
            found.append(returns.tail(self.config.lookback).std(ddof=0))
        return float(np.nanmean(found))

    # --- files --------------------------------------------------------------------------------------------------

    @cached_property
    def files(self) -> ProcessedCandles:
        """Folder of the processed candles; what the sources hold at the first use counts for the whole command."""
        return ProcessedCandles(Path(self.config.processed_dir), self.label, self._settings())

    def path(self, split: str) -> Path:
        """Return the path of the Parquet file with the candles of a split."""
        return self.files.frame_path(split)

    def manifest(self) -> dict[str, Any]:
        """Return the manifest that `prepare_data` wrote: sources, settings, defects, gaps and windows."""
        return self.files.manifest()

    @property
    def fingerprints(self) -> dict[str, str]:
        """Fingerprint of each symbol's candles."""
        return {symbol: metadata["fingerprint"] for symbol, metadata in self.manifest()["markets"].items()}

    def _settings(self) -> dict[str, Any]:
        """Return all settings that determine the content of the processed files."""
        keys = {"interval", "calendar", "on_defect", "dataset_begin_time", "dataset_end_time", "lookback", "horizon"}
        keys |= {"embargo", *LayoutSection.model_fields}
        sources = {market.symbol: market.origin() for market in self.markets}
        ranges = {f"{split}_time_range": self.ranges[split] for split in SPLITS}
        return {"format": FORMAT, "sources": sources, **self.config.model_dump(include=keys), **ranges}

    def prepare_data(self) -> None:
        if self.prepared:
            return
        for market in self.markets:
            market.provide()
        if not self._reuse():
            with self.files.lock():  # another process may have written them in the meantime
                if not self._reuse():
                    self._process()
        self.prepared = True

    def _reuse(self) -> bool:
        whole = self.files.is_whole()
        if whole:
            log.info("Reusing the processed data in %s", self.files.folder)
        return whole

    def _process(self) -> None:
        with self.files.replaced() as files:
            content = self._write(files)
            if self._settings() != self.files.settings:
                raise CandleError(f"{self.label}: a candle file changed while it was read; run the command again")
            files.finish(content)

    def _write(self, files: ProcessedCandles) -> dict[str, Any]:
        """Write the candles of all splits market by market; return the content of the manifest."""
        markets: dict[str, dict[str, Any]] = {}
        windows: dict[str, WindowCounts] = {
            split: {"windows": 0, "dropped_for_earlier_split": 0, "by_symbol": {}} for split in SPLITS
        }
        with ExitStack() as stack:
            paths = {split: (files.frame_path(split), files.array_paths(split)) for split in SPLITS}
            shape = self.config.lookback, self.target_rows
            writers = {split: stack.enter_context(SplitFiles(*paths[split], *shape)) for split in SPLITS}
            for market in self.markets:
                candles, metadata = market.examine()
                markets[market.symbol] = {
                    "fingerprint": candles.fingerprint,
                    "candles": len(candles),
                    "span": _span(candles.frame),
                    "gaps": [[str(before), str(after)] for before, after in candles.gaps],
                    **metadata,
                }
                log.info("%s: %d candles, %s", candles.source, len(candles), _span(candles.frame))
                for split, (part, count, lost) in self._split(candles).items():
                    writers[split].append(part)
                    windows[split]["windows"] += count
                    windows[split]["dropped_for_earlier_split"] += lost
                    windows[split]["by_symbol"][market.symbol] = count
        for split in SPLITS:
            if not windows[split]["windows"]:
                spans = ", ".join(f"{symbol} {metadata['span']}" for symbol, metadata in markets.items())
                raise CandleError(
                    f"no {split} window: {self._describe_range(split)} with lookback {self.config.lookback}, horizon "
                    f"{self.config.horizon} and embargo {self.config.embargo} finds none in the candles of {spans}"
                )
            for symbol in (symbol for symbol, count in windows[split]["by_symbol"].items() if not count):
                log.warning("%s: no %s window in its candles %s", symbol, split, markets[symbol]["span"])
            if lost := windows[split]["dropped_for_earlier_split"]:
                log.info("%s: %d window(s) dropped: their targets lie in an earlier split or the embargo", split, lost)
        return {
            "synthetic": self.markets[0].source.synthetic,
            "candles": sum(metadata["candles"] for metadata in markets.values()),
            "markets": markets,
            "windows": windows,
        }

    def _describe_range(self, split: str) -> str:
        fold, folds = self.config.fold, self.config.folds
        return f"{f'data.{split}_time_range' if fold is None else f'fold {fold} of {folds}'} {self.ranges[split]}"

    def _split(self, candles: Candles) -> dict[str, tuple[pd.DataFrame, int, int]]:
        """Return per split the candles of its windows, the window count, and the count lost to earlier splits."""
        frame, lookback, rows = candles.frame, self.config.lookback, self.target_rows
        segment, masks, found = frame["segment"].to_numpy(), self.target_masks(frame["timestamps"]), {}
        for split in SPLITS:
            starts = window_starts(segment, masks[split], lookback, rows)
            own_range = in_range(frame["timestamps"], *self.ranges[split])
            wanted = len(window_starts(segment, own_range, lookback, rows))
            inside = slice(starts[0], starts[-1] + lookback + rows) if len(starts) else slice(0)
            part = frame.iloc[inside].assign(target=masks[split][inside]).astype(dict.fromkeys(FEATURES, "float32"))
            found[split] = part, len(starts), wanted - len(starts)
        return found

    # --- loaders ------------------------------------------------------------------------------------------------

    def setup(self, stage: str | None = None) -> None:
        self.manifest()  # raises an error if the candles were not prepared
        splits = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}.get(stage or "", SPLITS)
        for split in splits:
            arrays = self._arrays(split)
            changed = self.augmentation if split == "train" else None
            config = self.config
            windows = CandleWindows(
                arrays, config.lookback, self.target_rows, config.clip, changed, config.volume, self.representation
            )
            self.windows[split] = windows
            log.info("%s: %d windows", split, len(windows))

    def _arrays(self, split: str) -> WindowArrays:
        # Copy-on-write: torch requires writable arrays, and all processes share the pages that are never written.
        return WindowArrays(*(np.load(path, mmap_mode="c") for path in self.files.array_paths(split)))

    def train_dataloader(self) -> DataLoader[WindowBatch]:
        config, sizes = self.config, list(self.manifest()["windows"]["train"]["by_symbol"].values())
        if config.symbol_weights is not None and not all(sizes):
            raise CandleError("data.symbol_weights: a symbol has no training window; extend data.train_time_range")
        rank, world_size = self._rank()
        sampler = EpochSampler(
            sizes,
            config.symbol_weights,
            self.batch_size,
            config.samples_per_epoch,
            config.seed,
            rank=rank,
            world_size=world_size,
        )
        return self._loader(self.windows["train"], sampler)

    def val_dataloader(self) -> DataLoader[WindowBatch]:
        return self._loader(self.windows["val"], ShardSampler(len(self.windows["val"]), *self._rank()))

    def test_dataloader(self) -> DataLoader[WindowBatch]:
        return self._loader(self.windows["test"], ShardSampler(len(self.windows["test"]), *self._rank()))

    # --- checkpoints --------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        return {"fingerprints": self.fingerprints}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["fingerprints"] != self.fingerprints:
            changed = differing(state["fingerprints"], self.fingerprints) or ", ".join(self.fingerprints)
            raise CandleError(
                f"cannot resume: the checkpoint was trained on other candles than those of {changed}. "
                f"Start a new run, or start from these weights with init_from=DIR"
            )

    def _rank(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)

    def _loader(self, windows: CandleWindows, sampler: EpochSampler | ShardSampler) -> DataLoader[WindowBatch]:
        return DataLoader(
            windows,
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=self.config.num_workers,
            collate_fn=_as_it_is,
            persistent_workers=self.config.num_workers > 0,
            pin_memory=self.trainer is not None and self.trainer.strategy.root_device.type == "cuda",
            generator=torch.Generator(),  # otherwise every epoch draws from the generator that dropout uses
        )


def split_ranges(config: DataSection) -> dict[str, list[str]]:
    """Return the first and last date of each split, within a fold if the configuration names a fold."""
    train, val, test = config.train_time_range, config.val_time_range, config.test_time_range
    if config.fold is None:
        return {"train": train, "val": val, "test": test}
    if config.fold == "all":
        raise ValueError("data.fold=all: a data module holds the candles of one fold; set data.fold to its number")
    step = parse_interval(config.interval)
    return fold_ranges(train, val, test, fold=config.fold, folds=config.folds, scheme=config.fold_scheme, step=step)


def _as_it_is(batch: Batch) -> Batch:
    return batch


def _span(frame: pd.DataFrame) -> str:
    return f"{frame['timestamps'].iloc[0]} .. {frame['timestamps'].iloc[-1]}"
