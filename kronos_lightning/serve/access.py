"""API keys, the cookie of the dashboard, and the rate limit."""

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie

from limits import parse
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from kronos_lightning.errors import KronosError

COOKIE, HEADER, ADMIN = "kronos_key", b"x-api-key", "admin"
LOOPBACK = {"localhost", "127.0.0.1", "::1", "[::1]"}
MIN_SECRET = 16


class ServeError(KronosError, ValueError):
    """Error for settings with which the service cannot start; the message says what to do."""


class Keys:
    """API keys by name; without any, every local client may do everything.

    Args:
        text: content of KRONOS_API_KEYS, ``name:secret`` separated by commas; the name admin may reload.

    Raises:
        ServeError: the text is malformed, or a secret is short.
    """

    def __init__(self, text: str | None):
        self._secrets: dict[str, bytes] = {}
        for entry in filter(None, (part.strip() for part in (text or "").split(","))):
            name, _, secret = entry.partition(":")
            if not re.fullmatch(r"[\w.-]{1,32}", name) or name in self._secrets:
                raise ServeError("KRONOS_API_KEYS: write name:secret,name:secret with a different name for each")
            if len(secret) < MIN_SECRET:
                raise ServeError(f"KRONOS_API_KEYS: the secret of {name} has less than {MIN_SECRET} characters")
            self._secrets[name] = secret.encode()

    def __bool__(self) -> bool:
        return bool(self._secrets)

    def name_of(self, secret: bytes) -> str | None:
        """Return the name of a secret, or None; every comparison takes the same time."""
        found = None
        for name, known in self._secrets.items():
            if hmac.compare_digest(known, secret):
                found = name
        return found

    def name_of_cookie(self, token: str) -> str | None:
        """Return the name of the key that a cookie was made from."""
        found = None
        for name, known in self._secrets.items():
            if hmac.compare_digest(self._token(known), token.encode()):
                found = name
        return found

    def token(self, name: str) -> str:
        """Return the content of a key's cookie, from which the key cannot be computed; the same in every replica."""
        return self._token(self._secrets[name]).decode()

    @staticmethod
    def _token(secret: bytes) -> bytes:
        return hmac.new(secret, b"dashboard", hashlib.sha256).hexdigest().encode()

    def caller(self, headers: Mapping[bytes, bytes]) -> str | None:
        """Return the name of the caller from a request's headers; None without a valid key or cookie."""
        if HEADER in headers:
            return self.name_of(headers[HEADER])
        cookie = SimpleCookie()
        try:
            cookie.load(headers.get(b"cookie", b"").decode("latin-1"))
        except CookieError:
            return None
        return self.name_of_cookie(cookie[COOKIE].value) if COOKIE in cookie else None


def check_host(host: str, keys: Keys) -> None:
    """Raise `ServeError` if a service that other machines can reach has no keys."""
    if not keys and not is_loopback(host):
        raise ServeError(
            f"host={host}: other machines could use this service; set KRONOS_API_KEYS=name:secret first, or use "
            "host=127.0.0.1"
        )


def is_loopback(host: str) -> bool:
    """Return True for a name or address of this machine alone."""
    name = host.strip("[]")
    try:
        return name in LOOPBACK or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def host_name(header: bytes) -> str:
    """Return the name in a Host header, without the port."""
    text = header.decode("latin-1").strip().lower()
    return text.rpartition("]")[0] + "]" if text.startswith("[") else text.partition(":")[0]


class RateLimit:
    """Requests that a caller may send in a moving window.

    Args:
        text: such as 600/minute; None = no limit.

    Raises:
        ServeError: the text is malformed.
    """

    def __init__(self, text: str | None):
        try:
            self._limit = None if text is None else parse(text)
        except ValueError as error:
            raise ServeError(f"rate_limit={text}: write a limit such as 600/minute, or null") from error
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def admits(self, caller: str) -> bool:
        """Count a request; return False if it is one too many."""
        return self._limit is None or self._limiter.hit(self._limit, caller)

    @property
    def retry_after(self) -> str:
        """Seconds after which a caller may try again, for the header."""
        return "1" if self._limit is None else str(min(60, self._limit.get_expiry()))
