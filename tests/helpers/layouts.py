"""Candle files as other tools write them: one generator a layout, all of them of the same candles."""

import gzip
import json
import zipfile

import numpy as np
import pandas as pd

NAMES = ["open", "high", "low", "close"]


def candles(count=60, step="1h", start="2023-01-30", seed=3):
    """Candles with two decimals; volume in whole units; amount = volume x close."""
    generator = np.random.default_rng(seed)
    close = np.round(2000 * np.exp(np.cumsum(generator.normal(0, 0.004, count))), 2)
    opened = np.concatenate([[2000.0], close[:-1]])
    high = np.round(np.maximum(opened, close) + generator.uniform(0.01, 9, count), 2)
    low = np.round(np.minimum(opened, close) - generator.uniform(0.01, 9, count), 2)
    volume = generator.integers(1000, 900_000, count).astype(float)
    times = pd.date_range(start, periods=count, freq=step, tz="UTC")
    frame = pd.DataFrame({"timestamps": times, "open": opened, "high": high, "low": low, "close": close})
    return frame.assign(volume=volume, amount=np.round(volume * close, 2))


def epochs(frame, unit):
    return frame["timestamps"].dt.as_unit("ns").astype("int64") // {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[unit]


def text(frame, form="%Y-%m-%d %H:%M:%S", zone="UTC"):
    return frame["timestamps"].dt.tz_convert(zone).dt.strftime(form)


def table(path, columns, header=True, **options):
    """Write columns by name, in this order."""
    pd.DataFrame(dict(columns)).to_csv(path, index=False, header=header, **options)


def prices(frame, *names):
    return dict(zip(names or NAMES, (frame[name] for name in NAMES), strict=True))


def comma(values, thousands="", decimals=2):
    """Numbers as a German spreadsheet writes them."""
    swap = str.maketrans({",": thousands, ".": ","})
    return [f"{value:,.{decimals}f}".translate(swap) for value in values]


def guide(frame, path):
    table(path, {"timestamps": text(frame), **prices(frame), "volume": frame["volume"], "amount": frame["amount"]})


def binance_vision(frame, path):
    ms = epochs(frame, "ms")
    rest = {"volume": frame["volume"], "end": ms + 3_599_999, "quote": frame["amount"], "n": 9, "b": 1, "q": 2, "u": 0}
    table(path, {"time": ms, **prices(frame), **rest}, header=False)


def binance_zip(frame, path):
    inner = path.with_name("BTCUSDT-1h-2023-01.csv")
    binance_vision(frame.assign(timestamps=frame["timestamps"]), inner)
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(inner, inner.name)


def binance_microseconds(frame, path):
    us = epochs(frame, "us")
    table(path, {"t": us, **prices(frame), "v": frame["volume"], "e": us, "q": frame["amount"], "n": 9, "b": 1, "c": 2,
                 "u": 0}, header=False)  # fmt: skip


def ccxt(frame, path):
    table(path, {"t": epochs(frame, "ms"), **prices(frame), "v": frame["volume"]}, header=False)


def kraken(frame, path):
    table(path, {"t": epochs(frame, "s"), **prices(frame), "v": frame["volume"], "n": 100}, header=False)


def kraken_rest(frame, path):
    rest = {"vwap": (frame["high"] + frame["low"]) / 2, "v": frame["volume"], "n": 100}
    table(path, {"t": epochs(frame, "s"), **prices(frame), **rest}, header=False)


def okx(frame, path):
    rest = {"vol": frame["volume"], "volCcy": frame["volume"], "volCcyQuote": frame["amount"], "confirm": 1}
    table(path, {"ts": epochs(frame, "ms"), **prices(frame), **rest})


def okx_rows(frame, path):
    rest = {"vol": frame["volume"], "volCcy": frame["volume"], "volCcyQuote": frame["amount"], "confirm": 1}
    table(path, {"ts": epochs(frame, "ms"), **prices(frame), **rest}, header=False)


