"""Follower of one market: each close that is due becomes one transaction of the record."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from kronos_lightning.data.candles import candles_sha256
from kronos_lightning.data.formats import FEATURES
from kronos_lightning.data.sources.binance.intervals import closed_before
from kronos_lightning.forecast.series import read_series
from kronos_lightning.pipeline.loaded_model import LoadedModel
from kronos_lightning.pipeline.signals import Decision, decide_at

from .closes import Close, Event, from_ms, to_ms
from .drift import ALARM
from .feeds import Feed
from .judging import WATCHED, is_given_up, is_late, judge, possible
from .paper import newest_trades, paper_account
from .record import Account, LiveRecord
from .scoring import due_scores
from .track import evidence

HISTORY = 600  # candles that are kept in memory, for the model, the baselines and the doctor
HEARTBEAT = "heartbeat"

log = logging.getLogger("live")


@dataclass(frozen=True, kw_only=True, eq=False)
class Surroundings:
    """Record, candles and model that the followers of all markets share.

    record: where closes go.
    feed: where candles come from.
    model: returns the model in use.
    halted: returns True while a person has halted trading.
    webhook: True if every decision is sent to a webhook.
    """

    record: LiveRecord
    feed: Feed
    model: Callable[[], LoadedModel]
    halted: Callable[[], bool]
    webhook: bool


class MarketFollower:
    """Follower of one market.

    Args:
        account: market and account.
        around: what all markets share.
    """

    def __init__(self, account: Account, around: Surroundings):
        self.account, self._around = account, around
        newest = around.record.newest(account)
        self.last = None if newest is None else newest.cutoff  # cutoff of the newest recorded close
        self._known = around.record.candles(account, count=HISTORY)
        self._complained: set[str] = set()  # reasons why candles were left out

    def newest_closed(self) -> pd.Timestamp:
        """Return the open time of the newest candle that has closed by the exchange's clock."""
        return from_ms(closed_before(self.account.interval, to_ms(self._around.feed.now()))) - self.account.step

    def advance(self) -> bool:
        """Record every close that is due; return False if a candle is missing that should be asked for again.

        Raises:
            KronosError: the exchange does not answer.
            sqlite3.Error: the record cannot be written; what was not recorded is due again.
        """
        newest, step = self.newest_closed(), self.account.step
        first = newest if self.last is None else self.last + step
        if first > newest:
            return True
        back = HISTORY if self.last is None else WATCHED
        self._fetch(first - back * step, newest + step)
        for cutoff in pd.date_range(first, newest, freq=step):
            missing = not (self._known["timestamps"] == cutoff).any()
            if missing and not is_given_up(cutoff, self._around.feed.now(), step):
                return False
            self._record_close(cutoff)
        return True

    # --- candles --------------------------------------------------------------------------------------------------

    def _fetch(self, start: pd.Timestamp, end: pd.Timestamp) -> None:
        """Fetch candles, note those that the exchange has revised, and know the newest."""
        account = self.account
        found = self._around.feed.candles(account.symbol, account.interval, start, end)
        fetched, reasons = possible(found, account.interval)
        for reason in set(reasons) - self._complained:
            self._complained.add(reason)
            with self._around.record.transaction():
                self._tell("alarm", {"what": "impossible candle", "reason": reason})
        if self.last is not None:
            self._revise(fetched[fetched["timestamps"] <= self.last])
        joined = pd.concat([self._known, fetched]).drop_duplicates("timestamps", keep="last")
        self._known = joined.sort_values("timestamps").reset_index(drop=True)

    def _revise(self, fetched: pd.DataFrame) -> None:
        """Record candles that differ from what was known of them."""
        record, account = self._around.record, self.account
        for stamp in fetched["timestamps"]:
            new = fetched[fetched["timestamps"] == stamp]
            before, after = (_values(frame, stamp) for frame in (self._known, fetched))
            if before == after:
                continue
            with record.transaction():
                record.put_candles(account, new)
                record.drop_scores(account, stamp, self._around.model().decision.horizon)
                self._tell("revised", {"candle": stamp.isoformat(), "before": before, "after": after})
            log.warning("%s: the exchange has revised the candle of %s", account.symbol, stamp)

    # --- a close --------------------------------------------------------------------------------------------------

    def _record_close(self, cutoff: pd.Timestamp) -> None:
        """Decide after a close and write all that follows from it in one transaction."""
        record, account, model = self._around.record, self.account, self._around.model()
        known = self._known[self._known["timestamps"] <= cutoff].tail(HISTORY)
        close = self._decided(cutoff, known, model)
        fresh = known if self.last is None else known[known["timestamps"] > self.last]
        with record.transaction():
            record.put_candles(account, fresh)
            number = record.put_close(close)
            if close.status != "gap":
                self._tell("candle", {"timestamp": cutoff.isoformat(), **_values(known, cutoff)})
            self._tell("forecast", summary(close) | {"id": number})
            if close.status in ("failed", "defect", "gap"):
                self._tell("alarm", {"what": close.status, "reason": close.reason})
            if close.status != "gap":
                self._score(known, model)
                self._trade()
            if self._around.webhook:
                record.put_message("/".join((*account.key, str(to_ms(cutoff)))), summary(close))
            self.beat()
        self.last = cutoff
        self._known = self._known.tail(2 * HISTORY)
        if close.status not in ("ok", "short"):
            log.warning("%s %s: %s", account.symbol, cutoff, close.reason)

    def _decided(self, cutoff: pd.Timestamp, known: pd.DataFrame, model: LoadedModel) -> Close:
        account, settings = self.account, model.decision
        status, reason = judge(known, cutoff, account.interval, settings.lookback)
        seen, decision = known.tail(settings.lookback), None
        if status == "ok":
            decision, reason = self._decision(seen, model)
            status = "failed" if decision is None else "ok"
        return Close(
            symbol=account.symbol,
            interval=account.interval,
            account=account.name,
            cutoff=cutoff,
            made_at=self._around.feed.now(),
            status=status,
            reason=reason,
            late=is_late(cutoff, self._around.feed.now(), account.step),
            halted=self._around.halted(),
            model=model.id,
            decision=decision,
            candles_sha256=candles_sha256(seen) if len(seen) else None,
        )

    def _decision(self, seen: pd.DataFrame, model: LoadedModel) -> tuple[Decision | None, str]:
        """Return the model's decision, or None and the reason why there is none."""
        settings = model.decision
        forecaster = model.forecaster(calibrated=self.account.symbol == settings.symbol)
        try:
            found = decide_at(
                read_series(seen, settings.horizon),
                forecaster,
                model.strategy,
                settings.forecast.num_paths,
                settings.seed,
            )
        except Exception as error:  # whatever a model or a strategy of somebody else raises, the next close comes
            log.exception("%s: the model failed", self.account.symbol)
            return None, f"the model failed: {type(error).__name__}"
        if not found.is_finite:
            return None, "the forecast holds values that are not numbers"
        return found, ""

    def _score(self, known: pd.DataFrame, model: LoadedModel) -> None:
        record, account = self._around.record, self.account
        found = due_scores(record, account, known, model.decision.horizon)
        if found.empty:
            return
        before = evidence(record, account, model.id, model.decision.horizon)
        record.put_scores(found)
        after = evidence(record, account, model.id, model.decision.horizon)
        self._tell("score", {"steps": len(found), "forecast": int(found["forecast"].iloc[0])})
        if before < ALARM <= after:
            self._tell("alarm", {"what": "drift", "reason": "the coverage of the forecasts is no longer what it says"})

    def _trade(self) -> None:
        paper = paper_account(self._around.record, self.account)
        for trade in [] if paper is None else newest_trades(paper.run):
            self._tell("trade", trade)

    def _tell(self, kind: str, content: dict[str, Any]) -> None:
        event = Event(symbol=self.account.symbol, time=self._around.feed.now(), kind=kind, content=content)
        self._around.record.put_event(event)

    def beat(self) -> None:
        """Record the exchange's time, so that readers know how old the newest close is."""
        feed = self._around.feed
        beat = {"now": to_ms(feed.now()), "at": time.time(), "rate": feed.rate, "skew": feed.skew}
        self._around.record.set_meta(HEARTBEAT, beat)


def _values(frame: pd.DataFrame, stamp: pd.Timestamp) -> dict[str, float]:
    """Return the values of the candle of a time by name; empty without one."""
    rows = frame.loc[frame["timestamps"] == stamp, list(FEATURES)].to_numpy()
    return dict(zip(FEATURES, rows[0].tolist(), strict=True)) if len(rows) else {}


def summary(close: Close) -> dict[str, Any]:
    """Return a close without its paths, as JSON."""
    decision = close.decision
    found: dict[str, Any] = {
        "symbol": close.symbol,
        "interval": close.interval,
        "account": close.account,
        "cutoff": close.cutoff.isoformat(),
        "signal": close.signal,
        "status": close.status,
        "reason": close.reason,
        "late": close.late,
        "halted": close.halted,
        "model": close.model,
    }
    if decision is not None:
        found |= {
            "last_close": decision.last_close,
            "predicted_price": decision.predicted_price,
            "expected_return": decision.expected_return,
            "confidence": decision.confidence,
        }
    return found
