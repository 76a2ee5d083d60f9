"""Tables that other programs wrote, CSV or TSV, read line by line so that a message can say which."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TextIO

from pai_cli.errors import TableError
from pai_cli.files.first_bytes import ENOUGH, check_start, no_text, open_text
from pai_cli.printable import reason_of

STANDARD_INPUT = "-"


@dataclass(frozen=True)
class Row:
    """One row: the number of its (last) line in the file and its cells by column, without spaces around."""

    line: int
    cells: dict[str, str]


@dataclass(frozen=True)
class Rows:
    """A table: `source` names it in messages; `columns` in the order of the header."""

    source: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    def fault(self, line: int, what: str) -> TableError:
        """An error that says where."""
        return TableError(f"{self.source}: line {line}: {what}")


def read_rows(path: Path, stdin: TextIO) -> Rows:
    """The table in a file, or on standard input where `path` is `-`.

    Cells are separated by tabs where the header has one, else by commas; quotes as in RFC 4180; empty lines are passed over.
    Raises `TableError` for a file that is missing, no text, without rows, or with rows of another length than the header's.
    """
    source = "standard input" if str(path) == STANDARD_INPUT else str(path)
    try:
        if str(path) == STANDARD_INPUT:
            text = stdin.read()
            check_start(source, text[:ENOUGH].encode("utf-8", "surrogateescape"), TableError)
            return _parsed(source, io.StringIO(text, newline=""))
        with open_text(path, TableError, newline="") as stream:
            return _parsed(source, stream)
    except UnicodeDecodeError as e:
        raise TableError(f"{source}: {no_text(path)}; a table is CSV or TSV") from e
    except OSError as e:
        why = "no such file" if isinstance(e, FileNotFoundError) else reason_of(e)
        raise TableError(f"{source}: {why}") from e


def number(text: str) -> float | None:
    """The number that a cell spells, which may be nan or inf; None where it spells none."""
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None


def finite(text: str) -> float | None:
    """The finite number that a cell spells; None where it spells none."""
    value = number(text)
    return value if value is not None and math.isfinite(value) else None


def _parsed(source: str, stream: TextIO) -> Rows:
    lines = iter(stream)
    skipped = 0
    for first in lines:
        if first.strip():
            break
        skipped += 1
    else:
        raise TableError(f"{source}: is empty; a table begins with a line of column names")
    if first.lstrip().startswith(("{", "[")):
        raise TableError(f"{source}: looks like JSON; a table is CSV or TSV: save it as one, as DataFrame.to_csv does")
    reader = csv.reader(chain([first], lines), dialect="excel-tab" if "\t" in first else "excel", strict=True)
    try:
        columns = tuple(name.strip() for name in next(reader))
        if len(columns) == 1 and ";" in first:
            raise TableError(f"{source}: has semicolons between its cells; save it with commas or tabs")
        rows = tuple(
            _row(source, columns, skipped + reader.line_num, cells) for cells in reader if any(map(str.strip, cells))
        )
    except csv.Error as e:
        raise TableError(f"{source}: line {skipped + reader.line_num}: {reason_of(e)}; a table is CSV or TSV") from e
    repeated = sorted(name for name, count in Counter(columns).items() if count > 1)
    if repeated:
        raise TableError(f"{source}: has two columns named {repeated[0]!r}; each needs its own name")
    if not rows:
        raise TableError(f"{source}: has column names but no row")
    return Rows(source, columns, rows)


def _row(source: str, columns: tuple[str, ...], line: int, cells: list[str]) -> Row:
    if len(cells) != len(columns):
        raise TableError(
            f"{source}: line {line}: has {len(cells)} cells where the header names {len(columns)} columns; "
            "is the file whole?"
        )
    return Row(line, {name: cell.strip() for name, cell in zip(columns, cells, strict=True)})
