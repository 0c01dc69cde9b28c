"""Open times of candles, read from any kind of stamp: epoch numbers, digits that spell a date, texts, datetimes."""

import re
from dataclasses import dataclass, replace
from datetime import date

import numpy as np
import pandas as pd

from .features import CandleError, first_place

UNITS = {"seconds": 10**9, "milliseconds": 10**6, "microseconds": 10**3, "nanoseconds": 1}
FIRST_EPOCH = pd.Timestamp("2005-01-01").value  # with it, the ranges of the four units do not overlap
FIRST_YEAR = 1900  # of texts and digits
DIGITS = {8: "YYYYMMDD", 10: "YYYYMMDDHH", 12: "YYYYMMDDHHMM", 14: "YYYYMMDDHHMMSS", 17: "YYYYMMDDHHMMSSmmm"}
ZONE = r"\s*(Z|(?:UTC|GMT)?[+-]\d{2}:?\d{2}|UTC|GMT)$"
MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
KINDS = {  # texts with the parts of a date, in the order year, month, day of the groups named so
    "year first": r"^(?P<y>\d{4})[-/.年](?P<m>\d{1,2})[-/.月](?P<d>\d{1,2})日?",
    "month name": r"^(?P<M>[A-Za-z]{3})[a-z]*\.?[ -](?P<d>\d{1,2}),?[ -](?P<y>\d{4})",
    "day, month name": r"^(?P<d>\d{1,2})[ -](?P<M>[A-Za-z]{3})[a-z]*\.?[ -](?P<y>\d{4})",
    "numbers": r"^(?P<a>\d{1,2})(?P<sep>[-/.])(?P<b>\d{1,2})[-/.](?P<y>\d{4})",
}
CLOCK = (
    r"^[T ,]*(?P<h>\d{1,2})(?:[:时-](?P<min>\d{1,2})?(?:[:分](?P<s>\d{1,2})(?:[.,](?P<f>\d{1,9}))?秒?)?分?)?"
    r"\s*(?P<half>[AaPp]\.?[Mm]\.?)?$"
)
ADVICE = "write 2024-01-31 or 2024-01-31 09:30:00, with a zone or in UTC, or epoch numbers"


@dataclass(frozen=True, kw_only=True)
class Stamps:
    """Parsed stamps.

    times: as datetime64[ns]: UTC if `zoned`, otherwise as written.
    zoned: True if the stamps tell their zone (epoch numbers do).
    kind: description of what was read, such as "epoch milliseconds".
    """

    times: pd.Series
    zoned: bool
    kind: str

    def utc(self, timezone: str | None, source: str) -> "Stamps":
        """Return the stamps in UTC; those without a zone are taken for `timezone`, or for UTC.

        Raises:
            CandleError: the stamps have a zone of their own, or do not exist in the time zone.
        """
        if self.zoned:
            if timezone is not None:
                raise CandleError(
                    f"{source}: the stamps have a zone of their own ({self.kind}); leave out timezone={timezone}"
                )
            return replace(self, times=self.times.dt.tz_localize("UTC"))
        if timezone is None:
            return replace(
                self, times=self.times.dt.tz_localize("UTC"), kind=f"{self.kind} without a zone, read as UTC"
            )
        backwards = len(self.times) > 1 and self.times.iloc[-1] < self.times.iloc[0]
        ordered = self.times[::-1] if backwards else self.times
        try:
            local = ordered.dt.tz_localize(timezone, ambiguous="infer")
        except ValueError as error:  # an hour that does not exist there, or doubled hours that cannot be told apart
            raise CandleError(f"{source}: the stamps are no local time of {timezone} ({error})") from error
        return replace(self, times=local.dt.tz_convert("UTC")[self.times.index], kind=f"{self.kind} in {timezone}")


def parse_stamps(
    column: pd.Series, source: str, place: str, date_order: str | None = None, future: bool = False
) -> Stamps:
    """Parse stamps of any kind.

    Args:
        column: the stamps; the index holds the line or row numbers.
        source, place: file and "line" or "row", for messages.
        date_order: "day_first" or "month_first" for dates such as 01/02/2024; None finds it out.
        future: True for stamps of candles to come, which may lie after tomorrow.

    Raises:
        CandleError: a stamp is missing, is not a date, cannot be (before 1900 or after tomorrow), or is ambiguous.
    """
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        stamps = Stamps(
            times=_nanoseconds(column.dt.tz_convert("UTC").dt.tz_localize(None)),
            zoned=True,
            kind=f"datetimes with the zone {column.dt.tz}",
        )
    elif pd.api.types.is_datetime64_any_dtype(column):
        stamps = Stamps(times=_nanoseconds(column), zoned=False, kind="datetimes")
    elif column.dtype == object and len(column) and isinstance(column.iloc[0], date):
        stamps = _objects(column, source, place)
    elif _numeric(column):
        stamps = _numbers(column)
    else:
        stamps = _texts(column, source, place, date_order)
    _require(stamps, column, source, place, future)
    return stamps


