"""Many requests at once: the same answers, a bounded queue, and an event loop that stays free."""

import asyncio
import threading
from dataclasses import replace

import httpx
import numpy as np
import pytest

from kronos_lightning.serve.app import create_app
from kronos_lightning.serve.errors import ServiceError
from tests.helpers.evaluated import calibration_of, evaluated_checkpoint
from tests.helpers.paths import GOLDEN
from tests.helpers.service import ORIGIN, client_of, rows, service_of


async def together(app, bodies, clients, *, path="/btc/predict", beside=None):
    """Send bodies from several clients at once; returns the responses in their order."""
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url=ORIGIN, timeout=120) as client:
        waiting, answers = list(enumerate(bodies)), [None] * len(bodies)

        async def one():
            while waiting:
                i, body = waiting.pop(0)
                answers[i] = await client.post(path, json=body)

        await asyncio.gather(*(one() for _ in range(clients)), *([] if beside is None else [beside(client)]))
    return answers


def bodies(count):
    return [{"candles": rows(120 + i % 40), "num_paths": 5 + i % 2} for i in range(count)]


def test_answers_of_batches_equal_the_single_ones(checkpoint):
    service = service_of(checkpoint)
    single = service_of(checkpoint, models=service.models, max_batch=1, wait=0.0)
    sizes = []
    service.batcher.measured = lambda size, seconds: sizes.append(size)
    healthy = []

    async def look(client):
        for _ in range(10):
            healthy.append((await client.get("/healthz")).status_code)

    asked = bodies(32)
    found = asyncio.run(together(create_app(service), asked, 24, beside=look))
    alone = asyncio.run(together(create_app(single), asked, 1))
    assert [one.status_code for one in found] == [200] * len(asked)
    assert max(sizes) > 1
    assert healthy == [200] * 10
    for one, other in zip(found, alone, strict=True):
        assert one.json()["cutoff"] == other.json()["cutoff"]
        assert one.json()["expected_return"] == pytest.approx(other.json()["expected_return"], abs=1e-6)
        assert one.json()["signal"] == other.json()["signal"] or one.json()["at_threshold"]


@pytest.fixture
def held(checkpoint, monkeypatch):
    """A service whose model waits until it is let go, with room for two requests in the queue."""
    go = threading.Event()
    from kronos_lightning.serve import batching

    real = batching.decide_together

    def late(*arguments):
        assert go.wait(60)
        return real(*arguments)

    monkeypatch.setattr(batching, "decide_together", late)
    yield service_of(checkpoint, max_queue=2, max_batch=1, wait=0.0), go
    go.set()


