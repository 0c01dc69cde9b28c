"""Files as tables of named columns: CSV in many encodings and separators, Parquet, Feather, Excel, JSON, archives."""

import bz2
import csv
import gzip
import io
import json
import lzma
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from .columns import is_price_name, is_stamp_name, name_columns
from .features import CandleError
from .layout import LayoutSection
from .numbers import is_number
from .stamps import is_clock, is_stamp

HEAD = 1 << 16  # bytes that are searched for the header
SAMPLED = 300  # rows that decide which column is what
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
PACKED: dict[bytes, Callable[[bytes], bytes]] = {
    b"\x1f\x8b": gzip.decompress,
    b"BZh": bz2.decompress,
    b"\xfd7zXZ": lzma.decompress,
}
KNOWN = "known are CSV (also .gz, .zip), Parquet, Feather, Excel (.xlsx) and JSON"


@dataclass(frozen=True, kw_only=True)
class Table:
    """Table of a file whose columns are named but not parsed.

    sample: first rows as text.
    load: returns columns by their names, typed where all values are numbers; those of the second list as text.
    place: "line" or "row", what the index of the rows counts.
    remarks: what a person should know about the file.
    """

    sample: pd.DataFrame
    load: Callable[[list[str], list[str]], pd.DataFrame]
    place: str
    remarks: list[str] = field(default_factory=list)


def read_table(path: Path, layout: LayoutSection) -> Table:
    """Open a file of any supported kind.

    Raises:
        CandleError: the file is empty, unreadable, or of an unknown kind.
    """
    suffix = path.suffix.lower()
    if suffix in {".parquet", ".pq"}:
        return _of_frame(path, pd.read_parquet, "Parquet")
    if suffix in {".feather", ".ftr"}:
        return _of_frame(path, pd.read_feather, "Feather")
    if suffix in {".xlsx", ".xlsm"}:
        return _of_frame(path, _read_excel, "Excel")
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise CandleError(f"{path}: not readable ({error.strerror})") from error
    content, name = _unpacked(path, head)
    head = head if content is None else content[:HEAD]
    if not head.strip():
        raise CandleError(f"{path}: the file is empty")
    if name.lower().endswith(".json") or head.lstrip()[:1] in (b"[", b"{"):
        return _of_json(path, path.read_bytes() if content is None else content, layout)
    encoding, text = _decode(path, head, whole=len(head) < HEAD)
    return _of_text(path, content, encoding, text, layout)


def table_of(frame: pd.DataFrame) -> Table:
    """Return the table of a frame in memory; stamps may be its index."""
    if isinstance(frame.index, pd.DatetimeIndex):
        frame = frame.reset_index(
            names="timestamps" if frame.index.name in (None, *frame.columns) else frame.index.name
        )
    frame = frame.set_axis(pd.RangeIndex(1, len(frame) + 1)).dropna(how="all")
    frame = frame.set_axis(_unique([str(name) for name in frame.columns]), axis=1)
    return Table(sample=frame.iloc[:SAMPLED].astype("str"), load=lambda names, _: frame[names], place="row")


# --- kinds of files -----------------------------------------------------------------------------------------------


def _of_frame(path: Path, read: Callable[[Path], pd.DataFrame], kind: str) -> Table:
    try:
        frame = read(path)
    except ImportError as error:
        raise CandleError(
            f"{path}: Excel files need openpyxl: pip install openpyxl, or save the sheet as CSV"
        ) from error
    except Exception as error:  # pyarrow and openpyxl raise many types; all mean that the file is unreadable
        raise CandleError(f"{path}: not a readable {kind} file ({' '.join(str(error).split())})") from error
    return table_of(frame)


def _read_excel(path: Path) -> pd.DataFrame:
    return pd.read_excel(path, engine="openpyxl")


