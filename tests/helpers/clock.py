"""A clock for tests of waiting: no second passes but those that somebody waits."""

import threading
from types import SimpleNamespace

from kronos_lightning.data.sources.binance import http


class Clock:
    """Stands in for the clock of the download client and for what its threads wait with."""

    def __init__(self, monkeypatch, now=0.0):
        self.now, self.waits, self._lock = now, [], threading.Lock()
        clock = self

        class Event(threading.Event):
            def wait(self, seconds=None):
                clock._pass(seconds)
                return self.is_set()

        monkeypatch.setattr(http, "time", SimpleNamespace(time=lambda: self.now, monotonic=lambda: self.now))
        parts = {"Event": Event, "Lock": threading.Lock, "local": threading.local}
        monkeypatch.setattr(http, "threading", SimpleNamespace(**parts))

    def _pass(self, seconds):
        with self._lock:
            self.waits.append(seconds)
            self.now += seconds
