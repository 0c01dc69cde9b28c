"""Compare our engine with freqtrade's; `make parity`.

python -m tests.helpers.freqtrade [candles=CSV] [report=DIR] [smoke=no] [record=yes]
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from tests.helpers.paths import GOLDEN

from .bot import backtest, configuration
from .comparison import compare, initial_equity
from .exchange import Exchange
from .reports import momentum_signals, random_signals, write_report
from .smoke import smoke

STORED = GOLDEN / "freqtrade"


def compared(folder, report, candles):
    """Trade the signals of a report with freqtrade; return the comparison and freqtrade's trades."""
    decision = json.loads((report / "decision.json").read_text())
    ours, signals = pd.read_csv(report / "trades.csv"), pd.read_csv(report / "signals.csv")
    cutoffs = pd.to_datetime(signals["cutoff"], utc=True)
    traded = candles[pd.to_datetime(candles["timestamps"], utc=True).between(cutoffs.iloc[0], cutoffs.iloc[-1])]
    equity = initial_equity(ours, decision["execution"])
    with Exchange(decision["symbol"]) as exchange:
        config = configuration(exchange.url, report, decision, dry_run_wallet=equity)
        process, theirs = backtest(folder, traded, config)
    if theirs is None:
        sys.exit(f"freqtrade failed:\n{process.stdout[-3000:]}\n{process.stderr[-3000:]}")
    return compare(ours, theirs, cutoffs.iloc[-1], equity), theirs


def main(options):
    """Print a table of comparisons; exit with 1 if one differs."""
    path, report = options.get("candles") or STORED / "candles.csv.gz", options.get("report")
    candles = pd.read_csv(path, parse_dates=["timestamps"])
    interval = shortest(candles)
    folder = Path(tempfile.mkdtemp(prefix="parity-"))
    if report:
        reports = {"report": Path(report).resolve()}
    else:
        made = {f"random {seed}": random_signals(candles, seed) for seed in (100, 101)}
        made["momentum"] = momentum_signals(candles)
        reports = {name: folder / f"report {name}" for name in made}
        for name, signals in made.items():
            write_report(reports[name], candles, signals, "BTCUSDT", interval)
    found = {}
    for name, place in reports.items():
        (folder / name).mkdir()
        found[name], theirs = compared(folder / name, place, candles)
        if name == "random 100" and options.get("record"):
            record(place, theirs)
    print_table(found, path, candles, interval)
    passed = all(one.equal for one in found.values())
    if options.get("smoke") != "no":
        print("Dry run on a local exchange:", flush=True)
        (folder / "smoke").mkdir()
        passed = smoke(folder / "smoke") and passed
    shutil.rmtree(folder)
    sys.exit(0 if passed else 1)


def shortest(candles):
    """The interval of candles, as freqtrade and Binance name it."""
    minutes = int(candles["timestamps"].diff().min() / pd.Timedelta("1min"))
    return {1440: "1d", 240: "4h", 60: "1h", 15: "15m", 5: "5m", 1: "1m"}[minutes]


def record(report, theirs):
    """Store what the test of the engine reads: a report, and freqtrade's trades."""
    theirs.to_csv(STORED / "trades.csv.gz", index=False)
    pd.read_csv(report / "signals.csv").to_csv(STORED / "signals.csv.gz", index=False)
    shutil.copyfile(report / "decision.json", STORED / "decision.json")


def print_table(found, path, candles, interval):
    """Print one row for each set of signals."""
    stamps = candles["timestamps"]
    title = f"{Path(path).name}: {len(candles)} candles of {interval}, {stamps.iloc[0]} to {stamps.iloc[-1]}"
    table = Table(title=title)
    heads = ("signals", "trades", "freqtrade", "entry equal", "exit equal", "entry price", "exit price", "equity", "")
    for head in heads:
        table.add_column(head)
    for name, one in found.items():
        reasons = ", ".join(f"{count} {reason}" for reason, count in one.reasons.items())
        table.add_row(
            name, f"{one.ours}: {reasons}", str(one.theirs), str(one.same_entry), str(one.same_exit),
            f"{one.entry_price:.4f}", f"{one.exit_price:.4f}",
            f"{one.our_equity:.6f} {one.their_equity / one.our_equity - 1:+.1e}", "equal" if one.equal else "DIFFERENT",
        )  # fmt: skip
    Console(width=150).print(table)


if __name__ == "__main__":
    main(dict(argument.split("=", 1) for argument in sys.argv[1:]))
