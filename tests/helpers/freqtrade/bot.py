"""The freqtrade program with our strategy, on a local exchange."""

import json
import subprocess
import zipfile

import pandas as pd

from tests.helpers.paths import ROOT

from .comparison import from_freqtrade

BRIDGE = ROOT / "integrations" / "freqtrade"
FREQTRADE = ROOT / ".venv-freqtrade" / "bin" / "freqtrade"


def configuration(url, source, decision, **changes):
    """The example configuration, pointed at a local exchange, with the rules of a decision."""
    rules = decision["execution"]
    fee, target = rules["cost"], rules["take_profit"]
    quote = {"public": f"{url}/api/v3", "private": f"{url}/api/v3"}
    options = {"fetchMarkets": {"types": ["spot"]}, "fetchCurrencies": False}
    exchange = {
        "name": "binance", "enable_ws": False, "pair_whitelist": [pair(decision["symbol"])],
        "ccxt_config": {"urls": {"api": quote}, "options": options}, "ccxt_async_config": {"enableRateLimit": False},
    }  # fmt: skip
    return json.loads((BRIDGE / "config.example.json").read_text()) | {
        "kronos": {"source": str(source), "timeout": 3},
        "timeframe": decision["interval"],
        "fee": fee,
        "stoploss": -rules["stop_loss"],
        "minimal_roi": {"0": (1 + target) * (1 - fee) / (1 + fee) - 1},
        "exchange": exchange,
    } | changes  # fmt: skip


def pair(symbol):
    """Name of a market as freqtrade writes it."""
    return f"{symbol.removesuffix('USDT')}/USDT"


def arguments(command, folder, config):
    """Command line of freqtrade in a folder of its own, with our strategy."""
    (folder / "config.json").write_text(json.dumps(config))
    return [
        str(FREQTRADE), command, "--userdir", str(folder), "--config", str(folder / "config.json"),
        "--strategy", "KronosStrategy", "--strategy-path", str(BRIDGE),
    ]  # fmt: skip


def backtest(folder, candles, config):
    """Run `freqtrade backtesting` over all candles; return the finished process and the trades, None if it failed."""
    (name,), timeframe = config["exchange"]["pair_whitelist"], config["timeframe"]
    data = folder / "data" / "binance"
    data.mkdir(parents=True)
    table = candles[["open", "high", "low", "close", "volume"]].astype(float)
    table.insert(0, "date", pd.to_datetime(candles["timestamps"], utc=True).astype("datetime64[ms, UTC]"))
    table.to_feather(data / f"{name.replace('/', '_')}-{timeframe}.feather", compression="lz4")
    process = subprocess.run(
        [*arguments("backtesting", folder, config), "--cache", "none", "--export", "trades"],
        capture_output=True,
        text=True,
    )
    results = sorted((folder / "backtest_results").glob("*.zip"))
    if process.returncode or not results:
        return process, None
    with zipfile.ZipFile(results[-1]) as archive:
        content = json.loads(archive.read(results[-1].with_suffix(".json").name))
    return process, from_freqtrade(content["strategy"]["KronosStrategy"]["trades"])
