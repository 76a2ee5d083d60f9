"""What is searched: edges that the same graphs hold and that touch are one class; classes that touch form parts.

A frequent connected subgraph has a class whole or not at all once it is maximal, and only classes that `support` graphs
hold together stand in it side by side. So the graph of classes has an edge where two classes share a vertex and enough
graphs, and each connected part of it is searched by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pai_cli.errors import MiningError
from pai_cli.mining.collection import Collection, Indices, bits
from pai_cli.spelling import option

MOST_CLASSES = 2**15
"""Of one part: who touches whom is a table of that many squared bits, 128 MiB."""

MOST_PAIRS = 2**25
"""Of classes that touch, in all parts together."""

_TOO_MANY = f"{{}} are too many to search; raise {option('support')}, or mine fewer masks or graphs"

ROWS = 2**22
"""Pairs of classes at a vertex that are compared at once."""


@dataclass(frozen=True, eq=False)
class Part:
    """A connected part of the graph of classes. Sets of classes are integers, bit c for class c; so are sets of graphs.

    `sets`: the graphs that hold each class. `edges`: its edges, indices into the collection. `touching`: the other
    classes that it touches and shares enough graphs with. Classes that touch most others come first.
    """

    graphs: int
    sets: list[int]
    edges: list[Indices]
    touching: list[int]

    @cached_property
    def everything(self) -> int:
        """All classes."""
        return (1 << len(self.sets)) - 1

    @cached_property
    def holding(self) -> list[int]:
        """For each graph, the classes that it holds."""
        return _columns(self.sets, self.graphs)

    @cached_property
    def lacking(self) -> list[int]:
        """For each graph, the classes that it lacks."""
        return [self.everything ^ held for held in self.holding]

    @cached_property
    def _by_weight(self) -> list[tuple[int, int]]:
        weights: dict[int, int] = {}
        for number, edges in enumerate(self.edges):
            weights[len(edges)] = weights.get(len(edges), 0) | 1 << number
        return list(weights.items())

    def size(self, classes: int) -> int:
        """How many edges these classes have."""
        total = 0
        for weight, of_weight in self._by_weight:
            total += weight * (classes & of_weight).bit_count()
        return total

    def edges_of(self, classes: int) -> Indices:
        """The edges of these classes, in order."""
        return np.sort(np.concatenate([self.edges[number] for number in bits(classes)]))

    def common(self, classes: int) -> int:
        """The graphs that hold all of these classes."""
        found = 0
        for graph, lacking in enumerate(self.lacking):
            if not classes & lacking:
                found |= 1 << graph
        return found

    def around(self, first: int, among: int) -> int:
        """The classes of `among` that are connected with those of `first`, which are part of it, within it."""
        frontier, rest = first, among & ~first
        while frontier and rest:
            if rest.bit_count() < frontier.bit_count():  # what few are not reached yet: do they touch what is?
                new, left = 0, rest
                while left:
                    lowest = left & -left
                    if self.touching[lowest.bit_length() - 1] & frontier:
                        new |= lowest
                    left ^= lowest
                frontier = new
            else:
                lowest = frontier & -frontier
                new = self.touching[lowest.bit_length() - 1] & rest
                frontier = (frontier ^ lowest) | new
            rest &= ~new
        return among & ~rest

    def joinable(self, graphs: int, support: int) -> int:
        """The classes that `support` of these graphs hold."""
        spare = graphs.bit_count() - support
        if spare < 0:
            return 0
        lacking = [self.everything] * (spare + 1)  # classes that lack at most n of the graphs so far
        for graph in bits(graphs):
            held = self.holding[graph]
            for n in range(spare, 0, -1):
                lacking[n] = (lacking[n] & held) | lacking[n - 1]
            lacking[0] &= held
        return lacking[spare]

    def components(self, among: int, least: int = 1) -> Iterator[int]:
        """The connected components of these classes that have at least `least` edges."""
        while self.has(among, least):
            lowest = among & -among
            near = self.touching[lowest.bit_length() - 1] & among
            found = self.around(lowest | near, among) if near else lowest
            if self.has(found, least):
                yield found
            among ^= found

    def has(self, classes: int, least: int) -> bool:
        """Whether these classes have at least `least` edges."""
        few = classes.bit_count()  # of at least one edge each
        return few >= least or sum(len(self.edges[number]) for number in bits(classes)) >= least

    def touch(self, some: int, others: int) -> bool:
        """Whether any of the one touches any of the other."""
        if some.bit_count() > others.bit_count():
            some, others = others, some
        return any(self.touching[number] & others for number in bits(some))


def parts_of(collection: Collection, support: int, least: int = 1) -> Iterator[Part]:
    """The parts of a collection in which a subgraph of `support` graphs and `least` edges can be, in order of the edges.

    Raises `MiningError` when a part has more than `MOST_CLASSES` classes, or more than `MOST_PAIRS` that touch.
    """
    frequent = np.flatnonzero(np.bitwise_count(collection.holders).sum(1, dtype=np.int64) >= support)
    if not len(frequent):
        return
    found = _collapsed(collection, frequent)
    pairs = _pairs(found, support)
    count = len(found.rows)
    label = _connected(pairs, count)
    sizes = np.bincount(label, np.bincount(found.class_of, minlength=count))  # in edges
    edges = np.split(frequent[np.argsort(found.class_of, kind="stable")], np.cumsum(np.bincount(found.class_of))[:-1])
    order = np.argsort(label, kind="stable")
    bounds = np.searchsorted(label[order], np.arange(len(sizes) + 1))
    inside = pairs[np.argsort(label[pairs[:, 0]], kind="stable")]
    cuts = np.searchsorted(label[inside[:, 0]], np.arange(len(sizes) + 1))
    for number in np.flatnonzero(sizes >= least):
        classes = order[bounds[number] : bounds[number + 1]]
        yield _part(collection, found, edges, classes, inside[cuts[number] : cuts[number + 1]])


@dataclass(frozen=True, eq=False)
class _Classes:
    """`class_of`: of each frequent edge. `rows`: the set of graphs of each class, as uint64 words. `places`: pairs of a
    class and a vertex that it touches, by vertex.
    """

    class_of: Indices
    rows: NDArray[np.uint64]
    places: Indices


def _collapsed(collection: Collection, frequent: Indices) -> _Classes:
    """Frequent edges of one set of graphs that are connected by such edges, as one class."""
    holders = np.ascontiguousarray(collection.holders[frequent])
    wide = np.zeros((len(holders), -(-holders.shape[1] // 8) * 8), np.uint8)
    wide[:, : holders.shape[1]] = holders
    _, pattern = np.unique(wide.view(np.uint64), axis=0, return_inverse=True)
    vertices = int(collection.ends.max()) + 1
    keys = pattern.reshape(-1, 1) * vertices + collection.ends[frequent]
    nodes, where = np.unique(keys, return_inverse=True)
    where = where.reshape(-1, 2)
    label = _connected(where, len(nodes))
    class_of = label[where[:, 0]]
    _, numbered, class_of = np.unique(class_of, return_index=True, return_inverse=True)
    order = np.empty(len(numbered), np.int64)
    order[np.argsort(numbered)] = np.arange(len(numbered))  # in order of first edges
    class_of = order[class_of]
    rows = np.empty((len(numbered), wide.shape[1] // 8), np.uint64)
    rows[class_of] = wide.view(np.uint64)
    places = np.unique(np.stack([collection.ends[frequent].reshape(-1), np.repeat(class_of, 2)], 1), axis=0)
    return _Classes(class_of, rows, places[:, ::-1])


def _connected(pairs: Indices, count: int) -> Indices:
    """The component of each of `count` nodes, numbered by their first nodes."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    # In float64, as the same pair may be there often: small integers would come round to 0.
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    label = connected_components(graph, directed=False)[1]
    _, first, inverse = np.unique(label, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]


