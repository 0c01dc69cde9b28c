"""Splits that overlap, and networks that know the test range, are caught."""

import numpy as np
import pandas as pd

from kronos_lightning.evaluation.leakcheck.splits import check_record, check_splits
from tests.helpers.candles import utc
from tests.helpers.leaks import CANDLES

STAMPS = CANDLES.frame["timestamps"]


def split(begin, end, context=10):
    """Candles of windows whose targets are [begin, end)."""
    rows = np.arange(begin - context, end)
    return pd.DataFrame({"timestamps": STAMPS.iloc[rows].array, "target": rows >= begin})


def split_verdicts(train, val, test, embargo):
    files = dict(zip(("train", "val", "test"), (split(*train), split(*val), split(*test)), strict=True))
    return [finding.verdict for finding in check_splits(files, STAMPS, embargo)]


def test_splits_must_not_overlap_and_keep_the_embargo():
    assert split_verdicts((10, 100), (100, 200), (200, 300), 0) == ["proved", "proved"]
    assert split_verdicts((10, 100), (104, 200), (204, 300), 4) == ["proved", "proved"]
    assert split_verdicts((10, 100), (104, 200), (203, 300), 4) == ["leak", "proved"]
    assert split_verdicts((10, 101), (100, 200), (200, 300), 0) == ["leak", "leak"]
    assert split_verdicts((10, 100), (200, 300), (100, 200), 0) == ["leak", "leak"]


def test_windows_that_hold_candles_a_later_split_forecasts_are_caught():
    files = {"train": split(10, 100), "val": split(100, 200), "test": split(200, 300)}
    files["val"] = pd.concat([files["val"], split(200, 201, context=0).assign(target=False)])
    targets, windows = check_splits(files, STAMPS, 0)
    assert (targets.verdict, windows.verdict) == ("proved", "leak")
    assert "val windows hold candles up to 2023-01-09 08:00" in windows.detail


def test_a_network_that_knows_the_test_is_caught_and_a_silent_one_is_not_proved():
    assert check_record("predictor", utc("2023-02-11"), utc("2023-02-11")).verdict == "proved"
    assert check_record("predictor", utc("2023-02-11"), utc("2023-02-10 23:00")).verdict == "leak"
    assert check_record("predictor", None, utc("2023-02-11")).verdict == "unproved"
