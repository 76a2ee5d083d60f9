"""Whether a text of any kind is a list of edges: prose and ordinary tables have two names a line as well."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from pai_cli.errors import EdgeListError
from pai_cli.files.edge_lists import head_of, lines_of, text_of
from pai_cli.files.numbered import shown_line

LOOKED_AT, MOST = 500, 2**16  # lines and bytes, which tell as much as all
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
FRACTION = re.compile(r"[-+]?\d*\.\d+([eE][-+]?\d+)?")
RENAME = "a list of edges has two names a line, a weight after them or not; of one that is, name the file .edges"


def check_edges(path: Path) -> None:
    """Raise `EdgeListError` for prose (words in a line that no tab or comma parts), for a table (a first line that names
    columns of numbers), and for numbers with fractions where names of vertices would stand.
    """
    with path.open("rb") as stream:
        start = stream.read(MOST)
    text = text_of(start)
    lines = list(islice(lines_of(path, text.rpartition("\n")[0] if len(start) == MOST else text), LOOKED_AT))
    if not lines:
        return  # told where it is read
    _check_prose(path, lines)
    head, *rest = lines
    named = bool(head_of(*head))
    if not named and rest and _names_columns(head[0], [cells for cells, _ in rest]):
        told = shown_line(head[1])
        raise EdgeListError(
            f"{path}: its first line, {told}, names the columns of a table, not of edges; call those of a list of edges "
            "source and target"
        )
    body = [cells for cells, _ in (rest if named else lines)]
    for side in (0, 1):
        if body and all(FRACTION.fullmatch(cells[side]) for cells in body):
            raise EdgeListError(
                f"{path}: column {side + 1} holds numbers with fractions ({body[0][side]}), not names of vertices; {RENAME}"
            )


def _check_prose(path: Path, lines: Sequence[tuple[list[str], str]]) -> None:
    """Lines of a list of edges have as many cells each, and what follows two names without a tab or comma is a weight."""
    counts = {len(cells) for cells, _ in lines}
    for cells, line in lines:
        if "\t" in line:
            continue
        if "," in line:
            prose = len(counts) > 1 and any(" " in cell for cell in cells)
        else:
            odd = len(lines) == 1 or len(counts) > 1 or len(cells) > 3
            prose = odd and not all(map(NUMBER.fullmatch, cells[2:]))
        if prose:
            raise EdgeListError(f"{path}: {shown_line(line)} is a line of words, no edge; {RENAME}")


def _names_columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether a first line has words over a column of numbers."""
    places = range(min(map(len, (head, *rows))))
    return any(NUMBER.fullmatch(head[at]) is None and all(NUMBER.fullmatch(row[at]) for row in rows) for at in places)
