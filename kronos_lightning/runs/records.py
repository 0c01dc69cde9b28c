"""Content of a run's `run_info.json` and `config.json`."""

from typing import Any, Literal

from pydantic import Field, model_validator

from kronos_lightning.model.record import TrainingRecord
from kronos_lightning.settings import Stored
from kronos_lightning.settings.stored import IntervalName


class RunInfo(TrainingRecord):
    """Metadata of a run; those of the training, and how it went."""

    stage: Literal["tokenizer", "predictor"]
    status: Literal["running", "finished"]
    started: str
    model: str = ""
    versions: dict[str, str] = Field(default_factory=dict)
    metrics: dict[str, float] = Field(default_factory=dict)
    seconds: float = 0.0
    tokenizer: str = ""
    tokenizer_record: TrainingRecord | None = None

    @model_validator(mode="after")
    def _complete(self) -> "RunInfo":
        if self.status == "finished" and not {"metrics", "seconds"} <= self.model_fields_set:
            raise ValueError("a finished run has metrics and seconds")
        return self


class RunData(Stored):
    """Data section of a run, as far as it is used after the run."""

    name: str
    fold: int | Literal["all"] | None
    interval: IntervalName
    lookback: int
    horizon: int


class RunModel(Stored):
    """Model section of a run, as far as it is used after the run."""

    max_context: int


class RunPaths(Stored):
    """Folders of a run, as far as they are used after the run."""

    results: str


class RunConfig(Stored):
    """Configuration of a run, as stored in `config.json`."""

    data: RunData
    model: RunModel
    paths: RunPaths
    stage: dict[str, Any] = Field(default_factory=dict)
