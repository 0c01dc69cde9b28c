"""Choice of the columns for stamps, prices, volume and amount: by their names, and where needed by their values."""

import re
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from .features import BINANCE_COLUMNS, PRICES, CandleError
from .layout import LayoutSection
from .numbers import parse_numbers
from .stamps import is_clock, is_stamp


def _split(text: str) -> list[str]:
    return text.split()


SAMPLE_SHARE = 0.9  # of the sampled rows must agree with a rule

# Names without case, spaces and punctuation, in order of trust: epoch numbers are exact, text dates may lack a zone.
STAMPS = _split("""
    timestamps timestamp opentime timeopen starttime opentimestamp candlebegintime unix unixtimestamp unixtime epoch ts
    datetime datetimeutc dateutc gmttime localtime date day time t tradedate tradetime begin bartime index
    日期时间 时间戳 日期 时间 交易日期 交易时间 交易日
""")
ENDS = _split("closetime timeclose endtime timeend closetimestamp end candleendtime")
CLOCKS = _split("time 时间 tradetime 交易时间 hour")
NAMES = {
    "open": _split("open openprice o 1open first 开盘 开盘价 今开"),
    "high": _split("high highprice h 2high max 最高 最高价"),
    "low": _split("low lowprice l 3low min 最低 最低价"),
    "close": _split("close closeprice c 4close closelast last price 收盘 收盘价 最新价"),
    "volume": _split("volume vol v basevolume basevol volumefrom volumebase volumecrypto 5volume 成交量"),
    "amount": _split("""
        amount amt quoteassetvolume quotevolume quotevol volumequote volumeto volumecurrency volccyquote
        dollarvolume tradingvalue turnover 成交额 成交金额
    """),
}
TICKS = ["tickvol", "tickvolume"]
MARKETS = _split("""
    symbol ticker tic tscode code pair instrument market exchange unixsymbol stockcode currencypair name
    interval timeframe period 股票代码 代码 证券代码 名称
""")
QUOTES = _split("usdt usdc busd fdusd tusd usd eur gbp jpy krw try currency quote cny hkd")
COINS = _split("btc xbt eth sol bnb xrp doge ada ltc bch dot trx avax link")


@dataclass(kw_only=True)
class Choice:
    """Columns of a file that become the raw columns.

    columns: column by raw name; `volume` and `amount` may be absent.
    clock: column with the time of day, if the stamps are in two columns.
    marks_end: True if the name of the stamps says that they mark the end of a candle.
    markets: columns that must hold a single value, because a file holds one market.
    remarks: what a person should know about the choice.
    """

    columns: dict[str, str]
    clock: str | None = None
    marks_end: bool = False
    markets: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def used(self) -> list[str]:
        """Columns that are read."""
        return list(dict.fromkeys([*self.columns.values(), *([self.clock] if self.clock else []), *self.markets]))


def plain(name: str) -> str:
    """Return a column name without case, spaces and punctuation."""
    return re.sub(r"[\W_]+", "", name.lower())


def is_stamp_name(name: str) -> bool:
    """Return True if a column of this name holds stamps."""
    return plain(name) in STAMPS or plain(name) in ENDS


def is_price_name(name: str) -> bool:
    """Return True if a column of this name holds prices."""
    return any(plain(name) in NAMES[role] for role in PRICES)


def choose_columns(sample: pd.DataFrame, source: str, layout: LayoutSection) -> Choice:
    """Choose the columns of a file with a header.

    Args:
        sample: first rows; columns named as in the file.
        source: file, for messages.
        layout: settings; `layout.columns` overrides the choice.

    Raises:
        CandleError: a required column is missing or ambiguous.
    """
    names = [str(name) for name in sample.columns]
    given = _given(names, source, layout)
    left = [name for name in names if name not in given.values()]
    choice = Choice(columns={})
    if "timestamps" not in given:
        _choose_stamps(choice, sample[left], source)
    for role in PRICES:
        if role not in given:
            _choose_price(choice, role, left, source)
    choice.columns |= {role: name for role, name in given.items() if name is not None}
    missing = [role for role in ("timestamps", *PRICES) if role not in choice.columns]
    if missing:
        raise CandleError(
            f"{source}: column {', '.join(missing)} missing; the file has: {', '.join(names)}. "
            f"columns={{{missing[0]}: NAME}} names yours (data.columns in train.py and evaluate.py)"
        )
    left = [name for name in left if name not in choice.used]
    for role, choose in (("volume", _volume), ("amount", _amount)):
        if role not in given:
            found = choose(left, sample, choice, source)
            if found is not None:
                choice.columns[role] = found
                left.remove(found)
    choice.markets = [name for name in left if plain(name) in MARKETS]
    return choice


