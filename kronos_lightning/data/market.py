"""One market of a data set: its file, fetched where it is missing, examined by the doctor, and read."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .binance import DownloadError, Endpoints, download, series_path
from .candles import Candles, as_utc, end_of, validate
from .doctor import Diagnosis, diagnose
from .files import sha256
from .formats import CandleError, read_raw
from .sample import sample_candles

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Market:
    """Where the candles of a symbol come from. The fields are keys of `conf/data`, documented there."""

    symbol: str
    interval: str
    csv_dir: str
    csv_path: str | None
    sample: dict[str, Any] | None
    binance: dict[str, Any] | None
    sessions: bool
    begin: str | None
    end: str | None
    on_defect: str

    @property
    def path(self) -> Path | None:
        """The file; None for synthetic candles."""
        if self.csv_path is not None:
            return Path(self.csv_path)
        return None if self.sample is not None else series_path(self.csv_dir, self.symbol, self.interval)

    def fetch(self) -> None:
        """Download the candles where there is no file in `csv_dir` yet.

        Raises:
            DownloadError, CandleError: there is none, and none to be had.
        """
        if self.path is None or self.path.is_file():
            return
        if self.binance is None or self.csv_path is not None:
            self._require_file()
        log.info("%s: no such file, downloading %s %s from Binance", self.path, self.symbol, self.interval)
        try:
            download(self.symbol, self.interval, self.path, Endpoints(**self.binance), self.begin, self.end)
        except DownloadError as error:
            if not self.path.is_file():
                raise DownloadError(f"{error}. Or name your own candles: data.csv_path=FILE") from error
            log.warning("%s", error)

    def origin(self) -> dict[str, str | None]:
        """The file and its checksum, which tell whether the source has changed."""
        if self.path is None:
            return {"source": None, "sha256": None}
        self._require_file()
        return {"source": str(self.path), "sha256": sha256(self.path)}

    def examine(self) -> tuple[Candles, dict[str, Any]]:
        """The candles that may be trained on, and what the doctor found and what was left out, for the manifest.

        Raises:
            CandleError: a defect, where `on_defect` does not allow it.
        """
        if self.path is None:
            return self.read([]), {"findings": [], "dropped": []}
        raw = read_raw(self.path)
        written = pd.Timestamp(self.path.stat().st_mtime, unit="s", tz="UTC")
        begin = None if self.begin is None else as_utc(self.begin)
        end = None if self.end is None else end_of(self.end)
        diagnosis = diagnose(raw, self.interval, self.sessions, written).within(begin, end)
        dropped = self._treat(diagnosis)
        lines = [place["line"] for place in dropped]
        findings = [place for place in diagnosis.to_json()["findings"] if place["severity"] != "info"]
        return self._validated(raw, lines), {"findings": findings, "dropped": dropped}

    def read(self, dropped: list[dict[str, Any]]) -> Candles:
        """The candles without those that `examine` left out."""
        if self.path is None:
            candles = sample_candles(interval=self.interval, **self.sample)
            return candles.between(self.begin, self.end)
        return self._validated(read_raw(self.path), [place["line"] for place in dropped])

    def _require_file(self) -> None:
        if not self.path.is_file():
            raise CandleError(f"{self.path}: no such file; data.csv_path=FILE names your candles (CSV or Parquet)")

    def _validated(self, raw: pd.DataFrame, without: list[int]) -> Candles:
        kept = raw.drop(index=without) if without else raw
        return validate(kept, self.path, self.interval, self.symbol, self.sessions, self.begin, self.end)

    def _treat(self, diagnosis: Diagnosis) -> list[dict[str, Any]]:
        """Log, stop or leave out; returns the places to leave out."""
        for finding in diagnosis.findings:
            if finding.severity == "warning":
                log.warning("%s: %s", self.path, finding.message)
        errors = diagnosis.errors
        if not errors:
            return []
        words = "; ".join(finding.message for finding in errors)
        if self.on_defect == "error":
            raise CandleError(
                f"{self.path}: {words}. python -m kronos_lightning.data.doctor {self.path} shows all of it; "
                f"data.on_defect=drop leaves these candles out, ignore trains on them"
            )
        if self.on_defect == "ignore":
            log.warning("%s: trained on all the same (data.on_defect=ignore): %s", self.path, words)
            return []
        places = {
            int(line): {"line": int(line), "time": str(time), "check": finding.check}
            for finding in errors
            for line, time in zip(finding.lines, finding.times, strict=True)
        }
        log.warning("%s: %d candle(s) left out (data.on_defect=drop): %s", self.path, len(places), words)
        return [places[line] for line in sorted(places)]


def join_frames(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """Candle frames one after the other; segments stay apart, so that no window reaches from one into the next."""
    joined, first = [], 0
    for frame in frames:
        segment = frame["segment"].to_numpy() - (frame["segment"].iloc[0] if len(frame) else 0) + first
        joined.append(frame.assign(segment=segment.astype(np.int64)))
        first = int(segment[-1]) + 1 if len(segment) else first
    return pd.concat(joined, ignore_index=True)
