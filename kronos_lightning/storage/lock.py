"""Locks of places that one process may write to at a time; a lock ends with its process, however that ends."""

import json
import logging
import os
import socket
import time
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from kronos_lightning.errors import KronosError

from .names import LOCK

ATTEMPTS, PAUSE = 40, 0.05  # to read who holds a lock: attempts, and seconds between them

log = logging.getLogger(__name__)


class InUseError(KronosError, RuntimeError):
    """Error if another process writes to the same place; the message names the process."""


class Lock(AbstractContextManager["Lock"]):
    """Exclusive use of a file or folder, for all processes of this project on all machines that share it.

    The lock is a hidden file next to the place, which holds the process and the time. The file stays there, unless the
    holder ends without having made the place: then nothing of it is left, nor of the folders made for it. Processes
    that the holder starts do not hold the lock, not even forked ones.

    Args:
        place: the file or folder; it need not exist.
        advice: end of the error message, what to do; unused with `wait`.
        wait: wait for the other process, instead of raising an error.
    """

    def __init__(self, place: Path, advice: str = "", wait: bool = False):
        self.place, self.advice, self.wait = place, advice, wait
        whole = place.resolve()
        self.path = whole.with_name(f".{whole.name}{LOCK}")
        self._lock = FileLock(self.path, timeout=0, on_acquired=_sign)
        self._made: list[Path] = []  # folders that were made for the lock, the innermost first

    def __enter__(self) -> "Lock":
        """Take the lock.

        Raises:
            InUseError: another process holds it, and `wait` is False.
        """
        self._made = [folder for folder in self.path.parents if not folder.exists()]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout:
            if not self.wait:
                raise InUseError(f"{self.place}: in use by {self.holder()}; wait until it ends{self.advice}") from None
            log.info("%s: waiting for %s", self.place, self.holder())
            self._lock.acquire(timeout=-1)
        return self

    def __exit__(self, *error: object) -> None:
        """Release the lock."""
        if not self.wait and not self.place.exists():  # nobody waits for this file
            self.path.unlink(missing_ok=True)
            with suppress(OSError):  # not empty
                for folder in self._made:
                    folder.rmdir()
        self._lock.release()

    def holder(self) -> str:
        """Describe the process that holds the lock."""
        for _ in range(ATTEMPTS):
            try:
                content = json.loads(self.path.read_text())
                host = "" if content["host"] == socket.gethostname() else f" on {content['host']}"
                return f"process {content['pid']}{host} since {content['since']}"
            except (OSError, ValueError, KeyError, TypeError):  # the holder is just writing it
                time.sleep(PAUSE)
        return "another process"


def _sign(descriptor: int) -> None:
    since = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
    content = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}).encode()
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, content, 0)
