"""Start and graceful end of the service."""

import logging
import os
import signal
import sys
from pathlib import Path
from types import FrameType

import torch
import uvicorn

from kronos_lightning.config.schema import Serving
from kronos_lightning.config.sections import LiveSection
from kronos_lightning.data import Candles
from kronos_lightning.live.feeds import ExchangeFeed, Feed
from kronos_lightning.live.operation import LiveOperation, replay_feed
from kronos_lightning.pipeline.decision_settings import DecisionSettings

from .access import Keys, RateLimit, ServeError, check_host
from .app import Service, create_app
from .batching import Batcher
from .evaluations import StoredForecasts, read_file
from .live_view import LiveView
from .logs import JsonLines
from .metrics import Metrics
from .model_holder import ModelHolder

KEYS = "KRONOS_API_KEYS"
GRACE = 10  # seconds in which running requests may finish


def build_service(settings: Serving) -> Service:
    """Load the model and build the parts of the service.

    Raises:
        KronosError: the settings do not allow a start; nothing listens yet.
    """
    keys, limit = Keys(os.environ.get(KEYS)), RateLimit(settings.rate_limit)
    check_host(settings.host, keys)
    torch.set_num_threads(settings.threads)
    models, metrics = ModelHolder(Path(settings.checkpoint), settings.device, settings.trusted_strategy), Metrics()
    decision = models.current.decision
    stored = None if settings.report is None else StoredForecasts.load(Path(settings.report))
    candles = None if stored is None else stored.candles()
    if settings.candles is not None:
        candles = read_file(Path(settings.candles), decision)
    live, operation = None, None
    if settings.live is not None:
        if settings.live.clock != "none":
            feed = _feed(settings, settings.live, decision, candles)
            operation = LiveOperation(settings.live, [decision.symbol], feed, lambda: models.current, settings.threads)
        live = LiveView(settings.live, decision.interval)
    batcher = Batcher(settings.max_batch, settings.max_queue, settings.batch_wait, settings.threads, metrics.batch)
    return Service(
        models=models,
        batcher=batcher,
        metrics=metrics,
        keys=keys,
        limit=limit,
        max_body=settings.max_body,
        candles=candles,
        stored=stored,
        live=live,
        operation=operation,
    )


def _feed(settings: Serving, live: LiveSection, decision: DecisionSettings, candles: Candles | None) -> Feed:
    """Build the feed of a follower inside the service: the exchange, or the candles of the file or the report."""
    if live.clock == "replay":
        if candles is None:
            raise ServeError("live=replay: no candles to replay; set candles=FILE or report=DIR")
        return replay_feed({decision.symbol: candles.frame}, decision.interval, decision.lookback, live)
    if settings.binance is None:
        raise ServeError("binance=null: no exchange to follow; choose servers, live=replay or live=record")
    return ExchangeFeed(settings.binance)


def serve(settings: Serving) -> None:
    """Run the service until SIGTERM or Ctrl-C; running requests are answered first.

    Raises:
        KronosError: the settings do not allow a start.
    """
    _log_json_lines()
    service = build_service(settings)
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(service),
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE,
        )
    )

    service.ends = lambda: server.should_exit

    def stop(signum: int, frame: FrameType | None) -> None:
        """End quietly: uvicorn raises the signal again after its own end."""
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    server.run()
    if not server.started:  # uvicorn has logged why, such as a port in use
        sys.exit(1)


def _log_json_lines() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
