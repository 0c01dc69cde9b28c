"""Layouts of candle files: each one that the documents list is read as the same candles, and no open one is guessed."""

import bz2
import lzma
import re
import zipfile

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kronos_lightning.data import CandleError, read_candles
from kronos_lightning.data.formats import FEATURES, PRICES, LayoutSection, as_raw, read_raw
from tests.helpers.layouts import READ, candles, comma, epochs, prices, table, text
from tests.helpers.paths import ROOT

PAGE = (ROOT / "docs/reference/candle-files.md").read_text()
LOTS = {"tushare": 100}  # shares in a lot, its unit of volume
HOURS = candles()


def read(path, **layout):
    return read_raw(path, LayoutSection(**layout))


@pytest.mark.parametrize("name", READ)
def test_each_layout_of_the_documents_is_read_as_the_same_candles(tmp_path, name):
    write, ending = READ[name]
    path = tmp_path / f"candles.{ending}"
    write(HOURS, path)
    frame = read_candles(path, "1h", "X").frame
    assert frame["timestamps"].tolist() == HOURS["timestamps"].tolist()
    np.testing.assert_allclose(frame[PRICES], HOURS[PRICES], rtol=1e-12)
    volume = frame["volume"] * LOTS.get(name, 1)
    tolerance = 0.01 if name == "CoinMarketCap" else 1e-5  # its volume is in dollars
    np.testing.assert_allclose(volume, HOURS["volume"], rtol=tolerance)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(sorted(READ)), seed=st.integers(0, 99), count=st.integers(40, 90), day=st.integers(1, 28))
def test_clean_candles_in_any_layout_are_read_back(tmp_path, name, seed, count, day):
    frame = candles(count, start=f"2022-{1 + seed % 12:02}-{day:02}", seed=seed)
    write, ending = READ[name]
    path = tmp_path / f"candles{seed}.{ending}"
    write(frame, path)
    raw = read_raw(path, LayoutSection(date_order="month_first") if name in ("Investing.com", "Nasdaq") else None)
    raw = raw.sort_values("timestamps")
    assert raw["timestamps"].tolist() == frame["timestamps"].tolist()
    np.testing.assert_allclose(raw[PRICES], frame[PRICES], rtol=1e-12)


def other(path, content):
    path.with_suffix(".other").write_bytes(content if isinstance(content, bytes) else content.encode())


def stamped(path, name, form):
    table(path.with_suffix(".other"), {name: text(HOURS, form), **prices(HOURS)})


