"""Typed schema of each command's configuration, assembled from `sections.py`.

Values and their documentation are in `conf/`; `validation.py` checks a configuration against these classes.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from kronos_lightning.data.formats import LayoutSection
from kronos_lightning.data.settings import DataSection, check_order
from kronos_lightning.data.sources.binance import Endpoints
from kronos_lightning.data.sources.binance.intervals import SYMBOL, Interval
from kronos_lightning.settings import Count, Positive, Section, Share, as_list, parse_interval

from .sections import (
    BacktestSection,
    CalibrationSection,
    EvaluationSection,
    ForecastSection,
    LiveSection,
    ModelSection,
    PathsSection,
    PredictorStage,
    RegularizationSection,
    ScalingSection,
    TokenizerStage,
)

Symbol = Annotated[str, Field(pattern=SYMBOL)]
Node = dict[str, Any]  # node for `hydra.utils.instantiate`, checked against the signature of its `_target_`


class Download(Endpoints):
    """Configuration of python -m kronos_lightning.data.binance."""

    symbol: Symbol | Annotated[list[Symbol], Field(min_length=1)]
    interval: Interval | Annotated[list[Interval], Field(min_length=1)]
    start: str | None
    end: str | None
    csv_dir: str

    @property
    def series(self) -> list[tuple[str, str]]:
        """All pairs of symbol and interval."""
        return [(symbol, interval) for symbol in as_list(self.symbol) for interval in as_list(self.interval)]

    @model_validator(mode="after")
    def _consistent(self) -> "Download":
        check_order(self.start, self.end, "start", "end")
        return self


class Doctor(LayoutSection):
    """Configuration of python -m kronos_lightning.data.doctor."""

    candles: str
    interval: str | None
    calendar: Literal["24x7", "sessions"]
    output_dir: str

    @model_validator(mode="after")
    def _consistent(self) -> "Doctor":
        if self.interval is not None:
            parse_interval(self.interval)
        return self


class Export(Section):
    """Configuration of python -m kronos_lightning.export."""

    run: str
    output_dir: str
    evaluation: str | None
    push: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")] | None
    private: bool


class Common(Section):
    """Sections shared by training and evaluation."""

    data: DataSection
    model: ModelSection
    forecast: ForecastSection
    paths: PathsSection
    seed: Annotated[int, Field(ge=0, lt=2**32)]

    @model_validator(mode="after")
    def _window_fits(self) -> "Common":
        needed = self.data.lookback + self.data.horizon
        if needed > self.model.max_context:
            raise ValueError(
                f"data.lookback {self.data.lookback} + data.horizon {self.data.horizon} = {needed} candles exceed "
                f"model.max_context {self.model.max_context}"
            )
        return self


class Training(Common):
    """Configuration of train.py."""

    stage: Annotated[TokenizerStage | PredictorStage, Field(discriminator="name")]
    regularization: RegularizationSection
    trainer: Node
    callbacks: dict[str, Node]
    logger: dict[str, Node]
    resume: str | None
    init_from: str | None
    compile: bool
    profile: bool
    run_dir: str
    scaling: ScalingSection

    @model_validator(mode="after")
    def _cacheable(self) -> "Training":
        augmentation = self.data.augmentation
        augmented = augmentation is not None and augmentation.active
        if augmented and isinstance(self.stage, PredictorStage) and self.stage.cache_tokens is True:
            raise ValueError("stage.cache_tokens=true: augmented windows differ in every epoch; use auto")
        return self

    @model_validator(mode="after")
    def _one_start(self) -> "Training":
        if self.resume is not None and self.init_from is not None:
            raise ValueError("resume continues a run, init_from starts one: set at most one of them")
        return self


class Evaluation(Common):
    """Configuration of evaluate.py."""

    evaluation: EvaluationSection
    baselines: dict[str, Node]
    calibration: CalibrationSection
    strategy: Node
    backtest: BacktestSection
    trainer: Node
    tokenizer: str
    predictor: str
    compare: list[str]
    seeds: list[str]

    @model_validator(mode="after")
    def _consistent(self) -> "Evaluation":
        if self.seeds and len({*self.seeds, self.predictor, *self.compare}) < len(self.seeds) + 1 + len(self.compare):
            raise ValueError("seeds: list each folder once, without that of predictor and those of compare")
        for name in self.compare:
            members = name.split("+")
            if not all(members) or len(set(members)) < len(members) or self.compare.count(name) > 1:
                raise ValueError(
                    f"compare: {name!r} is empty or repeated; list each entry, and each member of a pool, once"
                )
            if name in self.evaluation.baselines:
                raise ValueError(f"compare: {name!r} is a baseline and competes anyway; pool it as NAME+{name}")
        if self.backtest.parameters == "validation" and not self.calibration.fit:
            raise ValueError("backtest.parameters=validation needs calibration.fit=true, which forecasts that range")
        unknown = [name for name in self.evaluation.baselines if name not in self.baselines]
        if unknown:
            raise ValueError(f"evaluation.baselines: unknown baseline {unknown[0]!r}; use {', '.join(self.baselines)}")
        missing = [name for name in self.evaluation.combine if name not in self.evaluation.baselines]
        if missing:
            raise ValueError(f"evaluation.combine: {missing[0]!r} is none of evaluation.baselines; add it there")
        makes = self.compare or self.seeds or self.evaluation.combine or self.data.fold is not None
        if self.evaluation.forecasts is not None and (makes or self.backtest.parameters == "validation"):
            raise ValueError(
                "evaluation.forecasts: nothing is forecast; leave out compare, seeds, evaluation.combine, data.fold "
                "and backtest.parameters=validation"
            )
        if self.evaluation.combine and not self.calibration.fit:
            raise ValueError("evaluation.combine needs calibration.fit=true, which forecasts the validation range")
        return self


class Forecasting(LayoutSection):
    """Configuration of python -m kronos_lightning.forecast."""

    model: ModelSection
    forecast: ForecastSection
    candles: str
    interval: str | None
    calendar: Literal["24x7", "sessions"] | None
    lookback: Annotated[int, Field(ge=2)] | None
    horizon: Count
    clip: Positive
    touch_down: Share
    touch_up: Positive
    calibrated: bool
    tokenizer: str
    predictor: str
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")]
    seed: Annotated[int, Field(ge=0)]
    output_dir: str

    @model_validator(mode="after")
    def _consistent(self) -> "Forecasting":
        if self.interval is not None:
            parse_interval(self.interval)
        return self


class Serving(Section):
    """Configuration of python -m kronos_lightning.serve."""

    checkpoint: str
    report: str | None
    candles: str | None
    host: Annotated[str, Field(min_length=1)]
    port: Annotated[int, Field(ge=0, le=65535)]
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")]
    threads: Count
    max_batch: Count
    batch_wait: Annotated[float, Field(ge=0, le=1)]
    max_queue: Count
    max_body: Count
    rate_limit: str | None
    trusted_strategy: str | None
    binance: Endpoints | None
    live: LiveSection | None = None


class Following(Section):
    """Configuration of python -m kronos_lightning.live."""

    data: DataSection
    paths: PathsSection
    live: LiveSection
    checkpoint: str | None
    export: str | None
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")]
    threads: Count
    trusted_strategy: str | None
    seed: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _consistent(self) -> "Following":
        if self.export is None and self.checkpoint is None:
            raise ValueError("checkpoint: has no default; set checkpoint=DIR")
        if self.export is None and self.live.clock == "none":
            raise ValueError("live.clock=none: nothing to follow; use exchange or replay")
        return self
