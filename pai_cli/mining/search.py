"""All maximal frequent connected subgraphs of a part, by search over sets of graphs or over subgraphs.

Let T(S) be the graphs that hold all of S. A connected S is frequent when T(S) has `support` graphs or more, and maximal
when no touching class c leaves |T(S) & T(c)| at `support` or more. Both searches divide the subgraphs among their
branches, so that each is met once and no table of those met is kept: memory is that of one path, as in reverse search
(Avis and Fukuda 1996; over connected subgraphs RASMA, Salem, Alokshiya and Al Hasan 2021).

`by_graphs` decides for one graph after the other whether it is in T(S), and takes each time the components of what is
left; that is quick where there are few sets of `support` graphs. `by_classes` grows S class by class; that is quick
where there are many graphs and few classes agree. Either gives the same subgraphs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from pai_cli.mining.collection import bits
from pai_cli.mining.parts import Part

FEW_SETS = 2**22
"""Sets of graphs that `by_graphs` may have to go through: 20 graphs have 184,756 of 10."""

Occurrence = tuple[int, int]
"""A subgraph's classes, and the graphs that hold it."""


@dataclass(frozen=True)
class Wanted:
    """Subgraphs of at least `least` edges that at least `support` graphs hold."""

    support: int
    least: int = 1


def maximal(part: Part, wanted: Wanted) -> Iterator[Occurrence | None]:
    """Every maximal frequent connected subgraph once; None between them, after each step of the search."""
    always = part.common(part.everything)
    free = part.graphs - always.bit_count()
    few = math.comb(free, max(0, min(wanted.support - always.bit_count(), free))) <= FEW_SETS
    return by_graphs(part, wanted) if few else by_classes(part, wanted)


def is_maximal(part: Part, classes: int, graphs: int, support: int) -> bool:
    """Whether no class that touches these shares `support` of their graphs."""
    return not part.touch(classes, part.joinable(graphs, support) & ~classes)


def by_graphs(part: Part, wanted: Wanted) -> Iterator[Occurrence | None]:
    """As `maximal`: for graphs in order, S is either held by the next or not.

    A node is a connected set C of classes with T(C); the subgraphs below it are in C, and of the graphs up to `last` they
    have exactly those of T(C). A child takes the next graph into T(S) that is not there already.
    """
    support = wanted.support
    enough = _at_least(part, support)
    every = part.common(part.everything)
    stack = [(part.everything, every, -1)]
    while stack:
        classes, graphs, last = stack.pop()
        if graphs.bit_count() >= support:
            exact = graphs.bit_count() == support  # then nothing can be added: `classes` is all that these graphs hold
            if exact or is_maximal(part, classes, graphs, support):
                yield classes, graphs
            continue
        for graph in range(last + 1, part.graphs):
            below = (1 << graph) - 1
            decided = graphs & below
            need = support - decided.bit_count() - 1  # of the graphs past this one
            if need > part.graphs - 1 - graph:
                break
            if graphs >> graph & 1:
                continue
            left = classes & part.holding[graph] & enough[graph][need - _fewest(graph, support)]
            for component in part.components(left, wanted.least):
                common = part.common(component)
                if common & below == decided:  # else it belongs to the branch of a graph before
                    stack.append((component, common, graph))
        yield None


def by_classes(part: Part, wanted: Wanted) -> Iterator[Occurrence | None]:
    """As `maximal`: subgraphs grown class by class, each with everything that their graphs hold.

    A node is a connected set S with all that T(S) holds around it, and classes that the subgraphs below it must not have.
    A child takes in one class more; the next child must not have that class.
    """
    support = wanted.support
    barred = 0
    for seed in sorted(range(len(part.sets)), key=lambda number: (-part.sets[number].bit_count(), number)):
        stack = [(1 << seed, part.sets[seed], barred)]
        barred |= 1 << seed
        while stack:
            node = _grown(part, wanted, *stack.pop())
            yield None
            if isinstance(node, _Leaf):
                if is_maximal(part, node.classes, node.graphs, support):
                    yield node.classes, node.graphs
            elif node is not None:
                stack += node.children(part)


@dataclass(frozen=True)
class _Leaf:
    classes: int
    graphs: int


@dataclass(frozen=True)
class _Inner:
    classes: int
    graphs: int
    reach: int
    barred: int

    def children(self, part: Part) -> list[tuple[int, int, int]]:
        """The branches, the first to be taken last."""
        around = 0
        for number in bits(self.classes):
            around |= part.touching[number]
        barred = self.barred
        found = []
        for number in bits(around & self.reach & ~self.classes):
            found.append((self.classes | 1 << number, self.graphs & part.sets[number], barred))
            barred |= 1 << number
        return found[::-1]


def _grown(part: Part, wanted: Wanted, start: int, graphs: int, barred: int) -> _Leaf | _Inner | None:
    """What there is to do about the maximal subgraphs that have `start`, of which `graphs` hold all, and nothing barred."""
    support = wanted.support
    joinable = part.joinable(graphs, support)
    classes = part.around(start, start | (joinable & part.joinable(graphs, graphs.bit_count())))
    if classes & barred:
        return None
    reach = part.around(classes, joinable & ~barred)  # no subgraph below goes beyond this
    if not part.has(reach, wanted.least):
        return None
    common = part.common(reach)
    if common.bit_count() >= support:
        return _Leaf(reach, common)
    # A barred class that could join whatever is found below makes all of that not maximal.
    if part.touch(classes, part.joinable(common, support) & barred if common else 0):
        return None
    return _Inner(classes, graphs, reach, barred)


def _at_least(part: Part, support: int) -> list[list[int]]:
    """For each graph g, the classes that n graphs past g hold, for n from `_fewest(g)` to what is needed at most."""
    table: list[list[int]] = []
    now = [part.everything] + [0] * (support - 1)
    for graph in reversed(range(part.graphs)):
        table.append(now[_fewest(graph, support) :])
        held = part.holding[graph]
        now = [now[0], *(now[n] | (now[n - 1] & held) for n in range(1, support))]
    return table[::-1]


def _fewest(graph: int, support: int) -> int:
    """How many graphs past `graph` must hold a subgraph when it and all before it do."""
    return max(0, support - 1 - graph)
