"""Markets that close: sessions are noticed, and the next candles open when the market does."""

import pandas as pd
import pytest

from kronos_lightning.data.sessions import describe_sessions, next_opens

DAY, HOUR = pd.Timedelta(days=1), pd.Timedelta(hours=1)
BUSINESS_DAYS = pd.bdate_range("2024-01-01", "2024-03-01", tz="UTC")  # Friday


def intraday(zone="UTC", first="10:00", last="15:00", begin="2024-01-01", end="2024-03-01"):
    days = pd.bdate_range(begin, end, tz=zone)
    return pd.DatetimeIndex(
        [t for d in days for t in pd.date_range(f"{d:%Y-%m-%d} {first}", f"{d:%Y-%m-%d} {last}", freq="h", tz=zone)]
    )


def test_no_stock_trades_on_saturday():
    assert [f"{t:%a %d}" for t in next_opens(BUSINESS_DAYS, 6, DAY)] == [
        "Mon 04",
        "Tue 05",
        "Wed 06",
        "Thu 07",
        "Fri 08",
        "Mon 11",
    ]


def test_a_holiday_in_the_last_weeks_closes_no_other_week():
    without = BUSINESS_DAYS.drop(pd.Timestamp("2024-02-26", tz="UTC"))  # a Monday
    assert next_opens(without, 3, DAY).equals(next_opens(BUSINESS_DAYS, 3, DAY))


def test_a_day_of_the_session_ends_and_the_next_one_begins():
    stamps = intraday()
    assert [f"{t:%a %H}" for t in next_opens(stamps[:-1], 3, HOUR)] == ["Fri 15", "Mon 10", "Mon 11"]


def test_half_a_day_does_not_shorten_the_others():
    stamps = intraday()
    short = stamps.drop([t for t in stamps if f"{t:%d %b}" == "23 Feb" and t.hour > 12])
    assert next_opens(short, 12, HOUR).equals(next_opens(stamps, 12, HOUR))


def test_the_market_time_zone_keeps_its_hours_when_the_clock_changes():
    stamps = intraday("America/New_York", end="2024-03-08")  # the Friday before the change
    assert [f"{t:%a %H:%M}" for t in next_opens(stamps, 2, HOUR)] == ["Mon 10:00", "Mon 11:00"]
    assert next_opens(stamps, 1, HOUR)[0] - stamps[-1] == pd.Timedelta(days=3) - 6 * HOUR


def test_candles_of_weeks_follow_each_other():
    weeks = pd.date_range("2024-01-01", periods=20, freq="7D", tz="UTC")
    assert (next_opens(weeks, 2, 7 * DAY) - weeks[-1]).tolist() == [7 * DAY, 14 * DAY]


@pytest.mark.parametrize(
    ("stamps", "step", "message"),
    [
        (BUSINESS_DAYS.append(BUSINESS_DAYS + 63 * DAY), DAY, "no candle on weekends"),
        (intraday(), HOUR, "no candle on weekends"),
        (pd.date_range("2024-01-01", periods=90, freq="D", tz="UTC"), DAY, ""),
        (pd.date_range("2024-01-01", periods=900, freq="h", tz="UTC"), HOUR, ""),
        (BUSINESS_DAYS[:30], DAY, ""),
    ],
)
def test_sessions_are_described(stamps, step, message):
    assert describe_sessions(stamps, step) == message
