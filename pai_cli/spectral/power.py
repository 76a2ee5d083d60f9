"""Block power iteration for the two largest eigenvalues of a Gram matrix, with a proof that they are the largest.

Plain power iteration converges like (lambda_3/lambda_2)^k, and a random mask has its second eigenvalue at the edge of
a dense bulk (ratio about 0.99): a hundred iterations are wrong in the second digit while successive iterates
agree. So every power is kept, and Rayleigh-Ritz takes the best vectors of the whole Krylov space (block Lanczos with
full reorthogonalisation: Golub and Underwood 1977). The start block has two columns, so that a double first eigenvalue
is seen; and no residual is taken for a proof of rank: `certify_second` factors a shifted, deflated matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from array_api_compat import array_namespace

from pai_cli.spectral.bipartite import Array
from pai_cli.spectral.result import EPS

BLOCK = 2


@dataclass(frozen=True)
class RitzPair:
    """The two best Ritz values `values[0] >= values[1]` of a symmetric matrix, with residuals.

    `vectors`: (n, 2), orthonormal up to rounding. `residuals[i]` bounds ||G v_i - value_i v_i||, so an eigenvalue lies
    that close to each value; which one it is, a residual does not say. `rounding` bounds what floating point may have
    added to a value. `converged` tells whether the residuals met the tolerance within the products allowed.
    """

    values: tuple[float, float]
    residuals: tuple[float, float]
    vectors: Array
    rounding: float
    products: int
    converged: bool


def krylov_power(gram: Array, *, tolerance: float, most_products: int, seed: int = 0) -> RitzPair:
    """The two largest eigenpairs of a positive semidefinite `gram` (n x n, float64, n >= 4) by block power iteration.

    Stops when both residuals are under `tolerance` * sqrt(value_1 * value_2) (the square root halves relative error,
    so that is what an absolute error in sigma_2 asks for), or after `most_products` products with the matrix.
    """
    xp = array_namespace(gram)
    n = gram.shape[0]
    basis = _start(xp, n, seed, gram)
    image = gram @ basis
    block, products = basis, BLOCK
    while True:
        small = basis.T @ image
        values, coefficients = xp.linalg.eigh((small + small.T) / 2)
        ritz = coefficients[:, -2:]
        residual = image @ ritz - (basis @ ritz) * values[-2:]
        norms = xp.linalg.vector_norm(residual, axis=0)
        goal = tolerance * float(xp.sqrt(xp.max(values) * xp.max(xp.abs(values[-2:-1]))))
        full = basis.shape[1] == n
        converged = bool(xp.max(norms) <= max(goal, n * EPS * float(values[-1])))
        if converged or full or products >= most_products:
            return _settled(gram, basis @ ritz, products, converged or full)
        for _ in range(_steps_until_check(basis.shape[1])):
            if basis.shape[1] == n:
                break
            block = _next_block(xp, basis, image[:, -BLOCK:])[:, : n - basis.shape[1]]
            basis = xp.concat([basis, block], axis=1)
            image = xp.concat([image, gram @ block], axis=1)
            products += block.shape[1]


def _steps_until_check(width: int) -> int:
    """Rayleigh-Ritz costs width^3, so it is done less often as the space grows."""
    return max(2, width // 8)


def _start(xp: Any, n: int, seed: int, like: Array) -> Array:
    """A block that holds the vector of ones (near the first eigenvector of a non-negative matrix) and noise."""
    import numpy as np

    noise = np.random.default_rng(seed).standard_normal((n, BLOCK))
    noise[:, 0] = 1.0 + 0.1 * noise[:, 0]
    return xp.linalg.qr(xp.asarray(noise, dtype=like.dtype, device=like.device))[0]


def _next_block(xp: Any, basis: Array, image: Array) -> Array:
    """Orthonormal directions of `image` outside `basis`; noise takes the place of a direction that has run out."""
    block = image
    scale = xp.linalg.vector_norm(block, axis=0)
    for _ in range(2):  # once more than exact arithmetic needs: the first pass leaves what rounding let through
        block = block - basis @ (basis.T @ block)
    spent = xp.linalg.vector_norm(block, axis=0) <= 1e-10 * scale
    if bool(xp.any(spent)):
        noise = _start(xp, basis.shape[0], basis.shape[1], basis)
        block = xp.where(spent, noise, block)
        for _ in range(2):
            block = block - basis @ (basis.T @ block)
    block = xp.linalg.qr(block)[0]
    block = block - basis @ (basis.T @ block)
    return xp.linalg.qr(block)[0]


def _settled(gram: Array, vectors: Array, products: int, converged: bool) -> RitzPair:
    """Ritz values and residuals of the final two vectors, from one more product and not from the recurrence."""
    xp = array_namespace(gram)
    n = gram.shape[0]
    vectors = xp.linalg.qr(vectors)[0]
    image = gram @ vectors
    values, turn = xp.linalg.eigh(vectors.T @ image)
    turn, values = xp.flip(turn, axis=1), xp.flip(values, axis=0)
    vectors, image = vectors @ turn, image @ turn
    norms = xp.linalg.vector_norm(image - vectors * values, axis=0)
    frobenius = float(xp.linalg.vector_norm(gram))
    rounding = 4 * n * EPS * frobenius
    return RitzPair(
        values=(float(values[0]), float(values[1])),
        residuals=(float(norms[0]) + rounding, float(norms[1]) + rounding),
        vectors=vectors,
        rounding=rounding,
        products=products + BLOCK,
        converged=converged,
    )


def certify_second(gram: Array, pair: RitzPair, slack: float) -> float | None:
    """An upper bound on the second eigenvalue of `gram`, proved; None when `values[1] + slack` is not one.

    For any vector v, lambda_2(G) <= lambda_1(G - c v v^T) by Weyl's inequality, and t > lambda_1(B) exactly when
    t I - B has a Cholesky factorisation. The bound adds what rounding can hide: a factorisation that succeeds is that of a
    matrix at most n (n + 1) eps max|a_ii| away (Higham, "Accuracy and Stability of Numerical Algorithms", 10.1).
    """
    xp = array_namespace(gram)
    n = gram.shape[0]
    first = pair.vectors[:, :1]
    shift = pair.values[1] + slack
    matrix = (pair.values[0] * first) @ first.T - gram
    diagonal = xp.linalg.diagonal(matrix) + shift
    index = xp.arange(n)
    matrix[index, index] = diagonal
    largest = float(xp.max(xp.abs(diagonal)))
    forming = 4 * EPS * (float(xp.linalg.vector_norm(gram)) + pair.values[0] + shift)
    if not _positive_definite(xp, matrix):
        return None
    return float(shift + n * (n + 1) * EPS * largest + forming)


def _positive_definite(xp: Any, matrix: Array) -> bool:
    try:
        factor = xp.linalg.cholesky(matrix)
    except Exception:  # NumPy and torch each raise a LinAlgError of their own
        return False
    return bool(xp.all(xp.isfinite(factor)))
