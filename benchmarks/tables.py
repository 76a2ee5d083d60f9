"""Plain aligned tables, printed a row at a time so that a long run shows what it has."""

from __future__ import annotations

from collections.abc import Sequence

Cell = str | float | None

LEFT = "<"


class Table:
    """Columns as a heading, a width and a format.

    The format is that of numbers (`.3f`), with an `x` behind it for a ratio, or LEFT for a column of text. None prints as
    a dash.
    """

    def __init__(self, columns: Sequence[tuple[str, int, str]]):
        self._columns = [(heading, max(len(heading), width), spec) for heading, width, spec in columns]

    def head(self) -> None:
        """Print the headings."""
        self.row(*(heading for heading, _, _ in self._columns))

    def row(self, *cells: Cell) -> None:
        """Print a row."""
        texts = []
        for cell, (_, width, spec) in zip(cells, self._columns, strict=True):
            text = _text(cell, spec)
            texts.append(text.ljust(width) if spec == LEFT else text.rjust(width))
        print("  ".join(texts).rstrip(), flush=True)


def _text(cell: Cell, spec: str) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, str):
        return cell
    return format(cell, spec.removesuffix("x")) + ("x" if spec.endswith("x") else "")
