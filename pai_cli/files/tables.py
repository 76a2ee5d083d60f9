"""Tables for programs: JSON, JSON lines, CSV, TSV, one stable set of field names, numbers at full precision.

Those for people and their papers are drawn by `display`.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from functools import lru_cache, partial
from itertools import chain
from math import isfinite
from typing import Any, TextIO

from pai_cli.printable import printable

FORMULA = "=+-@＝＋－＠"  # what a formula of a spreadsheet begins with, in narrow and in wide letters

Value = str | int | float | bool | tuple[str, ...] | list[int] | None
Record = dict[str, Value]
Columns = dict[str, Sequence[Value]]  # a value a record


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
        self._begun = False
        number: Callable[[Any], str] = repr
        text: Callable[[Any], str]
        other: Callable[[Any], str]
        if kind in (Format.JSON, Format.JSONL):
            self._missing, number, text, other = "null", _finite, _json_text, _json
            before = [f"{', ' if at else '{'}{_json(field)}: " for at, field in enumerate(self._fields)]
            end = "}" if kind is Format.JSON else "}\n"
        else:
            delimiter = "\t" if kind is Format.TSV else ","
            self._missing, text, other = "", partial(_cell, delimiter), partial(_odd_cell, delimiter)
            before, end = ["", *delimiter * (len(self._fields) - 1)], "\n"
        self._parts = [*chain.from_iterable((one, "") for one in before), end]  # of a line, with room for the values
        self._ways: defaultdict[type, Callable[[Any], str]] = defaultdict(lambda: other)
        self._ways.update({float: number, int: repr, str: text})
        if header and kind in (Format.CSV, Format.TSV):
            self._write_rows([self._fields])

    def write(self, records: Iterable[Record]) -> None:
        """Write records in order."""
        self._write_rows([record[field] for field in self._fields] for record in records)

    def write_columns(self, columns: Columns) -> None:
        """Write the records that have these values, field by field."""
        self._write_rows(zip(*(columns[field] for field in self._fields), strict=True))

    def _write_rows(self, rows: Iterable[Sequence[Value]]) -> None:
        lines = []
        for row in rows:
            self._parts[1::2] = [self._missing if one is None else self._ways[type(one)](one) for one in row]
            lines.append("".join(self._parts))
        if self._kind is not Format.JSON:
            self._stream.write(
                "".join(['""\n' if line == "\n" else line for line in lines])
            )  # an empty one is no record
        elif lines:
            self._stream.write((",\n  " if self._begun else "[\n  ") + ",\n  ".join(lines))
            self._begun = True

    def close(self) -> None:
        """End the document; an empty JSON table is an empty list."""
        if self._kind is Format.JSON:
            self._stream.write("\n]\n" if self._begun else "[]\n")


def write_table(
    stream: TextIO, kind: Format, fields: Sequence[str], records: Iterable[Record], *, header: bool = True
) -> None:
    """Write all records, as `TableWriter` does."""
    writer = TableWriter(stream, kind, fields, header=header)
    writer.write(records)
    writer.close()


@lru_cache(maxsize=4096)  # names and words come again and again
def _cell(delimiter: str, text: str) -> str:
    """A text's cell, between quotation marks where RFC 4180 wants them."""
    cell = as_cell(text)
    return '"{}"'.format(cell.replace('"', '""')) if delimiter in cell or '"' in cell else cell


def _odd_cell(delimiter: str, value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return _cell(delimiter, joined(value) if isinstance(value, tuple | list) else str(value))


@lru_cache(maxsize=4096)
def _json_text(text: str) -> str:
    return _json(text)


def _finite(value: float) -> str:
    return repr(value) if isfinite(value) else _json(value)  # which refuses it


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
