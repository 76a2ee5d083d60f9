"""Maximal frequent connected subgraphs: times, counts and memory, beside brute force and itemset mining.

    python benchmarks/mining.py --limit 60 --cases planted small

`make bench` runs it. Seconds are processor time of one process. Each case is mined by the search that `pai mine` takes for
it; --both then runs both, each until --limit seconds.

parts     connected parts in which a subgraph can be
classes   of the largest part: edges that touch and that the same graphs hold are one
prep      seconds to collapse edges to classes and find who touches whom
search    seconds until all is found
peak      MiB that the search held at once beside the parts, by tracemalloc, over the first --traced found
brute     rival: components of what every `support` graphs have in common, those that no other contains
fpmax     rival: mlxtend's fpmax (maximal frequent itemsets; an item is an edge), then the components of each, those that no
          other contains; left out where mlxtend is not installed

Rivals run in a process of their own, are stopped after --limit seconds, and must find the same.

At last lists of edges are read, 90,000 edges of 10,000 vertices each, that are called by names and by numbers.

erk        20 ERK masks of one ResNet-20 at density 0.05, units, support 10; erk-12 the first 12, support 6
synflow    20 SynFlow masks (20 rounds), each of a ResNet-20 with its own seed; magnitude the same
planted    10,000 vertices, 200,000 edges, each in a graph with probability 0.1, and 20 trees of 30 edges, each tree in 15 of
           the 50 graphs; support 10; noise the same with probability 0.2
local      50 graphs of 600 edges of 200 vertices, each in a graph with probability 0.9, support 40
small      12 graphs of 30 edges of 12 vertices, each in a graph with probability 0.7, support 6
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
import tracemalloc
from collections.abc import Callable, Iterable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path
from queue import Empty
from tempfile import TemporaryDirectory

import numpy as np
from machine import describe
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from tables import LEFT, Table

from pai_cli.methods.registry import get
from pai_cli.mining.collection import Collection, add_holder, empty_holders
from pai_cli.mining.opening import graph_collection
from pai_cli.mining.parts import Part, parts_of
from pai_cli.mining.search import Wanted, by_classes, by_graphs, maximal

Case = tuple[Collection, Wanted]
Agreed = set[frozenset[int]]

COLUMNS = (
    ("case", 9, LEFT),
    ("graphs", 6, "d"),
    ("edges", 7, ",d"),
    ("support", 7, "d"),
    ("parts", 5, ",d"),
    ("classes", 7, ",d"),
    ("prep s", 6, ".2f"),
    ("search s", 8, ".2f"),
    ("found", 9, ",d"),
    ("largest", 7, ",d"),
    ("peak MiB", 8, ".2f"),
    ("brute s", 8, LEFT),
    ("fpmax s", 8, LEFT),
)


def collected(ends: NDArray[np.int64], held: NDArray[np.bool_]) -> Collection:
    """A collection of plain graphs; `held` is (edges, graphs)."""
    holders = empty_holders(len(ends), held.shape[1])
    for graph in range(held.shape[1]):
        add_holder(holders, held[:, graph], graph)
    names = tuple(str(graph) for graph in range(held.shape[1]))
    group = np.zeros(len(ends), np.int32)
    return Collection(names, ends, holders, group, ("all",), (len(ends),), lambda some: [str(edge) for edge in some])


@cache
def of_masks(method: str, count: int = 20, *, one_network: bool) -> Case:
    """Masks of ResNet-20 by a method of the package, at the level of units."""
    from pai_cli.files.masks import MaskFile, MaskToWrite, write_mask
    from pai_cli.mining.networks import collection_of_masks
    from pai_cli.mining.wiring import named_wiring
    from pai_cli.models.network import init_network
    from pai_cli.pruning.run import PruneRequest, choose_masks

    with TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{seed}.safetensors" for seed in range(count)]
        for seed, path in enumerate(paths):
            network = init_network("resnet20", 10, 0 if one_network else seed)
            request = PruneRequest(
                get(method),
                0.05,
                seed=seed,
                input_shape=network.input_shape,
                rounds=20 if method == "synflow" else None,
            )
            layouts = {layer.name: layer.layout for layer in network.layers}
            mask = MaskToWrite(choose_masks(network, request)[0], layouts, {})
            write_mask(path, mask, packed=False, force=False)
        wiring = named_wiring({layer.name: layer.shape for layer in network.layers}, layouts)
        return collection_of_masks([MaskFile(path) for path in paths], wiring), Wanted(count // 2, 3)


def random_graphs(vertices: int, edges: int, graphs: int, share: float, trees: int = 0) -> Collection:
    """Each edge in each graph on its own; trees of 30 edges on vertices of the noise, each whole in 15 of the graphs."""
    generator = np.random.default_rng(0)
    ends = np.unique(np.sort(generator.integers(0, vertices, (edges + edges // 2, 2)), axis=1), axis=0)
    ends = ends[np.sort(generator.permutation(len(ends))[:edges])]
    held = generator.random((len(ends), graphs)) < share
    for _ in range(trees):
        names = generator.choice(vertices, 31, replace=False)
        tree = np.array([(names[generator.integers(0, node)], names[node]) for node in range(1, 31)])
        there = np.zeros((30, graphs), np.bool_)
        there[:, generator.choice(graphs, 15, replace=False)] = True
        ends, held = np.concatenate([ends, tree]), np.concatenate([held, there])
    return collected(ends, held)


CASES: dict[str, Callable[[], Case]] = {
    "erk": lambda: of_masks("erk", one_network=True),
    "erk-12": lambda: of_masks("erk", 12, one_network=True),
    "synflow": lambda: of_masks("synflow", one_network=False),
    "magnitude": lambda: of_masks("magnitude", one_network=False),
    "planted": lambda: (random_graphs(10_000, 200_000, 50, 0.1, trees=20), Wanted(10, 3)),
    "noise": lambda: (random_graphs(10_000, 200_000, 50, 0.2, trees=20), Wanted(10, 3)),
    "local": lambda: (random_graphs(200, 600, 50, 0.9), Wanted(40, 3)),
    "small": lambda: (random_graphs(12, 30, 12, 0.7), Wanted(6, 3)),
}


def connected(collection: Collection, edges: NDArray[np.int64]) -> list[frozenset[int]]:
    """The connected components of some edges."""
    vertices, ends = np.unique(collection.ends[edges], return_inverse=True)
    ends = ends.reshape(-1, 2)
    graph = coo_array((np.ones(len(edges)), (ends[:, 0], ends[:, 1])), shape=(len(vertices), len(vertices)))
    label = connected_components(graph, directed=False)[1][ends[:, 0]]
    order = np.argsort(label, kind="stable")
    return [frozenset(some.tolist()) for some in np.split(edges[order], np.flatnonzero(np.diff(label[order])) + 1)]


def largest(candidates: Iterable[frozenset[int]], least: int) -> Agreed:
    """Those that no other contains: larger ones are looked up by their edges."""
    kept: list[frozenset[int]] = []
    holding: dict[int, set[int]] = {}
    for one in sorted(set(candidates), key=len, reverse=True):
        if len(one) >= least and not set.intersection(*(holding.get(edge, set()) for edge in one)):
            for edge in one:
                holding.setdefault(edge, set()).add(len(kept))
            kept.append(one)
    return set(kept)


def held_flags(collection: Collection) -> NDArray[np.bool_]:
    """(graphs, edges): which graph holds which edge."""
    return np.stack([collection.held_by(graph) for graph in range(len(collection.names))])


def brute(collection: Collection, wanted: Wanted) -> Agreed:
    """Every set of `support` graphs: larger sets have nothing in common that these have not."""
    held = held_flags(collection)
    found: Agreed = set()
    for chosen in combinations(range(len(held)), wanted.support):
        edges = np.flatnonzero(held[list(chosen)].all(axis=0))
        if len(edges):
            found.update(connected(collection, edges))
    return largest(found, wanted.least)


def fpmax(collection: Collection, wanted: Wanted) -> Agreed:
    """Maximal frequent itemsets by mlxtend, taken apart. A connected set is frequent only within a frequent itemset."""
    held = held_flags(collection)
    often = np.flatnonzero(held.sum(axis=0) >= wanted.support)
    frame = import_module("pandas").DataFrame(held[:, often], columns=[str(edge) for edge in often])
    mine = import_module("mlxtend.frequent_patterns").fpmax
    sets = mine(frame, min_support=wanted.support / len(held) - 1e-9, use_colnames=True)["itemsets"]
    return largest(
        (one for items in sets for one in connected(collection, np.array(sorted(map(int, items))))), wanted.least
    )


RIVALS = {"brute": brute, "fpmax": fpmax}


def _work(rival: str, case: str, answer: multiprocessing.Queue[tuple[float, Agreed]]) -> None:
    collection, wanted = CASES[case]()
    begin = time.process_time()
    found = RIVALS[rival](collection, wanted)
    answer.put((time.process_time() - begin, found))


def rival_cell(rival: str, case: str, limit: float, expected: Agreed) -> str:
    """A rival's seconds, or why there are none. Raises `SystemExit` where it finds something else."""
    if rival == "fpmax" and find_spec("mlxtend") is None:
        return "no mlxtend"
    context = multiprocessing.get_context("spawn")
    answer: multiprocessing.Queue[tuple[float, Agreed]] = context.Queue()
    process = context.Process(target=_work, args=(rival, case, answer))
    process.start()
    try:
        seconds, found = answer.get(timeout=limit + 30)  # a case with networks takes its time to make
    except Empty:
        process.terminate()
        return f"> {limit:g}"
    process.join()
    if found != expected:
        raise SystemExit(f"{case}: {rival} finds {len(found)} others, {len(expected)} here")
    return f"{seconds:.2f}"


