"""A layer as a bipartite graph: columns (inputs) on the left, rows (outputs) on the right, an edge a kept weight."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from array_api_compat import array_namespace, device, is_numpy_array

from pai_cli.spectral.layout import PLAIN, Layout

Array = Any  # a NumPy array or a torch tensor; the engine is written once against the array API

EXACT_FLOAT32 = 2**24  # integers up to here are exact in float32, so counts of edges may be kept in it


def unroll(tensor: Array, layout: Layout = PLAIN) -> Array:
    """The matrix of `out` rows and `in * prod(kernel)` columns that a weight (or its mask) unrolls to.

    `tensor`: (out, in/groups, *kernel), or (in, out/groups, *kernel) when `layout.transposed`. A grouped convolution
    gives the block-diagonal matrix of its groups. Raises `ValueError` for fewer than two dimensions or when `groups`
    does not divide the first.
    """
    xp = array_namespace(tensor)
    if tensor.ndim < 2:
        raise ValueError(f"a weight of shape {tuple(tensor.shape)} has no rows and columns")
    groups, first = layout.groups, tensor.shape[0]
    if first % groups:
        raise ValueError(f"{groups} groups do not divide the {first} channels of shape {tuple(tensor.shape)}")
    blocks = xp.reshape(tensor, (groups, first // groups, *tensor.shape[1:]))
    if layout.transposed:
        blocks = xp.permute_dims(blocks, (0, 2, 1, *range(3, blocks.ndim)))
    per_group = blocks.shape[1]
    blocks = xp.reshape(blocks, (groups, per_group, -1))
    if groups == 1:
        return blocks[0, :, :]
    width = blocks.shape[2]
    matrix = xp.zeros((groups * per_group, groups * width), dtype=tensor.dtype, device=device(tensor))
    for g in range(groups):
        matrix[g * per_group : (g + 1) * per_group, g * width : (g + 1) * width] = blocks[g, :, :]
    return matrix


@dataclass(frozen=True)
class LeftClass:
    """The left vertices of one degree: columns `begin` to `end` of the graph's sorted order."""

    degree: int
    begin: int
    end: int


@dataclass(frozen=True)
class Counts:
    """A graph's sizes: all that metrics need to know besides singular values.

    n_L0, n_R0: all columns and all rows; n_L, n_R: those with an edge; edges: kept weights; components: connected
    components among the vertices with an edge.
    """

    n_L0: int
    n_R0: int
    n_L: int
    n_R: int
    edges: int
    components: int

    @property
    def d_L(self) -> float:
        """Mean degree of the left vertices that have an edge (0 without any)."""
        return self.edges / self.n_L if self.n_L else 0.0

    @property
    def d_R(self) -> float:
        """Mean degree of the right vertices that have an edge (0 without any)."""
        return self.edges / self.n_R if self.n_R else 0.0

    @property
    def size(self) -> int:
        """Entries of the matrix, kept or not."""
        return self.n_L0 * self.n_R0