def parse_clock(column: pd.Series, source: str, place: str) -> pd.Series:
    """Parse times of day, as 09:30, 09:30:00, 930 or 93000, into timedeltas.

    Raises:
        CandleError: a value is not a time of day.
    """
    texts = column.astype("str").str.strip()
    digits = texts.str.fullmatch(r"\d{1,6}(\.0)?")
    if digits.all():
        texts = texts.str.replace(".0", "", regex=False)
        width = 4 if texts.str.len().max() <= 4 else 6
        texts = texts.str.zfill(width).str.replace(r"^(\d\d)(\d\d)", r"\1:\2:", regex=True).str.rstrip(":")
    parts = texts.str.extract(CLOCK)
    times = _time_of_day(parts)
    if times.isna().any():
        at = first_place(column, times.isna())
        raise CandleError(f"{source}: {place} {at}, column {column.name}: {column[at]!r} is not a time of day")
    return times


def is_clock(column: pd.Series) -> bool:
    """Return True if the values are times of day."""
    texts = column.dropna().astype("str").str.strip()
    return len(texts) > 0 and bool(texts.str.fullmatch(r"\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?|\d{1,6}").all())


def is_stamp(cell: str) -> bool:
    """Return True if a cell holds a stamp."""
    try:
        parse_stamps(pd.Series([cell], dtype="str"), "", "row", "day_first")
    except CandleError:
        return False
    return True


def marks_end(times: pd.Series) -> bool:
    """Return True if all stamps are the last second, or a fraction of it, of a minute."""
    rest = times.astype("int64").to_numpy() % (60 * 10**9)
    return len(rest) > 1 and bool((rest >= 59 * 10**9).all())


# --- kinds ------------------------------------------------------------------------------------------------------


def _nanoseconds(times: pd.Series) -> pd.Series:
    """Return times as datetime64[ns]; years that this type cannot hold become NaT."""
    if times.dtype != "datetime64[ns]":
        times = times.where((times >= pd.Timestamp(1700, 1, 1)) & (times < pd.Timestamp(2200, 1, 1)))
    return times.astype("datetime64[ns]")


def _numeric(column: pd.Series) -> bool:
    """Return True if the stamps are numbers, judged by the first 100 values."""
    return not pd.api.types.is_bool_dtype(column) and bool(
        pd.to_numeric(column.iloc[:100], errors="coerce").notna().mean() > 0.5
    )


def _objects(column: pd.Series, source: str, place: str) -> Stamps:
    """Parse datetime objects; all of them have a zone, or none."""
    zoned = column.map(lambda value: getattr(value, "tzinfo", None) is not None)
    _require_uniform_zone(zoned, column, source, place)
    try:
        times = pd.to_datetime(column, utc=True).dt.tz_localize(None)
    except (ValueError, TypeError, OverflowError) as error:
        raise CandleError(f"{source}: column {column.name}: not all dates ({error})") from error
    kind = "datetimes with a zone" if zoned.all() else "datetimes"
    return Stamps(times=_nanoseconds(times), zoned=bool(zoned.all()), kind=kind)


def _require_uniform_zone(zoned: pd.Series, column: pd.Series, source: str, place: str) -> None:
    if zoned.any() and not zoned.all():
        at = first_place(column, zoned.ne(zoned.iloc[0]))
        raise CandleError(
            f"{source}: {place} {at}, column {column.name}: {column[at]!r}: some stamps have a zone and others have "
            f"none; write all of them with their zone, or none"
        )


