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
    """The ranges of train, validation and test in one fold of a walk forward.

    The candles from the begin of `val` to the end of `test` are cut into folds + 1 pieces, equal to within a candle.
    Fold k validates on piece k, tests on piece k + 1 and trains on what comes before piece k. All folds together test
    on everything but piece 0, each candle once.

    Args:
        train, val, test: the configured ranges; both dates are included, see `in_range`.
        fold: which, from 0 to folds − 1.
        folds: how many.
        scheme: "expanding" trains from the begin of `train` on; "sliding" on as many candles as `train` is long.
        step: length of a candle.
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
    """What names the files of a data set, of one fold of it, or of all folds together."""
    if fold is None:
        return name
    return f"{name}_folds" if fold == "all" else f"{name}_fold{fold}"


def _candles(begin: pd.Timestamp, end: pd.Timestamp, step: pd.Timedelta) -> int:
    """How many candles open in [begin, end), the first one at `begin`."""
    return -((begin - end) // step)


def _text(instant: pd.Timestamp) -> str:
    return str(instant.tz_localize(None)).removesuffix(" 00:00:00")


def _last_before(instant: pd.Timestamp) -> str:
    """The end of a range that reaches up to an instant, without it: inverse of `end_of`."""
    if instant == instant.normalize():
        return _text(instant - pd.Timedelta(days=1))  # a bare date is that whole day
    return str(instant.tz_localize(None) - pd.Timedelta(1, "ns"))
