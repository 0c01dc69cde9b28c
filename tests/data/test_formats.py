"""Reading candle files: many layouts give the same candles, and what cannot be right stops with its place."""

import numpy as np
import pandas as pd
import pytest

from kronos_lightning.data import CandleError, read_candles
from kronos_lightning.data.formats import FEATURES, PRICES

T = pd.date_range("2024-12-31 20:00", periods=8, freq="h", tz="UTC")  # crosses 2025, where archives change to µs
VALUES = pd.DataFrame(
    {
        "open": [10.0, 11, 12, 11, 10, 11, 12, 13],
        "high": [12.0, 13, 13, 12, 12, 13, 14, 14],
        "low": [9.0, 10, 10, 9.5, 9, 10, 11, 12],
        "close": [11.0, 12, 11, 10, 11, 12, 13, 12.5],
        "volume": [1.5, 2, 3, 0, 5, 6, 7, 8],
        "amount": [16.0, 23, 35, 0, 52, 69, 87, 101],
    }
)


def epochs(unit):
    return (T.as_unit("ns").astype("int64") // {"s": 10**9, "ms": 10**6, "us": 10**3}[unit]).to_numpy()


def text(fmt):
    return T.strftime(fmt)


def guide(stamps, name="timestamps", **changes):
    return VALUES.assign(**changes).to_csv(index=False) and pd.concat(
        [pd.Series(stamps, name=name).astype(object), VALUES.assign(**changes)], axis=1
    ).to_csv(index=False)


def binance(stamps, header=False):
    rest = VALUES[["open", "high", "low", "close", "volume"]]
    frame = pd.concat([pd.Series(stamps, name="open_time"), rest], axis=1).assign(
        close_time=stamps, quote=VALUES["amount"], trades=3, buy_base=1.0, buy_quote=2.0, unused=0
    )
    names = "open_time,open,high,low,close,volume,close_time,quote_volume,count,buy_volume,buy_quote_volume,ignore"
    return (names + "\n" if header else "") + frame.to_csv(index=False, header=False)


def cryptodatadownload():
    frame = VALUES.assign(Unix=epochs("ms"), Date=text("%Y-%m-%d %H:%M:%S"), Symbol="BTC/USDT", tradecount=1)
    frame = frame[["Unix", "Date", "Symbol", *PRICES, "volume", "amount", "tradecount"]][::-1]
    header = "Unix,Date,Symbol,Open,High,Low,Close,Volume BTC,Volume USDT,tradecount"
    return f"https://www.example.org\n{header}\n" + frame.to_csv(index=False, header=False)


def kaggle():
    frame = pd.concat([pd.Series(text("%Y-%m-%d %H:%M:%S "), name="Open time"), VALUES], axis=1)
    frame.columns = ["Open time", "Open", "High", "Low", "Close", "Volume", "Quote asset volume"]
    return frame.to_csv(index=False) + ",,,,,,\n"


LAYOUTS = {
    "the guide's": guide(text("%Y-%m-%d %H:%M:%S")),
    "timestamp": guide(text("%Y-%m-%d %H:%M:%S"), "timestamp"),
    "date": guide(text("%Y-%m-%dT%H:%M:%SZ"), "date"),
    "zone": guide(T.tz_convert("Asia/Shanghai").strftime("%Y-%m-%d %H:%M:%S%z")),
    "UTC suffix": guide(text("%Y-%m-%d %H:%M:%S UTC")),
    "slashes without padding": guide([f"{t.year}/{t.month}/{t.day} {t.hour}:{t.minute:02}" for t in T]),
    "twelve-hour clock": guide(text("%Y-%m-%d %I-%p")),
    "unix seconds": guide(epochs("s"), "Unix"),
    "binance ms": binance(epochs("ms")),
    "binance µs": binance(epochs("us")),
    "binance µs from 2025 on": binance(np.where(T.year < 2025, epochs("ms"), epochs("us"))),
    "binance with header": binance(epochs("ms"), header=True),
    "kaggle with an empty last row": kaggle(),
    "cryptodatadownload": cryptodatadownload(),
    "byte-order mark": "\ufeff" + guide(text("%Y-%m-%d %H:%M:%S")),
    "windows line ends": guide(text("%Y-%m-%d %H:%M:%S")).replace("\n", "\r\n"),
    "thousands separators": guide(
        text("%Y-%m-%d %H:%M:%S"), amount=[f"{v / 1:,.1f}" for v in VALUES["amount"]]
    ),
    "scientific notation": guide(text("%Y-%m-%d %H:%M:%S"), open=[f"{v:.3e}" for v in VALUES["open"]]),
    "repeated equal row": guide(text("%Y-%m-%d %H:%M:%S")) + guide(text("%Y-%m-%d %H:%M:%S")).splitlines()[-1] + "\n",
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_candles(tmp_path, layout):
    path = tmp_path / "candles.csv"
    path.write_bytes(LAYOUTS[layout].encode())
    frame = read_candles(path, "1h", "BTCUSDT").frame
    np.testing.assert_array_equal(frame["timestamps"], T)
    np.testing.assert_allclose(frame[FEATURES], VALUES)
    assert frame["segment"].eq(0).all()


@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Tokyo"])
@pytest.mark.parametrize("as_index", [False, True])
def test_parquet_is_read_with_stamps_as_column_or_index(tmp_path, zone, as_index):
    stamps = T.tz_localize(None) if zone is None else T.tz_convert(zone)
    frame = VALUES.set_axis(stamps) if as_index else VALUES.assign(Date=stamps)
    frame.to_parquet(tmp_path / "candles.parquet")
    read = read_candles(tmp_path / "candles.parquet", "1h", "BTCUSDT").frame
    np.testing.assert_array_equal(read["timestamps"], T)
    np.testing.assert_allclose(read[FEATURES], VALUES)


def write(path, frame):
    frame.insert(0, "timestamps", text("%Y-%m-%d %H:%M:%S"))
    frame.to_csv(path, index=False)
    return path


def test_missing_amount_is_volume_times_mean_price(tmp_path):
    path = write(tmp_path / "c.csv", VALUES.drop(columns="amount"))
    frame = read_candles(path, "1h", "X").frame
    np.testing.assert_allclose(frame["amount"], VALUES["volume"] * VALUES[PRICES].mean(axis=1))


def test_missing_volume_is_zero(tmp_path):
    frame = read_candles(write(tmp_path / "c.csv", VALUES[PRICES].copy()), "1h", "X").frame
    assert frame[["volume", "amount"]].eq(0).all().all()


def replaced(row, column, value):
    return lambda lines: [*lines[: row + 1], cell(lines[row + 1], column, value), *lines[row + 2 :]]


def cell(line, column, value):
    cells = line.split(",")
    cells[["timestamps", *FEATURES].index(column)] = value
    return ",".join(cells)


BAD = {
    "NaN price": (replaced(2, "close", ""), r"line 4, column close: nan .*not a number"),
    "infinite price": (replaced(2, "high", "inf"), r"line 4, column high: inf .*infinite"),
    "price beyond 32-bit numbers": (replaced(2, "high", "9e38"), r"line 4, column high: 9e\+38 .*32-bit"),
    "volume beyond 32-bit numbers": (replaced(2, "volume", "9e38"), r"line 4, column volume: 9e\+38 .*32-bit"),
    "zero price": (replaced(3, "low", "0"), r"line 5, column low: 0 .*must be positive"),
    "negative price": (replaced(3, "open", "-4"), r"line 5, column open: -4 .*must be positive"),
    "high below close": (replaced(1, "high", "11.5"), r"line 3, column high: 11.5 .*high is below"),
    "low above open": (replaced(1, "low", "11.2"), r"line 3, column low: 11.2 .*low is above"),
    "negative volume": (replaced(5, "volume", "-1"), r"line 7, column volume: -1 .*must not be negative"),
    "negative amount": (replaced(5, "amount", "-1"), r"line 7, column amount: -1 .*must not be negative"),
    "text price": (replaced(4, "open", "abc"), r"line 6, column open: 'abc' is not a number"),
    "unparsable date": (
        replaced(4, "timestamps", "yesterday"),
        r"line 6, column timestamps: 'yesterday' is not a date",
    ),
    "ambiguous date": (
        replaced(4, "timestamps", "01/02/2024"),
        r"line 6, column timestamps: '01/02/2024' is not a date",
    ),
    "duplicate stamps with different values": (
        lambda lines: [*lines, cell(lines[3], "volume", "9")],
        r"line 10, column timestamps: 2024-12-31 22:00:00\+00:00 is also in line 4 with different values",
    ),
    "stray stamp": (
        lambda lines: [*lines, cell(lines[-1], "timestamps", "2025-01-01 04:07:00")],
        r"line 10, column timestamps: .*not a whole number of 1h",
    ),
    "missing column": (
        lambda lines: [line.replace("close", "final") for line in lines],
        r"column close missing; .*final",
    ),
    "no header": (lambda lines: [line + ",0.5" for line in lines[1:]], "no header, and the meaning of columns 7 to 8"),
    "header alone": (lambda lines: lines[:1], "no candles"),
}


@pytest.mark.parametrize("defect", BAD)
def test_what_cannot_be_right_stops_with_file_line_column_and_value(tmp_path, defect):
    change, message = BAD[defect]
    path = tmp_path / "candles.csv"
    path.write_text("\n".join(change(LAYOUTS["the guide's"].splitlines())) + "\n")
    with pytest.raises(CandleError, match=message) as caught:
        read_candles(path, "1h", "BTCUSDT")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"), [("c.csv", b""), ("c.csv", b"\x00\xff\xfe"), ("c.parquet", b"no parquet")]
)
def test_a_file_that_is_no_table_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CandleError, match=name):
        read_candles(tmp_path / name, "1h", "X")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CandleError, match=r"nothing.csv: no such file$"):
        read_candles(tmp_path / "nothing.csv", "1h", "X")


