"""Checks that the splits, and the training data of a checkpoint, end before the first forecast candle of the test."""

from collections.abc import Mapping
from itertools import combinations, pairwise

import pandas as pd

from kronos_lightning.data.datamodule import SPLITS

from .proof import ProofResult, Verdict


def check_splits(files: Mapping[str, pd.DataFrame], stamps: pd.Series, embargo: int) -> list[ProofResult]:
    """Check the order of the splits as they were written.

    Args:
        files: by split, the candles of its windows with columns `timestamps` and `target`.
        stamps: open times of all candles.
        embargo: candles between two splits that no split may forecast.
    """
    targets = {split: files[split].loc[files[split]["target"], "timestamps"] for split in SPLITS}
    problems, count = [], sum(map(len, targets.values()))
    for earlier, later in combinations(SPLITS, 2):
        if (first := targets[later].min()) <= (last := targets[earlier].max()):
            problems.append(f"{later} forecasts {first}, {earlier} up to {last}")
    for earlier, later in pairwise(SPLITS):
        between = stamps.searchsorted(targets[later].min()) - stamps.searchsorted(targets[earlier].max()) - 1
        if 0 <= between < embargo:
            problems.append(
                f"{between} candle(s) between the targets of {earlier} and {later}, the embargo is {embargo}"
            )
    apart = f"disjoint and in order, at least {embargo} candle(s) apart"
    what = "targets of train, validation and test"
    found = [_finding("split targets", what, count, "; ".join(problems), apart)]

    problems, count = [], sum(len(files[split]) for split in SPLITS[:-1])
    for earlier, later in combinations(SPLITS, 2):
        if (last := files[earlier]["timestamps"].max()) >= (first := targets[later].min()):
            problems.append(f"{earlier} windows hold candles up to {last}, {later} forecasts from {first} on")
    what = "candles of the train and validation windows, contexts and targets"
    return [*found, _finding("split windows", what, count, "; ".join(problems), "all before the next split's targets")]


def check_record(name: str, seen: pd.Timestamp | None, first: pd.Timestamp) -> ProofResult:
    """Check that a network's training and validation ranges end before the first forecast candle.

    Args:
        name: tokenizer or predictor.
        seen: end of all candles that it and its ancestors were trained or selected on; None = its checkpoint does not
            record them.
        first: open time of the first forecast candle.
    """
    what = "ranges of training and validation, as recorded in its checkpoint"
    if seen is None:
        why = "the checkpoint does not record its training data"
        return ProofResult.unproved(f"{name}'s record", what, why)
    problem = f"it was trained on candles up to {seen}, the test range begins at {first}" if first < seen else ""
    return _finding(f"{name}'s record", what, 2, problem, f"ends by {seen}, before {first}")


def _finding(name: str, what: str, values: int, problem: str, proved: str) -> ProofResult:
    verdict: Verdict = "leak" if problem else "proved"
    return ProofResult(name=name, what=what, cutoffs=0, values=values, verdict=verdict, detail=problem or proved)
