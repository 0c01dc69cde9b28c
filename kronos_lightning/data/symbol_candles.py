"""Candles of one symbol of a data set: fetched from their source, diagnosed by the doctor, and validated."""

import hashlib
import logging
import shlex
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from kronos_lightning.settings import as_utc, end_of
from kronos_lightning.storage import sha256

from .candles import Candles, validate
from .doctor import Diagnosis, diagnose
from .formats import CandleError, as_raw, require_file
from .settings import DataSection
from .sources import CandleSource

# Errors of the doctor on which training is possible; `validate` refuses candles with any other error.
USABLE = {"unfinished", "frozen candle", "pasted rows", "price outlier", "filled forward"}

log = logging.getLogger(__name__)


class SymbolCandles:
    """Candles of one symbol; within a command, a file is read and validated only once.

    Args:
        symbol: name of the market.
        source: source of its candles.
        config: settings of the data set.
    """

    def __init__(self, symbol: str, source: CandleSource, config: DataSection):
        self.symbol, self.source, self.config = symbol, source, config
        self.path = source.path(symbol, config.interval)
        self._frame: pd.DataFrame | None = None

    def provide(self) -> None:
        """Download the candles if their file is missing. A file that exists is not read.

        Raises:
            KronosError: there are no candles to be had.
        """
        if self.path is None or not self.path.is_file():
            self.fetch()

    def fetch(self) -> pd.DataFrame:
        """Get the raw candles; a changed file is read again.

        Raises:
            KronosError: there are no candles and none can be fetched.
        """
        if self._frame is not None:
            return self._frame
        config = self.config
        frame = self.source.fetch(self.symbol, config.interval, config.dataset_begin_time, config.dataset_end_time)
        frame = frame if "reading" in frame.attrs else as_raw(frame, type(self.source).__name__)
        if self.path is None:  # `read_raw` keeps the last files; those of a thousand symbols would not fit into memory
            self._frame = frame
        return frame

    def origin(self) -> dict[str, str | None]:
        """Return the file, if any, and the checksum of the candles, so that changes of the source are detected."""
        if self.path is None:
            content = pd.util.hash_pandas_object(self.fetch(), index=False).to_numpy()
            return {"source": None, "sha256": hashlib.sha256(content.tobytes()).hexdigest()}
        require_file(self.path)
        return {"source": str(self.path), "sha256": sha256(self.path)}

    def examine(self) -> tuple[Candles, dict[str, Any]]:
        """Diagnose the candles and treat defects as `on_defect` says.

        Returns:
            The candles to train on, and for the manifest a dict with the `reading` (which column became what),
            the `findings` (errors and warnings) and the `dropped` candles.

        Raises:
            CandleError: the candles are invalid or have a defect that `on_defect` does not allow.
        """
        if self.source.synthetic:
            return self.read([]), {"findings": [], "dropped": []}
        config, now = self.config, None
        if self.path is not None:
            now = pd.Timestamp(self.path.stat().st_mtime, unit="s", tz="UTC")
        begin = None if config.dataset_begin_time is None else as_utc(config.dataset_begin_time)
        end = None if config.dataset_end_time is None else end_of(config.dataset_end_time)
        diagnosis = diagnose(self.fetch(), config.interval, config.has_sessions, now).within(begin, end)
        dropped = self._treat(diagnosis)
        findings = [place for place in diagnosis.to_json()["findings"] if place["severity"] != "info"]
        reading = self.fetch().attrs["reading"]
        return self.read(dropped), {"reading": reading, "findings": findings, "dropped": dropped}

    def read(self, dropped: list[dict[str, Any]]) -> Candles:
        """Return the validated candles without the `dropped` candles that `examine` returned."""
        config, frame = self.config, self.fetch()
        label = self.path or frame.attrs.get("source", type(self.source).__name__)
        candles = _validated(
            _Identical(frame),
            tuple(place["line"] for place in dropped),
            label,
            config.interval,
            self.symbol,
            config.has_sessions,
            config.dataset_begin_time,
            config.dataset_end_time,
        )
        if not len(candles):
            stamps = frame["timestamps"]
            raise CandleError(
                f"{label}: none of its {len(frame)} candles ({stamps.min()} to {stamps.max()}) lies between "
                f"data.dataset_begin_time={config.dataset_begin_time} and "
                f"data.dataset_end_time={config.dataset_end_time}"
            )
        return replace(candles, synthetic=self.source.synthetic)

    @property
    def name(self) -> Path | str:
        """File or symbol, for messages."""
        return self.path or self.symbol

    def _treat(self, diagnosis: Diagnosis) -> list[dict[str, Any]]:
        """Log the findings, raise `CandleError` if errors are not allowed, and return the places to leave out."""
        for finding in diagnosis.findings:
            if finding.severity == "warning":
                log.warning("%s: %s", self.name, finding.message)
        errors = diagnosis.errors
        if not errors:
            return []
        message = "; ".join(finding.message for finding in errors)
        droppable = all(len(finding.lines) for finding in errors)
        usable = all(finding.check in USABLE for finding in errors)
        policy = self.config.on_defect
        if policy == "error" or not {"drop": droppable, "ignore": usable}[policy]:
            ways = ["data.on_defect=drop leaves out these candles"] * (droppable and policy == "error")
            ways += ["data.on_defect=ignore trains on them"] * (usable and policy == "error")
            ways += [f"data.on_defect={policy} does not help"] * (policy != "error")
            doctor = f"python -m kronos_lightning.data.doctor {shlex.quote(str(self.name))} lists all findings"
            raise CandleError(f"{self.name}: {message}. {'; '.join([doctor, *ways])}")
        if policy == "ignore":
            log.warning("%s: training on defective candles (data.on_defect=ignore): %s", self.name, message)
            return []
        places = {
            int(line): {"line": int(line), "time": str(time), "check": finding.check}
            for finding in errors
            for line, time in zip(finding.lines, finding.times, strict=True)
        }
        if len(places) > diagnosis.candles / 2:
            raise CandleError(
                f"{self.name}: data.on_defect=drop would drop {len(places)} of {diagnosis.candles} candles: {message}"
            )
        log.warning("%s: %d candle(s) dropped (data.on_defect=drop): %s", self.name, len(places), message)
        return [places[line] for line in sorted(places)]


@dataclass(frozen=True, eq=False)
class _Identical:
    """Cache key of a frame that is equal only to the same object."""

    frame: pd.DataFrame

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identical) and self.frame is other.frame

    def __hash__(self) -> int:
        return id(self.frame)


@lru_cache(maxsize=4)
def _validated(
    raw: _Identical,
    without: tuple[int, ...],
    label: Path | str,
    interval: str,
    symbol: str,
    sessions: bool,
    begin: str | None,
    end: str | None,
) -> Candles:
    kept = raw.frame.drop(index=list(without)) if without else raw.frame
    return validate(kept, label, interval, symbol, sessions, begin=begin, end=end)
