"""Readers of candle files in many layouts; they return raw columns and do not check the values.

Supported: the guide's layout, Binance's 12 columns with or without header, Kaggle, CryptoDataDownload (title line,
newest first), Parquet. Result columns: `timestamps` (UTC), `open high low close volume amount`, and an index with the
line (CSV) or row (Parquet) number in the file, so that later error messages can point there.
"""

import csv
import re
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from kronos_lightning.errors import KronosError

PRICES = ["open", "high", "low", "close"]
FEATURES = [*PRICES, "volume", "amount"]
OPEN, HIGH, LOW, CLOSE, VOLUME, AMOUNT = range(len(FEATURES))  # column numbers of every candle array
BINANCE_COLUMNS = [
    "open_time",
    *PRICES,
    "volume",
    "close_time",
    "quote_asset_volume",
    "trades",
    "taker_buy_base",
    "taker_buy_quote",
    "unused",
]
# In order of trust: epoch numbers are exact, text dates may lack a zone.
TIME_NAMES = ["timestamps", "timestamp", "open_time", "opentime", "unix", "unix_timestamp", "datetime", "date", "time"]
AMOUNT_NAMES = ["amount", "quote_asset_volume", "quote_volume", "turnover", "volume_currency"]
QUOTE_CURRENCIES = ["usdt", "usdc", "busd", "fdusd", "tusd", "usd", "eur", "gbp", "jpy", "krw", "try"]
EPOCH_LIMITS = {"s": 1e11, "ms": 1e14, "us": 1e17, "ns": 1e20}  # epoch numbers below this limit are read in this unit


class CandleError(KronosError, ValueError):
    """Error for invalid candles; the message names file, place, value and a way out."""


def require_file(path: Path) -> None:
    """Raise `CandleError` if a candle file is missing."""
    if not path.is_file():
        raise CandleError(f"{path}: no such file; data.csv_path=FILE names your candles (CSV or Parquet)")


def read_raw(path: Path) -> pd.DataFrame:
    """Read a CSV or Parquet file into the raw columns (see the module's docstring).

    An unchanged file is parsed once and then cached (up to four files): treat the frame as read-only.

    Raises:
        CandleError: the file is missing, unreadable or empty, lacks a required column, has text in place of a number,
            or has dates in an unknown format.
    """
    if not path.is_file():
        raise CandleError(f"{path}: no such file")
    about = path.stat()
    return _read_raw(path, about.st_mtime_ns, about.st_size)


@lru_cache(maxsize=4)
def _read_raw(path: Path, modified: int, size: int) -> pd.DataFrame:
    """Parse a file; its modification time and size are part of the cache key."""
    frame = _read_parquet(path) if path.suffix.lower() in {".parquet", ".pq"} else _read_csv(path)
    if frame.empty:
        raise CandleError(f"{path}: no candles in it")
    place = "row" if frame.index.name == "row" else "line"
    chosen = _choose_columns(list(frame.columns), path)
    stamps = _parse_times(frame[chosen["timestamps"]], path, place).astype("datetime64[ns, UTC]")
    raw = pd.DataFrame({"timestamps": stamps}, index=frame.index)
    for name in FEATURES:
        if name in chosen:
            raw[name] = _parse_numbers(frame[chosen[name]], path, place)
    raw.attrs = {"path": str(path), "stamps": _describe_stamps(frame[chosen["timestamps"]])}
    return raw


def as_raw(frame: pd.DataFrame, label: str) -> pd.DataFrame:
    """Convert a frame in memory into the form of `read_raw`.

    Args:
        frame: `timestamps` (datetimes, UTC if they have no zone), ``open high low close`` and optionally ``volume
            amount``, as numbers. The frame is not changed.
        label: name of its source, for messages.

    Raises:
        CandleError: a column is missing or has the wrong type.
    """
    missing = [name for name in ("timestamps", *PRICES) if name not in frame]
    if missing:
        raise CandleError(f"{label}: column {', '.join(missing)} missing; there are {', '.join(map(str, frame))}")
    stamps = frame["timestamps"]
    if not pd.api.types.is_datetime64_any_dtype(stamps):
        raise CandleError(f"{label}: column timestamps holds {stamps.dtype}, not datetimes")
    stamps = stamps.dt.tz_convert("UTC") if stamps.dt.tz is not None else stamps.dt.tz_localize("UTC")
    columns = {name: _parse_numbers(frame[name], Path(label), "row") for name in FEATURES if name in frame}
    raw = pd.DataFrame({"timestamps": stamps.astype("datetime64[ns, UTC]"), **columns}, index=frame.index)
    raw.index.name = frame.index.name or "row"
    raw.attrs = {"path": label, "stamps": "given as datetimes"} | frame.attrs
    return raw


