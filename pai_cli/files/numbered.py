"""Names in the lines of a text as numbers, by the compiled part where the text is plain: nearly every list of edges is."""

from __future__ import annotations

import re
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

SKIPPED = re.compile(rb"(?:[#%][^\n]*+\n|\n)*+")  # lines without an edge, which a text may begin with

MOST_HEAD = 2**16  # bytes of a first line


class Names:
    """The names in plain texts, each once: `known`, by the numbers that they keep from text to text."""

    def __init__(self) -> None:
        self.known: list[str] = []
        self.table = None if compiled is None else compiled.table()

    def learn(self, count: int) -> None:
        """Take over what the table has, which is so many."""
        if count > len(self.known):
            self.known += compiled.names(self.table, len(self.known)).decode().split()


@dataclass(frozen=True, eq=False)
class Numbered:
    """The names of the first two columns of every line. `names`: each once. `ends`: (lines, 2), places in `names`.

    most: cells of a line. heading: the first line where it names the columns, else "". values: the numbers of the third
    column, where they were asked for and all are. third: the first line's third cell, of a text that was read at once.
    """

    names: list[str]
    ends: NDArray[np.int32]
    most: int
    heading: str
    values: NDArray[np.float64] | None = None
    third: str = ""


def numbered(raw: bytes, known: Names, *, apart: bool = False, valued: bool = False) -> Numbered | None:
    """The names in a text of as many cells in every line; None where it is not so plain, or the compiled part is missing.

    `known`: names of other texts, which keep their numbers; those of this one, also where it is not so plain, come after
    them. `apart`: a name of the first column is another than the same in the second. `valued`: the third column holds
    numbers.
    """
    if compiled is None:
        return None
    text = raw.removeprefix(b"\xef\xbb\xbf")
    if b"\r" in text:
        text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    text = text[SKIPPED.match(text).end() :]  # type: ignore[union-attr]  # nothing is a match too
    between = next((sign for sign in (b"\t", b",") if sign in text), b" ")
    first, ended, rest = text[:MOST_HEAD].partition(b"\n")
    cells = first.decode("latin-1").split(between.decode())
    if not ended or len(cells) < 2:
        return None
    headed = {cells[0].lower(), cells[1].lower()} <= HEADS
    if headed and (b'"' in first or not first.isascii()):
        return None
    if headed:
        text, cells = text[len(first) + 1 :], rest.partition(b"\n")[0].decode("latin-1").split(between.decode())
    if not 2 <= len(cells) <= MOST_HEAD:
        return None
    text += b"" if text.endswith(b"\n") else b"\n"
    lines = text.count(b"\n")
    ends = np.empty((lines, 2), dtype=np.int32)
    values = np.empty(lines if valued and len(cells) > 2 else 0)
    signs = np.frombuffer(text, np.uint8)
    count = compiled.number(signs, ends, values, known.table, len(cells), between[0], int(apart))
    if count is None:
        return None
    known.learn(count)
    heading = shown_line(first.decode()) if headed else ""
    third = cells[2] if len(cells) > 2 else ""
    return Numbered(known.known, ends, len(cells), heading, values if len(values) else None, third)


def shown_line(line: str) -> str:
    """A line as a message shows it."""
    return repr(line if len(line) <= 40 else line[:39] + "…")
