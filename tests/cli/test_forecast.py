"""python -m kronos_lightning.forecast, from a file to a table, a CSV and a plot."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from kronos_lightning import Kronos, KronosTokenizer
from kronos_lightning.cli.forecast import (
    LEVELS,
    USUAL_LOOKBACK,
    calibrated,
    last_series,
    print_summary,
    trained_lookback,
)
from kronos_lightning.config.validation import check_forecasting
from kronos_lightning.data import read_candles
from kronos_lightning.forecast import series_generators
from kronos_lightning.forecast.calibration import Calibration
from kronos_lightning.runs.checkpoint_lookup import Sources
from kronos_lightning.runs.networks import Inputs, build_forecaster
from tests.helpers.commands import command
from tests.helpers.configuration import composed
from tests.helpers.paths import GOLDEN

NETWORKS = [f"predictor={GOLDEN / 'tiny-predictor'}", f"tokenizer={GOLDEN / 'tiny-tokenizer'}"]
HOURS = GOLDEN / "btc_usdt_1h_rows_500_559.csv"


def sources(info=None, directory=None):
    return Sources(predictor="a", tokenizer="b", info=info, directory=directory)


@pytest.fixture(scope="module")
def forecast(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("forecast")
    result = command("kronos_lightning.forecast", str(HOURS), "horizon=30", *NETWORKS, cwd=cwd)
    return cwd / "outputs" / "forecasts" / HOURS.stem, result


def test_the_command_tells_quantiles_probabilities_and_where_the_files_are(forecast):
    _, result = forecast
    assert "Quantiles of the close after" in result.stdout
    assert result.stdout.count("│") > 24 * 6
    assert "Within 30 candles: falls 2.0% first" in result.stdout
    assert "Candle validity:" in result.stdout
    assert "not calibrated" in result.stdout
    assert f"Written to outputs/forecasts/{HOURS.stem}: quantiles.csv, risk.csv, paths.npy, fan.png" in result.stderr


def test_the_csv_holds_the_quantiles_of_the_paths_and_the_plot_can_be_opened(forecast):
    folder, result = forecast
    table, paths = pd.read_csv(folder / "quantiles.csv"), np.load(folder / "paths.npy")
    risk = pd.read_csv(folder / "risk.csv")
    assert len(risk) == paths.shape[1]
    assert (risk["expected_shortfall_0.05"] >= risk["value_at_risk_0.05"]).all()
    assert f"{risk['value_at_risk_0.05'].iloc[-1]:.2%} at 5%" in " ".join(result.stdout.split())
    assert paths.shape == (100, 30, 6)
    assert list(table) == ["timestamps", "target_name", "predictions", *map(str, LEVELS)]
    close = table[table["target_name"] == "close"]
    assert len(close) == 30
    np.testing.assert_allclose(close["0.9"], np.quantile(paths[..., 3].astype(float), 0.9, axis=0, method="weibull"))
    last = pd.to_datetime(pd.read_csv(HOURS)["timestamps"], utc=True).iloc[-1]
    assert pd.Timestamp(close["timestamps"].iloc[0]) == last + pd.Timedelta("1h")
    assert imread(folder / "fan.png").std() > 0.05


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.csv"], "error: nothing.csv: no such file\n"),
        ([], "candles"),
        ([str(HOURS), "horizon=0"], "error: horizon: Input should be greater than 0"),
        ([str(HOURS), "interval=1d"], "candles are 1h apart, data.interval is 1d"),
        ([str(HOURS), "predictor=nowhere"], "nowhere: no such directory"),
    ],
)
def test_what_cannot_be_forecast_ends_with_one_line(arguments, message, tmp_path):
    result = command("kronos_lightning.forecast", *arguments, "tokenizer=published", cwd=tmp_path, check=False)
    assert result.returncode != 0
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.rglob("*.png"))


def networks():
    return KronosTokenizer.from_pretrained(GOLDEN / "tiny-tokenizer"), Kronos.from_pretrained(GOLDEN / "tiny-predictor")


def sampled(*overrides):
    """Paths of the command's settings on golden networks."""
    settings = check_forecasting(composed("forecast", f"candles='{HOURS}'", "forecast.num_paths=4", *overrides))
    series = last_series(read_candles(HOURS, settings.interval, "x"), settings.lookback or 360, settings)
    forecaster = build_forecaster(settings, *networks(), Inputs(clip=settings.clip))
    generators = series_generators(settings.seed, [series.stamps[-1]])
    return forecaster.sample_series([series], settings.forecast.num_paths, generators)