def where(path: Path | str, frame: pd.DataFrame, position: int, column: str) -> str:
    """Format the place of a value in the row at `position`, such as 'file: line 12, column high'."""
    return f"{path}: {frame.index.name or 'line'} {frame.index[position]}, column {column}"


# --- files ------------------------------------------------------------------------------------------------------


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        frame = pd.read_parquet(path)
    except Exception as error:  # pyarrow raises many types; all mean that the file is unreadable
        raise CandleError(f"{path}: not a readable Parquet file ({error})") from error
    if isinstance(frame.index, pd.DatetimeIndex):
        frame = frame.reset_index(names="timestamps")
    frame.columns = [_plain(str(name)) for name in frame.columns]
    return frame.set_axis(pd.RangeIndex(1, len(frame) + 1, name="row"))


def _read_csv(path: Path) -> pd.DataFrame:
    header_line, names = _find_header(path)
    try:
        frame = pd.read_csv(
            path,
            names=names,
            header=None,
            skiprows=header_line,
            usecols=range(len(names)),
            index_col=False,
            encoding="utf-8-sig",
            skip_blank_lines=False,
            thousands=",",
            low_memory=False,
        )
    except (pd.errors.ParserError, UnicodeDecodeError, ValueError) as error:
        raise CandleError(f"{path}: not a readable CSV file ({' '.join(str(error).split())})") from error
    frame.index = pd.RangeIndex(header_line + 1, header_line + 1 + len(frame), name="line")
    return frame.dropna(how="all")


