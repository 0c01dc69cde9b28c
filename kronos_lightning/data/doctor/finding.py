"""Findings of the doctor, and the candles that it checks."""

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd

from kronos_lightning.data.formats import FEATURES, PRICES

Severity = Literal["error", "warning", "info"]
STAMP = "%Y-%m-%d %H:%M"
NAMED = 5  # maximum number of places that a message names


@dataclass(frozen=True)
class Finding:
    """Kind of defect with its places.

    check: name of the check.
    severity: errors stop training, warnings are logged, infos appear only in the diagnosis.
    message: the finding, its possible cause and advice.
    lines: lines of the file (rows of a Parquet file), in time order; empty if no single candle is affected.
    times: open times of these candles, UTC.
    details: values for programs.
    """

    check: str
    severity: Severity
    message: str
    _: KW_ONLY
    lines: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    times: pd.DatetimeIndex = field(default_factory=lambda: pd.DatetimeIndex([], tz="UTC"))
    details: dict[str, Any] = field(default_factory=dict)


class Case:
    """Candles of a file, prepared for the checks.

    Rows are in time order, without repeated identical rows. `line` is each row's place in the file; `time` is int64
    nanoseconds; `open high low close volume amount` are float64 arrays (volume or amount None if the file has none).

    Args:
        raw: columns from `formats.read_raw`.
        step: nanoseconds from candle to candle.
        sessions: True if the market closes.
        now: current time; no candle can end later.
    """

    def __init__(self, raw: pd.DataFrame, step: int, sessions: bool, now: pd.Timestamp):
        self.raw, self.step, self.sessions, self.now = raw, step, sessions, now
        time = raw["timestamps"].astype("int64").to_numpy()
        order = np.argsort(time, kind="stable") if (np.diff(time) < 0).any() else slice(None)
        columns = {name: raw[name].to_numpy()[order] for name in FEATURES if name in raw}
        time, line = time[order], raw.index.to_numpy()[order]
        same = np.diff(time, prepend=time[:1] - 1) == 0
        for values in columns.values():
            same &= (values == np.roll(values, 1)) | (np.isnan(values) & np.isnan(np.roll(values, 1)))
        self.repeated, kept = line[same], ~same if same.any() else slice(None)
        self.time, self.line = time[kept], line[kept]
        self.open, self.high, self.low, self.close = (columns[name][kept] for name in PRICES)
        self.volume, self.amount = (columns[name][kept] if name in columns else None for name in ("volume", "amount"))
        self.follows = np.diff(self.time) == step  # True where row i + 1 is the candle after row i

    def __len__(self) -> int:
        return len(self.time)

    def finding(self, check: str, severity: Severity, message: str, rows: np.ndarray, **details: Any) -> Finding:
        """Create a finding at these rows (indices or a mask)."""
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        return Finding(check, severity, message, lines=self.line[rows], times=self.stamps(rows), details=details)

    def stamps(self, rows: np.ndarray) -> pd.DatetimeIndex:
        """Return the open times of rows, UTC."""
        opens: pd.DatetimeIndex = pd.to_datetime(self.time[rows], utc=True)
        return opens

    def places(self, rows: np.ndarray) -> str:
        """Format the first few of these rows (indices or a mask) as text: 'line 12 (2024-01-31 09:00), …'."""
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        unit = self.raw.index.name or "row"
        named = [f"{unit} {self.line[i]} ({pd.Timestamp(self.time[i]):{STAMP}})" for i in rows[:NAMED]]
        return ", ".join(named) + (f" and {len(rows) - NAMED} more" if len(rows) > NAMED else "")


Findings = Iterator[Finding]


def local_median(values: np.ndarray, width: int) -> np.ndarray:
    """Return the median around each value, from the nearest three blocks of `width` values; NaN is ignored."""
    n = len(values)
    if n < 3 * width:
        return np.full(n, np.nanmedian(values) if np.isfinite(values).any() else np.nan)
    blocks = np.full(-(-n // width) * width, np.nan)
    blocks[:n] = values
    blocks = np.pad(blocks.reshape(-1, width), ((1, 1), (0, 0)), constant_values=np.nan)
    around = np.concatenate([blocks[:-2], blocks[1:-1], blocks[2:]], axis=1)
    some = np.isfinite(around).any(axis=1)
    medians = np.full(len(around), np.nan)
    medians[some] = np.nanmedian(around[some], axis=1)
    return np.repeat(medians, width)[:n]


def runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """Return the half-open range [first, end) of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
