"""Bipartite graphs to test with: masks (rows, columns) as boolean arrays, and weights of awkward ranges for them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
from numpy.typing import NDArray

from pai_cli.spectral.result import SingularPair

Mask = NDArray[np.bool_]
Matrix = NDArray[np.float64]
Rng = np.random.Generator

EPS = 2.0**-52

# (rows, columns) of every layer as unrolled, each once; the fully connected ones for CIFAR-10.
RESNET20 = ((16, 27), (16, 144), (32, 144), (32, 16), (32, 288), (64, 288), (64, 32), (64, 576), (10, 64))
VGG16 = (
    (64, 27),
    (64, 576),
    (128, 576),
    (128, 1152),
    (256, 1152),
    (256, 2304),
    (512, 2304),
    (512, 4608),
    (512, 512),
    (10, 512),
)


def uniform(rng: Rng, rows: int, columns: int, density: float) -> Mask:
    """Each edge on its own with probability `density`."""
    return rng.random((rows, columns)) < density


def exactly(rng: Rng, rows: int, columns: int, edges: int) -> Mask:
    """A uniform choice of `edges` edges."""
    mask = np.zeros(rows * columns, dtype=bool)
    mask[rng.permutation(rows * columns)[:edges]] = True
    return mask.reshape(rows, columns)


def skewed(rng: Rng, rows: int, columns: int, density: float) -> Mask:
    """Lognormal degrees on both sides, as a global magnitude threshold leaves them."""
    scores = rng.random((rows, columns)) * np.exp(rng.normal(0, 1, (rows, 1)) + rng.normal(0, 1, (1, columns)))
    return scores > np.quantile(scores, 1 - density)


def biregular(rng: Rng, rows: int, columns: int, degree: int) -> Mask:
    """`degree` edges at each column and `columns * degree / rows`, if that is whole, at each row."""
    mask = np.zeros((rows, columns), dtype=bool)
    for column in range(columns):
        mask[(column * degree + np.arange(degree)) % rows, column] = True
    ends = np.argwhere(mask)
    for a, b in rng.integers(len(ends), size=(10 * len(ends), 2)):  # two edges change ends: all degrees stay
        (i, j), (k, m) = ends[a], ends[b]
        if not mask[i, m] and not mask[k, j]:
            mask[i, j] = mask[k, m] = False
            mask[i, m] = mask[k, j] = True
            ends[a], ends[b] = (i, m), (k, j)
    return shuffled(rng, mask)


def biregular_rounds(rng: Rng, degree: int, per_round: int, rounds: int) -> Mask:
    """`degree * per_round` rows of degree `rounds`, `per_round * rounds` columns of degree `degree`.

    Each round deals every row out once, `degree` to a column, so no edge is drawn twice and there is nothing to repair.
    """
    rows, columns = degree * per_round, per_round * rounds
    deals = rng.permuted(np.tile(np.arange(rows), (rounds, 1)), axis=1).reshape(columns, degree)
    mask = np.zeros((rows, columns), dtype=bool)
    mask[deals, np.arange(columns)[:, None]] = True
    return shuffled(rng, mask)


def stars(rng: Rng, centres: int, leaves: int) -> Mask:
    """Every row has one edge, to any of `centres` columns; so all components are stars."""
    return np.arange(centres) == rng.integers(0, centres, (leaves, 1))


def union(*masks: Mask) -> Mask:
    """Side by side, with no edge between them."""
    result = np.zeros((sum(m.shape[0] for m in masks), sum(m.shape[1] for m in masks)), dtype=bool)
    row = column = 0
    for mask in masks:
        result[row : row + mask.shape[0], column : column + mask.shape[1]] = mask
        row, column = row + mask.shape[0], column + mask.shape[1]
    return result


def with_isolated(rng: Rng, mask: Mask, rows: int, columns: int) -> Mask:
    """`mask` with empty rows and columns put in anywhere."""
    result = np.zeros((mask.shape[0] + rows, mask.shape[1] + columns), dtype=bool)
    at_rows = np.sort(rng.permutation(result.shape[0])[: mask.shape[0]])
    at_columns = np.sort(rng.permutation(result.shape[1])[: mask.shape[1]])
    result[np.ix_(at_rows, at_columns)] = mask
    return result


def shuffled(rng: Rng, mask: Mask) -> Mask:
    """The same graph with its rows and columns in another order."""
    return mask[rng.permutation(mask.shape[0])][:, rng.permutation(mask.shape[1])]


def near_complete(rng: Rng, rows: int, columns: int, zeros: int) -> Mask:
    """Ones everywhere but in `zeros` places."""
    return ~exactly(rng, rows, columns, zeros)


def rank_two(rng: Rng, rows: int, columns: int) -> Mask:
    """Two kinds of rows, overlapping in some columns: only two singular values are not 0."""
    kinds = np.zeros((2, columns), dtype=bool)
    kinds[0, : 2 * columns // 3 + 1] = True
    kinds[1, columns // 3 :] = True
    return shuffled(rng, kinds[(np.arange(rows) % 3 == 0).astype(int)])


def projective_plane(q: int) -> Mask:
    """Points and lines of PG(2, q), q prime: q^2 + q + 1 of each, q + 1 points on a line, two lines share one point."""
    points = np.array([(1, a, b) for a, b in product(range(q), repeat=2)] + [(0, 1, a) for a in range(q)] + [(0, 0, 1)])
    return (points @ points.T) % q == 0


def even_cycle(half: int) -> Mask:
    """The cycle of `2 * half` vertices, `half` on each side."""
    return np.eye(half, dtype=bool) | np.roll(np.eye(half, dtype=bool), 1, axis=1)


def _sizes(rng: Rng, low: int, high: int) -> tuple[int, int]:
    return int(rng.integers(low, high)), int(rng.integers(low, high))


def either_way(rng: Rng, mask: Mask) -> Mask:
    """`mask` or its transpose."""
    return mask if rng.random() < 0.5 else np.ascontiguousarray(mask.T)


def _small(rng: Rng) -> Mask:
    return uniform(rng, *_sizes(rng, 2, 14), density=0.5)


KINDS: dict[str, Callable[[Rng], Mask]] = {
    "uniform": lambda rng: uniform(rng, *_sizes(rng, 2, 60), density=rng.uniform(0.02, 0.98)),
    "sparse": lambda rng: uniform(rng, *_sizes(rng, 10, 60), density=0.03),
    "skewed": lambda rng: skewed(rng, *_sizes(rng, 4, 60), density=rng.uniform(0.02, 0.6)),
    "biregular": lambda rng: biregular(
        rng, int(rng.integers(6, 20)), int(rng.integers(4, 40)), int(rng.integers(2, 6))
    ),
    "disconnected": lambda rng: shuffled(rng, union(*(_small(rng) for _ in range(rng.integers(2, 5))))),
    "copies": lambda rng: shuffled(rng, union(*[_small(rng)] * int(rng.integers(2, 5)))),
    "isolated": lambda rng: with_isolated(rng, _small(rng), *_sizes(rng, 1, 20)),
    "row": lambda rng: uniform(rng, 1, int(rng.integers(1, 60)), 0.6),
    "column": lambda rng: uniform(rng, int(rng.integers(1, 60)), 1, 0.6),
    "two rows": lambda rng: uniform(rng, 2, int(rng.integers(2, 60)), 0.6),
    "two columns": lambda rng: uniform(rng, int(rng.integers(2, 60)), 2, 0.6),
    "near complete": lambda rng: near_complete(rng, *_sizes(rng, 3, 60), zeros=int(rng.integers(1, 5))),
    "rank two": lambda rng: rank_two(rng, *_sizes(rng, 4, 60)),
    "stars": lambda rng: either_way(rng, stars(rng, *_sizes(rng, 2, 60))),
    "cycle": lambda rng: shuffled(rng, even_cycle(int(rng.integers(2, 60)))),
    "permutation": lambda rng: shuffled(rng, np.eye(rng.integers(2, 60), dtype=bool)),
    "plane": lambda rng: shuffled(rng, projective_plane(int(rng.choice([2, 3, 5])))),
    "kronecker": lambda rng: np.kron(_small(rng), uniform(rng, *_sizes(rng, 2, 5), density=0.6)),
}


def _layer(rng: Rng) -> Mask:
    """Both sides past what the compiled engine solves by all eigenvalues."""
    return uniform(rng, *_sizes(rng, 34, 91), density=rng.uniform(0.03, 0.97))


LARGER_KINDS: dict[str, Callable[[Rng], Mask]] = {
    "layer": _layer,
    "skewed layer": lambda rng: skewed(rng, *_sizes(rng, 34, 91), density=rng.uniform(0.05, 0.6)),
    "biregular layer": lambda rng: either_way(
        rng, biregular_rounds(rng, int(rng.integers(2, 9)), int(rng.integers(5, 12)), int(rng.integers(3, 9)))
    ),
    "layer and small": lambda rng: shuffled(rng, union(_layer(rng), *(_small(rng) for _ in range(rng.integers(1, 4))))),
    "large copies": lambda rng: shuffled(
        rng, union(*[uniform(rng, *_sizes(rng, 17, 31), density=0.3)] * int(rng.integers(2, 4)))
    ),
    "isolated layer": lambda rng: with_isolated(rng, _layer(rng), *_sizes(rng, 1, 20)),
    "near complete layer": lambda rng: near_complete(rng, *_sizes(rng, 34, 91), zeros=int(rng.integers(1, 40))),
    "rank two layer": lambda rng: rank_two(rng, *_sizes(rng, 34, 91)),
    "long cycle": lambda rng: shuffled(rng, even_cycle(int(rng.integers(34, 91)))),
}
"""As `KINDS`, with sides of 34 to about 90: these reach the compiled engine's iteration."""

