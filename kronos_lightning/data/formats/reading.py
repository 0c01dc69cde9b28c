"""Raw columns of a candle source: read, named, in known units, and not yet checked as candles."""

import logging
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from .clock_change import find_clock_change
from .columns import Choice, choose_columns, plain
from .features import FEATURES, PRICES, CandleError
from .layout import LayoutSection
from .numbers import parse_numbers
from .stamps import Stamps, marks_end, parse_clock, parse_stamps
from .tables import Table, read_table, several_markets, table_of

EXACT = 2**53  # whole numbers up to this one are exact as floats

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Account of how a source was read: nothing is guessed in silence.

    columns: column of the source by raw name ("Date + Time" for two).
    stamps: kind and zone of the stamps.
    marks: "open" or "close", what the stamps of the source mark.
    unused: columns that were not used.
    remarks: further facts, such as the encoding.
    """

    columns: dict[str, str]
    stamps: str
    marks: str
    unused: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return the account as JSON data."""
        return {name: getattr(self, name) for name in ("columns", "stamps", "marks", "unused", "remarks")}

    def __str__(self) -> str:
        """Return the account in one line."""
        names = [role if plain(name) == role else f"{role} = {name}" for role, name in self.columns.items()]
        mark = "of the candle's open" if self.marks == "open" else "of the candle's end, moved to its open"
        parts = [", ".join(names), f"stamps: {self.stamps}, {mark}"]
        parts += [f"not used: {', '.join(self.unused)}"] if self.unused else []
        return "; ".join([*parts, *self.remarks])


def require_file(path: Path) -> None:
    """Raise `CandleError` if a candle file is missing."""
    if not path.is_file():
        raise CandleError(f"{path}: no such file; data.csv_path=FILE names your candles (CSV or Parquet)")


def read_raw(path: Path, layout: LayoutSection | None = None) -> pd.DataFrame:
    """Read a file into the raw columns, and log once how.

    An unchanged file is parsed once and then cached (up to four files): treat the frame as read-only.

    Args:
        path: the file; `docs/reference/candle-files.md` lists what is read.
        layout: settings for what the file leaves open.

    Returns:
        `timestamps` (UTC, open of the candle), ``open high low close`` and, if known, ``volume amount``. The index is
        the line (CSV) or row number in the file, so that later errors can point there. `attrs` holds the `path` and
        the `Reading` as JSON data (`reading`).

    Raises:
        CandleError: the file is missing, unreadable, empty or ambiguous, lacks a required column, has text in place of
            a number, or a stamp that is not a date.
    """
    if not path.is_file():
        raise CandleError(f"{path}: no such file")
    metadata = path.stat()
    key = LayoutSection().key if layout is None else layout.key
    return _read_raw(path, metadata.st_mtime_ns, metadata.st_size, key)


@lru_cache(maxsize=4)
def _read_raw(path: Path, modified: int, size: int, layout: str) -> pd.DataFrame:
    """Parse a file; its modification time and size are part of the cache key."""
    settings = LayoutSection.model_validate_json(layout)
    raw = _raw(read_table(path, settings), str(path), settings)
    log.info("%s: %s", path, describe(raw))
    return raw


def as_raw(frame: pd.DataFrame, label: str, layout: LayoutSection | None = None) -> pd.DataFrame:
    """Convert a frame in memory into the form of `read_raw`; the frame is not changed.

    Args:
        frame: candles with the stamps in a column or as `DatetimeIndex`; names and stamps as in files.
        label: name of its source, for messages.
        layout: settings for what the frame leaves open.

    Raises:
        CandleError: a column is missing, ambiguous or of the wrong type, or a stamp is not a date.
    """
    raw = _raw(table_of(frame), label, layout or LayoutSection())
    raw.attrs |= frame.attrs
    return raw


def describe(raw: pd.DataFrame) -> str:
    """Return in one line how raw columns were read."""
    return str(Reading(**raw.attrs["reading"]))


def where(path: Path | str, frame: pd.DataFrame, position: int, column: str) -> str:
    """Format the place of a value in the row at `position`, such as 'file: line 12, column high'."""
    return f"{path}: {frame.index.name or 'line'} {frame.index[position]}, column {column}"


