"""ASGI middleware around every request: identity, keys, limits, size of the body, headers, log line and metrics."""

import asyncio
import json
import logging
import re
import time
import uuid
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .access import Keys, RateLimit, host_name, is_loopback
from .errors import ServiceError, answer
from .metrics import Metrics

log = logging.getLogger("serve.access")

BODY_SECONDS = 30.0  # for a whole body, so that slow senders do not hold connections
GUARDED = ("/v1/", "/btc/", "/admin/")
REQUEST_ID = re.compile(rb"[\w.-]{1,64}", re.ASCII)
SECURITY = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Gateway:
    """Middleware that sees every request first and every answer last.

    Args:
        app: the application.
        keys: API keys.
        limit: rate limit by caller.
        max_body: maximum bytes of a body, counted while it arrives.
        metrics: counters of the app.
    """

    def __init__(self, app: ASGIApp, keys: Keys, limit: RateLimit, max_body: int, metrics: Metrics):
        self.app, self.keys, self.limit, self.max_body, self.metrics = app, keys, limit, max_body, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers, started = dict(scope["headers"]), time.perf_counter()
        scope["request_id"] = _request_id(headers)
        exchange = _Exchange(scope, receive, send, self.max_body)
        try:
            self._admit(scope, headers)
            await self.app(scope, exchange.receive, exchange.send)
        except ServiceError as error:
            await exchange.answer(error)
        except Exception:
            log.exception("request %s failed", scope["request_id"])
            if not exchange.started:
                hint = "Report this with the request_id; the service's log has the details."
                await exchange.answer(ServiceError(500, "internal", "the service failed", hint))
        finally:
            self._told(scope, exchange.status, time.perf_counter() - started)

    def _admit(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        """Raise the `ServiceError` of a request that is not let in."""
        path, client = scope["path"], scope["client"]
        if not self.keys and not is_loopback(host_name(headers.get(b"host", b"localhost"))):
            raise ServiceError(  # a page of another site that had its name point here
                403, "forbidden_host", "without keys only local names are served", "Use localhost or set keys."
            )
        if path.startswith(GUARDED):
            caller = self.keys.caller(headers) if self.keys else "local"
            if caller is None:
                raise ServiceError.of(401)
            scope["caller"] = caller
            if not self.limit.admits(caller if self.keys else str(client and client[0])):
                raise ServiceError(429, "rate_limited", "too many requests", "Slow down.",
                                   {"Retry-After": self.limit.retry_after})  # fmt: skip
        if scope["method"] != "POST":
            return
        origin, host = headers.get(b"origin"), headers.get(b"host", b"")
        if origin is not None and origin.partition(b"://")[2] != host:
            raise ServiceError(403, "forbidden_origin", "requests from pages of other sites are not served",
                               "Call the service from its own page or from a program.")  # fmt: skip
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self.max_body:
            raise ServiceError.of(413)
        has_body = length != b"0" or b"transfer-encoding" in headers
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if has_body and kind != b"application/json":
            raise ServiceError.of(415)

    def _told(self, scope: Scope, status: int, seconds: float) -> None:
        """Log and count an answer."""
        route = getattr(scope.get("route"), "path", "other")
        self.metrics.requests.labels(route, str(status)).inc()
        self.metrics.seconds.labels(route).observe(seconds)
        told: dict[str, Any] = {
            "request_id": scope["request_id"],
            "method": scope["method"],
            "route": route,
            "status": status,
            "seconds": round(seconds, 4),
            "caller": scope.get("caller"),
        }
        log.info(json.dumps(told))


class _Exchange:
    """One request and its answer: counts the body, remembers the status, adds headers."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, max_body: int):
        self.scope, self._receive, self._send, self._left = scope, receive, send, max_body
        self.started, self.status = False, 500
        self._complete, self._deadline = False, time.monotonic() + BODY_SECONDS

    async def receive(self) -> Message:
        if self._complete:  # what follows is the end of the connection, which may take as long as it likes
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), self._deadline - time.monotonic())
        except TimeoutError:
            raise HTTPException(408) from None
        self._complete = not message.get("more_body", False)
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise HTTPException(413)  # the one exception that FastAPI lets through while it reads a body
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started, self.status = True, message["status"]
            more = {"X-Request-ID": self.scope["request_id"], **SECURITY}
            known = {name.lower() for name, _ in message["headers"]}
            message["headers"] = [
                *message["headers"],
                *(
                    (name.encode(), value.encode())
                    for name, value in more.items()
                    if name.lower().encode() not in known
                ),
            ]
        await self._send(message)

    async def answer(self, error: ServiceError) -> None:
        await answer(error, self.scope["request_id"])(self.scope, self.receive, self.send)


def _request_id(headers: dict[bytes, bytes]) -> str:
    given = headers.get(b"x-request-id", b"")
    return given.decode() if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
