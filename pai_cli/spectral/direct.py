"""Direct solvers: LAPACK on the smaller side's Gram matrix, or on the matrix itself where squaring loses sigma_2."""

from __future__ import annotations

import math

from pai_cli.spectral.graph import Array
from pai_cli.spectral.namespaces import array_namespace
from pai_cli.spectral.result import EPS, Outcome, SingularPair, root_interval


def forming_error(shared: int) -> float:
    """Bound on ||fl(A A^T) - A A^T|| / sigma_1^2 for a non-negative float64 `A` with `shared` products summed an entry.

    Each entry is off by at most gamma_k of itself (Higham 2002, 3.5), and the norm of a non-negative matrix grows with
    its entries, so the relative bound of an entry is the relative bound of the norm.
    """
    return shared * EPS / (1 - shared * EPS)


def pair_of_gram(gram: Array, forming: float) -> SingularPair:
    """Singular values from all eigenvalues of a Gram matrix (n x n float64, n >= 2), by LAPACK.

    `forming`: how far the Gram matrix itself is off, relative to sigma_1^2 (0 for a 0/1 mask: integers). A backward
    stable eigensolver moves each eigenvalue by at most p(n) eps lambda_1 (LAPACK Users' Guide, 4.7); p(n) is taken as
    2n + 10, far above what is seen.
    """
    xp = array_namespace(gram)
    values = xp.linalg.eigvalsh(gram)
    first, second = float(values[-1]), max(float(values[-2]), 0.0)
    slack = ((2 * gram.shape[0] + 10) * EPS + forming) * first
    sigma_1, error_1 = root_interval(first - slack, first, first + slack)
    sigma_2, error_2 = root_interval(second - slack, second, second + slack)
    return SingularPair(sigma_1, sigma_2, error_1, error_2, "gram", Outcome.PROVED)


def pair_of_matrix(matrix: Array) -> SingularPair:
    """Singular values of the matrix itself (m x n float64, both >= 2): no squaring, so sigma_2 keeps its digits.

    The bound is p(m, n) eps sigma_1 with p = 2 max(m, n) + 10 (LAPACK Users' Guide, 4.9).
    """
    xp = array_namespace(matrix)
    values = xp.linalg.svdvals(matrix)
    sigma_1, sigma_2 = float(values[0]), float(values[1])
    error = (2 * max(matrix.shape) + 10) * EPS * sigma_1
    return SingularPair(sigma_1, sigma_2, error, error, "direct", Outcome.PROVED)


def pair_of_complete(edges: int) -> SingularPair:
    """Every left vertex joined to every right one: sigma_1 = sqrt(edges), and sigma_2 = 0 exactly."""
    sigma_1 = math.sqrt(edges)
    return SingularPair(sigma_1, 0.0, EPS * sigma_1, 0.0, "closed form", Outcome.PROVED)


def pair_of_stars(degrees: Array) -> SingularPair:
    """Every vertex of one side has one edge: the graph is stars, and its singular values the roots of their sizes."""
    sizes = sorted((int(degree) for degree in degrees.tolist()), reverse=True)
    sigma_1, sigma_2 = math.sqrt(sizes[0]), math.sqrt(sizes[1])
    return SingularPair(sigma_1, sigma_2, EPS * sigma_1, EPS * sigma_2, "closed form", Outcome.PROVED)


def pair_of_vector(matrix: Array) -> SingularPair:
    """A matrix of one row or one column has one singular value, its norm."""
    xp = array_namespace(matrix)
    flat = xp.reshape(xp.astype(matrix, xp.float64), (-1,))
    largest = float(xp.max(flat))
    norm = largest * math.sqrt(float(xp.sum((flat / largest) ** 2))) if largest > 0 else 0.0
    error = (flat.shape[0] + 4) * EPS * norm
    return SingularPair(norm, None, error, None, "closed form", Outcome.ONE_VALUE)
