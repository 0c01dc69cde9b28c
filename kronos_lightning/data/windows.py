"""Candle windows for the model: index, gather, normalise.

Shape letters: N candles, B windows in a batch, L lookback, W rows of a window, C = 6 features.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from kronos_lightning.data.augmentation import Augmentation
from kronos_lightning.data.candles import time_features
from kronos_lightning.data.formats import FEATURES, PRICES, CandleError
from kronos_lightning.data.representation import LEVELS, AnyRepresentation, WindowScale


class WindowBatch(NamedTuple):
    """Batch of normalised windows.

    If training reads only tokens that were encoded before, x and scale are None.
    """

    x: Tensor | None  # (B, W, C) normalised and clipped candles
    stamp: Tensor  # (B, W, 5) int8: minute hour weekday day month
    scale: WindowScale | None  # of the lookback rows
    tokens: Tensor | None = None  # (B, W, 2) int64: coarse and fine tokens that were encoded before

    @property
    def candles(self) -> tuple[Tensor, WindowScale]:
        """x and scale; a `ValueError` if there are only tokens."""
        if self.x is None or self.scale is None:
            raise ValueError("the batch holds only tokens")
        return self.x, self.scale


def window_starts(segment: np.ndarray, target: np.ndarray, lookback: int, target_rows: int) -> np.ndarray:
    """Return the first rows of all valid windows of `lookback` + `target_rows` candles, int64.

    A window is valid if it has no gap (a single segment) and the bool mask `target` allows each of its target rows.
    """
    width = lookback + target_rows
    if len(segment) < width:
        return np.empty(0, dtype=np.int64)
    whole = segment[: len(segment) - width + 1] == segment[width - 1 :]
    allowed = np.concatenate([[0], np.cumsum(target, dtype=np.int64)])
    in_target = allowed[width:] - allowed[lookback : len(allowed) - target_rows]
    return np.flatnonzero(whole & (in_target == target_rows))


class WindowArrays(NamedTuple):
    """Arrays from which windows are cut."""

    values: np.ndarray  # (N, C) float32 candles
    stamps: np.ndarray  # (N, 5) int8
    starts: np.ndarray  # first rows of the windows, int64

    @classmethod
    def of(cls, frame: pd.DataFrame, lookback: int, target_rows: int) -> "WindowArrays":
        """Build the arrays from a candle frame with a bool column `target` (rows that this split may forecast)."""
        starts = window_starts(frame["segment"].to_numpy(), frame["target"].to_numpy(), lookback, target_rows)
        values = np.empty((len(frame), len(FEATURES)), dtype=np.float32)
        for i, name in enumerate(FEATURES):
            values[:, i] = frame[name].to_numpy()
        return cls(values, time_features(frame["timestamps"]), starts)


class CandleWindows(Dataset[WindowBatch]):
    """All windows of a candle frame: views of one float32 tensor, gathered and normalised batch by batch.

    Args:
        frame: candle frame with a bool column `target`, or its `WindowArrays`, which may be memory-mapped files.
        lookback: number of known rows, whose statistics normalise the window.
        target_rows: number of rows after the lookback (the horizon plus one row for the shift).
        clip: bound of the normalised values.
        augmentation: changes windows before they are normalised; None = no augmentation.
        volume: True if volume and amount are known; otherwise they are set to zero.
        representation: of the candles for the network.
    """

    def __init__(
        self,
        frame: pd.DataFrame | WindowArrays,
        lookback: int,
        target_rows: int,
        clip: float,
        augmentation: Augmentation | None = None,
        volume: bool = True,
        representation: AnyRepresentation = LEVELS,
    ):
        self.representation = representation
        self.lookback, self.clip, self.augmentation = lookback, clip, augmentation
        self.tokens: np.ndarray | None = None  # (N, W, 2) of all windows, see `use_tokens`
        self.tokens_alone = False
        self.width = width = lookback + target_rows
        arrays = frame if isinstance(frame, WindowArrays) else WindowArrays.of(frame, lookback, target_rows)
        values, stamps, self.starts = (torch.from_numpy(array) for array in arrays)
        if not volume:
            values = values.clone()
            values[:, len(PRICES) :] = 0.0
        self.values = values  # (rows of the frame, C)
        self._windows = _overlapping(values, width)
        self._stamps = _overlapping(stamps, width)

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def metadata(self) -> dict[str, Any]:
        """Metadata that determines a window's normalised rows, together with `values` and `starts`."""
        shape = {"lookback": self.lookback, "rows": self.width, "clip": self.clip}
        return shape | {"representation": self.representation.model_dump()}

    def use_tokens(self, tokens: np.ndarray, alone: bool) -> None:
        """Add tokens ``(N, W, 2)`` of all N windows to the batches; with `alone`, batches contain no candles."""
        self.tokens, self.tokens_alone = tokens, alone

    def raw(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return candles ``(B, W, C)`` and time features ``(B, W, 5)`` of windows, as they are."""
        start = self.starts[index]
        return self._windows.index_select(0, start), self._stamps.index_select(0, start)

    def __getitems__(self, indices: Sequence[int]) -> WindowBatch:
        """Return windows by their numbers; a number from `EpochSampler` also contains the epoch."""
        numbers = torch.as_tensor(indices)
        index = numbers % len(self)
        start = self.starts[index]
        stamp, tokens = self._stamps.index_select(0, start), None
        if self.tokens is not None:
            tokens = torch.from_numpy(self.tokens[index.numpy()].astype(np.int64))
        if self.tokens_alone:
            return WindowBatch(None, stamp, None, tokens)
        windows = self._windows.index_select(0, start)
        if self.augmentation is not None:
            windows = self.augmentation(windows, (numbers // len(self)).tolist(), index.tolist())
        x, scale = self.representation.normalise(windows, self.lookback, self.clip, stamp)
        return WindowBatch(x, stamp, scale, tokens)

    def __getitem__(self, index: int) -> WindowBatch:
        x, stamp, scale, tokens = self.__getitems__([index])
        first = None if scale is None else WindowScale(*(part[0] for part in scale))
        return WindowBatch(None if x is None else x[0], stamp[0], first, None if tokens is None else tokens[0])


def _overlapping(rows: Tensor, width: int) -> Tensor:
    """View rows ``(N, C)`` as all their windows ``(N − W + 1, W, C)`` without a copy."""
    n, c = rows.shape
    return rows.as_strided((max(n - width + 1, 0), width, c), (c, c, 1))


class EpochSampler(Sampler[int]):
    """Sampler of the windows that this process sees in an epoch, in shuffled order.

    All processes share one stream of permutations seeded by (seed, round). An epoch is the next `length` indices of
    the stream, and process r takes every `world_size`-th index, starting with index r. A global batch therefore
    contains the same windows for any number of processes, and no window is left out when `samples_per_epoch` shortens
    the epochs. With weights, each symbol has a stream of its own and its share of every epoch.

    The sampler yields epoch × size + index; `CandleWindows` splits this number into epoch and index.

    Args:
        sizes: number of windows of each symbol, in the order of the windows.
        weights: weights of the symbols in an epoch; None uses each window once.
        batch_size: windows per process and step; an epoch is a whole number of steps (or one smaller step).
        samples_per_epoch: maximum number of windows in an epoch; None for all windows.
        seed, rank, world_size: values of the run.

    Raises:
        CandleError: an epoch has fewer windows than there are processes.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        weights: Sequence[float] | None,
        batch_size: int,
        samples_per_epoch: int | None,
        seed: int,
        rank: int,
        world_size: int,
    ):
        self.size = sum(sizes)
        step = batch_size * world_size
        wanted = min(self.size, samples_per_epoch or self.size)
        self.length = wanted - wanted % (step if wanted >= step else world_size)
        if self.length == 0:
            raise CandleError(
                f"{wanted} training window(s) per epoch are too few for {world_size} processes; use fewer processes "
                f"(trainer.devices), a longer data.train_time_range or a larger data.samples_per_epoch"
            )
        self.groups = [self.size] if weights is None else list(sizes)
        self.shares = [self.length] if weights is None else _shares(weights, self.length)
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.epoch = self.skipped = 0

    def skip(self, number: int) -> None:
        """Skip the first `number` windows of this process in the next iteration, as seen before an interruption."""
        self.skipped = number

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; Lightning calls this method before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length // self.world_size

    def __iter__(self) -> Iterator[int]:
        firsts = np.cumsum([0, *self.groups[:-1]]).tolist()
        drawn = torch.cat([self._part(*part) for part in zip(firsts, self.groups, self.shares, strict=True)])
        if len(firsts) > 1:
            drawn = drawn[self._permutation(self.length, -1 - self.epoch, 0)]  # negative, unlike rounds
        mine = drawn[self.rank :: self.world_size][self.skipped :]
        self.skipped = 0
        return iter((self.epoch * self.size + mine).tolist())

    def _part(self, first: int, size: int, share: int) -> Tensor:
        """Return this epoch's `share` indices of the stream over the windows [first, first + size)."""
        begin = self.epoch * share
        rounds = range(begin // size, (begin + share - 1) // size + 1)
        permutations = [self._permutation(size, i, first) for i in rounds] or [torch.empty(0, dtype=torch.int64)]
        stream = permutations[0] if len(permutations) == 1 else torch.cat(permutations)  # no copy of billions
        return first + stream[begin % size :][:share]

    def _permutation(self, size: int, i: int, salt: int) -> Tensor:
        number = self.seed * 1_000_003 + i + salt * 998_244_353
        return torch.randperm(size, generator=torch.Generator().manual_seed(number % 2**63))


def _shares(weights: Sequence[float], length: int) -> list[int]:
    """Divide `length` by weight, rounded so that the shares sum to `length`."""
    edges = np.rint(np.cumsum([0.0, *weights]) / sum(weights) * length).astype(int)
    shares: list[int] = np.diff(edges).tolist()
    return shares


class ShardSampler(Sampler[int]):
    """Sampler of every window once, in order, divided among the processes without padding: validation stays exact."""

    def __init__(self, size: int, rank: int, world_size: int):
        self.indices = range(rank, size, world_size)

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)
