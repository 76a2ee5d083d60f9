"""What all results of the library have in common: a table in a terminal and in a notebook, and data for other programs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pai_cli.errors import MissingPackageError
from pai_cli.files.tables import joined
from pai_cli.printable import as_line

if TYPE_CHECKING:
    import pandas as pd

    from pai_cli.files.tables import Record, Value


@dataclass(frozen=True)
class Table:
    """A table for people: some fields of records, under a caption; `total`: the last record stands apart."""

    caption: str
    columns: Sequence[str]
    records: Sequence[Record]
    total: bool = False


class Shown(ABC):
    """A result that shows itself as tables, between lines of text."""

    @abstractmethod
    def _tables(self) -> list[Table | str]:
        """The tables, and lines of text before, between and after them."""

    def __str__(self) -> str:
        from pai_cli.display.tables import table_text

        parts = []
        for part in self._tables():
            if isinstance(part, str):
                parts.append(as_line(part))
            else:
                parts += [as_line(part.caption), table_text(part.columns, part.records, total=part.total)]
        return "\n".join(parts)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """The same for a notebook, escaped."""
        from pai_cli.display.notebook import html_lines, html_table

        parts = []
        for part in self._tables():
            if isinstance(part, str):
                parts.append(html_lines([part]))
            else:
                parts.append(html_table(part.caption, part.columns, part.records, total=part.total))
        return "".join(parts)


def data_frame(records: Sequence[Record], columns: Sequence[str]) -> pd.DataFrame:
    """A pandas table, a row a record; shapes are texts, `16x3x3x3`, as a cell is one value. Raises `MissingPackageError`
    where pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise MissingPackageError(
            "to_pandas() needs pandas: pip install pandas; to_dict() has the same numbers"
        ) from error
    frame: Any = pd.DataFrame.from_records(
        [{name: _cell(record[name]) for name in columns} for record in records], columns=list(columns)
    )
    return frame


def _cell(value: Value) -> Value:
    return joined(value) if isinstance(value, list) else value
