"""The typed schema of the configuration, and the checks that need more than one field.

Values and their documentation stand in `conf/`; here are only types, bounds and cross-checks. `check_training` and
`check_evaluation` stop within seconds, naming the key.
"""

import inspect
from typing import Annotated, Any, Literal, get_type_hints

import pandas as pd
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from .data.candles import as_utc, end_of, parse_interval

Probability = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(gt=0)]
Range = Annotated[list[str], Field(min_length=2, max_length=2)]
FIGURES = {"val/loss", "val/direction_accuracy"}  # what callbacks may monitor in both stages


class ConfigError(ValueError):
    """The configuration cannot be right; the message names the keys."""


class Section(BaseModel):
    """A part of the configuration: no unknown keys, no silent conversions."""

    model_config = ConfigDict(extra="forbid", strict=True, populate_by_name=True)


class DataSection(Section):
    target: Literal["kronos_lightning.data.CandleDataModule"] = Field(alias="_target_")
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]
    symbol: str
    interval: str
    csv_path: str | None
    sample: "SampleSection | None"
    sessions: bool
    dataset_begin_time: str | None
    dataset_end_time: str | None
    train_time_range: Range
    val_time_range: Range
    test_time_range: Range
    lookback: Annotated[int, Field(ge=2)]
    horizon: Count
    clip: Positive
    batch_size: Count
    samples_per_epoch: Count | None
    num_workers: Annotated[int, Field(ge=0)]
    processed_dir: str
    seed: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _consistent(self) -> "DataSection":
        parse_interval(self.interval)
        if self.csv_path is None and self.sample is None:
            raise ValueError("one of csv_path and sample must be set")
        ends: list[pd.Timestamp] = []
        for name in ("train", "val", "test"):
            begin, end = (_date(text, f"{name}_time_range") for text in getattr(self, f"{name}_time_range"))
            if end < begin:
                raise ValueError(f"{name}_time_range ends before it begins")
            if ends and end <= ends[-1]:
                raise ValueError(f"{name}_time_range must end after that of the split before it (train, val, test)")
            ends.append(end)
        begin, end = self.dataset_begin_time, self.dataset_end_time
        if begin and end and _date(end, "dataset_end_time") < _date(begin, "dataset_begin_time"):
            raise ValueError("dataset_end_time is before dataset_begin_time")
        return self


class SampleSection(Section):
    candles: Count
    start: str
    seed: Annotated[int, Field(ge=0)]
    start_price: Positive
    volatility: Positive


class PretrainedSection(Section):
    tokenizer: str
    tokenizer_revision: str | None
    predictor: str
    predictor_revision: str | None


class TokenizerSection(Section):
    d_in: Literal[6]
    d_model: Count
    n_heads: Count
    ff_dim: Count
    n_enc_layers: Annotated[int, Field(ge=2)]
    n_dec_layers: Annotated[int, Field(ge=2)]
    ffn_dropout_p: Probability
    attn_dropout_p: Probability
    resid_dropout_p: Probability
    s1_bits: Annotated[int, Field(gt=0, le=16)]
    s2_bits: Annotated[int, Field(gt=0, le=16)]
    beta: float
    gamma0: float
    gamma: float
    zeta: float
    group_size: Count

    @model_validator(mode="after")
    def _consistent(self) -> "TokenizerSection":
        _check_heads(self.d_model, self.n_heads)
        if (self.s1_bits + self.s2_bits) % self.group_size:
            raise ValueError("group_size must divide s1_bits + s2_bits")
        return self


class PredictorSection(Section):
    s1_bits: Annotated[int, Field(gt=0, le=16)]
    s2_bits: Annotated[int, Field(gt=0, le=16)]
    n_layers: Count
    d_model: Annotated[int, Field(gt=0, multiple_of=8)]  # four heads of even size in the dependency layer
    n_heads: Count
    ff_dim: Count
    ffn_dropout_p: Probability
    attn_dropout_p: Probability
    resid_dropout_p: Probability
    token_dropout_p: Probability
    learn_te: bool

    @model_validator(mode="after")
    def _consistent(self) -> "PredictorSection":
        _check_heads(self.d_model, self.n_heads)
        return self


class ModelSection(Section):
    name: str
    max_context: Count
    pretrained: PretrainedSection | None
    tokenizer: TokenizerSection
    predictor: PredictorSection

    @model_validator(mode="after")
    def _consistent(self) -> "ModelSection":
        bits = (self.tokenizer.s1_bits, self.tokenizer.s2_bits)
        if bits != (self.predictor.s1_bits, self.predictor.s2_bits):
            raise ValueError("tokenizer and predictor must have the same s1_bits and s2_bits")
        return self


class StageSection(Section):
    learning_rate: Positive
    betas: Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)]
    weight_decay: NotNegative
    pct_start: Annotated[float, Field(gt=0, lt=1)]
    div_factor: Positive
    gradient_clip: Positive | None
    max_epochs: Count
    patience: Count


class TokenizerStage(StageSection):
    name: Literal["tokenizer"]


class PredictorStage(StageSection):
    name: Literal["predictor"]
    s1_condition: Literal["teacher", "sampled"]
    tokenizer: str


class ForecastSection(Section):
    temperature: NotNegative
    top_k: Annotated[int, Field(ge=0)]
    top_p: Share
    num_paths: Count
    trained_positions: bool
    precision: Literal["float32", "bfloat16", "float16"]
    repair: bool
    compile: bool


class EvaluationSection(Section):
    max_cutoffs: Count | None
    cutoffs_per_batch: Count
    bootstrap_samples: Count
    output_dir: str


