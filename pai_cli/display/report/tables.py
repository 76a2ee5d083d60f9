"""Tables of a page: numbers as a person reads them, and in full with their error for who points at them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pai_cli.display.report.page import text
from pai_cli.display.tables import MISSING, number
from pai_cli.files.tables import Record, Value

LONG = ("note", "reason", "decided")  # columns whose words fold


@dataclass(frozen=True)
class Cell:
    """`text`: what is read; `title`: the number in full, its error, why it is missing; `sort`: what orders the cell, None
    last.
    """

    text: str
    title: str = ""
    sort: Value = None


def cells_of(record: Record, columns: Sequence[str]) -> list[Cell]:
    """A record's cells, with the error bound and the count of layers that stand beside a measure."""
    return [_cell(record, column) for column in columns]


def _cell(record: Record, column: str) -> Cell:
    value = record.get(column)
    if value is None:
        return Cell(MISSING)
    if isinstance(value, str | tuple | list):
        return Cell(number(value), "", number(value))
    error, layers = record.get(f"{column}_error"), record.get(f"{column}_layers")
    parts = [in_full(value, error)] if isinstance(value, float) else []
    if error is not None:
        parts.append(f"± {error:.1e}")
    if layers is not None:
        parts.append(f"mean of {layers} layers" if layers != 1 else "of 1 layer")
    return Cell(number(value), ", ".join(parts).replace(", ±", " ±"), value)


def in_full(value: float, error: Value) -> str:
    """The number to the second digit of its error: what follows is rounding, which each processor does in its own way."""
    if not isinstance(error, float) or not error > 0.0 or value == 0.0 or not math.isfinite(value):
        return repr(value)
    digits = math.floor(math.log10(abs(value))) - math.floor(math.log10(error)) + 2
    return repr(float(f"{value:.{min(max(digits, 1), 17)}g}"))


def table_html(
    name: str, caption: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]], total: Sequence[Cell] | None = None
) -> str:
    """A table that the page's script makes sortable; `total` stays below, whatever the order. `name`: its id."""
    sides = [_side(column, [row[at] for row in rows]) for at, column in enumerate(columns)]
    heads = "".join(f'<th scope="col"{side}>{text(column)}</th>' for column, side in zip(columns, sides, strict=True))
    body = "".join(_row(sides, row) for row in rows)
    foot = f"<tfoot>{_row(sides, total)}</tfoot>" if total is not None else ""
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{text(caption)}">'
        f'<table id="{text(name)}" class="sortable"><caption>{text(caption)}</caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody>{foot}</table></div>"
    )


def _row(sides: Sequence[str], row: Sequence[Cell]) -> str:
    cells = [_html(side, cell, first=at == 0) for at, (side, cell) in enumerate(zip(sides, row, strict=True))]
    return f"<tr>{''.join(cells)}</tr>\n"


def _html(side: str, cell: Cell, *, first: bool) -> str:
    title = f' title="{text(cell.title)}"' if cell.title else ""
    # Numbers order by all their digits; words by what they say, so they need no second copy.
    order = f' data-order="{cell.sort!r}"' if isinstance(cell.sort, int | float) else ""
    if first:
        return f'<th scope="row"{side}{order}{title}>{text(cell.text)}</th>'
    return f"<td{side}{order}{title}>{text(cell.text)}</td>"


def _side(column: str, cells: Sequence[Cell]) -> str:
    """Words stand to the left, long ones on several lines."""
    if not any(isinstance(cell.sort, str) for cell in cells):
        return ""
    return ' class="text long"' if column in LONG else ' class="text"'
