"""Tables for notebooks: HTML in which every text from outside is escaped, and which needs no style or script of its own."""

from __future__ import annotations

from collections.abc import Sequence

from pai_cli.display.report.page import text
from pai_cli.display.report.tables import Cell, cells_of
from pai_cli.display.tables import TEXT
from pai_cli.files.tables import Record

LEFT = (*TEXT, "reason", "setting")


def html_table(caption: str, columns: Sequence[str], records: Sequence[Record], *, total: bool = False) -> str:
    """A table of some of the records' fields; pointing at a number shows it in full, with its error. With `total` the last
    record stands apart. A notes column without any note is left out.
    """
    shown = [name for name in columns if name != "note" or any(record.get("note") for record in records)]
    heads = "".join(f'<th style="text-align: {_side(name)}">{text(name)}</th>' for name in shown)
    rows = [_row(shown, cells_of(record, shown)) for record in records]
    foot = f"<tfoot>{rows.pop()}</tfoot>" if total and len(rows) > 1 else ""
    return (
        f'<div style="overflow-x: auto"><table><caption style="text-align: left">{text(caption)}</caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody>{foot}</table></div>"
    )


def html_lines(lines: Sequence[str]) -> str:
    """Sentences below a table."""
    return "".join(f"<p>{text(line)}</p>" for line in lines)


def _row(columns: Sequence[str], cells: Sequence[Cell]) -> str:
    return f"<tr>{''.join(_cell(name, cell) for name, cell in zip(columns, cells, strict=True))}</tr>"


def _cell(column: str, cell: Cell) -> str:
    title = f' title="{text(cell.title)}"' if cell.title else ""
    return f'<td style="text-align: {_side(column)}"{title}>{text(cell.text)}</td>'


def _side(column: str) -> str:
    return "left" if column in LEFT else "right"
