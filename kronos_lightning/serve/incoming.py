"""Checks of the candles in a request: their content is refused with time, place, value and a way out."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from kronos_lightning.data.candles import candles_sha256, validate
from kronos_lightning.data.formats import FEATURES, CandleError
from kronos_lightning.forecast.series import Series, read_series
from kronos_lightning.pipeline.decision_settings import DecisionSettings
from kronos_lightning.settings import as_utc, interval_name, parse_interval

from .errors import ServiceError
from .messages import Candle, PredictRequest

EARLIEST, LATEST = as_utc("1970-01-01"), as_utc("2199-01-01")


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Origin of a decision.

    symbol, interval: market and length of the candles.
    amount_made: True if the quote volume was made from volume and price.
    reason: reason why the calibration of the evaluation does not apply; None if it applies.
    overrides: values that differ from the evaluation's, by key.
    sha256: hash of the candles that the model sees.
    notices: sentences for the reader.
    """

    symbol: str
    interval: pd.Timedelta
    amount_made: bool
    reason: str | None
    overrides: dict[str, Any]
    sha256: str
    notices: list[str]


@dataclass(frozen=True, kw_only=True)
class Prepared(Origin):
    """Checked request.

    series: candles that the model sees, at most its lookback.
    num_paths: number of sample paths.
    calibrated: True if the calibration of the evaluation applies.
    """

    series: Series
    num_paths: int
    calibrated: bool

    def age(self, now: datetime) -> float:
        """Return the seconds since the last candle closed."""
        return (pd.Timestamp(now) - self.series.stamps[-1] - self.interval).total_seconds()


def prepare(
    request: PredictRequest,
    candles: pd.DataFrame,
    symbol: str,
    decision: DecisionSettings,
    now: datetime,
    drop_unfinished: bool,
) -> Prepared:
    """Check a request and cut the candles to the lookback of the evaluation.

    Args:
        request: the request.
        candles: its candles, see `table`.
        symbol: market in the path.
        decision: settings of the model.
        now: the current time.
        drop_unfinished: leave out the last candle if it has not closed.

    Raises:
        ServiceError: 409 for candles that cannot be forecast.
    """
    name = request.interval or decision.interval
    step, notices = parse_interval(name), []
    _check_stamps(candles["timestamps"], step, name)
    if candles["timestamps"].iloc[-1] + step > now:
        if not drop_unfinished:
            raise ServiceError(
                409,
                "unfinished_candle",
                f"candles[{len(candles) - 1}] opens at {candles['timestamps'].iloc[-1].isoformat()} and has not closed",
                "Leave it out, or add ?drop_unfinished=true.",
            )
        candles = candles.iloc[:-1]
        notices.append("The last candle had not closed and was left out.")
        if len(candles) < 2 or candles["timestamps"].iloc[-1] + step > now:
            raise refused("less than two candles have closed", "Send finished candles.")
    horizon, num_paths = request.horizon or decision.horizon, request.num_paths or decision.forecast.num_paths
    made = _check_amount(candles)
    seen = candles.tail(decision.lookback)
    seen = seen.drop(columns="amount") if made else seen
    try:
        series = read_series(validate(seen, "candles", name, symbol, sessions=False).frame, horizon)
    except CandleError as error:
        raise refused(str(error), "Correct or leave out these candles; nothing is filled in.") from error
    if made:
        notices.append("No amount was given: it is volume × mean price, which changes a forecast a little.")
    given = {"interval": name, "horizon": horizon, "num_paths": num_paths, "symbol": symbol, "lookback": len(seen)}
    evaluated = {key: getattr(decision, key) for key in given if key != "num_paths"}
    evaluated["num_paths"] = decision.forecast.num_paths
    overrides: dict[str, Any] = {key: value for key, value in given.items() if value != evaluated[key]}
    reason = _reason(overrides, decision)
    notices += [
        f"Not as in the evaluation: {key} {value} instead of {evaluated[key]}." for key, value in overrides.items()
    ]
    found = Prepared(
        series=series,
        symbol=symbol,
        interval=step,
        num_paths=num_paths,
        amount_made=made,
        calibrated=reason is None,
        reason=reason,
        overrides=overrides,
        sha256=candles_sha256(seen),
        notices=notices,
    )
    if (age := found.age(now)) > step.total_seconds():
        notices.append(f"The last candle closed {_duration(age)} ago: this is not a forecast of what comes next now.")
    return found


def table(candles: Sequence[Candle]) -> pd.DataFrame:
    """Build a frame from the candles of a request; a missing amount is NaN.

    Raises:
        ServiceError: 409 for a time outside 1970 to 2199.
    """
    for i, one in enumerate(candles):
        if not EARLIEST <= one.timestamp < LATEST:
            raise refused(f"candles[{i}].timestamp: {one.timestamp.isoformat()}", "Send times from 1970 to 2199.")
    columns: dict[str, object] = {"timestamps": pd.to_datetime([one.timestamp for one in candles], utc=True)}
    for name in FEATURES:
        columns[name] = np.array([getattr(one, name) for one in candles], dtype=np.float64)
    frame = pd.DataFrame(columns)
    frame["timestamps"] = frame["timestamps"].dt.as_unit("ns")
    frame.index.name = "index"
    return frame


def refused(message: str, hint: str) -> ServiceError:
    """Return the error for candles whose content cannot be forecast."""
    return ServiceError(409, "candles_refused", message, hint)


def _check_stamps(stamps: pd.Series, step: pd.Timedelta, name: str) -> None:
    distance = np.diff(stamps.to_numpy())
    wrong = distance != step.to_timedelta64()
    if not wrong.any():
        return
    i = int(wrong.argmax())
    first, second, found = stamps.iloc[i], stamps.iloc[i + 1], pd.Timedelta(distance[i])
    place = f"candles[{i + 1}].timestamp: {second.isoformat()} "
    if found == pd.Timedelta(0):
        raise refused(f"{place}is there twice", "Send each candle once.")
    if found < pd.Timedelta(0):
        raise refused(f"{place}is before candles[{i}] ({first.isoformat()})", "Send the oldest candle first.")
    if not (distance == distance[0]).all():
        raise refused(f"{place}is {_distance(found)} after candles[{i}]; candles of {name} are expected",
                      "Send only the candles after the last gap; nothing is filled in.")  # fmt: skip
    other = _distance(found)
    raise refused(f"{place}: the candles are {other} apart, not {name}", f"Send candles of {name}, or set interval.")


def _check_amount(candles: pd.DataFrame) -> bool:
    """Return True if no candle has an amount; some with and some without are refused."""
    missing = candles["amount"].isna().to_numpy()
    if missing.any() and not missing.all():
        i = int(missing.argmax())
        raise refused(f"candles[{i}].amount: missing, but other candles have it", "Give all amounts or none.")
    return bool(missing.all())


def _reason(overrides: dict[str, object], decision: DecisionSettings) -> str | None:
    """Return the reason why the calibration of the evaluation does not apply; None if it applies."""
    if decision.calibration is None:
        return "the evaluation fitted no calibration"
    for key in ("symbol", "interval", "lookback"):
        if key in overrides:
            return f"it was fitted with {key} {getattr(decision, key)}"
    return None


def _distance(step: pd.Timedelta) -> str:
    return interval_name(step) if step >= pd.Timedelta("1s") else str(step)


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"