def traced_peak(part: Part, wanted: Wanted, most: int) -> float:
    """MiB held at once by the search of a part."""
    part.size(part.common(part.everything))  # what is made once, at the first question
    tracemalloc.start()
    found = 0
    for one in maximal(part, wanted):
        found += one is not None
        if found == most:
            break
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


def show(table: Table, name: str, options: argparse.Namespace) -> None:
    """Mine a case and print its row."""
    collection, wanted = CASES[name]()
    begin = time.process_time()
    parts = list(parts_of(collection, wanted.support, wanted.least))
    prepared = time.process_time()
    number = size = 0
    agreed: Agreed = set()
    for part in parts:
        for one in maximal(part, wanted):
            if one is not None:
                number, size = number + 1, max(size, part.size(one[0]))
    searched = time.process_time()
    small = number <= options.compare
    if small:
        agreed = {
            frozenset(p.edges_of(one[0]).tolist()) for p in parts for one in maximal(p, wanted) if one is not None
        }
    classes = max((len(part.sets) for part in parts), default=0)
    peak = max((traced_peak(part, wanted, options.traced) for part in parts), default=0.0)
    cells = [rival_cell(rival, name, options.limit, agreed) if small else "not run" for rival in RIVALS]
    table.row(
        name,
        len(collection.names),
        collection.edges,
        wanted.support,
        len(parts),
        classes,
        prepared - begin,
        searched - prepared,
        number,
        size,
        peak,
        *cells,
    )


