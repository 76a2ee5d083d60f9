"""Points and lines of finite planes: designs, whose sigma_2 is the least that their degrees allow."""

from __future__ import annotations

import numpy as np

from pai_cli.sampling.expanders.biregular import Matrix, Rng
from pai_cli.sampling.expanders.fields import field


def projective_plane(q: int) -> Matrix:
    """PG(2, q): q^2 + q + 1 points (rows) and as many lines, q + 1 points on each line, q a power of a prime.

    sigma_1 = q + 1, every other singular value sqrt(q). Raises `ValueError` for another q.
    """
    numbers = field(q)
    a, b = (grid.reshape(-1) for grid in np.meshgrid(np.arange(q), np.arange(q), indexing="ij"))
    zero, one = np.zeros(q, dtype=np.int64), np.ones(q, dtype=np.int64)
    # Of each point's coordinates, which count up to a factor, those whose first that is not 0 is 1.
    points = np.concatenate(
        [np.stack([np.ones_like(a), a, b], 1), np.stack([zero, one, np.arange(q)], 1), np.array([[0, 0, 1]])]
    )
    products = [numbers.times[points[:, None, k], points[None, :, k]] for k in range(3)]
    matrix: Matrix = numbers.plus[numbers.plus[products[0], products[1]], products[2]] == 0
    return matrix


def affine_plane(q: int) -> Matrix:
    """AG(2, q): q^2 points (rows) and q^2 + q lines, q points on each line, q a power of a prime.

    sigma_1 = sqrt(q (q + 1)), every other singular value sqrt(q). Raises `ValueError` for another q.
    """
    numbers = field(q)
    x, y = (grid.reshape(-1) for grid in np.meshgrid(np.arange(q), np.arange(q), indexing="ij"))
    slope, height = x, y  # the lines y = slope x + height
    on_sloped = numbers.plus[numbers.times[x[:, None], slope[None, :]], height[None, :]] == y[:, None]
    on_upright = x[:, None] == np.arange(q)[None, :]
    return np.concatenate([on_sloped, on_upright], axis=1)


def copies(design: Matrix, count: int, rng: Rng) -> Matrix:
    """`count` copies of a design side by side, the points of each and all columns in a random order.

    Any two rows of a design share as many columns, in whatever order its points are: so also of the copies, whose other
    singular values are sqrt(count) times the design's.
    """
    blocks = [design[rng.permutation(len(design))] for _ in range(count)]
    whole = np.concatenate(blocks, axis=1)
    return whole[:, rng.permutation(whole.shape[1])]
