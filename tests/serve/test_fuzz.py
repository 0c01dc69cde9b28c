"""Bodies that nobody thought of: valid candles are always forecast, broken ones never, and nothing breaks the service.

`make fuzz` runs more cases.
"""

import json
import os

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

from kronos_lightning.serve.app import create_app
from tests.helpers.service import client_of, rows, service_of

CASES = int(os.environ.get("FUZZ_CASES", "4"))  # a case of schemathesis per operation and phase
BODIES = int(os.environ.get("FUZZ_BODIES", "200"))
KEY = "fuzzing-secret-16"
JSON = {"Content-Type": "application/json"}
QUIET = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True, "database": None}


@pytest.fixture(scope="module")
def fuzzed(checkpoint):
    with client_of(service_of(checkpoint)) as client:
        yield client


@pytest.fixture(scope="module")
def operations(checkpoint):
    """All operations of the schema of a service with a key, by method and path."""
    service = service_of(checkpoint, keys=f"admin:{KEY}")
    schema = schemathesis.openapi.from_asgi("/openapi.json", create_app(service))
    return [found.ok() for found in schema.get_all_operations()]


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_no_call_of_the_schema_breaks_the_service_or_the_schema(mode, operations):
    assert len(operations) >= 9
    for operation in operations:
        try:
            strategy = operation.as_strategy(generation_mode=mode)
        except Unsatisfiable:  # nothing about it can be wrong
            continue

        @settings(max_examples=CASES, **QUIET)
        @given(case=strategy)
        def call(case):
            case.call_and_validate(headers={"X-API-Key": KEY})
            if case.operation.path.startswith(("/v1", "/btc", "/admin")):
                assert case.call(headers={"X-API-Key": "wrong"}).status_code == 401

        try:
            call()
        except Unsatisfiable:
            continue


price = st.floats(1e-6, 1e8, allow_nan=False)


@st.composite
def candles(draw):
    """Valid candles of a market nobody has seen, with any zone."""
    count = draw(st.integers(2, 12))
    zone = draw(st.sampled_from(["Z", "+00:00", "+05:30", "-11:00"]))
    hour = {"Z": 0, "+00:00": 0, "+05:30": 5, "-11:00": -11}[zone]
    minute = ":30" if zone == "+05:30" else ":00"
    found = []
    for i in range(count):
        low, *body, high = sorted(draw(st.lists(price, min_size=4, max_size=4)))
        local = 13 + i + hour
        stamp = f"2024-03-{1 + local // 24:02d}T{local % 24:02d}{minute}:00{zone}"
        candle = {"timestamp": stamp, "open": body[0], "close": body[1], "high": high, "low": low}
        found.append(candle | {"volume": draw(st.floats(0, 1e12)), "amount": draw(st.floats(0, 1e20))})
    return found


@settings(max_examples=max(10, BODIES // 10), **QUIET)
@given(body=candles())
def test_valid_candles_are_always_forecast(body, fuzzed):
    response = fuzzed.post("/btc/predict", json={"candles": body, "num_paths": 2, "horizon": 2})
    assert response.status_code == 200, response.text


def _set(name, value):
    def change(body, index):
        body["candles"][index % len(body["candles"])][name] = value
        return body

    return change


def _drop(body, index):
    del body["candles"][1 + index % (len(body["candles"]) - 2)]
    return body


def _double(body, index):
    place = index % len(body["candles"])
    body["candles"].insert(place, body["candles"][place])
    return body


def _swap(body, index):
    place = index % (len(body["candles"]) - 1)
    pair = body["candles"][place : place + 2]
    body["candles"][place : place + 2] = pair[::-1]
    return body


def _without(body, index):
    del body["candles"][index % len(body["candles"])]["close"]
    return body


MUTATIONS = {
    "nan": _set("close", float("nan")),
    "infinite": _set("high", float("inf")),
    "negative": _set("low", -1.0),
    "zero": _set("open", 0),
    "huge": _set("high", 1e300),
    "text": _set("close", "64000"),
    "boolean": _set("close", True),
    "null": _set("close", None),
    "list": _set("close", [1]),
    "unicode": _set("timestamp", "２０２４-01-01T00:00:00Z"),
    "naive time": _set("timestamp", "2024-04-25T01:00:00"),
    "number as time": _set("timestamp", 1714000000),
    "time as digits": _set("timestamp", "1714000000"),
    "another zone": _set("timestamp", "2024-04-25T01:00:00+13:45"),
    "impossible date": _set("timestamp", "2024-02-31T00:00:00Z"),
    "far year": _set("timestamp", "9999-12-31T23:00:00-12:00"),
    "negative volume": _set("volume", -0.5),
    "unknown key": _set("colour", "red"),
    "impossible candle": _set("low", 9e8),
    "gap": _drop,
    "double": _double,
    "order": _swap,
    "missing column": _without,
}


@settings(max_examples=BODIES, **QUIET)
@given(name=st.sampled_from(sorted(MUTATIONS)), index=st.integers(0, 19), data=st.data())
def test_a_broken_body_is_never_forecast_and_never_breaks_the_service(name, index, data, fuzzed):
    body = MUTATIONS[name]({"candles": rows(count=20), "num_paths": 2, "horizon": 2}, index)
    text = json.dumps(body)
    if data.draw(st.booleans()):  # more of JSON than Python's NaN
        text = text.replace("NaN", "1e400").replace("Infinity", "1e999")
    response = fuzzed.post("/btc/predict", content=text.encode(), headers=JSON)
    assert response.status_code in (409, 422), response.text
    assert set(response.json()["error"]) == {"code", "message", "hint", "request_id"}


@settings(max_examples=max(50, BODIES // 2), **QUIET)
@given(content=st.one_of(st.binary(max_size=300), st.text(max_size=300).map(str.encode), st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=9), lambda inner: st.lists(inner) | st.dictionaries(
        st.text(max_size=9), inner), max_leaves=20).map(lambda value: json.dumps(value).encode())))  # fmt: skip
def test_any_bytes_are_refused_in_the_one_form(content, fuzzed):
    response = fuzzed.post("/btc/predict", content=content, headers=JSON)
    assert response.status_code in (404, 409, 422), response.text  # 404: no candles at all
    assert response.json()["error"]["request_id"]


@pytest.mark.parametrize(
    "content", [b"[" * 200_000, b'{"candles":' * 5_000, b"\xff\xfe", b'{"candles": [], "candles": 1}']
)
def test_deep_and_malformed_json_is_refused(content, fuzzed):
    assert fuzzed.post("/btc/predict", content=content, headers=JSON).status_code == 422