def _given(names: list[str], source: str, layout: LayoutSection) -> dict[str, str | None]:
    """Return the columns that the settings name; numbers count from 1."""
    given: dict[str, str | None] = {}
    for role, name in (layout.columns or {}).items():
        if isinstance(name, int):
            if name > len(names):
                raise CandleError(f"{source}: columns={{{role}: {name}}}: the file has {len(names)} columns")
            name = names[name - 1]
        elif name is not None and name not in names:
            raise CandleError(f"{source}: columns={{{role}: {name}}}: no such column; the file has: {', '.join(names)}")
        given[role] = name
    return given


def _choose_stamps(choice: Choice, sample: pd.DataFrame, source: str) -> None:
    """Choose the stamps: a whole stamp before a bare date, a date with its time of day, the open before the end."""
    names = list(sample.columns)
    ranked = sorted((name for name in names if plain(name) in STAMPS), key=lambda name: STAMPS.index(plain(name)))
    if not ranked and names and (names[0] == "" or names[0].startswith("Unnamed")) and _holds_stamps(sample[names[0]]):
        ranked = [names[0]]
    clocks = [
        name for name in names if plain(name) in CLOCKS and is_clock(sample[name]) and not _holds_stamps(sample[name])
    ]
    ranked = [name for name in ranked if name not in clocks]
    if ranked:
        repeating = [name for name in ranked if sample[name].duplicated().mean() > 0.5]
        whole = [name for name in ranked if name not in repeating]
        choice.columns["timestamps"] = (whole or ranked)[0]
        if clocks and not _holds_clock(sample[choice.columns["timestamps"]]):
            choice.clock = clocks[0]
        return
    ends = sorted((name for name in names if plain(name) in ENDS), key=lambda name: ENDS.index(plain(name)))
    if ends:
        choice.columns["timestamps"], choice.marks_end = ends[0], True


def _holds_stamps(column: pd.Series) -> bool:
    cells = column.dropna().astype("str").iloc[:5]
    return len(cells) > 0 and all(map(is_stamp, cells))


def _holds_clock(column: pd.Series) -> bool:
    """Return True if stamps have a time of day."""
    cells = column.dropna().astype("str").iloc[:50].str.strip()
    return bool((cells.str.contains(":", regex=False) | cells.str.fullmatch(r"\d{9,}(\.0)?")).any())


def _choose_price(choice: Choice, role: str, names: list[str], source: str) -> None:
    ranked = sorted(
        (name for name in names if plain(name) in NAMES[role]), key=lambda name: NAMES[role].index(plain(name))
    )
    if len(ranked) > 1 and plain(ranked[0]) == plain(ranked[1]):
        raise CandleError(
            f"{source}: two columns for {role}: {ranked[0]}, {ranked[1]}; columns={{{role}: NAME}} decides"
        )
    if ranked:
        choice.columns[role] = ranked[0]


def _volume(names: list[str], sample: pd.DataFrame, choice: Choice, source: str) -> str | None:
    ranked = [name for wanted in NAMES["volume"] for name in names if plain(name) == wanted]
    ticks = [name for name in names if plain(name) in TICKS]
    if ranked and ticks and _numbers(sample[ranked[0]]).eq(0).all():
        choice.remarks.append(f"{ranked[0]} is zero, the tick volume is used")
        return ticks[0]
    if ranked:
        marked = {plain(name) for name in names} & {"marketcap", "circulatingsupply"}
        if marked and not any(plain(name) in NAMES["amount"] for name in names):
            choice.remarks.append(f"{ranked[0]} is counted in the quote currency, as CoinMarketCap does")
            choice.columns["amount"] = ranked[0]
            return None
        return ranked[0]
    if ticks:
        return ticks[0]
    traded = [name for name in names if _currency(name) and _currency(name) not in QUOTES]
    quoted = [name for name in names if _currency(name) in QUOTES]
    markets = " ".join(sample[name].astype("str").iloc[0] for name in names if plain(name) in MARKETS and len(sample))
    context = plain(f"{markets} {source.rsplit('/', 1)[-1]}")
    sure = quoted and len(traded) == 1
    known = [name for name in traded if sure or _currency(name) in COINS or _currency(name) in context]
    return known[0] if known else None


def _currency(name: str) -> str:
    """Return the currency in names such as "Volume BTC" or "Volume_(BTC)"; otherwise an empty text."""
    match = re.fullmatch(r"(?:volume|vol)[\W_]+([a-z0-9]{2,8})[\W_]*", name.lower().strip())
    return match[1] if match else ""