def _pairs(found: _Classes, support: int) -> Indices:
    """Pairs of classes that share a vertex and `support` graphs, the lower number first, each once."""
    starts = np.flatnonzero(np.diff(found.places[:, 1], prepend=-1))
    gathered = [np.empty((0, 2), np.int64)]
    total = 0
    for here in np.split(found.places[:, 0], starts[1:]):
        for begin in range(0, len(here) - 1, max(1, ROWS // len(here))):
            mine = here[begin : begin + max(1, ROWS // len(here))]
            shared = sum(
                np.bitwise_count(found.rows[mine, word][:, None] & found.rows[here, word]).astype(np.int32)
                for word in range(found.rows.shape[1])
            )
            left, right = np.nonzero((shared >= support) & (mine[:, None] < here))
            gathered.append(np.stack([mine[left], here[right]], 1))
            total += len(left)
            if total > MOST_PAIRS:
                raise MiningError(_TOO_MANY.format(f"more than {MOST_PAIRS:,} pairs of edges that touch"))
    return np.unique(np.concatenate(gathered), axis=0)


def _part(collection: Collection, found: _Classes, edges: list[Indices], classes: Indices, pairs: Indices) -> Part:
    count = len(classes)
    if count > MOST_CLASSES:
        raise MiningError(_TOO_MANY.format(f"{count:,} kinds of edges that are connected"))
    degree = np.bincount(np.searchsorted(classes, pairs).reshape(-1), minlength=count)
    order = np.argsort(-degree, kind="stable")
    position = np.empty(count, np.int64)
    position[order] = np.arange(count)
    local = position[np.searchsorted(classes, pairs)]
    both = np.concatenate([local, local[:, ::-1]])
    both = both[np.argsort(both[:, 0], kind="stable")]
    cuts = np.searchsorted(both[:, 0], np.arange(count + 1))
    touching = [_as_set(both[cuts[i] : cuts[i + 1], 1], count) for i in range(count)]
    chosen = classes[order]
    sets = [int.from_bytes(row.tobytes(), "little") for row in found.rows[chosen]]
    return Part(len(collection.names), sets, [edges[number] for number in chosen], touching)


def _as_set(numbers: Indices, count: int) -> int:
    flags = np.zeros(count, np.bool_)
    flags[numbers] = True
    return int.from_bytes(np.packbits(flags, bitorder="little").tobytes(), "little")


def _columns(sets: list[int], graphs: int) -> list[int]:
    """For each graph, which of the sets it is in."""
    size = -(-graphs // 8)
    raw = np.frombuffer(b"".join(one.to_bytes(size, "little") for one in sets), np.uint8).reshape(len(sets), size)
    flags = np.unpackbits(raw, axis=1, bitorder="little", count=graphs)
    packed = np.packbits(flags.T, axis=1, bitorder="little")
    return [int.from_bytes(row.tobytes(), "little") for row in packed]
