"""A bipartite graph from the entries of a sparse matrix, which is never made whole."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from pai_cli.errors import ArrayError
from pai_cli.spectral.compiled import calls
from pai_cli.spectral.graph import Array, BipartiteGraph
from pai_cli.spectral.validation import Entries

MOST_ENTRIES = 2**31
"""Of the matrix without its empty rows and columns: a graph is kept as bits, which are then 256 MiB."""
MOST_DENSE = 2**28
"""Of such a matrix where it has to be made whole: for LAPACK, and where the compiled part is missing. 2 GiB in float64."""


class SparseGraph(BipartiteGraph):
    """`BipartiteGraph` of a sparse matrix: the same graph, with the same answers. Weights are the entries' absolute values.

    Raises `ArrayError` for more entries, zeros among them, than are taken.
    """

    def __init__(self, entries: Entries):
        self.xp = np
        self.weights = self.place = None
        self.n_R0, self.n_L0 = entries.shape
        self.packed = calls.available()
        self.edges = len(entries.values)
        live_rows, rows = np.unique(entries.rows, return_inverse=True)
        live_columns, columns, degrees = np.unique(entries.columns, return_inverse=True, return_counts=True)
        self.n_R, self.n_L = len(live_rows), len(live_columns)
        most = MOST_ENTRIES if self.packed else MOST_DENSE
        if self.n_L * self.n_R > most:
            raise ArrayError(
                f"the matrix: {self.n_R:,} rows and {self.n_L:,} columns with entries, more than {most:,} places; "
                "take a part of it"
            )
        order = np.argsort(degrees, kind="stable")
        self.left_degrees = degrees[order].astype(np.int64)
        self.right_degrees = np.bincount(rows.reshape(-1), minlength=self.n_R)
        place = np.empty(self.n_L, dtype=np.int64)
        place[order] = np.arange(self.n_L)
        left = place[columns.reshape(-1)]
        by_left = np.lexsort((rows.reshape(-1), left))
        self._left = left[by_left]
        self._right = rows.reshape(-1)[by_left].astype(np.int64)
        self._values = np.abs(entries.values[by_left])
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
        return calls.EdgeLists(begin, self._right.astype(np.int32), self._values, self.n_R)

    def _whole(self, values: Array) -> Array:
        if not self.may_be_dense:
            raise ArrayError(
                f"the matrix: {self.n_R:,} rows and {self.n_L:,} columns with entries are too many for LAPACK, which takes "
                "no sparse matrix; leave the solver to choose, or take a part of it"
            )
        matrix = np.zeros((self.n_L, self.n_R), dtype=values.dtype)
        matrix[self._left, self._right] = values
        return matrix
