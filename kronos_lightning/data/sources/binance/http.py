"""Polite HTTP client: time-outs, retries with back-off, the exchange's limits and bans, readable errors."""

import itertools
import json
import logging
import math
import random
import threading
import time
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn

import requests
import urllib3

from kronos_lightning.data.sources.binance.endpoints import Endpoints
from kronos_lightning.errors import KronosError

LIMITED = {429, 418}  # 429: too many requests; 418: banned for continuing after 429
SLOWEST = 1_000  # bytes per second; a slower response counts as stalled
LARGEST = 8 * 2**20  # bytes of an answer, unless the request says otherwise
SHORTEST_WAIT, USUAL_WAIT = 1.0, 60.0  # seconds; the limit is counted per minute
MOST_WAITS = 20  # waits that one request may be asked for

log = logging.getLogger(__name__)


class DownloadError(KronosError, RuntimeError):
    """Error for candles that cannot be downloaded; the message says why and what to do."""


class BadRequestError(DownloadError):
    """Error for a request that the exchange does not understand; other hosts would not help."""


class Client:
    """HTTP GET client for several threads at once.

    A limit or ban in one thread pauses all threads, and `stop` ends every wait at once. urllib3's `Retry` can do
    neither, because it sleeps in the thread that failed. It also does not notice a body that arrives too slowly.
    """

    def __init__(self, endpoints: Endpoints):
        self.endpoints = endpoints
        self.requests = 0
        self.exchange_time: int | None = None  # UTC milliseconds, from the newest response
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._not_before = 0.0  # monotonic time
        self._local = threading.local()
        self._dead: dict[str, str] = {}  # hosts that do not answer or refuse, and why; they are not asked again

    def stop(self) -> None:
        """Make every current and future request end with an error."""
        self._stop.set()

    def get(self, url: str, most: int = LARGEST, **parameters: Any) -> bytes | None:
        """Return the body at `url`, or None if it does not exist (404).

        Args:
            url: address without its query.
            most: bytes that the body may have.
            parameters: the query.

        Raises:
            DownloadError: the request was refused, no complete response arrived within the retries, or it is too long.
        """
        service, failure = "/".join(url.split("/", 4)[:4]), ""  # host and first folder
        if service in self._dead:
            raise DownloadError(self._dead[service])
        for attempt in range(self.endpoints.retries + 1):
            if attempt == 2:
                log.info("%s: %s, trying again", service, failure)
            if attempt:
                self._sleep(min(60.0, self.endpoints.backoff * 2 ** (attempt - 1)) * random.uniform(0.5, 1.5))
            try:
                response, body = self._ask(service, url, parameters, most)
            except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
                failure = _plain_text(error)
                continue
            if response.status_code == 200:
                self._mind_the_weight(response)
                return body
            if response.status_code == 404:
                return None
            if response.status_code < 500:
                if response.status_code == 400:
                    raise BadRequestError(_refusal(response, body))
                self._give_up(service, _refusal(response, body))
            failure = f"status {response.status_code} {response.reason}"
        self._give_up(
            service,
            f"{url}: no answer after {self.endpoints.retries + 1} attempts ({failure}); check the network and "
            f"the proxy (HTTPS_PROXY or the setting proxy). Downloaded data is kept; run again to continue",
        )

    def _give_up(self, service: str, reason: str) -> NoReturn:
        """Stop asking this service and raise `DownloadError`."""
        with self._lock:
            if service not in self._dead:
                log.warning("%s", reason)
            self._dead.setdefault(service, reason)
        raise DownloadError(reason)

    def _ask(self, service: str, url: str, parameters: dict[str, Any], most: int) -> tuple[requests.Response, bytes]:
        """Send a request and return the response, after any wait that the exchange asks for."""
        waited = 0.0
        for count in itertools.count(1):
            self._wait_for_turn()
            with self._lock:
                self.requests += 1
            timeouts = self.endpoints.connect_timeout, self.endpoints.read_timeout
            with self._session().get(url, params=parameters, timeout=timeouts, stream=True) as response:
                body = self._read(response, most)
            with suppress(KeyError, ValueError, TypeError, OverflowError):
                self.exchange_time = int(parsedate_to_datetime(response.headers["Date"]).timestamp() * 1000)
            if response.status_code not in LIMITED:
                return response, body
            wait = _retry_after(response)
            waited += wait
            what = "too many requests" if response.status_code == 429 else "banned for too many requests"
            if waited > self.endpoints.longest_wait_seconds or count > MOST_WAITS:
                self._give_up(
                    service,
                    f"{url}: {what} (status {response.status_code}), the exchange asks to wait {wait:g} s "
                    f"(wait {count}); longest_wait_seconds is {self.endpoints.longest_wait_seconds:g}. "
                    f"Run again later; downloaded data is kept",
                )
            log.warning("Binance: %s (status %d), waiting %.0f s as requested", what, response.status_code, wait)
            self._hold(wait)
        raise AssertionError  # the loop has no end

    def _read(self, response: requests.Response, most: int) -> bytes:
        """Read the whole body; raise an error if the body is incomplete or arrives too slowly."""
        parts, size, started = [], 0, time.monotonic()
        while part := response.raw.read1(1 << 16, decode_content=True):  # available data, without waiting for the rest
            parts.append(part)
            size += len(part)
            elapsed = time.monotonic() - started
            if size > most:
                raise DownloadError(
                    f"{response.url.partition('?')[0]}: the answer has more than {most} bytes, which is not what was "
                    f"asked for; check rest_url and archive_url"
                )
            if self._stop.is_set():
                raise DownloadError("stopped")
            if elapsed > self.endpoints.read_timeout and size < SLOWEST * elapsed:
                raise requests.Timeout(f"{size} bytes in {elapsed:.0f} s")
        return b"".join(parts)

    def _mind_the_weight(self, response: requests.Response) -> None:
        """Pause all threads until the end of the minute if its request weight has reached `weight_per_minute`."""
        used = response.headers.get("X-MBX-USED-WEIGHT-1M", "")
        if used.isascii() and used.isdecimal() and len(used) < 10 and int(used) >= self.endpoints.weight_per_minute:
            wait = 60 - time.time() % 60
            log.info("Binance: weight %s of this minute used, waiting %.0f s", used, wait)
            self._hold(wait)

    def _hold(self, seconds: float) -> None:
        with self._lock:
            self._not_before = max(self._not_before, time.monotonic() + seconds)

    def _wait_for_turn(self) -> None:
        while (wait := self._not_before - time.monotonic()) > 0:
            self._sleep(wait)
        self._sleep(0)

    def _sleep(self, seconds: float) -> None:
        if self._stop.wait(seconds) if seconds else self._stop.is_set():
            raise DownloadError("stopped")

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = requests.Session()
            if self.endpoints.proxy:
                session.proxies = {"http": self.endpoints.proxy, "https": self.endpoints.proxy}
        return session


