"""What the compiled part does, on arrays. It checks its arguments itself (binding.c): `ValueError` for a wrong one.

Everything here works on NumPy arrays in this machine's memory and lets the interpreter go while it runs, so threads gain.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import chain
from typing import Any

import numpy as np

from pai_cli.spectral.solver_table import EIGENPAIR, Eigenpairs, SolverLimits, Status
from pai_cli.spectral.spreading import Spread

kernel: Any
try:
    kernel = import_module("pai_cli.spectral.compiled._kernel")
except ImportError:  # installed without a compiler
    kernel = None

Bits = np.ndarray[Any, np.dtype[np.uint64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, np.dtype[np.float64]]


def available() -> bool:
    """Whether the compiled part is there."""
    return kernel is not None


@dataclass(frozen=True)
class EdgeLists:
    """Left vertices and their edges: those of vertex v stand from begin[v] to begin[v + 1].

    begin: (n + 1) int64. neighbour: right vertices, increasing within a list, int32. value: of each edge, float64. right:
    how many right vertices there are.
    """

    begin: Ints
    neighbour: np.ndarray[Any, np.dtype[np.int32]]
    value: Floats
    right: int


def arrange(mask: np.ndarray[Any, Any]) -> tuple[Bits, Ints, Ints, Ints]:
    """Columns of a boolean mask (rows, columns) that have an edge, as rows of bits: (n, ceil(rows / 64)), bit r of a row the
    mask's row r; sorted by degree, those of one degree in their own order. With them which columns they are, their degrees,
    and the degrees of all rows.
    """
    rows, columns = mask.shape
    packed, right = np.empty((-(-columns // 64) * 64, -(-rows // 64)), dtype=np.uint64), np.zeros(rows, dtype=np.int64)
    if mask.size:
        kernel.pack(np.ascontiguousarray(mask).view(np.uint8), packed, right)
    bits, sorted_bits = packed[:columns], np.empty((columns, packed.shape[1]), dtype=np.uint64)
    at, left = np.empty((2, columns), dtype=np.int64)
    n = kernel.arrange(bits, sorted_bits, at, left)
    return sorted_bits[:n], at[:n], left[:n], right


def component_count(bits: Bits) -> int:
    """Connected components of the graph whose left vertices are the rows of `bits`, each with at least one set."""
    return int(kernel.components(bits)) if len(bits) else 0


def edges_of_bits(bits: Bits, degrees: Ints | None = None) -> tuple[Ints, np.ndarray[Any, np.dtype[np.int32]]]:
    """`begin` and `neighbour` of the graph, as in `EdgeLists`; `degrees`: how many bits each row has, if that is known."""
    begin = np.zeros(len(bits) + 1, dtype=np.int64)
    np.cumsum(np.bitwise_count(bits).sum(axis=1, dtype=np.int64) if degrees is None else degrees, out=begin[1:])
    neighbour = np.empty(begin[-1], dtype=np.int32)
    kernel.neighbours(bits, neighbour)
    return begin, neighbour


def weights_of_edges(
    begin: Ints, neighbour: np.ndarray[Any, np.dtype[np.int32]], columns: Ints, weights: np.ndarray[Any, Any]
) -> Floats:
    """`value` of the graph, as in `EdgeLists`: |W| in row `neighbour` and, for left vertex `v`, column `columns[v]`.

    weights: (rows, columns), real.
    """
    value = np.empty(len(neighbour))
    kernel.weights(begin, neighbour, np.ascontiguousarray(columns), _floats(weights), value)
    return value


def _floats(weights: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """As the compiled part reads them: contiguous float32 or float64, of this machine's byte order."""
    dtype = np.float32 if weights.dtype == np.float32 else np.float64
    return np.ascontiguousarray(weights, dtype=dtype)


Graph = Any
"""A graph that the compiled part has checked, and that holds its arrays: who writes to them meanwhile gets anything."""


def graph_of_bits(bits: Bits) -> Graph:
    """A 0/1 matrix given as bits, its rows the left vertices."""
    return kernel.graph_of_bits(bits)


def graph_of_edges(edges: EdgeLists) -> Graph:
    """A weighted graph given as lists. Values found are those of the weights over the largest weight of each part."""
    return kernel.graph_of_lists(edges.begin, edges.neighbour, edges.value, edges.right)


def graph_of_weights(weights: np.ndarray[Any, Any], largest: float) -> Graph:
    """The absolute values of a whole matrix over `largest`, the largest of them, of which the range 0 to 1 is all."""
    return kernel.graph_of_weights(_floats(weights), largest)


@dataclass(frozen=True)
class Parts:
    """Parts of a graph to be solved: `ranges` (k, 2) of its left vertices; how many right vertices each touches, which
    matters with lists of edges.
    """

    graph: Graph
    ranges: Ints
    touched: Ints
    limits: SolverLimits


MOST_WORKERS = 16  # who may work on a queue at the same time; those who find it empty go at once


