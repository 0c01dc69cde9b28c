"""Follower of all markets: when to ask the exchange, and what to do if it does not answer."""

import logging
import sqlite3
import threading

import pandas as pd

from kronos_lightning.errors import KronosError

from .closes import Event
from .market import MarketFollower, Surroundings

DELAY = 2.0  # seconds after a close before its candle is asked for
SHORTEST, LONGEST = 2.0, 60.0  # seconds between two attempts after a failure; the pause doubles
MISSING = 1 / 20  # longest pause before a missing candle is asked for again, as a share of the interval
NOTICE, ALARM = 1.0, 10.0  # seconds of clock skew

log = logging.getLogger("live")


class Follower:
    """Loop over the closes of all markets.

    Args:
        markets: one follower per market; they are asked in this order.
        around: what they share.
    """

    def __init__(self, markets: list[MarketFollower], around: Surroundings):
        self.markets, self._around = markets, around
        self._failures = 0  # polls in a row that failed
        self._missing = 0  # polls in a row that lacked a candle
        self._skewed: str | None = None

    def run(self, stop: threading.Event) -> None:
        """Follow until `stop`, or until a replay has ended."""
        feed = self._around.feed
        while not stop.is_set() and not feed.has_ended():
            feed.pause(self.poll(stop), stop)
        log.info("stopped" if stop.is_set() else "the replay has ended")

    def poll(self, stop: threading.Event) -> float:
        """Record what is due in all markets; return the seconds until the next poll."""
        complete, problem = True, None
        try:
            self._around.feed.synchronise()
            self._mind_the_clock()
        except (KronosError, OSError, sqlite3.Error) as error:
            problem = error
        for market in self.markets if problem is None else []:
            try:
                complete = market.advance() and complete
            except (KronosError, OSError, sqlite3.Error) as error:  # the other markets go on
                problem = error
            if stop.is_set():
                return 0.0
        if problem is not None:
            return self._failed(problem)
        self._recovered()
        self._missing = 0 if complete else self._missing + 1
        return self._until_next_close() if complete else self._until_missing()

    def _until_next_close(self) -> float:
        now = self._around.feed.now()
        closes = [market.newest_closed() + 2 * market.account.step for market in self.markets]
        return max(0.0, (min(closes) - now).total_seconds()) + DELAY

    def _until_missing(self) -> float:
        longest = MISSING * min(market.account.step for market in self.markets).total_seconds()
        return float(min(SHORTEST * 2.0 ** min(self._missing - 1, 10), max(SHORTEST, longest)))

    def _failed(self, problem: Exception) -> float:
        """Tell of the first failure in a row; return the pause before the next attempt."""
        if not self._failures:
            log.warning("no candles or no record: %s", problem)
            self._tell("alarm", {"what": "outage", "reason": " ".join(str(problem).split())[:300]})
        self._failures += 1
        return float(min(LONGEST, SHORTEST * 2.0 ** min(self._failures - 1, 10)))

    def _recovered(self) -> None:
        if self._failures:
            log.info("candles come again after %d attempts", self._failures)
            self._tell("notice", {"what": "recovered", "reason": f"after {self._failures} attempts"})
        self._failures = 0

    def _mind_the_clock(self) -> None:
        """Tell when the local clock has come to differ from the exchange's, or agrees with it again."""
        skew = self._around.feed.skew
        level = "alarm" if abs(skew) > ALARM else "notice" if abs(skew) > NOTICE else None
        if level != self._skewed:
            reason = f"the local clock differs from the exchange's by {skew:+.1f} s; closes follow the exchange's"
            self._tell(level or "notice", {"what": "clock", "reason": reason})
            log.warning("%s", reason)
        self._skewed = level

    def _tell(self, kind: str, content: dict[str, str]) -> None:
        """Append an event for each market, if the record can be written."""
        time: pd.Timestamp = self._around.feed.now()
        try:
            with self._around.record.transaction():
                for market in self.markets:
                    event = Event(symbol=market.account.symbol, time=time, kind=kind, content=content)
                    self._around.record.put_event(event)
        except sqlite3.Error as error:
            log.warning("the record cannot be written: %s", error)
