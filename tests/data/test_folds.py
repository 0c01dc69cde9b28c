"""Walk-forward folds and the embargo: which candles each split of each fold may forecast."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kronos_lightning.data import CandleError
from kronos_lightning.data.candles import in_range
from kronos_lightning.data.folds import fold_label, fold_ranges
from kronos_lightning.settings import as_utc
from tests.helpers.candles import utc
from tests.helpers.data import SETTINGS, data_module, target_stamps

FOLDS = {"folds": 3, "lookback": 12, "horizon": 3}


@st.composite
def periods(draw):
    """Candles of a length, with ranges of train, val and test that may overlap or leave candles out."""
    step = pd.Timedelta(draw(st.sampled_from(["1min", "5min", "1h", "4h", "1D", "3D"])))
    first = utc("2023-03-05") + draw(st.integers(0, 30)) * step
    ends = sorted(draw(st.lists(st.integers(0, 300), min_size=3, max_size=3, unique=True)))
    begins = [0, *(draw(st.integers(0, end)) for end in ends[1:])]
    exact = [[str((first + k * step).tz_localize(None)) for k in pair] for pair in zip(begins, ends, strict=True)]
    dates = [[text[:10] for text in pair] for pair in exact]
    stamps = pd.Series(pd.date_range(first - 3200 * step, periods=6500, freq=step))
    return draw(st.sampled_from([exact, dates])), stamps, step


def masks(ranges, stamps):
    return {split: in_range(stamps, *dates) for split, dates in ranges.items()}


@settings(deadline=None)
@given(periods(), st.integers(1, 7), st.sampled_from(["expanding", "sliding"]))
def test_folds_test_every_candle_after_the_first_piece_once_and_validate_on_the_piece_before(period, folds, scheme):
    (train, val, test), stamps, step = period
    found = [masks(fold_ranges(train, val, test, k, folds, scheme, step), stamps) for k in range(folds)]
    evaluated = in_range(stamps, val[0], test[1])
    assert (sum(fold["test"].astype(int) for fold in found) + found[0]["val"] == evaluated).all()
    for before, after in itertools.pairwise(found):
        np.testing.assert_array_equal(before["test"], after["val"])
    sizes = [found[0]["val"].sum(), *(fold["test"].sum() for fold in found)]
    assert max(sizes) - min(sizes) <= 1


@settings(deadline=None)
@given(periods(), st.integers(1, 7), st.sampled_from(["expanding", "sliding"]))
def test_a_fold_trains_on_what_comes_before_its_validation_and_on_nothing_else(period, folds, scheme):
    (train, val, test), stamps, step = period
    for k in range(folds):
        ranges = fold_ranges(train, val, test, k, folds, scheme, step)
        found = masks(ranges, stamps)
        before = (stamps < as_utc(ranges["val"][0])).to_numpy()
        if scheme == "expanding":
            np.testing.assert_array_equal(found["train"], before & in_range(stamps, train[0], None))
        else:
            length = in_range(stamps, *train).sum()
            np.testing.assert_array_equal(np.flatnonzero(found["train"]), np.flatnonzero(before)[-length:])


def test_the_dates_of_a_fold_can_be_read():
    ranges = [["2021-01-01", "2023-12-31"], ["2023-09-01", "2024-06-30"], ["2024-04-01", "2024-12-31"]]
    step = pd.Timedelta(days=1)
    # 1 September to 31 December of the next year are 488 days: the first pieces of 162, 163 and 163
    assert fold_ranges(*ranges, 0, 2, "expanding", step) == {
        "train": ["2021-01-01", "2023-08-31"],
        "val": ["2023-09-01", "2024-02-09"],
        "test": ["2024-02-10", "2024-07-21"],
    }
    assert fold_ranges(*ranges, 1, 2, "sliding", step) == {
        "train": ["2021-02-10", "2024-02-09"],  # 1095 days, as from 2021-01-01 to 2023-12-31
        "val": ["2024-02-10", "2024-07-21"],
        "test": ["2024-07-22", "2024-12-31"],
    }
    until_midnight = fold_ranges(*ranges[:2], ["2024-04-01", "2024-12-31 00:00"], 1, 2, "expanding", step)
    assert until_midnight["test"] == ["2024-07-22", "2024-12-31 00:00:00"]  # no whole day
    assert fold_label("btc", 1) == "btc_fold1"
    assert fold_label("btc", None) == "btc"


@pytest.fixture
def make(tmp_path):
    def prepared(**changes):
        module = data_module(**{"processed_dir": str(tmp_path)} | changes)
        module.prepare_data()
        module.setup()
        return module

    return prepared


@pytest.mark.parametrize("scheme", ["expanding", "sliding"])
def test_no_training_window_of_a_fold_touches_what_it_validates_or_tests_on(make, scheme):
    for fold in range(3):
        module = make(**FOLDS, fold=fold, fold_scheme=scheme, embargo=3)
        later = target_stamps(module, "val") | target_stamps(module, "test")
        frame, windows = pd.read_parquet(module.path("train")), module.windows["train"]
        last_row = int(windows.starts.max()) + FOLDS["lookback"] + module.target_rows - 1
        assert frame["timestamps"].iloc[last_row] + 4 * pd.Timedelta("1h") == min(later)


@given(embargo=st.integers(0, 30), gap_at=st.integers(1, 500), missing=st.integers(0, 40))
@settings(deadline=None)
def test_the_embargo_takes_the_first_candles_after_each_earlier_range(embargo, gap_at, missing):
    stamps = pd.Series(pd.date_range("2023-01-01", periods=600, freq="h", tz="UTC"))
    stamps = stamps.drop(index=range(gap_at, gap_at + missing)).reset_index(drop=True)
    plain, apart = (data_module(embargo=n) for n in (0, embargo))
    before, after = plain.target_masks(stamps), apart.target_masks(stamps)
    np.testing.assert_array_equal(after["train"], before["train"])
    for earlier, later in (("train", "val"), ("val", "test")):
        end = np.searchsorted(stamps, utc(SETTINGS[f"{earlier}_time_range"][1]) + pd.Timedelta(days=1))
        assert not after[later][: end + embargo].any()
        np.testing.assert_array_equal(after[later][end + embargo :], before[later][end + embargo :])


def test_an_embargo_that_leaves_nothing_to_forecast_stops(make):
    with pytest.raises(CandleError, match=r"no val window: fold 1 of 3 .* and embargo 500 finds none"):
        make(**FOLDS, fold=1, embargo=500)


def test_folds_have_files_of_their_own_and_tell_their_ranges(make):
    first, second = make(**FOLDS, fold=0), make(**FOLDS, fold=1)
    assert first.path("train").name == "test_fold0_train_data.parquet"
    assert first.path("train").is_file()
    assert first.manifest()["settings"]["test_time_range"] == second.manifest()["settings"]["val_time_range"]
    assert second.ranges == {split: second.manifest()["settings"][f"{split}_time_range"] for split in second.ranges}
    assert make(**FOLDS, fold=0, embargo=2).files.folder != first.files.folder
