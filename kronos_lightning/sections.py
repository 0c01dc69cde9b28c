"""The sections of the configuration's schema: types, bounds, and rules between fields.

Values and their documentation stand in `conf/`; `schema.py` puts the sections together.
"""

from typing import Annotated, Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, model_validator

from .data.binance.intervals import INTERVALS
from .data.candles import as_list, as_utc, end_of, parse_interval
from .data.folds import fold_label

Probability = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(gt=0)]
Url = Annotated[str, Field(pattern=r"^https?://[^/]+(/.*)?[^/]$")]
Symbol = Annotated[str, Field(pattern=r"^[A-Z0-9]+$")]
Interval = Literal[tuple(INTERVALS)]
Baseline = Literal["last_price_20", "last_price_60", "drift", "seasonal", "ewma", "garch"]
Range = Annotated[list[str], Field(min_length=2, max_length=2)]


class Section(BaseModel):
    """A part of the configuration: no unknown keys, no silent conversions."""

    model_config = ConfigDict(extra="forbid", strict=True, populate_by_name=True)


class BinanceSection(Section):
    source: Literal["auto", "archive", "rest"]
    archive_url: Url
    rest_url: Url
    connect_timeout: Positive
    read_timeout: Positive
    retries: Annotated[int, Field(ge=0)]
    backoff: Positive
    longest_wait: NotNegative
    weight_per_minute: Count
    parallel: Annotated[int, Field(gt=0, le=32)]
    proxy: Url | None


class AugmentationSection(Section):
    price_noise: NotNegative
    time_warp: NotNegative
    magnitude: NotNegative
    reversal: Probability


class DataSection(Section):
    target: Literal["kronos_lightning.data.CandleDataModule"] = Field(alias="_target_")
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]
    symbol: str | Annotated[list[str], Field(min_length=1)]
    symbol_weights: list[Positive] | None
    interval: str
    csv_dir: str
    csv_path: str | None
    binance: BinanceSection | None
    on_defect: Literal["error", "drop", "ignore"]
    sample: "SampleSection | None"
    augmentation: AugmentationSection | None = None
    sessions: bool
    dataset_begin_time: str | None
    dataset_end_time: str | None
    train_time_range: Range
    val_time_range: Range
    test_time_range: Range
    fold: Annotated[int, Field(ge=0)] | Literal["all"] | None
    folds: Count
    fold_scheme: Literal["expanding", "sliding"]
    embargo: Annotated[int, Field(ge=0)]
    lookback: Annotated[int, Field(ge=2)]
    horizon: Count
    volume: bool
    clip: Positive
    batch_size: Count
    samples_per_epoch: Count | None
    num_workers: Annotated[int, Field(ge=0)]
    processed_dir: str
    seed: Annotated[int, Field(ge=0)]

    @property
    def label(self) -> str:
        """What names the files of this data set, or of its fold."""
        return fold_label(self.name, self.fold)

    @model_validator(mode="after")
    def _consistent(self) -> "DataSection":
        parse_interval(self.interval)
        ends: list[pd.Timestamp] = []
        for name in ("train", "val", "test"):
            begin, end = (_date(text, f"{name}_time_range") for text in getattr(self, f"{name}_time_range"))
            if end < begin:
                raise ValueError(f"{name}_time_range ends before it begins")
            if ends and end <= ends[-1]:
                raise ValueError(f"{name}_time_range must end after that of the split before it (train, val, test)")
            ends.append(end)
        if isinstance(self.fold, int) and self.fold >= self.folds:
            raise ValueError(f"fold {self.fold}: data.folds={self.folds} has the folds 0 to {self.folds - 1}")
        check_order(self.dataset_begin_time, self.dataset_end_time, "dataset_begin_time", "dataset_end_time")
        symbols = as_list(self.symbol)
        if len(set(symbols)) < len(symbols):
            raise ValueError("symbol names one twice")
        if len(symbols) > 1 and self.csv_path is not None:
            raise ValueError("csv_path is one file; for several symbols csv_dir names a folder of SYMBOL_INTERVAL.csv")
        if self.symbol_weights is not None and len(self.symbol_weights) != len(symbols):
            raise ValueError(f"symbol_weights must hold one for each of the {len(symbols)} symbols")
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
    cache_tokens: bool | Literal["auto"]


