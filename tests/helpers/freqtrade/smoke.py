"""Dry run of freqtrade on the local exchange: one trade, SIGKILL, restart, none doubled."""

import signal
import sqlite3
import subprocess
import time
from contextlib import closing, contextmanager

from .bot import arguments, configuration
from .exchange import Exchange

PATIENCE = 240  # seconds
DECISION = {
    "symbol": "BTCUSDT",
    "interval": "1m",
    "execution": {
        "cost": 0.001, "max_position": 1.0, "stop_loss": 0.05, "take_profit": 0.15, "side": "long_only", "slippage": 0.0
    },
}  # fmt: skip


def smoke(folder):
    """Run the bot, kill it while it holds a trade, run it again; print what happened."""
    database = folder / "trades.sqlite"
    with Exchange("BTCUSDT", DECISION) as exchange:
        config = configuration(
            exchange.url, exchange.url, DECISION, db_url=f"sqlite:///{database}", internals={"process_throttle_secs": 1}
        )
        with _bot(folder, config | {"fee": 0.002}) as bot:
            passed = _until("a bot with another fee does not start", bot, lambda: bot.poll() == 2)
        with _bot(folder, config) as bot:
            passed &= _until("one open trade after BUY", bot, lambda: _trades(database) == (1, 1))
            bot.send_signal(signal.SIGKILL)
            bot.wait()
            print(f"  SIGKILL: exit code {bot.returncode}, {_trades(database)[0]} trade stored")
        exchange.asked.clear()
        with _bot(folder, config) as bot:
            closes = "restarted, BUY at two more closes: still that trade alone"
            passed &= _until(closes, bot, lambda: len(set(exchange.asked)) > 2) and _trades(database) == (1, 1)
            exchange.signal, known = None, set(exchange.asked)
            silence = "no row for a close: the trade stays open"
            passed &= _until(silence, bot, lambda: set(exchange.asked) - known) and _trades(database) == (1, 1)
            exchange.signal = "SELL"
            passed &= _until("closed once after SELL", bot, lambda: _trades(database) == (1, 0))
    print(f"Dry run: {'passed' if passed else 'FAILED, see ' + str(folder / 'bot.log')}")
    return passed


@contextmanager
def _bot(folder, config):
    with (folder / "bot.log").open("a") as log:
        bot = subprocess.Popen(arguments("trade", folder, config), stdout=log, stderr=log)
        try:
            yield bot
        finally:
            bot.kill()
            bot.wait()


def _until(what, bot, reached):
    begin = time.monotonic()
    while not reached() and bot.poll() is None and time.monotonic() - begin < PATIENCE:
        time.sleep(0.2)
    done = bool(reached())
    print(f"  {what}: {'yes' if done else 'NO'} ({time.monotonic() - begin:.0f} s)")
    return done


def _trades(database):
    """Number of trades in freqtrade's database, and of those that are open."""
    if not database.exists():
        return 0, 0
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        try:
            return connection.execute("SELECT count(*), coalesce(sum(is_open), 0) FROM trades").fetchone()
        except sqlite3.OperationalError:  # not yet made
            return 0, 0
