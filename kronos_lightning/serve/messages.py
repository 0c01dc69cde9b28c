"""Requests and answers of the service. Shape letter: h horizon."""

import re
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
MAX_CANDLES, MAX_HORIZON, MAX_PATHS = 2048, 120, 1000
Served = Literal["1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "1w"]


def _is_text(value: Any) -> Any:
    if not isinstance(value, str) or not RFC3339.fullmatch(value):
        raise ValueError("write a time like 2024-05-01T13:00:00Z, with its zone")
    return value


def _whole(value: Any) -> Any:
    """Return 5.0 as 5: JSON knows one kind of number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE = BeforeValidator(_whole)
Stamp = Annotated[AwareDatetime, Field(strict=False), BeforeValidator(_is_text, json_schema_input_type=datetime)]
Price = Annotated[float, Field(ge=1e-12, lt=1e9)]


class Message(BaseModel):
    """Base of all requests: closed to unknown keys, no numbers as text, no NaN."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class Candle(Message):
    """Candle with its open time; volume in base units, amount in quote units."""

    timestamp: Stamp
    open: Price
    high: Price
    low: Price
    close: Price
    volume: Annotated[float, Field(ge=0, lt=1e15)] = 0.0
    amount: Annotated[float, Field(ge=0, lt=1e24)] | None = None


EXAMPLE_CANDLES: list[JsonValue] = [
    {
        "timestamp": "2024-04-25T19:00:00Z",
        "open": 64500.0,
        "high": 64900.0,
        "low": 64380.5,
        "close": 64747.1,
        "volume": 910.4,
        "amount": 58870211.3,
    },
    {
        "timestamp": "2024-04-25T20:00:00Z",
        "open": 64747.1,
        "high": 64992.0,
        "low": 64489.3,
        "close": 64794.3,
        "volume": 1065.9,
        "amount": 69027694.4,
    },
]


class PredictRequest(Message):
    """Candles to forecast, oldest first; what is left out is as in the evaluation of the model."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"candles": EXAMPLE_CANDLES}]})

    candles: Annotated[list[Candle], Field(min_length=2, max_length=MAX_CANDLES)] | None = None
    interval: Served | None = None
    horizon: Annotated[int, Field(ge=1, le=MAX_HORIZON), WHOLE] | None = None
    num_paths: Annotated[int, Field(ge=1, le=MAX_PATHS), WHOLE] | None = None


class Thresholds(BaseModel):
    """Parameters of the strategy and the statistic of the paths that it compares with them."""

    statistic: str | None
    compared: float
    values: dict[str, float]


class Touched(BaseModel):
    """Probabilities that the price touches one of two levels first within the horizon."""

    down_level: float
    up_level: float
    down: float
    up: float
    neither: float


class CalibrationAnswer(BaseModel):
    """Origin of the calibration, and the reason why an answer is not calibrated."""

    fitted_from: str | None
    fitted_to: str | None
    cutoffs: int | None
    reason_if_not: str | None


class ModelName(BaseModel):
    """Identity of the model that answered."""

    id: str
    name: str
    random_weights: bool
    synthetic: bool
    verdict: str


class LiveAnswer(BaseModel):
    """Quality of this model's live forecasts on this market.

    n: forecasts whose whole horizon has come. hit_rate: share whose likelier direction was right, with Wilson's 95 %
    interval. skill: against last_price_60.
    """

    n: int
    hit_rate: float | None
    hit_rate_interval: tuple[float, float] | None
    coverage_90: float | None
    skill: float | None
    state: Literal["warming", "ok", "watch", "drifted"]


class Prediction(BaseModel):
    """Forecast and decision after the last candle.

    predicted_price, confidence, trend and timestamp are the guide's four. confidence is the calibrated probability of
    the likelier direction of the close at the horizon; null if there is no calibration for this request, and while the
    drift alarm is on. live is null if the market is not followed, record_id if the forecast is not in the record.
    """

    predicted_price: float
    confidence: float | None
    trend: Literal["up", "down", "flat"]
    timestamp: datetime
    signal: Literal["BUY", "SELL", "HOLD"]
    expected_return: float
    at_threshold: bool
    thresholds: Thresholds
    symbol: str
    interval: str
    cutoff: datetime
    cutoff_close: datetime
    target: datetime
    last_close: float
    horizon: int
    num_paths: int
    seed: int
    probability_up: float
    probability_up_calibrated: float | None
    quantiles: dict[str, list[float]]
    touch: Touched
    volatility: float | None
    validity: dict[str, float]
    calibrated: bool
    calibration: CalibrationAnswer
    live: LiveAnswer | None
    model: ModelName
    amount: Literal["given", "made"]
    candles_sha256: str
    comparable: bool
    overrides: dict[str, Any]
    record_id: int | None
    age_s: float
    notices: list[str]


class ErrorContent(BaseModel):
    """Content of an error."""

    code: str
    message: str
    hint: str
    request_id: str


class ErrorAnswer(BaseModel):
    """Answer to every request that fails."""

    error: ErrorContent


class ModelAnswer(BaseModel):
    """Served model: identity, settings of its decisions, calibration and the last evaluation.

    candles, past_forecasts: True if the service has candles of a file, or forecasts of an evaluation.
    live: market of the live record that the dashboard shows; null = no record.
    """

    id: str
    loaded_at: datetime
    trained_until: datetime | None
    decision: dict[str, Any]
    calibration: dict[str, Any] | None
    strategy: str
    candles: bool
    past_forecasts: bool
    live: str | None


class Health(BaseModel):
    """State of the process and the model."""

    status: Literal["ok", "stale", "stopping"]
    model: str | None


class KnownCandle(BaseModel):
    """Candle of a chart."""

    timestamp: datetime
    open: float
    high: float
    low: float
    close: float


class CutoffSummary(BaseModel):
    """Forecast of the evaluation in one line."""

    id: int
    cutoff: datetime
    signal: Literal["BUY", "SELL", "HOLD"]
    expected_return: float
    actual_return: float


class EvaluationAnswer(BaseModel):
    """Forecasts of the last evaluation, oldest first."""

    symbol: str
    interval: str
    matches_model: bool
    forecasts: list[CutoffSummary]


class PastForecast(BaseModel):
    """Forecast of the evaluation with the candles before it and those that came."""

    id: int
    cutoff: datetime
    last_close: float
    stamps: list[datetime]
    signal: Literal["BUY", "SELL", "HOLD"]
    trend: Literal["up", "down", "flat"]
    predicted_price: float
    expected_return: float
    probability_up: float
    confidence: float | None
    quantiles: dict[str, list[float]]
    known: list[KnownCandle]
    actual: list[KnownCandle]
