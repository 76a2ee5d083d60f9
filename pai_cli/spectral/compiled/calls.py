"""What the compiled part does, on arrays. It checks its arguments itself (binding.c): `ValueError` for a wrong one.

Everything here works on NumPy arrays in this machine's memory and lets the interpreter go while it runs, so threads gain.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from pai_cli.spectral.solver_table import EIGENPAIR, Eigenpairs, SolverLimits, Status

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


def pack_columns(mask: np.ndarray[Any, Any]) -> Bits:
    """Columns of a mask (rows, columns) as rows of bits: (columns, ceil(rows / 64)), bit r of a row the mask's row r."""
    rows, columns = mask.shape
    flags = np.ascontiguousarray(mask if mask.dtype == np.bool_ else mask != 0)
    words = -(-rows // 64)
    bits = np.empty((-(-columns // 64) * 64, words), dtype=np.uint64)
    if flags.size:
        kernel.pack(flags.view(np.uint8), bits)
    return bits[:columns]


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


def solve_bits(bits: Bits, ranges: Ints, limits: SolverLimits) -> Eigenpairs:
    """The two largest singular values, squared, of each range of rows of a 0/1 matrix given as bits."""
    found = np.zeros(len(ranges), dtype=EIGENPAIR)
    kernel.solve_bits(bits, ranges, limits.packed, found.view(np.float64))
    return _with_memory(found)


def solve_edges(edges: EdgeLists, ranges: Ints, touched: Ints, limits: SolverLimits) -> Eigenpairs:
    """The same of a weighted graph given as lists; `touched`: how many right vertices each range has edges to.

    Values are those of the weights over the largest weight of each range.
    """
    touched = np.ascontiguousarray(touched, dtype=np.int64)
    found = np.zeros(len(ranges), dtype=EIGENPAIR)
    lists, table = (edges.begin, edges.neighbour, edges.value), found.view(np.float64)
    kernel.solve_edges(*lists, ranges, touched, limits.packed, table, edges.right)
    return _with_memory(found)


def solve_weights(weights: np.ndarray[Any, Any], largest: float, limits: SolverLimits) -> Eigenpairs:
    """The two largest singular values, squared, of the absolute values of a matrix over `largest`, the largest of them."""
    found = np.zeros(1, dtype=EIGENPAIR)
    kernel.solve_weights(_floats(weights), limits.packed, found.view(np.float64), largest)
    return _with_memory(found)


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
