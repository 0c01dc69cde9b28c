"""Settings of a data set; `conf/data` explains every key."""

from typing import Annotated, Any, Literal

import pandas as pd
from pydantic import Field, model_validator

from kronos_lightning.settings import Count, Positive, as_list, as_utc, end_of, parse_interval

from .augmentation import AugmentationSection
from .folds import fold_label
from .formats import LayoutSection
from .sources.binance.endpoints import Endpoints
from .sources.synthetic import SyntheticSection

Range = Annotated[list[str], Field(min_length=2, max_length=2)]


class DataSection(LayoutSection):
    """Settings of the candles, their split into train, validation and test, and the windows cut from them."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]
    symbol: str | Annotated[list[str], Field(min_length=1)]
    symbol_weights: list[Positive] | None
    interval: str
    source: str
    sources: dict[str, dict[str, Any]]
    exchange: str | None
    csv_dir: str
    csv_path: str | None
    binance: Endpoints | None
    synthetic: SyntheticSection | None
    on_defect: Literal["error", "drop", "ignore"]
    augmentation: AugmentationSection | None = None
    calendar: Literal["24x7", "sessions"]
    dataset_begin_time: str | None
    dataset_end_time: str | None
    train_time_range: Range
    val_time_range: Range
    test_time_range: Range
    fold: Annotated[int, Field(ge=0)] | Literal["all"] | None
    folds: Count
    fold_scheme: Literal["expanding", "sliding"]
    embargo: Annotated[int, Field(ge=0)]
    lookback: Annotated[int, Field(ge=2)]
    horizon: Count
    volume: bool
    representation: Literal["levels", "returns", "scaled_returns"]
    clip: Positive
    batch_size: Count
    samples_per_epoch: Count | None
    num_workers: Annotated[int, Field(ge=0)]
    processed_dir: str
    seed: Annotated[int, Field(ge=0)]

    @property
    def has_sessions(self) -> bool:
        """True if the market closes."""
        return self.calendar == "sessions"

    @property
    def source_node(self) -> dict[str, Any]:
        """Class and arguments of the source in use."""
        return self.sources[self.source if self.csv_path is None else "file"]

    @property
    def label(self) -> str:
        """Name of this data set, or of its fold, in file names."""
        return fold_label(self.name, self.fold)

    @model_validator(mode="after")
    def _consistent(self) -> "DataSection":
        parse_interval(self.interval)
        if self.source not in self.sources:
            raise ValueError(f"source: unknown source {self.source!r}; use {', '.join(self.sources)}")
        self._check_ranges()
        symbols = as_list(self.symbol)
        if len(set(symbols)) < len(symbols):
            raise ValueError("symbol: a symbol is listed twice; list each once")
        if len(symbols) > 1 and self.csv_path is not None:
            raise ValueError(
                "csv_path is a single file; for several symbols set csv_dir, a folder of SYMBOL_INTERVAL.csv"
            )
        if self.symbol_weights is not None and len(self.symbol_weights) != len(symbols):
            raise ValueError(f"symbol_weights: needs one weight for each of the {len(symbols)} symbols")
        return self

    def _check_ranges(self) -> None:
        ends: list[pd.Timestamp] = []
        for name in ("train", "val", "test"):
            begin, end = (parse_end(text, f"{name}_time_range") for text in getattr(self, f"{name}_time_range"))
            if end < begin:
                raise ValueError(f"{name}_time_range ends before it begins")
            if ends and end <= ends[-1]:
                raise ValueError(f"{name}_time_range must end after the range of the previous split (train, val, test)")
            ends.append(end)
        if isinstance(self.fold, int) and self.fold >= self.folds:
            raise ValueError(f"fold {self.fold}: out of range, data.folds={self.folds} has folds 0 to {self.folds - 1}")
        check_order(self.dataset_begin_time, self.dataset_end_time, "dataset_begin_time", "dataset_end_time")


def check_order(begin: str | None, end: str | None, begin_key: str, end_key: str) -> None:
    """Raise `ValueError` if `begin` is after `end`; None skips the check."""
    first, last = (parse_end(text, key) if text else None for text, key in ((begin, begin_key), (end, end_key)))
    if first and last and last < first:
        raise ValueError(f"{end_key} is before {begin_key}")


def parse_end(text: str, key: str) -> pd.Timestamp:
    """Return the first instant after a date; raise a `ValueError` that names the key if the text is not a date."""
    try:
        as_utc(text)
        return end_of(text)
    except ValueError as error:
        raise ValueError(f"{key}: {text!r} is not a date between 1900 and 2200; write one like 2024-01-31") from error
