"""Tokens of windows encoded once are those encoded on the fly, and their files are trusted only when whole."""

import numpy as np
import pytest
import torch

from kronos_lightning.config.validation import ConfigError, check_training
from kronos_lightning.data import CandleWindows
from kronos_lightning.training import token_cache as cache
from tests.helpers.candles import frame_with_gap
from tests.helpers.configuration import composed
from tests.helpers.data import SETTINGS, data_module
from tests.helpers.training import HORIZON, LOOKBACK, predictor_module, quiet

CPU = torch.device("cpu")


@pytest.fixture
def windows():
    return CandleWindows(frame_with_gap(700, 350), 12, 4, 5.0)


@pytest.fixture
def tokenizer(tiny_tokenizer):
    return tiny_tokenizer.eval()


def on_the_fly(tokenizer, windows):
    x = windows.__getitems__(list(range(len(windows)))).x
    return torch.stack(tokenizer.encode(x, half=True), dim=-1).numpy()


def files(directory):
    return sorted(path.name for path in directory.glob("*_tokens_*.npy"))


def test_cached_tokens_are_those_of_an_encoding_on_the_fly(tmp_path, tokenizer, windows):
    tokens = cache.cached_tokens(tokenizer, windows, tmp_path, "a", CPU)
    assert len(windows) > 2 * cache.CHUNK
    assert np.array_equal(tokens, on_the_fly(tokenizer, windows))
    assert not tokens.flags.writeable
    windows.use_tokens(tokens, alone=False)
    batch = windows.__getitems__([5, len(windows) + 300])  # the second in the next epoch
    assert torch.equal(batch.tokens, torch.stack(tokenizer.encode(batch.x, half=True), dim=-1))
    windows.use_tokens(tokens, alone=True)
    assert windows.__getitems__([5]).x is None
    assert torch.equal(windows[5].tokens, batch.tokens[0])


def test_windows_are_encoded_once(tmp_path, tokenizer, windows, monkeypatch):
    first = cache.cached_tokens(tokenizer, windows, tmp_path, "a", CPU)
    monkeypatch.setattr(cache, "encode_all", lambda *a: pytest.fail("encoded again"))
    assert np.array_equal(cache.cached_tokens(tokenizer, windows, tmp_path, "a", CPU), first)


@pytest.mark.parametrize("damage", [lambda b: b[:-100], lambda b: b[:-9] + bytes([b[-9] ^ 1]) + b[-8:], lambda b: b""])
def test_a_damaged_file_is_noticed_and_made_again(tmp_path, tokenizer, windows, damage, caplog):
    expected = np.array(cache.cached_tokens(tokenizer, windows, tmp_path, "a", CPU))
    path = tmp_path / files(tmp_path)[0]
    path.write_bytes(damage(path.read_bytes()))
    assert np.array_equal(cache.cached_tokens(tokenizer, windows, tmp_path, "a", CPU), expected)
    assert "damaged, encoding again" in caplog.text


def test_a_file_without_its_checksum_counts_as_missing(tmp_path, tokenizer, windows):
    cache.cached_tokens(tokenizer, windows, tmp_path, "a", CPU)
    next(tmp_path.glob("*.sha256")).unlink()
    cache.cached_tokens(tokenizer, windows, tmp_path, "a", CPU)
    assert len(list(tmp_path.glob("*.sha256"))) == 1


def test_other_weights_candles_and_windows_have_other_files(tmp_path, tokenizer, windows):
    cache.cached_tokens(tokenizer, windows, tmp_path, "a", CPU)
    frame = frame_with_gap(700, 350)
    for other in (
        CandleWindows(frame, 13, 3, 5.0),
        CandleWindows(frame, 12, 4, 4.0),
        CandleWindows(frame, 12, 4, 5.0, volume=False),
        CandleWindows(frame.assign(close=frame["close"] * 1.001), 12, 4, 5.0),
        CandleWindows(frame.assign(target=frame.index > 100), 12, 4, 5.0),
    ):
        before = len(files(tmp_path))
        tokens = cache.cached_tokens(tokenizer, other, tmp_path, "a", CPU)
        assert np.array_equal(tokens, on_the_fly(tokenizer, other))
        assert len(files(tmp_path)) == before + 1
    with torch.no_grad():
        tokenizer.embed.bias += 1e-3
    before = len(files(tmp_path))
    cache.cached_tokens(tokenizer, windows, tmp_path, "a", CPU)
    assert len(files(tmp_path)) == before + 1


