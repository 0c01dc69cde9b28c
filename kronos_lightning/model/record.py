"""Content of `training.json`: the training that a checkpoint comes from."""

import re
from typing import Annotated, Any, Literal

from pydantic import Field

from kronos_lightning.settings.stored import Date, Stored

Dates = Annotated[list[Date], Field(min_length=2, max_length=2)]


class TrainedSettings(Stored):
    """Settings of a training that its checkpoints are used with."""

    model: str = ""
    lookback: Annotated[int, Field(ge=2)] = 2
    horizon: Annotated[int, Field(ge=1)] = 1
    volume: bool = True


class TrainedRanges(Stored):
    """First and last day of each split."""

    train: Dates
    val: Dates


class TrainedData(Stored):
    """Identity of the candles of a training."""

    fingerprints: dict[str, str]
    ranges: TrainedRanges
    embargo: Annotated[int, Field(ge=0)] = 0


class TrainingRecord(Stored):
    """Metadata of a training. Earlier versions wrote no `settings`, no `initial_record` and no `random`.

    initial_weights: a sentence that names the weights before the training.
    random: these weights were drawn at random.
    initial_record: metadata of the training that they come from.
    """

    stage: Literal["tokenizer", "predictor"] | None = None
    initial_weights: str
    random: bool = False
    initial_record: "TrainingRecord | None" = None
    synthetic: bool
    data: TrainedData
    settings: TrainedSettings = Field(default_factory=TrainedSettings)


def started_at_random(record: dict[str, Any]) -> bool:
    """Return True if a training and all those before it started from random weights; unknown counts as False."""
    before = record.get("initial_record")
    if before is not None:
        return started_at_random(before)
    if "random" in record:
        return bool(record["random"])
    return re.fullmatch(r"random \([\w-]+ size\)", record["initial_weights"]) is not None  # of earlier versions
