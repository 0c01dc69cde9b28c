"""Checks of the time axis: order, duplicates, grid, gaps, sessions and the end."""

import re

import numpy as np
import pandas as pd

from kronos_lightning.data.doctor.finding import NAMED, STAMP, Case, Finding, Findings, Severity
from kronos_lightning.data.formats import describe, usual_distance
from kronos_lightning.data.sessions import describe_sessions
from kronos_lightning.settings import interval_name

DAY_NS = 86_400_000_000_000
WEEK_BEGINS = 4 * DAY_NS  # Monday, counted from the epoch's Thursday

# Long outages of Binance's spot market (35 minutes or more), UTC: last trade before, first trade after.
# Sources: github.com/binance/binance-public-data issues 312, 365 and 368; ccxt issue 8068.
OUTAGES = [
    tuple(pd.Timestamp(text, tz="UTC").value for text in line.split(" - "))
    for line in """\
2017-09-06 16:00 - 2017-09-06 23:00
2017-12-04 06:00 - 2017-12-04 06:50
2017-12-18 12:29 - 2017-12-18 13:35
2018-01-04 03:00 - 2018-01-04 05:07
2018-02-08 00:28 - 2018-02-09 10:01
2018-02-11 04:00 - 2018-02-11 04:35
2018-06-26 02:00 - 2018-06-26 12:00
2018-06-27 13:00 - 2018-06-27 14:45
2018-07-04 00:22 - 2018-07-04 08:00
2018-10-19 06:00 - 2018-10-19 09:30
2018-11-14 02:00 - 2018-11-14 09:00
2019-03-12 02:00 - 2019-03-12 08:00
2019-05-15 03:00 - 2019-05-15 13:00
2019-06-07 21:13 - 2019-06-07 22:15
2020-02-09 02:00 - 2020-02-09 03:00
2020-02-19 11:35 - 2020-02-19 17:30
2020-03-04 09:21 - 2020-03-04 11:30
2020-04-25 02:00 - 2020-04-25 04:30
2020-06-28 02:00 - 2020-06-28 05:30
2020-11-30 06:00 - 2020-11-30 07:00
2020-12-21 13:47 - 2020-12-21 18:00
2020-12-25 02:00 - 2020-12-25 03:00
2021-02-11 03:40 - 2021-02-11 05:00
2021-03-06 02:00 - 2021-03-06 03:30
2021-04-20 02:00 - 2021-04-20 04:30
2021-04-25 04:00 - 2021-04-25 08:45
2021-08-13 02:00 - 2021-08-13 06:30
2021-09-29 07:00 - 2021-09-29 09:00
2023-03-24 12:40 - 2023-03-24 14:00""".splitlines()
]