def test_every_setting_of_the_forecast_changes_it():
    usual = sampled()
    np.testing.assert_array_equal(usual, sampled())
    for override in (
        "horizon=7", "lookback=30", "clip=0.5", "seed=1", "forecast.num_paths=5", "forecast.temperature=0.3",
        "forecast.top_k=2", "forecast.top_p=0.2", "forecast.rotary_fine_token=true", "forecast.precision=bfloat16",
        "forecast.repair=true", "model.max_context=20",
    ):  # fmt: skip
        assert not np.array_equal(usual, sampled(override)), override


@pytest.mark.parametrize("override", ["touch_down=0.5", "touch_up=0.5"])
def test_the_levels_of_the_touch_change_what_is_told(override, capsys):
    told = []
    for overrides in ([], [override]):
        settings = check_forecasting(composed("forecast", f"candles='{HOURS}'", *overrides))
        series = last_series(read_candles(HOURS, None, "x"), 360, settings)
        print_summary(series, sampled("forecast.num_paths=50")[0], settings, sources(), None)
        told.append(capsys.readouterr().out)
    assert told[0] != told[1]


def test_a_calibration_beside_the_checkpoint_is_used_and_told(tmp_path, caplog, capsys):
    metadata = {"symbol": "BTCUSDT", "fitted_from": "2024-02-01T00", "fitted_to": "2024-06-30T23"}
    metadata |= {"lookback": 90, "top_k": 0, "rotary_fine_token": False}
    Calibration(
        temperature=0.8,
        top_p=0.9,
        widening=((1.0, 2.0, 3.0, 4.0),),
        slope=0.5,
        intercept=0.0,
        interval="1h",
        metadata=metadata,
    ).save(tmp_path)
    settings = check_forecasting(composed("forecast", f"candles='{HOURS}'", "forecast.num_paths=41"))
    candles, plain = read_candles(HOURS, None, "x"), build_forecaster(settings, *networks(), Inputs(clip=settings.clip))
    stored, series = sources(directory=tmp_path), last_series(candles, 90, settings)
    found = calibrated(plain, stored, candles.interval, 90)
    assert (found.sampling.temperature, found.sampling.top_p) == (0.8, 0.9)
    paths = found.sample_series([series], 41, series_generators(0, ["a"]))[0]
    raw = replace(found, calibration=None).sample_series([series], 41, series_generators(0, ["a"]))[0]
    assert (np.ptp(paths[..., 3], axis=0) > 2 * np.ptp(raw[..., 3], axis=0)).all()
    np.testing.assert_allclose(np.median(paths[..., 3], axis=0), np.median(raw[..., 3], axis=0), rtol=1e-5)
    print_summary(series, paths, settings, stored, found.calibration)
    told = " ".join(capsys.readouterr().out.split())
    assert "Calibrated on BTCUSDT from 2024-02-01 to 2024-06-30" in told
    assert "Steps beyond 1 are treated like step 1." in told
    assert calibrated(plain, stored, candles.interval, 360) is plain
    assert "was fitted with lookback=90" in caplog.text
    assert calibrated(plain, stored, pd.Timedelta("1D"), 90) is plain
    assert "was fitted on candles of 1h" in caplog.text
    assert calibrated(plain, sources(), candles.interval, 90) is plain
    other = replace(plain, rotary_fine_token=True)
    assert calibrated(other, stored, candles.interval, 90) is other
    assert "forecast.rotary_fine_token=false" in caplog.text


def test_the_model_sees_as_many_candles_as_in_its_training():
    assert trained_lookback(sources(info={"settings": {"lookback": 90}})) == 90
    assert trained_lookback(sources(info={})) == trained_lookback(sources()) == USUAL_LOOKBACK


def test_only_the_candles_after_the_last_gap_are_seen(tmp_path, caplog):
    frame = pd.read_csv(HOURS)
    path = tmp_path / "gap.csv"
    frame.drop(index=[40]).to_csv(path, index=False)
    settings = check_forecasting(composed("forecast", f"candles='{path}'"))
    series = last_series(read_candles(path, None, "gap"), 360, settings)
    assert len(series.values) == len(frame) - 41
    assert "after the last gap" in caplog.text
