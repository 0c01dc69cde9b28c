"""freqtrade strategy that trades the signals of kronos_lightning; see README.md in this folder.

It makes no forecast. In dry-run and live trading it asks a running service for the recorded signals; in backtesting it
reads those of an evaluation, from a folder with `signals.csv` and `decision.json`.
"""

import json
import logging
import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import requests
from freqtrade.exceptions import OperationalException
from freqtrade.exchange import timeframe_to_seconds
from freqtrade.strategy import IStrategy
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

COLUMNS = ["signal", "halted", "late"]
NONE: dict[str, list[Any]] = {name: [] for name in ("cutoff", *COLUMNS)}
SIGNALS = {"BUY", "HOLD", "SELL"}
PAGE = 1000  # rows of one request
FLAGS = {  # settings under which freqtrade follows the rules of the backtest
    "use_exit_signal": True,
    "exit_profit_only": False,
    "ignore_roi_if_entry_signal": False,
    "trailing_stop": False,
    "position_adjustment_enable": False,
}

log = logging.getLogger(__name__)


def indexed(rows: pd.DataFrame) -> pd.DataFrame:
    """Return recorded signals as columns signal, halted and late, indexed by cutoff; other columns are left out.

    Raises:
        OperationalException: a column is missing, or a value is none that a signal can have.
    """
    missing = [name for name in ("cutoff", *COLUMNS) if name not in rows]
    if missing:
        raise OperationalException(f"kronos: the signals lack {', '.join(missing)}")
    known = rows["signal"].isin(SIGNALS) & rows["halted"].isin([True, False]) & rows["late"].isin([True, False])
    if not known.all():
        raise OperationalException(f"kronos: not a signal: {rows[~known].iloc[0][['cutoff', *COLUMNS]].to_dict()}")
    cutoffs = pd.DatetimeIndex(pd.to_datetime(rows["cutoff"], utc=True)).as_unit("ns")
    table = rows[COLUMNS].astype({"halted": bool, "late": bool}).set_axis(cutoffs, axis=0)
    return table[~table.index.duplicated(keep="last")].sort_index()


