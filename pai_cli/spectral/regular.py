"""Nested left-regular subgraphs: the left vertices of one degree, with every right vertex they touch.

Hoang, Liu, Marculescu, Wang, "Revisiting Pruning at Initialization through the Lens of Ramanujan Graph", ICLR 2023.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pai_cli.spectral.bipartite import Array, BipartiteGraph, LeftClass
from pai_cli.spectral.result import SingularPair
from pai_cli.spectral.singular import (
    DEFAULT,
    SolverOptions,
    complete_or_vector,
    leading_pair,
    structure_pair,
    weighted_pair,
)

LEAST_LEFT = 3  # vertices that must share a degree [H23]
LEAST_DEGREE = 3  # mean degree, either side, under which the gaps are not defined [H23]


@dataclass(frozen=True)
class RegularSubgraph:
    """K_d: `n_L` left vertices of degree `degree`, and the `n_R` right vertices they touch.

    `structure`: singular values of its mask; `weighted`: of its weights, None when the graph has none.
    """

    degree: int
    n_L: int
    n_R: int
    structure: SingularPair
    weighted: SingularPair | None

    @property
    def d_L(self) -> float:
        """Mean left degree, which is the degree of every left vertex."""
        return float(self.degree)

    @property
    def d_R(self) -> float:
        """Mean right degree."""
        return self.degree * self.n_L / self.n_R


def regular_subgraphs(
    graph: BipartiteGraph, *, weights: bool, options: SolverOptions = DEFAULT
) -> Iterator[RegularSubgraph]:
    """Every K_d with at least three left vertices and both mean degrees at least three, by increasing degree."""
    for group in graph.left_classes:
        count = group.end - group.begin
        if count < LEAST_LEFT or group.degree < LEAST_DEGREE:
            continue
        block = graph.incidence[group.begin : group.end, :]
        touched = graph.xp.nonzero(graph.xp.max(block, axis=0))[0]
        n_R = int(touched.shape[0])
        if group.degree * count < LEAST_DEGREE * n_R:
            continue
        yield RegularSubgraph(
            degree=group.degree,
            n_L=count,
            n_R=n_R,
            structure=_structure(graph, group, block, touched, options),
            weighted=_weighted(graph, group, touched, options) if weights else None,
        )


def _structure(
    graph: BipartiteGraph, group: LeftClass, block: Array, touched: Array, options: SolverOptions
) -> SingularPair:
    """Isolated right vertices are dropped only where they would make the Gram matrix larger than it need be."""
    if len(graph.left_classes) == 1:
        return structure_pair(graph, options)
    if group.degree == touched.shape[0]:
        return complete_or_vector(graph.xp.take(block, touched, axis=1), block.shape[0] * group.degree)
    if block.shape[0] > touched.shape[0]:
        block = graph.xp.take(block, touched, axis=1)
    return leading_pair(block, None, binary=True, options=options)


def _weighted(graph: BipartiteGraph, group: LeftClass, touched: Array, options: SolverOptions) -> SingularPair:
    if len(graph.left_classes) == 1:
        return weighted_pair(graph, options)
    block = graph.weighted[group.begin : group.end, :]
    if block.shape[0] > touched.shape[0]:
        block = graph.xp.take(block, touched, axis=1)
    return leading_pair(block, None, binary=False, options=options)