def usual_distance(raw: pd.DataFrame, path: Path | str) -> pd.Timedelta:
    """Return the most common distance between the stamps of neighbouring candles, in any order of the rows.

    Raises:
        CandleError: there are no two candles with different times.
    """
    return _usual_distance(raw["timestamps"], path)


def _usual_distance(times: pd.Series, path: Path | str) -> pd.Timedelta:
    ordered = times if times.is_monotonic_increasing else times.sort_values()
    distances = ordered.diff()
    lengths = distances[distances > pd.Timedelta(0)].value_counts()
    if lengths.empty:
        raise CandleError(f"{path}: a single candle has no interval; at least two different stamps are needed")
    return pd.Timedelta(min(lengths.index[lengths == lengths.iloc[0]]))


def _raw(table: Table, source: str, layout: LayoutSection) -> pd.DataFrame:
    choice = choose_columns(table.sample, source, layout)
    stamp, place = choice.columns["timestamps"], table.place
    frame = _loaded(table, choice)
    if frame.empty:
        raise CandleError(f"{source}: no candles in it")
    _require_one_market(frame, choice, source)
    stamps = _stamps(frame, choice, source, place, layout)
    roles = [role for role in FEATURES if role in choice.columns]
    numbers, decimal = parse_numbers(
        {choice.columns[role]: frame[choice.columns[role]] for role in roles}, source, place, layout.decimal
    )
    if decimal == "comma" and any(pd.api.types.is_float_dtype(frame[name]) for name in numbers):
        texts = table.load(list(numbers), list(numbers))  # 1.234 beside 0,5 are thousands
        numbers, _ = parse_numbers({name: texts[name].loc[frame.index] for name in numbers}, source, place, "comma")
    raw = pd.DataFrame({"timestamps": stamps.times}, index=frame.index)
    for role in roles:
        raw[role] = numbers[choice.columns[role]]
    if "volume" not in raw and "amount" in raw:
        raw.insert(5, "volume", raw["amount"] / raw[PRICES].mean(axis=1))
        choice.remarks.append("volume = amount / mean price of the candle")
    raw.index.name = place
    columns = {role: choice.columns[role] for role in ("timestamps", *roles)}
    reading = Reading(
        columns=columns | ({"timestamps": f"{stamp} + {choice.clock}"} if choice.clock else {}),
        stamps=stamps.kind,
        marks="close" if choice.marks_end else "open",
        unused=[name or "(unnamed)" for name in table.sample.columns if name not in choice.used],
        remarks=[*table.remarks, *(["decimal comma"] if decimal == "comma" else []), *choice.remarks],
    )
    raw.attrs = {"path": source, "reading": reading.to_json()}
    return raw


def _loaded(table: Table, choice: Choice) -> pd.DataFrame:
    """Load the columns of a choice; numbers that a float cannot hold are kept as text."""
    clock = [choice.clock] if choice.clock else []
    frame = table.load(choice.used, clock)
    stamps = frame[choice.columns["timestamps"]]
    if pd.api.types.is_float_dtype(stamps) and (stamps > EXACT).any():
        frame = table.load(choice.used, [*clock, choice.columns["timestamps"]])
    return frame


def _require_one_market(frame: pd.DataFrame, choice: Choice, source: str) -> None:
    for name in choice.markets:
        values = frame[name].dropna().astype("str").unique()
        if len(values) > 1:
            raise several_markets(f"{source}: column {name}", list(values))


def _stamps(frame: pd.DataFrame, choice: Choice, source: str, place: str, layout: LayoutSection) -> Stamps:
    """Return the open times in UTC."""
    stamps = parse_stamps(frame[choice.columns["timestamps"]], source, place, layout.date_order)
    if choice.clock:
        stamps = replace(stamps, times=stamps.times + parse_clock(frame[choice.clock], source, place))
    if not stamps.zoned and layout.timezone is None:
        find_clock_change(stamps.times, source)
    stamps = stamps.utc(layout.timezone, source)
    choice.marks_end = layout.stamp == "close" or (
        layout.stamp is None and (choice.marks_end or marks_end(stamps.times))
    )
    if not choice.marks_end:
        return stamps
    step = _usual_distance(stamps.times, source)
    return replace(stamps, times=stamps.times.dt.ceil("min") - step)  # ends such as 09:59:59.999 are rounded up
