"""Diagnosis of a candle file: all checks and their verdict."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kronos_lightning.data.doctor import calendar, continuity, values
from kronos_lightning.data.doctor.finding import Case, Finding
from kronos_lightning.data.formats import read_raw, usual_distance
from kronos_lightning.settings import interval_name, parse_interval

SEVERITIES = ("error", "warning", "info")
LISTED = 1000  # maximum number of places that the JSON lists per finding


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """Findings of the doctor in a file, worst first."""

    source: str
    candles: int
    interval: str
    findings: list[Finding]

    @property
    def errors(self) -> list[Finding]:
        """Findings of severity error, on which a model must not be trained."""
        return [finding for finding in self.findings if finding.severity == "error"]

    @property
    def verdict(self) -> str:
        """Verdict in one sentence."""
        found = {s: list(dict.fromkeys(f.check for f in self.findings if f.severity == s)) for s in SEVERITIES}
        doubts = f" (check also: {', '.join(found['warning'])})" if found["warning"] else ""
        if found["error"]:
            return f"do not train on this: {', '.join(found['error'])}{doubts}"
        return f"fit for training{doubts}"

    def within(self, begin: pd.Timestamp | None, end: pd.Timestamp | None) -> "Diagnosis":
        """Return a diagnosis with the findings on candles in [begin, end) and the findings that name no candle."""
        kept = []
        for f in self.findings:
            inside = np.ones(len(f.times), dtype=bool)
            if begin is not None:
                inside &= np.asarray(f.times >= begin)
            if end is not None:
                inside &= np.asarray(f.times < end)
            if inside.any() or not len(f.times):
                kept.append(
                    Finding(
                        f.check, f.severity, f.message, lines=f.lines[inside], times=f.times[inside], details=f.details
                    )
                )
        return Diagnosis(source=self.source, candles=self.candles, interval=self.interval, findings=kept)

    def to_json(self) -> dict[str, Any]:
        """Return the diagnosis as JSON data: every finding with its places (at most `LISTED`)."""
        return {
            "source": self.source,
            "candles": self.candles,
            "interval": self.interval,
            "verdict": self.verdict,
            "findings": [
                {
                    "check": f.check,
                    "severity": f.severity,
                    "message": f.message,
                    "count": len(f.lines),
                    "lines": f.lines[:LISTED].tolist(),
                    "times": [str(t) for t in f.times[:LISTED]],
                    **{key: value for key, value in f.details.items() if not _undefined(value)},
                }
                for f in self.findings
            ],
        }


def diagnose(
    source: str | Path | pd.DataFrame,
    interval: str | None = None,
    sessions: bool = False,
    now: pd.Timestamp | None = None,
) -> Diagnosis:
    """Check candles for all known defects; nothing is changed.

    Args:
        source: a file (see `formats` for the layouts), or a frame from `formats.read_raw`.
        interval: expected interval, such as 1h; None takes the most common distance.
        sessions: True if the market closes; breaks and jumps over breaks are then no defects.
        now: current time, or the time at which the file was written; None = the system clock.

    Raises:
        CandleError: the file cannot be read.
    """
    raw = source if isinstance(source, pd.DataFrame) else read_raw(Path(source))
    name = raw.attrs.get("path", "candles") if isinstance(source, pd.DataFrame) else str(source)
    step = parse_interval(interval) if interval else usual_distance(raw, Path(name))
    case = Case(raw, int(step / pd.Timedelta(1, "ns")), sessions, now or pd.Timestamp.now("UTC"))
    around = continuity.Neighbours(case)
    findings = [
        finding
        for check, arguments in (
            (values.numbers, (case,)),
            (values.price_order, (case,)),
            (calendar.duplicates, (case,)),
            (calendar.unfinished, (case,)),
            (continuity.frozen, (case, around)),
            (continuity.pasted, (case, around)),
            (continuity.repeats, (case,)),
            (continuity.outliers, (case, around)),
            (calendar.order, (case,)),
            (calendar.gaps, (case,)),
            (values.small_prices, (case,)),
            (values.amounts, (case,)),
            (values.no_trade, (case,)),
            (continuity.volume_collapse, (case, around)),
            (continuity.jumps, (case, around)),
            (calendar.columns, (case,)),
            (calendar.stamps, (case,)),
        )
        for finding in check(*arguments)
    ]
    findings.sort(key=lambda f: SEVERITIES.index(f.severity))
    return Diagnosis(source=name, candles=len(raw), interval=interval_name(step), findings=findings)


def _undefined(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