def orders(dates: pd.Series, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the columns that freqtrade acts on, for candles that open at `dates`.

    A candle without a row has no order, so that an open trade stays open. The tag of an entry is its cutoff.
    """
    found = rows.reindex(pd.DatetimeIndex(dates).as_unit("ns"))
    halted, in_time = found["halted"].eq(True), found["late"].eq(False)
    table = pd.DataFrame(
        {
            "enter_long": (found["signal"].eq("BUY") & in_time & ~halted).astype(int),
            "exit_long": (halted | (found["signal"].eq("SELL") & in_time)).astype(int),
            "enter_tag": found.index.map(pd.Timestamp.isoformat),
            "exit_tag": halted.map({True: "halt", False: "sell"}),
        }
    )
    return table.set_axis(dates.index, axis=0)


def is_current(tag: str | None, now: datetime, interval: timedelta) -> bool:
    """Return True if the candle that opened at the time of a tag is the last one that has closed."""
    try:
        cutoff = datetime.fromisoformat(tag or "")
        return cutoff + interval <= now < cutoff + 2 * interval
    except ValueError:  # a tag of another origin, such as a forced entry
        return False


def wanted(decision: dict[str, Any]) -> dict[str, Any]:
    """Return the settings with which freqtrade follows the execution rules of a `decision.json`."""
    rules = decision["execution"]
    fee, stop, target = rules["cost"], rules["stop_loss"], rules["take_profit"]
    return {
        "timeframe": decision["interval"],
        "fee": fee,
        "stoploss": -1.0 if stop is None else -stop,
        # freqtrade's return on investment is net of the fees of both sides.
        "minimal_roi": {} if target is None else {"0": (1 + target) * (1 - fee) / (1 + fee) - 1},
    } | FLAGS


def differences(decision: dict[str, Any], settings: dict[str, Any]) -> list[str]:
    """Return a sentence for each setting that differs from the execution rules of a `decision.json`."""
    found = [
        f"{name} is {json.dumps(settings.get(name))}, the evaluation's rules need {json.dumps(value)}"
        for name, value in wanted(decision).items()
        if not _equal(settings.get(name), value)
    ]
    if decision["execution"]["side"] != "long_only":
        found.append("the evaluation also traded short, this strategy trades long only")
    return found


def _equal(given: Any, value: Any) -> bool:
    if isinstance(value, dict):
        numbers = {str(key): number for key, number in (given or {}).items()}
        return numbers.keys() == value.keys() and all(_equal(numbers[key], value[key]) for key in value)
    if isinstance(value, float | int) and isinstance(given, float | int):
        return abs(given - value) <= 1e-9
    return given == value


class Folder:
    """Signals of an evaluation: a folder with `signals.csv` and `decision.json`."""

    def __init__(self, path: str):
        try:
            self.decision = json.loads((Path(path) / "decision.json").read_text())
            self._rows = indexed(pd.read_csv(Path(path) / "signals.csv"))
        except (OSError, ValueError) as error:
            raise OperationalException(f"kronos: {path} is not the folder of an evaluation: {error}") from error

    def rows(self, symbol: str, first: pd.Timestamp, last: pd.Timestamp) -> pd.DataFrame:
        """Return the signals of the closes of a time range."""
        if symbol != self.decision["symbol"]:
            raise OperationalException(f"kronos: the evaluation is of {self.decision['symbol']}, not of {symbol}")
        return self._rows.loc[first:last]


class Service:
    """Recorded signals of a running service, with its execution rules.

    Each request is tried four times within a few seconds, because the bot watches its stops between two requests.
    """

    def __init__(self, url: str, timeout: float):
        self._url, self._timeout, self._session = url.rstrip("/"), timeout, requests.Session()
        retry = Retry(
            total=3,
            backoff_factor=0.2,
            status_forcelist=(429, 502, 503, 504),
            respect_retry_after_header=False,
            raise_on_status=False,
        )
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=retry))
        if key := os.environ.get("KRONOS_API_KEY"):
            self._session.headers["X-API-Key"] = key
        self.decision = self._get("/v1/model", {})["decision"]

    def rows(self, symbol: str, first: pd.Timestamp, last: pd.Timestamp) -> pd.DataFrame:
        """Return the signals of the closes of a time range."""
        found: list[pd.DataFrame] = []
        while True:
            span = {"from": first.isoformat(), "to": last.isoformat(), "limit": PAGE}
            answer = self._get(f"/v1/{symbol}/signals", span)
            page = indexed(pd.DataFrame(answer["signals"] or NONE))
            found.append(page)
            if answer.get("next") is None or page.empty or page.index[-1] <= first:
                return pd.concat(found)
            first = page.index[-1]

    def _get(self, path: str, query: dict[str, Any]) -> dict[str, Any]:
        try:
            response = self._session.get(self._url + path, params=query, timeout=self._timeout, allow_redirects=False)
            content = response.json()
        except (requests.RequestException, ValueError) as error:
            raise OperationalException(f"kronos: no answer from {self._url}{path}: {error}") from error
        if response.status_code != 200:
            raise OperationalException(f"kronos: {self._url}{path} answered {response.status_code}: {content}")
        return content


class KronosStrategy(IStrategy):
    """Strategy that enters at BUY and exits at SELL, at a drawdown halt, and at stop and target."""

    INTERFACE_VERSION = 3
    can_short = False
    startup_candle_count = 0
    process_only_new_candles = False  # a signal may be recorded a few seconds after freqtrade has seen its candle
    use_exit_signal = True
    exit_profit_only = False
    ignore_roi_if_entry_signal = False

    def bot_start(self, **kwargs: Any) -> None:
        """Refuse to start if the configuration trades by other rules than the evaluation did."""
        options = self.config.get("kronos", {})
        source = str(options.get("source", ""))
        online = source.startswith(("http://", "https://"))
        if not source or (self._is_trading and not online):
            raise OperationalException("kronos: set kronos.source to the URL of a service; in backtesting to a folder")
        self._source = Service(source, float(options.get("timeout", 3))) if online else Folder(source)
        decision = self._source.decision
        settings = {name: getattr(self, name, None) for name in wanted(decision)} | {"fee": self.config.get("fee")}
        if found := differences(decision, settings):
            raise OperationalException(f"kronos: refused to start: {'; '.join(found)}")
        self._rules = decision["execution"]
        if self._rules["slippage"]:
            log.warning("kronos: the evaluation had a slippage of %s, freqtrade models none", self._rules["slippage"])

    def populate_indicators(self, dataframe: pd.DataFrame, metadata: dict[str, Any]) -> pd.DataFrame:
        """Merge the recorded signals with the candles."""
        if dataframe.empty:
            return dataframe
        last = pd.Timestamp(dataframe["date"].iloc[-1])
        first = last if self._is_trading else pd.Timestamp(dataframe["date"].iloc[0])
        symbol = metadata["pair"].split(":")[0].replace("/", "")
        try:
            rows = self._source.rows(symbol, first, last)
        except OperationalException as error:
            if not self._is_trading:
                raise
            log.warning("%s; no entry, open trades stay", error)
            rows = indexed(pd.DataFrame(NONE))
        found = orders(dataframe["date"], rows)
        return dataframe.assign(**{f"kronos_{name}": found[name] for name in found})

    def populate_entry_trend(self, dataframe: pd.DataFrame, metadata: dict[str, Any]) -> pd.DataFrame:
        """Enter at BUY, unless it came late or trading was halted."""
        return dataframe.assign(enter_long=dataframe["kronos_enter_long"], enter_tag=dataframe["kronos_enter_tag"])

    def populate_exit_trend(self, dataframe: pd.DataFrame, metadata: dict[str, Any]) -> pd.DataFrame:
        """Exit at SELL and while trading is halted."""
        return dataframe.assign(exit_long=dataframe["kronos_exit_long"], exit_tag=dataframe["kronos_exit_tag"])

    def custom_stake_amount(
        self,
        pair: str,
        current_time: datetime,
        current_rate: float,
        proposed_stake: float,
        min_stake: float | None,
        max_stake: float,
        leverage: float,
        entry_tag: str | None,
        side: str,
        **kwargs: Any,
    ) -> float:
        """Pay the fee from the invested share, as the backtest does."""
        return proposed_stake * self._rules["max_position"] / (1 + self._rules["cost"])

    def confirm_trade_entry(
        self,
        pair: str,
        order_type: str,
        amount: float,
        rate: float,
        time_in_force: str,
        current_time: datetime,
        entry_tag: str | None,
        side: str,
        **kwargs: Any,
    ) -> bool:
        """Refuse a signal that is not of the last closed candle."""
        return is_current(entry_tag, current_time, timedelta(seconds=timeframe_to_seconds(self.timeframe)))

    @property
    def _is_trading(self) -> bool:
        return self.config["runmode"].value in ("live", "dry_run")