def test_the_folder_keeps_the_files_used_last(tmp_path, tokenizer, windows, monkeypatch):
    monkeypatch.setattr(cache, "KEPT", 2)
    for name in ("a", "b", "a", "c"):
        cache.cached_tokens(tokenizer, windows, tmp_path, name, CPU)
    assert [name[0] for name in files(tmp_path)] == ["a", "c"]
    assert len(list(tmp_path.glob("*.sha256"))) == 2


def data_of(tmp_path, **changes):
    settings = {
        "synthetic": SETTINGS["synthetic"] | {"candles": 400},
        "train_time_range": ["2023-01-01", "2023-01-10"], "val_time_range": ["2023-01-11", "2023-01-13"],
        "test_time_range": ["2023-01-14", "2023-01-17"], "lookback": LOOKBACK, "horizon": HORIZON, "batch_size": 40,
        "processed_dir": str(tmp_path / "p"),
    }  # fmt: skip
    return data_module(**settings | changes)


def trained(tmp_path, tokenizer, predictor, cache_tokens, max_epochs=2, volatility=None, **data):
    torch.manual_seed(0)
    options = {"keep_dropout": True, "cache_tokens": cache_tokens, "volatility": volatility}
    module = predictor_module(tokenizer, predictor, **options)
    trainer = quiet(tmp_path, max_epochs=max_epochs, use_distributed_sampler=False, num_sanity_val_steps=0)
    trainer.fit(module, data_of(tmp_path, **data))
    return module, trainer


def test_training_with_cached_tokens_is_training_without(tmp_path, tokenizer, tiny_predictor):
    start = {k: v.clone() for k, v in tiny_predictor.state_dict().items()}
    weights, losses = [], []
    for cached in (False, True):
        tiny_predictor.load_state_dict(start)
        module, trainer = trained(tmp_path, tokenizer, tiny_predictor, cached)
        assert module.cached is cached
        weights.append(torch.cat([p.flatten() for p in tiny_predictor.parameters()]).detach().clone())
        losses.append(trainer.callback_metrics["val/loss"].item())
    torch.testing.assert_close(*weights, atol=1e-6, rtol=0)
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


@pytest.mark.parametrize(
    ("data", "epochs", "cached"),
    [
        ({}, 1, True),
        ({"samples_per_epoch": 80}, 2, False),
        ({"samples_per_epoch": 80}, 3, True),
        ({"augmentation": {"price_noise": 0.1, "time_warp": 0.0, "magnitude": 0.0, "reversal": 0.0}}, 5, False),
        ({"augmentation": {"price_noise": 0.0, "time_warp": 0.0, "magnitude": 0.0, "reversal": 0.0}}, 1, True),
    ],
)
def test_auto_caches_what_is_not_augmented_and_drawn_as_often_as_it_is_encoded(
    tmp_path, tokenizer, tiny_predictor, data, epochs, cached
):
    module, trainer = trained(tmp_path, tokenizer, tiny_predictor, "auto", max_epochs=epochs, **data)
    assert 160 < len(trainer.datamodule.windows["train"]) <= 240
    assert module.cached is cached
    assert bool(files(tmp_path / "p")) is cached


def test_a_learning_rate_by_the_windows_volatility_still_sees_the_candles(tmp_path, tokenizer, tiny_predictor):
    module, trainer = trained(tmp_path, tokenizer, tiny_predictor, True, volatility="batch")
    assert module.cached
    assert trainer.callback_metrics["train/volatility"] > 0


def test_cached_tokens_of_augmented_windows_are_refused():
    with pytest.raises(ConfigError, match="cache_tokens=true: augmented windows differ"):
        check_training(composed("train", "stage=predictor", "augmentation=light", "stage.cache_tokens=true"))
    assert check_training(composed("train", "stage=predictor", "augmentation=light")).stage.cache_tokens == "auto"
