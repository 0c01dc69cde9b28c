"""The tools for language models say what the API says, and only read."""

import asyncio

import httpx
import pytest

from kronos_lightning.serve.app import create_app
from kronos_lightning.serve.evaluations import read_file
from tests.helpers.evaluated import HOURS
from tests.helpers.service import ORIGIN, rows, service_of

pytest.importorskip("mcp")

from mcp import Client

from kronos_lightning.serve.mcp import build_server


@pytest.fixture(scope="module")
def ask(checkpoint):
    service = service_of(checkpoint)
    service.candles = read_file(HOURS, service.models.current.decision)
    app = create_app(service)

    def call(*calls):
        async def run():
            transport = httpx.ASGITransport(app=app)
            async with (
                httpx.AsyncClient(transport=transport, base_url=ORIGIN) as http,
                Client(build_server(http)) as one,
            ):
                tools = (await one.list_tools()).tools
                found = [await one.call_tool(name, arguments) for name, arguments in calls]
                answer = (await http.post("/btc/predict", json={"candles": rows()})).json()
                return tools, found, answer

        return asyncio.run(run())

    return call


def test_three_tools_that_only_read(ask):
    tools, _, _ = ask()
    assert {one.name for one in tools} == {"latest_forecast", "forecast_candles", "track_record"}
    assert all(one.annotations.read_only_hint for one in tools)


def test_the_tools_answer_with_the_numbers_of_the_api(ask):
    _, (latest, given, record), answer = ask(
        ("latest_forecast", {"symbol": "BTCUSDT"}),
        ("forecast_candles", {"symbol": "BTCUSDT", "candles": rows()}),
        ("track_record", {}),
    )
    for one in (latest, given):
        content = one.structured_content
        assert content["expected_return"] == pytest.approx(answer["expected_return"], abs=1e-6)
        assert content["interval_90"]["0.95"] == pytest.approx(answer["quantiles"]["0.95"][-1])
        assert "RANDOM WEIGHTS" in content["notices"][0]
    assert "no edge" in record.structured_content["verdict"][0]
    assert record.structured_content["random_weights"]


def test_a_refusal_is_told_in_words(ask):
    _, (refused,), _ = ask(("forecast_candles", {"symbol": "BTCUSDT", "candles": rows()[::-1]}))
    assert refused.is_error
    assert "oldest candle first" in refused.content[0].text


def test_a_symbol_cannot_lead_to_another_path(ask):
    _, (refused,), _ = ask(("latest_forecast", {"symbol": "../admin/reload?"}))
    assert refused.is_error
