"""Share of the machine's limit that each job reaches: the least time for its work over its measured time.

The least time of networks is that of `floor`: floating-point operations of the products over the measured rate of
products, or bytes over the measured rate of copies, whichever is longer. Windows, candle parsing and the backtest
multiply nothing that counts; their least time is that of copying the bytes which they read and write.
"""

import io
import json
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
import torch

from kronos_lightning.backtest import ExecutionRules, MarketData, run_backtest
from kronos_lightning.data import CandleWindows
from kronos_lightning.data.sources.binance.candle_table import from_zip
from kronos_lightning.data.sources.synthetic import synthetic_candles
from kronos_lightning.data.windows import EpochSampler
from kronos_lightning.evaluation.rolling import rolling_forecasts
from kronos_lightning.training.acceleration import has_bfloat16
from tests.benchmarks.gpu import decoding, training
from tests.helpers.candles import frame_with_gap
from tests.helpers.decoding_work import WORKS, Work, rolling_inputs
from tests.helpers.exchange import zipped
from tests.helpers.floor import Floor, Shape, forecast_floor
from tests.helpers.timing import best_of

EVALUATED = Work("mini", 360, 24, 100, 32)  # batches of a rolling evaluation
LOOKBACK, ROWS, BATCH = 90, 101, 256  # of the windows
REPEATS = 5


@dataclass(frozen=True)
class Share:
    """A job with its least and its measured seconds."""

    job: str
    size: str
    least: float
    bound: str
    seconds: float

    @property
    def share(self):
        return self.least / self.seconds


@dataclass(frozen=True)
class Sizes:
    """Sizes of the jobs; the default is what `make bench` measures."""

    works: tuple = (*WORKS, Work("mini", 360, 24, 100, 16))
    cutoffs: int = 500
    paths: int = 100
    windows: int = 100_000
    minutes: int = 44_640
    backtest: int = 4_000_000


def shares(machine, sizes):
    """Measure one job after the other; yields a `Share` for each."""
    precisions = ["float32", "bf16"] if has_bfloat16() and not machine.smoke else ["float32"]
    for stage in ("predictor", "tokenizer"):
        for precision in precisions:
            yield step(machine, stage, precision)
    for work in sizes.works:
        yield forecast(machine, work)
    yield rolling(machine, sizes.cutoffs, sizes.paths)
    yield windows(machine, sizes.windows)
    yield parsing(machine, sizes.minutes)
    yield backtest(machine, sizes.backtest)


def step(machine, stage, precision):
    """Measure a training step of Kronos-small with the loop around it; see the kit's `training`.

    Its operations are those of `throughput/share_of_peak`: both halves of the attention count.
    """
    values = training.measure(machine, stage, "small", precision)
    seconds = 1 / values["steps/s"]
    size = f"small, {precision}, {values['batch']} windows of {ROWS} candles"
    return Share(f"{stage} step", size, values["MFU, measured peak"] * seconds, "products", seconds)


def forecast(machine, work):
    """Measure a forecast in float32; see the kit's `decoding`, which raises an error if a candle is not finite."""
    values = decoding.measure(machine, work, torch.float32)
    seconds = values["ms"] / 1000
    return Share("forecast", str(work), values["share of the floor"] * seconds, values["floor"], seconds)


def rolling(machine, cutoffs, paths):
    """Measure the forecasts of a rolling evaluation, as `evaluate.py` makes them."""
    known, horizon = (24, 4) if machine.smoke else (EVALUATED.known, EVALUATED.horizon)
    wanted, trainer = rolling_inputs(machine.folder, known, horizon, cutoffs, EVALUATED.series)
    forecaster = machine.forecaster("mini")
    seconds, found = best_of(lambda: rolling_forecasts(wanted, forecaster, paths, 0, trainer), 1)
    assert found.paths.shape == (cutoffs, paths, horizon, 6)
    assert np.isfinite(found.paths).all()
    rates = machine.floor_rates(torch.float32)
    least = forecast_floor(forecaster, Shape(cutoffs, paths, known, horizon), rates)
    size = f"mini, {cutoffs} cutoffs x {paths} paths x {horizon} steps, context {known}"
    return Share("rolling forecasts", size, least.seconds, least.bound, seconds)


