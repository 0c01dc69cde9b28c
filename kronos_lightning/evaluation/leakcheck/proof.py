"""Proof by mutation: replace every candle after t; no value known at t may change by a single bit.

A proof needs two controls. The next close cannot be known, so it has to change; otherwise the mutation did nothing. And
every subject has to change when all candles do; otherwise it is bit-identical because it is constant.

Shape letter: T candles.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Self

import numpy as np
import pandas as pd
from scipy.signal import lfilter

from kronos_lightning.data import Candles
from kronos_lightning.data.formats import CLOSE, FEATURES, OPEN, VOLUME

PERSISTENCE = 0.98  # of the log price of a synthetic future, so that its level is stable over any length
ALL = -1  # the row after which every candle is mutated

Arrays = Mapping[str, np.ndarray]
Verdict = Literal["proved", "leak", "unproved"]


class InconclusiveProof(ValueError):
    """Error if the mutation had no visible effect, so that it proves nothing."""


class Future(NamedTuple):
    """Parameters of the synthetic candles that replace the candles after a cutoff."""

    name: str
    level: float  # of the prices, in units of the last close before the future
    volatility: float  # of the log close, per candle


FUTURES = (
    Future("like the past", 1.0, 0.01),
    Future("calm and far below", 0.2, 0.001),
    Future("wild and far above", 5.0, 0.08),
)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Computation that must not look ahead.

    name, what: for people; `what` says which values are compared.
    function: maps all candles, including later ones, and a row t to named arrays.
    """

    name: str
    what: str
    function: Callable[[Candles, int], Arrays]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """First value that a later candle changed, or value that stayed the same although it had to change.

    index: position in the array; empty if the whole array is meant.
    """

    cutoff: pd.Timestamp | np.datetime64
    future: str
    array: str
    index: tuple[int, ...]
    original: str
    mutated: str

    def __str__(self) -> str:
        at = f"[{', '.join(map(str, self.index))}]" if self.index else ""
        became = f"became {self.mutated}" if self.mutated != self.original else "stayed so"
        return (
            f"{self.array}{at} at {pd.Timestamp(self.cutoff):%Y-%m-%d %H:%M} was {self.original} and {became} when the "
            f"later candles were {self.future}"
        )


@dataclass(frozen=True, kw_only=True)
class ProofResult:
    """Finding about a subject.

    cutoffs, values: number of cutoffs and of compared values; a value counts once for each future.
    verdict: "unproved" is not a leak: `detail` says why nothing can be concluded.
    """

    name: str
    what: str
    cutoffs: int
    values: int
    verdict: Verdict
    detail: str = ""
    first: Difference | None = None

    @classmethod
    def unproved(cls, name: str, what: str, why: str) -> Self:
        """Build a finding without a conclusion; `why` gives the reason."""
        return cls(name=name, what=what, cutoffs=0, values=0, verdict="unproved", detail=why)


def prove(subjects: Sequence[Subject], candles: Candles, cutoffs: Sequence[int], seed: int) -> list[ProofResult]:
    """Mutate the candles after each cutoff in every way of `FUTURES`, and compare each subject bit by bit.

    Args:
        subjects: the computations to check, with different names.
        candles: T of them.
        cutoffs: rows t, ascending; each must be followed by a candle.
        seed: of the mutations.

    Returns:
        One finding per subject, in their order.

    Raises:
        InconclusiveProof: a next close did not change.
    """
    counted = dict.fromkeys((subject.name for subject in subjects), 0)
    leaks: dict[str, Difference] = {}
    for row in cutoffs:
        stamp = candles.frame["timestamps"].iloc[row]
        known = {subject.name: subject.function(candles, row) for subject in subjects}
        for future in FUTURES:
            copy = mutate(candles, row, future, seed)
            if compare(_next_close(candles, row), _next_close(copy, row)) is None:
                raise InconclusiveProof(f"the candles after row {row} of {len(candles)} could not be changed")
            for subject in subjects:
                given, name = known[subject.name], subject.name
                if name in leaks:
                    continue
                counted[name] += sum(array.size for array in given.values())
                if (found := compare(given, subject.function(copy, row))) is not None:
                    array, index, before, after = found
                    leaks[name] = Difference(
                        cutoff=stamp, future=future.name, array=array, index=index, original=before, mutated=after
                    )
    everything, last = mutate(candles, ALL, FUTURES[0], seed), cutoffs[-1]
    findings = []
    for subject in subjects:
        first, count = leaks.get(subject.name), counted[subject.name]
        verdict: Verdict
        if first is not None:
            verdict, detail = "leak", str(first)
        elif count == 0:
            verdict, detail = "unproved", "there was nothing to compare"
        elif compare(subject.function(candles, last), subject.function(everything, last)) is None:
            verdict, detail = "unproved", "it did not change even when all candles changed"
        else:
            verdict, detail = "proved", "bit-identical"
        findings.append(
            ProofResult(
                name=subject.name,
                what=subject.what,
                cutoffs=len(cutoffs),
                values=count,
                verdict=verdict,
                detail=detail,
                first=first,
            )
        )
    return findings


