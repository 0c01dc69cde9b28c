"""Delivery of the outbox: a message is posted to the webhook until it is taken, a bounded number of times.

A process that is killed between the answer and the note of it sends the message again; the receiver knows by the header
Idempotency-Key that it has acted on it.
"""

import logging
import sqlite3
import threading

import requests

from .record import LiveRecord

URL = "KRONOS_WEBHOOK_URL"  # environment variable
IDLE = 0.2  # seconds between two looks into an empty outbox
NEXT = 1e-3  # seconds between two messages that were taken
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 300.0  # seconds after a failure; the pause doubles

log = logging.getLogger("live")


class Deliverer:
    """Sender of the messages, one after the other so that they arrive in order.

    Args:
        record: record with the outbox.
        url: address of the webhook.
        timeout: seconds for an answer.
        attempts: attempts for a message; then it is given up, and the next one is sent.
        first_pause: seconds after the first failure.
    """

    def __init__(self, record: LiveRecord, url: str, timeout: float, attempts: int, first_pause: float = FIRST_PAUSE):
        self._record, self._url, self._timeout, self._attempts = record, url, timeout, attempts
        self._first_pause = first_pause

    def run(self, stop: threading.Event) -> None:
        """Deliver until `stop`, and then what is still there, unless the webhook fails."""
        while not stop.is_set():
            stop.wait(self.deliver() or IDLE)
        while self.deliver() == NEXT:
            pass

    def deliver(self) -> float:
        """Send the oldest message that waits; return the seconds until the next attempt, 0 if there is no message."""
        waiting = self._record.messages(limit=1)
        if not waiting:
            return 0.0
        key, body, attempts = waiting[0]
        problem = self._post(key, body)
        state = "sent" if problem is None else "failed" if attempts + 1 >= self._attempts else "waiting"
        try:
            with self._record.transaction():
                self._record.set_message(key, state, attempts + 1)
        except sqlite3.Error as error:  # a full disk; the receiver will get the message again
            log.warning("webhook %s: not noted in the record (%s)", key, error)
        if problem is None:
            return NEXT
        log.warning("webhook %s: %s%s", key, problem, "; given up" if state == "failed" else "")
        return min(LONGEST_PAUSE, self._first_pause * 2.0**attempts)

    def _post(self, key: str, body: str) -> str | None:
        """Post a message; return what went wrong, without the address, which may hold a secret."""
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        try:
            answer = requests.post(
                self._url, data=body.encode(), headers=headers, timeout=self._timeout, allow_redirects=False
            )
        except requests.RequestException as error:
            return type(error).__name__
        return None if answer.ok else f"status {answer.status_code}"
