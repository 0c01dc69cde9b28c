"""Judgement on a close before the model is asked: may it be forecast, and is there still time to trade it."""

import numpy as np
import pandas as pd

from kronos_lightning.data import CandleError
from kronos_lightning.data.candles import validate
from kronos_lightning.data.doctor import diagnose
from kronos_lightning.data.formats import FEATURES
from kronos_lightning.settings import parse_interval

from .closes import Status

TAIL = 120  # candles that the doctor sees
WATCHED = 3  # newest candles, whose defects stop trading; as many are fetched again at each close
PATIENCE = 3  # intervals for which a missing candle is asked for again
LATE = 0.1  # share of an interval after the close within which a decision can be traded


def is_late(cutoff: pd.Timestamp, now: pd.Timestamp, step: pd.Timedelta) -> bool:
    """Return True if a decision after the close of a candle comes too late to be traded."""
    return bool(now > cutoff + step * (1 + LATE))


def is_given_up(cutoff: pd.Timestamp, now: pd.Timestamp, step: pd.Timedelta) -> bool:
    """Return True if a missing candle has been asked for long enough."""
    return bool(now >= cutoff + step * (1 + PATIENCE))


def judge(known: pd.DataFrame, cutoff: pd.Timestamp, interval: str, lookback: int) -> tuple[Status, str]:
    """Return the status of a close as far as the candles decide it, with the reason if it is not ok.

    Args:
        known: candles up to the cutoff, oldest first.
        cutoff: open time of the candle that has closed.
        interval: length of the candles.
        lookback: candles that the model needs without a gap.
    """
    step = parse_interval(interval)
    if known.empty or known["timestamps"].iloc[-1] != cutoff:
        return "gap", f"the exchange has no candle of {cutoff:%Y-%m-%d %H:%M}"
    count = len(last_segment(known, step))
    if count < lookback:
        return "short", f"{count} candles since the last gap, {lookback} are needed"
    defect = tail_defect(known, interval, cutoff + step)
    return ("ok", "") if defect is None else ("defect", defect)


def last_segment(known: pd.DataFrame, step: pd.Timedelta) -> pd.DataFrame:
    """Return the candles after the last gap."""
    gaps = np.flatnonzero(known["timestamps"].diff().to_numpy()[1:] != step.to_timedelta64())
    return known if not len(gaps) else known.iloc[gaps[-1] + 1 :]


def tail_defect(known: pd.DataFrame, interval: str, now: pd.Timestamp) -> str | None:
    """Return what the doctor finds wrong with the newest candles; None if it finds nothing."""
    tail = known.tail(TAIL).rename_axis("row")
    watched = tail["timestamps"].iloc[-WATCHED]
    found = diagnose(tail, interval, now=now).within(watched, None)
    errors = [finding for finding in found.errors if len(finding.times)]
    return "; ".join(f"{finding.check}: {finding.message}" for finding in errors) or None


def possible(candles: pd.DataFrame, interval: str) -> tuple[pd.DataFrame, list[str]]:
    """Leave out impossible candles, such as one whose high is below its low; return the others and the reasons."""
    if candles.empty or _problem(candles, interval) is None:
        return candles, []
    problems = [_problem(candles.iloc[i : i + 1], interval) for i in range(len(candles))]
    good = np.array([problem is None for problem in problems])
    return candles[good].reset_index(drop=True), [problem for problem in problems if problem is not None]


def _problem(candles: pd.DataFrame, interval: str) -> str | None:
    """Return what is impossible about candles; None if nothing is. A gap counts, but not in a single candle."""
    stamps = pd.Index(candles["timestamps"].dt.strftime("%Y-%m-%d %H:%M"), name="candle")
    rows = candles[["timestamps", *FEATURES]].set_axis(stamps, axis=0)
    try:
        validate(rows, "the exchange", interval, "", sessions=True)
    except CandleError as error:
        return str(error)
    return None
