"""Lists of edges as a collection of graphs: a vertex is a name, an edge a pair of names."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from pai_cli.files.edge_lists import EdgeList, sorted_once
from pai_cli.mining.collection import Collection, Indices, add_holder, empty_holders


def collection_of_graphs(lists: Iterable[EdgeList]) -> Collection:
    """The graphs of these lists, over all the vertices that any of them names. Edges are in the order of their names."""
    graphs = list(lists)
    vertices = sorted(set().union(*(graph.names for graph in graphs)))
    places = dict(zip(vertices, range(len(vertices)), strict=True))
    held = [_codes(graph, places) for graph in graphs]
    codes = sorted_once(np.concatenate(held))
    holders = empty_holders(len(codes), len(graphs))
    for number, own in enumerate(held):
        add_holder(holders, np.searchsorted(codes, own), number)
    ends = np.stack(np.divmod(codes, len(vertices)), axis=1)

    def labels(some: Indices) -> list[str]:
        return [f"{vertices[a]}--{vertices[b]}" for a, b in ends[some].tolist()]

    return Collection(
        names=tuple(str(graph.path) for graph in graphs),
        ends=ends,
        holders=holders,
        groups=np.zeros(len(codes), np.int32),
        group_names=("graph",),
        possible=(len(vertices) * (len(vertices) - 1) // 2,),
        labels=labels,
    )


def _codes(graph: EdgeList, places: dict[str, int]) -> Indices:
    """An edge of all vertices as one number, which increases as the names of its ends do."""
    here = np.fromiter(map(places.__getitem__, graph.names), np.int64, len(graph.names))
    first, second = here[graph.ends].T
    codes: Indices = first * len(places) + second
    return codes
