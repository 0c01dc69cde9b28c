"""Files of one series: CSV, Parquet and manifest as results, and parts during a download."""

import json
import logging
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from pydantic import Field

from kronos_lightning.data.formats import FEATURES
from kronos_lightning.data.sources.binance.candle_table import SCHEMA, join
from kronos_lightning.data.sources.binance.http import DownloadError
from kronos_lightning.data.sources.binance.intervals import IRREGULAR, Range, grid, to_ms, union
from kronos_lightning.settings import Stored, read_stored
from kronos_lightning.settings.stored import Date
from kronos_lightning.storage import atomic_path, clear_leftovers, sha256

API = "api"  # kind of the parts that do not come from the archive

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class FetchedPart:
    """Result of one request.

    name: name of the archive file, or ``api`` with the first requested time.
    kind: monthly, daily, api, or absent (an archive file that will not appear).
    span: range that the part covers; candles of this range that are not in `table` do not exist.
    table: the candles.
    checksum: SHA-256 of the archive file; None for other parts.
    """

    name: str
    kind: str
    span: Range
    table: pa.Table
    checksum: str | None = None


class PartMetadata(Stored):
    """Metadata of a part on disk; see `FetchedPart`."""

    name: str
    kind: str
    span: Annotated[list[int], Field(min_length=2, max_length=2)]
    checksum: str | None
    fetched: str


class StoredPiece(Stored):
    """Origin of candles of the series."""

    name: str


Spans = list[Annotated[list[Date], Field(min_length=2, max_length=2)]]


class SeriesManifest(Stored):
    """Content of ``SYMBOL_INTERVAL.manifest.json``."""

    symbol: str
    interval: str
    candles: int
    first: Date
    last: Date
    gaps: list[dict[str, str | int]]
    covered: Annotated[Spans, Field(min_length=1)]
    asked_api: Spans
    pieces: list[StoredPiece]
    files: dict[str, str]


