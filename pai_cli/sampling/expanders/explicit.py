"""Which graphs that are known in advance fit a layer exactly: its rows, columns and number of edges."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from math import isqrt

import numpy as np

from pai_cli.sampling.expanders import cayley
from pai_cli.sampling.expanders.biregular import Matrix, Rng
from pai_cli.sampling.expanders.fields import prime_power
from pai_cli.sampling.expanders.lifts import lift, signing
from pai_cli.sampling.expanders.planes import affine_plane, copies, projective_plane

LEAST_DEGREE = 3  # under which the gaps are not defined

Make = Callable[[int, Rng], Matrix]


@dataclass(frozen=True)
class Fit:
    """A graph of the wanted size: `make(steps, rng)` makes it, rows and columns in a random order.

    `is_best`: whether no graph of those degrees has a smaller sigma_2, as of the planes.
    """

    name: str
    make: Make
    is_best: bool = False


def fitting(rows: int, columns: int, edges: int) -> list[Fit]:
    """The known graphs that have exactly these sizes, planes first."""
    return [*planes(rows, columns, edges), *_cayley_graphs(rows, columns, edges), *_lifted(rows, columns, edges)]


def planes(rows: int, columns: int, edges: int) -> Iterator[Fit]:
    """Copies of finite planes side by side, their transposes and complements."""
    if rows > columns:
        for fit in planes(columns, rows, edges):
            yield Fit(fit.name, partial(_turned, fit.make), fit.is_best)
        return
    for name, q, design, blocks, size in _designs(rows):
        if columns % blocks == 0:
            count = columns // blocks
            text = name if count == 1 else f"{count} x {name}"
            plain = partial(_copies, design, q, count)
            if edges == columns * size:
                yield Fit(text, plain, is_best=True)
            elif edges == columns * (rows - size):
                yield Fit(f"complement of {text}", partial(_complement, plain), is_best=True)


def _designs(points: int) -> Iterator[tuple[str, int, Callable[[int], Matrix], int, int]]:
    """Planes of so many points: name, order, how to make it, lines, points on a line."""
    q = isqrt(points)
    if q * q == points and prime_power(q):
        yield f"AG(2,{q})", q, affine_plane, q * q + q, q
    if q * q + q + 1 == points and prime_power(q):
        yield f"PG(2,{q})", q, projective_plane, points, q + 1


def _cayley_graphs(rows: int, columns: int, edges: int) -> Iterator[Fit]:
    if rows != columns or edges % rows:
        return
    p = edges // rows - 1
    for q in range(5, round((2 * rows) ** (1 / 3)) + 2):
        if cayley.size(q) == rows and cayley.exists(p, q):
            yield Fit(f"LPS({p},{q})", partial(_cayley, p, q))


def _lifted(rows: int, columns: int, edges: int) -> Iterator[Fit]:
    """Repeated 2-lifts of complete graphs and of planes, of the largest that fits."""
    times = 1
    while rows % 2 == columns % 2 == edges % 2 == 0:
        rows, columns, edges = rows // 2, columns // 2, edges // 2
        if min(rows, columns) < LEAST_DEGREE:
            return
        base = next(planes(rows, columns, edges), None)
        if edges == rows * columns:
            base = Fit(f"K({rows},{columns})", partial(_complete, rows, columns))
        if base is not None:
            again = "2-lift" if times == 1 else f"{times} times the 2-lift"
            yield Fit(f"{again} of {base.name}", partial(_lifts, base.make, times))
            return
        times += 1


def _copies(design: Callable[[int], Matrix], q: int, count: int, steps: int, rng: Rng) -> Matrix:
    del steps
    return copies(design(q), count, rng)


def _turned(make: Make, steps: int, rng: Rng) -> Matrix:
    return make(steps, rng).T


def _complement(make: Make, steps: int, rng: Rng) -> Matrix:
    return ~make(steps, rng)


def _complete(rows: int, columns: int, steps: int, rng: Rng) -> Matrix:
    del steps, rng
    return np.ones((rows, columns), dtype=np.bool_)


def _cayley(p: int, q: int, steps: int, rng: Rng) -> Matrix:
    del steps
    return _relabelled(cayley.lps(p, q), rng)


def _lifts(base: Make, times: int, steps: int, rng: Rng) -> Matrix:
    matrix = base(steps, rng)
    for _ in range(times):
        matrix = lift(matrix, signing(matrix, steps, rng))
    return _relabelled(matrix, rng)


def _relabelled(matrix: Matrix, rng: Rng) -> Matrix:
    return matrix[rng.permutation(len(matrix))][:, rng.permutation(matrix.shape[1])]