def test_an_interval_that_disagrees_with_the_configuration_is_refused(tmp_path):
    path = tmp_path / "candles.csv"
    path.write_text(LAYOUTS["the guide's"])
    with pytest.raises(CandleError, match=r"1h apart, data\.interval is 1d"):
        read_candles(path, "1d", "X")


def test_a_gap_starts_a_new_segment(tmp_path):
    path = tmp_path / "candles.csv"
    lines = LAYOUTS["the guide's"].splitlines()
    path.write_text("\n".join(lines[:4] + lines[6:]))
    candles = read_candles(path, "1h", "X")
    assert candles.frame["segment"].tolist() == [0, 0, 0, 1, 1, 1]
    assert candles.gaps == [(T[2], T[5])]


def test_what_is_to_know_of_a_file_is_logged_once_however_often_it_is_read(tmp_path, caplog):
    caplog.set_level("INFO")
    path = tmp_path / "candles.csv"
    header, *lines = LAYOUTS["the guide's"].splitlines()
    path.write_text("\n".join([header, *reversed(lines[:3] + lines[5:]), lines[0]]))
    for _ in range(2):
        read_candles(path, "1h", "X")
    for words in ("candles missing: 2 after", "sorted", "1 repeated row(s) dropped"):
        assert sum(words in record.getMessage() for record in caplog.records) == 1