class StoredSeries:
    """Candles of one symbol and interval on disk.

    The Parquet file holds the complete candles, and the manifest the range that they cover. If the two do not match
    (after a kill between the writes, or an edit by hand), all candles are fetched again. A part is complete or absent.

    Args:
        symbol, interval: in Binance's notation.
        csv_path: path of the CSV; Parquet, manifest and parts are next to it under the same name.
    """

    def __init__(self, symbol: str, interval: str, csv_path: Path):
        self.symbol, self.interval, self.csv_path = symbol, interval, csv_path
        self.parquet_path = csv_path.with_suffix(".parquet")
        self.manifest_path = csv_path.with_suffix(".manifest.json")
        self.parts_path = csv_path.with_name(f".{csv_path.stem}.parts")

    # --- stored files -------------------------------------------------------------------------------------------

    def manifest(self) -> dict[str, Any] | None:
        """Read the manifest; return None if it does not match the Parquet file next to it.

        Raises:
            DownloadError: there are files that this program did not write, or files of another series.
        """
        try:
            found = read_stored(self.manifest_path, SeriesManifest, DownloadError, "downloading again")
        except DownloadError as error:
            log.warning("%s", error)
            found = None
        manifest = None if found is None else found.content()
        if manifest is None and (self.csv_path.exists() or self.parquet_path.exists()) and not self.parts_path.exists():
            raise DownloadError(
                f"{self.csv_path} or its Parquet was not written by this command (there is no {self.manifest_path}); "
                f"move it away or download into another folder"
            )
        if manifest is None or not self.parquet_path.is_file():
            return None
        if (manifest["symbol"], manifest["interval"]) != (self.symbol, self.interval):
            raise DownloadError(f"{self.csv_path} holds {manifest['symbol']} {manifest['interval']}")
        if sha256(self.parquet_path) != manifest["files"].get(self.parquet_path.name):
            log.warning("%s does not match its manifest; downloading it again", self.parquet_path)
            return None
        return manifest

    def clear_leftovers(self) -> None:
        """Remove half-written files of a killed run."""
        for path in self._files():
            clear_leftovers(path.parent, path.name)
        clear_leftovers(self.parts_path)

    def read(self) -> pa.Table:
        """Read the candles of the Parquet file."""
        table = pq.read_table(self.parquet_path)
        time = pc.cast(table["timestamps"], pa.timestamp("ms", "UTC")).cast(pa.int64())
        return pa.table([time, *(table[name] for name in FEATURES)], schema=SCHEMA)

    # --- parts --------------------------------------------------------------------------------------------------

    def add(self, part: FetchedPart) -> None:
        """Keep a part on disk until the series is written."""
        metadata = {
            "name": part.name,
            "kind": part.kind,
            "span": part.span,
            "checksum": part.checksum,
            "fetched": _now(),
        }
        table = part.table.replace_schema_metadata({"part": json.dumps(metadata)})
        with atomic_path(self._part_path(part.name)) as temporary:
            pq.write_table(table, temporary)

    def parts(self) -> list[tuple[dict[str, Any], pa.Table]]:
        """Read metadata and candles of the parts that are not yet written into the series."""
        found = []
        for path in sorted(self.parts_path.glob("[!.]*.parquet")):
            try:
                table = pq.read_table(path)
                metadata = PartMetadata.model_validate_json(table.schema.metadata[b"part"]).content()
                if metadata["name"] != path.stem or table.schema.remove_metadata() != SCHEMA:
                    raise ValueError(f"it holds {metadata['name']}")
            except (pa.ArrowException, OSError, KeyError, TypeError, ValueError):
                log.warning("%s: damaged; downloading it again", path)
                path.unlink()
                continue
            found.append((metadata | {"span": tuple(metadata["span"])}, table.replace_schema_metadata(None)))
        return found

    # --- result -------------------------------------------------------------------------------------------------

    def joined(self, manifest: dict[str, Any] | None, wanted: Range) -> tuple[pa.Table, Range] | None:
        """Join the candles of `wanted` up to the first hole; return them and their range, or None without candles.

        The range includes the written candles, or the start of `wanted` if nothing is written. Candles behind a hole
        stay in their parts.
        """
        parts = self.parts()
        known = spans(manifest, "covered")
        anchor = known[0][0] if known else wanted[0]
        covered = union(known + [metadata["span"] for metadata, _ in parts])
        span = next((r for r in covered if r[0] <= anchor < r[1]), None)
        if span is None:
            return None
        span = max(span[0], wanted[0]), min(span[1], wanted[1])
        parts.sort(key=lambda part: part[0]["kind"] == API)  # the archive takes precedence over the API
        return join([*([self.read()] if manifest else []), *(table for _, table in parts)], [span]), span

    def write(self, manifest: dict[str, Any] | None, table: pa.Table, span: Range) -> None:
        """Replace Parquet, CSV and manifest unless they are current, and remove the parts that were written."""
        used = [(a, t) for a, t in self.parts() if a["span"][0] < span[1] and span[0] < a["span"][1]]
        if not used and manifest and self._is_whole(manifest):
            return
        if manifest and self.csv_path.exists() and not self._is_whole(manifest):
            log.warning("%s was modified; rewriting it from the Parquet file", self.csv_path)
        pieces = {piece["name"]: piece for piece in (manifest["pieces"] if manifest else [])}
        for metadata, part in used:
            origin = {key: metadata[key] for key in ("name", "kind", "checksum", "fetched")}
            pieces[metadata["name"]] = origin | {"candles": len(part)}
        asked = spans(manifest, "asked_api") + [metadata["span"] for metadata, _ in used if metadata["kind"] == API]
        time = table["time"].to_numpy()
        content = {
            "symbol": self.symbol,
            "interval": self.interval,
            "candles": len(table),
            "first": iso(time[0]),
            "last": iso(time[-1]),
            "gaps": [
                {"from": iso(begin), "to": iso(end), "candles": -((begin - end) // grid(self.interval))}
                for begin, end in gap_ranges(time, self.interval, (int(time[0]), int(time[-1])))
            ],
            "covered": [[iso(span[0]), iso(span[1])]],
            "asked_api": [[iso(begin), iso(end)] for begin, end in union(asked)],
            "updated": _now(),
            "pieces": [pieces[name] for name in sorted(pieces)],
        }
        with ExitStack() as stack:  # on exit the files are replaced in the order Parquet, CSV, manifest
            temporary = {path: stack.enter_context(atomic_path(path)) for path in self._files()}
            write_parquet(table, temporary[self.parquet_path])
            write_csv(table, temporary[self.csv_path])
            content["files"] = {path.name: sha256(temporary[path]) for path in (self.csv_path, self.parquet_path)}
            temporary[self.manifest_path].write_text(json.dumps(content, indent=1))
        for metadata, _ in used:
            self._part_path(metadata["name"]).unlink()
        with suppress(OSError):  # not empty if there are parts behind a hole
            self.parts_path.rmdir()

    def _is_whole(self, manifest: dict[str, Any]) -> bool:
        """Return True if the CSV is unchanged since it was written."""
        return self.csv_path.is_file() and sha256(self.csv_path) == manifest["files"].get(self.csv_path.name)

    def _files(self) -> list[Path]:
        return [self.manifest_path, self.csv_path, self.parquet_path]

    def _part_path(self, name: str) -> Path:
        return self.parts_path / f"{name}.parquet"


def spans(manifest: dict[str, Any] | None, key: str) -> list[Range]:
    """Return the ranges under a key of the manifest; an empty list without a manifest."""
    return [(to_ms(begin), to_ms(end)) for begin, end in manifest[key]] if manifest else []


def gap_ranges(time: np.ndarray, interval: str, span: Range) -> list[Range]:
    """Return the ranges of `span` in which candles could open but none does, given all sorted open times."""
    if interval in IRREGULAR:
        return []
    step = grid(interval)
    begins, ends = np.append(span[0], time + step), np.append(time, span[1])
    return [(int(begins[i]), int(ends[i])) for i in np.flatnonzero(ends > begins)]


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write candles to a Parquet file with `timestamps` in UTC."""
    stamps = table["time"].cast(pa.timestamp("ms", "UTC"))
    pq.write_table(table.drop_columns("time").add_column(0, "timestamps", stamps), path)


def write_csv(table: pa.Table, path: Path) -> None:
    """Write candles to a CSV in the guide's layout; stamps have milliseconds only if a candle opens within a second."""
    whole = not (table["time"].to_numpy() % 1000).any()
    stamps = table["time"].cast(pa.timestamp("ms"))
    stamps = stamps.cast(pa.timestamp("s")) if whole else stamps
    texts = pc.strftime(stamps, format="%Y-%m-%d %H:%M:%S")
    with path.open("wb") as file:
        file.write(",".join(["timestamps", *FEATURES]).encode() + b"\n")
        options = pyarrow.csv.WriteOptions(include_header=False, quoting_style="none")
        pyarrow.csv.write_csv(table.set_column(0, "timestamps", texts), file, options)


def iso(time: int) -> str:
    """Format UTC milliseconds as a readable date."""
    return datetime.fromtimestamp(int(time) / 1000, UTC).isoformat(sep=" ").removesuffix("+00:00")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
