"""Paper account: the backtest's engine, run again over the record. Nothing of it is stored.

Shape letters: T candles.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from kronos_lightning.backtest import BUY, FLATTEN, HOLD, SELL, Backtest, ExecutionRules, MarketData, run_backtest
from kronos_lightning.backtest.comparison import always_flat
from kronos_lightning.pipeline.decision_settings import DecisionSettings

from .closes import SignalRow
from .database import RecordError
from .record import Account, LiveRecord

ORDERS = {"BUY": BUY, "SELL": SELL, "HOLD": HOLD}


@dataclass(frozen=True, kw_only=True)
class Terms:
    """Terms of an account, fixed when it is opened.

    rules, act_every: execution rules, and every how many closes a signal acts, from decision.json.
    initial_equity: in quote units.
    """

    rules: ExecutionRules
    act_every: int
    initial_equity: float

    @classmethod
    def of(cls, decision: DecisionSettings, initial_equity: float) -> "Terms":
        """Return the terms of an evaluated checkpoint."""
        return cls(rules=decision.execution, act_every=decision.act_every_n_cutoffs, initial_equity=initial_equity)

    def content(self) -> dict[str, Any]:
        """Return the terms as JSON."""
        return {"rules": self.rules.model_dump(), "act_every": self.act_every, "initial_equity": self.initial_equity}

    @classmethod
    def read(cls, record: LiveRecord, account: Account) -> "Terms | None":
        """Return the terms of an account in a record; None if it was never opened."""
        content = record.meta(_key(account))
        if content is None:
            return None
        return cls(rules=ExecutionRules(**content.pop("rules")), **content)

    def open(self, record: LiveRecord, account: Account) -> None:
        """Open an account with these terms, or go on with one that has them.

        Raises:
            RecordError: the account has other terms.
        """
        found = Terms.read(record, account)
        if found is None:
            with record.transaction():
                record.set_meta(_key(account), self.content())
        elif found != self:
            raise RecordError(
                f"{record.path}: the account {account.name} of {account.symbol} was opened with other execution rules "
                "or another equity; set live.account to a new name, or live.record to a new file"
            )


@dataclass(frozen=True, kw_only=True)
class Paper:
    """Paper account up to the newest close.

    run: the account. hold: the same money in the market from the second close on. flat: the money untouched.
    ordered: True at the closes at which a person's halt was on, ``(T,)``.
    """

    run: Backtest
    hold: Backtest
    flat: Backtest
    ordered: np.ndarray

    @property
    def halted(self) -> np.ndarray:
        """True at the closes whose signals a halt suppressed, by drawdown or by a person: ``(T,)``."""
        both: np.ndarray = self.run.halted | self.ordered
        return both


def orders(rows: list[SignalRow], stamps: pd.DatetimeIndex, act_every: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the order of each candle ``(T,)``, and where a person's halt was on.

    What was not decided in time is not traded: HOLD.

    Args:
        rows: closes of the account, oldest first.
        stamps: open times of the candles.
        act_every: every how many closes a signal acts.
    """
    found = np.full(len(stamps), HOLD, dtype=np.int8)
    ordered = np.zeros(len(stamps), dtype=bool)
    places = stamps.get_indexer(pd.DatetimeIndex([row.cutoff for row in rows]))
    for i, (row, place) in enumerate(zip(rows, places, strict=True)):
        if place < 0:  # a missing candle
            continue
        if row.halted:
            found[place], ordered[place] = FLATTEN, True
        elif row.counts and i % act_every == 0:
            found[place] = ORDERS[row.signal]
    return found, ordered


def paper_account(record: LiveRecord, account: Account, until: pd.Timestamp | None = None) -> Paper | None:
    """Run the engine over a record, from its first close to the newest or to `until`; None before the first candle."""
    terms = Terms.read(record, account)
    rows = record.signals(account, until=until)
    if terms is None or not rows:
        return None
    frame = record.candles(account, until=rows[-1].cutoff, since=rows[0].cutoff)
    if frame.empty:
        return None
    market = MarketData.of(frame, account.step)
    given, ordered = orders(rows, market.stamps, terms.act_every)
    start = np.full(len(market), HOLD, dtype=np.int8)
    start[0] = BUY
    costs = ExecutionRules(cost=terms.rules.cost, slippage=terms.rules.slippage)
    return Paper(
        run=run_backtest(market, given, terms.rules, terms.initial_equity, close_at_end=False),
        hold=run_backtest(market, start, costs, terms.initial_equity, close_at_end=False),
        flat=always_flat(market, terms.initial_equity),
        ordered=ordered,
    )


def newest_trades(run: Backtest) -> list[dict[str, Any]]:
    """Return the entries and exits of the newest candle, in words for an event."""
    last, table = run.stamps[-1], run.trade_table()
    found: list[dict[str, Any]] = []
    for trade in table[table["exit_time"] == last].to_dict("records"):
        if trade["entry_time"] == last:
            found.append(_entry(trade["direction"], trade["entry_price"]))
        found.append(
            {"act": "exit", "price": trade["exit_price"], "reason": trade["reason"], "profit": trade["profit"]}
        )
    if run.open_trade is not None and run.open_trade[0] == last:
        found.append(_entry(np.sign(run.position[-1]), run.open_trade[1]))
    return found


def _entry(direction: float, price: float) -> dict[str, Any]:
    return {"act": "entry", "direction": "long" if direction > 0 else "short", "price": float(price)}


def _key(account: Account) -> str:
    return "terms:" + "/".join(account.key)