def windows(machine, count):
    """Gather and normalise windows in random order; bytes: their candles and stamps, read and written."""
    found = CandleWindows(frame_with_gap(count, count // 2), LOOKBACK, ROWS - LOOKBACK, clip=5.0)
    order = list(EpochSampler([len(found)], None, BATCH, None, 0, 0, 1))
    batches = [order[i : i + BATCH] for i in range(0, len(order), BATCH)]

    def gather():
        for batch in batches:
            last = found.__getitems__(batch)
        return last

    seconds, last = best(gather)
    first = found.starts[order[-BATCH]].item()
    known = found.values[first : first + LOOKBACK].double()
    expected = ((found.values[first : first + ROWS] - known.mean(0)) / known.std(0, correction=0)).clamp(-5, 5)
    torch.testing.assert_close(last.x[0].double(), expected, atol=1e-3, rtol=1e-3)
    moved = 2 * len(order) * (last.x[0].nbytes + last.stamp[0].nbytes)
    size = f"{len(order):,} windows of {ROWS} candles, batches of {BATCH}"
    return Share("windows", size, *copied(machine, moved), seconds)


def parsing(machine, minutes):
    """Parse a month of the archive; bytes: the text within the zip, and the table."""
    frame = synthetic_candles(minutes, "1m", "2024-01-01", 1, 60_000.0, 0.6).frame
    text = archive_text(frame)
    content = zipped("BTCUSDT-1m-2024-01.csv", text)
    seconds, table = best(lambda: from_zip(content, (0, 2**60), minutes))
    for name in ("close", "volume"):
        np.testing.assert_allclose(table[name].to_numpy(), frame[name].to_numpy(), atol=1e-8)
    moved = len(text) + table.nbytes
    return Share("candle parsing", f"{minutes:,} minutes, zip and CSV, one core", *copied(machine, moved), seconds)


def archive_text(frame):
    """Candles of minutes as the exchange's archive has them."""
    text = io.StringIO()
    first = frame["timestamps"].iloc[0].value // 1_000_000
    for i, row in enumerate(frame.itertuples()):
        opened = first + i * 60_000
        prices = ",".join(f"{p:.8f}" for p in (row.open, row.high, row.low, row.close, row.volume))
        text.write(f"{opened},{prices},{opened + 59_999},{row.amount:.8f},{1000 + i % 997},1.50000000,2.50000000,0\n")
    return text.getvalue()


def backtest(machine, count):
    """Backtest random signals; bytes: prices and signals read, equity, position and halts written."""
    rng = np.random.default_rng(0)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.001, count)))
    open_ = np.concatenate([[100.0], close[:-1]])
    prices = {"open": open_, "high": np.maximum(open_, close), "low": np.minimum(open_, close), "close": close}
    stamps = pd.date_range("2015-01-01", periods=count, freq="min", tz="UTC")
    market = MarketData.of(pd.DataFrame(prices | {"timestamps": stamps}), pd.Timedelta("1min"))
    signals = rng.choice(np.array([1, 0, -1], dtype=np.int8), count, p=[0.02, 0.96, 0.02])
    limits = {"stop_loss": 0.05, "take_profit": 0.15, "max_drawdown": 0.20, "cooldown": 1000}
    rules = ExecutionRules(side="long_short", slippage=0.00001, **limits)
    seconds, found = best(lambda: run_backtest(market, signals, rules, 10_000.0))
    assert len(found.trades) > count / 100
    np.testing.assert_allclose(found.equity[-1], 10_000 + found.trades["profit"].sum(), atol=100)
    moved = sum(part.nbytes for part in (*market.prices, signals, found.equity, found.position, found.halted))
    return Share("backtest", f"{count:,} candles, {len(found.trades):,} trades", *copied(machine, moved), seconds)


def copied(machine, moved):
    """Least seconds for reading and writing so many bytes, and what they are spent on."""
    least = Floor(moved / machine.rate("copies"), "bytes")
    return least.seconds, least.bound


def best(function):
    """Best seconds of some calls after a first one, and the last result."""
    function()
    return best_of(function, REPEATS)


def markdown(machine, found):
    """Table of the shares for docs/experiments, with machine, rates, revision and date."""
    described = machine.description()
    rates = [
        f"products of {what} {machine.rate(what) / 1e9:,.0f} GFLOP/s" for what in machine.measured("float32", "bf16")
    ]
    device = f"{described['device']}, {torch.backends.cpu.get_cpu_capability()}, {described['cores']} cores"
    lines = [f"- machine: {device}, torch {described['torch']}"]
    lines += [f"- revision: {described['revision']}", f"- date: {described['date']}"]
    lines += [f"- rates: {', '.join(rates)}; copies {machine.rate('copies') / 1e9:.1f} GB/s", ""]
    lines += ["| job | size | floor | of | measured | share of the floor |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {one.job} | {one.size} | {shown(one.least)} | {one.bound} | {shown(one.seconds)} | {one.share:.0%} |"
        for one in found
    ]
    return "\n".join([*lines, ""])


def shown(seconds):
    """Seconds in a unit that needs few digits."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def write(directory, machine, found):
    """Write `shares.md` and `shares.json` into a folder."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "shares.md").write_text(markdown(machine, found))
    rows = [asdict(one) | {"share": one.share} for one in found]
    (directory / "shares.json").write_text(json.dumps({"machine": machine.description(), "rows": rows}, indent=1))