def test_sessions_with_breaks_are_one_segment_when_allowed(tmp_path):
    path = tmp_path / "candles.csv"
    lines = LAYOUTS["the guide's"].splitlines()
    path.write_text("\n".join(lines[:4] + lines[6:]))
    assert read_candles(path, "1h", "X", sessions=True).frame["segment"].eq(0).all()


def test_the_fingerprint_is_that_of_the_candles_not_of_the_file(tmp_path):
    prints = set()
    for layout in ("the guide's", "binance ms", "cryptodatadownload"):
        (tmp_path / "c.csv").write_bytes(LAYOUTS[layout].encode())
        prints.add(read_candles(tmp_path / "c.csv", "1h", "X").fingerprint)
    (tmp_path / "c.csv").write_text(LAYOUTS["the guide's"].replace("14.0", "14.5"))
    assert len(prints) == 1
    assert read_candles(tmp_path / "c.csv", "1h", "X").fingerprint not in prints


def test_thousands_of_gaps_are_told_in_a_few_lines(tmp_path, caplog):
    caplog.set_level("INFO")
    stamps = pd.date_range("2024-01-01", periods=8000, freq="min").delete(np.arange(2, 8000, 4))
    frame = pd.DataFrame({"timestamps": stamps}).assign(**dict.fromkeys(PRICES, 2000.0), volume=1.0)
    frame.to_csv(tmp_path / "x.csv", index=False)
    read_candles(tmp_path / "x.csv", "1m", "X")
    lines = [message for message in caplog.messages if "missing" in message]
    assert len(lines) == 1
    assert "and in 1997 more gaps (2000 in all)" in lines[0]
