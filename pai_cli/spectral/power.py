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

from array_api_compat import array_namespace, device

from pai_cli.spectral.bipartite import Array
from pai_cli.spectral.result import EPS

BLOCK = 2

SPENT = 1e-10  # of a direction's length: what is left below that is mostly rounding


@dataclass(frozen=True)
class RitzPair:
    """The two best Ritz values `values[0] >= values[1]` of a symmetric matrix, with residuals.

    `vectors`: (n, 2), orthonormal up to rounding. `residuals[i]` bounds ||G v_i - value_i v_i||, so an eigenvalue lies
    that close to each value; which one it is, a residual does not say. `rounding` bounds what floating point may have
    added to a value. `converged` tells whether the estimated errors met the tolerance within the products allowed.
    """

    values: tuple[float, float]
    residuals: tuple[float, float]
    vectors: Array
    rounding: float
    products: int
    converged: bool


def krylov_power(gram: Array, *, tolerance: float, most_products: int, seed: int = 0) -> RitzPair:
    """The two largest eigenpairs of a positive semidefinite `gram` (n x n, float64, n >= 4) by block power iteration.

    Stops when the estimated errors of both values are under `tolerance` * sqrt(value_1 * value_2) (the square root
    halves relative error, so that is what an absolute error in sigma_2 asks for), or after `most_products` products
    with the matrix. The estimate is an estimate: `certify_second` proves.
    """
    space = _KrylovSpace(gram, most_products, seed)
    while True:
        errors, goal = space.rayleigh_ritz(tolerance)
        full = space.width == gram.shape[0]
        converged = full or max(errors) <= goal
        if converged or space.width >= most_products:
            return _settled(gram, space.vectors, space.width, converged)
        # Rayleigh-Ritz costs width^3, so it is done less often as the space grows.
        for _ in range(max(2, space.width // 8)):
            if space.width < gram.shape[0]:
                space.extend()


class _KrylovSpace:
    """An orthonormal basis of span{V, G V, G^2 V, ...}, grown a block at a time, with its images and projection.

    Vectors are stored as rows, so that what has been filled is contiguous.
    """

    def __init__(self, gram: Array, most_products: int, seed: int):
        self.xp = xp = array_namespace(gram)
        n = gram.shape[0]
        capacity = min(n, most_products + 2 * BLOCK + most_products // 4)
        self.gram, self.width = gram, 0
        self.vectors = gram[:, :0]
        self._basis = xp.empty((capacity, n), dtype=gram.dtype, device=device(gram))
        self._image = xp.empty((capacity, n), dtype=gram.dtype, device=device(gram))
        self._small = xp.zeros((capacity, capacity), dtype=gram.dtype, device=device(gram))
        self._add(_orthonormal(xp, _noise(xp, n, seed, gram)))

    def _add(self, block: Array) -> None:
        """Append the rows of `block`, their images, and their row and column of the projection."""
        old, new = self.width, self.width + block.shape[0]
        self._basis[old:new, :] = block
        for row in range(block.shape[0]):
            # One vector at a time: BLAS takes four times as long for two columns together as for one (n = 512).
            self._image[old + row, :] = self.gram @ block[row, :]
        projected = self._basis[:new, :] @ self._image[old:new, :].T
        self._small[:new, old:new] = projected
        self._small[old:new, :new] = projected.T
        self._last, self.width = old, new

    def extend(self) -> None:
        """Add the part of the last block's image that lies outside the basis."""
        block = self._image[self._last : self.width, :]
        # The projection just made is the first pass of Gram-Schmidt; the second removes what rounding let through.
        block = block - self._small[self._last : self.width, : self.width] @ self._basis[: self.width, :]
        size = self.xp.linalg.vector_norm(self._image[self._last : self.width, :], axis=1)
        block = self._outside(block)
        spent = self.xp.linalg.vector_norm(block, axis=1) <= SPENT * size
        if bool(self.xp.any(spent)):
            # The space is invariant, or nearly: what is left of a direction is rounding, and noise serves better.
            noise = _noise(self.xp, self.gram.shape[0], self.width, self.gram)[: block.shape[0], :]
            block = self._outside(self._outside(self.xp.where(spent[:, None], noise, block)))
        block = self._outside(_orthonormal(self.xp, block))
        self._add(_orthonormal(self.xp, block)[: self.gram.shape[0] - self.width, :])

    def _outside(self, block: Array) -> Array:
        basis = self._basis[: self.width, :]
        return block - (block @ basis.T) @ basis

    def rayleigh_ritz(self, tolerance: float) -> tuple[tuple[float, float], float]:
        """Set `vectors` to the best two (as columns); return the estimated errors of their values, and the goal.

        A Ritz value is off by about residual^2 / gap to the rest of the spectrum, and by no more than its residual.
        """
        xp, width = self.xp, self.width
        values, turn = xp.linalg.eigh(self._small[:width, :width])
        best = xp.flip(turn[:, -2:], axis=1)
        vectors = self._basis[:width, :].T @ best
        image = self._image[:width, :].T @ best
        first, second = float(values[-1]), max(float(values[-2]), 0.0)
        third = float(values[-3]) if width > BLOCK else 0.0
        norms = xp.linalg.vector_norm(image - vectors * xp.flip(values[-2:], axis=0), axis=0)
        self.vectors = vectors
        residuals = (float(norms[0]), float(norms[1]))
        goal = max(tolerance * (first * second) ** 0.5, self.gram.shape[0] * EPS * first)
        return (_ritz_error(residuals[0], first - second), _ritz_error(residuals[1], second - third)), goal


def _ritz_error(residual: float, gap: float) -> float:
    return min(residual, residual**2 / gap) if gap > 0 else residual


def _noise(xp: Any, n: int, seed: int, like: Array) -> Array:
    """A block of rows: nearly the vector of ones (near the first eigenvector of a non-negative matrix), and noise."""
    import numpy as np

    noise = np.random.default_rng(seed).standard_normal((BLOCK, n))
    noise[0] = 1.0 + 0.1 * noise[0]
    return xp.asarray(noise, dtype=like.dtype, device=device(like))


def _orthonormal(xp: Any, block: Array) -> Array:
    """The rows of `block` made orthonormal."""
    return xp.linalg.qr(block.T)[0].T


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
    """An upper bound on lambda_1(G - theta v v^T), and so on lambda_2(G); None when `values[1] + slack` is not proved.

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


def first_bound(pair: RitzPair, second: float) -> float:
    """An upper bound on the first eigenvalue, from what `certify_second` proved.

    `second` must bound lambda_1(G - theta v v^T), v the first vector; a bound on lambda_2(G) alone is not enough. In a
    basis that begins with v, G is [[theta, b^T], [b, C]] with |b| the residual, and C is a compression of
    G - theta v v^T, so lambda_1(C) <= `second` (Cauchy). So lambda_1 <= max(theta, second) + |b|, and where
    theta > second also lambda_1 - theta = b^T (lambda_1 I - C)^-1 b <= |b|^2 / (theta - second).
    """
    first, residual = pair.values[0], pair.residuals[0]
    bound = max(first, second) + residual
    if first > second:
        bound = min(bound, first + residual**2 / (first - second))
    return bound + pair.rounding


def _positive_definite(xp: Any, matrix: Array) -> bool:
    try:
        factor = xp.linalg.cholesky(matrix)
    except Exception:  # NumPy and torch each raise a LinAlgError of their own
        return False
    return bool(xp.all(xp.isfinite(factor)))
