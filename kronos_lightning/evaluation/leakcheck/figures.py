"""Figures of an evaluation with the time at which each is known, and their comparison with those of a mutated run.

Shape letter: N rows.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .proof import Difference, ProofResult, Verdict, compare

SEPARATOR = "|"  # in the names of the arrays of a file; no name of a forecaster or setting holds it
NAMED = 4  # parts of a subject that a finding names


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Values that become known row by row.

    known: open times of the candles at which the rows become known, datetime64[ns] ``(N,)``.
    values: ``(N, …)``, no objects.
    at_open: True = known at the open of that candle, like the price of a fill; False = at its close.
    """

    known: np.ndarray
    values: np.ndarray
    at_open: bool = False


Figures = Mapping[str, Figure]  # by "subject" or "subject/part"


@dataclass(frozen=True, kw_only=True)
class Mutation:
    """Change of all candles after a cutoff.

    cutoff: open time of the last unchanged candle, and `following` that of the next candle.
    future: properties of the new candles, as text.
    keeps_open: True = the open of the next candle is unchanged too.
    """

    cutoff: np.datetime64
    following: np.datetime64
    future: str
    keeps_open: bool

    def fixes(self, figure: Figure) -> np.ndarray:
        """Return a bool mask ``(N,)`` of the rows that must not change."""
        last = self.following if figure.at_open and self.keeps_open else self.cutoff
        mask: np.ndarray = figure.known <= last
        return mask


def save_figures(figures: Figures, path: Path) -> None:
    """Write figures to an ``.npz`` file."""
    arrays = {}
    for name, figure in figures.items():
        when = "open" if figure.at_open else "close"
        arrays[f"{name}{SEPARATOR}{when}"] = figure.known
        arrays[f"{name}{SEPARATOR}values"] = figure.values
    np.savez(path, **arrays)  # type: ignore[arg-type]  # the other arguments are arrays too


def load_figures(path: Path) -> dict[str, Figure]:
    """Read figures that `save_figures` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        times = [key.rsplit(SEPARATOR, 1) for key in arrays.files if not key.endswith(f"{SEPARATOR}values")]
        return {
            name: Figure(
                known=arrays[f"{name}{SEPARATOR}{when}"],
                values=arrays[f"{name}{SEPARATOR}values"],
                at_open=when == "open",
            )
            for name, when in times
        }


def judge(original: Figures, mutated: Mapping[Mutation, Figures], everything: Figures) -> list[ProofResult]:
    """Compare the figures of every mutated run with the original up to its cutoff, bit by bit.

    Args:
        original: figures from the real candles.
        mutated: figures from candles of which all after a cutoff were changed.
        everything: figures from candles that were all changed; a subject that did not change proves nothing.

    Returns:
        One finding per subject, in their order, and one on the prices of fills.
    """
    subjects = dict.fromkeys(_subject(name) for one in (original, *mutated.values()) for name in one)
    findings = []
    for subject in subjects:
        values, first = 0, None
        for mutation, found in mutated.items():
            before, after = (dict(_known(figures, subject, mutation)) for figures in (original, found))
            values += sum(array.size for array in before.values())
            first = first or _difference(compare(before, after), mutation)
        whole = [dict(_whole(figures, subject)) for figures in (original, everything)]
        verdict: Verdict
        if first is not None:
            verdict, detail = "leak", str(first)
        elif not values:
            verdict, detail = "unproved", "there was nothing to compare"
        elif compare(*whole) is None:
            verdict, detail = "unproved", "it did not change even when all candles changed"
        else:
            verdict, detail = "proved", "bit-identical"
        what = _describe(original, subject)
        findings.append(
            ProofResult(
                name=subject,
                what=what,
                cutoffs=len(mutated),
                values=values,
                verdict=verdict,
                detail=detail,
                first=first,
            )
        )
    return [*findings, _fill_prices(original, mutated)]


def _fill_prices(original: Figures, mutated: Mapping[Mutation, Figures]) -> ProofResult:
    """Check that prices of fills at the open after a cutoff follow that open, so that they were not known before."""
    name, what = "fill prices", "entry prices at the next open, which must not be known when the order is decided"
    values, stayed = 0, None
    for mutation, found in mutated.items():
        if mutation.keeps_open:
            continue
        for key, figure in original.items():
            if not (figure.at_open and key.endswith("entry price") and key in found):
                continue
            before = figure.values[figure.known == mutation.following]
            after = found[key].values[found[key].known == mutation.following]
            values += before.size
            if before.size and np.array_equal(before, after):
                stayed = stayed or _difference((key, (), str(before[0]), str(after[0])), mutation)
    if not values:
        return ProofResult.unproved(name, what, "no position was opened right after a cutoff")
    verdict: Verdict = "proved" if stayed is None else "leak"
    detail = "changed, so they were not known" if stayed is None else str(stayed)
    cutoffs = sum(not one.keeps_open for one in mutated)
    return ProofResult(
        name=name, what=what, cutoffs=cutoffs, values=values, verdict=verdict, detail=detail, first=stayed
    )


def _difference(found: tuple[str, tuple[int, ...], str, str] | None, mutation: Mutation) -> Difference | None:
    if found is None:
        return None
    name, index, before, after = found
    return Difference(
        cutoff=mutation.cutoff, future=mutation.future, array=name, index=index, original=before, mutated=after
    )


def _subject(name: str) -> str:
    return name.partition("/")[0]


def _known(figures: Figures, subject: str, mutation: Mutation) -> Iterator[tuple[str, np.ndarray]]:
    for name, figure in figures.items():
        if _subject(name) == subject:
            yield name, figure.values[mutation.fixes(figure)]


def _whole(figures: Figures, subject: str) -> Iterator[tuple[str, np.ndarray]]:
    return ((name, figure.values) for name, figure in figures.items() if _subject(name) == subject)


def _describe(figures: Figures, subject: str) -> str:
    parts = [part for name in figures if _subject(name) == subject and (part := name.partition("/")[2])]
    return (", ".join(parts[:NAMED]) or "all values") + (
        f" and {len(parts) - NAMED} more" if len(parts) > NAMED else ""
    )
