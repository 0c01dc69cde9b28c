"""Answers of the service: equal to the evaluation's decisions, and honest about what is not comparable."""

from datetime import datetime, timedelta

import numpy as np
import pytest

from kronos_lightning.config.validation import ConfigError
from kronos_lightning.pipeline.decision_settings import DecisionSettings
from kronos_lightning.pipeline.loaded_model import load_model
from kronos_lightning.pipeline.signals import decisions
from kronos_lightning.serve.evaluations import StoredForecasts, read_file
from tests.helpers.evaluated import HOURS, THRESHOLDS, btc_hours, calibration_of, evaluated_at, evaluated_checkpoint
from tests.helpers.service import NOW, client_of, rows, service_of


def predict(client, candles=None, path="/btc/predict", status=200, **more):
    body = {"candles": rows() if candles is None else candles} | more
    response = client.post(path, json=body)
    assert response.status_code == status, response.text
    return response.json()


def differences(answer, decision):
    """Names of what an answer tells otherwise than a decision."""
    equal = {
        "signal": answer["signal"] == decision.signal or answer["at_threshold"],
        "return": abs(answer["expected_return"] - decision.expected_return) <= 1e-6,
        "price": answer["predicted_price"] == pytest.approx(decision.predicted_price, rel=1e-6),
        "thresholds": answer["thresholds"]["values"] == decision.thresholds,
        "cutoff": datetime.fromisoformat(answer["cutoff"]) == decision.cutoff,
        "confidence": answer["confidence"] == pytest.approx(decision.confidence, abs=1e-6),
        "comparable": answer["comparable"],
    }
    return [name for name, same in equal.items() if not same]


@pytest.fixture(scope="module")
def evaluated(checkpoint):
    """What evaluate.py decides at a row of the golden hours."""
    model = load_model(checkpoint, "cpu")

    def at(row):
        sampled = evaluated_at(btc_hours(), np.array([row]), model.plain, model.decision)
        return decisions(sampled.calibrated(model.calibration), model.strategy)[0]

    return at


@pytest.mark.parametrize("row", [150, 280])
def test_the_service_decides_as_the_evaluation_did(row, client, evaluated):
    assert differences(predict(client, rows(row)), evaluated(row)) == []


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ("seed name", "return"),
        ("amount", "comparable"),
        ("lookback", "comparable"),
        ("unfinished candle", "cutoff"),
        ("threshold", "thresholds"),
    ],
)
def test_a_break_between_service_and_evaluation_would_be_seen(change, seen, client, evaluated, tmp_path, monkeypatch):
    if change == "seed name":
        monkeypatch.setattr("kronos_lightning.pipeline.signals.cutoff_name", str)
        expected = evaluated(280)
        found = predict(client, rows(280))
    elif change == "threshold":
        strategy = THRESHOLDS | {"buy_threshold": 0.0199}
        evaluated_checkpoint(tmp_path, calibration_of(), strategy=strategy)
        with client_of(service_of(tmp_path)) as other:
            found, expected = predict(other, rows(280)), evaluated(280)
    else:
        bodies = {
            "amount": rows(280, amount=False),
            "lookback": rows(280, count=89),
            "unfinished candle": rows(281),
        }
        found, expected = predict(client, bodies[change]), evaluated(280)
    assert seen in differences(found, expected)


def test_what_is_not_as_in_the_evaluation_is_told_and_not_calibrated(client):
    usual = predict(client)
    assert usual["comparable"]
    assert usual["overrides"] == {}
    assert usual["calibration"]["reason_if_not"] is None
    assert usual["amount"] == "given"
    made = predict(client, rows(amount=False))
    assert (made["amount"], made["comparable"], made["calibrated"]) == ("made", False, True)
    other = predict(client, path="/v1/DOGEUSDT/predict")
    assert (other["confidence"], other["calibrated"], other["overrides"]) == (None, False, {"symbol": "DOGEUSDT"})
    assert "symbol BTCUSDT" in other["calibration"]["reason_if_not"]
    few = predict(client, rows(count=40))
    assert (few["confidence"], few["overrides"]) == (None, {"lookback": 40})
    far = predict(client, horizon=13)
    assert (far["confidence"], far["horizon"], far["calibrated"]) == (None, 13, True)
    assert predict(client, num_paths=5)["overrides"] == {"num_paths": 5}


def test_without_a_calibration_confidence_is_null(tmp_path):
    evaluated_checkpoint(tmp_path)
    with client_of(service_of(tmp_path)) as client:
        found = predict(client)
    assert found["confidence"] is None
    assert found["calibration"]["reason_if_not"] == "the evaluation fitted no calibration"


def test_more_candles_than_the_lookback_change_nothing(client):
    few, many = predict(client), predict(client, rows(count=200))
    assert few == many | {"timestamp": few["timestamp"]}


