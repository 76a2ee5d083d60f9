"""Graphs as plain lists of edges: two names a line, as gene coexpression networks come."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pai_cli.errors import EdgeListError
from pai_cli.files.first_bytes import no_text, open_text
from pai_cli.printable import reason_of

COMMENTS = ("#", "%")

HEADS = frozenset((
    *("source", "target", "from", "to", "u", "v", "node1", "node2", "node_1", "node_2", "gene1", "gene2"),
    *("gene_1", "gene_2", "fromnode", "tonode", "vertex1", "vertex2", "protein1", "protein2"),
))  # fmt: skip
"""A first line of two of these names the columns."""

Edge = tuple[str, str]


@dataclass(frozen=True)
class EdgeList:
    """A graph: undirected `edges`, each once; how many `loops` were left out, and the most columns a line has.

    `heading` is the first line where it was taken for the names of the columns, else "".
    """

    path: Path
    edges: frozenset[Edge]
    loops: int
    columns: int
    heading: str


def read_edge_list(path: Path) -> EdgeList:
    """The graph in a file: a line an edge, two names with tabs between them, or else commas, or else spaces.

    Names may stand in double quotes, as in tables. Empty lines and those that begin with # or % are passed over, and so is a
    first line such as `source target`. More columns are not read. An edge given twice, or in both directions, is one; an
    edge from a vertex to itself joins nothing and is left out. Raises `EdgeListError`, which names the line.
    """
    edges: set[Edge] = set()
    loops, columns, heading = 0, 0, ""
    for number, line in _lines(path):
        cells = _cells(line)
        if len(cells) < 2 or not cells[0] or not cells[1]:
            raise EdgeListError(f"{path}: line {number}: {_shown(line)} is no edge; give two names, with a tab between")
        if not columns and {cells[0].lower(), cells[1].lower()} <= HEADS:
            columns, heading = 2, _shown(line)
            continue
        columns = max(columns, len(cells))
        first, second = cells[0], cells[1]
        if first == second:
            loops += 1
        else:
            edges.add((first, second) if first < second else (second, first))
    if not edges:
        raise EdgeListError(f"{path}: holds no edge; give two names a line, with a tab between")
    return EdgeList(path, frozenset(edges), loops, columns, heading)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with open_text(path, EdgeListError, errors="surrogateescape") as stream:
            yield from _told(path, stream)
    except OSError as e:
        why = "no such file" if isinstance(e, FileNotFoundError) else reason_of(e)
        raise EdgeListError(f"{path}: {why}") from e


def _told(path: Path, stream: Iterable[str]) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(stream, start=1):
        if any("\udc80" <= sign <= "\udcff" for sign in ([] if line.isascii() else line)):  # bytes that are no text
            raise EdgeListError(f"{path}: line {number}: {no_text(path)}; a list of edges is plain text")
        text = line.rstrip("\r\n")
        if text.strip() and not text.lstrip().startswith(COMMENTS):
            yield number, text


def _cells(line: str) -> list[str]:
    between = "\t" if "\t" in line else "," if "," in line else None
    if '"' not in line:
        return [cell.strip() for cell in line.split(between)]
    row = csv.reader([line.strip(" ")], delimiter=between or " ", skipinitialspace=True, strict=True)
    try:
        return [cell.strip() for cell in next(row)]
    except csv.Error:  # a quote that does not end
        return []


def _shown(line: str) -> str:
    return repr(line if len(line) <= 40 else line[:39] + "…")