def _find_header(path: Path) -> tuple[int, list[str]]:
    """Return the number of lines before the first candle, and the plain names of the columns."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            head = [line for line, _ in zip(file, range(10), strict=False)]
    except UnicodeDecodeError as error:
        raise CandleError(f"{path}: not a text file ({error.reason} at byte {error.start})") from error
    for number, cells in enumerate(csv.reader(head)):
        names = [_plain(cell) for cell in cells]
        if any(name in TIME_NAMES for name in names):
            return number + 1, _unique(names)
        if len(cells) == len(BINANCE_COLUMNS) and all(_is_number(cell) for cell in cells):
            return number, BINANCE_COLUMNS
    if not any(line.strip() for line in head):
        raise CandleError(f"{path}: the file is empty")
    raise CandleError(
        f"{path}: no header with a time column in the first lines (it starts with {head[0].strip()[:80]!r}); "
        f"known names of it: {', '.join(TIME_NAMES)}; without a header Binance's 12 columns are expected"
    )


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.strip().lower()).strip("_")


def _unique(names: list[str]) -> list[str]:
    seen: dict[str, int] = {}
    return [name if (seen.setdefault(name, i)) == i else f"{name}_{i}" for i, name in enumerate(names)]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


# --- columns ----------------------------------------------------------------------------------------------------


def _choose_columns(names: list[str], path: Path) -> dict[str, str]:
    """Map raw column names to column names of the file; `volume` and `amount` may be absent."""
    chosen = {name: name for name in PRICES if name in names}
    missing = [name for name in PRICES if name not in names]
    times = [name for name in TIME_NAMES if name in names]
    if missing or not times:
        lacking = missing + ([] if times else ["timestamps"])
        raise CandleError(f"{path}: column {', '.join(lacking)} missing; the file has: {', '.join(names)}")
    chosen["timestamps"] = times[0]
    in_quote = [f"volume_{currency}" for currency in QUOTE_CURRENCIES]
    amounts = [name for name in (*AMOUNT_NAMES, *in_quote) if name in names]
    if amounts:
        chosen["amount"] = amounts[0]
    volumes = [name for name in names if name in ("volume", "vol")]
    volumes += [name for name in names if name.startswith("volume_") and name not in (*AMOUNT_NAMES, *in_quote)]
    if volumes:
        chosen["volume"] = volumes[0]
    return chosen


def _parse_numbers(column: pd.Series, path: Path, place: str) -> pd.Series:
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        return column.astype("float64")
    numbers = pd.to_numeric(column.astype("str").str.strip(), errors="coerce")
    bad = numbers.isna() & column.notna()
    if bad.any():
        at = column.index[int(bad.argmax())]
        raise CandleError(f"{path}: {place} {at}, column {column.name}: {column[at]!r} is not a number")
    return numbers.astype("float64")


def _parse_times(column: pd.Series, path: Path, place: str) -> pd.Series:
    """Parse epoch numbers in s, ms, µs or ns (the unit follows from each value's size) or text dates as UTC."""
    times: pd.Series
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        times = column.dt.tz_convert("UTC")
        return times
    if pd.api.types.is_datetime64_any_dtype(column):
        times = column.dt.tz_localize("UTC")
        return times
    if _holds_epochs(column):
        times = _parse_epochs(pd.to_numeric(column, errors="coerce"))
    else:
        times = _parse_texts(column.astype("str"))
    bad = times.isna()
    if bad.any():
        at = column.index[int(bad.argmax())]
        value = "empty" if pd.isna(column[at]) else repr(column[at])
        raise CandleError(
            f"{path}: {place} {at}, column {column.name}: {value} is not a date; write 2024-01-31 or "
            f"2024-01-31 09:30:00, with a zone or in UTC, or an epoch number"
        )
    return times


def _holds_epochs(column: pd.Series) -> bool:
    """Return True if the stamps are numbers, judged by the first 100 values."""
    return bool(pd.to_numeric(column.iloc[:100], errors="coerce").notna().mean() > 0.5)


def _describe_stamps(column: pd.Series) -> str:
    """Describe unit and time zone of the stamps as text."""
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        return f"with the zone {column.dt.tz}"
    if pd.api.types.is_datetime64_any_dtype(column):
        return "without a zone, taken for UTC"
    if _holds_epochs(column):
        sizes = pd.to_numeric(column, errors="coerce").abs()
        names = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
        used = np.unique(np.searchsorted(list(EPOCH_LIMITS.values()), sizes.dropna(), side="right"))
        return "epoch " + " and ".join(names[list(EPOCH_LIMITS)[i]] for i in used)
    last = str(column.iloc[-1]).strip()
    zone = re.search(r"(Z|UTC|GMT|[+-]\d{2}:?\d{2})$", last) if ":" in last else None
    return f"texts with the zone {zone[1]}" if zone else "texts without a zone, taken for UTC"


def _parse_epochs(numbers: pd.Series) -> pd.Series:
    nanoseconds = np.full(len(numbers), np.iinfo(np.int64).min)  # NaT
    size, lower = numbers.abs().to_numpy(), 1e8  # smaller numbers are no dates after 1973
    for unit, limit in EPOCH_LIMITS.items():
        scale = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[unit]
        rows = (size >= lower) & (size < limit)
        nanoseconds[rows] = numbers.to_numpy()[rows].astype(np.int64) * scale
        lower = limit
    return pd.Series(pd.to_datetime(nanoseconds, utc=True), index=numbers.index)


def _parse_texts(texts: pd.Series) -> pd.Series:
    """Parse dates that start with the year; other formats (01/02/2024) are ambiguous and stay unparsed."""
    times = pd.to_datetime(texts, format="ISO8601", utc=True, errors="coerce")
    left = times.isna()
    if left.any():
        texts = texts[left].str.strip().str.replace(r"\s*(?:UTC|GMT)$", "", regex=True)
    for form in ("ISO8601", "%Y-%m-%d %I-%p", "%Y/%m/%d %H:%M:%S", "%Y/%m/%d %H:%M", "%Y/%m/%d"):
        if not left.any():
            break
        times[left] = pd.to_datetime(texts[left], format=form, utc=True, errors="coerce")
        left = times.isna()
    return times
