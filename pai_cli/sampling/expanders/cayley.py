"""The Ramanujan graphs of Lubotzky, Phillips, Sarnak: Cayley graphs of 2 x 2 matrices over a prime field.

"Ramanujan graphs", Combinatorica 8 (1988) 261-277.
"""

from __future__ import annotations

from itertools import product
from math import isqrt
from typing import Any

import numpy as np

from pai_cli.sampling.expanders.biregular import Matrix
from pai_cli.sampling.expanders.fields import is_prime

Ints = np.ndarray[Any, np.dtype[np.int64]]


def size(q: int) -> int:
    """Vertices on each side of X^{p,q}."""
    return q * (q * q - 1) // 2


def exists(p: int, q: int) -> bool:
    """Whether X^{p,q} is a simple graph: different primes of remainder 1 by 4, q > 2 sqrt(p)."""
    return p != q and all(is_prime(n) and n % 4 == 1 for n in (p, q)) and q * q > 4 * p


def lps(p: int, q: int) -> Matrix:
    """X^{p,q} as a bipartite graph: q (q^2 - 1) / 2 rows and as many columns, every degree p + 1, sigma_2 <= 2 sqrt(p).

    Where p is no square modulo q the graph is bipartite, and these are its two sides; where it is one, rows and columns are
    the same vertices. Raises `ValueError` when the graph does not exist or is not simple.
    """
    if not exists(p, q):
        raise ValueError(f"X^({p},{q}) needs different primes of remainder 1 by 4, q above 2 sqrt(p)")
    elements = _elements(q)
    codes = _code(elements, q)
    place = np.full(q**4, -1)
    place[codes] = np.arange(len(codes))
    squares = np.zeros(q, dtype=np.bool_)
    squares[np.arange(1, q) ** 2 % q] = True
    even = squares[_determinants(elements, q)]
    rank = np.where(even, np.cumsum(even) - 1, np.cumsum(~even) - 1)
    rows = np.flatnonzero(even)
    matrix = np.zeros((len(rows), len(rows)), dtype=np.bool_)
    for generator in _generators(p, q):
        there = place[_code(_canonical(_times(elements[rows], generator, q), q), q)]
        matrix[np.arange(len(rows)), rank[there]] = True
    return matrix


def _generators(p: int, q: int) -> list[Ints]:
    """The p + 1 matrices of determinant p: of p as a sum of four squares, the first odd and above 0, the others even."""
    root = next(i for i in range(q) if (i * i + 1) % q == 0)
    bound = isqrt(p)
    even = range(-bound + bound % 2, bound + 1, 2)
    return [
        np.array([[a + root * b, c + root * d], [-c + root * d, a - root * b]]) % q
        for a in range(1, bound + 1, 2)
        for b, c, d in product(even, repeat=3)
        if a * a + b * b + c * c + d * d == p
    ]


def _elements(q: int) -> Ints:
    """Every invertible matrix up to a factor: those whose first entry that is not 0 is 1, (n, 2, 2)."""
    a, b, c, d = (grid.reshape(-1) for grid in np.meshgrid(*[np.arange(q)] * 4, indexing="ij"))
    every = np.stack([a, b, c, d], axis=1).reshape(-1, 2, 2)
    invertible: Ints = every[(_determinants(every, q) != 0) & ((a == 1) | ((a == 0) & (b == 1)))]
    return invertible


def _determinants(matrices: Ints, q: int) -> Ints:
    found: Ints = (matrices[:, 0, 0] * matrices[:, 1, 1] - matrices[:, 0, 1] * matrices[:, 1, 0]) % q
    return found


def _times(matrices: Ints, right: Ints, q: int) -> Ints:
    return matrices @ right % q


def _canonical(matrices: Ints, q: int) -> Ints:
    inverse = np.array([0, *(pow(k, -1, q) for k in range(1, q))])
    first = np.where(matrices[:, 0, 0] != 0, matrices[:, 0, 0], matrices[:, 0, 1])
    canonical: Ints = matrices * inverse[first][:, None, None] % q
    return canonical


def _code(matrices: Ints, q: int) -> Ints:
    code: Ints = matrices.reshape(-1, 4) @ q ** np.arange(4)
    return code