def _of_json(path: Path, content: bytes, layout: LayoutSection) -> Table:
    """Read rows of arrays, as of freqtrade and ccxt, or objects with named values."""
    try:
        rows = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise CandleError(f"{path}: not a readable JSON file ({error})") from error
    if isinstance(rows, dict):
        lists = [
            value for value in rows.values() if isinstance(value, list) and value and isinstance(value[0], list | dict)
        ]
        rows = lists[0] if len(lists) == 1 else rows
    if not isinstance(rows, list) or not rows:
        raise CandleError(f"{path}: no list of candles in the JSON file")
    if all(isinstance(row, dict) for row in rows):
        return table_of(pd.DataFrame(rows))
    widths = {len(row) for row in rows if isinstance(row, list)}
    if not all(isinstance(row, list) for row in rows) or len(widths) != 1:
        raise CandleError(f"{path}: the rows of the JSON file are not all arrays of one length, or all objects")
    frame = pd.DataFrame(rows)
    return table_of(frame.set_axis(_names_of(frame.iloc[:SAMPLED].astype("str"), path, layout), axis=1))


def _unpacked(path: Path, head: bytes) -> tuple[bytes | None, str]:
    """Return the content of a compressed file (None = not compressed) and the name of what it holds."""
    try:
        if head[:4] == b"PK\x03\x04":
            with zipfile.ZipFile(path) as archive:
                members = [
                    name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX")
                ]
                if len(members) != 1:
                    raise CandleError(f"{path}: the archive holds {len(members)} files; unpack the one that you want")
                return archive.read(members[0]), members[0]
        for magic, unpack in PACKED.items():
            if head.startswith(magic):
                return unpack(path.read_bytes()), path.stem
    except (OSError, EOFError, zipfile.BadZipFile, lzma.LZMAError, RuntimeError, NotImplementedError) as error:
        raise CandleError(f"{path}: damaged or encrypted archive ({error})") from error
    return None, path.name