class Queue:
    """Parts, of at least one graph, of which everyone who works takes the next that nobody has.

    `order`: in which they are begun; `spread`: who works: one at once, all from `join` on. Without it, who asks for what is
    found works.
    """

    def __init__(self, every: Sequence[Parts], order: Ints | None = None, spread: Spread | None = None):
        self._sizes = [len(one.ranges) for one in every]
        self._order = slice(None) if order is None else order
        owner = np.repeat(np.arange(len(every)), self._sizes)[self._order]
        ranges, touched = (
            np.concatenate([getattr(one, name) for one in every])[self._order] for name in ("ranges", "touched")
        )
        self._found, self._next = np.zeros(len(owner), dtype=EIGENPAIR), np.zeros(1, dtype=np.int64)
        limits, graphs = np.stack([one.limits.packed for one in every]), tuple(one.graph for one in every)
        self._queue = kernel.queue(limits, owner, ranges, touched, self._found.view(np.float64), self._next, graphs)
        self._spread, self._at_work = spread, 0
        self._work: list[Iterable[None]] = []
        self._put_to_work(1)

    def _put_to_work(self, workers: int) -> None:
        if self._spread is None or self._at_work >= workers:
            return
        others, self._at_work = workers - self._at_work, workers
        try:
            self._work.append(self._spread(kernel.work, [self._queue] * others))
        except BaseException:  # some may be at work already
            self.close()
            raise

    def join(self) -> None:
        """Let all work who are free."""
        self._put_to_work(MOST_WORKERS)

    def found(self) -> list[Eigenpairs]:
        """The two largest singular values, squared, of each part. Raises `MemoryError`."""
        self.join()
        if self._spread is None:
            kernel.work(self._queue)
        list(chain.from_iterable(self._work))  # waits for each, and raises what one raised
        found = np.empty_like(self._found)
        found[self._order] = _with_memory(self._found)
        return np.split(found, np.cumsum(self._sizes)[:-1])

    def close(self) -> None:
        """Whoever still works begins no other part."""
        self._next[0] = len(self._found)


def solve(every: Sequence[Parts]) -> list[Eigenpairs]:
    """What is found for each part, in this thread. Raises `MemoryError`."""
    return Queue(every).found()


def solve_bits(bits: Bits, ranges: Ints, limits: SolverLimits) -> Eigenpairs:
    """`solve` of ranges of rows of bits."""
    return solve([Parts(graph_of_bits(bits), ranges, np.zeros(len(ranges), dtype=np.int64), limits)])[0]


def solve_edges(edges: EdgeLists, ranges: Ints, touched: Ints, limits: SolverLimits) -> Eigenpairs:
    """`solve` of ranges of left vertices of lists."""
    touched = np.ascontiguousarray(touched, dtype=np.int64)
    return solve([Parts(graph_of_edges(edges), ranges, touched, limits)])[0]


def solve_gram(gram: Floats, limits: SolverLimits) -> Eigenpairs:
    """The two largest eigenvalues of one Gram matrix (n, n), n >= 1."""
    side = gram.shape[0]
    if gram.shape != (side, side) or side < 1:
        raise ValueError(f"a Gram matrix of shape {gram.shape}")
    stored = -(-side // 4) * 4
    if stored != side or not gram.flags.c_contiguous or gram.dtype != np.float64:
        padded = np.zeros((stored, stored))
        padded[:side, :side] = gram
        gram = padded
    found = np.zeros(1, dtype=EIGENPAIR)
    kernel.solve_gram(gram, limits.packed, found.view(np.float64), side)
    return _with_memory(found)


@dataclass(frozen=True, eq=False)
class Eliminated:
    """[[s I, A], [A^T, s I]] taken apart into L D L^T and a rest.

    below: how many entries of D are negative. rest: (r, r), symmetric, writable; None where `below` is past what was asked
    for. weight: the largest row sum of |L| |D| |L^T| + |rest|. updates: how often an entry was changed at most.
    """

    below: int
    rest: Floats | None
    weight: float
    updates: int


def eliminate(
    edges: EdgeLists, shift: float, *, most_below: int, most_rest: int, most_entries: float, most_work: float
) -> Eliminated | None:
    """The vertices but a rest of at most `most_rest` eliminated, the least degree first; None where that needs more memory
    or work. Raises `MemoryError`.
    """
    limits = np.array([shift, most_below, most_rest, most_entries, most_work], dtype=np.float64)
    out = np.zeros(6)
    rest = kernel.eliminate(edges.begin, edges.neighbour, edges.value, limits, out, edges.right)
    status, below, weight, updates, side, _ = out.tolist()
    if status:
        return None
    whole = None if below > most_below else np.frombuffer(rest).reshape(int(side), int(side))
    return Eliminated(int(below), whole, weight, int(updates))


def _with_memory(found: Eigenpairs) -> Eigenpairs:
    if (found["status"] == Status.NO_MEMORY).any():
        raise MemoryError("no memory for a Gram matrix")
    return found
