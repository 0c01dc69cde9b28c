"""Sampling, decoding and the forecaster."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kronos_lightning.data import read_candles
from kronos_lightning.data.candles import time_features
from kronos_lightning.data.formats import FEATURES
from kronos_lightning.forecast import Forecaster, ForecastSet, Sampling
from kronos_lightning.forecast.sampling import draw, token_probabilities
from tests.conftest import GOLDEN

GREEDY = Sampling(temperature=0.0)


@pytest.mark.parametrize(("name", "max_context"), [("greedy_fits", 512), ("greedy_slides", 40)])
def test_greedy_rollout_is_the_references(name, max_context, golden, golden_tokenizer, golden_predictor):
    forecaster = Forecaster(golden_tokenizer, golden_predictor, max_context, sampling=GREEDY)
    x, stamp = golden["x"][:, :48], golden["stamp"]
    paths = forecaster.sample_normalised(x, stamp[:, :48], stamp[:, 48:60], num_paths=1)
    torch.testing.assert_close(paths[:, 0], golden[name], atol=1e-4, rtol=0)


@pytest.mark.parametrize("prices_only", [False, True])
def test_forecast_in_price_units_is_the_references(prices_only, golden_tokenizer, golden_predictor):
    frame = read_candles(GOLDEN / "btc_usdt_1h_rows_500_559.csv", "1h", "BTCUSDT").frame
    values = frame[FEATURES].to_numpy(np.float32, copy=True)
    if prices_only:
        values[:, 4:] = 0
    context, stamp = torch.from_numpy(values)[None, :48], torch.from_numpy(time_features(frame["timestamps"]))[None]
    forecaster = Forecaster(golden_tokenizer, golden_predictor, 512, sampling=GREEDY)
    ours = forecaster.sample_paths(context, stamp[:, :48], stamp[:, 48:], num_paths=1)[0, 0]
    name = "predict_greedy_prices_only.csv" if prices_only else "predict_greedy.csv"
    expected = pd.read_csv(GOLDEN / name)[FEATURES].to_numpy()
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "sampling"),
    [
        ("filter_k0_p0.9", Sampling(0.6, 0, 0.9)),
        ("filter_k4_p1.0", Sampling(0.6, 4, 1.0)),
        ("filter_k0_p0.5", Sampling(0.6, 0, 0.5)),
    ],
)
def test_filtered_probabilities_are_the_references(name, sampling, golden):
    torch.testing.assert_close(token_probabilities(golden["filter_logits"], sampling), golden[name])


@settings(deadline=None)
@given(
    st.floats(0, 3),
    st.integers(0, 12),
    st.floats(0.01, 1),
    st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=10),
)
def test_top_k_and_top_p_compose_to_a_distribution(temperature, top_k, top_p, logits):
    logits = torch.tensor([logits])
    p = token_probabilities(logits, Sampling(temperature, top_k, top_p))
    assert p.sum().item() == pytest.approx(1, abs=1e-4)
    assert logits[p > 0].max() >= logits.max() - 1e-4  # a likeliest token stays
    kept = token_probabilities(logits, Sampling(temperature, top_k, 1.0))
    assert ((p > 0) <= (kept > 0)).all()
    if top_k > 0 and len(set(logits[0].tolist())) == logits.size(1):
        assert (p > 0).sum() <= top_k


def test_sampled_tokens_follow_the_probabilities():
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0]])
    drawn = draw(logits.expand(20_000, -1), Sampling(), torch.Generator().manual_seed(0))
    frequency = torch.bincount(drawn, minlength=4) / 20_000
    torch.testing.assert_close(frequency, logits.softmax(-1)[0], atol=0.015, rtol=0)


@pytest.mark.parametrize("bad", [{"temperature": -1}, {"top_k": -1}, {"top_p": 0}, {"top_p": 1.1}])
def test_impossible_sampling_is_refused(bad):
    with pytest.raises(ValueError, match="temperature and top_k"):
        Sampling(**bad)


@pytest.fixture
def series(candles):
    values = torch.tensor(candles.frame[FEATURES].to_numpy(np.float32))
    stamp = torch.from_numpy(time_features(candles.frame["timestamps"]))
    return values, stamp


def forecast(tokenizer, predictor, series, **options):
    values, stamp = series
    forecaster = Forecaster(tokenizer, predictor, options.pop("max_context", 64), **options)
    generator = torch.Generator().manual_seed(0)
    return forecaster.sample_paths(values[None, :50], stamp[None, :50], stamp[None, 50:56], 4, generator)


def test_when_future_candles_change_then_forecast_is_identical(tiny_tokenizer, tiny_predictor, series):
    before = forecast(tiny_tokenizer, tiny_predictor, series)
    values, stamp = series
    changed = values.clone()
    changed[50:] *= 2
    assert torch.equal(before, forecast(tiny_tokenizer, tiny_predictor, (changed, stamp)))


def test_a_network_in_train_mode_forecasts_as_in_eval_mode_and_stays_in_train_mode(
    tiny_tokenizer, tiny_predictor, series
):
    evaluated = forecast(tiny_tokenizer.eval(), tiny_predictor.eval(), series)
    trained = forecast(tiny_tokenizer.train(), tiny_predictor.train(), series)
    assert torch.equal(evaluated, trained)
    assert tiny_predictor.training
    assert tiny_predictor.transformer[0].ffn.dropout.training


def test_paths_differ_and_repeat_with_the_seed(tiny_tokenizer, tiny_predictor, series):
    paths = forecast(tiny_tokenizer, tiny_predictor, series)
    assert paths.shape == (1, 4, 6, 6)
    assert not torch.equal(paths[0, 0], paths[0, 1])
    assert torch.equal(paths, forecast(tiny_tokenizer, tiny_predictor, series))


def test_candles_before_max_context_do_not_count(tiny_tokenizer, tiny_predictor, series):
    values, stamp = series
    changed = values.clone()
    changed[:10] *= 3
    long, short = (
        forecast(tiny_tokenizer, tiny_predictor, (v, stamp), max_context=40, sampling=GREEDY) for v in (values, changed)
    )
    assert torch.equal(long, short)


def test_trained_positions_change_the_forecast(tiny_tokenizer, tiny_predictor, series):
    plain, positioned = (
        forecast(tiny_tokenizer, tiny_predictor, series, trained_positions=choice) for choice in (False, True)
    )
    assert not torch.equal(plain, positioned)


def test_decoding_with_trained_positions_gives_the_training_logits(tiny_predictor):
    tiny_predictor.eval()
    generator = torch.Generator().manual_seed(0)
    s1, s2 = (torch.randint(0, 8, (2, 15), generator=generator) for _ in range(2))
    _, s2_logits = tiny_predictor(s1, s2, None, s1.roll(-1, 1))
    _, context = tiny_predictor.decode_s1(s1, s2)
    last = tiny_predictor.decode_s2(context, s1.roll(-1, 1)[:, -1:], positions=True)
    torch.testing.assert_close(last[:, 0], s2_logits[:, -1])


def test_tokenizer_and_predictor_of_different_codes_are_refused(golden_tokenizer, tiny_predictor):
    with pytest.raises(ValueError, match="do not belong together"):
        Forecaster(golden_tokenizer, tiny_predictor, 64)


def test_a_forecast_set_survives_the_disk(tmp_path):
    rng = np.random.default_rng(0)
    stamps = np.datetime64("2024-01-01", "ns") + np.arange(20) * np.timedelta64(1, "h")
    written = ForecastSet(
        stamps[:3],
        np.stack([stamps[i + 1 : i + 5] for i in range(3)]),
        rng.random(3),
        rng.random((3, 7, 4, 6), dtype=np.float32),
        rng.random((3, 4, 6)),
    )
    written.save(tmp_path)
    read = ForecastSet.load(tmp_path)
    for name in ("cutoffs", "stamps", "last_close", "paths", "actual"):
        np.testing.assert_array_equal(getattr(read, name), getattr(written, name))
    table = written.table()
    assert len(table) == 12
    row = table[(table["step"] == 2)].iloc[1]
    assert row["close_q95"] == pytest.approx(np.quantile(written.paths[1, :, 1, 3].astype(float), 0.95))
    assert row["actual_volume"] == written.actual[1, 1, 4]
