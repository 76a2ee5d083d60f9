"""Maximal frequent connected subgraphs: against brute force, planted ones, degenerate collections, laws."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pai_cli.errors import MiningError
from pai_cli.mining import parts as parts_module
from pai_cli.mining import search
from pai_cli.mining.collection import Collection, add_holder, bits, empty_holders
from pai_cli.mining.parts import Part, parts_of
from pai_cli.mining.run import Limits, Mining
from pai_cli.mining.search import Occurrence, Wanted, by_classes, by_graphs
from pai_cli.mining.support import parse_support
from pai_cli.spelling import for_shell

Edges = Sequence[tuple[int, int]]
Graphs = Sequence[set[int]]
Agreed = set[tuple[frozenset[int], tuple[int, ...]]]
Search = Callable[[Part, Wanted], Iterator[Occurrence | None]]

SEARCHES = pytest.mark.parametrize("how", [by_graphs, by_classes, search.maximal])


def collected(edges: Edges, graphs: Graphs) -> Collection:
    """Graphs as sets of numbers of edges."""
    holders = empty_holders(len(edges), len(graphs))
    for number, graph in enumerate(graphs):
        add_holder(holders, np.array(sorted(graph), dtype=np.int64), number)
    return Collection(
        names=tuple(str(number) for number in range(len(graphs))),
        ends=np.array(edges, dtype=np.int64).reshape(-1, 2),
        holders=holders,
        groups=np.zeros(len(edges), np.int32),
        group_names=("all",),
        possible=(len(edges),),
        labels=lambda some: [str(edge) for edge in some],
    )


def mined(edges: Edges, graphs: Graphs, wanted: Wanted, how: Search = search.maximal) -> Agreed:
    """What a search finds, as sets of edges and their holders; nothing may be found twice."""
    found = [
        (frozenset(part.edges_of(one[0]).tolist()), tuple(bits(one[1])))
        for part in parts_of(collected(edges, graphs), wanted.support, wanted.least)
        for one in how(part, wanted)
        if one is not None
    ]
    assert len(found) == len(set(found))
    return set(found)


def components(edges: Edges, among: set[int]) -> Iterator[frozenset[int]]:
    left = set(among)
    while left:
        component = {left.pop()}
        vertices = set(edges[next(iter(component))])
        while new := {edge for edge in left if vertices & set(edges[edge])}:
            component |= new
            left -= new
            vertices |= {end for edge in new for end in edges[edge]}
        yield frozenset(component)


def brute_force(edges: Edges, graphs: Graphs, wanted: Wanted) -> Agreed:
    """Components of what every set of `support` graphs or more has in common, those that no other contains."""
    candidates: set[frozenset[int]] = set()
    for count in range(wanted.support, len(graphs) + 1):
        for chosen in combinations(graphs, count):
            candidates.update(components(edges, set.intersection(*chosen)))
    largest = [one for one in candidates if not any(one < other for other in candidates)]
    return {
        (one, tuple(number for number, graph in enumerate(graphs) if one <= graph))
        for one in largest
        if len(one) >= wanted.least
    }


def drawn(seed: int) -> tuple[list[tuple[int, int]], list[set[int]], Wanted]:
    """A small random collection; some with loops and with several edges between the same vertices."""
    generator = random.Random(seed)
    vertices, count = generator.randint(2, 8), generator.randint(1, 7)
    every = [(a, b) for a in range(vertices) for b in range(a, vertices)]
    generator.shuffle(every)
    edges = every[: generator.randint(1, 14)]
    if generator.random() < 0.3:
        edges.append(generator.choice(edges))
    share = generator.choice([0.3, 0.5, 0.7, 0.9])
    graphs = [{edge for edge in range(len(edges)) if generator.random() < share} for _ in range(count)]
    return edges, graphs, Wanted(generator.randint(1, count), generator.choice([1, 1, 2, 3]))


def assert_both_find_all(seed: int) -> None:
    case = drawn(seed)
    expected = brute_force(*case)
    assert mined(*case, by_graphs) == expected, seed
    assert mined(*case, by_classes) == expected, seed


def test_both_searches_agree_with_brute_force() -> None:
    for seed in range(60):  # `make fuzz` tries others
        assert_both_find_all(seed)


@st.composite
def collections(draw: st.DrawFn) -> tuple[list[tuple[int, int]], list[set[int]]]:
    vertices = draw(st.integers(1, 6))
    end = st.integers(0, vertices - 1)
    edges = draw(st.lists(st.tuples(end, end), min_size=1, max_size=10))
    graphs = draw(st.lists(st.sets(st.integers(0, len(edges) - 1)), min_size=1, max_size=6))
    return edges, graphs


@given(collections(), st.data())
def test_any_collection_agrees_with_brute_force(
    case: tuple[list[tuple[int, int]], list[set[int]]], data: st.DataObject
) -> None:
    edges, graphs = case
    wanted = Wanted(data.draw(st.integers(1, len(graphs))), data.draw(st.integers(1, 3)))
    expected = brute_force(edges, graphs, wanted)
    assert mined(edges, graphs, wanted, by_graphs) == mined(edges, graphs, wanted, by_classes) == expected


@given(collections(), st.data())
def test_the_order_of_graphs_changes_the_holders_alone(
    case: tuple[list[tuple[int, int]], list[set[int]]], data: st.DataObject
) -> None:
    edges, graphs = case
    order = data.draw(st.permutations(range(len(graphs))))
    wanted = Wanted(data.draw(st.integers(1, len(graphs))))
    moved = mined(edges, [graphs[number] for number in order], wanted)
    back = {(one, tuple(sorted(order[number] for number in holders))) for one, holders in moved}
    assert back == mined(edges, graphs, wanted)


@given(collections(), st.data())
def test_names_of_vertices_change_nothing(
    case: tuple[list[tuple[int, int]], list[set[int]]], data: st.DataObject
) -> None:
    edges, graphs = case
    name = data.draw(st.permutations(range(9)))
    wanted = Wanted(data.draw(st.integers(1, len(graphs))))
    assert mined([(name[b], name[a]) for a, b in edges], graphs, wanted) == mined(edges, graphs, wanted)


PATH = [(0, 1), (1, 2), (2, 3), (3, 4)]


@SEARCHES
@pytest.mark.parametrize(
    ("graphs", "wanted", "expected"),
    [
        ([{0, 1, 2}], Wanted(1), {((0, 1, 2), (0,))}),  # one graph is its own components
        ([{0, 1, 3}], Wanted(1), {((0, 1), (0,)), ((3,), (0,))}),
        ([{0, 1, 2, 3}] * 5, Wanted(3), {((0, 1, 2, 3), (0, 1, 2, 3, 4))}),  # identical
        ([{0, 1}, {2, 3}], Wanted(1), {((0, 1), (0,)), ((2, 3), (1,))}),  # disjoint
        ([{0, 1}, {2, 3}], Wanted(2), set()),
        ([set(), set()], Wanted(1), set()),
        ([set(), {2}], Wanted(1), {((2,), (1,))}),
        ([{0, 1, 2}, {1, 2, 3}, {2}], Wanted(2), {((1, 2), (0, 1))}),
        ([{0, 1, 2}, {1, 2, 3}, {2}], Wanted(3), {((2,), (0, 1, 2))}),
        ([{0, 1, 2}, {1, 2, 3}, {2}], Wanted(2, least=3), set()),
    ],
)
def test_known_answers(
    how: Search, graphs: Graphs, wanted: Wanted, expected: set[tuple[tuple[int, ...], tuple[int, ...]]]
) -> None:
    assert mined(PATH, graphs, wanted, how) == {(frozenset(edges), holders) for edges, holders in expected}


@SEARCHES
def test_no_edge_at_all(how: Search) -> None:
    assert mined([], [set(), set()], Wanted(1), how) == set()


@SEARCHES
def test_more_than_64_graphs(how: Search) -> None:
    graphs = [{0, 1} if number % 2 else {1, 2} for number in range(150)]
    even, odd = tuple(range(0, 150, 2)), tuple(range(1, 150, 2))
    expected = {(frozenset({0, 1}), odd), (frozenset({1, 2}), even)}
    assert mined(PATH, graphs, Wanted(75), how) == expected
    assert mined(PATH, graphs, Wanted(76), how) == {(frozenset({1}), tuple(range(150)))}


@SEARCHES
def test_many_edges_between_two_vertices(how: Search) -> None:
    edges = [(0, 1)] * 512 + [(1, 2)]
    every = set(range(513))
    assert mined(edges, [every, every, {512}], Wanted(2), how) == {(frozenset(every), (0, 1))}


def planted(seed: int) -> tuple[list[tuple[int, int]], list[set[int]], Agreed]:
    """300 vertices in noise, and trees on vertices of their own with their holders, which alone 12 of 40 graphs share."""
    generator = np.random.default_rng(seed)
    edges: list[tuple[int, int]] = []
    graphs: list[set[int]] = [set() for _ in range(40)]
    expected: Agreed = set()
    for tree in range(5):
        first = 1000 + 100 * tree
        numbers = range(len(edges), len(edges) + 20)
        edges += [(first + int(generator.integers(0, node)), first + node) for node in range(1, 21)]
        holders = sorted(generator.choice(40, 12 + tree, replace=False).tolist())
        for holder in holders:
            graphs[holder].update(numbers)
        expected.add((frozenset(numbers), tuple(holders)))
    for a, b in np.unique(np.sort(generator.integers(0, 300, (3000, 2)), axis=1), axis=0).tolist():
        for holder in np.flatnonzero(generator.random(40) < 0.04):
            graphs[holder].add(len(edges))
        edges.append((a, b))
    return edges, graphs, expected


@SEARCHES
def test_planted_subgraphs_are_found(how: Search) -> None:
    edges, graphs, expected = planted(3)
    assert mined(edges, graphs, Wanted(12, 3), how) == expected


def busy() -> Collection:
    """Ten graphs of 200 random edges, each edge in most: subgraphs by the thousand."""
    generator = np.random.default_rng(0)
    edges = generator.integers(0, 40, (200, 2)).tolist()
    return collected(edges, [set(np.flatnonzero(generator.random(200) < 0.7).tolist()) for _ in range(16)])


@pytest.mark.parametrize("how", [by_graphs, by_classes])
def test_memory_does_not_grow_with_what_is_found(how: Search) -> None:
    (part,) = parts_of(busy(), 8, 3)
    for _ in (part.lacking, part.size(1)):  # made once, at the first question
        continue
    peaks = []
    tracemalloc.start()
    found = 0
    for one in how(part, Wanted(8, 3)):
        found += one is not None
        if one is not None and found % 30 == 0:
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.reset_peak()
        if found == 300:
            break
    tracemalloc.stop()
    assert found == 300
    assert max(peaks[5:]) < 1.5 * max(peaks[:5])  # found five times over, and no more kept
    assert max(peaks) < 2**21


def test_limits_stop_the_search_and_say_so() -> None:
    some = Mining(busy(), Wanted(8, 3), Limits(results=5))
    assert [one.number for one in some] == [1, 2, 3, 4, 5]
    assert for_shell(some.stopped) == "--max-results 5"
    none = Mining(busy(), Wanted(8, 3), Limits(seconds=0.0))
    assert list(none) == []
    assert for_shell(none.stopped) == "--timeout 0"
    exactly = Mining(collected(PATH, [{0, 1, 3}]), Wanted(1), Limits(results=2, seconds=60))
    assert len(list(exactly)) == 2
    assert exactly.stopped == ""


def test_the_same_order_each_time() -> None:
    def once() -> list[tuple[int, int]]:
        return [(one.classes, one.graphs) for one in Mining(busy(), Wanted(8, 3), Limits(results=300))]

    assert once() == once()


def test_too_many_classes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts_module, "MOST_CLASSES", 10)
    with pytest.raises(MiningError, match=r"kinds of edges that are connected are too many to search; raise support="):
        list(parts_of(busy(), 4))
    monkeypatch.setattr(parts_module, "MOST_CLASSES", 10**6)
    monkeypatch.setattr(parts_module, "MOST_PAIRS", 10)
    with pytest.raises(MiningError, match=r"^more than 10 pairs of edges that touch are too many to search; raise"):
        list(parts_of(busy(), 4))


def test_classes_compared_in_pieces_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [(part.sets, part.touching) for part in parts_of(busy(), 8)]
    monkeypatch.setattr(parts_module, "ROWS", 7)
    assert [(part.sets, part.touching) for part in parts_of(busy(), 8)] == whole


@pytest.mark.parametrize(
    ("text", "graphs", "count"),
    [
        ("0.8", 5, 4),
        ("0.8", 20, 16),
        ("0.81", 20, 17),
        ("1.0", 7, 7),
        ("1", 7, 1),
        ("12", 20, 12),
        ("0.01", 5, 1),
        ("1e-1", 20, 2),
        (".5", 20, 10),
        ("1.", 7, 7),
        ("1E-02", 20, 1),
    ],
)
def test_support(text: str, graphs: int, count: int) -> None:
    assert parse_support(text).among(graphs) == count


@pytest.mark.parametrize(
    "text",
    ["0", "0.0", "1.5", "-1", "-0.5", "", "half", "1/2", "nan", "2.0", "9" * 50, "+1", "0_1", ".", "1e", "1e999999999"],
)
def test_support_that_is_none(text: str) -> None:
    with pytest.raises(
        MiningError, match=r"^support=.*: give a share above 0 and at most 1.0, such as 0.8, or a number"
    ):
        parse_support(text)


def test_support_of_more_than_there_are() -> None:
    with pytest.raises(MiningError, match=r"^support=12: of 5 that are given, so many cannot agree; give 5 or less$"):
        parse_support("12").among(5)
