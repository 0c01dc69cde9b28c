"""Errors of the endpoints in the schema, with an example each."""

from typing import Any

from .errors import HINTS, body
from .messages import ErrorAnswer

REFUSED = {
    409: (
        "candles_refused",
        "candles[7].timestamp: … is 0 days 02:00:00 after candles[6]",
        "Send candles without a gap.",
    ),
    429: ("queue_full", "too many requests are waiting", "Try again."),
    503: ("model_failed", "the model gave no forecast", "Try other candles or settings."),
}


def responses(*codes: int) -> dict[int | str, dict[str, Any]]:
    """Describe the errors of an endpoint with an example each."""
    found: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        name, message, hint = REFUSED.get(code) or HINTS[code]
        example = body(name, message, hint, "4f9c2d1ab0e94c0c8b7f2d6a51e3c7d0")
        content: dict[str, Any] = {"application/json": {"example": example}}
        found[code] = {"model": ErrorAnswer, "description": message, "content": content}
        if code == 429:
            found[code]["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}}
    return found
