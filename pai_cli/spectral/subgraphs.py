"""Nested left-regular subgraphs: the left vertices of one degree, with every right vertex they touch.

Hoang, Liu, Marculescu, Wang, "Revisiting Pruning at Initialization through the Lens of Ramanujan Graph", ICLR 2023.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pai_cli.spectral.conventions import Convention
from pai_cli.spectral.graph import BipartiteGraph
from pai_cli.spectral.problems import Problems
from pai_cli.spectral.result import Ints


@dataclass(frozen=True)
class RegularSubgraphs:
    """Every K_d of a layer that counts, an entry each, by increasing degree.

    degree: of every left vertex. ranges: (k, 2), where they stand in the graph's sorted order. n_L: how many there are.
    n_R: how many right vertices they touch.
    """

    degree: Ints
    ranges: Ints
    n_L: Ints
    n_R: Ints

    def __len__(self) -> int:
        return len(self.degree)

    @property
    def edges(self) -> Ints:
        """Edges of each."""
        edges: Ints = self.degree * self.n_L
        return edges

    def problems(self, graph: BipartiteGraph, *, weighted: bool = False) -> Problems:
        """What to ask the solvers for: all of the graph, then each subgraph that is not all of it."""
        every = Problems.whole(graph, weighted=weighted)
        if self._is_whole(graph):
            return every
        ranges = np.concatenate([every.ranges, self.ranges])
        return Problems(graph, ranges, np.concatenate([every.right, self.n_R]), weighted)

    def places(self, graph: BipartiteGraph) -> Ints:
        """Where each subgraph stands among `problems`."""
        return np.zeros(1, dtype=np.int64) if self._is_whole(graph) else np.arange(1, len(self) + 1)

    def _is_whole(self, graph: BipartiteGraph) -> bool:
        return len(self) == 1 and bool(self.n_L[0] == graph.n_L)


def regular_subgraphs(graph: BipartiteGraph, convention: Convention = Convention.H23) -> RegularSubgraphs:
    """Every K_d that counts by the convention."""
    classes = graph.left_classes
    n_L = classes.end - classes.begin
    counts = convention.counts(classes.degree, n_L, classes.n_R)
    ranges = np.stack([classes.begin, classes.end], axis=1)
    return RegularSubgraphs(classes.degree[counts], ranges[counts], n_L[counts], classes.n_R[counts])
