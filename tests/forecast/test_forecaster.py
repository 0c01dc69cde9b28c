"""DataFrames in, sample paths and tables out."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from kronos_lightning import Forecaster
from kronos_lightning.data import CandleError, read_candles
from kronos_lightning.data.candles import time_features
from kronos_lightning.data.formats import FEATURES
from kronos_lightning.forecast import ForecastSet, Sampling, probability_up, series_generators, validity
from kronos_lightning.forecast.calibration import Calibration, CalibrationError
from kronos_lightning.model.pretrained import CheckpointError
from tests.helpers.paths import GOLDEN

GREEDY = Sampling(temperature=0.0)


@pytest.fixture
def forecaster(tiny_tokenizer, tiny_predictor):
    return Forecaster(tiny_tokenizer, tiny_predictor, max_context=64)


@pytest.fixture
def frame(candles):
    return candles.frame.drop(columns="segment")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("prices_only", [False, True])
def test_forecast_in_price_units_is_the_references(prices_only, golden_tokenizer, golden_predictor):
    frame = read_candles(GOLDEN / "btc_usdt_1h_rows_500_559.csv", "1h", "BTCUSDT").frame
    known = frame.iloc[:48][["timestamps", *(FEATURES[:4] if prices_only else FEATURES)]]
    ours = Forecaster(golden_tokenizer, golden_predictor, max_context=512, sampling=GREEDY).sample_paths(known, 12, 1)
    name = "predict_greedy_prices_only.csv" if prices_only else "predict_greedy.csv"
    published = pd.read_csv(GOLDEN / name)[FEATURES]
    np.testing.assert_allclose(
        ours[0, 0], published, rtol=1e-5, atol=1e-5 if prices_only else 0
    )  # no volume: ±1e-5 there


def test_when_candles_after_the_cutoff_change_then_the_forecast_is_identical(forecaster, frame):
    values = torch.tensor(frame[FEATURES].to_numpy(np.float32))[None]
    stamp = torch.from_numpy(time_features(frame["timestamps"]))[None]
    changed = values.clone()
    changed[:, 50:] *= 2
    before, after = (
        forecaster.sample_windows(v[:, :50], stamp[:, :50], stamp[:, 50:56], 4, seeded()) for v in (values, changed)
    )
    assert torch.equal(before, after)


def test_a_network_in_train_mode_forecasts_as_in_eval_mode_and_stays_in_train_mode(
    tiny_tokenizer, tiny_predictor, frame
):
    evaluated = Forecaster(tiny_tokenizer.eval(), tiny_predictor.eval()).sample_paths(
        frame[:50], 6, 4, generator=seeded()
    )
    trained = Forecaster(tiny_tokenizer.train(), tiny_predictor.train()).sample_paths(
        frame[:50], 6, 4, generator=seeded()
    )
    np.testing.assert_array_equal(evaluated, trained)
    assert tiny_predictor.transformer[0].ffn.dropout.training


def test_weights_that_changed_are_used_at_once(forecaster, frame):
    before = forecaster.sample_paths(frame[:50], 6, 4, generator=seeded())
    with torch.no_grad():
        forecaster.predictor.head.proj_s1.bias[0] += 50
    after = forecaster.sample_paths(frame[:50], 6, 4, generator=seeded())
    assert not np.array_equal(before, after)


def test_training_goes_on_after_a_forecast(forecaster, frame):
    forecaster.sample_paths(frame[:50], 6, 4)
    ids = torch.zeros(1, 5, dtype=torch.long)
    sum(part.sum() for part in forecaster.predictor(ids, ids, None, ids)).backward()
    assert forecaster.predictor.head.proj_s1.weight.grad.isfinite().all()


def test_paths_differ_and_repeat_with_the_seed_and_do_not_depend_on_the_batch(forecaster, frame):
    series = [frame[:50], frame[100:130], frame[200:250]]
    paths = forecaster.sample_paths(series, 6, 4, generator=seeded())
    assert paths.shape == (3, 4, 6, 6)
    assert not np.array_equal(paths[0, 0], paths[0, 1])
    generator = seeded()
    alone = np.concatenate([forecaster.sample_paths(one, 6, 4, generator=generator) for one in series])
    np.testing.assert_allclose(alone, paths, rtol=1e-5)


def test_candles_before_max_context_do_not_count(tiny_tokenizer, tiny_predictor, frame):
    changed = frame.copy()
    changed.loc[:9, FEATURES] *= 3
    forecaster = Forecaster(tiny_tokenizer, tiny_predictor, max_context=40, sampling=GREEDY)
    np.testing.assert_array_equal(*(forecaster.sample_paths(f[:50], 6, 1) for f in (frame, changed)))


def test_trained_positions_change_the_forecast(tiny_tokenizer, tiny_predictor, frame):
    plain, positioned = (
        Forecaster(tiny_tokenizer, tiny_predictor, rotary_fine_token=choice).sample_paths(
            frame[:50], 6, 4, generator=seeded()
        )
        for choice in (False, True)
    )
    assert not np.array_equal(plain, positioned)


def test_the_input_is_never_changed_and_the_order_of_rows_does_not_matter(forecaster, frame):
    given = frame[:50].copy()
    before = given.copy()
    straight = forecaster.sample_paths(given, 6, 2, generator=seeded())
    pd.testing.assert_frame_equal(given, before)
    shuffled = forecaster.sample_paths(given.sample(frac=1, random_state=1), 6, 2, generator=seeded())
    np.testing.assert_array_equal(straight, shuffled)


def test_future_stamps_continue_at_the_interval_or_are_taken_as_given(forecaster, frame):
    derived = forecaster.sample_paths(frame[:50], 6, 2, generator=seeded())
    given = forecaster.sample_paths(frame[:50], 6, 2, future_timestamps=frame["timestamps"][50:56], generator=seeded())
    other = forecaster.sample_paths(
        frame[:50], 6, 2, future_timestamps=frame["timestamps"][50:56] + pd.Timedelta("5D"), generator=seeded()
    )
    np.testing.assert_array_equal(derived, given)
    assert not np.array_equal(derived, other)


def test_missing_volume_is_zero_and_missing_amount_is_volume_times_mean_price(forecaster, frame):
    whole = frame[:50].assign(amount=lambda f: f["volume"] * f[FEATURES[:4]].mean(axis=1))
    np.testing.assert_allclose(
        forecaster.sample_paths(whole, 3, 2, generator=seeded()),
        forecaster.sample_paths(whole.drop(columns="amount"), 3, 2, generator=seeded()), rtol=1e-5,
    )  # fmt: skip
    np.testing.assert_array_equal(
        forecaster.sample_paths(whole.assign(volume=0.0, amount=0.0), 3, 2, generator=seeded()),
        forecaster.sample_paths(whole.drop(columns=["volume", "amount"]), 3, 2, generator=seeded()),
    )


BAD = [
    (lambda f: f.drop(columns="high"), {}, "column high missing; .* Rename yours"),
    (lambda f: f.rename(columns={"timestamps": "when"}), {}, "no column 'timestamps'; the columns are when"),
    (lambda f: f[:1], {}, "1 candle.*at least 2"),
    (lambda f: f[:0], {}, "0 candle.*at least 2"),
    (lambda f: f.assign(close=f["close"].where(f.index != 7)), {}, "row 8, column close: nan .*remove or repair"),
    (lambda f: f.assign(close="much"), {}, "column close: not all numbers"),
    (lambda f: f.drop(index=20), {}, "not evenly spaced: .*2:00:00 after .*shortest distance is .*1:00:00"),
    (lambda f: pd.concat([f, f[5:6]]), {}, "duplicate timestamp"),
    (lambda f: f.assign(timestamps="soon"), {}, "row 1, .*'soon' is not a date"),
    (lambda f: f, {"horizon": 0}, "horizon 0; it must be at least 1"),
    (lambda f: f, {"future_timestamps": ["2030-01-01"]}, "1 future timestamps for a horizon of 6"),
    (lambda f: f, {"future_timestamps": pd.date_range("2020-01-01", periods=6)}, "begin after the last candle"),
]


@pytest.mark.parametrize(("spoil", "options", "message"), BAD, ids=[message[:30] for *_, message in BAD])
def test_what_cannot_be_forecast_is_refused_with_a_way_out(spoil, options, message, forecaster, frame):
    with pytest.raises(CandleError, match=message):
        forecaster.sample_paths(spoil(frame[:50].copy()), **{"horizon": 6, "num_paths": 1} | options)


def test_quantiles_are_those_of_the_paths(forecaster, frame):
    levels = [0.1, 0.5, 0.9]
    quantiles, mean = forecaster.predict_quantiles(frame[:50], 6, levels, 30, generator=seeded())
    paths = forecaster.sample_paths(frame[:50], 6, 30, generator=seeded())
    assert quantiles.shape == (1, 6, 6, 3)
    for q, level in enumerate(levels):
        np.testing.assert_allclose(
            quantiles[0, 2, 3, q], np.quantile(paths[0, :, 2, 3].astype(float), level, method="weibull")
        )
    np.testing.assert_allclose(mean[0, 2, 3], paths[0, :, 2, 3].astype(float).mean())
    with pytest.raises(ValueError, match="between 0 and 1"):
        forecaster.predict_quantiles(frame[:50], 6, [0.5, 1.0])


def long_frame(frame):
    """Two series in one frame, B before A, stamps without a zone."""
    parts = [frame[100:150].assign(item_id="B"), frame[:40].assign(item_id="A")]
    return pd.concat(parts).assign(timestamp=lambda f: f["timestamps"].dt.tz_localize(None)).drop(columns="timestamps")


def test_predict_df_speaks_the_columns_of_chronos(forecaster, frame):
    table = forecaster.predict_df(long_frame(frame), 6, [0.1, 0.5], num_paths=20, seed=1)
    assert list(table) == ["item_id", "timestamp", "target_name", "predictions", "0.1", "0.5"]
    assert table["item_id"].drop_duplicates().tolist() == ["B", "A"]
    assert len(table) == 2 * 6 * 6
    assert (table["0.1"] <= table["0.5"]).all()
    close = table[(table["item_id"] == "A") & (table["target_name"] == "close")]
    expected = pd.date_range(frame["timestamps"].dt.tz_localize(None)[39], periods=7, freq="h")[1:]
    assert close["timestamp"].tolist() == expected.tolist()


def test_a_series_forecast_depends_on_the_seed_and_its_id_alone(forecaster, frame):
    df = long_frame(frame)
    whole = forecaster.predict_df(df, 4, num_paths=5, seed=1)
    shuffled = forecaster.predict_df(df.sample(frac=1, random_state=0), 4, num_paths=5, seed=1)
    alone = forecaster.predict_df(df[df["item_id"] == "A"], 4, num_paths=5, seed=1)
    order = ["item_id", "target_name", "timestamp"]
    pd.testing.assert_frame_equal(
        whole.sort_values(order, ignore_index=True), shuffled.sort_values(order, ignore_index=True), rtol=1e-5
    )
    pd.testing.assert_frame_equal(whole[whole["item_id"] == "A"].reset_index(drop=True), alone, rtol=1e-5)
    assert not whole.equals(forecaster.predict_df(df, 4, num_paths=5, seed=2))


def test_predict_df_takes_other_names_one_series_and_given_future_stamps(forecaster, frame):
    options = {"quantile_levels": [0.5], "num_paths": 3, "seed": 0, "target": "close"}
    single = forecaster.predict_df(frame[:50], 4, id_column=None, timestamp_column="timestamps", **options)
    assert list(single) == ["timestamps", "target_name", "predictions", "0.5"]
    assert str(single["timestamps"].dt.tz) == "UTC"
    later = frame[60:64][["timestamps"]]
    given = forecaster.predict_df(
        frame[:50], 4, id_column=None, timestamp_column="timestamps", future_df=later, **options
    )
    assert given["timestamps"].tolist() == later["timestamps"].tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"id_column": "market"}, "no column 'market'; .*id_column=None"),
        ({"timestamp_column": "time"}, "series 'B': no column 'time'"),
        ({"target": "price"}, "target price"),
        ({"future_df": pd.DataFrame({"item_id": ["B"], "timestamp": ["2030-01-01"]})}, "no rows of series 'A'"),
    ],
)
def test_predict_df_says_what_is_wrong(options, message, forecaster, frame):
    with pytest.raises(CandleError, match=message):
        forecaster.predict_df(long_frame(frame), 1, num_paths=2, **options)


def test_repaired_paths_hold_possible_candles_and_the_same_closes(tiny_tokenizer, tiny_predictor, frame):
    plain, repaired = (
        Forecaster(tiny_tokenizer, tiny_predictor, repair=choice).sample_paths(frame[:50], 6, 50, generator=seeded())
        for choice in (False, True)
    )
    assert validity(plain).any > 0  # random weights know nothing of candles
    assert validity(repaired).any == 0
    np.testing.assert_array_equal(plain[..., [0, 3]], repaired[..., [0, 3]])


def test_from_pretrained_loads_both_directories(frame):
    directories = GOLDEN / "tiny-tokenizer", GOLDEN / "tiny-predictor"
    forecaster = Forecaster.from_pretrained(*directories, device="cpu", max_context=40, sampling=GREEDY)
    assert forecaster.sample_paths(frame[:50], 6, 1).shape == (1, 1, 6, 6)
    assert forecaster.max_context == 40


def test_tokenizer_and_predictor_of_different_codes_are_refused(golden_tokenizer, tiny_predictor):
    with pytest.raises(CheckpointError, match="do not belong together; use the tokenizer that the predictor"):
        Forecaster(golden_tokenizer, tiny_predictor, max_context=64)


def test_a_generator_by_name_does_not_depend_on_the_others():
    first, second = series_generators(3, ["a", "b"])
    assert torch.equal(torch.rand(3, generator=series_generators(3, ["b"])[0]), torch.rand(3, generator=second))
    assert first.initial_seed() != second.initial_seed() != series_generators(4, ["b"])[0].initial_seed()


def test_a_forecast_set_survives_the_disk(tmp_path):
    rng = np.random.default_rng(0)
    stamps = np.datetime64("2024-01-01", "ns") + np.arange(20) * np.timedelta64(1, "h")
    written = ForecastSet(
        cutoffs=stamps[:3],
        stamps=np.stack([stamps[i + 1 : i + 5] for i in range(3)]),
        last_close=rng.random(3),
        paths=rng.random((3, 7, 4, 6), dtype=np.float32),
        actual=rng.random((3, 4, 6)),
    )
    written.save(tmp_path)
    read = ForecastSet.load(tmp_path)
    for name in ("cutoffs", "stamps", "last_close", "paths", "actual"):
        np.testing.assert_array_equal(getattr(read, name), getattr(written, name))
    table = written.table()
    assert len(table) == 12
    row = table[(table["step"] == 2)].iloc[1]
    assert row["close_q95"] == pytest.approx(
        np.quantile(written.paths[1, :, 1, 3].astype(float), 0.95, method="weibull")
    )
    assert row["actual_volume"] == written.actual[1, 1, 4]


def test_a_calibrated_forecast_set_keeps_its_probabilities_and_its_calibration_on_the_disk_and_in_a_row(tmp_path):
    rng = np.random.default_rng(0)
    stamps = np.datetime64("2024-01-01", "ns") + np.arange(3) * np.timedelta64(1, "h")
    sampled = ForecastSet(
        cutoffs=stamps[:1],
        stamps=stamps[None, 1:],
        last_close=np.array([1.0]),
        paths=rng.uniform(0.5, 1.5, (1, 31, 2, 6)).astype(np.float32),
        actual=rng.random((1, 2, 6)),
    )
    calibration = Calibration(
        temperature=0.5,
        top_p=1.0,
        widening=((2.0, 2.0, 2.0, 2.0),),
        slope=0.5,
        intercept=0.3,
        interval="1h",
        metadata={"symbol": "X"},
    )
    written = sampled.calibrated(calibration)
    written.save(tmp_path)
    read = ForecastSet.load(tmp_path)
    assert read.calibration == calibration
    np.testing.assert_array_equal(read.probability_up, written.probability_up)
    assert not np.array_equal(written.probability_up, probability_up(written.paths, written.last_close))
    both = ForecastSet.join([written, read])
    assert both.calibration == calibration
    np.testing.assert_array_equal(both.probability_up, np.repeat(written.probability_up, 2, axis=0))
    assert ForecastSet.join([sampled, sampled]).up is None


def test_a_calibrated_forecaster_samples_and_corrects_as_its_evaluation_found(tmp_path, frame):
    directory = tmp_path / "predictor"
    shutil.copytree(GOLDEN / "tiny-predictor", directory)
    with pytest.raises(CalibrationError, match="not calibrated"):
        Forecaster.from_pretrained(GOLDEN / "tiny-tokenizer", directory, device="cpu", calibrated=True)
    Calibration(
        temperature=0.5, top_p=1.0, widening=((2.0, 2.0, 2.0, 2.0),), slope=1.0, intercept=0.0, interval="1h"
    ).save(directory)
    plain, calibrated = (
        Forecaster.from_pretrained(GOLDEN / "tiny-tokenizer", directory, device="cpu", calibrated=choice)
        for choice in (False, True)
    )
    assert plain.calibration is None
    assert calibrated.sampling.temperature == 0.5
    plain = replace(plain, sampling=calibrated.sampling)
    before, after = (one.sample_paths(frame[:50], 3, 31, generator=seeded()) for one in (plain, calibrated))
    last = frame["close"].to_numpy()[49:50]
    np.testing.assert_array_equal(after, calibrated.calibration.apply(before, last))
    assert (np.ptp(after[..., 3], axis=1) > np.ptp(before[..., 3], axis=1)).all()
