"""Intervals and ranges on the time axis."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from kronos_lightning.data.sources.binance.intervals import (
    BINANCE_INTERVALS,
    closed_before,
    floor,
    grid,
    months,
    to_ms,
    union,
    without,
)


@given(st.sampled_from(BINANCE_INTERVALS), st.integers(1_500_000_000_000, 1_900_000_000_000))
def test_a_floor_is_a_possible_open_time_at_or_before(interval, time):
    assert floor(interval, time) <= time
    assert floor(interval, floor(interval, time)) == floor(interval, time)
    if interval not in ("1M", "3d"):
        assert time - floor(interval, time) < grid(interval)
        assert closed_before(interval, time) == floor(interval, time)


def test_weeks_begin_on_mondays_and_months_on_the_first():
    now = to_ms("2024-05-16 13:00")
    assert floor("1w", now) == to_ms("2024-05-13")
    assert floor("1M", now) == to_ms("2024-05-01")
    assert closed_before("3d", now) == to_ms("2024-05-14")  # one that opened on the 14th may still run
    assert months((to_ms("2023-12-31 23:00"), to_ms("2024-02-01"))) == [
        (to_ms("2023-12-01"), to_ms("2024-01-01")),
        (to_ms("2024-01-01"), to_ms("2024-02-01")),
    ]


ranges = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=6)


@given(ranges, st.tuples(st.integers(0, 30), st.integers(0, 30)))
def test_what_is_missing_and_what_is_known_share_out_the_time(known, span):
    def points(spans):
        return {t for begin, end in spans for t in range(begin, end)}

    assert points(without(span, known)) == points([span]) - points(known)
    assert points(union(known)) == points(known)
    merged = union(known)
    assert all(a[1] < b[0] for a, b in itertools.pairwise(merged))
