"""Download of the missing parts of a series, in parallel, and their assembly."""

import hashlib
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from kronos_lightning.data.sources.binance.candle_table import LONGEST_ROW, SCHEMA, DamagedError, from_rest, from_zip
from kronos_lightning.data.sources.binance.endpoints import Endpoints
from kronos_lightning.data.sources.binance.http import BadRequestError, Client, DownloadError
from kronos_lightning.data.sources.binance.intervals import (
    BINANCE_INTERVALS,
    DAY_MS,
    LONG,
    Range,
    closed_before,
    days,
    file_name,
    floor,
    grid,
    months,
    to_ms,
    without,
)
from kronos_lightning.data.sources.binance.klines import API_LIMIT, klines
from kronos_lightning.data.sources.binance.stored_series import API, FetchedPart, StoredSeries, gap_ranges, iso, spans
from kronos_lightning.settings import as_utc, end_of
from kronos_lightning.storage import Lock

EARLIEST = to_ms(pd.Timestamp("2017-07-01"))  # Binance opened that month
# Time after the end of a period within which its file is published; a file missing by then will not appear.
PUBLISHED_WITHIN = {"monthly": 31 * DAY_MS, "daily": 3 * DAY_MS}
MOST_PAGES = 10  # responses for a range that would usually fit in one; after an outage candles may be shorter
SPARE = 1000  # additional candles of a range, for the same reason

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Downloaded:
    """Result of a download.

    path: path of the CSV; Parquet and manifest are next to it.
    manifest: manifest of the whole series.
    pieces, requests: fetched parts and sent requests of this call; both 0 if nothing was missing.
    """

    path: Path
    manifest: dict[str, Any]
    pieces: int
    requests: int


def series_path(folder: str | Path, symbol: str, interval: str) -> Path:
    """Return the path of the CSV with the candles of a symbol and interval in a folder."""
    return Path(folder) / f"{symbol}_{file_name(interval)}.csv"


def download(
    symbol: str,
    interval: str,
    csv_path: Path,
    endpoints: Endpoints,
    start: str | None = None,
    end: str | None = None,
    now: pd.Timestamp | None = None,
) -> Downloaded:
    """Update a series: fetch only the candles that are missing from `start` to `end`.

    If the download ends early, fetched parts stay on disk and the next call resumes from them.

    Args:
        symbol, interval: in Binance's notation, such as BTCUSDT and 1h.
        csv_path: path of the CSV (guide's layout); ``.parquet`` and ``.manifest.json`` are written next to it.
        endpoints: hosts, time-outs, retries and limits.
        start: first day or time (UTC); None = from the listing on.
        end: last day or time; None = the last candle that has closed.
        now: current time; None = the system clock.

    Raises:
        DownloadError: candles cannot be fetched. The files hold the fetched candles up to the first hole.
    """
    if interval not in BINANCE_INTERVALS:
        raise DownloadError(f"interval: {interval!r} is not offered by Binance; use {', '.join(BINANCE_INTERVALS)}")
    series = StoredSeries(symbol, interval, csv_path)
    with Lock(csv_path, wait=True):
        job = Job(series, Client(endpoints), to_ms(now or pd.Timestamp.now("UTC")))
        problem = job.run(start, end)
        manifest = series.manifest()
    if manifest is None:
        raise DownloadError(problem or f"{symbol} {interval}: Binance has no candles in that range")
    if problem:
        have = f"{csv_path} holds {manifest['first']} .. {manifest['last']}"
        raise DownloadError(f"{have}; the rest could not be downloaded: {problem}")
    return Downloaded(path=csv_path, manifest=manifest, pieces=job.pieces, requests=job.client.requests)