class BipartiteGraph:
    """A layer's graph without its isolated vertices, its left vertices sorted by degree.

    `mask`: (rows, columns), boolean or 0/1. `weights`: the same shape, real; only absolute values matter
    (`A = abs(W) * M`). Prepared once; questions about it are asked of `singular` and `regular`.

    n_L0, n_R0: all columns and rows; n_L, n_R: those with an edge; edges: the number of kept weights.
    """

    def __init__(self, mask: Array, weights: Array | None = None):
        if mask.ndim != 2:
            raise ValueError(f"a bipartite graph needs a matrix, not shape {tuple(mask.shape)}")
        if weights is not None and tuple(weights.shape) != tuple(mask.shape):
            raise ValueError(f"weights of shape {tuple(weights.shape)} for a mask of {tuple(mask.shape)}")
        self.xp = xp = array_namespace(mask)
        self.n_R0, self.n_L0 = int(mask.shape[0]), int(mask.shape[1])
        if max(self.n_R0, self.n_L0) >= EXACT_FLOAT32:
            raise ValueError(f"a side of {max(self.n_R0, self.n_L0):,} vertices is past exact float32 counts")
        left = _degrees(xp, mask, axis=0)
        right = _degrees(xp, mask, axis=1)
        order = xp.argsort(left, stable=True)
        isolated = int(xp.sum(xp.astype(left == 0, xp.int64)))
        self._columns = order[isolated:]
        self._rows = xp.nonzero(right)[0]
        self.left_degrees = xp.take(left, self._columns)
        self.right_degrees = xp.take(right, self._rows)
        self.n_L, self.n_R = int(self._columns.shape[0]), int(self._rows.shape[0])
        self.edges = int(xp.sum(left))
        self._mask, self._weights = mask, weights
        self.answers: dict[Any, Any] = {}  # what was asked before, kept by `singular`

    @cached_property
    def counts(self) -> Counts:
        """The graph's sizes, without its arrays."""
        return Counts(self.n_L0, self.n_R0, self.n_L, self.n_R, self.edges, self.components)

    @property
    def has_weights(self) -> bool:
        """Whether `weights` were given."""
        return self._weights is not None

    @cached_property
    def incidence(self) -> Array:
        """The 0/1 matrix, transposed: (n_L, n_R) float32, rows sorted by degree so that a class is a slice."""
        return self.xp.astype(self._live(self._mask) != 0, self.xp.float32)

    @cached_property
    def weighted(self) -> Array:
        """`abs(W) * M`, transposed and sorted as `incidence`: (n_L, n_R) float64."""
        if self._weights is None:
            raise ValueError("this graph was prepared without weights")
        weights = self.xp.astype(self._live(self._weights), self.xp.float64)
        return self.xp.abs(weights) * self.xp.astype(self.incidence, self.xp.float64)

    def _live(self, matrix: Array) -> Array:
        xp = self.xp
        if self.n_R != self.n_R0:
            matrix = xp.take(matrix, self._rows, axis=0)
        return xp.take(matrix.T, self._columns, axis=0)

    @cached_property
    def left_classes(self) -> tuple[LeftClass, ...]:
        """The left vertices grouped by degree, in increasing order of degree."""
        degrees, counts = self.xp.unique_counts(self.left_degrees)
        classes, begin = [], 0
        for degree, count in zip(degrees.tolist(), counts.tolist(), strict=True):
            classes.append(LeftClass(degree, begin, begin + count))
            begin += count
        return tuple(classes)

    @cached_property
    def gram(self) -> Array:
        """Gram matrix of the smaller side, float32 and exact: entry (i, j) counts the neighbours i and j share."""
        return smaller_gram(self.incidence)

    @cached_property
    def components(self) -> int:
        """Connected components among the vertices that have an edge (0 for an empty graph)."""
        if self.edges == 0:
            return 0
        shared = self.gram > 0
        if bool(self.xp.any(self.xp.all(shared, axis=1))):
            return 1  # one vertex shares a neighbour with every other of its side
        from scipy.sparse import csr_array
        from scipy.sparse.csgraph import connected_components

        return int(connected_components(csr_array(_host(shared)), directed=False, return_labels=False))


def smaller_gram(matrix: Array) -> Array:
    """`X X^T` or `X^T X`, whichever is the smaller, in the matrix's own precision.

    Both factors are one array, so that the product is symmetric and BLAS does half the work.
    """
    return matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix


def _degrees(xp: Any, mask: Array, axis: int) -> Array:
    """Edges a column (`axis` 0) or a row (`axis` 1), as int64."""
    if is_numpy_array(mask):
        return xp.astype(xp.count_nonzero(mask, axis=axis), xp.int64)
    return xp.sum(xp.astype(mask != 0, xp.int64), axis=axis)


def _host(array: Array) -> Array:
    """The array in this machine's own memory, for libraries that know NumPy only."""
    return array if is_numpy_array(array) else array.cpu().numpy()
