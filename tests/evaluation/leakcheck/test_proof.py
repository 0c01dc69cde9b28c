"""The machine of the leak certificate: how it changes later candles, compares, and tells what it found."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kronos_lightning.data.candles import validate
from kronos_lightning.data.formats import FEATURES
from kronos_lightning.evaluation.leakcheck import Subject, prove
from kronos_lightning.evaluation.leakcheck.proof import ALL, FUTURES, InconclusiveProof, compare, mutate
from tests.helpers.candles import utc
from tests.helpers.leaks import CANDLES, CUTOFFS, feature


def test_a_finding_tells_where_it_first_differed():
    late = feature(lambda close: close.shift(-1))
    honest, leaking = prove(
        [Subject(name="a", what="", function=feature(lambda close: close)), Subject(name="b", what="", function=late)],
        CANDLES,
        CUTOFFS,
        1,
    )
    assert (honest.detail, honest.first, honest.cutoffs, honest.values) == ("bit-identical", None, 3, 9)
    assert (leaking.first.cutoff, leaking.first.index) == (utc("2023-01-13 12:00"), (0,))
    assert float(leaking.first.original) == CANDLES.frame["close"][301]
    assert f"feature[0] at 2023-01-13 12:00 was {leaking.first.original} and became" in leaking.detail


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda candles, row: {"x": np.zeros(3)}, "it did not change even when all candles changed"),
        (lambda candles, row: {"x": np.empty(0)}, "there was nothing to compare"),
        (lambda candles, row: {}, "there was nothing to compare"),
    ],
)
def test_what_cannot_change_is_not_proved(function, reason):
    (finding,) = prove([Subject(name="x", what="", function=function)], CANDLES, CUTOFFS, 1)
    assert (finding.verdict, finding.detail) == ("unproved", reason)


def test_where_no_candle_comes_after_the_cutoff_the_proof_is_void():
    with pytest.raises(InconclusiveProof, match="row 599 of 600"):
        prove([Subject(name="x", what="", function=feature(lambda close: close))], CANDLES, [599], 1)


@settings(max_examples=30, deadline=None)
@given(st.integers(ALL, 598), st.sampled_from(FUTURES), st.integers(0, 5), st.booleans())
def test_a_mutation_changes_every_number_after_the_row_and_none_up_to_it(row, future, seed, keep_open):
    copy = mutate(CANDLES, row, future, seed, keep_open)
    before, after = (candles.frame[FEATURES].to_numpy() for candles in (CANDLES, copy))
    np.testing.assert_array_equal(after[: row + 1], before[: row + 1])
    same = after[row + 1 :] == before[row + 1 :]
    assert same.sum() == keep_open
    assert same[0, FEATURES.index("open")] == keep_open
    pd.testing.assert_frame_equal(copy.frame[["timestamps", "segment"]], CANDLES.frame[["timestamps", "segment"]])
    validate(copy.frame.drop(columns="segment"), Path("made.csv"), "1h", "X", False)
    assert len({mutate(CANDLES, row, future, seed, keep_open).fingerprint, copy.fingerprint}) == 1


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (np.array([0.0]), np.array([-0.0])),
        (np.array([1.0]), np.array([1.0 + 2**-52])),
        (np.array([1], np.int32), np.array([1], np.int64)),
        (np.array([[1, 2]]), np.array([1, 2])),
        (np.array([np.datetime64("2024-01-01", "ns")]), np.array([np.datetime64("2024-01-01T00:00:00.000000001")])),
    ],
)
def test_comparison_is_by_bits_kind_and_shape(a, b):
    assert compare({"x": a}, {"x": a.copy()}) is None
    assert compare({"x": a}, {"x": b})[0] == "x"
    assert compare({"x": np.array([np.nan, 1.0])}, {"x": np.array([np.nan, 1.0])}) is None
    assert compare({}, {"x": a}) == ("x", (), "missing", "there")
    assert compare({"x": np.arange(6).reshape(2, 3)}, {"x": np.array([[0, 1, 2], [3, 9, 5]])})[1:] == ((1, 1), "4", "9")
