"""Content of the files that a model card quotes."""

from typing import Any

from pydantic import Field, model_validator

from kronos_lightning.model.record import TrainedData
from kronos_lightning.runs.records import RunConfig, RunInfo
from kronos_lightning.settings import Stored

__all__ = ["ExportedRun", "Measured", "RunConfig"]


class ExportedWindows(Stored):
    """Windows of a split."""

    windows: int


class ExportedData(TrainedData):
    """Data of a run, as the card describes them."""

    candles: int
    dropped: int
    windows: dict[str, ExportedWindows]

    @model_validator(mode="after")
    def _of_the_same_splits(self) -> "ExportedData":
        if missing := {"train", "val", *(self.ranges.model_extra or {})} - self.windows.keys():
            raise ValueError(f"no windows of {min(missing)}")
        return self


class ExportedRun(RunInfo):
    """Finished run with all that the card tells of it."""

    model: str
    versions: dict[str, str]
    data: ExportedData


class Measured(Stored):
    """Content of `metrics.json`, as far as the card quotes it."""

    verdict: list[str]
    notices: list[str]
    weights: list[dict[str, str | None]] = Field(default_factory=list)
    cutoffs: int
    horizon: int
    num_paths: int
    best_baseline: str
    figures: dict[str, dict[str, float | None]]
    calibration: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _quotes_two(self) -> "Measured":
        if missing := {"model", self.best_baseline} - self.figures.keys():
            raise ValueError(f"figures: none of {min(missing)}")
        return self
