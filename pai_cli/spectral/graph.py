"""A layer as a bipartite graph: columns (inputs) on the left, rows (outputs) on the right, an edge a kept weight."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import device, is_numpy_array, is_torch_array

from pai_cli.errors import ArrayError
from pai_cli.spectral.compiled import calls
from pai_cli.spectral.layout import PLAIN, Layout
from pai_cli.spectral.namespaces import array_namespace
from pai_cli.spectral.result import Ints
from pai_cli.spectral.validation import plain_array, real_weights, zero_one

Numbers = Any  # an int or a float, or an array with an entry a graph

Array = Any  # a NumPy array or a torch tensor; the engine is written once against the array API

LISTED_DENSITY, LISTED_SIZE = 0.25, 2**23  # weighted edges are kept as lists up to this density, or to so many entries

STEPS = 4  # to and fro that connect a layer, where it is connected: two are the rule


def unroll(tensor: Array, layout: Layout = PLAIN) -> Array:
    """The matrix of `out` rows and `in * prod(kernel)` columns that a weight (or its mask) unrolls to.

    `tensor`: (out, in/groups, *kernel), or (in, out/groups, *kernel) when `layout.transposed`; the kernel stands first when
    `layout.kernel_first`. A grouped convolution gives the block-diagonal matrix of its groups. Raises `ArrayError` for what
    is no array, for fewer than two dimensions, for a stack, and when `groups` does not divide the first.
    """
    tensor = plain_array(tensor, "the layer")
    xp = array_namespace(tensor)
    if tensor.ndim < 2:
        raise ArrayError(f"a weight of shape {tuple(tensor.shape)} has no rows and columns")
    if layout.stacked:
        raise ArrayError(
            f"a stack of matrices, of shape {tuple(tensor.shape)}, is no matrix; give one of them at a time"
        )
    if layout.kernel_first:
        last = tensor.ndim - 1
        tensor = xp.permute_dims(tensor, (last, last - 1, *range(last - 1)))
    groups, first = layout.groups, tensor.shape[0]
    if first % groups:
        raise ArrayError(f"{groups} groups do not divide the {first} channels of shape {tuple(tensor.shape)}")
    if groups == 1 and not layout.transposed:
        return xp.reshape(tensor, (first, math.prod(tensor.shape[1:])))
    blocks = xp.reshape(tensor, (groups, first // groups, *tensor.shape[1:]))
    if layout.transposed:
        blocks = xp.permute_dims(blocks, (0, 2, 1, *range(3, blocks.ndim)))
    per_group, width = blocks.shape[1], math.prod(blocks.shape[2:])
    blocks = xp.reshape(blocks, (groups, per_group, width))
    if groups == 1:
        return blocks[0, :, :]
    matrix = xp.zeros((groups * per_group, groups * width), dtype=tensor.dtype, device=device(tensor))
    for g in range(groups):
        matrix[g * per_group : (g + 1) * per_group, g * width : (g + 1) * width] = blocks[g, :, :]
    return matrix


class Counts(NamedTuple):
    """A graph's sizes, all that metrics need to know besides singular values: of one graph, or in arrays of many.

    n_L0, n_R0: all columns and all rows; n_L, n_R: those with an edge; edges: kept weights; components: connected
    components among the vertices with an edge.
    """

    n_L0: Numbers
    n_R0: Numbers
    n_L: Numbers
    n_R: Numbers
    edges: Numbers
    components: Numbers

    @property
    def d_L(self) -> Numbers:
        """Mean degree of the left vertices that have an edge (0 without any)."""
        return self.edges / (self.n_L + (self.n_L == 0))

    @property
    def d_R(self) -> Numbers:
        """Mean degree of the right vertices that have an edge (0 without any)."""
        return self.edges / (self.n_R + (self.n_R == 0))

    @property
    def size(self) -> Numbers:
        """Entries of the matrix, kept or not."""
        return self.n_L0 * self.n_R0


@dataclass(frozen=True)
class LeftClasses:
    """The left vertices grouped by degree, in increasing order of degree, an entry a class.

    `degree`; `begin` to `end`, its columns in the graph's sorted order; `n_R`, how many right vertices they touch.
    """

    degree: Ints
    begin: Ints
    end: Ints
    n_R: Ints


class BipartiteGraph:
    """A layer's graph without its isolated vertices, its left vertices sorted by degree.

    `mask`: (rows, columns), boolean or 0/1. `weights`: the same shape, real; only absolute values matter (`A = abs(W) * M`).
    Prepared once, and what is done to either array afterwards changes nothing, unless weights are not to be a `copy`;
    questions about it are asked of `singular` and `regular`. In this machine's memory and with the compiled part the graph
    is kept as bits; else as an array of float32. `compiled`: whether that part solves it; `packed`: whether there are bits.
    Raises `ArrayError` and `NotFiniteError` for what is no mask or no weights.

    place: the device of tensors, None of other arrays. mask: where the graph is kept as an array, that. n_L0, n_R0: all
    columns and rows; n_L, n_R: those with an edge; edges: the number of kept weights. left_degrees, right_degrees: of the
    vertices with an edge, int64, the left ones sorted.
    """

    def __init__(self, mask: Array, weights: Array | None = None, *, copy: bool = True):
        mask = zero_one(mask)
        self.xp = xp = array_namespace(mask)
        self.weights = None if weights is None else real_weights(weights, mask, copy=copy)
        self.n_R0, self.n_L0 = int(mask.shape[0]), int(mask.shape[1])
        self.place = str(mask.device) if is_torch_array(mask) else None
        self.packed = self.compiled = is_numpy_array(mask) and calls.available()
        if self.packed:
            self.bits, self._columns, self.left_degrees, right = calls.arrange(mask)
        else:
            self.mask = mask.view(xp.uint8) != 0  # a copy, in which True is 1 whatever byte stood for it
            left, right = _degrees(xp, self.mask, axis=0), _degrees(xp, self.mask, axis=1)
            isolated = int(xp.sum(xp.astype(left == 0, xp.int64)))
            self._columns = xp.argsort(left, stable=True)[isolated:]
            self.left_degrees = xp.take(left, self._columns)
        self._rows = xp.nonzero(right)[0]
        self.right_degrees = xp.take(right, self._rows)
        self.n_L = int(self._columns.shape[0])
        self.n_R = int(self._rows.shape[0])
        self.edges = int(xp.sum(self.left_degrees))

    @cached_property
    def counts(self) -> Counts:
        """The graph's sizes, without its arrays."""
        return Counts(self.n_L0, self.n_R0, self.n_L, self.n_R, self.edges, self.components)

    @cached_property
    def incidence(self) -> Array:
        """The 0/1 matrix, transposed: (n_L, n_R) float32, rows sorted by degree so that a class is a slice."""
        if self.packed:
            flags = np.unpackbits(self.bits.view(np.uint8), axis=1, count=self.n_R0, bitorder="little")
            return (flags if self.n_R == self.n_R0 else flags[:, self._rows]).astype(np.float32)
        return self.xp.astype(self._live(self.mask), self.xp.float32)

    @cached_property
    def weighted(self) -> Array:
        """`abs(W) * M`, transposed and sorted as `incidence`: (n_L, n_R) float64."""
        weights = self.xp.abs(self.xp.astype(self._live(self._given_weights()), self.xp.float64))
        if self.edges == self.n_L * self.n_R:
            return weights
        return self.xp.where(self.incidence != 0, weights, self.xp.zeros_like(weights))

    @cached_property
    def edge_lists(self) -> calls.EdgeLists:
        """`abs(W)` of the edges as lists, left vertices sorted by degree. Needs the compiled part."""
        begin, neighbour = calls.edges_of_bits(self.bits, self.left_degrees)
        values = calls.weights_of_edges(begin, neighbour, self._columns, self._given_weights())
        return calls.EdgeLists(begin, neighbour, values, self.n_R0)

    def largest_weight(self, begin: int, end: int) -> float:
        """The largest `abs(W)` of an edge of left vertices `begin` to `end`."""
        if self.listed or (self.packed and self.is_sparse):
            return float(np.max(self._heaviest[begin:end]))
        if self.packed and self.is_complete and end - begin == self.n_L:  # without a matrix of its own
            weights = self._given_weights()
            return float(max(np.max(weights), -np.min(weights)))
        return float(self.xp.max(self.weighted[begin:end, :]))

    @cached_property
    def _heaviest(self) -> Array:
        """The largest `abs(W)` of an edge of each left vertex."""
        return np.maximum.reduceat(self.edge_lists.value, self.edge_lists.begin[:-1])

    @property
    def is_complete(self) -> bool:
        """Whether every weight is kept."""
        return self.edges == self.n_L0 * self.n_R0

    @property
    def is_sparse(self) -> bool:
        """Whether weighted edges are better kept as lists than as a matrix, on the host: lists take three times as much."""
        size = self.n_L * self.n_R
        return self.edges <= LISTED_DENSITY * size or self.edges < size <= LISTED_SIZE

    @property
    def listed(self) -> bool:
        """Whether the graph is lists of edges and nothing else, as there would be too many places for bits."""
        return False

    @property
    def may_be_dense(self) -> bool:
        """Whether its matrix may be made whole, as it was when it came."""
        return True

    def _given_weights(self) -> Array:
        if self.weights is None:
            raise ValueError("this graph was prepared without weights")
        return self.weights

    def _live(self, matrix: Array) -> Array:
        xp = self.xp
        if self.n_R != self.n_R0:
            matrix = xp.take(matrix, self._rows, axis=0)
        if self.n_L == self.n_L0 and bool(xp.all(self._columns[1:] > self._columns[:-1])):
            return matrix.T  # every column, in its own order
        return xp.take(matrix.T, self._columns, axis=0)

    @cached_property
    def left_classes(self) -> LeftClasses:
        """The left vertices grouped by degree."""
        degrees = host(self.left_degrees)
        changes = np.ones(self.n_L + 1, dtype=np.bool_)
        np.not_equal(degrees[1:], degrees[:-1], out=changes[1:-1])
        bounds = np.flatnonzero(changes)
        begin, end = bounds[:-1], bounds[1:]
        degree = degrees[begin]
        if not len(degree):
            return LeftClasses(degree, begin, end, begin)
        if self.packed:
            touched = np.bitwise_or.reduceat(self.bits, begin, axis=0)
            n_R = np.bitwise_count(touched).sum(axis=1, dtype=np.int64)
        else:
            blocks = zip(begin.tolist(), end.tolist(), strict=True)
            xp = self.xp
            sums = [xp.sum(xp.max(self.incidence[first:last, :], axis=0)) for first, last in blocks]
            n_R = np.asarray(xp.stack(sums).tolist(), dtype=np.int64)  # one transfer from the device
        return LeftClasses(degree, begin, end, n_R)

    @cached_property
    def components(self) -> int:
        """Connected components among the vertices that have an edge (0 for an empty graph)."""
        if self.edges == 0:
            return 0
        if self.edges == self.n_L * self.n_R:
            return 1
        if self.edges in (self.n_L, self.n_R):
            return self.n_L + self.n_R - self.edges  # stars
        if self.packed:
            return calls.component_count(self.bits)
        if self._is_connected():
            return 1
        from scipy.sparse import csr_array
        from scipy.sparse.csgraph import connected_components

        # Right vertices are the first nodes, left vertices the rest.
        left, right = np.nonzero(host(self.incidence))
        nodes = self.n_L + self.n_R
        edges = csr_array((np.ones(len(left), dtype=np.bool_), (left + self.n_R, right)), shape=(nodes, nodes))
        return int(connected_components(edges, directed=False, return_labels=False))

    def _is_connected(self) -> bool:
        """Whether every left vertex is seen to be reached from the last in a few steps, as it is in most layers."""
        xp = self.xp
        reached = xp.zeros_like(self.incidence[:, 0])
        reached[-1] = 1.0
        for _ in range(STEPS):
            right = xp.astype((reached @ self.incidence) > 0, xp.float32)
            reached = xp.astype((self.incidence @ right) > 0, xp.float32)
        return int(xp.sum(reached)) == self.n_L


def _degrees(xp: Any, mask: Array, axis: int) -> Array:
    """Edges a column (`axis` 0) or a row (`axis` 1), as int64."""
    if is_numpy_array(mask):
        return xp.astype(xp.count_nonzero(mask, axis=axis), xp.int64)
    return xp.sum(xp.astype(mask, xp.int64), axis=axis)


def host(array: Array) -> Array:
    """The array in this machine's own memory, for libraries that know NumPy only."""
    return array if isinstance(array, np.ndarray) else array.cpu().numpy()