def show_both(name: str, limit: float) -> None:
    """Both searches on one case, until the limit: what they find a second."""
    collection, wanted = CASES[name]()
    for how in (by_graphs, by_classes):
        begin, number, steps, done = time.process_time(), 0, 0, True
        for part in parts_of(collection, wanted.support, wanted.least):
            for one in how(part, wanted):
                number, steps = number + (one is not None), steps + 1
                if steps % 64 == 0 and time.process_time() - begin > limit:
                    done = False
                    break
        seconds = time.process_time() - begin
        print(
            f"{name:9}  {how.__name__:10}  {number:9,d} found in {seconds:7.2f} s{'' if done else ', stopped'}",
            flush=True,
        )


def show_memory(name: str) -> None:
    """The most that the search holds at once, by tracemalloc, from one number of subgraphs found to the next."""
    collection, wanted = CASES[name]()
    found, line = 0, []

    def mark() -> None:
        line.append(f"{found:,}: {tracemalloc.get_traced_memory()[1] / 2**20:.2f}")
        tracemalloc.reset_peak()

    for part in parts_of(collection, wanted.support, wanted.least):
        part.size(part.common(part.everything))  # what is made once, at the first question
        tracemalloc.start()
        for one in maximal(part, wanted):
            found += one is not None
            if one is not None and found in (100, 1_000, 10_000, 100_000):
                mark()
        mark()
        tracemalloc.stop()
    print(f"{name}: MiB held at once until so many are found, since the number before: {'; '.join(line)}", flush=True)


def show_reading(graphs: int) -> None:
    """Processor seconds, the best of three, from so many lists of edges to a collection."""
    generator = np.random.default_rng(0)
    ends = generator.integers(0, 10_000, (200_000, 2))
    for kind, called in (("names", "AT{}G{:05d}"), ("numbers", "{}{:04d}")):
        names = [called.format(vertex % 5, vertex) for vertex in range(10_000)]
        with TemporaryDirectory() as folder:
            paths = [Path(folder) / f"{graph}.tsv" for graph in range(graphs)]
            for path in paths:
                some = ends[generator.choice(len(ends), 90_000, replace=False)].tolist()
                path.write_text("".join(f"{names[a]}\t{names[b]}\n" for a, b in some))
            seconds = []
            for _ in range(3):
                begin = time.process_time()
                graph_collection(paths, lambda _: None)
                seconds.append(time.process_time() - begin)
        print(f"{graphs} lists of edges by {kind}: {min(seconds):.2f} s", flush=True)


def main() -> None:
    """Print a line a case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--limit", type=float, default=60.0, help="seconds for a rival")
    parser.add_argument("--compare", type=int, default=20_000, help="subgraphs up to which rivals are run")
    parser.add_argument("--traced", type=int, default=20_000, help="subgraphs found under tracemalloc")
    parser.add_argument("--both", action="store_true", help="also both searches on each case")
    parser.add_argument("--quick", action="store_true", help="the cases without networks but one, rivals for 20 s")
    options = parser.parse_args()
    if options.quick:
        options.cases, options.limit, options.traced = ["erk", "planted", "small"], 20.0, 2_000
    describe()
    table = Table(COLUMNS)
    table.head()
    for name in options.cases:
        show(table, name, options)
    if options.both:
        for name in options.cases:
            show_both(name, options.limit)
    for name in options.cases:
        if name in ("erk", "synflow", "magnitude"):
            show_memory(name)
    show_reading(8 if options.quick else 50)


if __name__ == "__main__":
    main()
