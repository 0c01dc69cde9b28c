"""Conversion of Binance's candles into Arrow tables of open time (UTC ms) and the six features."""

import io
import zipfile
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from kronos_lightning.data.formats import BINANCE_COLUMNS, FEATURES
from kronos_lightning.data.sources.binance.intervals import Range
from kronos_lightning.errors import KronosError

SOURCE_COLUMNS = ["open_time", "open", "high", "low", "close", "volume", "quote_asset_volume"]
SCHEMA = pa.schema([("time", pa.int64()), *((name, pa.float64()) for name in FEATURES)])
MICROSECONDS = 10**14  # open times from this value on are in µs (the archive since 2025-01-01), below it in ms

BLOCK = 1 << 22  # bytes of CSV per block
LONGEST_ROW = 512  # bytes of a candle in CSV or JSON; about 130 are usual


class DamagedError(KronosError, ValueError):
    """Error for a response that holds no candles, or candles outside the requested range."""


def from_zip(content: bytes, span: Range, most: int) -> pa.Table:
    """Parse an archive file, streamed from the zip.

    Args:
        content: the zip.
        span: range of the open times.
        most: candles that the range may have.

    Raises:
        DamagedError: the zip is incomplete, does not hold one CSV of 12 columns, or has open times outside `span`.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            (name,) = archive.namelist()
            if archive.getinfo(name).file_size > (most + 1) * LONGEST_ROW:
                raise DamagedError(f"{name} is larger than {most} candles")
            with archive.open(name) as file:
                header = not file.read(1).isdigit()
            with archive.open(name) as file:
                table = pyarrow.csv.read_csv(
                    file,
                    pyarrow.csv.ReadOptions(
                        use_threads=False, block_size=BLOCK, column_names=BINANCE_COLUMNS, skip_rows=int(header)
                    ),
                    convert_options=pyarrow.csv.ConvertOptions(
                        include_columns=SOURCE_COLUMNS,
                        column_types=dict(zip(SOURCE_COLUMNS, SCHEMA.types, strict=True)),
                        null_values=[],
                    ),
                )
    except DamagedError:
        raise
    except Exception as error:  # zipfile, its decompressors and pyarrow raise many types, such as for encrypted files
        raise DamagedError(" ".join(str(error).split())[:300]) from error
    return _checked(table.rename_columns(SCHEMA.names).cast(SCHEMA), span)


def from_rest(rows: list[list[Any]], span: Range) -> pa.Table:
    """Parse candles of an API response, oldest first.

    Raises:
        DamagedError: the rows are not candles in the documented format, or have open times outside `span`.
    """
    columns = [BINANCE_COLUMNS.index(name) for name in SOURCE_COLUMNS]
    try:
        arrays = [
            pa.array([kind(row[i]) for row in rows], type_)
            for i, kind, type_ in zip(columns, [int] + [float] * 6, SCHEMA.types, strict=True)
        ]
    except (TypeError, ValueError, IndexError, KeyError, OverflowError, pa.ArrowException) as error:
        raise DamagedError(f"not candles in the documented format ({str(error)[:200]})") from error
    return _checked(pa.Table.from_arrays(arrays, schema=SCHEMA), span)


def join(tables: list[pa.Table], spans: list[Range]) -> pa.Table:
    """Join all candles that open in one of `spans`, in time order; the first table wins where times repeat."""
    table = pa.concat_tables([SCHEMA.empty_table(), *tables])
    times = table["time"].to_numpy()
    order = np.argsort(times, kind="stable")
    times = times[order]
    keep = np.diff(times, prepend=-1) != 0
    inside = np.zeros(len(times), dtype=bool)
    for begin, end in spans:
        inside |= (times >= begin) & (times < end)
    return table.take(pa.array(order[keep & inside])).combine_chunks()


def _checked(table: pa.Table, span: Range) -> pa.Table:
    if any(column.null_count for column in table.columns):
        raise DamagedError("empty cells")
    if not all(np.isfinite(table[name].to_numpy()).all() for name in FEATURES):
        raise DamagedError("values that are not finite numbers")
    time = table["time"].to_numpy()
    if (time >= MICROSECONDS).any():
        time = np.where(time >= MICROSECONDS, time // 1000, time)
        table = table.set_column(0, SCHEMA.field(0), pa.array(time))
    if len(time) and not (span[0] <= time.min() and time.max() < span[1]):
        raise DamagedError("candles outside the requested range")
    return table