VARIANTS = {
    "bz2": lambda p: other(p, bz2.compress(p.read_bytes())),
    "xz": lambda p: other(p, lzma.compress(p.read_bytes())),
    "vertical bars": lambda p: other(p, p.read_text().replace(",", "|")),
    "UTF-16 without a mark": lambda p: other(p, p.read_text().encode("utf-16-le")),
    "a separator at the end of each line": lambda p: other(p, p.read_text().replace("\n", ",\n")),
    "month first, in words": lambda p: stamped(p, "Date", "%B %d, %Y %I:%M %p"),
    "day first, in words": lambda p: stamped(p, "Date", "%d %b %Y %H:%M"),
    "digits of an hour": lambda p: stamped(p, "time", "%Y%m%d%H"),
    "digits of a minute": lambda p: stamped(p, "time", "%Y%m%d%H%M"),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_so_are_the_variants_that_the_documents_name(tmp_path, name):
    READ["the guide"][0](HOURS, tmp_path / "a.csv")
    VARIANTS[name](tmp_path / "a.csv")
    raw = read(tmp_path / "a.other")
    assert raw["timestamps"].tolist() == HOURS["timestamps"].tolist()
    np.testing.assert_allclose(raw[PRICES], HOURS[PRICES])


def test_the_documents_list_each_layout_and_no_other():
    rows = re.findall(r"^\| ([^|]+?) +\| read", PAGE, flags=re.M)
    assert rows == list(READ)


def test_each_reading_is_told_with_columns_unit_zone_and_what_was_not_used(tmp_path, caplog):
    caplog.set_level("INFO")
    READ["MetaTrader 5"][0](HOURS, tmp_path / "mt5.csv")
    raw = read(tmp_path / "mt5.csv")
    line = caplog.messages[-1]
    for part in ("timestamps = <DATE> + <TIME>", "volume = <TICKVOL>", "read as UTC", "not used: <VOL>, <SPREAD>"):
        assert part in line
    assert raw.attrs["reading"]["columns"]["volume"] == "<TICKVOL>"
    assert raw.attrs["reading"]["unused"] == ["<VOL>", "<SPREAD>"]


def save(path, columns, **options):
    table(path, {"timestamps": text(HOURS), **prices(HOURS), **columns}, **options)
    return path


def test_an_average_of_the_volume_is_no_volume_and_a_turnover_rate_no_amount(tmp_path):
    raw = read(save(tmp_path / "a.csv", {"Volume MA": 5.0}))
    assert "volume" not in raw
    raw = read(save(tmp_path / "b.csv", {"volume": HOURS["volume"], "turnover": HOURS["volume"] / 2e9}))
    assert "amount" not in raw
    assert "turnover" in raw.attrs["reading"]["unused"]


def test_the_volume_of_a_coin_needs_a_sign_that_it_is_a_coin(tmp_path):
    for name, known in (("BTC", True), ("PEPE", False)):
        assert ("volume" in read(save(tmp_path / f"{known}.csv", {f"Volume {name}": 5.0}))) == known
    assert "volume" in read(save(tmp_path / "PEPE.csv", {"Volume PEPE": 5.0}))
    assert "volume" in read(save(tmp_path / "d.csv", {"Volume PEPE": 5.0, "Volume USDT": 6.0}))


def test_an_amount_without_a_volume_gives_the_volume(tmp_path):
    raw = read(save(tmp_path / "a.csv", {"quote_volume": HOURS["amount"]}))
    np.testing.assert_allclose(raw["volume"], HOURS["amount"] / HOURS[PRICES].mean(axis=1))


OPEN_QUESTIONS = {
    "thousands or decimals": (
        lambda f, p: table(p, {"Date": text(f), **{n: ["1,234"] * len(f) for n in PRICES}}),
        "decimal=point or decimal=comma",
        {"decimal": "point"},
    ),
    "day or month": (
        lambda f, p: table(p, {"Date": text(candles(10, start="2023-01-02"), "%m/%d/%Y %H:%M"), **prices(f.head(10))}),
        "date_order=day_first or month_first",
        {"date_order": "month_first"},
    ),
    "columns without names": (
        lambda f, p: table(p, {"t": epochs(f, "s"), **prices(f), "v": 1.5, "x": 2.5}, header=False),
        "meaning of column 7 is open; .*columns={timestamps: 1",
        {"columns": {"timestamps": 1, "open": 2, "high": 3, "low": 4, "close": 5, "volume": 6}},
    ),
    "columns without names in another order": (
        lambda f, p: table(p, {"t": epochs(f, "s"), **f[["low", "high", "open", "close"]]}, header=False),
        "are not open, high, low and close",
        {"columns": {"timestamps": 1, "low": 2, "high": 3, "open": 4, "close": 5}},
    ),
    "two prices of one name": (
        lambda f, p: table(p, {"Date": text(f), **prices(f), "Close": f["close"] * 0.9}),
        "two columns for close: close, Close",
        {"columns": {"close": "Close"}},
    ),
    "an hour missing in spring": (
        lambda f, p: local(f, p, "2023-03-25"),
        r"hour from 2023-03-26 02:00 is missing, .*timezone=Europe/Berlin",
        {"timezone": "Europe/Berlin"},
    ),
    "an hour doubled in autumn": (
        lambda f, p: local(f, p, "2023-10-28"),
        r"hour from 2023-10-29 02:00 is doubled, .*timezone=Europe/Berlin",
        {"timezone": "Europe/Berlin"},
    ),
    "another name": (
        lambda f, p: table(p, {"Zeit": text(f), "date": 1, **prices(f)}),
        "1 is not a date",
        {"columns": {"timestamps": "Zeit"}},
    ),
}  # fmt: skip


def local(frame, path, start):
    frame = candles(start=start)
    table(path, {"date": text(frame, zone="Europe/Berlin"), **prices(frame)})


@pytest.mark.parametrize("name", OPEN_QUESTIONS)
def test_a_layout_with_one_open_question_is_refused_and_a_setting_decides(tmp_path, name):
    write, message, layout = OPEN_QUESTIONS[name]
    write(HOURS, tmp_path / "candles.csv")
    with pytest.raises(CandleError, match=message):
        read(tmp_path / "candles.csv")
    assert len(read(tmp_path / "candles.csv", **layout)) >= 10


def test_local_times_are_read_with_the_changes_of_the_clock(tmp_path):
    frame = candles(start="2023-10-28")
    for order, rows in (("oldest", frame), ("newest", frame[::-1])):
        path = tmp_path / f"{order}.csv"
        table(path, {"date": text(rows, zone="Europe/Berlin"), **prices(rows)})
        assert read(path, timezone="Europe/Berlin")["timestamps"].tolist() == rows["timestamps"].tolist()


def test_stamps_of_the_end_are_moved_to_the_open(tmp_path):
    ended = HOURS.assign(timestamps=HOURS["timestamps"] + pd.Timedelta("1h"))
    save_path = tmp_path / "a.csv"
    table(save_path, {"time": text(ended), **prices(HOURS)})
    assert read(save_path, stamp="close")["timestamps"].tolist() == HOURS["timestamps"].tolist()
    assert read(save_path, stamp="close").attrs["reading"]["marks"] == "close"
    assert read(save_path)["timestamps"].tolist() == ended["timestamps"].tolist()


REFUSED = {
    "several markets": (lambda f, p: save(p, {"symbol": ["A"] * 30 + ["B"] * 30}), "several markets .A, B."),
    "several tickers of yfinance": (
        lambda f, p: p.write_text("Price,Close,Close,High,Low,Open\nTicker,A,B,A,A,A\nDate,,,,,\n2023-01-01,1,1\n"),
        "several markets .A, B.",
    ),
    "unquoted decimal commas": (
        lambda f, p: p.write_text("Date,Open,High,Low,Close\n2023-01-01,0,08,0,09,0,07,0,08\n"),
        "line 2 has 9 cells for 5 columns; quote",
    ),
    "points and commas": (
        lambda f, p: save(p, {"volume": comma(f["volume"][:30]) + [f"{v}" for v in f["volume"][30:]]}),
        r"numbers with a decimal point \('\d+\.\d+', line 32\) and with a decimal comma",
    ),
    "a placeholder": (
        lambda f, p: table(p, {"date": [*text(f)[:-1], "9999-12-31"], **prices(f)}),
        "line 61, column date: '9999-12-31' is not a date between 1900 and tomorrow",
    ),
    "a number that is no time": (
        lambda f, p: table(p, {"time": [*epochs(f, "s")[:-1], 45000], **prices(f)}),
        "line 61, column time: 45000 is not a date",
    ),
    "an empty stamp in Parquet": (
        lambda f, p: f.assign(timestamps=f["timestamps"].where(f.index != 4)).to_parquet(p.with_suffix(".parquet")),
        "row 5, column timestamps: empty is not a date",
    ),
    "zones in some rows": (
        lambda f, p: table(p, {"date": [*text(f)[:-1], "2023-03-01 00:00:00+01:00"], **prices(f)}),
        "some stamps have a zone and others have none",
    ),
    "another kind of date": (
        lambda f, p: table(p, {"date": [*text(f)[:-1], "13/02/2023 11:00"], **prices(f)}),
        "line 61, column date: '13/02/2023 11:00' is not a date",
    ),
    "day first and month first": (
        lambda f, p: table(p, {"date": [*text(f, "%d/%m/%Y %H:%M")[:-1], "02/13/2023 11:00"], **prices(f)}),
        "begin with the day and with the month",
    ),
    "two intervals": (lambda f, p: save(p, {"interval": ["1h"] * 30 + ["4h"] * 30}), "interval holds several"),
    "an archive of two files": (lambda f, p: zipped(p), "holds 2 files"),
    "a picture": (lambda f, p: p.write_bytes(b"\x89PNG\r\n\x00" + bytes(range(256))), "not a text file"),
}  # fmt: skip


def zipped(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.csv", "x")
        archive.writestr("b.csv", "x")


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_rightly_is_refused(tmp_path, name):
    write, message = REFUSED[name]
    write(HOURS, tmp_path / "candles.csv")
    path = next(path for path in tmp_path.iterdir())
    with pytest.raises(CandleError, match=message):
        read(path)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_a_frame_in_memory_is_read_as_a_file_is(tmp_path, unit):
    frame = HOURS.assign(timestamps=epochs(HOURS, unit))
    frame.to_csv(tmp_path / "a.csv", index=False)
    pd.testing.assert_frame_equal(
        as_raw(frame, "frame").reset_index(drop=True), read(tmp_path / "a.csv").reset_index(drop=True)
    )


@pytest.mark.parametrize("columns", [{"close": "Adj Close"}, {"close": 6}])
def test_the_settings_name_columns_by_name_or_number(tmp_path, columns):
    path = save(tmp_path / "a.csv", {"Adj Close": HOURS["close"] * 0.5})
    np.testing.assert_allclose(read(path, columns=columns)["close"], HOURS["close"] * 0.5)
    with pytest.raises(CandleError, match="no such column; the file has: timestamps, open"):
        read(path, columns={"close": "Last"})


def test_the_volume_may_be_left_out(tmp_path):
    path = save(tmp_path / "a.csv", {"volume": 5.0, "amount": 6.0})
    assert list(read(path, columns={"volume": None, "amount": None})) == ["timestamps", *PRICES]
    assert set(FEATURES) <= set(read(path))