def _decode(path: Path, head: bytes, whole: bool) -> tuple[str, str]:
    """Return the encoding and the text of the first lines: UTF-8, UTF-16, or GBK."""
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16", head[: len(head) // 2 * 2].decode("utf-16", errors="ignore")
    if head[1:40:2].count(0) > 15:
        return "utf-16-le", head[: len(head) // 2 * 2].decode("utf-16-le", errors="ignore")
    if b"\x00" in head:
        raise CandleError(f"{path}: not a text file, and of no kind that is known; {KNOWN}")
    lines = head if whole else head[: head.rfind(b"\n") + 1] or head
    for encoding in ("utf-8-sig", "gb18030", "cp1252"):
        try:
            return encoding, lines.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise CandleError(f"{path}: not a text file, and of no kind that is known; {KNOWN}")


def _of_text(path: Path, content: bytes | None, encoding: str, text: str, layout: LayoutSection) -> Table:
    lines = io.StringIO(text, newline="").readlines() or [text]
    separator, skipped, names = _find_header(path, lines, layout)
    rows = [row for row in csv.reader(lines[skipped:], delimiter=separator) if any(map(str.strip, row))][:SAMPLED]
    _require_widths(path, lines, skipped, separator, names)
    sample = pd.DataFrame(
        [[*row, *[""] * len(names)][: len(names)] for row in rows], columns=range(len(names)), dtype="str"
    )
    names = _names_of(sample, path, layout) if not any(names) else _unique(names)
    remarks = [] if separator == "," else [f"separated by {SEPARATORS[separator]}"]
    remarks += [] if encoding == "utf-8-sig" else [f"encoding {encoding}"]

    def load(wanted: list[str], as_text: list[str]) -> pd.DataFrame:
        places = {names.index(name): name for name in wanted}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", pd.errors.ParserWarning)  # widths of rows were checked before
                frame = pd.read_csv(
                    path if content is None else io.BytesIO(content),
                    compression=None,
                    sep=separator,
                    names=range(len(names)),
                    header=None,
                    skiprows=skipped,
                    usecols=list(places),
                    dtype={names.index(name): "str" for name in as_text},
                    index_col=False,
                    encoding=encoding,
                    skip_blank_lines=False,
                    low_memory=False,
                )
        except (pd.errors.ParserError, UnicodeError, ValueError) as error:
            raise CandleError(f"{path}: not a readable CSV file ({' '.join(str(error).split())})") from error
        frame.index = pd.RangeIndex(skipped + 1, skipped + 1 + len(frame), name="line")
        return frame.rename(columns=places).dropna(how="all")

    return Table(sample=sample.set_axis(names, axis=1), load=load, place="line", remarks=remarks)


def _find_header(path: Path, lines: list[str], layout: LayoutSection) -> tuple[str, int, list[str]]:
    """Return the separator, the number of lines before the first candle, and the names ("" = without a header)."""
    tables = {s: list(csv.reader(lines[:20], delimiter=s)) for s in SEPARATORS}
    given = {str(name) for name in (layout.columns or {}).values() if isinstance(name, str)}
    for separator, rows in tables.items():
        for number, row in enumerate(rows):
            names = [name.strip() for name in row]
            prices = sum(map(is_price_name, names))
            stamped = any(map(is_stamp_name, names)) or names[:1] == [""]
            if (
                (prices >= 3 and stamped)
                or (given and given <= set(names))
                or (prices >= 1 and len(names) > 2 and stamped)
            ):
                return separator, number + 1, _index_name(names, rows[number + 1 :])
            if prices >= 4 and number + 2 < len(rows) and any(map(is_stamp_name, rows[number + 2][:1])):
                return _of_yfinance(path, separator, number, rows)
    for separator, rows in tables.items():
        for number, row in enumerate(rows):
            cells = [cell.strip() for cell in row]
            if (
                len(cells) > 4
                and is_stamp(cells[0])
                and all(is_number(c) or is_clock(pd.Series([c])) for c in cells[1:5])
            ):
                return separator, number, [""] * len(cells)
    start = next((line.strip() for line in lines if line.strip()), "")[:80]
    raise CandleError(
        f"{path}: no header with a time column and prices in the first lines, and no rows of candles (it starts with "
        f"{start!r}); name the columns timestamps, open, high, low, close, volume, amount, or set columns="
    )


def _index_name(names: list[str], rows: list[list[str]]) -> list[str]:
    """Drop the empty last name that a separator at the end of each line makes."""
    if (
        names[-1] == ""
        and len(names) > 1
        and not any(row[len(names) - 1].strip() for row in rows if len(row) >= len(names))
    ):
        return names[:-1]
    return names


def _of_yfinance(path: Path, separator: str, number: int, rows: list[list[str]]) -> tuple[str, int, list[str]]:
    """Read the three header lines that yfinance writes: prices, tickers, and the name of the index."""
    tickers = sorted({cell.strip() for cell in rows[number + 1][1:] if cell.strip()})
    if len(tickers) > 1:
        raise several_markets(f"{path}: the file", tickers)
    return separator, number + 3, [rows[number + 2][0].strip(), *(name.strip() for name in rows[number][1:])]


def several_markets(place: str, markets: list[str]) -> CandleError:
    """Return the error for a file that holds several markets."""
    named = ", ".join(markets[:4]) + (", …" if len(markets) > 4 else "")
    return CandleError(f"{place} holds several markets ({named}); write one file for each")


def _require_widths(path: Path, lines: list[str], skipped: int, separator: str, names: list[str]) -> None:
    """Raise `CandleError` if a row has more cells than the header, as unquoted decimal commas make."""
    for number, row in enumerate(csv.reader(lines[skipped : skipped + SAMPLED], delimiter=separator), skipped + 1):
        extra = [cell for cell in row[len(names) :] if cell.strip()]
        if extra:
            raise CandleError(
                f"{path}: line {number} has {len(row)} cells for {len(names)} columns; quote numbers with commas, "
                f"or separate the cells by semicolons"
            )


def _names_of(sample: pd.DataFrame, path: Path, layout: LayoutSection) -> list[str]:
    """Name the columns of a table without a header, by number if the settings tell the numbers."""
    if layout.columns:
        return [str(number) for number in range(1, sample.shape[1] + 1)]
    return name_columns(sample, str(path))


def _unique(names: list[str]) -> list[str]:
    seen: dict[str, int] = {}
    return [name if seen.setdefault(name, i) == i else f"{name}.{i + 1}" for i, name in enumerate(names)]
