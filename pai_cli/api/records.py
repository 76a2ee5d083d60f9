"""Tables as a program has them: files, pandas tables, records, or numbers by name, as rows of text with their places."""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pai_cli.errors import TableError

if TYPE_CHECKING:
    from pai_cli.files.rows import Rows


def is_table(given: Any) -> bool:
    """Whether it is a table and no masks: a path, a pandas table, or records, whose values are no arrays."""
    if isinstance(given, str | PathLike) or _is_frame(given):
        return True
    records = [given] if isinstance(given, Mapping) else given
    if not isinstance(records, Sequence) or not records:
        return False
    return all(
        isinstance(one, Mapping) and not any(hasattr(value, "shape") for value in one.values()) for one in records
    )


def path_of(given: Any) -> Path | None:
    """The file that a table is read from; None for one in memory."""
    return Path(given) if isinstance(given, str | PathLike) else None


def rows_of(given: Any, name: str) -> Rows:
    """A table's rows; `name`: what messages call one in memory. Raises `TableError`."""
    from pai_cli.files.rows import read_rows

    path = path_of(given)
    if path is not None:
        return read_rows(path, sys.stdin or io.StringIO())
    if _is_frame(given):
        given = given.to_dict(orient="records")
    if isinstance(given, Mapping):
        given = _turned(given, name)
    records = list(given) if isinstance(given, Iterable) else [given]
    if not records or not all(isinstance(one, Mapping) for one in records):
        raise TableError(f"{name}: give a path, a pandas table, columns, or a record a row")
    return _rows(records, name)


def accuracy_rows(given: Any, names: Sequence[str]) -> Rows:
    """Accuracies as rows with columns mask and accuracy, or more. `names`: of the masks, for one number a mask."""
    source = "accuracies"
    if path_of(given) is not None or _is_frame(given):
        return rows_of(given, source)
    if isinstance(given, Mapping):
        by_name = [(name, values if _is_row(values) else [values]) for name, values in given.items()]
        return _rows([{"mask": name, "accuracy": value} for name, values in by_name for value in values], source)
    values = list(given) if _is_row(given) else [given]
    if any(isinstance(value, Mapping) for value in values):
        return rows_of(values, source)
    if len(values) != len(names):
        raise TableError(f"{source}: {len(values)} of them for {len(names)} masks; give one a mask, in their order")
    if len(set(names)) < len(names):
        again = next(name for at, name in enumerate(names) if name in names[:at])
        raise TableError(f"{source}: two masks are called {again!r}; measure them together, or give them names")
    return _rows([{"mask": name, "accuracy": value} for name, value in zip(names, values, strict=True)], source)


def _is_frame(given: Any) -> bool:
    return hasattr(given, "columns") and hasattr(given, "to_dict")


def _is_row(given: Any) -> bool:
    return isinstance(given, Iterable) and not isinstance(given, str | bytes | Mapping)


def _turned(columns: Mapping[Any, Any], name: str) -> list[dict[Any, Any]]:
    rows = {column: list(values) if _is_row(values) else [values] for column, values in columns.items()}
    if len({len(values) for values in rows.values()}) != 1:
        raise TableError(f"{name}: its columns have different lengths, or there are none")
    return [dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True)]


def _rows(records: Sequence[Mapping[Any, Any]], source: str) -> Rows:
    from pai_cli.files.rows import Row, Rows

    columns = tuple(dict.fromkeys(str(column) for one in records for column in one))
    if not records:
        raise TableError(f"{source}: has no row")
    texts = [{str(column): _cell(value) for column, value in one.items()} for one in records]
    rows = [Row(at, {column: one.get(column, "") for column in columns}) for at, one in enumerate(texts, start=1)]
    return Rows(source, columns, tuple(rows))


def _cell(value: Any) -> str:
    """A value as a cell has it: all digits of a number, nothing for what is missing."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value.strip()
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    if math.isnan(number):
        return ""
    return str(int(number)) if number.is_integer() and abs(number) < 2**53 else repr(number)
