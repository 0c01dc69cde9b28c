"""Application: the endpoints and the parts behind them."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal

import pandas as pd
from fastapi import APIRouter, Body, FastAPI, Path, Query, Request, Response, Security
from fastapi.responses import PlainTextResponse
from fastapi.security import APIKeyHeader
from starlette.concurrency import run_in_threadpool

import kronos_lightning
from kronos_lightning.data import Candles
from kronos_lightning.live.operation import LiveOperation
from kronos_lightning.pipeline.loaded_model import LoadedModel, ModelRecord
from kronos_lightning.pipeline.signals import Decision

from .access import ADMIN, Keys, RateLimit
from .answers import model_answer, prediction
from .batching import Batcher, ForecastJob
from .errors import ServiceError, handle_errors
from .evaluations import StoredForecasts, shown
from .gateway import Gateway
from .incoming import Origin, Prepared, prepare, table
from .live_metrics import show_live
from .live_routes import live_router
from .live_view import LiveView
from .messages import (
    EvaluationAnswer,
    Health,
    KnownCandle,
    ModelAnswer,
    PastForecast,
    Prediction,
    PredictRequest,
)
from .metrics import Metrics
from .model_holder import ModelHolder
from .openapi import responses
from .pages import add_pages

log = logging.getLogger("serve")

Symbol = Annotated[str, Path(pattern=r"^[A-Z0-9]{2,20}$", examples=["BTCUSDT"])]
Unfinished = Annotated[bool, Query(description="Leave out the last candle if it has not closed, and say so.")]


@dataclass(kw_only=True, eq=False)
class Service:
    """Parts of a running service.

    models: the model in use.
    batcher: thread that runs it.
    keys, limit, max_body: see `Gateway`.
    candles: candles of a file or of the evaluation, forecast when a request has none; None = none.
    stored: forecasts of the last evaluation; None = not shown.
    live: record of a follower; None = none.
    operation: follower in this process; None = none, or in another process.
    clock: the current time.
    ends: returns True as soon as the server has been asked to end; it waits for open streams.
    """

    models: ModelHolder
    batcher: Batcher
    metrics: Metrics
    keys: Keys
    limit: RateLimit
    max_body: int = 2**20
    candles: Candles | None = None
    stored: StoredForecasts | None = None
    live: LiveView | None = None
    operation: LiveOperation | None = None
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ends: Callable[[], bool] = lambda: False
    stopping: bool = False

    async def predict(self, symbol: str, request: PredictRequest | None, drop_unfinished: bool) -> Prediction:
        """Answer a request with the model that is in use now."""
        model, asked = self.models.current, request or PredictRequest()
        prepared = await run_in_threadpool(self._prepared, asked, symbol, model, drop_unfinished)
        job = ForecastJob(
            model=model,
            series=prepared.series,
            num_paths=prepared.num_paths,
            calibrated=prepared.calibrated,
        )
        try:
            decision = await self.batcher.decide(job)
        except ServiceError as error:
            if error.status == 503:
                self.metrics.failures.inc()
            raise
        return await run_in_threadpool(self.answered, decision, prepared, model, self._now(asked, symbol))

    def answered(
        self, decision: Decision, origin: Origin, model: ModelRecord, now: datetime, record_id: int | None = None
    ) -> Prediction:
        """Build the answer to a request, with what the record knows of such forecasts."""
        track = None
        if self.live is not None and self.live.follows(origin.symbol):
            number, found = self.live.track(origin.symbol)
            track = found if number == model.id else None
        return prediction(decision, origin, model, now, track, record_id)

    def _prepared(self, request: PredictRequest, symbol: str, model: LoadedModel, drop_unfinished: bool) -> Prepared:
        candles, now = self._candles(request, symbol, model), self._now(request, symbol)
        return prepare(request, candles, symbol, model.decision, now, drop_unfinished)

    def _now(self, request: PredictRequest, symbol: str) -> datetime:
        """Return the current time; for the follower's candles that of its exchange, or of its replay."""
        if request.candles is None and self.live is not None and self.live.follows(symbol):
            return self.live.now()
        return self.clock()

    def described(self) -> ModelAnswer:
        """Describe the model in use and what the service can show."""
        live = None
        if self.live is not None:
            symbol, followed = self.models.current.decision.symbol, self.live.symbols
            live = symbol if symbol in followed or not followed else followed[0]
        return model_answer(self.models.current, self.candles is not None, self.stored is not None, live)

    def is_fresh(self) -> bool:
        """Return True if no followed market is without its newest decision; also without a follower."""
        if self.live is None:
            return True
        symbols = self.live.symbols
        return bool(symbols) and not any(self.live.state(symbol).stale for symbol in symbols)

    def _candles(self, request: PredictRequest, symbol: str, model: LoadedModel) -> pd.DataFrame:
        if request.candles is not None:
            return table(request.candles)
        if self.live is not None and self.live.follows(symbol):
            return self.live.candles(symbol, model.decision.lookback).rename_axis("index")
        if self.candles is None or symbol != self.candles.symbol:
            raise ServiceError(
                404, "no_candles", f"this service has no candles of {symbol}", "Send candles in the body."
            )
        return self.candles.frame.rename_axis("index")


