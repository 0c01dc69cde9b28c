"""Configuration sections without a class elsewhere: types, bounds, and rules between fields.

Values and their explanations are in `conf/`; `schema.py` assembles the sections.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from kronos_lightning.backtest import ExecutionRules
from kronos_lightning.forecast import Sampling
from kronos_lightning.model.sizes import PredictorSection, TokenizerSection
from kronos_lightning.settings import Count, NotNegative, Positive, Probability, Section, Share, as_utc


class PretrainedSection(Section):
    tokenizer: str
    tokenizer_revision: str | None
    predictor: str
    predictor_revision: str | None


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
    frozen_tokenizer: str
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
    loss_rows: Literal["window", "horizon"]
    extra: dict[str, dict[str, Any]]

    @model_validator(mode="after")
    def _consistent(self) -> "RegularizationSection":
        if self.lora is not None and self.freeze:
            raise ValueError("freeze must be [] with lora, which already freezes all weights except its adapters")
        if self.lora is not None and self.l2_pretrained:
            raise ValueError(
                "l2_pretrained must be 0 with lora; stage.weight_decay already pulls to the initial weights"
            )
        return self


class ScalingSection(Section):
    batch: Literal["process", "global"]
    rate: Literal["none", "sqrt", "linear"]
    reference_batch: Count


class ForecastSection(Sampling):
    num_paths: Count
    rotary_fine_token: bool
    precision: Literal["float32", "bfloat16", "float16", "int8"]
    anchor: bool
    repair: bool
    compile: bool


class EvaluationSection(Section):
    max_cutoffs: Count | None
    cutoffs_per_batch: Count
    baselines: Annotated[list[str], Field(min_length=1)]
    combine: list[str]
    forecasts: str | None
    refit_every: Count
    bootstrap_samples: Count
    output_dir: str


class CalibrationSection(Section):
    fit: bool
    baselines: bool
    shrinkage: bool
    max_cutoffs: Count | None
    search_cutoffs: Count
    overwrite: bool
    temperatures: Annotated[list[Positive], Field(min_length=1)]
    top_ps: Annotated[list[Share], Field(min_length=1)]


class BacktestSection(ExecutionRules):
    parameters: Literal["configured", "validation"]
    act_every_n_cutoffs: Count
    intrabar_csv: str | None
    initial_equity: Positive
    random_runs: Count
    search_costs: Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> "BacktestSection":
        if self.cooldown is not None and self.max_drawdown is None:
            raise ValueError("cooldown needs max_drawdown: without a drawdown limit trading never halts")
        return self


class PathsSection(Section):
    processed: str
    models: str
    sweeps: str
    results: str


class LiveSection(Section):
    clock: Literal["exchange", "replay", "none"]
    record: str
    account: Annotated[str, Field(pattern=r"^[\w.-]{1,40}$")]
    initial_equity: Positive
    halt: bool
    speed: Positive | None
    start: str | None
    webhook_timeout: Positive
    webhook_attempts: Count

    @model_validator(mode="after")
    def _consistent(self) -> "LiveSection":
        if self.start is not None:
            as_utc(self.start)
        if self.clock == "exchange" and (self.speed is not None or self.start is not None):
            raise ValueError("speed and start are for a replay; the exchange sets its own pace (clock=replay)")
        return self