WEIGHTS: dict[str, Callable[[Rng, tuple[int, int]], Matrix]] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "twelve orders": lambda rng, shape: 10.0 ** rng.uniform(-12, 0, shape),
    "scaled rows": lambda rng, shape: rng.normal(size=shape) * 10.0 ** rng.uniform(-6, 6, (shape[0], 1)),
    "some zero": lambda rng, shape: rng.normal(size=shape) * (rng.random(shape) < 0.5),
    "all equal": lambda rng, shape: np.full(shape, -0.3),
    "rank one": lambda rng, shape: rng.uniform(0.5, 1, (shape[0], 1)) * rng.uniform(0.5, 1, (1, shape[1])),
    "nearly rank one": lambda rng, shape: 1 + 10.0 ** rng.uniform(-8, -3) * rng.normal(size=shape),
    "float32": lambda rng, shape: rng.normal(size=shape).astype(np.float32),
}


def svd(matrix: NDArray[np.generic]) -> list[float]:
    """All singular values by a dense float64 SVD, largest first: what everything is compared with."""
    return [float(value) for value in np.linalg.svd(np.asarray(matrix, dtype=np.float64), compute_uv=False)]


def reference_rounding(shape: tuple[int, ...], sigma_1: float) -> float:
    """What the dense reference itself may be off: LAPACK's bound is p(m, n) eps sigma_1 with p a modest polynomial.

    Seen where the answer is known, or by transposing: 11 eps at sides to 60, 47 at 400, 114 at 4608.
    """
    return (10 + max(shape) / 8) * EPS * sigma_1


def assert_agrees(pair: SingularPair, expected: list[float], note: str = "", tolerance: float = 1e-9) -> None:
    """Both values lie within their own bounds of `expected`, and the bounds within `tolerance` of sigma_1.

    The reference's own rounding is allowed for.
    """
    assert pair.sigma_1 is not None, f"{note}: {pair}"
    assert pair.sigma_2 is not None, f"{note}: {pair}"
    assert pair.sigma_1_error is not None
    assert pair.sigma_2_error is not None
    rounding = 50 * EPS * expected[0]
    what = f"{note}: {pair}, expected {expected[:3]}"
    assert abs(pair.sigma_1 - expected[0]) <= pair.sigma_1_error + rounding, what
    assert abs(pair.sigma_2 - expected[1]) <= pair.sigma_2_error + rounding, what
    assert max(pair.sigma_1_error, pair.sigma_2_error) <= tolerance * expected[0], what
    assert pair.sigma_1 >= pair.sigma_2 >= 0, what
