"""Parts of a layer whose singular values are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

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
