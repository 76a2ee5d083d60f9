"""How a command's tables look: their format, which columns they have, and what orders their rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from pai_cli.errors import UsageError
from pai_cli.files.messages import some_names
from pai_cli.files.ordering import natural_order
from pai_cli.files.tables import Format, Value
from pai_cli.spelling import option

Row = TypeVar("Row", bound=Mapping[str, Any])  # a record, perhaps with more

NAMED = 40  # columns that a message lists


@dataclass(frozen=True)
class Look:
    """A format, and what was chosen of a table.

    `header`: whether CSV and TSV have a line of names. `columns`: those asked for, none for the usual ones. `key`: the
    column that orders the rows, "" for as they come; `descending`: whether the largest is first.
    """

    kind: Format = Format.TABLE
    header: bool = True
    columns: tuple[str, ...] = ()
    key: str = ""
    descending: bool = False

    @staticmethod
    def of(
        kind: Format,
        fields: Sequence[str],
        columns: str | Iterable[str] | None,
        sort: str | None,
        *,
        header: bool = True,
        also: Mapping[str, str] | None = None,
    ) -> Look:
        """What a caller says of it. `columns`: names or globs of `fields`, a text with commas or several; `sort`: one of
        `fields`, after a `-` for the largest first. `also`: other names of fields. Raises `UsageError` for what names no
        field.
        """
        other = also or {}
        descending = sort is not None and sort.startswith("-")
        key = "" if sort is None else sort.removeprefix("-").strip()
        key = other.get(key, key)
        if sort is not None and key not in fields:
            raise _unknown("sort", sort, key, fields)
        return Look(kind, header, _chosen(columns, fields, other), key, descending)

    def shown(self, usual: Sequence[str]) -> Sequence[str]:
        """The columns asked for, or the usual ones."""
        return self.columns or usual

    def needed(self, usual: Sequence[str]) -> Sequence[str]:
        """The columns that are shown, and the one that orders."""
        return tuple(dict.fromkeys((*self.shown(usual), *filter(None, [self.key]))))

    def ordered(self, records: Sequence[Row], *, total: bool = False) -> list[Row]:
        """The rows in order, those without a value last; with `total` the last record stays last."""
        if not self.key:
            return list(records)
        rows = list(records[:-1] if total else records)
        there = [row for row in rows if row[self.key] is not None]
        there.sort(key=lambda row: _place(row[self.key]), reverse=self.descending)
        missing = [row for row in rows if row[self.key] is None]
        return [*there, *missing, *(records[-1:] if total else ())]


USUAL = Look()
"""A table for people, as it comes."""


def _chosen(columns: str | Iterable[str] | None, fields: Sequence[str], other: Mapping[str, str]) -> tuple[str, ...]:
    """The fields that names and globs mean, in the order of those, each once."""
    if columns is None:
        return ()
    given = [name.strip() for name in (columns.split(",") if isinstance(columns, str) else columns)]
    names = [other.get(name, name) for name in given]
    found: list[str] = []
    for name in names:
        meant = [name] if name in fields else [field for field in fields if fnmatchcase(field, name)]
        if not meant:
            raise _unknown("columns", name, name, fields)
        found += meant
    if not found:
        raise UsageError(f"{option('columns')}: names no column; there are {some_names(fields, NAMED)}")
    return tuple(dict.fromkeys(found))


def _unknown(parameter: str, given: str, name: str, fields: Sequence[str]) -> UsageError:
    close = get_close_matches(name, fields, n=3)
    meant = f"did you mean {' or '.join(close)}? " if close else ""
    return UsageError(f"{option(parameter, given)}: no such column; {meant}there are {some_names(fields, NAMED)}")


def _place(value: Value) -> tuple[int, Any]:
    """Where a value stands among others: numbers, then texts as a person orders them, then shapes."""
    if isinstance(value, bool | int | float):
        return (0, value)
    if isinstance(value, list):
        return (2, value)
    return (1, natural_order(value if isinstance(value, str) else " ".join(value or ())))
