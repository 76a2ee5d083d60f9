"""Parts of a layer whose singular values are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pai_cli.spectral.compiled import calls
from pai_cli.spectral.compiled.calls import EdgeLists
from pai_cli.spectral.direct import forming_error
from pai_cli.spectral.graph import Array, BipartiteGraph, host
from pai_cli.spectral.result import Floats, Ints


def smaller_gram(matrix: Array) -> Array:
    """`X X^T` or `X^T X`, whichever is the smaller; of a float32 matrix of 0 and 1 it is exact, and float32.

    Both factors are one array, so that the product is symmetric and BLAS does half the work.
    """
    rows = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    return rows @ rows.T


@dataclass(frozen=True)
class Problems:
    """Parts of one graph: ranges of its left vertices, each with the right vertices they touch.

    ranges: (k, 2), from and to, in the graph's sorted order. right: (k), how many right vertices each touches. weighted:
    whether `A = abs(W) * M` is meant and not the mask.
    """

    graph: BipartiteGraph
    ranges: Ints
    right: Ints
    weighted: bool = False

    @staticmethod
    def whole(graph: BipartiteGraph, *, weighted: bool = False) -> Problems:
        """All of the graph as its one part."""
        return Problems(graph, np.array([[0, graph.n_L]]), np.array([graph.n_R]), weighted)

    def __len__(self) -> int:
        return len(self.ranges)

    def take(self, at: Ints) -> Problems:
        """The parts at these places, which increase."""
        if len(at) == len(self):
            return self
        return Problems(self.graph, self.ranges[at], self.right[at], self.weighted)

    @property
    def left(self) -> Ints:
        """How many left vertices each part has."""
        left: Ints = self.ranges[:, 1] - self.ranges[:, 0]
        return left

    @cached_property
    def edges(self) -> Ints:
        """How many edges each part has."""
        before = np.zeros(self.graph.n_L + 1, dtype=np.int64)
        np.cumsum(host(self.graph.left_degrees), out=before[1:])
        edges: Ints = before[self.ranges[:, 1]] - before[self.ranges[:, 0]]
        return edges

    @property
    def forming(self) -> float:
        """How far a computed Gram matrix may be off, relative to sigma_1^2."""
        return forming_error(max(self.graph.n_L, self.graph.n_R)) if self.weighted else 0.0

    @cached_property
    def scales(self) -> Floats:
        """The largest entry of each part: weights are divided by it, so that no square overflows or vanishes."""
        if not self.weighted or self.graph.edges == 0:
            return np.ones(len(self))
        return np.array([self.graph.largest_weight(begin, end) for begin, end in self.ranges.tolist()])

    def values(self, k: int) -> Array:
        """The entries of part `k`, divided by its scale, without most zeros; of a mask, 1 each."""
        if not self.graph.listed:
            return self.matrix(k)
        begin, end = self.graph.edge_lists.begin[self.ranges[k]].tolist()
        return self.graph.edge_lists.value[begin:end] / self.scales[k] if self.weighted else np.ones(end - begin)

    def degrees(self, k: int, *, left: bool) -> Array:
        """Edges of each vertex of one side of part `k`; of the right side some may have none."""
        begin, end = self.ranges[k].tolist()
        if left:
            return host(self.graph.left_degrees)[begin:end]
        if not self.graph.listed:
            return host(self.matrix(k)).sum(axis=0)
        first, last = self.graph.edge_lists.begin[[begin, end]].tolist()
        return np.bincount(self.graph.edge_lists.neighbour[first:last])

    def matrix(self, k: int) -> Array:
        """Part `k` transposed, divided by its scale: (left, right) float64, or float32 for a mask.

        Right vertices without an edge are left out only where they would make the smaller side larger.
        """
        begin, end = self.ranges[k].tolist()
        xp = self.graph.xp
        block = self.graph.incidence[begin:end, :]
        touched = xp.nonzero(xp.max(block, axis=0))[0] if block.shape[0] > self.right[k] else None
        if self.weighted:
            block = self.graph.weighted[begin:end, :] / float(self.scales[k])
        return block if touched is None else xp.take(block, touched, axis=1)


def edges_of(request: Problems, k: int) -> EdgeLists:
    """The edges of part `k`, values divided by its scale."""
    begin, end = request.ranges[k].tolist()
    graph = request.graph
    if request.weighted or not graph.packed:
        every = graph.edge_lists
        first, last = every.begin[begin], every.begin[end]
        values = every.value[first:last] / request.scales[k] if request.weighted else np.ones(last - first)
        return EdgeLists(every.begin[begin : end + 1] - first, every.neighbour[first:last], values, every.right)
    bits = graph.bits[begin:end]
    starts, neighbour = calls.edges_of_bits(bits)
    return EdgeLists(starts, neighbour, np.ones(len(neighbour)), 64 * bits.shape[1])
