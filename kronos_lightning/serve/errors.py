"""Errors of the service and the one form in which every error is answered."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

log = logging.getLogger("serve")

HINTS = {
    401: ("unauthorized", "no valid API key", "Send a key in the header X-API-Key."),
    403: ("forbidden", "not allowed", "Use a key with the name admin."),
    404: ("not_found", "no such page", "See /docs for the endpoints."),
    405: ("method_not_allowed", "this path has other methods", "See /docs for the endpoints."),
    408: ("body_too_slow", "the body did not arrive in time", "Send the whole body within 30 seconds."),
    413: ("body_too_large", "the body is larger than this service reads", "Send fewer candles."),
    415: ("unsupported_media_type", "the body is not JSON", "Send the header Content-Type: application/json."),
    422: ("invalid_request", "the body does not have the form of the schema", "See /docs for the schema."),
}
SHOWN_ERRORS = 3


class ServiceError(Exception):
    """Error that a client is told.

    Args:
        status: HTTP status code.
        code: short name for programs, such as ``candles_refused``.
        message: description of the error and its place.
        hint: way out.
        headers: more headers of the answer.
    """

    def __init__(self, status: int, code: str, message: str, hint: str, headers: Mapping[str, str] | None = None):
        super().__init__(message)
        self.status, self.code, self.message, self.hint = status, code, message, hint
        self.headers = dict(headers or {})

    @classmethod
    def of(cls, status: int) -> "ServiceError":
        """Return the usual error of a status code."""
        headers = {"WWW-Authenticate": "ApiKey"} if status == 401 else None
        return cls(status, *HINTS[status], headers=headers)


def body(code: str, message: str, hint: str, request_id: str) -> dict[str, Any]:
    """Build the body of an error."""
    return {"error": {"code": code, "message": message, "hint": hint, "request_id": request_id}}


def answer(error: ServiceError, request_id: str) -> JSONResponse:
    """Build the response to an error."""
    content = body(error.code, error.message, error.hint, request_id)
    return JSONResponse(content, status_code=error.status, headers=error.headers)


def handle_errors(app: FastAPI) -> None:
    """Answer every error of an app in the one form."""

    async def service_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ServiceError)
        return answer(error, request.scope["request_id"])

    async def http_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        status = 422 if error.status_code == 400 else error.status_code  # 400 is FastAPI's word for a broken body
        known = ServiceError.of(status if status in HINTS else 404)
        known.headers |= dict(error.headers or {})
        return answer(known, request.scope["request_id"])

    async def validation_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        found = ServiceError.of(422)
        found.message = described(error.errors())
        return answer(found, request.scope["request_id"])

    app.add_exception_handler(ServiceError, service_error)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(RequestValidationError, validation_error)


def described(errors: Sequence[Any]) -> str:
    """Describe the first errors of a body in one line, without the values that were sent."""
    lines = [f"{'.'.join(str(part) for part in error['loc'])[:200]}: {error['msg']}" for error in errors[:SHOWN_ERRORS]]
    more = f"; and {len(errors) - SHOWN_ERRORS} more" if len(errors) > SHOWN_ERRORS else ""
    return "; ".join(lines) + more
