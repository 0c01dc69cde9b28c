"""View of a live record for the service: how fresh it is, and its answers. It only reads."""

import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from kronos_lightning.config.sections import LiveSection
from kronos_lightning.data.formats import PRICES
from kronos_lightning.live.closes import RecordedClose, SignalRow, from_ms
from kronos_lightning.live.judging import LATE, last_segment
from kronos_lightning.live.market import HEARTBEAT
from kronos_lightning.live.models import recorded_model
from kronos_lightning.live.operation import CLOCK, accounts_of
from kronos_lightning.live.paper import Paper, Terms, paper_account
from kronos_lightning.live.record import Account, LiveRecord
from kronos_lightning.live.track import WINDOW, TrackRecord, track_record
from kronos_lightning.pipeline.loaded_model import ModelRecord

from .answers import decided
from .errors import ServiceError
from .evaluations import SHOWN_BEFORE, shown
from .live_messages import LiveState, PaperAnswer, RecordedForecast, SignalAnswer, SignalsAnswer, TradeAnswer

SILENT = 5.0  # seconds without a close before a replay counts as stopped, however fast it is


class LiveView:
    """Record of a follower, in this process or another.

    Args:
        settings: settings of the live operation.
        interval: interval of the model's candles.
        wall: the local clock in seconds.
    """

    def __init__(self, settings: LiveSection, interval: str, wall: Callable[[], float] = time.time):
        self.record = LiveRecord(Path(settings.record))
        self._name, self._interval, self._wall = settings.account, interval, wall
        self._derived: dict[tuple[Any, ...], Any] = {}
        self._turn = threading.Lock()

    def close(self) -> None:
        """Close the record."""
        self.record.close()

    @property
    def symbols(self) -> list[str]:
        """Markets of the record."""
        return self.record.symbols(self._interval, self._name)

    def follows(self, symbol: str) -> bool:
        """Return True if the record has closes of a market."""
        return symbol in self.symbols

    def account(self, symbol: str) -> Account:
        """Return the account of a market.

        Raises:
            ServiceError: 404 if the record has none.
        """
        if not self.follows(symbol):
            known = ", ".join(self.symbols) or "none yet"
            raise ServiceError(404, "not_followed", f"{symbol} is not followed", f"Followed markets: {known}.")
        return accounts_of([symbol], self._interval, self._name)[0]

    def newest(self, symbol: str) -> SignalRow:
        """Return the newest close of a market."""
        found = self.record.newest(self.account(symbol))
        assert found is not None
        return found

    # --- freshness ------------------------------------------------------------------------------------------------

    def now(self) -> datetime:
        """Return the exchange's time, or that of a replay, continued since the last close."""
        beat = self._beat()
        moved: pd.Timestamp = from_ms(int(beat["now"])) + pd.Timedelta(beat["rate"] * (self._wall() - beat["at"]), "s")
        return moved.to_pydatetime(warn=False)

    def _beat(self) -> dict[str, float]:
        wall = self._wall()
        return self.record.meta(HEARTBEAT) or {"now": int(wall * 1000), "at": wall, "rate": 1.0, "skew": 0.0}

    def state(self, symbol: str) -> LiveState:
        """Return the state of the follower for a market."""
        beat, now = self._beat(), self.now()
        account = accounts_of([symbol], self._interval, self._name)[0]
        newest = self.record.newest(account)
        plain: dict[str, Any] = {"symbol": symbol, "interval": self._interval, "clock": self.record.meta(CLOCK)}
        plain |= {"now": now, "clock_skew_s": beat["skew"], "rate": beat["rate"]}
        if newest is None:
            return LiveState(**plain, newest=None, next_close=None, age_s=None, stale=True, halted=False)
        due = newest.cutoff + 2 * account.step
        silent = self._wall() - beat["at"] > SILENT
        return LiveState(
            **plain,
            newest=newest.cutoff,
            next_close=due,
            age_s=(pd.Timestamp(now) - newest.cutoff - account.step).total_seconds(),
            stale=silent and pd.Timestamp(now) > due + LATE * account.step,
            halted=newest.halted,
        )

    # --- derived, and kept until the next close ---------------------------------------------------------------------

    def _kept(self, symbol: str, what: str, more: Any, make: Callable[[], Any]) -> Any:
        key, newest = (symbol, what, more), self.newest(symbol).id
        with self._turn:
            if self._derived.get(key, (None,))[0] != newest:
                self._derived[key] = newest, make()
            return self._derived[key][1]

    def track(self, symbol: str, window: pd.Timedelta = WINDOW) -> tuple[str, TrackRecord]:
        """Return the id of the newest model and the track record of its forecasts."""
        account, model = self.account(symbol), self.newest(symbol).model
        horizon = self.model(model).decision.horizon
        found: TrackRecord = self._kept(
            symbol, "track", window, lambda: track_record(self.record, account, model, horizon, window)
        )
        return model, found

    def paper(self, symbol: str) -> Paper | None:
        """Return the paper account of a market; None before its first candle."""
        account = self.account(symbol)
        found: Paper | None = self._kept(symbol, "paper", None, lambda: paper_account(self.record, account))
        return found

    def model(self, number: str) -> ModelRecord:
        """Return what the record knows of a model."""
        found = recorded_model(self.record, number)
        assert found is not None, number
        return found

    # --- answers --------------------------------------------------------------------------------------------------

    def candles(self, symbol: str, count: int) -> pd.DataFrame:
        """Return the newest candles after the last gap."""
        account = self.account(symbol)
        return last_segment(self.record.candles(account, count=count), account.step).reset_index(drop=True)

    def signals(
        self, symbol: str, since: datetime | None, until: datetime | None, after: int, limit: int
    ) -> SignalsAnswer:
        """Return a page of recorded closes."""
        account, paper = self.account(symbol), self.paper(symbol)
        first, last = (None if stamp is None else pd.Timestamp(stamp) for stamp in (since, until))
        rows = self.record.signals(account, first, last, after, limit + 1)
        halts = set() if paper is None else set(paper.run.stamps[paper.halted])
        return SignalsAnswer(
            symbol=symbol,
            interval=self._interval,
            account=account.name,
            signals=[_signal(row, account, row.halted or row.cutoff in halts) for row in rows[:limit]],
            next=rows[limit - 1].id if len(rows) > limit else None,
        )

    def forecast(self, symbol: str, number: int) -> RecordedForecast:
        """Return a recorded forecast with what came.

        Raises:
            ServiceError: 404 if there is no such forecast.
        """
        account = self.account(symbol)
        close = self.record.read_close(account, number)
        if close is None or close.decision is None:
            reason = f"there is no forecast {number} of {symbol}" if close is None else close.reason
            raise ServiceError(404, "no_forecast", reason, "See signals for the numbers.")
        return self._with_what_came(close, account)

    def _with_what_came(self, close: RecordedClose, account: Account) -> RecordedForecast:
        decision = close.decision
        assert decision is not None
        frame = self.record.candles(
            account, until=decision.stamps[-1], since=close.cutoff - SHOWN_BEFORE * account.step
        )
        frame = frame.set_axis(pd.DatetimeIndex(frame["timestamps"]).tz_localize(None), axis=0)[list(PRICES)]
        plain = close.cutoff.tz_localize(None)
        return RecordedForecast(
            id=close.id,
            symbol=close.symbol,
            made_at=close.made_at,
            late=close.late,
            halted=close.halted,
            model=close.model,
            **decided(decision),
            known=shown(frame[frame.index <= plain].tail(SHOWN_BEFORE)),
            actual=shown(frame[frame.index > plain]),
        )

    def paper_answer(self, symbol: str) -> PaperAnswer:
        """Return the paper account of a market.

        Raises:
            ServiceError: 404 before its first candle.
        """
        account, paper = self.account(symbol), self.paper(symbol)
        terms = Terms.read(self.record, account)
        if paper is None or terms is None:
            raise ServiceError(404, "no_account", f"{symbol} has no paper account yet", "Wait for the next close.")
        run, rules, position = paper.run, terms.rules, float(paper.run.position[-1])
        entry_time, entry_price = run.open_trade or (None, None)
        side = 1 if position > 0 else -1
        trades = [
            TradeAnswer.model_validate(row | {"direction": "long" if row["direction"] > 0 else "short"})
            for row in run.trade_table().drop(columns="costs").to_dict("records")
        ]
        return PaperAnswer(
            symbol=symbol,
            account=account.name,
            initial_equity=terms.initial_equity,
            position=position,
            entry_time=entry_time,
            entry_price=entry_price,
            stop=entry_price * (1 - side * rules.stop_loss) if entry_price and rules.stop_loss else None,
            target=entry_price * (1 + side * rules.take_profit) if entry_price and rules.take_profit else None,
            halted=bool(paper.halted[-1]),
            trades=trades,
            times=[one.to_pydatetime() for one in run.stamps + account.step],
            equity=run.equity.tolist(),
            hold=paper.hold.equity.tolist(),
        )


def _signal(row: SignalRow, account: Account, halted: bool) -> SignalAnswer:
    names = ("id", "cutoff", "made_at", "signal", "status", "reason", "late", "expected_return", "last_close", "model")
    plain = {name: value for name, value in asdict(row).items() if name in names}
    return SignalAnswer(**plain, cutoff_close=row.cutoff + account.step, halted=halted)
