"""Endpoints of the live record."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import pandas as pd
from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime
from starlette.concurrency import run_in_threadpool

from .errors import ServiceError
from .incoming import Origin
from .live_messages import LiveState, PaperAnswer, RecordedForecast, ScoreAnswer, SignalsAnswer
from .live_view import LiveView
from .messages import Prediction
from .openapi import responses

if TYPE_CHECKING:
    from .app import Service

Symbol = Annotated[str, Path(pattern=r"^[A-Z0-9]{2,20}$", examples=["BTCUSDT"])]
Number = Annotated[int, Path(ge=1, le=2**53)]
LOOK = 0.5  # seconds between two looks for new events
ALIVE = 15.0  # seconds after which a silent stream sends a comment
MAX_STREAMS = 100


def live_router(service: "Service") -> APIRouter:
    """Build the endpoints; without a record they answer 404."""
    router, streams = APIRouter(prefix="/v1/{symbol}", tags=["live"]), _Streams()

    def view() -> LiveView:
        if service.live is None:
            raise ServiceError(404, "no_record", "this service follows no market", "Start it with live=exchange.")
        return service.live

    @router.get("/latest", responses=responses(401, 404, 409, 422, 429))
    async def latest(symbol: Symbol) -> Prediction:
        """Return the newest recorded decision; nothing is computed. 409 if it is stale or there was none."""
        return await run_in_threadpool(_latest, service, view(), symbol)

    @router.get("/state", responses=responses(401, 404, 422, 429))
    async def state(symbol: Symbol) -> LiveState:
        """Return how fresh the record is and when the next decision is due."""
        found = view()
        await run_in_threadpool(found.account, symbol)
        return await run_in_threadpool(found.state, symbol)

    @router.get("/signals", responses=responses(401, 404, 422, 429) | {304: {"description": "Not modified."}})
    async def signals(
        symbol: Symbol,
        response: Response,
        since: Annotated[AwareDatetime | None, Query(alias="from", description="First cutoff.")] = None,
        until: Annotated[AwareDatetime | None, Query(alias="to", description="Last cutoff.")] = None,
        cursor: Annotated[int, Query(ge=0, le=2**53, description="next of the page before.")] = 0,
        limit: Annotated[int, Query(ge=1, le=1000)] = 500,
        if_none_match: Annotated[str | None, Header()] = None,
    ) -> SignalsAnswer:
        """Return recorded signals, oldest first, page by page."""
        found = await run_in_threadpool(view().signals, symbol, since, until, cursor, limit)
        tag = f'"{hashlib.sha256(found.model_dump_json().encode()).hexdigest()[:32]}"'
        headers = {"ETag": tag, "Cache-Control": "no-cache"}
        if if_none_match == tag:
            return Response(status_code=304, headers=headers)  # type: ignore[return-value]
        response.headers.update(headers)
        return found

    @router.get("/forecasts/{number}", responses=responses(401, 404, 422, 429))
    async def forecast(symbol: Symbol, number: Number) -> RecordedForecast:
        """Return a recorded forecast with the candles before it and those that came."""
        return await run_in_threadpool(view().forecast, symbol, number)

    @router.get("/score", responses=responses(401, 404, 422, 429))
    async def score(
        symbol: Symbol, window: Annotated[int, Query(ge=1, le=3650, description="Days before the newest close.")] = 90
    ) -> ScoreAnswer:
        """Return how good the live forecasts were."""
        model, found = await run_in_threadpool(view().track, symbol, pd.Timedelta(window, "D"))
        plain = asdict(found)
        plain["skill"] = {name: value for name, value in plain["skill"].items() if value == value}
        return ScoreAnswer(symbol=symbol, model=model, **plain)

    @router.get("/paper", responses=responses(401, 404, 422, 429))
    async def paper(symbol: Symbol) -> PaperAnswer:
        """Return position, trades, equity and halts of the paper account."""
        return await run_in_threadpool(view().paper_answer, symbol)

    @router.get(
        "/events",
        response_class=StreamingResponse,
        responses=responses(401, 404, 422, 429) | {200: {"content": {"text/event-stream": {}}}},
    )
    async def events(
        symbol: Symbol, request: Request, last_event_id: Annotated[str | None, Header()] = None
    ) -> StreamingResponse:
        """Stream candle, forecast, score, trade, revised, notice and alarm; goes on after Last-Event-ID."""
        found = view()
        await run_in_threadpool(found.account, symbol)
        after = int(last_event_id) if last_event_id and last_event_id.isdecimal() and len(last_event_id) < 16 else None
        if after is None:
            after = await run_in_threadpool(found.record.last_event)
        streams.enter()
        return StreamingResponse(
            streams.counted(_stream(service, found, symbol, after, request)),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    return router


class _Streams:
    """Number of open streams; each holds a connection, so that there is a limit."""

    def __init__(self) -> None:
        self.open = 0

    def enter(self) -> None:
        if self.open >= MAX_STREAMS:
            raise ServiceError(429, "too_many_streams", "too many event streams", "Try later.", {"Retry-After": "30"})
        self.open += 1

    async def counted(self, stream: AsyncIterator[str]) -> AsyncIterator[str]:
        try:
            async for part in stream:
                yield part
        finally:
            self.open -= 1


async def _stream(service: "Service", view: LiveView, symbol: str, after: int, request: Request) -> AsyncIterator[str]:
    silent = 0.0
    yield ": events of the record\n\n"
    while not (service.stopping or service.ends()) and not await request.is_disconnected():
        found = await run_in_threadpool(view.record.events, after, symbol)
        for number, event in found:
            body = {"symbol": event.symbol, "time": event.time.isoformat(), "content": event.content}
            yield f"id: {number}\nevent: {event.kind}\ndata: {json.dumps(body)}\n\n"
            after = number
        silent = 0.0 if found else silent + LOOK
        if silent >= ALIVE:
            silent = 0.0
            yield ": alive\n\n"
        await asyncio.sleep(LOOK)


def _latest(service: "Service", view: LiveView, symbol: str) -> Prediction:
    state, newest = view.state(symbol), view.newest(symbol)
    if state.stale:
        raise ServiceError(
            409,
            "stale",
            f"the newest decision is of {newest.cutoff.isoformat()}; a close has passed without one",
            "See readyz and the log of the follower.",
        )
    account = view.account(symbol)
    close = view.record.read_close(account, newest.id)
    if close is None or close.decision is None:
        raise ServiceError(409, "no_decision", f"{newest.status}: {newest.reason}", "Wait for the next close.")
    model = view.model(close.model)
    other = symbol != model.decision.symbol
    overrides: dict[str, Any] = {"symbol": symbol} if other else {}
    notices = [f"Not as in the evaluation: symbol {symbol} instead of {model.decision.symbol}."] * other
    notices += ["This decision came too late to be traded."] * close.late
    notices += ["Trading is halted."] * close.halted
    reason = None if close.decision.up is not None else "the evaluation fitted no calibration for this market"
    origin = Origin(
        symbol=symbol,
        interval=account.step,
        amount_made=False,
        reason=reason,
        overrides=overrides,
        sha256=close.candles_sha256 or "",
        notices=notices,
    )
    return service.answered(close.decision, origin, model, view.now(), record_id=close.id)