def _retry_after(response: requests.Response) -> float:
    """Return the seconds that the exchange asks to wait; at least `SHORTEST_WAIT`, so that nothing makes it hammer."""
    try:
        wait = float(response.headers["Retry-After"])
    except (KeyError, ValueError):
        return USUAL_WAIT
    return max(SHORTEST_WAIT, wait) if math.isfinite(wait) else USUAL_WAIT


def _refusal(response: requests.Response, body: bytes) -> str:
    """Explain why the exchange refuses the request, and what to do."""
    status = response.status_code
    try:
        answer = json.loads(body)
        code, message = answer.get("code"), str(answer.get("msg"))[:200]
    except (ValueError, AttributeError, RecursionError):
        code, message = None, response.reason
    asked = response.url.partition("?")[0]
    if status == 451:
        return (
            f"{asked}: not available in your region (451: {message}). Use the market-data host "
            f"(rest_url=https://data-api.binance.vision) or the archive only (source=archive)"
        )
    if status == 403:
        return f"{asked}: refused by the exchange's firewall (403); wait a few minutes or use source=archive"
    if code == -1121:
        return f"{asked}: Binance does not know this symbol (-1121: {message}); write it as BTCUSDT"
    if code == -1120:
        return f"{asked}: Binance does not know this interval (-1120: {message})"
    return f"{response.url}: refused (status {status}, {message})"


def _plain_text(error: Exception) -> str:
    """Return the innermost reason of a nested network error as text."""
    inner = error
    while inner.args and isinstance(inner.args[-1], Exception):
        inner = inner.args[-1]
    reason = getattr(inner, "reason", None)
    return " ".join(f"{type(inner).__name__}: {reason or inner}".split())[:200]