def _amount(names: list[str], sample: pd.DataFrame, choice: Choice, source: str) -> str | None:
    if "amount" in choice.columns:
        return None
    ranked = [name for wanted in NAMES["amount"] for name in names if plain(name) == wanted]
    ranked += [name for name in names if _currency(name) in QUOTES]
    for name in ranked:
        if plain(name) in ("turnover", "volumecurrency") and not _is_amount(name, sample, choice):
            choice.remarks.append(f"{name} is not used: it is not volume × price")
            continue
        return name
    return None


def _is_amount(name: str, sample: pd.DataFrame, choice: Choice) -> bool:
    """Return True if values are volume times price, in any unit of thousands or lots; a turnover rate is not."""
    if "volume" not in choice.columns:
        return plain(name) != "turnover"
    price = _numbers(sample[choice.columns["close"]])
    ratio = (_numbers(sample[name]) / (_numbers(sample[choice.columns["volume"]]) * price)).replace([np.inf, 0], np.nan)
    exponent = np.log10(ratio.dropna())
    return bool(
        len(exponent) and exponent.median() > -4.5 and (abs(exponent - exponent.round()) < 0.1).mean() > SAMPLE_SHARE
    )


def _numbers(column: pd.Series) -> pd.Series:
    try:
        return parse_numbers({str(column.name): column}, "", "row", None)[0][str(column.name)]
    except CandleError:
        return pd.Series(np.nan, index=column.index)


# --- files without a header ---------------------------------------------------------------------------------------


def name_columns(sample: pd.DataFrame, source: str) -> list[str]:
    """Name the columns of a file without a header, which begin with the stamp, open, high, low and close.

    The values must bear it out: the third column is the highest price and the fourth the lowest. After the volume,
    Binance's 12, OKX's 9 and Kraken's 7 and 8 columns are known; another seventh column is the amount if it is volume
    times price, and the number of trades if it is a whole number.

    Raises:
        CandleError: the values contradict, or the meaning of a column is open.
    """
    clocked = is_clock(sample.iloc[:, 1]) and not _holds_clock(sample.iloc[:, 0]) and ":" in str(sample.iloc[0, 1])
    head = ["date", "time"] if clocked else ["timestamp"]
    count = sample.shape[1] - len(head)
    numbers = [_numbers(sample.iloc[:, i]) for i in range(len(head), sample.shape[1])]
    if count == len(BINANCE_COLUMNS) - 1:
        return BINANCE_COLUMNS
    if count < 4 or not _is_ohlc(*numbers[:4]):
        raise _unnamed(source, f"columns {len(head) + 1} to {len(head) + 4} are not open, high, low and close")
    names = [*head, *PRICES, *(["volume"] if count > 4 else [])]
    more = count - 5
    if more == 3 and numbers[7].isin([0, 1]).all():  # OKX's rows
        return [*names, "volCcy", "volCcyQuote", "confirm"]
    if more == 1:
        _, high, low, _, volume, last = numbers
        priced = (last / volume).between(low * 0.99, high * 1.01)[volume > 0]
        if len(priced) and priced.mean() > SAMPLE_SHARE:
            return [*names, "amount"]
        if (last % 1 == 0).all():
            return [*names, "trades"]
        raise _unnamed(source, f"the meaning of column {sample.shape[1]} is open")
    if more == 2:
        _, high, low, _, average, *_ = numbers
        if (average.between(low * 0.999, high * 1.001) | average.eq(0)).mean() > SAMPLE_SHARE:  # Kraken's REST rows
            return [*head, *PRICES, "vwap", "volume", "trades"]
    if more > 0:
        raise _unnamed(source, f"the meaning of columns {len(names) + 1} to {sample.shape[1]} is open")
    return names


def _is_ohlc(opened: pd.Series, high: pd.Series, low: pd.Series, close: pd.Series) -> bool:
    fits = (high >= np.maximum(opened, close)) & (low <= np.minimum(opened, close)) & (low > 0)
    return bool(len(fits) and fits.mean() > SAMPLE_SHARE)


def _unnamed(source: str, problem: str) -> CandleError:
    return CandleError(
        f"{source}: no header, and {problem}; give the file a header, or number the columns from 1, such as "
        f"'columns={{timestamps: 1, open: 2, high: 3, low: 4, close: 5, volume: 6}}' (data.columns in train.py and "
        f"evaluate.py); those not named are not used"
    )
