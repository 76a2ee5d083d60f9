"""A bipartite graph from the entries of a sparse matrix, which is never made whole."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from pai_cli.errors import ArrayError
from pai_cli.spectral.compiled import calls
from pai_cli.spectral.graph import Array, BipartiteGraph, LeftClasses
from pai_cli.spectral.validation import Entries

MOST_ENTRIES = 2**31
"""Of the matrix without its empty rows and columns, up to which a graph is kept as bits, too: 256 MiB."""
MOST_DENSE = 2**28
"""Of such a matrix where it has to be made whole: for LAPACK, and where the compiled part is missing. 2 GiB in float64."""


class SparseGraph(BipartiteGraph):
    """`BipartiteGraph` of a sparse matrix: the same graph, with the same answers. Weights are the entries' absolute values.

    With more places than `MOST_ENTRIES` it is lists of edges and nothing else. Raises `ArrayError` for more than
    `MOST_DENSE` where the compiled part, which works on lists, is missing.
    """

    def __init__(self, entries: Entries):
        self.xp = np
        self.weights = self.place = None
        self.n_R0, self.n_L0 = entries.shape
        self.compiled = calls.available()
        self.edges = len(entries.values)
        by_row, by_column = (
            np.bincount(at, minlength=side)
            for at, side in zip((entries.rows, entries.columns), entries.shape, strict=True)
        )
        self.right_degrees, degrees = by_row[by_row > 0], by_column[by_column > 0]
        self.n_R, self.n_L = len(self.right_degrees), len(degrees)
        self.packed = self.compiled and self.n_L * self.n_R <= MOST_ENTRIES
        if not self.compiled and self.n_L * self.n_R > MOST_DENSE:
            raise ArrayError(
                f"the matrix: {self.n_R:,} rows and {self.n_L:,} columns with entries, more than {MOST_DENSE:,} places, "
                "which the compiled part of the engine alone takes: install pai where there is a C compiler, or take a part"
            )
        order = np.argsort(degrees, kind="stable")
        self.left_degrees = degrees[order]
        # Entries stand by columns: lists change places as wholes.
        begins = np.cumsum(degrees) - degrees
        moved = begins[order] - (np.cumsum(self.left_degrees) - self.left_degrees)
        source = np.arange(self.edges) + np.repeat(moved, self.left_degrees)
        self._right = (np.cumsum(by_row > 0, dtype=np.int32) - np.int32(1))[entries.rows[source]]
        self._values = np.abs(entries.values[source])
        if self.packed:
            self.bits = self._as_bits()

    def _as_bits(self) -> calls.Bits:
        words = -(-self.n_R // 64)
        bits = np.zeros(self.n_L * words, dtype=np.uint64)
        if self.edges:
            where = self._left * words + self._right // 64
            first = np.flatnonzero(np.diff(where, prepend=-1))
            flags = np.uint64(1) << (self._right % 64).astype(np.uint64)
            bits[where[first]] = np.bitwise_or.reduceat(flags, first)
        return bits.reshape(self.n_L, words)

    @property
    def listed(self) -> bool:
        """Whether there are lists of edges and no bits."""
        return self.compiled and not self.packed

    @property
    def may_be_dense(self) -> bool:
        """Whether the matrix may be made whole, for LAPACK."""
        return self.n_L * self.n_R <= MOST_DENSE

    @property
    def is_sparse(self) -> bool:
        """Weighted edges stay lists, as they came."""
        return True

    @cached_property
    def incidence(self) -> Array:
        """The 0/1 matrix, transposed: (n_L, n_R) float32, rows sorted by degree."""
        return self._whole(np.ones(self.edges, dtype=np.float32))

    @cached_property
    def weighted(self) -> Array:
        """The absolute values, transposed and sorted as `incidence`: (n_L, n_R) float64."""
        return self._whole(self._values)

    @cached_property
    def edge_lists(self) -> calls.EdgeLists:
        """The absolute values as lists, left vertices sorted by degree."""
        begin = np.concatenate([[0], np.cumsum(self.left_degrees)]).astype(np.int64)
        return calls.EdgeLists(begin, self._right, self._values, self.n_R)

    @property
    def _left(self) -> Array:
        return np.repeat(np.arange(self.n_L), self.left_degrees)

    @cached_property
    def left_classes(self) -> LeftClasses:
        """The left vertices grouped by degree."""
        if not self.listed:
            return super().left_classes
        begin = np.flatnonzero(np.diff(self.left_degrees, prepend=-1))
        end = np.append(begin[1:], self.n_L)
        starts = self.edge_lists.begin
        n_R = [len(np.unique(self._right[starts[a] : starts[b]])) for a, b in zip(begin, end, strict=True)]
        return LeftClasses(self.left_degrees[begin], begin, end, np.array(n_R, dtype=np.int64))

    @cached_property
    def components(self) -> int:
        """Connected components among the vertices that have an edge."""
        if not self.listed:
            return super().components
        from scipy.sparse import csr_array
        from scipy.sparse.csgraph import connected_components

        lists = self.edge_lists
        begin = np.concatenate([lists.begin, np.full(self.n_R, self.edges, dtype=np.int64)])
        nodes = self.n_L + self.n_R
        edges = csr_array((lists.value, lists.neighbour + np.int32(self.n_L), begin), shape=(nodes, nodes))
        return int(connected_components(edges, directed=False, return_labels=False))

    def _whole(self, values: Array) -> Array:
        if not self.may_be_dense:
            raise ArrayError(
                f"the matrix: {self.n_R:,} rows and {self.n_L:,} columns with entries are too many for LAPACK, which takes "
                "no sparse matrix; leave the solver to choose, or take a part of it"
            )
        matrix = np.zeros((self.n_L, self.n_R), dtype=values.dtype)
        matrix[self._left, self._right] = values
        return matrix
