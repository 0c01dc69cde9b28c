"""Who may ask, how much, and in which form every error is answered."""

import json
import logging

import anyio
import pytest

from kronos_lightning.serve import gateway
from kronos_lightning.serve.access import Keys, RateLimit, ServeError, check_host
from kronos_lightning.serve.app import create_app
from kronos_lightning.serve.logs import JsonLines
from tests.helpers.service import client_of, rows, service_of

SECRET, ADMIN = "a-secret-of-sixteen", "another-secret-16"
KEYS = f"desk:{SECRET},admin:{ADMIN}"


@pytest.fixture(scope="module")
def locked(checkpoint):
    with client_of(service_of(checkpoint, keys=KEYS, max_body=200_000)) as client:
        yield client


def is_error(response, status, code):
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error["code"] == code
    assert set(error) == {"code", "message", "hint", "request_id"}
    assert error["request_id"] == response.headers["X-Request-ID"]
    assert error["hint"]
    return True


def test_without_a_valid_key_nothing_is_read_or_told(locked):
    assert is_error(locked.post("/btc/predict", content=b"{", headers={"Content-Type": "x"}), 401, "unauthorized")
    for path in ("/v1/model", "/v1/candles", "/v1/evaluation", "/v1/nothing"):
        assert is_error(locked.get(path), 401, "unauthorized")
    assert is_error(locked.get("/v1/model", headers={"X-API-Key": SECRET + "x"}), 401, "unauthorized")
    assert locked.get("/v1/model", headers={"X-API-Key": SECRET}).status_code == 200
    assert locked.get("/healthz").status_code == locked.get("/readyz").status_code == 200


def test_only_the_admin_key_reloads(locked):
    assert is_error(locked.post("/admin/reload", headers={"X-API-Key": SECRET}), 403, "forbidden")
    assert locked.post("/admin/reload", headers={"X-API-Key": ADMIN}).status_code == 200


def test_the_dashboard_takes_a_key_once_as_a_cookie_that_does_not_hold_it(locked):
    assert 'data-locked="true"' in locked.get("/").text
    assert is_error(locked.post("/login", json={"key": "wrong"}), 401, "unauthorized")
    response = locked.post("/login", json={"key": SECRET})
    cookie = response.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert SECRET not in cookie
    assert locked.get("/v1/model").status_code == 200
    assert 'data-locked="false"' in locked.get("/").text
    locked.cookies.clear()
    assert locked.get("/v1/model", headers={"Cookie": "kronos_key=forged; x"}).status_code == 401


@pytest.mark.parametrize("text", ["x", "x:short", f"a:{SECRET},a:{ADMIN}", f"a b:{SECRET}"])
def test_malformed_keys_stop_the_start(text):
    with pytest.raises(ServeError, match="KRONOS_API_KEYS") as error:
        Keys(text)
    assert SECRET not in str(error.value)


def test_other_machines_are_not_served_without_keys():
    for host in ("127.0.0.1", "localhost", "::1"):
        check_host(host, Keys(None))
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org"):
        check_host(host, Keys(KEYS))
        with pytest.raises(ServeError, match="KRONOS_API_KEYS"):
            check_host(host, Keys(None))


def test_without_keys_a_page_of_another_site_reaches_nothing(client):
    assert is_error(client.get("/v1/model", headers={"Host": "evil.example"}), 403, "forbidden_host")
    foreign = {"Origin": "https://evil.example"}
    assert is_error(client.post("/admin/reload", headers=foreign), 403, "forbidden_origin")
    assert client.post("/admin/reload", headers={"Origin": "http://localhost:8000"}).status_code == 200
    assert "Access-Control-Allow-Origin" not in client.get("/v1/model", headers=foreign).headers


def chunks(count, size=10_000):
    """A body in chunks, without its length."""
    yield from [b" " * size] * count
    yield b"{}"


def test_a_large_body_is_refused_while_it_arrives(locked):
    headers = {"X-API-Key": SECRET, "Content-Type": "application/json"}
    for content in (b" " * 50_000_000, chunks(30)):
        assert is_error(locked.post("/btc/predict", content=content, headers=headers), 413, "body_too_large")
    assert locked.post("/btc/predict", content=chunks(5), headers=headers).status_code == 404  # {}: no candles


SCOPE = {
    "type": "http", "method": "POST", "path": "/btc/predict", "raw_path": b"/btc/predict", "query_string": b"",
    "headers": [(b"host", b"localhost"), (b"content-type", b"application/json"), (b"transfer-encoding", b"chunked")],
    "client": ("127.0.0.1", 1), "server": ("localhost", 80), "scheme": "http", "http_version": "1.1", "root_path": "",
}  # fmt: skip


