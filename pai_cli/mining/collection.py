"""Many graphs over the same vertices, as what is mined: every edge once, with the set of graphs that hold it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
Labels = Callable[[Indices], list[str]]


@dataclass(frozen=True, eq=False)
class Collection:
    """Graphs whose edges are counted.

    `names`: one a graph. `ends`: (edges, 2) vertices of each edge, equal for a loop. `holders`: (edges, bytes) uint8, bit
    g of the little-endian row is set where graph g holds the edge. `groups`: which of `group_names` each edge is of (a
    layer of a network). `labels` gives edges their names. `possible`: how many edges each group could have.
    """

    names: tuple[str, ...]
    ends: Indices
    holders: NDArray[np.uint8]
    groups: NDArray[np.int32]
    group_names: tuple[str, ...]
    possible: tuple[int, ...]
    labels: Labels

    @property
    def edges(self) -> int:
        """How many edges any graph has."""
        return len(self.ends)

    def held_by(self, graph: int) -> NDArray[np.bool_]:
        """Which edges a graph has."""
        held: NDArray[np.bool_] = (self.holders[:, graph // 8] >> (graph % 8) & 1).astype(np.bool_)
        return held


def empty_holders(edges: int, graphs: int) -> NDArray[np.uint8]:
    """Sets of graphs, one an edge, all empty."""
    return np.zeros((edges, -(-graphs // 8)), np.uint8)


def add_holder(holders: NDArray[np.uint8], edges: Indices | NDArray[np.bool_], graph: int) -> None:
    """Say that a graph holds these edges (indices, each once, or flags)."""
    holders[edges, graph // 8] |= np.uint8(1 << graph % 8)


def bits(number: int) -> Iterator[int]:
    """The positions of the bits of an integer, lowest first: the members of a set that is kept as one."""
    while number:
        lowest = number & -number
        yield lowest.bit_length() - 1
        number ^= lowest
