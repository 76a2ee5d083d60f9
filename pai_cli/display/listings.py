"""Showing what there is to choose from."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from pai_cli.display.tables import show_records
from pai_cli.files.tables import Format, Record, write_table


def show_listing(records: Sequence[Record], kind: Format, *, header: bool = True) -> None:
    """The records, which have the same fields, as a table or as programs read them."""
    fields = list(records[0])
    if kind is Format.TABLE:
        show_records(records, fields)
        return
    write_table(sys.stdout, kind, fields, records, header=header)
