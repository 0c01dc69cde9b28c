"""Numbers of candle files: decimal points and commas, thousands, currency signs, and suffixes such as 45.3K."""

import re

import pandas as pd

from .features import CandleError, first_place

SUFFIXES = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
EMPTY = ["", "-", "--", "na", "n/a", "nan", "null", "none"]
CONVENTIONS = {  # thousands need groups of three digits, and a number with thousands does not begin with zero
    "point": r"[+-]?(?:[1-9]\d{0,2}(?:,\d{3})+|\d+)?(?:\.\d*)?(?:[eE][+-]?\d+)?",
    "comma": r"[+-]?(?:[1-9]\d{0,2}(?:\.\d{3})+|\d+)?(?:,\d*)?(?:[eE][+-]?\d+)?",
}


def is_number(cell: str) -> bool:
    """Return True if a cell holds a number in any convention."""
    text = _bare(pd.Series([cell], dtype="str"))[0].iloc[0]
    return bool(text) and any(
        re.fullmatch(pattern, text) and re.search(r"\d", text) for pattern in CONVENTIONS.values()
    )


def parse_numbers(
    columns: dict[str, pd.Series], source: str, place: str, decimal: str | None
) -> tuple[dict[str, pd.Series], str | None]:
    """Convert the number columns of a file to float64; all of them follow one decimal convention.

    Args:
        columns: columns by name, of numbers or text; empty cells become NaN.
        source, place: file and "line" or "row", for messages; the index holds the line or row numbers.
        decimal: "point" or "comma"; None finds it out.

    Returns:
        The numbers, and the convention if a cell shows which one it is.

    Raises:
        CandleError: a cell is not a number, or the convention is ambiguous.
    """
    numeric = {name: pd.api.types.is_numeric_dtype(c) and c.dtype != bool for name, c in columns.items()}
    bare = {name: _bare(column.astype("str")) for name, column in columns.items() if not numeric[name]}
    chosen = decimal
    if bare:
        chosen = decimal or _convention({name: cells for name, (cells, _) in bare.items()}, source, place)
    numbers = {}
    for name, column in columns.items():
        if numeric[name]:
            numbers[name] = column.astype("float64")
            continue
        cells, factors = bare[name]
        _require(cells, CONVENTIONS[chosen or "point"], columns[name], source, place)
        group, point = (".", ",") if chosen == "comma" else (",", ".")
        plain = cells.str.replace(group, "", regex=False).str.replace(point, ".", regex=False)
        numbers[name] = pd.to_numeric(plain.where(cells != "", None)).astype("float64") * factors
    return numbers, chosen


def _bare(cells: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Strip spaces, currency signs and suffixes; return the texts ("" = empty) and their factors."""
    texts = cells.str.strip().str.replace(r"^([+-]?)[$€£¥₩₿]\s*|\s*[$€£¥₩₿]$", r"\1", regex=True)
    texts = texts.str.replace(r"(?<=\d)[\s'’](?=\d{3}(?:\D|$))", "", regex=True)
    suffix = texts.str.extract(r"\d([KMBT])$", expand=False)
    factors = suffix.map(SUFFIXES).fillna(1.0).astype("float64")
    texts = texts.where(suffix.isna(), texts.str[:-1])
    return texts.mask(cells.isna() | texts.str.lower().isin(EMPTY), ""), factors


def _convention(columns: dict[str, pd.Series], source: str, place: str) -> str | None:
    """Return the decimal convention of text columns, None if no cell has a separator."""
    cells = pd.concat(
        [column.rename_axis("at").reset_index(name="cell").assign(column=name) for name, column in columns.items()]
    )
    cells = cells[cells["cell"].str.contains(r"[.,]", regex=True)].sort_values("at", kind="stable")
    fits = pd.DataFrame({name: cells["cell"].str.fullmatch(pattern) for name, pattern in CONVENTIONS.items()})
    possible = [name for name in CONVENTIONS if fits[name].all()]
    commas = cells[cells["cell"].str.contains(",", regex=False)]
    if len(possible) == 2 and len(commas):
        at, cell, name = commas.iloc[0]
        raise CandleError(
            f"{source}: {place} {at}, column {name}: {cell!r} may have thousands or a decimal comma; "
            f"decimal=point or decimal=comma decides (data.decimal in train.py and evaluate.py)"
        )
    if possible:
        return possible[0] if len(cells) else None
    single = {name: cells[fits[name] & ~fits.drop(columns=name).any(axis=1)] for name in CONVENTIONS}
    if fits.any(axis=1).all():
        examples = [
            f"a decimal {name} ({rows.iloc[0]['cell']!r}, {place} {rows.iloc[0]['at']})"
            for name, rows in single.items()
        ]
        raise CandleError(f"{source}: numbers with {' and with '.join(examples)}; write all of them the same way")
    return max(CONVENTIONS, key=lambda name: fits[name].mean())  # a cell is no number; the caller names it


def _require(cells: pd.Series, pattern: str, column: pd.Series, source: str, place: str) -> None:
    bad = ~(cells.str.fullmatch(pattern) & (cells.eq("") | cells.str.contains(r"\d", regex=True)))
    if bad.any():
        at = first_place(column, bad)
        raise CandleError(f"{source}: {place} {at}, column {column.name}: {column[at]!r} is not a number")
