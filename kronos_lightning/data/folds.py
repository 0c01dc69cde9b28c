"""Walk-forward folds: the dates of a fold's splits, written as in `conf/data`."""

from typing import Literal

import pandas as pd

from kronos_lightning.settings import as_utc, end_of


def fold_ranges(
    train: list[str],
    val: list[str],
    test: list[str],
    fold: int,
    folds: int,
    scheme: Literal["expanding", "sliding"],
    step: pd.Timedelta,
) -> dict[str, list[str]]:
    """Return the ranges of train, validation and test in one fold of a walk-forward split.

    The candles from the start of `val` to the end of `test` are cut into folds + 1 pieces, equal to within a candle.
    Fold k validates on piece k, tests on piece k + 1 and trains on the candles before piece k. Together the folds test
    every candle except those of piece 0 exactly once.

    Args:
        train, val, test: the configured ranges; both dates are included, see `in_range`.
        fold: number of the fold, from 0 to folds − 1.
        folds: number of folds.
        scheme: "expanding" trains from the start of `train`; "sliding" trains on as many candles as `train` has.
        step: length of a candle.

    Returns:
        First and last date of each split, both included.
    """
    first, end = as_utc(val[0]), end_of(test[1])
    candles = _candles(first, end, step)
    validated, tested, over = (first + (fold + i) * candles // (folds + 1) * step for i in range(3))
    trained = train[0]
    if scheme == "sliding":
        trained = _text(validated - _candles(as_utc(train[0]), end_of(train[1]), step) * step)
    return {
        "train": [trained, _last_before(validated)],
        "val": [_text(validated), _last_before(tested)],
        "test": [_text(tested), _last_before(min(over, end))],
    }


def fold_label(name: str, fold: int | Literal["all"] | None) -> str:
    """Return the label in file names of a data set, of one of its folds, or of all folds together."""
    if fold is None:
        return name
    return f"{name}_folds" if fold == "all" else f"{name}_fold{fold}"


def _candles(begin: pd.Timestamp, end: pd.Timestamp, step: pd.Timedelta) -> int:
    """Count the candles that open in [begin, end), of which the first opens at `begin`."""
    return -((begin - end) // step)


def _text(instant: pd.Timestamp) -> str:
    return str(instant.tz_localize(None)).removesuffix(" 00:00:00")


def _last_before(instant: pd.Timestamp) -> str:
    """Return the end of a range that reaches up to an instant but excludes it; the inverse of `end_of`."""
    if instant == instant.normalize():
        return _text(instant - pd.Timedelta(days=1))  # a bare date means the whole day
    return str(instant.tz_localize(None) - pd.Timedelta(1, "ns"))
