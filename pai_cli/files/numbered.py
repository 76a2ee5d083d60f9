"""Names in the lines of a text as numbers, by the compiled part where the text is plain: nearly every list of edges is."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

compiled: Any
try:
    compiled = import_module("pai_cli.files._lines")
except ImportError:  # installed without a compiler
    compiled = None

COMMENTS = ("#", "%")

HEADS = frozenset((
    *("source", "target", "from", "to", "u", "v", "node1", "node2", "node_1", "node_2", "gene1", "gene2"),
    *("gene_1", "gene_2", "fromnode", "tonode", "vertex1", "vertex2", "protein1", "protein2"),
))  # fmt: skip
"""A first line of two of these names the columns."""

SKIPPED = tuple(sign.encode() for sign in (*COMMENTS, "\n"))  # how a line without an edge begins

MOST_HEAD = 2**16  # bytes of a first line


@dataclass(frozen=True, eq=False)
class Numbered:
    """The names of the first two columns of every line. `names`: each once, in order. `ends`: (lines, 2), places in `names`.

    most: cells of a line. heading: the first line where it names the columns, else "". second: of names that are apart,
    which are of the second column. values: the numbers of the third column, where they were asked for and all are.
    """

    names: list[str]
    ends: NDArray[np.int64]
    most: int
    heading: str
    second: NDArray[np.bool_] | None = None
    values: NDArray[np.float64] | None = None


def numbered(raw: bytes, *, apart: bool = False, valued: bool = False) -> Numbered | None:
    """The names in a text of as many cells in every line; None where it is not so plain, or the compiled part is missing.

    `apart`: a name of the first column is another than the same in the second. `valued`: the third column holds numbers.
    """
    if compiled is None:
        return None
    text = raw.removeprefix(b"\xef\xbb\xbf")
    if b"\r" in text:
        text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    while text.startswith(SKIPPED):
        text = text.partition(b"\n")[2]
    between = next((sign for sign in (b"\t", b",") if sign in text), b" ")
    first, ended, rest = text[:MOST_HEAD].partition(b"\n")
    cells = first.decode("latin-1").split(between.decode())
    if not ended or len(cells) < 2:
        return None
    headed = {cells[0].lower(), cells[1].lower()} <= HEADS
    if headed:
        text, cells = text[len(first) + 1 :], rest.partition(b"\n")[0].decode("latin-1").split(between.decode())
    text += b"" if text.endswith(b"\n") else b"\n"
    found = _numbered(text, between, len(cells), apart=apart, valued=valued and len(cells) > 2)
    if found is None:
        return None
    names, ends, second, values = found
    heading = shown_line(first.decode()) if headed else ""
    return Numbered(names, ends, len(cells) if len(ends) or not headed else 2, heading, second, values)


def shown_line(line: str) -> str:
    """A line as a message shows it."""
    return repr(line if len(line) <= 40 else line[:39] + "…")


def _numbered(
    text: bytes, between: bytes, columns: int, *, apart: bool, valued: bool
) -> tuple[list[str], NDArray[np.int64], NDArray[np.bool_] | None, NDArray[np.float64] | None] | None:
    lines = text.count(b"\n")
    if not 2 <= columns <= MOST_HEAD or lines >= 2**30:
        return None
    numbers = np.empty((lines, 2), dtype=np.int32)
    places = np.empty((2 * lines, 2), dtype=np.int64)  # of which the pages of what is not used are none of memory
    values = np.empty(lines if valued else 0)
    count = compiled.number(np.frombuffer(text, np.uint8), numbers, places, values, columns, between[0], int(apart))
    if count is None:
        return None
    begins, told = places[:count, 0].tolist(), places[:count, 1]
    lengths = (told >> 1).tolist()
    names = [text[begin : begin + length].decode() for begin, length in zip(begins, lengths, strict=True)]
    order = sorted(range(count), key=names.__getitem__)
    rank = np.empty(count, dtype=np.int64)
    rank[order] = np.arange(count)
    second = (told & 1).astype(np.bool_)[order] if apart else None
    return [names[k] for k in order], rank[numbers], second, values if valued else None
