"""Checks of candles against their neighbours: jumps, frozen candles, pasted rows, outliers, volume.

In a market that trades around the clock, a candle opens at the previous close, apart from the price difference between
two consecutive trades. Candles that were cut off, frozen or pasted break this rule. The usual jump differs by market
and year, so jumps are always compared with the jumps nearby (`Neighbours.usual_jump`) and with the candles' own range.
"""

import itertools
from functools import cached_property

import numpy as np
import pandas as pd

from kronos_lightning.data.doctor.calendar import in_outage
from kronos_lightning.data.doctor.finding import STAMP, Case, Findings, local_median, runs

BLOCK = 50  # candles over which usual jumps are computed
REACH = 20  # blocks on each side; the quieter side sets the usual jump
SMALLEST_JUMP = 1e-4  # log price; every market has smaller jumps
STRONG, WEAK = 0.06, 1e-3  # jumps of a frozen candle, as shares of the usual range: to find runs, and inside runs
LOW_VOLUME = 0.55  # share of the volume of unsuspicious candles nearby; a frozen candle has less
ALONE = 0.18  # jump of an isolated frozen candle, as a share of the usual range
ALONE_VOLUME = 0.4  # volume of an isolated frozen candle, as a share of the volume nearby


class Neighbours:
    """Usual values around each candle of a case; all arrays are ``(rows,)``."""

    def __init__(self, case: Case):
        self.case = case
        self.explained = np.zeros(len(case), dtype=bool)  # rows whose jumps a finding already explains

    @cached_property
    def jump(self) -> np.ndarray:
        """Log of the next candle's open over this candle's close; NaN before a gap and at the end."""
        with np.errstate(invalid="ignore", divide="ignore"):
            jump = np.log(self.case.open[1:] / self.case.close[:-1])
        return np.append(np.where(self.case.follows & np.isfinite(jump), jump, np.nan), np.nan)

    @cached_property
    def range(self) -> np.ndarray:
        """Usual log of high over low, a local median."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return local_median(np.log(self.case.high / self.case.low), 31)

    @cached_property
    def usual_jump(self) -> np.ndarray:
        """Upper quartile of the jump sizes on the quieter side, so that a run of bad candles does not raise it."""
        size, n = np.abs(self.jump), len(self.case)
        width = min(BLOCK, max(10, n // 20))
        padded = np.full(-(-n // width) * width, np.nan)
        padded[:n] = size
        blocks = np.sort(padded.reshape(-1, width), axis=1)  # NaN last
        upper = np.isfinite(blocks).sum(axis=1) * 3 // 4
        quartile = blocks[np.arange(len(blocks)), np.minimum(upper, width - 1)]
        past = pd.Series(quartile).rolling(REACH, min_periods=1).median()
        future = pd.Series(quartile[::-1]).rolling(REACH, min_periods=1).median()[::-1].to_numpy()
        return np.repeat(np.fmin(past.to_numpy(), future), width)[:n]

    @cached_property
    def outage(self) -> np.ndarray:
        """Bool mask of the candles that overlap a known outage."""
        return in_outage(self.case.time, self.case.time + self.case.step)


def frozen(case: Case, around: Neighbours) -> Findings:
    """Find unfinished candles that were never corrected: too little volume, and a next open apart from the close.

    The search works like edge detection in an image: strong candidates first, then weaker candidates among them.
    """
    if case.volume is None or case.sessions or len(case) < 30:
        return
    size = np.nan_to_num(np.abs(around.jump))
    doubtful = size > np.maximum(5 * around.usual_jump, SMALLEST_JUMP)
    reference = _reference_volume(case.volume, doubtful)
    low = case.volume < LOW_VOLUME * reference
    apart = size > np.maximum(10 * around.usual_jump, STRONG * around.range)
    strong = apart & low & ~around.outage
    crowd = np.convolve(strong, np.ones(15), mode="same") >= 3
    alone = (size > ALONE * around.range) & (case.volume < ALONE_VOLUME * reference)
    seeds = strong & (crowd | alone)
    near = np.convolve(strong & crowd, np.ones(7), mode="same") >= 2
    weak = near & ((doubtful & (size > WEAK * around.range)) | (case.volume < 0.2 * reference))
    found = (seeds | (weak & (low | apart))) & ~around.outage
    if found[-2:-1].any() and case.volume[-1] < LOW_VOLUME * reference[-1]:
        found[-1] = True  # no candle follows that could show its jump
    if not found.any():
        return
    around.explained |= found
    rows = np.flatnonzero(found)
    message = (
        f"{len(rows)} candle(s) look frozen before they had ended, the first {_stamp(case, rows[0])}, the last "
        f"{_stamp(case, rows[-1])}: their volume is {np.median(case.volume[rows] / reference[rows]):.0%} of what is "
        f"usual and the next candle opens elsewhere. Download them again"
    )
    yield case.finding("frozen candle", "error", message, rows)


def _reference_volume(volume: np.ndarray, doubtful: np.ndarray) -> np.ndarray:
    """Return the median volume of the 30 unsuspicious candles before or after each candle, whichever is smaller."""
    good = pd.Series(np.where(doubtful, np.nan, volume))
    before = good.dropna().rolling(30, min_periods=10).median().reindex(good.index).ffill().shift(1)
    after = good.dropna()[::-1].rolling(30, min_periods=10).median().reindex(good.index[::-1]).ffill().shift(1)[::-1]
    smaller = np.fmin(before.to_numpy(), after.to_numpy())
    reference: np.ndarray = np.nan_to_num(smaller, nan=np.nanmedian(volume))
    return reference


def pasted(case: Case, around: Neighbours) -> Findings:
    """Find rows that belong to another time: copies of other rows, or a block that meets neither neighbour."""
    if case.sessions or len(case) < 30:
        return
    size = np.nan_to_num(np.abs(around.jump))
    torn = size > np.maximum(10 * around.usual_jump, 3 * around.range)  # between row i and i + 1
    copies = _copies(case, torn)
    blocks = _foreign_blocks(case, np.flatnonzero(torn & (size > 8 * around.range)), around.jump)
    bad = copies | blocks
    if bad.any():
        around.explained |= bad | np.append(bad[1:], False)
        first, last = np.flatnonzero(bad)[[0, -1]]
        message = (
            f"{bad.sum()} row(s) from {_stamp(case, first)} to {_stamp(case, last)} do not belong there: "
            f"{'they repeat rows of another time' if copies.any() else 'prices jump there and back'}"
        )
        yield case.finding("pasted rows", "error", message, bad)


def _copies(case: Case, torn: np.ndarray) -> np.ndarray:
    """Return a mask of rows whose prices and volume also occur elsewhere, in blocks with a jump at an edge."""
    names = [c for c in (case.open, case.high, case.low, case.close, case.volume) if c is not None]
    table = pd.DataFrame(dict(enumerate(names)))
    alive = (case.high > case.low) & (case.volume > 0 if case.volume is not None else True)
    twice = table.duplicated(keep=False).to_numpy() & alive
    bad = np.zeros(len(case), dtype=bool)
    for a, b in runs(twice):
        bad[a:b] = (a > 0 and torn[a - 1]) or torn[b - 1]
    return bad


def _foreign_blocks(case: Case, edges: np.ndarray, jump: np.ndarray) -> np.ndarray:
    """Return a mask of the rows between a jump and the jump back."""
    bad = np.zeros(len(case), dtype=bool)
    for there, back in itertools.pairwise(edges):
        larger = max(abs(jump[there]), abs(jump[back]))
        if (
            jump[there] * jump[back] < 0
            and abs(jump[there] + jump[back]) < 0.5 * larger
            and back - there < len(case) / 2
        ):
            bad[there + 1 : back + 1] = True
    return bad


def jumps(case: Case, around: Neighbours) -> Findings:
    """Find candles that do not open at the previous close."""
    size = np.nan_to_num(np.abs(around.jump))
    far = (size > np.maximum(20 * around.usual_jump, around.range)) & ~around.explained
    if case.sessions or not far.any():
        return
    after = np.flatnonzero(far) + 1
    yield case.finding("open jump", "warning", f"opens far from the last close: {case.places(after)}", after)


def outliers(case: Case, around: Neighbours) -> Findings:
    """Find prices far from their neighbours, relative to the usual moves and ranges there."""
    if len(case) < 30:
        return
    with np.errstate(invalid="ignore", divide="ignore"):
        logs = np.log(np.stack([case.open, case.high, case.low, case.close]))
    body = np.nan_to_num(np.abs(np.diff(logs[3], prepend=logs[3][:1])))
    usual = np.maximum(local_median(np.where(body > 0, body, np.nan), 31), 1e-6)
    middle = pd.Series(logs[3]).rolling(5, center=True, min_periods=3).median().to_numpy()
    away = np.nan_to_num(np.maximum(logs[1] - middle, middle - logs[2]))
    far = away > np.maximum(25 * usual, 4 * around.range)
    misplaced = np.nan_to_num(np.abs(logs - middle)).max(axis=0) > np.log(3)
    if misplaced.any():
        message = f"a price is a multiple of those around it (a misplaced decimal point?): {case.places(misplaced)}"
        yield case.finding("price outlier", "error", message, misplaced)
    far &= ~misplaced
    if far.any():
        message = f"prices far from their neighbours, a crash or a wrong tick: {case.places(far)}"
        yield case.finding("price outlier", "warning", message, far)


def volume_collapse(case: Case, around: Neighbours) -> Findings:
    """Find volume far below the neighbours' volume, and identical volume in consecutive candles."""
    if case.volume is None or case.sessions or len(case) < 30:
        return
    with np.errstate(invalid="ignore", divide="ignore"):
        size = np.where(case.volume > 0, np.log(case.volume), np.nan)
    usual = local_median(size, 15)
    spread = 1.4826 * local_median(np.abs(size - usual), 31)
    collapsed = np.nan_to_num(usual - size) > np.maximum(np.log(8), 5 * spread)
    if collapsed.any():
        rows = np.flatnonzero(collapsed)
        share = np.exp(size[rows] - usual[rows])
        down = rows[around.outage[rows]]
        message = (
            f"volume fell to {share.min():.1%} of what is usual or more: {case.places(rows)}. It may be a real outage"
        )
        message += f"; known ones: {case.places(down)}" if len(down) else ""
        yield case.finding("volume collapse", "warning", message, rows, known_outages=len(down))
    same = np.append(False, (np.diff(case.volume) == 0) & (case.volume[1:] > 0))
    stale = [(a - 1, b) for a, b in runs(same) if b - a >= 2]
    if stale:
        rows = np.concatenate([np.arange(a, b) for a, b in stale])
        message = f"the same volume in candle after candle: {case.places(np.array([a for a, _ in stale]))}"
        yield case.finding("stale volume", "warning", message, rows)


def repeats(case: Case) -> Findings:
    """Find candles that repeat the previous candle (filled forward)."""
    alike = np.ones(max(len(case) - 1, 0), dtype=bool)
    for values in (case.open, case.high, case.low, case.close, case.volume):
        if values is not None:
            alike &= np.diff(values) == 0
    alike = np.append(False, alike & (case.high[1:] > case.low[1:]))
    if alike.any():
        yield case.finding("filled forward", "error", f"repeats the candle before: {case.places(alike)}", alike)


def _stamp(case: Case, row: int) -> str:
    return f"{pd.Timestamp(case.time[row]):{STAMP}}"
