"""Tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from pai_cli.display.console import output
from pai_cli.files.tables import Record, Value

if TYPE_CHECKING:
    from rich.table import Table

ANALYZE_COLUMNS = ("density", "d_L", "d_R", "sigma_1", "sigma_2", "dr", "dr_imdb", "ds", "narc")
WEIGHT_COLUMNS = ("lambda", "lambda_imsg", "l2", "l2_dense")
MISSING = "-"


def show_layers(records: Sequence[Record], *, weights: bool) -> None:
    """One mask's layers and, last, its network's means; what is missing is explained in the notes column."""
    output().print(str(records[0]["mask"]))
    columns = _columns(weights)
    table = _table(["layer", "shape", *columns, "note"])
    for record in records:
        network = record["level"] == "network"
        if network:
            table.add_section()
        name = "network mean" if network else str(record["layer"])
        values = (number(record[column]) for column in columns)
        table.add_row(
            name, str(record["shape"] or ""), *values, _note(record, weights), style="bold" if network else None
        )
    output().print(table)


def show_networks(records: Sequence[Record], *, weights: bool) -> None:
    """A line a mask: its network's means."""
    columns = [column for column in _columns(weights) if column not in ("d_L", "d_R")]
    table = _table(["mask", *columns, "note"])
    for record in records:
        table.add_row(str(record["mask"]), *(number(record[column]) for column in columns), _note(record, weights))
    output().print(table)


def _columns(weights: bool) -> tuple[str, ...]:
    return ANALYZE_COLUMNS + (WEIGHT_COLUMNS if weights else ())


def show_records(records: Iterable[Record], columns: Sequence[str]) -> None:
    """A plain table of some of the records' fields."""
    table = _table(columns)
    for record in records:
        table.add_row(*(number(record[column]) for column in columns))
    output().print(table)


def number(value: Value) -> str:
    """A value as a person reads it: five significant digits, thousands apart, `-` for what is missing."""
    if value is None or value == "":
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.5g}" if abs(value) < 1e5 else f"{value:.4e}"
    return value


def _table(columns: Sequence[str]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in columns:
        words = column in ("mask", "layer", "shape", "note", "method", "decided", "", "file", "reason")
        table.add_column(column, justify="left" if words else "right", overflow="fold", no_wrap=not words)
    return table


def _note(record: Record, weights: bool) -> str:
    """Reasons, without the one that the person chose: no weights given."""
    if record["reason"] is None:
        return ""
    parts = [part for part in str(record["reason"]).split("; ") if weights or "needs --weights" not in part]
    return "; ".join(part.split(" (")[0] for part in parts)