def bybit(frame, path):
    names = ["openPrice", "highPrice", "lowPrice", "closePrice"]
    rest = {"volume": frame["volume"], "turnover": frame["amount"]}
    table(path, {"startTime": epochs(frame, "ms"), **prices(frame, *names), **rest})


def bybit_rows(frame, path):
    rest = {"volume": frame["volume"], "turnover": frame["amount"]}
    table(path, {"t": epochs(frame, "ms"), **prices(frame), **rest}, header=False)


def coinmarketcap(frame, path):
    opened = text(frame, "%Y-%m-%dT%H:%M:%S.000Z")
    ended = (frame["timestamps"] + pd.Timedelta("1h") - pd.Timedelta("1ms")).dt.strftime("%Y-%m-%dT%H:%M:%S.999Z")
    more = {"marketCap": 1e9, "circulatingSupply": 1.9e7, "timestamp": ended}
    volume = {"volume": frame["amount"]}
    table(path, {"timeOpen": opened, "timeClose": ended, "name": 2781, **prices(frame), **volume, **more}, sep=";")


def cryptocompare(frame, path):
    rest = {"volumefrom": frame["volume"], "volumeto": frame["amount"], "conversionType": "direct"}
    table(path, {"time": epochs(frame, "s"), **prices(frame), **rest})


def cryptodatadownload(frame, path):
    rest = {"Volume BTC": frame["volume"], "Volume USDT": frame["amount"], "tradecount": 7}
    head = {"unix": epochs(frame, "ms"), "date": text(frame), "symbol": "BTC/USDT"}
    columns = pd.DataFrame({**head, **prices(frame, "Open", "High", "Low", "Close"), **rest})
    path.write_text("https://www.cryptodatadownload.com\n" + columns[::-1].to_csv(index=False))


def kaggle_bitstamp(frame, path):
    rest = {"Volume_(BTC)": frame["volume"], "Volume_(Currency)": frame["amount"], "Weighted_Price": frame["close"]}
    table(path, {"Timestamp": epochs(frame, "s"), **prices(frame, "Open", "High", "Low", "Close"), **rest})


def metatrader4(frame, path):
    head = {"d": text(frame, "%Y.%m.%d"), "t": text(frame, "%H:%M")}
    table(path, {**head, **prices(frame), "v": frame["volume"].astype(int)}, header=False)


def metatrader5(frame, path):
    head = {"<DATE>": text(frame, "%Y.%m.%d"), "<TIME>": text(frame, "%H:%M:%S")}
    rest = {"<TICKVOL>": frame["volume"].astype(int), "<VOL>": 0, "<SPREAD>": 12}
    table(path, {**head, **prices(frame, "<OPEN>", "<HIGH>", "<LOW>", "<CLOSE>"), **rest}, sep="\t")


def stooq(frame, path):
    head = {"Date": text(frame, "%Y%m%d"), "Time": text(frame, "%H%M%S")}
    table(path, {**head, **prices(frame, "Open", "High", "Low", "Close"), "Volume": frame["volume"]})


def yfinance(frame, path):
    columns = {"Date": text(frame), "Close": frame["close"], "High": frame["high"], "Low": frame["low"],
               "Open": frame["open"], "Volume": frame["volume"]}  # fmt: skip
    body = pd.DataFrame(columns).to_csv(index=False, header=False)
    path.write_text("Price,Close,High,Low,Open,Volume\nTicker" + ",BTC-USD" * 5 + "\nDatetime" + "," * 5 + "\n" + body)


def yahoo(frame, path):
    rest = {"Adj Close": frame["close"] * 0.9, "Volume": frame["volume"]}
    table(path, {"Datetime": text(frame, "%Y-%m-%d %H:%M:%S+00:00"),
                 **prices(frame, "Open", "High", "Low", "Close"), **rest})  # fmt: skip