async def until(condition):
    for _ in range(3000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come to this")


def test_a_full_queue_answers_429_and_says_when_to_try_again(held):
    service, go = held

    async def fill(client):
        send = [asyncio.create_task(client.post("/btc/predict", json=bodies(1)[0]))]
        await until(lambda: service.batcher.busy)
        send += [asyncio.create_task(client.post("/btc/predict", json=bodies(1)[0])) for _ in range(2)]
        await until(lambda: service.batcher.waiting == 2)
        refused = await client.post("/btc/predict", json=bodies(1)[0])
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
        assert refused.headers["Retry-After"] == "1"
        assert (await client.get("/healthz")).status_code == 200  # while the model is busy
        go.set()
        assert [one.status_code for one in await asyncio.gather(*send)] == [200, 200, 200]

    asyncio.run(together(create_app(service), [], 0, beside=fill))


def test_the_end_of_the_service_answers_what_waits(held):
    service, go = held

    async def end(client):
        await until(lambda: service.batcher.waiting == 1)
        closing = threading.Thread(target=service.batcher.close)
        closing.start()
        go.set()
        await asyncio.to_thread(closing.join, 30)

    found = asyncio.run(together(create_app(service), bodies(2), 2, beside=end))
    assert [one.status_code for one in found] == [200, 200]
    assert not service.batcher._thread.is_alive()


def test_a_forecast_that_fails_does_not_fail_the_others_of_its_batch(checkpoint, monkeypatch):
    from kronos_lightning.serve import batching

    real = batching.decide_together

    def sometimes(series, *arguments):
        if any(one.last_close > 66_400 for one in series):
            raise RuntimeError("broken")
        return real(series, *arguments)

    monkeypatch.setattr(batching, "decide_together", sometimes)
    asked = [{"candles": rows(row), "num_paths": 2} for row in range(224, 248)]
    expected = [503 if body["candles"][-1]["close"] > 66_400 else 200 for body in asked]
    assert 0 < expected.count(503) < len(expected)
    found = asyncio.run(together(create_app(service_of(checkpoint)), asked, 24))
    assert [one.status_code for one in found] == expected


def test_a_forecast_that_is_not_a_number_is_503_and_counted(checkpoint, monkeypatch):
    from kronos_lightning.serve import batching

    real = batching.decide_together
    broken = lambda *arguments: [replace(one, paths=np.full_like(one.paths, np.nan)) for one in real(*arguments)]  # noqa: E731
    monkeypatch.setattr(batching, "decide_together", broken)
    with client_of(service_of(checkpoint)) as client:
        response = client.post("/btc/predict", json=bodies(1)[0])
        assert (response.status_code, response.json()["error"]["code"]) == (503, "model_failed")
        assert "kronos_model_failures_total 1.0" in client.get("/metrics").text


def other_predictor(folder):
    """A predictor with other weights than the golden one."""
    from kronos_lightning import Kronos

    network = Kronos.from_pretrained(GOLDEN / "tiny-predictor")
    for parameter in network.parameters():
        parameter.data.mul_(1.1)
    network.save_pretrained(folder)
    return folder


def test_a_reload_under_load_fails_no_request_and_mixes_no_models(tmp_path):
    first = evaluated_checkpoint(tmp_path / "model", calibration_of())
    service = service_of(tmp_path / "model")
    old = service.models.current
    asked = [{"candles": rows(200), "num_paths": 5}] * 96
    other = other_predictor(tmp_path / "other")

    async def reload(client):
        await until(lambda: service.batcher.busy)
        second = evaluated_checkpoint(tmp_path / "model", calibration_of(slope=0.4), other, horizon=10)
        assert second.weights != first.weights
        assert (await client.post("/admin/reload")).status_code == 200

    found = asyncio.run(together(create_app(service), asked, 16, beside=reload))
    assert [one.status_code for one in found] == [200] * len(asked)
    answers = [one.json() for one in found]
    by_model = {}
    for one in answers:
        by_model.setdefault(one["model"]["id"], []).append(one)
    assert set(by_model) == {old.id, service.models.current.id}
    for name, some in by_model.items():
        assert {one["horizon"] for one in some} == {12 if name == old.id else 10}
        np.testing.assert_allclose([one["expected_return"] for one in some], some[0]["expected_return"], atol=1e-6)


@pytest.mark.parametrize("damage", ["weights", "decision", "calibration"])
def test_a_reload_that_fails_keeps_the_old_model(damage, tmp_path):
    evaluated_checkpoint(tmp_path, calibration_of())
    with client_of(service_of(tmp_path)) as client:
        before = client.post("/btc/predict", json=bodies(1)[0]).json()
        if damage == "weights":
            other = other_predictor(tmp_path / "other")
            (tmp_path / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
        elif damage == "decision":
            (tmp_path / "decision.json").write_text("{}")
        else:
            calibration_of(slope=0.1).save(tmp_path)
        response = client.post("/admin/reload")
        assert (response.status_code, response.json()["error"]["code"]) == (409, "reload_failed")
        after = client.post("/btc/predict", json=bodies(1)[0]).json()
        assert before["model"] == after["model"]
        assert before["expected_return"] == after["expected_return"]
        assert client.get("/readyz").status_code == 200


def test_two_reloads_at_once_are_one(checkpoint):
    models = service_of(checkpoint).models
    with models._loading, pytest.raises(ServiceError) as error:
        models.reload()
    assert (error.value.status, error.value.code) == (409, "reload_running")
