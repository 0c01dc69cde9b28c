"""Answers about the live record."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel

from .messages import PastForecast

Status = Literal["ok", "failed", "defect", "gap", "short"]
State = Literal["warming", "ok", "watch", "drifted"]


class SignalAnswer(BaseModel):
    """Recorded close in one line.

    status: ok, or why there was no decision; signal is then HOLD.
    late: the decision came too late to be traded.
    halted: a halt, by drawdown of the paper account or by a person, suppressed the signal.
    """

    id: int
    cutoff: datetime
    cutoff_close: datetime
    made_at: datetime
    signal: Literal["BUY", "SELL", "HOLD"]
    status: Status
    reason: str
    late: bool
    halted: bool
    expected_return: float | None
    last_close: float | None
    model: str


class SignalsAnswer(BaseModel):
    """Recorded closes, oldest first; next is the cursor of the following page, null if this is the last."""

    symbol: str
    interval: str
    account: str
    signals: list[SignalAnswer]
    next: int | None


class RecordedForecast(PastForecast):
    """Forecast of the record with the candles before it and those that came."""

    symbol: str
    made_at: datetime
    late: bool
    halted: bool
    model: str


class ScoreAnswer(BaseModel):
    """Quality of the live forecasts whose whole horizon has come.

    n, late: forecasts in time, and late ones, which are only counted.
    crps: mean continuous ranked probability score of the return; lower is better.
    skill: 1 − CRPS / that of the baseline; skill_interval is its 95 % block-bootstrap interval, null = too few.
    hit_rate: share whose likelier direction was right, with Wilson's 95 % interval.
    coverage: share of closes inside each central interval, by level.
    pit: share of closes in each tenth of the forecast distribution; 0.1 each would be right.
    reliability: forecast P(up), share that rose, and count, by bin.
    evidence: against the coverage; 100 raises the drift alarm.
    """

    symbol: str
    model: str
    n: int
    late: int
    crps: dict[str, float]
    skill: dict[str, float]
    skill_interval: dict[str, tuple[float, float] | None]
    hit_rate: float | None
    hit_rate_interval: tuple[float, float] | None
    coverage: dict[str, float]
    pit: list[float]
    reliability: list[tuple[float, float, int]]
    evidence: float
    state: State


class TradeAnswer(BaseModel):
    """Closed trade of the paper account."""

    direction: Literal["long", "short"]
    entry_time: datetime
    entry_price: float
    exit_time: datetime
    exit_price: float
    quantity: float
    profit: float
    reason: str


class PaperAnswer(BaseModel):
    """Paper account: the backtest's engine over the record up to the newest close.

    position: base units held; entry_time, entry_price, stop, target: of the open position.
    halted: True if a halt is on.
    times, equity, hold: equity at each close, beside that of buy and hold; initial_equity is that of no position.
    """

    symbol: str
    account: str
    initial_equity: float
    position: float
    entry_time: datetime | None
    entry_price: float | None
    stop: float | None
    target: float | None
    halted: bool
    trades: list[TradeAnswer]
    times: list[datetime]
    equity: list[float]
    hold: list[float]


class LiveState(BaseModel):
    """State of the follower.

    now: the exchange's time, or that of a replay.
    newest: open time of the newest recorded candle. next_close: when the next decision is due.
    stale: True if a close has passed without a decision.
    """

    symbol: str
    interval: str
    clock: str
    now: datetime
    newest: datetime | None
    next_close: datetime | None
    age_s: float | None
    stale: bool
    halted: bool
    clock_skew_s: float
    rate: float


class EventContent(BaseModel):
    """Content of a server-sent event; its kind is the event's name, its number the event's id."""

    symbol: str
    time: datetime
    content: dict[str, Any]