def dukascopy(frame, path):
    stamps = text(frame, "%d.%m.%Y %H:%M:%S.000 GMT%z", "Europe/Berlin")
    table(path, {"Local time": stamps, **prices(frame, "Open", "High", "Low", "Close"), "Volume": frame["volume"]})


def investing(frame, path):
    columns = {"Date": text(frame, "%m/%d/%Y %H:%M"), "Price": [f"{v:,.2f}" for v in frame["close"]],
               "Open": [f"{v:,.2f}" for v in frame["open"]], "High": [f"{v:,.2f}" for v in frame["high"]],
               "Low": [f"{v:,.2f}" for v in frame["low"]], "Vol.": [f"{v / 1000:.3f}K" for v in frame["volume"]],
               "Change %": "0.1%"}  # fmt: skip
    pd.DataFrame(columns)[::-1].to_csv(path, index=False, quoting=1)


def nasdaq(frame, path):
    columns = {"Date": text(frame, "%m/%d/%Y %H:%M"), "Close/Last": [f"${v}" for v in frame["close"]],
               "Volume": frame["volume"].astype(int), "Open": [f"${v}" for v in frame["open"]],
               "High": [f"${v}" for v in frame["high"]], "Low": [f"${v}" for v in frame["low"]]}  # fmt: skip
    table(path, columns)


def alphavantage(frame, path):
    names = ["1. open", "2. high", "3. low", "4. close"]
    table(path, {"timestamp": text(frame), **prices(frame, *names), "5. volume": frame["volume"]})


def tradingview(frame, path):
    rest = {"Volume": frame["volume"], "Volume MA": frame["volume"].mean(), "RSI": 50}
    table(path, {"time": epochs(frame, "s"), **prices(frame), **rest})


def tushare(frame, path):
    rest = {"vol": frame["volume"] / 100, "amount": frame["amount"] / 1000}
    table(path, {"ts_code": "600519.SH", "trade_time": text(frame), **prices(frame), **rest})


def akshare(frame, path):
    names = ["开盘", "最高", "最低", "收盘"]
    rest = {"成交量": frame["volume"], "成交额": frame["amount"], "换手率": 0.31}
    table(path, {"日期": text(frame), **prices(frame, *names), **rest}, encoding="gbk")


def baostock(frame, path):
    head = {"date": text(frame, "%Y-%m-%d"), "time": text(frame, "%Y%m%d%H%M%S000"), "code": "sh.600000"}
    table(path, {**head, **prices(frame), "volume": frame["volume"], "amount": frame["amount"]})


def digits(frame, path):
    table(path, {"time": text(frame, "%Y%m%d%H%M%S"), **prices(frame), "volume": frame["volume"]})


def unnamed_index(frame, path):
    frame.drop(columns="amount").set_index(text(frame)).drop(columns="timestamps").to_csv(path, index_label="")


def semicolons(frame, path):
    columns = {"Datum": text(frame), "Date": text(frame)} | {name.title(): comma(frame[name]) for name in NAMES}
    table(path, columns | {"Volume": comma(frame["volume"], thousands=".", decimals=0)}, sep=";")


def quoted_commas(frame, path):
    pairs = {name: comma(frame[name]) for name in NAMES}
    table(path, {"Date": text(frame), **pairs, "Volume": frame["volume"].astype(int)})


def tabs(frame, path):
    table(path, {"timestamps": text(frame), **prices(frame), "volume": frame["volume"]}, sep="\t")


def utf16(frame, path):
    table(path, {"timestamps": text(frame), **prices(frame), "volume": frame["volume"]}, sep="\t", encoding="utf-16")


def compressed(frame, path):
    inner = path.with_name("inner.csv")
    guide(frame, inner)
    path.write_bytes(gzip.compress(inner.read_bytes()))


def parquet(frame, path):
    frame.to_parquet(path)


def feather(frame, path):
    frame.rename(columns={"timestamps": "date"}).drop(columns="amount").to_feather(path)


def excel(frame, path):
    frame.assign(timestamps=frame["timestamps"].dt.tz_localize(None)).to_excel(path, index=False)


