"""Content of a run's `run_info.json` and `config.json`."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from kronos_lightning.model.record import TrainingRecord
from kronos_lightning.settings import Stored
from kronos_lightning.settings.stored import IntervalName, Metric


class RunState(Stored):
    """State of a run: whether it has finished, with which metrics, and what it took; see `training.cost`."""

    status: Literal["running", "finished"]
    started: str
    metrics: dict[str, Metric] = Field(default_factory=dict)
    seconds: float = 0.0
    device: str = ""
    processes: Annotated[int, Field(ge=0)] = 0
    tokens: Annotated[int, Field(ge=0)] = 0
    peak_memory: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _complete(self) -> "RunState":
        if self.status == "finished" and not {"metrics", "seconds"} <= self.model_fields_set:
            raise ValueError("a finished run has metrics and seconds")
        return self


class RunInfo(RunState, TrainingRecord):
    """Content of `run_info.json`: metadata of the training and its state."""

    stage: Literal["tokenizer", "predictor"]
    model: str = ""
    versions: dict[str, str] = Field(default_factory=dict)
    tokenizer: str = ""
    tokenizer_record: TrainingRecord | None = None


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
