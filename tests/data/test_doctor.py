"""The doctor: planted defects are found where they are, clean candles are not accused."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from kronos_lightning.data import CandleError
from kronos_lightning.data.doctor import diagnose
from kronos_lightning.data.doctor.calendar import in_outage
from kronos_lightning.data.formats import FEATURES, PRICES, read_raw
from kronos_lightning.data.sources.synthetic import synthetic_candles
from kronos_lightning.reporting.doctor_page import chart
from tests.helpers.commands import command
from tests.helpers.pages import loaded

NOW = pd.Timestamp("2100-01-01", tz="UTC")
few = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
places = st.integers(100, 1800)
seeds = st.integers(0, 10**6)


def candles(seed=0, interval="1h", count=2000):
    """Clean synthetic candles as `read_raw` would give them."""
    frame = synthetic_candles(count, interval, "2023-01-02", seed, 30_000.0, 0.6).frame
    return as_raw(frame[["timestamps", *FEATURES]])


def as_raw(frame):
    raw = frame.set_axis(pd.RangeIndex(2, len(frame) + 2, name="line"))
    raw.attrs = {"path": "x.csv", "stamps": "texts"}
    return raw


def examine(raw, **options):
    return diagnose(raw, **{"now": NOW} | options)


def found(raw, check, **options):
    """Lines of all findings of this name, by severity."""
    return {f.severity: set(f.lines.tolist()) for f in examine(raw, **options).findings if f.check == check}


def names(raw, **options):
    return {f.check for f in examine(raw, **options).findings if f.severity != "info"}


@few
@given(seeds, st.sampled_from(["1m", "15m", "1h", "4h", "1d"]))
def test_clean_candles_have_no_errors(seed, interval):
    raw = candles(seed, interval)
    assume((raw["high"].rolling(5).max() / raw["low"].rolling(5).min()).max() < 3)  # such days are worth a question
    diagnosis = examine(raw)
    assert diagnosis.errors == []
    assert {f.check for f in diagnosis.findings if f.severity == "warning"} <= {"price outlier"}  # its jumps are real
    assert sum(len(f.lines) for f in diagnosis.findings) < 10


def test_the_file_is_not_changed():
    raw = candles()
    before = raw.copy()
    examine(raw)
    pd.testing.assert_frame_equal(raw, before)


# --- single candles ---------------------------------------------------------------------------------------------


@few
@given(places, st.sampled_from(FEATURES), st.sampled_from([np.nan, np.inf, -1.0]))
def test_values_that_are_none_are_errors(place, column, value):
    raw = candles()
    raw.loc[place, column] = value
    check = "negative value" if value == -1 else "missing value"
    assert found(raw, check)["error"] == {place}


@few
@given(places)
def test_a_high_inside_the_candle_is_an_error(place):
    raw = candles()
    raw.loc[place, "high"] = raw.loc[place, ["open", "close"]].min() * 0.999
    assert place in found(raw, "price order")["error"]


@few
@given(places)
def test_an_amount_that_does_not_fit_the_price_is_named(place):
    raw = candles()
    raw.loc[place, "amount"] *= 1.5
    assert found(raw, "amount outside candle") == {"warning": {place}}


@pytest.mark.parametrize(
    ("change", "severity", "message"),
    [
        (lambda f: f.assign(volume=f["volume"] / 100), "info", "lots of 100"),
        (lambda f: f.assign(amount=f["amount"] / 1000), "info", "units of 1000"),
        (lambda f: f.assign(amount=f["volume"]), "warning", "repeats the volume"),
        (lambda f: f.assign(amount=f["volume"], volume=f["amount"]), "warning", "swapped"),
        (lambda f: f.assign(amount=f["amount"] * 3.3), "warning", "not a known scale"),
    ],
)
def test_scales_of_amount_and_volume_are_recognised(change, severity, message):
    raw = candles()
    (finding,) = [f for f in examine(as_raw(change(raw))).findings if f.check == "amount scale"]
    assert finding.severity == severity
    assert message in finding.message


def test_a_price_that_moves_without_volume_is_named():
    raw = candles()
    raw.loc[500, ["volume", "amount"]] = 0
    assert found(raw, "zero volume") == {"warning": {500}}


# --- time -------------------------------------------------------------------------------------------------------


@few
@given(places)
def test_two_candles_at_one_stamp_are_an_error_and_a_repeated_row_is_not(place):
    raw = candles()
    copy = raw.loc[[place]]
    other = copy.assign(close=copy["close"] * 1.0001, high=copy["high"] * 1.001)
    assert found(as_raw(pd.concat([raw, copy])), "duplicates") == {"warning": {2002}}
    assert found(as_raw(pd.concat([raw, other])), "duplicates") == {"error": {place, 2002}}


@few
@given(places, st.integers(1, 30))
def test_a_gap_is_named_with_its_size(place, size):
    raw = as_raw(candles().drop(index=range(place, place + size)))
    (gap,) = [f for f in examine(raw).findings if f.check == "gap"]
    assert gap.lines.tolist() == [place]
    assert gap.details["missing"] == [size]
    assert gap.severity == "warning"


def test_a_known_outage_is_told_from_a_gap():
    raw = candles(count=2600)
    down = raw["timestamps"].between("2023-03-24 13:00+00:00", "2023-03-24 13:30+00:00")
    checks = {f.check: f.severity for f in examine(as_raw(raw[~down])).findings}
    assert checks["known outage"] == "info"
    assert "gap" not in checks


def test_rows_out_of_order_and_newest_first():
    raw = candles()
    assert found(as_raw(raw[::-1]), "order") == {"info": set()}
    moved = as_raw(pd.concat([raw.iloc[:500], raw.iloc[700:], raw.iloc[500:700]]))
    assert found(moved, "order") == {"warning": {1802}}


def test_candles_between_the_full_hours_are_an_error():
    raw = candles()
    raw.loc[900:902, "timestamps"] += pd.Timedelta("17min")
    assert found(raw, "off grid") == {"error": {900, 901, 902}}


def test_local_time_shows_in_daily_candles():
    raw = candles(interval="1d", count=400)
    raw["timestamps"] += pd.Timedelta("16h")
    assert "time zone" in names(raw)
    assert "time zone" not in names(candles(interval="1w", count=100).assign())


def test_no_regular_interval_is_an_error():
    raw = candles()
    rng = np.random.default_rng(0)
    raw["timestamps"] = raw["timestamps"].iloc[0] + pd.to_timedelta(rng.integers(1, 5000, len(raw)).cumsum(), "s")
    assert "error" in found(raw, "interval")


def test_a_candle_that_has_not_ended_is_an_error():
    raw = candles()
    last = raw["timestamps"].iloc[-1]
    assert found(raw, "unfinished", now=last + pd.Timedelta("59min")) == {"error": {2001}}
    assert found(raw, "unfinished", now=last + pd.Timedelta("1h")) == {}


def test_sessions_are_recognised_and_no_defect():
    raw = candles(interval="5m", count=12_000)
    stamps = raw["timestamps"].dt
    minutes = stamps.hour * 60 + stamps.minute
    open_ = (stamps.day_of_week < 5) & (minutes.between(570, 690) | minutes.between(780, 900))
    market = as_raw(raw[open_])
    (finding,) = [f for f in examine(market).findings if f.check == "sessions"]
    assert finding.severity == "warning"
    assert "; calendar=sessions for the doctor, data.calendar=sessions in training" in finding.message
    assert names(market, sessions=True) <= {"price outlier"}


# --- neighbours -------------------------------------------------------------------------------------------------


def days_of_hours(seed, count=700):
    """Hourly candles and the days that they make."""
    hours = candles(seed, "1h", count * 24)
    return hours, as_raw(aggregate(hours, np.full(count, 24)))


def aggregate(hours, captured):
    """Days from the first `captured` hours of each."""
    day = np.arange(len(hours)) // 24
    kept = hours[np.arange(len(hours)) % 24 < captured[day]]
    rules = {"timestamps": "first", "open": "first", "high": "max", "low": "min", "close": "last"}
    return kept.groupby(day[kept.index - 2]).agg(rules | {"volume": "sum", "amount": "sum"})


@few
@given(seeds, st.integers(150, 500), st.integers(30, 150))
def test_a_run_of_frozen_candles_is_found(seed, begin, length):
    hours, _ = days_of_hours(seed)
    rng = np.random.default_rng(seed)
    captured = np.full(700, 24)
    captured[begin : begin + length] = rng.integers(1, 7, length)
    planted = set(range(begin + 2, begin + length + 2))
    accused = found(as_raw(aggregate(hours, captured)), "frozen candle")["error"]
    assert len(planted & accused) >= 0.95 * length
    assert len(accused - planted) <= 1


@few
@example(1, 81)  # the day of an outage, which may cut a candle short
@given(seeds, st.integers(50, 650))
def test_one_frozen_candle_is_found_or_it_met_the_next_by_chance(seed, place):
    hours, days = days_of_hours(seed)
    captured = np.full(700, 24)
    captured[place] = 3
    raw = as_raw(aggregate(hours, captured))
    jump = abs(np.log(raw["open"].iloc[place + 1] / raw["close"].iloc[place]))
    usual = np.log(days["high"] / days["low"]).median()
    accused = found(raw, "frozen candle").get("error", set())
    assert accused <= {place + 2}
    little = raw["volume"].iloc[place] < 0.3 * days["volume"].iloc[place]
    day = raw["timestamps"].iloc[[place]].dt.as_unit("ns").astype("int64").to_numpy()
    assert accused or jump < 0.5 * usual or not little or in_outage(day, day + 86_400 * 10**9)[0]


@few
@given(seeds, places, st.integers(5, 60))
def test_rows_pasted_from_another_time_are_found(seed, place, length):
    raw = candles(seed)
    raw["close"] *= np.exp(np.linspace(0, 1.5, len(raw)))  # a trend, so that levels differ
    raw["open"] = raw["close"].shift(1).fillna(raw["open"])
    raw["high"], raw["low"] = raw[["open", "close"]].max(axis=1) * 1.002, raw[["open", "close"]].min(axis=1) * 0.998
    length = min(length, 1950 - place)
    source = 2 + (place + 900) % 1900
    source = min(source, 2000 - length)
    columns = [*PRICES, "volume", "amount"]
    raw.loc[place : place + length - 1, columns] = raw.loc[source : source + length - 1, columns].to_numpy()
    assert set(range(place, place + length)) <= found(raw, "pasted rows")["error"]


def test_a_block_at_another_level_is_found():
    raw = candles()
    raw.loc[700:719, PRICES] *= 1.4
    assert found(raw, "pasted rows")["error"] == set(range(700, 720))


@few
@given(places, st.sampled_from([0.1, 10.0]), st.sampled_from(PRICES))
def test_a_misplaced_decimal_point_is_an_error(place, factor, column):
    raw = candles()
    raw.loc[place, column] *= factor
    assert place in found(raw, "price outlier")["error"]


@few
@given(places)
def test_a_wrong_tick_is_a_warning(place):
    raw = candles()
    raw.loc[place, "high"] *= 1.3
    assert place in found(raw, "price outlier")["warning"]


@few
@given(places)
def test_a_collapse_of_volume_is_a_warning_that_names_outages(place):
    raw = candles()
    raw.loc[place, ["volume", "amount"]] *= 1e-3
    (finding,) = [f for f in examine(raw).findings if f.check == "volume collapse"]
    assert place in finding.lines
    assert finding.severity == "warning"
    assert "may be a real outage" in finding.message


def test_an_outage_day_is_not_called_frozen():
    frame = synthetic_candles(400, "1d", "2017-08-17", 3, 5000.0, 0.8).frame[["timestamps", *FEATURES]]
    raw = as_raw(frame)
    (place,) = raw.index[raw["timestamps"] == "2018-02-08"]
    raw.loc[place, ["volume", "amount"]] *= 0.04
    raw.loc[place + 1, "open"] *= 1.02
    raw.loc[place + 1, "high"] = max(raw.loc[place + 1, ["open", "high"]])
    assert found(raw, "frozen candle") == {}
    (finding,) = [f for f in examine(raw).findings if f.check == "volume collapse"]
    assert finding.details["known_outages"] == 1


def test_stale_volume_and_rows_filled_forward():
    raw = candles()
    raw.loc[400:405, "volume"] = raw.loc[400, "volume"]
    assert found(raw, "stale volume")["warning"] == set(range(400, 406))
    raw = candles()
    raw.loc[600:602, FEATURES] = raw.loc[600, FEATURES].to_numpy()
    assert found(raw, "filled forward")["error"] == {601, 602}


def test_a_candle_that_opens_elsewhere_is_a_warning():
    raw = candles()
    raw.loc[300:, PRICES] *= 1.1
    assert found(raw, "open jump") == {"warning": {300}}


# --- the whole --------------------------------------------------------------------------------------------------


def test_findings_outside_a_range_do_not_count():
    raw = candles()
    raw.loc[500, "close"] = np.nan
    diagnosis = examine(raw)
    stamp = raw.loc[500, "timestamps"]
    assert diagnosis.within(stamp, None).errors
    assert not diagnosis.within(stamp + pd.Timedelta("1h"), None).errors
    assert not diagnosis.within(None, stamp).errors


@pytest.mark.parametrize("count", [2, 3, 10, 40, 200])
def test_short_files_are_examined_too(count):
    assert examine(candles(count=count)).errors == []


def test_files_without_volume_are_examined_too():
    raw = as_raw(candles().drop(columns=["volume", "amount"]))
    raw.loc[700:719, PRICES] *= 1.4
    assert {f.check for f in examine(raw).errors} == {"pasted rows"}


def test_the_plot_marks_every_place():
    raw = candles()
    raw.loc[700:719, PRICES] *= 1.4
    raw = as_raw(raw.drop(index=range(1000, 1010)))
    figure = chart(examine(raw), raw)
    labels = [text.get_text() for text in figure.axes[2].get_yticklabels()]
    assert labels == [f.check for f in examine(raw).findings if len(f.lines)]
    assert len(figure.axes[2].lines[labels.index("pasted rows")].get_xdata()) == 20


def test_the_command_writes_page_and_json_and_ends_with_two_for_errors(tmp_path):
    raw = candles()
    raw.loc[700, "high"] = 1.0
    raw.assign(timestamps=raw["timestamps"].dt.strftime("%Y-%m-%d %H:%M:%S")).to_csv(tmp_path / "mine.csv", index=False)
    result = command("kronos_lightning.data.doctor", "mine.csv", cwd=tmp_path, check=False)
    assert result.returncode == 2, result.stderr
    assert "Verdict: do not train on this: price order" in result.stdout
    folder = tmp_path / "outputs" / "doctor" / "mine"
    findings = json.loads((folder / "doctor.json").read_text())["findings"]
    assert findings[0]["check"] == "price order"
    assert findings[0]["lines"] == [700]
    page = (folder / "doctor.html").read_text()
    assert "data:image/png;base64" in page
    assert loaded(folder) == {}
    assert "Do not train on this" in page
    elsewhere = command(
        "kronos_lightning.data.doctor", "mine.csv", "interval=4h", "calendar=sessions", "output_dir=there",
        cwd=tmp_path, check=False,
    )  # fmt: skip
    assert elsewhere.returncode == 2
    assert "mine.csv: 2,000 candles of 4h" in " ".join(elsewhere.stdout.split())
    assert "no regular interval" not in elsewhere.stdout  # hours are no candles of 4h, but for a market that closes
    assert (tmp_path / "there" / "mine" / "doctor.html").is_file()
    missing = command("kronos_lightning.data.doctor", "nothing.csv", cwd=tmp_path, check=False)
    assert (missing.returncode, missing.stderr) == (1, "error: nothing.csv: no such file\n")


def test_what_cannot_be_read_is_one_clear_error(tmp_path):
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(CandleError, match="no header with a time column"):
        diagnose(tmp_path / "x.csv")


@pytest.mark.parametrize(
    ("stamps", "message"),
    [
        ([1704067200000, 1704070800000], "epoch milliseconds"),
        ([1704067200000, 1704070800000000], "epoch milliseconds and microseconds"),
        (["2024-01-01 00:00:00+08:00", "2024-01-01 01:00:00+08:00"], "texts with the zone +08:00"),
        (["2024-01-01 00:00:00", "2024-01-01 01:00:00"], "read as UTC"),
    ],
)
def test_unit_and_zone_of_the_stamps_are_told(tmp_path, stamps, message):
    pd.DataFrame({"timestamps": stamps} | dict.fromkeys(PRICES, 1.0)).to_csv(tmp_path / "x.csv", index=False)
    assert message in read_raw(tmp_path / "x.csv").attrs["reading"]["stamps"]