def create_app(service: Service) -> FastAPI:
    """Build the application of a service."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.metrics.use(service.models.current.id)
        if service.operation is not None:
            service.operation.start()
        yield
        service.stopping = True
        if service.operation is not None:
            await run_in_threadpool(service.operation.close)
        await run_in_threadpool(service.batcher.close)
        if service.live is not None:
            service.live.close()

    app = FastAPI(
        title="kronos_lightning",
        version=kronos_lightning.__version__,
        description="Forecasts and decisions of a fine-tuned Kronos. Not investment advice.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        separate_input_output_schemas=False,
    )
    handle_errors(app)
    key = Security(APIKeyHeader(name="X-API-Key", auto_error=False, description="Checked before all else."))
    app.include_router(_predictions(service), dependencies=[key])
    app.include_router(_information(service), dependencies=[key])
    app.include_router(live_router(service), dependencies=[key])
    app.include_router(_operation(service))
    add_pages(app, service.keys)
    app.add_middleware(
        Gateway, keys=service.keys, limit=service.limit, max_body=service.max_body, metrics=service.metrics
    )
    return app


def _predictions(service: Service) -> APIRouter:
    router = APIRouter(tags=["forecasts"])
    codes = responses(401, 404, 408, 409, 413, 415, 422, 429, 503)
    request_body = Annotated[PredictRequest | None, Body()]

    @router.post("/btc/predict", responses=codes)
    async def predict_btc(request: request_body = None, drop_unfinished: Unfinished = False) -> Prediction:
        """Forecast BTCUSDT after the candles in the body: the guide's endpoint."""
        return await service.predict("BTCUSDT", request, drop_unfinished)

    @router.post("/v1/{symbol}/predict", responses=codes)
    async def predict(symbol: Symbol, request: request_body = None, drop_unfinished: Unfinished = False) -> Prediction:
        """Forecast a market after the candles in the body, or after those of the service's file."""
        return await service.predict(symbol, request, drop_unfinished)

    return router


def _information(service: Service) -> APIRouter:
    router = APIRouter(tags=["model"])

    @router.get("/v1/model", responses=responses(401, 429))
    async def model() -> ModelAnswer:
        """Describe the model: hashes, settings of its decisions, calibration, verdict of the last evaluation."""
        return service.described()

    @router.post("/admin/reload", responses=responses(401, 403, 408, 409, 413, 415, 429))
    async def reload(request: Request) -> ModelAnswer:
        """Load the checkpoint again and exchange the model between two batches; needs the key named admin."""
        if service.keys and request.scope["caller"] != ADMIN:
            raise ServiceError.of(403)
        try:
            found = await run_in_threadpool(service.models.reload)
        except ServiceError as error:
            service.metrics.reloads.labels(error.code).inc()
            raise
        service.metrics.reloads.labels("ok").inc()
        service.metrics.use(found.id)
        return service.described()

    @router.get("/v1/candles", responses=responses(401, 404, 422, 429))
    async def candles(limit: Annotated[int, Query(ge=1, le=2000)] = 200) -> list[KnownCandle]:
        """Return the last candles of the service's file, or those that the follower knows."""
        if service.live is not None and (symbol := service.described().live) in service.live.symbols:
            found = await run_in_threadpool(service.live.candles, str(symbol), limit)
            return shown(found.set_axis(pd.DatetimeIndex(found["timestamps"]).tz_localize(None), axis=0))
        if service.candles is None:
            raise ServiceError(
                404, "no_candles", "this service has no candles", "Start with candles=FILE or report=DIR."
            )
        frame = service.candles.frame.tail(limit)
        return shown(frame.set_axis(pd.DatetimeIndex(frame["timestamps"]).tz_localize(None), axis=0))

    @router.get("/v1/evaluation", responses=responses(401, 404, 429))
    async def evaluation() -> EvaluationAnswer:
        """List the forecasts of the last evaluation."""
        stored = _stored(service)
        return await run_in_threadpool(stored.summary, service.models.current)

    @router.get("/v1/evaluation/{number}", responses=responses(401, 404, 422, 429))
    async def past_forecast(number: Annotated[int, Path(ge=0, le=10**6)]) -> PastForecast:
        """Return a forecast of the last evaluation with the candles before it and those that came."""
        stored = _stored(service)
        if number >= len(stored):
            raise ServiceError(404, "no_forecast", f"there are {len(stored)} forecasts", "Count from 0.")
        return await run_in_threadpool(stored.one, number)

    return router


def _stored(service: Service) -> StoredForecasts:
    if service.stored is None:
        raise ServiceError(404, "no_evaluation", "this service shows no evaluation", "Start with report=DIR.")
    return service.stored


def _operation(service: Service) -> APIRouter:
    router = APIRouter(tags=["operation"])

    @router.get("/healthz")
    async def healthz() -> Health:
        """Answer while the process runs, whatever the model does."""
        return Health(status="ok", model=service.models.current.id)

    @router.get("/readyz", responses={503: {"model": Health}})
    async def readyz(response: Response) -> Health:
        """Answer 200 if requests are served and every followed market is fresh, else 503."""
        fresh = await run_in_threadpool(service.is_fresh)
        status: Literal["ok", "stale", "stopping"] = (
            "stopping" if service.stopping or service.ends() else "ok" if fresh else "stale"
        )
        if status != "ok":
            response.status_code = 503
        return Health(status=status, model=service.models.current.id)

    @router.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> PlainTextResponse:
        """Return the metrics in Prometheus's format."""
        service.metrics.waiting.set(service.batcher.waiting)
        if service.live is not None:
            await run_in_threadpool(show_live, service.metrics, service.live)
        return PlainTextResponse(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return router