class Job:
    """Work of one call of `download`."""

    def __init__(self, series: StoredSeries, client: Client, now: int):
        self.series, self.client, self.now = series, client, now
        self.endpoints, self.pieces = client.endpoints, 0
        self.archives = {"monthly": months} if series.interval in LONG else {"monthly": months, "daily": days}

    def run(self, start: str | None, end: str | None) -> str | None:
        """Fetch and write the series; return why candles are missing, or None if none are missing."""
        self.series.clear_leftovers()
        manifest = self.series.manifest()
        wanted = self._wanted(manifest, start, end)
        known = spans(manifest, "covered") + [metadata["span"] for metadata, _ in self.series.parts()]
        problem = self._fetch(wanted, known)
        found = self.series.joined(manifest, wanted)
        if found is not None and self.endpoints.source == "auto" and self._ask_about_gaps(manifest, *found):
            found = self.series.joined(manifest, wanted)
        if found is not None and len(found[0]):
            self.series.write(manifest, *found)
        return problem

    def _wanted(self, manifest: dict[str, Any] | None, start: str | None, end: str | None) -> Range:
        """Return the requested range, joined with the covered ranges on disk."""
        interval = self.series.interval
        stop = closed_before(interval, self.now)
        if end is not None:
            stop = min(stop, floor(interval, to_ms(end_of(end)) - 1) + grid(interval))
        covered = [time for span in spans(manifest, "covered") for time in span]
        begin = min(covered, default=EARLIEST) if start is None else max(EARLIEST, to_ms(as_utc(start)))
        if begin >= stop:
            raise DownloadError(f"{self._name}: no candle closed between {iso(begin)} and {iso(stop)} (now, or end)")
        return min([begin, *covered]), max([stop, *covered])

    @property
    def _name(self) -> str:
        return f"{self.series.symbol} {self.series.interval}"

    def _fetch(self, wanted: Range, known: list[Range]) -> str | None:
        """Fetch the parts of `wanted` that are in none of the `known` ranges; return why any are missing, or None."""
        source = self.endpoints.source
        reasons: list[str] = []
        if source != "archive" and not any(begin <= wanted[0] < end for begin, end in known):
            known = known + self._before_listing(wanted)
        if source != "rest":
            for kind, periods in self.archives.items():
                whole = {p for gap in self._missing(wanted, known) for p in periods(gap) if p[1] <= self.now}
                got, failed = self._parallel(f"{kind} archives", partial(self._archive, kind), whole)
                known, reasons = known + got, reasons + failed
        if source != "archive":
            length = API_LIMIT * grid(self.series.interval)
            missing = self._missing(wanted, known)
            chunks = [(a, min(a + length, end)) for begin, end in missing for a in range(begin, end, length)]
            got, failed = self._parallel("API", self._api, chunks)
            known, reasons = known + got, reasons + failed
        now = min(self.now, self.client.exchange_time or self.now)  # the local clock may be ahead
        if not self._missing((wanted[0], min(wanted[1], closed_before(self.series.interval, now))), known):
            return None
        return reasons[-1] if reasons else f"{self._name}: not in the archive yet; source=auto also uses the API"

    def _missing(self, wanted: Range, known: list[Range]) -> list[Range]:
        """Return the unknown parts of `wanted` that could contain the open time of a candle."""
        return [r for r in without(wanted, known) if floor(self.series.interval, r[1] - 1) >= r[0]]

    def _before_listing(self, wanted: Range) -> list[Range]:
        """Ask for the first candle of the symbol; return the range before it, in which no candles exist."""
        try:
            rows = self._klines(startTime=0, limit=1)
        except BadRequestError:
            raise
        except DownloadError:
            return []
        listed = min(rows[0][0], wanted[1]) if rows else wanted[1]
        if listed <= wanted[0]:
            return []
        self.series.add(FetchedPart(name="listing", kind=API, span=(wanted[0], listed), table=SCHEMA.empty_table()))
        return [(wanted[0], listed)]

    def _parallel(
        self, label: str, fetch: Callable[[Range], FetchedPart | None], wanted: set[Range] | list[Range]
    ) -> tuple[list[Range], list[str]]:
        """Fetch ranges in parallel and store each part on arrival; return fetched ranges and reasons of failures.

        A damaged part is a single failure; a host that does not answer ends the whole phase.
        """
        if not wanted:
            return [], []
        got, failed = [], []
        columns = [TextColumn(f"{self._name} {label}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
        with Progress(*columns) as progress, ThreadPoolExecutor(self.endpoints.parallel_requests) as pool:
            task = progress.add_task(label, total=len(wanted))
            futures = [pool.submit(fetch, span) for span in sorted(wanted)]
            try:
                for future in as_completed(futures):
                    try:
                        part = future.result()
                    except DamagedError as error:
                        log.warning("%s: %s", self._name, error)
                        failed.append(str(error))
                        part = None
                    if part is not None:
                        self.series.add(part)
                        got.append(part.span)
                        self.pieces += 1
                    progress.advance(task)
            except DownloadError as error:
                failed.append(str(error))
                pool.shutdown(wait=True, cancel_futures=True)
            except BaseException:  # Ctrl-C: leave at once
                self.client.stop()
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        return got, failed

    # --- the archive --------------------------------------------------------------------------------------------

    def _archive(self, kind: str, period: Range) -> FetchedPart | None:
        """Fetch the archive file of a month or a day; return None if it does not exist (yet)."""
        symbol, interval = self.series.symbol, file_name(self.series.interval)
        date = f"{pd.Timestamp(period[0], unit='ms'):{'%Y-%m' if kind == 'monthly' else '%Y-%m-%d'}}"
        name = f"{symbol}-{interval}-{date}"
        url = f"{self.endpoints.archive_url}/data/spot/{kind}/klines/{symbol}/{interval}/{name}.zip"
        most = (period[1] - period[0]) // grid(self.series.interval) + SPARE
        for _ in range(2):  # files are replaced occasionally; the second attempt gets both new files
            content = self.client.get(url, most=(most + 1) * LONGEST_ROW)
            if content is None:
                last_hope = self.endpoints.source == "archive" and kind == list(self.archives)[-1]
                never = last_hope and self.now - period[1] > PUBLISHED_WITHIN[kind]
                return FetchedPart(name=name, kind="absent", span=period, table=SCHEMA.empty_table()) if never else None
            published = self.client.get(f"{url}.CHECKSUM")
            checksum = hashlib.sha256(content).hexdigest()
            if published is None:
                log.warning("%s: no published checksum, used without verification", name)
            elif published.split()[:1] != [checksum.encode()]:
                problem = "its checksum differs from the published one"
                continue
            try:
                return FetchedPart(
                    name=name, kind=kind, span=period, table=from_zip(content, period, most), checksum=checksum
                )
            except DamagedError as error:
                problem = str(error)
        raise DamagedError(f"{url}: damaged, {problem}")

    # --- the API ------------------------------------------------------------------------------------------------

    def _klines(self, **parameters: Any) -> list[list[Any]]:
        return klines(self.client, self.series.symbol, self.series.interval, **parameters)

    def _api(self, span: Range) -> FetchedPart:
        """Fetch the closed candles that open in `span`; the part's span ends before the first unfinished candle."""
        rows, end = self._klines(startTime=span[0], endTime=span[1] - 1, limit=API_LIMIT), span[1]
        while rows and len(rows) % API_LIMIT == 0:  # shorter candles after an outage: more than fit in one response
            begin = rows[-1][0] + 1
            more = self._klines(startTime=begin, endTime=span[1] - 1, limit=API_LIMIT)
            if not more:
                break
            rows += more
            if len(rows) > MOST_PAGES * API_LIMIT or more[-1][0] < begin:
                raise DamagedError(f"{self._name}: the API gives candles from {iso(span[0])} on without end")
        now = min(self.now, self.client.exchange_time or self.now)
        unfinished = [row[0] for row in rows if row[6] >= now]
        end = min([end, *unfinished])
        name = f"api-{iso(span[0]).replace(' ', 'T').replace(':', '')}"
        return FetchedPart(
            name=name, kind=API, span=(span[0], end), table=from_rest([row for row in rows if row[0] < end], span)
        )

    def _ask_about_gaps(self, manifest: dict[str, Any] | None, table: pa.Table, span: Range) -> bool:
        """Ask the API once for candles that the archive lacks, because some archive files are incomplete.

        Return True if any range was fetched.
        """
        asked = spans(manifest, "asked_api")
        asked += [metadata["span"] for metadata, _ in self.series.parts() if metadata["kind"] == API]
        lacking = [
            r for gap in gap_ranges(table["time"].to_numpy(), self.series.interval, span) for r in without(gap, asked)
        ]
        length = API_LIMIT * grid(self.series.interval)
        windows: list[Range] = []
        for begin, end in lacking:
            if windows and end - windows[-1][0] <= length:
                windows[-1] = windows[-1][0], end
            else:
                windows += [(a, min(a + length, end)) for a in range(begin, end, length)]
        got, failed = self._parallel("gaps", self._api, windows)
        if failed:
            log.warning("%s: the gaps were not checked with the API", self._name)
        return bool(got)