def test_a_body_that_does_not_arrive_is_not_waited_for(checkpoint, monkeypatch):
    app, sent = create_app(service_of(checkpoint)), []
    monkeypatch.setattr(gateway, "BODY_SECONDS", 0.05)

    async def receive():
        await anyio.sleep(3600)

    async def send(message):
        sent.append(message)

    anyio.run(app, dict(SCOPE), receive, send)
    assert sent[0]["status"] == 408
    assert b"body_too_slow" in sent[1]["body"]


def test_the_reading_of_a_large_body_stops(checkpoint):
    """The middleware asks for no more than one chunk beyond the limit."""
    app, asked, sent = create_app(service_of(checkpoint, max_body=25_000)), [], []

    async def receive():
        asked.append(1)
        return {"type": "http.request", "body": b" " * 10_000, "more_body": True}

    async def send(message):
        sent.append(message)

    anyio.run(app, dict(SCOPE), receive, send)
    assert sent[0]["status"] == 413
    assert len(asked) == 3


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "multipart/form-data; boundary=x", None])
def test_a_body_of_another_type_is_refused(kind, client):
    headers = {} if kind is None else {"Content-Type": kind}
    assert is_error(client.post("/btc/predict", content=b"{}", headers=headers), 415, "unsupported_media_type")


def test_unknown_paths_and_methods_have_the_same_form(client):
    assert is_error(client.get("/nothing"), 404, "not_found")
    assert is_error(client.get("/static/..%2f..%2fapp.py"), 404, "not_found")
    assert is_error(client.get("/btc/predict"), 405, "method_not_allowed")
    assert is_error(client.get("/v1/evaluation"), 404, "no_evaluation")
    assert is_error(client.post("/v1/btc-usdt/predict", json={}), 422, "invalid_request")


def test_a_defect_is_told_without_its_traceback(checkpoint, monkeypatch, caplog):
    monkeypatch.setattr("kronos_lightning.serve.app.prepare", lambda *args: 1 / 0)
    with client_of(service_of(checkpoint)) as client:
        response = client.post("/btc/predict", json={"candles": rows()})
    assert is_error(response, 500, "internal")
    assert "ZeroDivisionError" not in response.text
    assert "ZeroDivisionError" in caplog.text


def test_too_many_requests_of_one_key_are_told_to_wait(checkpoint):
    with client_of(service_of(checkpoint, keys=KEYS, limit="3/minute")) as client:
        found = [client.get("/v1/model", headers={"X-API-Key": SECRET}) for _ in range(4)]
        assert [one.status_code for one in found] == [200, 200, 200, 429]
        assert is_error(found[-1], 429, "rate_limited")
        assert int(found[-1].headers["Retry-After"]) >= 1
        assert client.get("/v1/model", headers={"X-API-Key": ADMIN}).status_code == 200
    with pytest.raises(ServeError, match="rate_limit=many"):
        RateLimit("many")


def test_every_request_is_logged_as_a_json_line_with_its_id_and_without_secrets(checkpoint, caplog):
    caplog.set_level(logging.INFO, "serve.access")
    with client_of(service_of(checkpoint, keys=KEYS)) as client:
        client.post("/btc/predict", json={"candles": rows()}, headers={"X-API-Key": SECRET, "X-Request-ID": "mine-1"})
        given = client.get("/v1/model", headers={"X-API-Key": SECRET, "X-Request-ID": "bad id\n"})
    assert given.headers["X-Request-ID"] != "bad id\n"
    record = next(one for one in caplog.records if "mine-1" in one.getMessage())
    line = json.loads(JsonLines().format(record))
    assert line["request_id"] == "mine-1"
    assert (line["route"], line["status"], line["caller"]) == ("/btc/predict", 200, "desk")
    assert SECRET not in caplog.text


def test_metrics_count_requests_batches_and_the_model(client):
    client.post("/btc/predict", json={"candles": rows()})
    text = client.get("/metrics").text
    assert 'kronos_requests_total{route="/btc/predict",status="200"}' in text
    assert "kronos_batch_size_count" in text
    assert "kronos_queue_length 0.0" in text
    assert f'kronos_model_loaded{{id="{client.get("/healthz").json()["model"]}"}} 1.0' in text


def test_pages_carry_a_policy_that_allows_no_other_host(client):
    for path in ("/", "/docs", "/static/dashboard.js", "/static/plotly.js"):
        response = client.get(path)
        assert response.status_code == 200
        assert "default-src 'self'" in response.headers["Content-Security-Policy"]
        assert "unsafe" not in response.headers["Content-Security-Policy"]


def test_the_schema_tells_every_code_with_an_example(client):
    schema = client.get("/openapi.json").json()
    codes = schema["paths"]["/btc/predict"]["post"]["responses"]
    assert {"200", "401", "409", "413", "415", "422", "429", "503"} <= set(codes)
    for code, about in codes.items():
        if code != "200":
            assert about["content"]["application/json"]["example"]["error"]["hint"]
            assert about["content"]["application/json"]["schema"]["$ref"].endswith("ErrorAnswer")
    assert schema["components"]["schemas"]["PredictRequest"]["examples"]
