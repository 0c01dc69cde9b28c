"""The typed schema of each command's configuration, put together from `sections.py`.

Values and their documentation stand in `conf/`; `config.py` checks a configuration against this.
"""

from typing import Annotated, Any

from pydantic import Field, model_validator

from .data.candles import as_list, parse_interval
from .sections import (
    BacktestSection,
    BinanceSection,
    CalibrationSection,
    Count,
    DataSection,
    EvaluationSection,
    ForecastSection,
    Interval,
    ModelSection,
    PathsSection,
    Positive,
    PredictorStage,
    RegularizationSection,
    ScalingSection,
    Section,
    Share,
    Symbol,
    TokenizerStage,
    check_order,
)


class Download(BinanceSection):
    """The whole configuration of python -m kronos_lightning.data.binance."""

    symbol: Symbol | Annotated[list[Symbol], Field(min_length=1)]
    interval: Interval | Annotated[list[Interval], Field(min_length=1)]
    start: str | None
    end: str | None
    csv_dir: str

    @property
    def series(self) -> list[tuple[str, str]]:
        """Every symbol with every interval."""
        return [(symbol, interval) for symbol in as_list(self.symbol) for interval in as_list(self.interval)]

    @property
    def endpoints(self) -> dict[str, Any]:
        """What says where candles come from, and how to ask."""
        return self.model_dump(include=set(BinanceSection.model_fields))

    @model_validator(mode="after")
    def _consistent(self) -> "Download":
        check_order(self.start, self.end, "start", "end")
        return self


class Doctor(Section):
    """The whole configuration of python -m kronos_lightning.data.doctor."""

    candles: str
    interval: str | None
    sessions: bool
    output_dir: str

    @model_validator(mode="after")
    def _consistent(self) -> "Doctor":
        if self.interval is not None:
            parse_interval(self.interval)
        return self


class Export(Section):
    """The whole configuration of python -m kronos_lightning.export."""

    run: str
    output_dir: str
    evaluation: str | None
    push: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")] | None
    private: bool


class Common(Section):
    """What training and evaluation share."""

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
                f"data.lookback {self.data.lookback} + data.horizon {self.data.horizon} = {needed} candles are longer "
                f"than model.max_context {self.model.max_context}"
            )
        return self


class Training(Common):
    """The whole configuration of train.py."""

    stage: Annotated[TokenizerStage | PredictorStage, Field(discriminator="name")]
    regularization: RegularizationSection
    trainer: dict[str, Any]
    callbacks: dict[str, dict[str, Any]]
    logger: dict[str, dict[str, Any]]
    resume: str | None
    init_from: str | None
    compile: bool
    profile: bool
    run_dir: str
    scaling: ScalingSection

    @model_validator(mode="after")
    def _cacheable(self) -> "Training":
        augmentation = self.data.augmentation
        augmented = augmentation is not None and any(augmentation.model_dump().values())
        if augmented and isinstance(self.stage, PredictorStage) and self.stage.cache_tokens is True:
            raise ValueError("stage.cache_tokens=true: augmented windows differ in every epoch; auto leaves them out")
        return self

    @model_validator(mode="after")
    def _one_start(self) -> "Training":
        if self.resume is not None and self.init_from is not None:
            raise ValueError("resume continues a run, init_from starts one: set at most one of them")
        return self


class Evaluation(Common):
    """The whole configuration of evaluate.py."""

    evaluation: EvaluationSection
    calibration: CalibrationSection
    backtest: BacktestSection
    trainer: dict[str, Any]
    tokenizer: str
    predictor: str
    compare: list[str]

    @model_validator(mode="after")
    def _consistent(self) -> "Evaluation":
        for name in self.compare:
            members = name.split("+")
            if not all(members) or len(set(members)) < len(members) or self.compare.count(name) > 1:
                raise ValueError(f"compare names {name!r}: each once, and each member of a pool once")
        if self.backtest.thresholds == "validation" and not self.calibration.fit:
            raise ValueError("backtest.thresholds=validation needs calibration.fit=true, which forecasts that range")
        return self


class Forecasting(Section):
    """The whole configuration of python -m kronos_lightning.forecast."""

    model: ModelSection
    forecast: ForecastSection
    candles: str
    interval: str | None
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