def _numbers(column: pd.Series) -> Stamps:
    """Parse epoch numbers, each in the unit that puts it between 2005 and tomorrow, and digits that spell a date."""
    numbers = pd.to_numeric(column, errors="coerce")
    size = numbers.to_numpy(dtype=np.float64, na_value=np.nan)
    result = np.full(len(size), np.iinfo(np.int64).min)  # NaT
    kinds = []
    last = _tomorrow().value
    for unit, scale in UNITS.items():
        rows = (size >= FIRST_EPOCH // scale) & (size < last / scale)
        if rows.any():
            kinds.append(unit)
            result[rows] = _scaled(numbers[rows], scale)
    kind = f"epoch {' and '.join(kinds)}"
    left = np.flatnonzero(result == np.iinfo(np.int64).min)
    if len(left) and not kinds:
        spelled = numbers.iloc[left].where(numbers.iloc[left] % 1 == 0)
        texts = spelled.astype("Int64").astype("str")
        lengths = sorted(set(texts.str.len()) & set(DIGITS))
        for length in lengths:
            rows = (texts.str.len() == length).to_numpy()
            result[left[rows]] = _spelled(texts[rows]).astype("int64")
        kind = f"digits {' and '.join(DIGITS[length] for length in lengths)}"
        return Stamps(times=pd.Series(result.view("datetime64[ns]"), index=column.index), zoned=False, kind=kind)
    return Stamps(times=pd.Series(result.view("datetime64[ns]"), index=column.index), zoned=True, kind=kind)


def _scaled(numbers: pd.Series, scale: int) -> np.ndarray:
    """Return epoch numbers in nanoseconds: whole numbers exactly, fractions to the microsecond."""
    whole = numbers.astype("int64")
    fraction = ((numbers - whole) * scale / 1000).round().astype("int64") * 1000 if numbers.dtype.kind == "f" else 0
    return (whole * scale + fraction).to_numpy()


def _spelled(digits: pd.Series) -> pd.Series:
    """Parse YYYYMMDD with optional HH, MM, SS and milliseconds, all of one length."""
    parts = digits.str.extract(
        r"^(?P<y>\d{4})(?P<m>\d\d)(?P<d>\d\d)(?P<h>\d\d)?(?P<min>\d\d)?(?P<s>\d\d)?(?P<f>\d{3})?$"
    )
    return _nanoseconds(
        _day(parts["y"], parts["m"], parts["d"]) + _time_of_day(parts.assign(half=None, h=parts["h"].fillna("0")))
    )


def _texts(column: pd.Series, source: str, place: str, date_order: str | None) -> Stamps:
    """Parse dates and times in words or numbers, all of them written in one way."""
    at_once = _iso(column)
    if at_once is not None:
        return at_once
    texts = column.astype("str").str.strip()
    zones = texts.str.extract(ZONE, expand=False).where(texts.str.contains(r"\d:\d|UTC|GMT", regex=True))
    zoned = zones.notna()
    _require_uniform_zone(zoned[texts.str.contains(r"\d", regex=True)], column, source, place)
    kind = (
        f"texts with the zone {' and '.join(dict.fromkeys(zones.dropna().iloc[[0, -1]]))}" if zoned.any() else "texts"
    )
    times = pd.to_datetime(texts, format="ISO8601", utc=bool(zoned.any()), errors="coerce")
    times = _nanoseconds(times.dt.tz_localize(None) if zoned.any() else times)
    left = times.isna() & texts.str.contains(r"\d", regex=True)
    if left.any():
        rest, offsets = texts[left], _offset(zones[left])
        rest = rest.where(zones[left].isna(), rest.str.replace(ZONE, "", regex=True))
        iso = bool(times.notna().any())
        parsed, order = _written(rest, column, source, place, date_order, ["year first"] if iso else list(KINDS))
        times[left] = _nanoseconds(parsed - offsets)
        kind += order
    return Stamps(times=times, zoned=bool(zoned.any()), kind=kind)


def _iso(column: pd.Series) -> Stamps | None:
    """Parse texts that are all ISO 8601 without a zone, the common case, at once; None if they are not."""
    try:
        times = pd.to_datetime(column, format="ISO8601", errors="coerce")
    except ValueError:  # some have a zone
        return None
    if times.isna().any() or times.dt.tz is not None:
        return None
    return Stamps(times=_nanoseconds(times), zoned=False, kind="texts")


def _offset(zones: pd.Series) -> pd.Series:
    parts = zones.str.extract(r"([+-])(\d{2}):?(\d{2})$")
    minutes = parts[1].astype("float64") * 60 + parts[2].astype("float64")
    return pd.to_timedelta((minutes * parts[0].map({"+": 1, "-": -1})).fillna(0.0), unit="min")


def _written(
    texts: pd.Series, column: pd.Series, source: str, place: str, date_order: str | None, kinds: list[str]
) -> tuple[pd.Series, str]:
    """Parse dates of the first kind that occurs; return them, and a remark on the order of day and month."""
    times = pd.Series(pd.NaT, index=texts.index, dtype="datetime64[ns]")
    remark = ""
    for kind in kinds:
        parts = texts.str.extract(KINDS[kind])
        parts = parts[parts["y"].notna()]
        if parts.empty:
            continue
        if kind == "numbers":
            day_first = _day_first(parts, column, source, place, date_order)
            month, day = (parts["b"], parts["a"]) if day_first else (parts["a"], parts["b"])
            remark = ", day first," if day_first else ", month first,"
        else:
            named = {name: number for number, name in enumerate(MONTHS, 1)}
            month, day = parts["m"] if "m" in parts else parts["M"].str.lower().map(named), parts["d"]
        rest = texts[parts.index].str.replace(re.sub(r"\?P<\w+>", "", KINDS[kind]), "", regex=True)
        clock = rest.where(rest != "", "0").str.extract(CLOCK)
        times[parts.index] = _day(parts["y"], month, day) + _time_of_day(clock)
        break
    return times, remark


def _day_first(parts: pd.DataFrame, column: pd.Series, source: str, place: str, date_order: str | None) -> bool:
    """Return True if dates such as 31/01/2024 begin with the day; dots always mean that."""
    first, second = parts["a"].astype("int64"), parts["b"].astype("int64")
    day_first, month_first = bool((first > 12).any()), bool((second > 12).any())
    if date_order is not None:
        return date_order == "day_first"
    if day_first and month_first:
        at = first_place(first, ((first > 12) != (first.iloc[0] > 12)))
        raise CandleError(
            f"{source}: {place} {at}, column {column.name}: {column[at]!r}: dates begin with the day and with the month"
        )
    if parts["sep"].eq(".").all() and not month_first:
        return True
    if not day_first and not month_first:
        at = parts.index[0]
        raise CandleError(
            f"{source}: {place} {at}, column {column.name}: {column[at]!r} may begin with the day or with the month; "
            f"date_order=day_first or month_first decides (data.date_order in train.py and evaluate.py)"
        )
    return day_first


def _day(year: pd.Series, month: pd.Series, day: pd.Series) -> pd.Series:
    """Return midnight of a day; NaT where there is no such day."""
    texts = year.astype("str") + "-" + month.astype("str").str.zfill(2) + "-" + day.astype("str").str.zfill(2)
    return _nanoseconds(pd.to_datetime(texts, format="%Y-%m-%d", errors="coerce"))


def _time_of_day(parts: pd.DataFrame) -> pd.Series:
    """Return times of day from hour, minute, second, fraction and half of the day; NaT where there is none."""
    hour, minute, second = (
        pd.to_numeric(parts[name].fillna("0") if name != "h" else parts[name]) for name in ("h", "min", "s")
    )
    half = parts["half"].astype("str").str.lower().str[0].where(parts["half"].notna())
    valid = (hour < 24) & (minute < 60) & (second < 60) & (half.isna() | ((hour >= 1) & (hour <= 12)))
    hour = hour.where(half.isna(), hour % 12 + half.eq("p") * 12)
    fraction = parts["f"].fillna("").str.ljust(9, "0").where(parts["f"].notna(), "0")
    nanoseconds = (hour.fillna(0) * 3600 + minute * 60 + second).astype("int64") * 10**9 + fraction.astype("int64")
    return pd.to_timedelta(nanoseconds, unit="ns").where(valid)


# --- checks -----------------------------------------------------------------------------------------------------


def _tomorrow() -> pd.Timestamp:
    return pd.Timestamp.now("UTC").tz_localize(None).ceil("D") + pd.Timedelta(days=1)


def _require(stamps: Stamps, column: pd.Series, source: str, place: str, future: bool) -> None:
    """Raise `CandleError` at the first stamp that is none, or lies before 1900 or (unless `future`) after tomorrow."""
    times = stamps.times
    bad = (times.isna() | (times < pd.Timestamp(FIRST_YEAR, 1, 2))).to_numpy()
    if not future:
        bad = bad | (times >= _tomorrow()).to_numpy()
    if bad.any():
        at = first_place(column, bad)
        value = "empty" if pd.isna(column[at]) else repr(column[at])
        value = re.sub(r"^np\.\w+\((.*)\)$", r"\1", value)
        known = "between 1900 and tomorrow (epoch numbers: from 2005 on)"
        raise CandleError(f"{source}: {place} {at}, column {column.name}: {value} is not a date {known}; {ADVICE}")
