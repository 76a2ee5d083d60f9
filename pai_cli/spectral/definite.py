"""Whether a large symmetric matrix is positive definite, or is so but for one eigenvalue: a proof by Cholesky, in blocks.

Summing in blocks keeps the bound on rounding small, whatever order BLAS takes within one: a sum of n products in blocks of b
is off by gamma_(b + n/b) of what it sums, and not by gamma_n (Higham, "Accuracy and Stability of Numerical Algorithms",
3.1, 10.1).
"""

from __future__ import annotations

import numpy as np

from pai_cli.spectral.result import EPS, Floats

BLOCK = 256  # rows and columns

STEPS = 60  # of Lanczos for the one negative eigenvalue, which stands apart

CLOSE = 1e-7  # of its size: how small a residual its vector needs

PASSES = 3  # over the factor for its norm


def least_pair(matrix: Floats) -> tuple[float, Floats]:
    """The smallest eigenvalue, about, with a vector of it: Lanczos with every vector kept. Nothing rests on it."""
    side = len(matrix)
    vector = np.random.default_rng(0).standard_normal(side)
    basis = np.empty((min(STEPS, side), side))
    projected = np.zeros((len(basis), len(basis)))
    value, turn = 0.0, np.ones(1)
    for k in range(len(basis)):
        basis[k] = vector / np.linalg.norm(vector)
        vector = matrix @ basis[k]
        for _ in range(2):
            along = basis[: k + 1] @ vector
            vector -= along @ basis[: k + 1]
            projected[k, : k + 1] += along
        left = float(np.linalg.norm(vector))
        values, turns = np.linalg.eigh(projected[: k + 1, : k + 1])  # by its lower triangle
        value, turn = float(values[0]), turns[:, 0]
        if left * abs(turn[-1]) <= CLOSE * abs(value):
            break
    found: Floats = turn @ basis[: len(turn)]
    return value, found / np.linalg.norm(found)


def definite_within(matrix: Floats, lifted: Floats | None = None) -> float | None:
    """How far from `matrix`, in norm, there is a positive definite one, as its factorisation proves; None: there is none.

    `matrix`: (n, n), symmetric, overwritten. `lifted`: a vector w; it is then `matrix + w w^T` that is factored, so that
    a matrix near `matrix` has at most one negative eigenvalue.
    """
    far = 0.0
    if lifted is not None:
        far = _lift(matrix, lifted)
    side = len(matrix)
    for begin in range(0, side, BLOCK):
        if not _factor_panel(matrix, begin):
            return None
    roundings = 2 * BLOCK + -(-side // BLOCK) + 8
    far += _gamma(roundings) * _norm_of_factor(matrix)
    return far if np.isfinite(far) else None


def _gamma(roundings: int) -> float:
    return roundings * EPS / 2 / (1 - roundings * EPS)


def _lift(matrix: Floats, vector: Floats) -> float:
    """Add the outer product; how far rounding may have moved the sum."""
    sums = 0.0
    for begin in range(0, len(matrix), BLOCK):
        rows = matrix[begin : begin + BLOCK]
        sums = max(sums, float(np.abs(rows).sum(axis=1).max()))
        rows += np.multiply.outer(vector[begin : begin + BLOCK], vector)
    size = np.abs(vector)
    return _gamma(4) * 1.001 * (sums + float(size.max() * size.sum()))


def _factor_panel(matrix: Floats, begin: int) -> bool:
    """Columns `begin` to `begin + BLOCK` of the factor, from those before; False where a pivot is not positive."""
    from scipy.linalg import solve_triangular

    end = min(begin + BLOCK, len(matrix))
    panel = matrix[begin:, begin:end]
    for at in range(0, begin, BLOCK):
        done = matrix[begin:, at : at + BLOCK]
        panel -= done @ done[: end - begin].T
    try:
        top = np.linalg.cholesky(panel[: end - begin])
    except np.linalg.LinAlgError:
        return False
    panel[: end - begin] = top
    if end < len(matrix):
        below = solve_triangular(top, panel[end - begin :].T, lower=True, check_finite=False)
        panel[end - begin :] = below.T
    return True


def _norm_of_factor(matrix: Floats) -> float:
    """A bound on the norm of |L| |L|^T: the largest quotient of an image by its vector, both positive (Collatz)."""
    vector = np.ones(len(matrix))
    bound = np.inf
    for _ in range(PASSES):
        between, image = np.zeros(len(matrix)), np.zeros(len(matrix))
        for begin in range(0, len(matrix), BLOCK):
            panel = np.abs(matrix[begin:, begin : begin + BLOCK])
            panel[: panel.shape[1]] = np.tril(panel[: panel.shape[1]])
            between[begin : begin + BLOCK] = vector[begin:] @ panel
            image[begin:] += panel @ between[begin : begin + BLOCK]
        bound = min(bound, float((image / vector).max()))
        vector = image / image.max() + 1e-6
    return bound * 1.001