def in_outage(begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return a bool mask of the time ranges (nanoseconds) that overlap a known outage."""
    known = np.zeros(len(begin), dtype=bool)
    for first, last in OUTAGES:
        known |= (begin < last) & (end > first)
    return known


def order(case: Case) -> Findings:
    """Check that rows are in time order; newest first is reported as information, disorder as a warning."""
    stamps = case.raw["timestamps"]
    if stamps.is_monotonic_increasing:
        return
    if stamps.is_monotonic_decreasing:
        yield Finding("order", "info", "rows are newest first")
        return
    time = stamps.astype("int64").to_numpy()
    back = np.flatnonzero(np.diff(time) < 0) + 1
    lines = case.raw.index.to_numpy()[back]
    message = (
        f"rows are not in time order: time goes back at {case.raw.index.name} {', '.join(map(str, lines[:NAMED]))}"
    )
    message += " (rows of another file or year pasted in?)"
    yield Finding("order", "warning", message, lines=lines, times=pd.to_datetime(time[back], utc=True))


def duplicates(case: Case) -> Findings:
    """Check that each stamp belongs to a single candle."""
    if len(case.repeated):
        message = f"{len(case.repeated)} row(s) are exact duplicates; one of each is used"
        times = pd.DatetimeIndex(case.raw["timestamps"].loc[case.repeated])
        yield Finding("duplicates", "warning", message, lines=case.repeated, times=times)
    same = np.diff(case.time) == 0
    if same.any():
        bad = np.append(same, False) | np.append(False, same)
        message = f"stamps with two different candles: {case.places(bad)}"
        yield case.finding("duplicates", "error", message, bad)


def columns(case: Case) -> Findings:
    """Report which column was read as what, unit and zone of the stamps, and what was not used."""
    unused = case.raw.attrs.get("reading", {}).get("unused", [])
    alike = [name for name in unused if re.search("vol|amount|turnover|成交", name.lower())]
    if case.volume is None and alike:
        message = f"no volume column recognised; if {alike[0]!r} is the volume, set columns={{volume: {alike[0]}}}"
        yield Finding("columns", "warning", f"{message} (data.columns in train.py)")
    if "reading" in case.raw.attrs:
        yield Finding("columns", "info", describe(case.raw), details={"reading": case.raw.attrs["reading"]})


def stamps(case: Case) -> Findings:
    """Report the interval, and candles off the grid."""
    distances = np.diff(case.time)
    regular = float((distances == case.step).mean())
    name = interval_name(pd.Timedelta(case.step))
    message = f"candles of {name}, {regular:.1%} of them follow the one before"
    yield Finding("interval", "info", message, details={"interval": name, "regular": regular})
    usual = interval_name(usual_distance(case.raw, case.raw.attrs.get("path", "candles")))
    if usual != name:
        message = (
            f"the candles are {usual} apart, not {name}; set interval={usual} (data.interval in train.py), or choose "
        )
        message += f"the data group of {usual}"
        yield Finding("interval", "error", message)
        return
    if regular < 0.5 and not case.sessions and not _closes(case):
        message = f"no regular interval: the most common distance, {name}, is that of {regular:.0%} of the candles"
        yield Finding("interval", "error", message)
        return
    phases = (case.time - WEEK_BEGINS) % case.step
    values, counts = np.unique(phases, return_counts=True)
    phase = values[counts.argmax()]
    if phase and not case.sessions and case.step <= 7 * DAY_NS and DAY_NS % min(case.step, DAY_NS) == 0:
        message = f"candles open {pd.Timedelta(int(phase))} after the full {name} of UTC: are the stamps local time?"
        yield Finding("time zone", "warning", message, details={"offset_seconds": int(phase // 10**9)})
    stray = phases != phase
    if stray.any() and not case.sessions:
        message = (
            f"candles that open between two of {name}: {case.places(stray)} (after an outage, or another interval)"
        )
        yield case.finding("off grid", "error", message, stray)


def gaps(case: Case) -> Findings:
    """Report missing candles: known outages, other gaps, or a market that closes."""
    after = np.flatnonzero(np.diff(case.time) > case.step) + 1
    if not len(after):
        return
    closes = _closes(case)
    if case.sessions or closes:
        message = f"{len(after)} breaks between sessions"
        if closes and not case.sessions:
            message = f"a market that closes ({closes}): {message}"
            message += "; calendar=sessions for the doctor, data.calendar=sessions in training"
        yield Finding("sessions", "info" if case.sessions else "warning", message, details={"breaks": len(after)})
        return
    begin, end = case.time[after - 1] + case.step, case.time[after]
    known = in_outage(begin, end)
    for kind, rows in (("known outage", known), ("gap", ~known)):
        if rows.any():
            missing = -((begin - end) // case.step)[rows]
            where = [f"{missing[k]} from {pd.Timestamp(begin[rows][k]):{STAMP}}" for k in range(min(NAMED, rows.sum()))]
            more = f" and {rows.sum() - NAMED} gaps more" if rows.sum() > NAMED else ""
            if kind == "gap":
                message = f"candles missing: {', '.join(where)}{more}. Windows never cross a gap"
            else:
                message = f"missing because the exchange was down: {', '.join(where)}{more}"
            severity: Severity = "info" if kind == "known outage" else "warning"
            yield case.finding(kind, severity, message, after[rows], missing=missing.tolist())


def unfinished(case: Case) -> Findings:
    """Check that the last candle has ended."""
    if len(case) and case.time[-1] + case.step > case.now.value:
        message = f"the last candle, {case.places(np.array([len(case) - 1]))}, had not ended when the file was written"
        yield case.finding("unfinished", "error", message, np.array([len(case) - 1]))


def _closes(case: Case) -> str:
    return describe_sessions(pd.to_datetime(case.time), pd.Timedelta(case.step))
