"""Endpoints of Binance's market data and limits of their use; `conf/binance` explains every key."""

from typing import Annotated, Literal

from pydantic import Field

from kronos_lightning.settings import Count, NotNegative, Positive, Section

Url = Annotated[str, Field(pattern=r"^https?://[^/]+(/.*)?[^/]$")]


class Endpoints(Section):
    """Hosts for candle downloads, with time-outs, retries and limits."""

    source: Literal["auto", "archive", "rest"]
    archive_url: Url
    rest_url: Url
    connect_timeout: Positive
    read_timeout: Positive
    retries: Annotated[int, Field(ge=0)]
    backoff: Positive
    longest_wait_seconds: NotNegative
    weight_per_minute: Count
    parallel_requests: Annotated[int, Field(gt=0, le=32)]
    proxy: Url | None
