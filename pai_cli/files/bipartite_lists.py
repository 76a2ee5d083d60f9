"""Lists of edges of bipartite graphs: a line's first name is a row, its second a column, a number after them a weight."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pai_cli.errors import EdgeListError
from pai_cli.files.edge_lists import head_of, lines_of, raw_of, text_of
from pai_cli.files.numbered import Names, Numbered, numbered

NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
NOT_FINITE = re.compile(r"[-+]?(nan|inf|infinity)", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class BipartiteList:
    """Its edges, each once: row, column and value of each; 1 where there are no weights."""

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    values: NDArray[np.float64]
    shape: tuple[int, int]
    told: str


def read_bipartite(path: Path) -> BipartiteList:
    """The graph in a file. Lines are those of `edge_lists.read_edge_list`; a name may be a row and a column, which are two.

    Where the third cell of every line is a number, it is the edge's weight; other columns are not read. An edge that is
    given again counts once. Raises `EdgeListError`, also for one that is given again with another weight.
    """
    raw = raw_of(path)
    found = numbered(raw, Names(), apart=True, valued=True) or numbered(raw, Names(), apart=True)
    if found is None or (found.values is None and _is_number(found.third)):  # perhaps some are without end
        found = _by_line(path, raw)
    if not len(found.ends):
        raise EdgeListError(f"{path}: holds no edge; give two names a line, with a tab between")
    place, shape = _places(found)
    rows, columns = place[found.ends].T
    values = np.ones(len(rows)) if found.values is None else found.values
    kept, again = _once(path, rows * shape[1] + columns, values)
    told = f"a list of edges: {shape[0]:,} names of the first column are rows, {shape[1]:,} of the second columns"
    if found.heading:
        told += f"; its first line, {found.heading}, names the columns"
    if found.values is None and found.most > 2:
        told += "; columns past the second are no numbers and are not read"
    elif found.most > 3:
        told += "; columns past the third are not read"
    if again:
        told += f"; {again:,} lines tell an edge again, and it counts once"
    return BipartiteList(rows[kept], columns[kept], values[kept], shape, told)


def _places(found: Numbered) -> tuple[NDArray[np.int64], tuple[int, int]]:
    """The place of each name among those of its side, in their order, and how many there are of each."""
    order = sorted(range(len(found.names)), key=found.names.__getitem__)
    second = np.zeros(len(order), dtype=np.bool_)
    second[found.ends[:, 1]] = True
    second = second[order]
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.where(second, np.cumsum(second), np.cumsum(~second)) - 1
    count = int(np.count_nonzero(second))
    return place, (len(order) - count, count)


def _once(path: Path, places: NDArray[np.int64], values: NDArray[np.float64]) -> tuple[NDArray[np.int64], int]:
    """Which lines tell of an edge first, and how many tell of one again."""
    order = np.argsort(places, kind="stable")
    same = np.diff(places[order]) == 0
    apart = same & (np.diff(values[order]) != 0)
    if apart.any():
        first, second = (values[order[np.argmax(apart) + k]] for k in (0, 1))
        raise EdgeListError(f"{path}: tells of one edge twice, with weights {first:g} and {second:g}; keep one of them")
    return order[np.concatenate([[True], ~same])], int(np.count_nonzero(same))


def _by_line(path: Path, raw: bytes) -> Numbered:
    """The same of any text. Raises `EdgeListError` for a line that is no edge."""
    keys: dict[tuple[bool, str], int] = {}
    ends: list[tuple[int, int]] = []
    thirds: list[str] = []
    most, heading = 0, ""
    for cells, line in lines_of(path, text_of(raw)):
        if not most and (told := head_of(cells, line)):
            most, heading = 2, told
            continue
        most = max(most, len(cells))
        first, second = (keys.setdefault((side, cells[side]), len(keys)) for side in (False, True))
        ends.append((first, second))
        thirds += cells[2:3]
    values = _weights(path, thirds) if len(thirds) == len(ends) else None
    return Numbered([name for _, name in keys], np.array(ends, dtype=np.int32).reshape(-1, 2), most, heading, values)


def _weights(path: Path, thirds: list[str]) -> NDArray[np.float64] | None:
    """The third cells as numbers; None where they are something else. Raises `EdgeListError` for numbers without end."""
    if not all(map(_is_number, thirds)):
        return None
    values = np.array([float(one) for one in thirds])
    finite = np.isfinite(values)
    if not finite.any():
        return None
    if not finite.all():
        worst = thirds[int(np.argmin(finite))]
        raise EdgeListError(
            f"{path}: an edge has the weight {worst}; give every edge a finite one, or leave the column out"
        )
    return values


def _is_number(cell: str) -> bool:
    return bool(NUMBER.fullmatch(cell) or NOT_FINITE.fullmatch(cell))
