"""Throughput and memory of the service under 50 clients at once."""

import asyncio
import time

import httpx
import psutil
import pytest

from tests.helpers.evaluated import calibration_of, evaluated_checkpoint
from tests.helpers.service import rows, running

CLIENTS, REQUESTS = 50, 1000


async def load(address, count):
    """Send requests from 50 clients; returns the seconds, the status codes and the expected returns by body."""
    bodies, left = [{"candles": rows(120 + i % 60)} for i in range(60)], iter(range(count))
    codes, found = set(), {}
    async with httpx.AsyncClient(base_url=address, timeout=120) as client:

        async def one():
            for i in left:
                response = await client.post("/btc/predict", json=bodies[i % 60])
                codes.add(response.status_code)
                found[i % 60] = response.json()["expected_return"]

        started = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(CLIENTS)))
        return time.perf_counter() - started, codes, found


@pytest.mark.benchmark
def test_batches_answer_more_requests_than_single_forecasts_and_memory_stays(tmp_path):
    evaluated_checkpoint(tmp_path, calibration_of())
    seconds, returns = {}, {}
    for size in (1, 32):
        with running(f"checkpoint={tmp_path}", f"max_batch={size}", cwd=tmp_path) as (address, process):
            asyncio.run(load(address, 200))
            before = psutil.Process(process.pid).memory_info().rss
            seconds[size], codes, returns[size] = asyncio.run(load(address, REQUESTS))
            asyncio.run(load(address, 2000 - 200 - REQUESTS))
            after = psutil.Process(process.pid).memory_info().rss
            assert codes == {200}
            assert after <= 1.1 * before
    print(f"{REQUESTS / seconds[1]:.0f} requests a second singly, {REQUESTS / seconds[32]:.0f} in batches")
    assert seconds[1] / seconds[32] >= 1.3
    assert returns[32] == pytest.approx(returns[1], abs=1e-6)