def mutate(candles: Candles, row: int, future: Future, seed: int, keep_open: bool = False) -> Candles:
    """Return a copy with the same candles up to `row` and valid candles after it in which every number differs.

    Args:
        candles: T of them; not changed. Times and gaps are kept, since a calendar is known in advance.
        row: the last row to keep, or `ALL` to keep none.
        future: properties of the candles after it.
        seed: the same seed gives the same candles.
        keep_open: True = also keep the next candle's open.

    Raises:
        InconclusiveProof: a number stayed the same.
    """
    values = candles.frame[FEATURES].to_numpy(np.float64, copy=True)
    later = values[row + 1 :]
    rng = np.random.default_rng([seed, row + 1, FUTURES.index(future)])
    anchor = np.log(values[max(row, 0), CLOSE] * future.level)
    steps = rng.normal(0.0, future.volatility, len(later) + 1)
    walk = np.exp(anchor + lfilter([1.0], [1.0, -PERSISTENCE], steps))
    open_, close = walk[:-1], walk[1:]
    if keep_open:
        open_[:1] = later[:1, OPEN]
    above, below = np.exp(np.abs(rng.normal(0.0, future.volatility, (2, len(later)))) + 1e-6)
    high, low = np.maximum(open_, close) * above, np.minimum(open_, close) / below
    volume = rng.lognormal(np.log(values[:, VOLUME].mean() * future.level + 1.0), 0.5, len(later))
    made = np.stack([open_, high, low, close, volume, volume * (open_ + high + low + close) / 4], axis=1)
    same = made == later
    if keep_open:
        same[:1, OPEN] = False
    if same.any():
        raise InconclusiveProof(f"{same.sum()} of the numbers after row {row} did not change")
    values[row + 1 :] = made
    return replace(candles, frame=candles.frame.assign(**dict(zip(FEATURES, values.T.copy(), strict=True))))


def compare(original: Arrays, mutated: Arrays) -> tuple[str, tuple[int, ...], str, str] | None:
    """Find the first bitwise difference between two results: array, index, both values. None = no difference.

    Unlike ``==`` this distinguishes NaN from NaN with other bits, 0.0 from −0.0, and float32 from float64.
    """
    for name in [*original, *(name for name in mutated if name not in original)]:
        if name not in original or name not in mutated:
            before, after = ("there" if name in one else "missing" for one in (original, mutated))
            return name, (), before, after
        a, b = np.asarray(original[name]), np.asarray(mutated[name])
        if a.dtype != b.dtype or a.shape != b.shape:
            return name, (), f"{a.dtype} of shape {a.shape}", f"{b.dtype} of shape {b.shape}"
        unlike = (_bytes(a) != _bytes(b)).any(axis=1)
        if unlike.any():
            index = tuple(int(i) for i in np.unravel_index(unlike.argmax(), a.shape))
            return name, index, str(a[index]), str(b[index])
    return None


def _next_close(candles: Candles, row: int) -> Arrays:
    return {"next close": candles.frame["close"].to_numpy()[row + 1 : row + 2]}


def _bytes(array: np.ndarray) -> np.ndarray:
    if array.dtype.hasobject:
        raise TypeError(f"an array of {array.dtype} has no bits to compare")
    return np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8).reshape(array.size, array.dtype.itemsize)
