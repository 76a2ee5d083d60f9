"""Graphs as plain lists of edges: two names a line, as gene coexpression networks come."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pai_cli.errors import EdgeListError
from pai_cli.files.first_bytes import first_bytes, no_text, read_whole
from pai_cli.files.numbered import COMMENTS, HEADS, Names, Numbered, numbered, shown_line
from pai_cli.printable import reason_of

SKIPPED = re.compile(r"(?:[#%][^\n]*+\n|\n)*+")  # lines without an edge, which a text may begin with
ODD_SPACES = "\x0b\x0c\x1c\x1d\x1e\x1f"  # of ASCII, beside the blank, the tab and the ends of lines


@dataclass(frozen=True)
class EdgeList:
    """A graph: the edges of its lines, some of them perhaps again or turned around; how many `loops` were left out, and the
    most columns a line has.

    names: of the vertices, each once, and perhaps others. ends: (edges, 2) int32, their places in `names`. `heading` is the
    first line where it was taken for the names of the columns, else "".
    """

    path: Path
    names: list[str]
    ends: NDArray[np.int32]
    loops: int
    columns: int
    heading: str


@dataclass(frozen=True)
class Columns:
    """The first two cells of every line that is no comment and no heading, one after the other; the most cells of a line."""

    names: list[str]
    most: int
    heading: str


def read_edge_list(path: Path, known: Names) -> EdgeList:
    """The graph in a file: a line an edge, two names with tabs between them, or else commas, or else spaces.

    Names may stand in double quotes, as in tables. Empty lines and those that begin with # or % are passed over, and so is a
    first line such as `source target`. More columns are not read. An edge given twice, or in both directions, is one; an
    edge from a vertex to itself joins nothing and is left out. `known`: the names of all files that are read together, most
    of which have the same. Raises `EdgeListError`, which names the line.
    """
    found = cells_of(path, known)
    apart = found.ends[:, 0] != found.ends[:, 1]
    if not apart.any():
        raise EdgeListError(f"{path}: holds no edge; give two names a line, with a tab between")
    loops = int(np.count_nonzero(~apart))
    return EdgeList(path, found.names, found.ends[apart] if loops else found.ends, loops, found.most, found.heading)


def cells_of(path: Path, known: Names) -> Numbered:
    """The names in the first two cells of every line that is no comment and no heading. Raises `EdgeListError`."""
    raw = raw_of(path)
    found = numbered(raw, known)
    if found is not None:
        return found
    text = text_of(raw)
    cells = table(text) or line_by_line(path, text)
    names = list(dict.fromkeys(cells.names))
    places = dict(zip(names, range(len(names)), strict=True))
    ends = np.fromiter(map(places.__getitem__, cells.names), np.int32, len(cells.names)).reshape(-1, 2)
    return Numbered(names, ends, cells.most, cells.heading)


def raw_of(path: Path) -> bytes:
    """The bytes of a list of edges. Raises `EdgeListError`."""
    try:
        if path.is_file() and first_bytes(path).startswith(b"\0"):  # before all of it is read: a copy that has a hole
            raise EdgeListError(f"{path}: {no_text(path)}; a list of edges is plain text")
        return read_whole(path, EdgeListError)
    except OSError as e:
        why = "no such file" if isinstance(e, FileNotFoundError) else reason_of(e)
        raise EdgeListError(f"{path}: {why}") from e


def text_of(raw: bytes) -> str:
    """Its text, every line ended by a newline alone; bytes that are no text as half characters."""
    return raw.decode("utf-8-sig", "surrogateescape").replace("\r\n", "\n").replace("\r", "\n")


def table(text: str) -> Columns | None:
    """The same of a text that has as many in every line, none of them empty, in quotes or with a space; else None.

    Nearly every list of edges is one, and is split at once, a tenth of the time of line by line.
    """
    text = text[SKIPPED.match(text).end() :]  # type: ignore[union-attr]  # nothing is a match too
    text += "" if text.endswith("\n") else "\n"
    between = "\t" if "\t" in text else "," if "," in text else " "
    if '"' in text or any(f"\n{sign}" in text for sign in COMMENTS) or (between != " " and " " in text):
        return None
    if any(sign in text for sign in ODD_SPACES) or not (
        text.isascii() or re.search(r"[^\S\n\t ]|[\udc80-\udcff]", text) is None
    ):
        return None
    signs = np.frombuffer(text.encode(), np.uint8)
    marks = np.flatnonzero((signs == ord(between)) | (signs == ord("\n")))
    line_ends = signs[marks] == ord("\n")
    columns = int(np.argmax(line_ends)) + 1
    whole = len(marks) % columns == 0 and np.all(line_ends.reshape(-1, columns) == (np.arange(columns) == columns - 1))
    if columns < 2 or not whole or marks[0] == 0 or np.any(np.diff(marks) == 1):
        return None
    cells = (text.replace(",", "\n") if between == "," else text).split()
    if columns > 2:
        two: list[str] = [""] * (2 * (len(cells) // columns))
        two[::2], two[1::2] = cells[::columns], cells[1::columns]
        cells = two
    heading = head_of(cells, text.partition("\n")[0])
    if not heading:
        return Columns(cells, columns, "")
    return Columns(cells[2:], columns if len(cells) > 2 else 2, heading)


def line_by_line(path: Path, text: str) -> Columns:
    """The cells of any text. Raises `EdgeListError` for a line that is no edge."""
    names: list[str] = []
    columns, heading = 0, ""
    for cells, line in lines_of(path, text):
        if not columns and (told := head_of(cells, line)):
            columns, heading = 2, told
            continue
        columns = max(columns, len(cells))
        names += cells[:2]
    return Columns(names, columns, heading)


def lines_of(path: Path, text: str) -> Iterator[tuple[list[str], str]]:
    """The cells of every line that is no comment, and the line. Raises `EdgeListError` for one that is no edge."""
    for number, line in _lines(path, text):
        cells = _cells(line)
        if len(cells) < 2 or not cells[0] or not cells[1]:
            raise EdgeListError(
                f"{path}: line {number}: {shown_line(line)} is no edge; give two names, with a tab between"
            )
        yield cells, line


def head_of(cells: list[str], line: str) -> str:
    """A first line that names the columns, as it is told; "" for an edge."""
    return shown_line(line) if {cells[0].lower(), cells[1].lower()} <= HEADS else ""


def _lines(path: Path, text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip() or line.lstrip().startswith(COMMENTS):
            continue
        if any("\udc80" <= sign <= "\udcff" for sign in ([] if line.isascii() else line)):  # bytes that are no text
            raise EdgeListError(f"{path}: line {number}: {no_text(path)}; a list of edges is plain text")
        yield number, line


def _cells(line: str) -> list[str]:
    between = "\t" if "\t" in line else "," if "," in line else None
    if '"' not in line:
        return [cell.strip() for cell in line.split(between)]
    row = csv.reader([line.strip(" ")], delimiter=between or " ", skipinitialspace=True, strict=True)
    try:
        return [cell.strip() for cell in next(row)]
    except csv.Error:  # a quote that does not end
        return []
