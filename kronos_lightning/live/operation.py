"""Live operation from its settings: one follower for a record, its webhook, and their end."""

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import pandas as pd
import torch

from kronos_lightning.config.sections import LiveSection
from kronos_lightning.pipeline.loaded_model import LoadedModel, ModelRecord
from kronos_lightning.settings import as_utc, parse_interval
from kronos_lightning.storage import Lock

from .database import RecordError
from .feeds import Feed, ReplayFeed
from .follower import DELAY, Follower
from .market import MarketFollower, Surroundings
from .models import remember_model
from .outbox import URL, Deliverer
from .paper import Terms
from .record import Account, LiveRecord

HALT = "HALT"  # file beside the record that halts trading while it exists
CLOCK = "clock"

log = logging.getLogger("live")


class LiveOperation:
    """Follower and webhook in threads.

    Args:
        settings: settings of the live operation; the clock is exchange or replay.
        symbols: markets to follow.
        feed: where candles come from.
        model: returns the model in use.
        threads: torch threads of the follower.

    Raises:
        InUseError: another process follows with this record.
        RecordError: the record is none, or was begun with other settings.
    """

    def __init__(
        self,
        settings: LiveSection,
        symbols: Sequence[str],
        feed: Feed,
        model: Callable[[], LoadedModel],
        threads: int = 1,
    ):
        self._stop, self._feed, self._threads = threading.Event(), feed, threads
        url = os.environ.get(URL)
        path = Path(settings.record)
        with ExitStack() as stack:  # closes what was opened if the rest cannot be
            stack.enter_context(Lock(path, ". Or set live.record to another file"))
            record = LiveRecord(path, write=True)
            stack.callback(record.close)
            decision = model().decision
            accounts = accounts_of(symbols, decision.interval, settings.account)
            _check_clock(record, settings.clock)
            for account in accounts:
                Terms.of(decision, settings.initial_equity).open(record, account)
            around = Surroundings(
                record=record,
                feed=feed,
                model=_remembering(record, model),
                halted=lambda: settings.halt or path.with_name(HALT).exists(),
                webhook=url is not None,
            )
            self.follower = Follower([MarketFollower(account, around) for account in accounts], around)
            self._stack = stack.pop_all()
        self._threads_of_work = [threading.Thread(target=self.run, name="follower", daemon=True)]
        if url is not None:
            sender = Deliverer(record, url, settings.webhook_timeout, settings.webhook_attempts)
            self._threads_of_work.append(
                threading.Thread(target=sender.run, args=(self._stop,), name="webhook", daemon=True)
            )

    def run(self) -> None:
        """Follow until the end is asked for, or until a replay has ended."""
        torch.set_num_threads(self._threads)
        try:
            self.follower.run(self._stop)
        except Exception:
            log.exception("the follower has ended; the newest decision will become stale")

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads_of_work:
            thread.start()

    def wait(self) -> None:
        """Wait until the follower has ended."""
        self._threads_of_work[0].join()

    def stop(self) -> None:
        """Ask for the end; the close that is being recorded is finished."""
        self._stop.set()
        self._feed.close()

    def close(self, timeout: float = 10.0) -> None:
        """End, and close the record."""
        self.stop()
        for thread in self._threads_of_work:
            if thread.is_alive():
                thread.join(timeout)
        self._stack.close()


def accounts_of(symbols: Sequence[str], interval: str, name: str) -> list[Account]:
    """Return the account of each market."""
    step = parse_interval(interval)
    return [Account(symbol=symbol, interval=interval, step=step, name=name) for symbol in symbols]


def replay_feed(
    frames: Mapping[str, pd.DataFrame], decision_interval: str, lookback: int, settings: LiveSection
) -> ReplayFeed:
    """Build the feed of a replay; it begins where the record ends, or at the first close with the whole lookback.

    Args:
        frames: candles by symbol.
        decision_interval, lookback: of the model.
        settings: settings of the live operation.

    Raises:
        RecordError: there are fewer candles than the lookback.
    """
    step, opens = parse_interval(decision_interval), []
    for symbol, frame in frames.items():
        if len(frame) < lookback:
            raise RecordError(f"live.clock=replay: {len(frame)} candles of {symbol}, {lookback} are needed at least")
        first = frame["timestamps"].iloc[lookback - 1]
        opens.append(first if settings.start is None else max(first, as_utc(settings.start) - step))
    path = Path(settings.record)
    if path.is_file():
        record = LiveRecord(path)
        newest = [record.newest(one) for one in accounts_of(list(frames), decision_interval, settings.account)]
        opens = [last.cutoff + step for last in newest if last is not None] or opens
        record.close()
    begin = min(opens) + step + pd.Timedelta(DELAY, "s")
    return ReplayFeed(frames, decision_interval, step, begin, settings.speed)


def _check_clock(record: LiveRecord, clock: str) -> None:
    """Keep replays and live decisions in different records."""
    found = record.meta(CLOCK)
    if found is None:
        with record.transaction():
            record.set_meta(CLOCK, clock)
    elif found != clock:
        raise RecordError(f"{record.path}: holds decisions of live.clock={found}; set live.record to another file")


def _remembering(record: LiveRecord, model: Callable[[], LoadedModel]) -> Callable[[], LoadedModel]:
    """Return the model in use, and store what a reader must know of it when it changes."""
    known: set[str] = set()
    used = model()

    def current() -> LoadedModel:
        nonlocal used
        found = model()
        if found.decision.interval != used.decision.interval:
            log.warning("the new model decides on candles of %s: not followed", found.decision.interval)
            return used
        used = found
        if found.id not in known:
            remember_model(record, ModelRecord(id=found.id, decision=found.decision, calibration=found.calibration))
            known.add(found.id)
        return found

    return current
