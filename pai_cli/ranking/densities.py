"""The densities that a column of a table tells: as they stand, in percent, or as a sparsity or compression."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from pai_cli.files.rows import Row, Rows, finite
from pai_cli.ranking.columns import PERCENT, Kind, words_of

ROUNDING = 1e-6  # by which a share that was computed may miss 0 or 1: no percentage
DIGITS = 12  # of a density that is made of a sparsity: 1 - 0.98 is 0.02

_AMOUNT = re.compile(r"(?P<times>[x×]\s*)?(?P<number>[^\s%x×]+)\s*(?P<unit>%|[x×])?", re.IGNORECASE)


@dataclass(frozen=True)
class Densities:
    """What `column` tells: densities, 0 to 1, by the lines of rows (None where a cell is empty), and how it was read, in
    words ("1 - sparsity, in percent"), empty for a density as it stands.
    """

    column: str
    by_line: Mapping[int, float | None]
    read_as: str = ""


@dataclass(frozen=True)
class _Cell:
    """A number in a cell with its unit: "%", "x" or "" for none."""

    row: Row
    text: str
    value: float
    unit: str


def read_densities(table: Rows, column: str, kind: Kind) -> Densities | None:
    """The densities in a column; None where it tells none: no cell is a number, or a compression is one of below 1.

    Numbers above 1 make all of a column's numbers percentages, but those with a sign of their own. Raises `TableError`
    with the line of a cell that is no number among numbers, of one that no density has, and of what looks like a fraction
    among percentages.
    """
    cells = []
    faults = []
    for row in table.rows:
        text = row.cells[column]
        cell = _cell(row, text) if text else None
        if cell is not None:
            cells.append(cell)
        elif text:
            faults.append(table.fault(row.line, f"{column} {text!r} is not a number"))
    if not cells:
        return None
    if faults:
        raise faults[0]
    found = dict[int, float | None](dict.fromkeys(row.line for row in table.rows))
    if kind is Kind.COMPRESSION:
        if any(cell.unit == "%" or cell.value < 1 for cell in cells):
            return None  # whether 0.1 is what is kept or what is removed, the name does not say
        return Densities(column, found | {cell.row.line: 1 / cell.value for cell in cells}, f"1 / {column}")
    percent = _in_percent(table, column, kind, [cell for cell in cells if not cell.unit])
    for cell in cells:
        share = cell.value / 100 if cell.unit == "%" or (percent and not cell.unit) else cell.value
        if cell.unit == "x" or not -ROUNDING <= share <= 1 + ROUNDING:
            wanted = "a fraction (0 to 1) nor a percentage (0 to 100)"
            raise table.fault(cell.row.line, f"{column} {cell.text!r} is neither {wanted}")
        share = min(max(share, 0.0), 1.0)
        found[cell.row.line] = share if kind is Kind.DENSITY else round(1 - share, DIGITS)
    notes = [f"1 - {column}"] if kind is Kind.SPARSITY else [column] if percent else []
    return Densities(column, found, ", ".join([*notes, *(["in percent"] if percent else [])]))


def _cell(row: Row, text: str) -> _Cell | None:
    match = _AMOUNT.fullmatch(text)
    value = None if match is None else finite(match["number"])
    if match is None or value is None or (match["times"] and match["unit"]):
        return None
    return _Cell(row, text, value, "x" if match["times"] else (match["unit"] or "").lower().replace("×", "x"))


def _in_percent(table: Rows, column: str, kind: Kind, cells: list[_Cell]) -> bool:
    """Whether numbers without a unit are percentages."""
    above = [cell for cell in cells if cell.value > 1 + ROUNDING]
    below = [cell for cell in cells if 0 < cell.value < 1]
    if not above:
        # A sparsity of under 1 percent is none that anyone prunes to; a density of under 1 percent is.
        return kind is Kind.DENSITY and bool(words_of(column) & PERCENT) and bool(below)
    twice = {round(cell.value, DIGITS) for cell in above}
    mixed = [cell for cell in below if kind is Kind.SPARSITY or round(100 * cell.value, DIGITS) in twice]
    if mixed:
        raise table.fault(
            mixed[0].row.line,
            f"{column} {mixed[0].text} looks like a fraction, and {above[0].text} on line {above[0].row.line} like a "
            "percentage; write them alike, or with %",
        )
    return True
