"""Lists of edges as a collection of graphs: a vertex is a name, an edge a pair of names."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import compress

import numpy as np

from pai_cli.files.edge_lists import EdgeList
from pai_cli.mining.collection import Collection, Indices, add_holder, empty_holders


def collection_of_graphs(lists: Iterable[EdgeList]) -> Collection:
    """The graphs of these lists, over all the vertices that any of them names. Edges are in the order of their names."""
    graphs = list(lists)
    named = {id(graph.names): graph.names for graph in graphs}  # most of them have one list
    names = sorted(set().union(*named.values()))
    places = dict(zip(names, range(len(names)), strict=True))
    ranks = {key: np.fromiter(map(places.__getitem__, own), np.int64, len(own)) for key, own in named.items()}
    held = [_codes(ranks[id(graph.names)][graph.ends], len(names)) for graph in graphs]
    codes = _once(np.sort(np.concatenate(held), kind="stable"))  # which merges what is in order already
    holders = empty_holders(len(codes), len(graphs))
    for number, own in enumerate(held):
        add_holder(holders, np.searchsorted(codes, own), number)
    ends = np.stack(np.divmod(codes, len(names)), axis=1)
    used = np.bincount(ends.ravel(), minlength=len(names)) > 0  # not by loops alone
    vertices = list(compress(names, used.tolist()))
    ends = (np.cumsum(used) - 1)[ends]

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


def _codes(ends: Indices, names: int) -> Indices:
    """Each edge once, as a number that increases as the names of its ends do, in order."""
    a, b = ends.T
    return _once(np.sort(np.minimum(a, b) * names + np.maximum(a, b)))


def _once(ordered: Indices) -> Indices:
    """Numbers of 0 and above that are in order, each once: `np.unique`'s hash table is slower."""
    return ordered[np.diff(ordered, prepend=-1) > 0]
