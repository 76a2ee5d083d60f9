"""Showing what there is to choose from."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from pai_cli.display.look import Look
from pai_cli.display.tables import show_records
from pai_cli.files.tables import Format, Record, write_table


def show_listing(
    records: Sequence[Record], kind: Format, columns: str | None, sort: str | None, *, header: bool
) -> None:
    """The records, which have the same fields, as a table or as programs read them; `columns`, `sort`: as of `Look.of`."""
    look = Look.of(kind, list(records[0]), columns, sort, header=header)
    fields, rows = look.shown(list(records[0])), look.ordered(records)
    if look.kind.for_people:
        show_records(rows, fields, look=look)
    else:
        write_table(sys.stdout, look.kind, fields, rows, header=look.header)
