"""Tables for programs: JSON, JSON lines, CSV, TSV, one stable set of field names, numbers at full precision.

Those for people and their papers are drawn by `display`.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import TextIO

from pai_cli.printable import printable

FORMULA = "=+-@＝＋－＠"  # what a formula of a spreadsheet begins with, in narrow and in wide letters

PLAIN = {float, int, type(None)}  # cells that need nothing, which most are

Value = str | int | float | bool | tuple[str, ...] | list[int] | None
Record = dict[str, Value]


class Format(StrEnum):
    """How results are written to standard output."""

    TABLE = "table"
    MARKDOWN = "markdown"
    LATEX = "latex"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"
    TSV = "tsv"

    @property
    def for_people(self) -> bool:
        """Whether it shows what a person reads, in a terminal or on a page, and not all there is."""
        return self in (Format.TABLE, Format.MARKDOWN, Format.LATEX)


@lru_cache(maxsize=4096)  # names and words come again and again
def as_cell(text: str) -> str:
    """The text as CSV and TSV have it: on one line, control characters spelled out as `\\x1b`, and with an apostrophe in
    front of what a spreadsheet would run as a formula. A cell stays as it is.
    """
    text = printable(text)
    return f"'{text}" if len(text) > 1 and text[0] in FORMULA and not _spells_a_number(text) else text


def write_document(stream: TextIO, document: object) -> None:
    """Write one JSON document, over many lines."""
    stream.write(_json(document, indent=1) + "\n")


class TableWriter:
    """Writes records as they come, in any format for programs.

    Every record has every field of `fields`; None is null in JSON and empty elsewhere; several texts are a list in JSON and
    stand with spaces between them elsewhere; a shape is one too, elsewhere `64x3x3x3`. Floats are written with the digits
    that give the same float64 back. JSON has every text exactly, CSV and TSV as `as_cell` makes it.
    """

    def __init__(self, stream: TextIO, kind: Format, fields: Sequence[str], *, header: bool = True):
        if kind.for_people:
            raise ValueError("a table for people is drawn by display.tables")
        self._stream, self._kind, self._fields = stream, kind, list(fields)
        self._written = 0
        dialect = "excel-tab" if kind is Format.TSV else "excel"
        self._csv = csv.writer(stream, dialect=dialect, lineterminator="\n")
        if kind in (Format.CSV, Format.TSV) and header:
            self._csv.writerow(map(as_cell, self._fields))

    def write(self, records: Iterable[Record]) -> None:
        """Write records in order."""
        for record in records:
            self._write_one(record)
            self._written += 1

    def _write_one(self, record: Record) -> None:
        if self._kind in (Format.CSV, Format.TSV):
            values = map(record.__getitem__, self._fields)
            self._csv.writerow([value if type(value) in PLAIN else _text(value) for value in values])
            return
        line = _json({field: record[field] for field in self._fields})
        if self._kind is Format.JSON:
            self._stream.write(("[\n  " if self._written == 0 else ",\n  ") + line)
        else:
            self._stream.write(line + "\n")

    def close(self) -> None:
        """End the document; an empty JSON table is an empty list."""
        if self._kind is Format.JSON:
            self._stream.write("\n]\n" if self._written else "[]\n")


def write_table(
    stream: TextIO, kind: Format, fields: Sequence[str], records: Iterable[Record], *, header: bool = True
) -> None:
    """Write all records, as `TableWriter` does."""
    writer = TableWriter(stream, kind, fields, header=header)
    writer.write(records)
    writer.close()


def _text(value: Value) -> str | int | float | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple | list):
        value = joined(value)
    return as_cell(value) if isinstance(value, str) else value


def joined(values: tuple[str, ...] | list[int]) -> str:
    """Several texts, or a shape, as one text."""
    return " ".join(values) if isinstance(values, tuple) else "x".join(map(str, values))


def _json(value: object, indent: int | None = None) -> str:
    # The one control character that json leaves as it is.
    return json.dumps(value, allow_nan=False, indent=indent).replace("\x7f", "\\u007f")


def _spells_a_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
