"""Users of the published code change one import: its README's examples, on the project's golden candles."""

import logging

import numpy as np
import pandas as pd
import pytest
import torch

from kronos_lightning import Kronos, KronosPredictor, KronosTokenizer
from kronos_lightning.data import CandleError
from kronos_lightning.data.formats import FEATURES
from tests.helpers.paths import GOLDEN


@pytest.fixture
def hours():
    frame = pd.read_csv(GOLDEN / "btc_usdt_1h_rows_500_559.csv")
    frame["timestamps"] = pd.to_datetime(frame["timestamps"])
    return frame


@pytest.fixture
def predictor():
    tokenizer = KronosTokenizer.from_pretrained(GOLDEN / "tiny-tokenizer")
    return KronosPredictor(Kronos.from_pretrained(GOLDEN / "tiny-predictor"), tokenizer, device="cpu", max_context=512)


def split(frame, known=48, horizon=12):
    return (
        frame.loc[: known - 1],
        frame.loc[: known - 1, "timestamps"],
        frame.loc[known : known + horizon - 1, "timestamps"],
    )


@pytest.mark.parametrize("columns", [FEATURES, FEATURES[:4]], ids=["with volume", "prices only"])
@pytest.mark.parametrize("greedy", [{"T": 0.0}, {"top_k": 1, "top_p": 1.0}], ids=["T=0", "top_k=1"])
def test_greedy_predict_gives_the_published_numbers(columns, greedy, predictor, hours):
    known, x_timestamp, y_timestamp = split(hours)
    table = predictor.predict(
        df=known[columns], x_timestamp=x_timestamp, y_timestamp=y_timestamp, pred_len=12, sample_count=1, **greedy
    )
    name = "predict_greedy.csv" if len(columns) == 6 else "predict_greedy_prices_only.csv"
    assert list(table) == FEATURES
    assert table.index.tolist() == y_timestamp.tolist()
    noise = 0 if len(columns) == 6 else 1e-5  # the published code forecasts that much volume where there is none
    np.testing.assert_allclose(table, pd.read_csv(GOLDEN / name)[FEATURES], rtol=1e-5, atol=noise)


def test_predict_averages_the_sample_paths_and_repeats_with_torchs_seed(predictor, hours):
    known, *stamps = split(hours)
    options = {"pred_len": 12, "T": 1.0, "top_p": 0.9, "verbose": False}
    torch.manual_seed(0)
    mean = predictor.predict(known, *stamps, sample_count=5, **options)
    torch.manual_seed(0)
    again = predictor.predict(known, *stamps, sample_count=5, **options)
    one = predictor.predict(known, *stamps, sample_count=1, **options)
    pd.testing.assert_frame_equal(mean, again)
    assert not mean.equals(one)


def test_predict_batch_gives_what_predict_gives_and_takes_different_lengths(predictor, hours):
    parts = [split(hours), split(hours[5:].reset_index(drop=True), 40), split(hours, 30)]
    frames, x, y = (list(column) for column in zip(*parts, strict=True))
    tables = predictor.predict_batch(
        df_list=frames, x_timestamp_list=x, y_timestamp_list=y, pred_len=12, T=0.0, sample_count=1, verbose=False
    )
    for table, part in zip(tables, parts, strict=True):
        pd.testing.assert_frame_equal(table, predictor.predict(*part, 12, T=0.0, verbose=False), rtol=1e-5)


def test_a_datetime_index_does_as_well_as_a_series_and_nothing_is_changed(predictor, hours):
    known, x_timestamp, y_timestamp = split(hours)
    before = known.copy()
    series = predictor.predict(known, x_timestamp, y_timestamp, 12, T=0.0)
    index = predictor.predict(known, pd.DatetimeIndex(x_timestamp), pd.DatetimeIndex(y_timestamp), 12, T=0.0)
    np.testing.assert_array_equal(series, index)
    pd.testing.assert_frame_equal(known, before)


def test_context_and_horizon_beyond_max_context_slide_and_sessions_may_pause(hours):
    tokenizer = KronosTokenizer.from_pretrained(GOLDEN / "tiny-tokenizer")
    predictor = KronosPredictor(Kronos.from_pretrained(GOLDEN / "tiny-predictor"), tokenizer, "cpu", max_context=40)
    known, x_timestamp, y_timestamp = split(hours)
    table = predictor.predict(known, x_timestamp, y_timestamp + pd.Timedelta("90min"), pred_len=12)
    assert table.shape == (12, 6)
    assert np.isfinite(table.to_numpy()).all()


def test_verbose_says_how_long_it_took(predictor, hours, caplog):
    with caplog.at_level(logging.INFO):
        predictor.predict(*split(hours), 12, verbose=False)
        assert caplog.text == ""
        predictor.predict(*split(hours), 12)
    assert "1 series, 12 candles x 1 path(s)" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda df, x, y: (df.drop(columns="low"), x, y), "column low missing"),
        (lambda df, x, y: (df.assign(volume=np.nan), x, y), "row 1, column volume: nan"),
        (lambda df, x, y: (df, x[:-1], y), "47 x_timestamp for 48 candles"),
        (lambda df, x, y: (df, x, y[:-1]), "11 y_timestamp for pred_len 12"),
        (lambda df, x, y: (df[:1], x[:1], y), "at least 2"),
    ],
)
def test_bad_input_is_refused(change, message, predictor, hours):
    with pytest.raises(CandleError, match=message):
        predictor.predict(*change(*split(hours)), 12)
    with pytest.raises(CandleError, match="same length"):
        predictor.predict_batch([hours], [], [], 12)
