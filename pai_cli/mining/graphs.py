"""Lists of edges as a collection of graphs: a vertex is a name, an edge a pair of names."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from pai_cli.files.edge_lists import Edge, EdgeList
from pai_cli.mining.collection import Collection, Indices, add_holder, empty_holders


def collection_of_graphs(lists: Iterable[EdgeList]) -> Collection:
    """The graphs of these lists, over all the vertices that any of them names. Edges are in the order of their names."""
    graphs = list(lists)
    edges: list[Edge] = sorted(frozenset().union(*(graph.edges for graph in graphs)))
    number_of = {edge: number for number, edge in enumerate(edges)}
    vertices = sorted({name for edge in edges for name in edge})
    vertex_of = {name: number for number, name in enumerate(vertices)}
    holders = empty_holders(len(edges), len(graphs))
    for number, graph in enumerate(graphs):
        add_holder(holders, np.fromiter((number_of[edge] for edge in graph.edges), np.int64), number)
    ends = np.array([(vertex_of[a], vertex_of[b]) for a, b in edges], np.int64).reshape(-1, 2)

    def labels(some: Indices) -> list[str]:
        return ["--".join(edges[number]) for number in some]

    return Collection(
        names=tuple(str(graph.path) for graph in graphs),
        ends=ends,
        holders=holders,
        groups=np.zeros(len(edges), np.int32),
        group_names=("graph",),
        possible=(len(vertices) * (len(vertices) - 1) // 2,),
        labels=labels,
    )
