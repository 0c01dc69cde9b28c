"""The cached decoder computes what the recomputing one does."""

import shutil

import numpy as np
import pytest
import torch
from scipy import stats

from kronos_lightning import Forecaster, Kronos, KronosTokenizer
from kronos_lightning.data import read_candles
from kronos_lightning.data.candles import time_features
from kronos_lightning.data.formats import FEATURES
from kronos_lightning.forecast import Sampling
from kronos_lightning.forecast.decoding import generate_tokens
from kronos_lightning.forecast.sampling import draw_uniforms
from tests.helpers import recomputing_decoder as recomputing
from tests.helpers.levels import normalise
from tests.helpers.paths import GOLDEN, published_config

GREEDY, PLAIN = Sampling(temperature=0.0), Sampling()


def windows(candles, count, known, horizon, clip=5.0):
    """Normalised contexts ``(count, known, 6)`` and the time features of them and of the horizon."""
    frame = candles.frame
    starts = np.linspace(0, len(frame) - known - horizon, count).astype(int)
    values, stamp = (
        torch.tensor(frame[FEATURES].to_numpy(np.float32)),
        torch.from_numpy(time_features(frame["timestamps"])),
    )
    x = torch.stack([values[i : i + known] for i in starts])
    stamps = torch.stack([stamp[i : i + known + horizon] for i in starts])
    return normalise(x, known, clip)[0], stamps[:, :known], stamps[:, known:]


def both(forecaster, x, stamp, future, num_paths, seed=0):
    """Paths of the cached and of the recomputing decoder, from the same random numbers."""
    generator = torch.Generator().manual_seed(seed)
    cached = forecaster.sample_normalised(x, stamp, future, num_paths, generator)
    uniforms = draw_uniforms(generator.manual_seed(seed), len(x), num_paths, future.size(1))
    networks = forecaster.tokenizer.eval(), forecaster.predictor.eval()
    return cached, recomputing.sample_normalised(
        *networks, x, stamp, future, forecaster.sampling, uniforms, forecaster.max_context, forecaster.rotary_fine_token
    )


@pytest.mark.parametrize(("name", "max_context"), [("greedy_fits", 512), ("greedy_slides", 40)])
def test_greedy_rollout_is_the_references(name, max_context, golden, golden_tokenizer, golden_predictor):
    forecaster = Forecaster(golden_tokenizer, golden_predictor, max_context=max_context, sampling=GREEDY)
    x, stamp = golden["x"][:, :48], golden["stamp"]
    paths = forecaster.sample_normalised(x, stamp[:, :48], stamp[:, 48:60], num_paths=1)
    torch.testing.assert_close(paths[:, 0], golden[name], atol=1e-4, rtol=0)


@pytest.mark.parametrize("num_paths", [1, 3])
@pytest.mark.parametrize("rotary_fine_token", [False, True])
@pytest.mark.parametrize(
    ("known", "horizon", "max_context"),
    [(30, 6, 64), (30, 6, 36), (30, 6, 35), (30, 9, 33), (30, 6, 30), (3, 1, 8), (2, 2, 2), (1, 4, 4)],
    ids=["fits", "fits just", "slides at the end", "slides", "slides from the start", "one step", "two", "one candle"],
)
def test_paths_are_those_of_the_recomputing_decoder(
    known, horizon, max_context, rotary_fine_token, num_paths, candles, tiny_tokenizer, tiny_predictor
):
    forecaster = Forecaster(
        tiny_tokenizer, tiny_predictor, max_context=max_context, sampling=PLAIN, rotary_fine_token=rotary_fine_token
    )
    cached, recomputed = both(forecaster, *windows(candles, 4, known, horizon), num_paths)
    torch.testing.assert_close(cached, recomputed, atol=1e-4, rtol=0)


@pytest.mark.parametrize("num_paths", [1, 3])
def test_a_horizon_longer_than_the_context_is_forecast_whole(num_paths, candles, tiny_tokenizer, tiny_predictor):
    forecaster = Forecaster(tiny_tokenizer, tiny_predictor, max_context=8)
    x, stamp, future = windows(candles, 2, 8, 20)
    cached, recomputed = both(forecaster, x, stamp, future, num_paths)
    assert cached.shape == (2, num_paths, 20, 6)
    torch.testing.assert_close(cached[:, :, -4:], recomputed[:, :, -4:], atol=1e-4, rtol=0)  # the last piece's window
    assert cached.isfinite().all()


@pytest.mark.parametrize("scores", [1, 100, 300])
def test_attention_in_parts_gives_the_same_paths(scores, candles, tiny_tokenizer, tiny_predictor, monkeypatch):
    forecaster = Forecaster(tiny_tokenizer, tiny_predictor, max_context=64)
    x, stamp, future = windows(candles, 3, known=20, horizon=5)
    given = x, stamp, future, 4, torch.Generator().manual_seed(1), torch.tensor([20, 11, 16])
    whole = forecaster.sample_normalised(*given)
    monkeypatch.setattr("kronos_lightning.forecast.fused.SCORES", scores)
    given[4].manual_seed(1)
    torch.testing.assert_close(forecaster.sample_normalised(*given), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("num_paths", [1, 3])
@pytest.mark.parametrize("max_context", [64, 24], ids=["all fit", "the longest two slide"])
def test_series_of_different_lengths_are_forecast_as_each_alone(
    max_context, num_paths, candles, tiny_tokenizer, tiny_predictor
):
    forecaster = Forecaster(tiny_tokenizer, tiny_predictor, max_context=max_context)
    x, stamp, future = windows(candles, 4, 22, 6)
    lengths = torch.tensor([22, 5, 14, 19])
    together = forecaster.sample_normalised(x, stamp, future, num_paths, torch.Generator().manual_seed(1), lengths)
    generator = torch.Generator().manual_seed(1)
    for i, length in enumerate(lengths):
        given = x[i : i + 1, :length], stamp[i : i + 1, :length], future[i : i + 1]
        alone = forecaster.sample_normalised(*given, num_paths, generator)
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-4, rtol=0)