class BacktestSection(Section):
    signal: Literal["mean", "median", "probability"]
    buy_threshold: float
    sell_threshold: float
    side: Literal["long_only", "long_short"]
    cost: Annotated[float, Field(ge=0, lt=1)]
    max_position: Share
    stop_loss: Annotated[float, Field(gt=0, lt=1)] | None
    take_profit: Positive | None
    max_drawdown: Annotated[float, Field(gt=0, lt=1)] | None
    initial_equity: Positive
    random_runs: Count

    @model_validator(mode="after")
    def _consistent(self) -> "BacktestSection":
        if self.sell_threshold > self.buy_threshold:
            raise ValueError("sell_threshold must not be above buy_threshold")
        return self


class PathsSection(Section):
    processed: str
    models: str
    sweeps: str
    results: str


class Common(Section):
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
    trainer: dict[str, Any]
    callbacks: dict[str, dict[str, Any]]
    logger: dict[str, dict[str, Any]]
    resume: str | None
    init_from: str | None
    run_dir: str

    @model_validator(mode="after")
    def _one_start(self) -> "Training":
        if self.resume is not None and self.init_from is not None:
            raise ValueError("resume continues a run, init_from starts one: set at most one of them")
        return self


class Evaluation(Common):
    """The whole configuration of evaluate.py."""

    evaluation: EvaluationSection
    backtest: BacktestSection
    trainer: dict[str, Any]
    tokenizer: str
    predictor: str


class Forecasting(Section):
    """The whole configuration of python -m kronos_lightning.forecast."""

    model: ModelSection
    forecast: ForecastSection
    candles: str
    interval: str | None
    lookback: Annotated[int, Field(ge=2)]
    horizon: Count
    clip: Positive
    touch_down: Share
    touch_up: Positive
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


def check_training(cfg: DictConfig) -> Training:
    """Validate the configuration of train.py; raises `ConfigError`."""
    plain = _plain(cfg)
    settings = _validate(Training, plain)
    check_call(plain["trainer"], "trainer")
    for group in ("callbacks", "logger"):
        for name, node in plain[group].items():
            check_call(node, f"{group}.{name}")
            if node.get("monitor") not in (None, *FIGURES):
                raise ConfigError(f"{group}.{name}.monitor: {node['monitor']!r} is none of {sorted(FIGURES)}")
    return settings


def check_evaluation(cfg: DictConfig) -> Evaluation:
    """Validate the configuration of evaluate.py; raises `ConfigError`."""
    plain = _plain(cfg)
    settings = _validate(Evaluation, plain)
    check_call(plain["trainer"], "trainer")
    strategy = plain["trainer"].get("strategy")
    if isinstance(strategy, dict) and strategy.get("start_method") == "spawn":
        raise ConfigError(
            "trainer: a multirun spawns its processes, and those cannot hand their forecasts back; run evaluate.py "
            "without -m, or with a trainer of one process"
        )
    return settings


def check_forecasting(cfg: DictConfig) -> Forecasting:
    """Validate the configuration of python -m kronos_lightning.forecast; raises `ConfigError`."""
    return _validate(Forecasting, _plain(cfg))


def check_call(node: dict[str, Any], place: str) -> None:
    """Check the keys and value types of an `instantiate` node against the signature of its `_target_`."""
    if "_target_" not in node:
        raise ConfigError(f"{place}: _target_ missing")
    try:
        target = get_class(node["_target_"])
    except (ImportError, ValueError) as error:
        raise ConfigError(f"{place}._target_: {node['_target_']!r} cannot be imported ({error})") from error
    parameters = inspect.signature(target).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    hints = get_type_hints(target.__init__)
    for key, value in node.items():
        if key.startswith("_") and key.endswith("_"):
            continue
        if key not in parameters and not open_ended:
            raise ConfigError(f"{place}.{key}: unknown key; {target.__name__} takes {', '.join(parameters)}")
        if isinstance(value, dict) and "_target_" in value:
            check_call(value, f"{place}.{key}")
        elif key in hints and (key in parameters):
            adapter = TypeAdapter(hints[key], config=ConfigDict(arbitrary_types_allowed=True, strict=True))
            try:
                adapter.validate_python(value)
            except ValidationError as error:
                reasons = dict.fromkeys(e["msg"] for e in error.errors() if e["type"] != "is_instance_of")
                raise ConfigError(f"{place}.{key}: {value!r}: {'; or '.join(reasons)}") from None


def _plain(cfg: DictConfig) -> dict[str, Any]:
    try:
        return OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"configuration: {' '.join(str(error).split())}") from error


def _validate(schema: type[Section], plain: dict[str, Any]) -> Any:
    try:
        return schema.model_validate(plain)
    except ValidationError as error:
        lines = []
        for e in error.errors():
            key = ".".join(
                str(part) for part in e["loc"] if part not in ("tokenizer", "predictor") or e["loc"][0] == "model"
            )
            what = "unknown key" if e["type"] == "extra_forbidden" else e["msg"].removeprefix("Value error, ")
            value = "" if e["type"] in ("missing", "value_error") else f" (it is {e['input']!r})"
            lines.append(f"{key}: {what}{value}" if key else what)
        raise ConfigError("; ".join(lines)) from None


def _date(text: str, key: str) -> pd.Timestamp:
    try:
        as_utc(text)
        return end_of(text)
    except ValueError as error:
        raise ValueError(f"{key}: {text!r} is not a date") from error


def _check_heads(d_model: int, n_heads: int) -> None:
    if d_model % n_heads or (d_model // n_heads) % 2:
        raise ValueError(f"d_model {d_model} must be a multiple of 2 x n_heads ({n_heads})")