def test_the_numbers_of_an_answer_fit_together(client):
    found = predict(client)
    assert found["predicted_price"] / found["last_close"] - 1 == pytest.approx(found["expected_return"], rel=1e-9)
    assert found["quantiles"]["0.5"][-1] == pytest.approx(found["predicted_price"])
    assert all(len(prices) == found["horizon"] for prices in found["quantiles"].values())
    assert found["touch"]["down"] + found["touch"]["up"] + found["touch"]["neither"] == pytest.approx(1)
    hours = [datetime.fromisoformat(found[name]) for name in ("cutoff", "cutoff_close", "target")]
    assert [hours[1] - hours[0], hours[2] - hours[1]] == [timedelta(hours=1), timedelta(hours=12)]
    assert found["age_s"] == (NOW - hours[1]).total_seconds() == 0
    assert found["confidence"] == pytest.approx(
        max(found["probability_up_calibrated"], 1 - found["probability_up_calibrated"])
    )
    assert len(found["candles_sha256"]) == 64
    assert "RANDOM WEIGHTS" in found["notices"][0]


def test_old_candles_are_forecast_with_their_age(client):
    found = predict(client, rows(200))
    assert found["age_s"] == 99 * 3600
    assert "closed 4 days ago" in found["notices"][-1]


def unfinished():
    candles = rows()
    return [*candles, candles[-1] | {"timestamp": NOW.isoformat()}]


def test_an_unfinished_candle_is_refused_or_dropped_on_request(client):
    assert predict(client, unfinished(), status=409)["error"]["code"] == "unfinished_candle"
    dropped = predict(client, unfinished(), path="/btc/predict?drop_unfinished=true")
    assert dropped["cutoff"] == predict(client)["cutoff"]
    assert "had not closed" in dropped["notices"][1]


def changed(index, **values):
    candles = rows()
    candles[index] |= values
    return candles


@pytest.mark.parametrize(
    ("candles", "told"),
    [
        (lambda: rows()[:50] + rows()[51:], ["candles[50].timestamp", "2h after candles[49]", "after the last gap"]),
        (lambda: [*rows()[:51], *rows()[50:]], ["candles[51].timestamp", "is there twice"]),
        (lambda: rows()[::-1], ["candles[1].timestamp", "is before candles[0]", "oldest candle first"]),
        (lambda: rows()[::2], ["the candles are 2h apart, not 1h", "set interval"]),
        (lambda: changed(7, high=1.0), ["index 7, column high", "high is below"]),
        (lambda: changed(7, high=2e6, low=1e6), ["index 7, column low"]),
        (lambda: changed(3, amount=None), ["candles[3].amount", "Give all amounts or none"]),
        (lambda: changed(0, timestamp="0001-01-01T00:00:00Z"), ["candles[0].timestamp", "1970 to 2199"]),
    ],
    ids=["gap", "double", "order", "interval", "high", "low", "amount", "year"],
)
def test_candles_that_cannot_be_forecast_are_refused_with_place_and_way_out(candles, told, client):
    error = predict(client, candles(), status=409)["error"]
    assert error["code"] == "candles_refused"
    assert all(part in f"{error['message']} {error['hint']}" for part in told), error


def test_another_interval_is_forecast_without_calibration(client):
    found = predict(client, rows()[::2], interval="2h")
    assert (found["interval"], found["confidence"], found["comparable"]) == ("2h", None, False)


def test_without_candles_in_the_body_those_of_the_file_are_forecast(checkpoint):
    candles = read_file(HOURS, DecisionSettings.of(checkpoint))
    with client_of(service_of(checkpoint, candles=candles)) as client:
        found = client.post("/v1/BTCUSDT/predict", json={}).json()
        assert found | {"timestamp": None} == predict(client) | {"timestamp": None}
        assert client.post("/v1/BTCUSDT/predict").json()["signal"] == found["signal"]
        assert client.post("/v1/ETHUSDT/predict").status_code == 404
        shown = client.get("/v1/candles?limit=3").json()
        assert [one["close"] for one in shown] == btc_hours().frame["close"].tail(3).tolist()


def test_a_file_of_another_interval_is_told_at_the_start(checkpoint):
    decision = DecisionSettings.of(checkpoint).model_copy(update={"interval": "4h"})
    with pytest.raises(ValueError, match="candles are 1h apart") as error:
        read_file(HOURS, decision)
    assert not isinstance(error.value, ConfigError)


def test_the_forecasts_of_the_evaluation_are_shown_and_their_candles_forecast(checkpoint, tmp_path):
    model, row = load_model(checkpoint, "cpu"), 150
    sampled = evaluated_at(btc_hours(), np.array([*range(row, 270, 10)]), model.plain, model.decision)
    sampled.calibrated(model.calibration).save(tmp_path)
    model.decision.save(tmp_path)
    stored = StoredForecasts.load(tmp_path)
    with client_of(service_of(checkpoint, stored=stored, candles=stored.candles())) as client:
        listed = client.get("/v1/evaluation").json()
        assert listed["matches_model"]
        assert len(listed["forecasts"]) == 12
        one = client.get("/v1/evaluation/11").json()
        assert one["signal"] == listed["forecasts"][11]["signal"]
        assert [candle["close"] for candle in one["actual"]] == btc_hours().frame["close"].iloc[261:273].tolist()
        assert one["known"][-1]["close"] == one["last_close"]
        newest = client.post("/v1/BTCUSDT/predict").json()
        assert newest["last_close"] == btc_hours().frame["close"][272]
        assert client.get("/v1/evaluation/12").json()["error"]["code"] == "no_forecast"