def freqtrade_json(frame, path):
    rows = np.column_stack([epochs(frame, "ms"), frame[[*NAMES, "volume"]]])
    path.write_text(json.dumps([[int(row[0]), *row[1:]] for row in rows.tolist()]))


def records_json(frame, path):
    rows = frame.assign(timestamps=text(frame)).to_dict("records")
    path.write_text(json.dumps({"data": rows}))


def chinese_dates(frame, path):
    table(path, {"时间": text(frame, "%Y年%m月%d日 %H:%M"), **prices(frame), "volume": frame["volume"]})


def twelve_hours(frame, path):
    table(path, {"Date": text(frame, "%Y-%m-%d %I-%p"), **prices(frame), "Volume": frame["volume"]})


def month_names(frame, path):
    table(path, {"Date": text(frame, "%b %d, %Y %H:%M"), **prices(frame), "Volume": frame["volume"]})


def zoned_texts(frame, path):
    stamps = text(frame, "%Y-%m-%d %H:%M:%S%z", "Asia/Shanghai")
    table(path, {"datetime": stamps, **prices(frame), "volume": frame["volume"]})


def close_times(frame, path):
    ended = epochs(frame, "ms") + 3_599_999
    table(path, {"close_time": ended, **prices(frame), "volume": frame["volume"]})


# Layout: (writer, ending, further setting or None); docs/reference/candle-files.md has a row of each.
READ = {
    "the guide": (guide, "csv"),
    "Binance archive": (binance_vision, "csv"),
    "Binance archive, microseconds": (binance_microseconds, "csv"),
    "Binance archive, packed": (binance_zip, "zip"),
    "Kaggle, Bitstamp": (kaggle_bitstamp, "csv"),
    "ccxt rows": (ccxt, "csv"),
    "Kraken OHLCVT": (kraken, "csv"),
    "Kraken REST rows": (kraken_rest, "csv"),
    "OKX": (okx, "csv"),
    "OKX rows": (okx_rows, "csv"),
    "Bybit": (bybit, "csv"),
    "Bybit rows": (bybit_rows, "csv"),
    "CoinMarketCap": (coinmarketcap, "csv"),
    "CryptoCompare": (cryptocompare, "csv"),
    "CryptoDataDownload": (cryptodatadownload, "csv"),
    "MetaTrader 4": (metatrader4, "csv"),
    "MetaTrader 5": (metatrader5, "csv"),
    "Stooq": (stooq, "csv"),
    "yfinance ≥ 0.2.51": (yfinance, "csv"),
    "Yahoo, yfinance with one header line": (yahoo, "csv"),
    "Dukascopy": (dukascopy, "csv"),
    "Investing.com": (investing, "csv"),
    "Nasdaq": (nasdaq, "csv"),
    "Alpha Vantage": (alphavantage, "csv"),
    "TradingView": (tradingview, "csv"),
    "tushare": (tushare, "csv"),
    "akshare, in GBK": (akshare, "csv"),
    "baostock": (baostock, "csv"),
    "digits as dates": (digits, "csv"),
    "pandas with an unnamed index": (unnamed_index, "csv"),
    "semicolons and decimal commas": (semicolons, "csv"),
    "quoted decimal commas": (quoted_commas, "csv"),
    "tabs": (tabs, "tsv"),
    "UTF-16": (utf16, "txt"),
    "gzip": (compressed, "csv.gz"),
    "Parquet": (parquet, "parquet"),
    "Feather, freqtrade": (feather, "feather"),
    "Excel": (excel, "xlsx"),
    "freqtrade JSON": (freqtrade_json, "json"),
    "JSON records": (records_json, "json"),
    "Chinese dates": (chinese_dates, "csv"),
    "twelve-hour clock": (twelve_hours, "csv"),
    "month names": (month_names, "csv"),
    "text with a zone": (zoned_texts, "csv"),
    "close times": (close_times, "csv"),
}
