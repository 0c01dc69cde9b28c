"""Rows of a live record: what is known after a close, and a forecast that was read back.

Shape letters: S sample paths, h horizon, C features.
"""

import json
import sqlite3
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd

from kronos_lightning.data.formats import FEATURES
from kronos_lightning.pipeline.signals import Decision, Signal

Status = Literal["ok", "failed", "defect", "gap", "short"]
STORED = ("last_close", "statistic", "compared", "thresholds", "expected_return", "share_up", "up", "calibrated_steps")
FROM_DECISION = ("expected_return", "share_up", "up", "last_close")
SIGNAL_COLUMNS = "id, cutoff, made_at, status, reason, late, halted, signal, model, decision"


@dataclass(frozen=True, kw_only=True, eq=False)
class Close:
    """A close and its decision, as it goes into the record.

    cutoff: open time of the candle that has closed.
    made_at: time of the decision by the exchange's clock.
    status: ok; failed = the model gave no numbers; defect = the last candles have a defect; gap = the candle is
        missing; short = fewer candles than the lookback since the last gap. Only ok has a decision.
    reason: sentence for a status other than ok; else empty.
    late: True if the decision came too late to be traded.
    halted: True if trading was halted by a person.
    model: id of the model.
    signal: signal of the decision; HOLD without one.
    decision: the decision.
    candles_sha256: hash of the candles that the model saw.
    """

    symbol: str
    interval: str
    cutoff: pd.Timestamp
    account: str
    made_at: pd.Timestamp
    status: Status
    reason: str = ""
    late: bool
    halted: bool
    model: str
    decision: Decision | None = None
    candles_sha256: str | None = None

    @property
    def signal(self) -> Signal:
        """Signal of the decision; HOLD without one."""
        return "HOLD" if self.decision is None else self.decision.signal


@dataclass(frozen=True, kw_only=True)
class SignalRow:
    """A close of the record without its paths.

    expected_return, share_up, up, last_close: of the decision; None without one.
    """

    id: int
    cutoff: pd.Timestamp
    made_at: pd.Timestamp
    status: Status
    reason: str
    late: bool
    halted: bool
    signal: Signal
    model: str
    expected_return: float | None
    share_up: float | None
    up: float | None
    last_close: float | None

    @property
    def counts(self) -> bool:
        """True if the decision was made in time."""
        return self.status == "ok" and not self.late


@dataclass(frozen=True, kw_only=True, eq=False)
class RecordedClose(Close):
    """A close that was read from the record, with the number of its row."""

    id: int


@dataclass(frozen=True, kw_only=True)
class Event:
    """Event of a record: candle, forecast, score, trade, revised, notice or alarm, with its content."""

    symbol: str
    time: pd.Timestamp
    kind: str
    content: dict[str, Any] = field(default_factory=dict)


def to_row(close: Close) -> dict[str, Any]:
    """Return the columns of a close."""
    decision, content, paths = close.decision, None, None
    if decision is not None:
        known = {name: getattr(decision, name) for name in STORED}
        content = json.dumps(known | {"signal": decision.signal, "shape": decision.paths.shape})
        paths = np.ascontiguousarray(decision.paths, dtype=np.float32).tobytes()
    return {
        "symbol": close.symbol,
        "interval": close.interval,
        "cutoff": to_ms(close.cutoff),
        "account": close.account,
        "made_at": to_ms(close.made_at),
        "status": close.status,
        "reason": close.reason,
        "late": int(close.late),
        "halted": int(close.halted),
        "signal": close.signal,
        "model": close.model,
        "decision": content,
        "paths": paths,
        "candles_sha256": close.candles_sha256,
    }


def from_row(row: sqlite3.Row, step: pd.Timedelta) -> RecordedClose:
    """Build a close from all its columns."""
    columns = dict(row)
    cutoff, content, paths = from_ms(columns["cutoff"]), columns.pop("decision"), columns.pop("paths")
    decision = None
    if content is not None:
        known = json.loads(content)
        shape = tuple(known.pop("shape"))
        decision = Decision(
            cutoff=cutoff,
            stamps=pd.date_range(cutoff + step, periods=shape[1], freq=step),
            paths=np.frombuffer(paths, dtype=np.float32).reshape(shape),
            **known,
        )
    columns |= {"cutoff": cutoff, "made_at": from_ms(columns["made_at"])}
    columns |= {name: bool(columns[name]) for name in ("late", "halted")}
    del columns["signal"]  # that of the decision
    return RecordedClose(**columns, decision=decision)


def to_signal(row: sqlite3.Row) -> SignalRow:
    """Build a close without its paths from the columns of `SIGNAL_COLUMNS`."""
    columns = dict(row)
    known = json.loads(columns.pop("decision") or "{}")
    columns |= {name: from_ms(columns[name]) for name in ("cutoff", "made_at")}
    columns |= {name: bool(columns[name]) for name in ("late", "halted")}
    return SignalRow(**columns, **{name: known.get(name) for name in FROM_DECISION})


def to_candles(rows: list[sqlite3.Row]) -> pd.DataFrame:
    """Build a frame from rows of the table of candles, oldest first."""
    values = np.array([row[1:] for row in rows], dtype=np.float64).reshape(-1, len(FEATURES))
    stamps = pd.to_datetime(np.array([row[0] for row in rows], dtype=np.int64), unit="ms", utc=True).as_unit("ns")
    frame = pd.DataFrame(values, columns=list(FEATURES))
    frame.insert(0, "timestamps", stamps)
    return frame


def to_ms(stamp: pd.Timestamp) -> int:
    """Return UTC milliseconds."""
    return int(stamp.as_unit("ns").value) // 1_000_000


def from_ms(time: int) -> pd.Timestamp:
    """Return the UTC time of milliseconds."""
    return pd.Timestamp(time, unit="ms", tz="UTC").as_unit("ns")