def test_groups_that_fit_the_working_memory_give_the_same_paths(candles, tiny_tokenizer, tiny_predictor, monkeypatch):
    forecaster = Forecaster(tiny_tokenizer, tiny_predictor, max_context=64)
    given = windows(candles, 5, 20, 4)
    whole = forecaster.sample_normalised(*given, 6, torch.Generator().manual_seed(0))
    monkeypatch.setattr("kronos_lightning.forecast.device.WORKING_MEMORY", 60_000)
    together, paths = forecaster._fitting(20, 4, 6)
    assert (together, paths) != (5, 6)
    torch.testing.assert_close(
        forecaster.sample_normalised(*given, 6, torch.Generator().manual_seed(0)), whole, atol=1e-5, rtol=0
    )


@pytest.fixture(scope="module")
def small():
    """Kronos-small and its tokenizer with random weights."""
    torch.manual_seed(0)
    return (
        KronosTokenizer(**published_config("Kronos-Tokenizer-base")).eval(),
        Kronos(**published_config("Kronos-small")).eval(),
    )


def test_greedy_tokens_of_kronos_small_are_the_recomputing_decoders_on_50_real_windows(small):
    """The real hours of the golden numbers, a window from every candle."""
    hours = read_candles(GOLDEN / "btc_usdt_1h_rows_500_559.csv", "1h", "BTCUSDT")
    x, stamp, future = windows(hours, 50, 8, 3)
    forecaster = Forecaster(*small, max_context=512, sampling=GREEDY)
    cached, recomputed = both(forecaster, x, stamp, future, 1)
    torch.testing.assert_close(cached, recomputed, atol=1e-4, rtol=0)


def test_the_first_token_follows_the_model_and_path_ends_those_of_the_recomputing_decoder(
    candles, tiny_tokenizer, tiny_predictor
):
    forecaster = Forecaster(tiny_tokenizer.eval(), tiny_predictor.eval(), max_context=64)
    x, stamp, future = windows(candles, 1, 20, 3)
    tokenizer, predictor = forecaster._fold()
    uniforms = draw_uniforms(torch.Generator().manual_seed(0), 1, 20_000, 1)
    with torch.inference_mode():
        ids = tokenizer.encode(x)
        s1, _ = generate_tokens(predictor, ids, torch.tensor([20]), stamp, future[:, :1], PLAIN, uniforms, 64)
        expected = tiny_predictor.decode_s1(*ids, stamp)[0][0, -1].softmax(-1).double()
    counts = torch.bincount(s1.flatten(), minlength=len(expected))
    assert stats.chisquare(counts, expected / expected.sum() * 20_000).pvalue > 1e-3

    cached = forecaster.sample_normalised(x, stamp, future, 2000, torch.Generator().manual_seed(1))
    other = draw_uniforms(torch.Generator().manual_seed(2), 1, 2000, 3)
    recomputed = recomputing.sample_normalised(tiny_tokenizer, tiny_predictor, x, stamp, future, PLAIN, other, 64)
    assert stats.ks_2samp(cached[0, :, -1, 3].numpy(), recomputed[0, :, -1, 3].numpy()).pvalue > 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_paths_stay_near_those_of_float32(dtype, golden, golden_tokenizer, golden_predictor):
    x, stamp = golden["x"][:, :48], golden["stamp"]
    given = x, stamp[:, :48], stamp[:, 48:60]
    exact, half = (
        Forecaster(golden_tokenizer, golden_predictor, max_context=512, dtype=d).sample_normalised(
            *given, 200, torch.Generator().manual_seed(0)
        )
        for d in (torch.float32, dtype)
    )
    assert half.dtype == torch.float32
    assert not torch.equal(half, exact)
    same = (half == exact).flatten(2).all(dim=2).float().mean()
    assert same > 0.3  # paths part where a draw falls between the two roundings
    torch.testing.assert_close(half.mean(dim=1), exact.mean(dim=1), atol=0.25, rtol=0)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU")
def test_compiled_forecasts_are_those_of_the_uncompiled(candles, tiny_tokenizer, tiny_predictor):
    given = windows(candles, 2, 20, 3)
    plain, compiled = (
        Forecaster(tiny_tokenizer, tiny_predictor, max_context=64, compile=choice).sample_normalised(
            *given, 3, torch.Generator().manual_seed(0)
        )
        for choice in (False, True)
    )
    assert torch._dynamo.utils.counters["frames"]["ok"] >= 2  # norms and gates were compiled
    torch.testing.assert_close(plain, compiled, atol=1e-4, rtol=0)


def test_decoding_with_trained_positions_gives_the_training_logits(tiny_predictor):
    tiny_predictor.eval()
    generator = torch.Generator().manual_seed(0)
    s1, s2 = (torch.randint(0, 8, (2, 15), generator=generator) for _ in range(2))
    _, s2_logits = tiny_predictor(s1, s2, None, s1.roll(-1, 1))
    _, context = tiny_predictor.decode_s1(s1, s2)
    last = tiny_predictor.decode_s2(context, s1.roll(-1, 1)[:, -1:], positions=True)
    torch.testing.assert_close(last[:, 0], s2_logits[:, -1])