class DropoutSection(Section):
    ffn: Probability | None
    attn: Probability | None
    resid: Probability | None
    token: Probability | None


class LoraSection(Section):
    rank: Count
    alpha: Positive
    modules: Annotated[list[str], Field(min_length=1)]


class RegularizationSection(Section):
    dropout: DropoutSection
    l1: NotNegative
    l2_pretrained: NotNegative
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    ema: Annotated[float, Field(gt=0, lt=1)] | None
    freeze: list[str]
    lora: LoraSection | None
    layer_decay: Share
    volatility: Literal["batch", "market"] | None
    volatility_base: Positive
    loss_on: Literal["window", "horizon"]

    @model_validator(mode="after")
    def _consistent(self) -> "RegularizationSection":
        if self.lora is not None and self.freeze:
            raise ValueError("lora freezes all but its adapters; lora.modules says where they are, freeze must be []")
        if self.lora is not None and self.l2_pretrained:
            raise ValueError("with lora stage.weight_decay pulls to the weights of the start, l2_pretrained must be 0")
        return self


class ScalingSection(Section):
    batch: Literal["process", "global"]
    rate: Literal["none", "sqrt", "linear"]
    reference_batch: Count


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
    baselines: Annotated[list[Baseline], Field(min_length=1)]
    refit_every: Count
    bootstrap_samples: Count
    output_dir: str


class CalibrationSection(Section):
    fit: bool
    max_cutoffs: Count | None
    search_cutoffs: Count
    temperatures: Annotated[list[Positive], Field(min_length=1)]
    top_ps: Annotated[list[Share], Field(min_length=1)]


class BacktestSection(Section):
    signal: Literal["mean", "median", "probability"]
    thresholds: Literal["configured", "validation"]
    buy_threshold: float
    sell_threshold: float
    side: Literal["long_only", "long_short"]
    rebalance: Count
    cost: Annotated[float, Field(ge=0, lt=1)]
    slippage: Annotated[float, Field(ge=0, lt=1)]
    max_position: Share
    stop_loss: Annotated[float, Field(gt=0, lt=1)] | None
    take_profit: Positive | None
    max_drawdown: Annotated[float, Field(gt=0, lt=1)] | None
    cooldown: Count | None
    finer_csv: str | None
    initial_equity: Positive
    random_runs: Count
    sweep_thresholds: Annotated[list[NotNegative], Field(min_length=1)]
    sweep_costs: Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> "BacktestSection":
        if self.sell_threshold > self.buy_threshold:
            raise ValueError("sell_threshold must not be above buy_threshold")
        if self.cooldown is not None and self.max_drawdown is None:
            raise ValueError("cooldown follows a drawdown halt, and max_drawdown sets none")
        return self


class PathsSection(Section):
    processed: str
    models: str
    sweeps: str
    results: str


def check_order(begin: str | None, end: str | None, begin_key: str, end_key: str) -> None:
    """Raise where the first of two dates is after the second."""
    first, last = (_date(text, key) if text else None for text, key in ((begin, begin_key), (end, end_key)))
    if first and last and last < first:
        raise ValueError(f"{end_key} is before {begin_key}")


def _date(text: str, key: str) -> pd.Timestamp:
    try:
        as_utc(text)
        return end_of(text)
    except ValueError as error:
        raise ValueError(f"{key}: {text!r} is not a date") from error


def _check_heads(d_model: int, n_heads: int) -> None:
    if d_model % n_heads or (d_model // n_heads) % 2:
        raise ValueError(f"d_model {d_model} must be a multiple of 2 x n_heads ({n_heads})")
