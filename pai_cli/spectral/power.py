"""Block power iteration for the two largest eigenvalues of many Gram matrices at once, and the proof that they are.

Plain power iteration converges like (lambda_3/lambda_2)^k, and a random mask has its second eigenvalue at the edge of
a dense bulk (ratio about 0.99): a hundred iterations are wrong in the second or third digit while successive iterates
agree. So every power is kept, and Rayleigh-Ritz takes the best vectors of the whole Krylov space (block Lanczos with
full reorthogonalisation: Golub and Underwood 1977). The start block has two columns, so that a double first eigenvalue
is seen; and no residual is taken for a proof of rank: a shifted, deflated matrix is factored.

All problems of a batch advance in lock step, so that the number of launches on a GPU is that of one problem. Problem k
is the leading `sides[k]` rows and columns of its matrix and the rest is padding; no vector ever leaves that block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from array_api_compat import device, is_numpy_array, is_torch_array, to_device

from pai_cli.spectral.namespaces import array_namespace
from pai_cli.spectral.result import EPS
from pai_cli.spectral.solver_table import EIGENPAIR, Eigenpairs, SolverLimits, Status, shift_for

Array = Any  # a NumPy array or a torch tensor

Host = np.ndarray[Any, np.dtype[Any]]  # numbers of each problem, which decisions are taken by

BLOCK = 2

SPENT = 1e-10  # of a direction's length: what is left below that is mostly rounding

FIRST_LOOK = 8  # columns of the basis before the first Rayleigh-Ritz step

# A batch's memory at worst, in units of its matrices: they, deflated ones, basis, projection and its eigenproblem.
COPIES = 8


def leading_eigenpairs(grams: Array, sides: Sequence[int], limits: SolverLimits) -> Eigenpairs:
    """The two largest eigenvalues of each of `grams`, as a table on the host.

    `grams`: (B, n, n), symmetric positive semidefinite, finite; float64, or float32 that holds integers. Matrix k fills
    the leading `sides[k]` rows and columns (2 <= `sides[k]` <= n) and is zero elsewhere. Up to `limits.direct_side` all
    eigenvalues are computed. Past it a problem is iterated until the estimated errors of both values are under an
    eighth of `limits.tolerance` * sqrt(value_1 * value_2) (the square root halves relative error, so that is what an
    absolute error in sigma_2 asks for) or at the level of rounding, and then the proof is tried. Past `limits.proof_side`
    there is none: bounds can rest on nothing but residuals, and these must come under `limits.tolerance` times that root.

    A problem that needs more than `limits.most_products` products with its matrix ends as NOT_CONVERGED, and its values
    are not to be used. The answer to a problem depends on neither its padding nor the rest of the batch, rounding aside.
    """
    xp = array_namespace(grams)
    every = np.asarray(sides, dtype=np.int64)
    grams = xp.astype(grams, xp.float64, copy=False)
    found = np.zeros(len(every), dtype=EIGENPAIR)
    direct = every <= limits.direct_side
    of = np.flatnonzero(direct)
    if of.size:
        found[of] = _all_values(_part(grams, of, every), every[of])
    of = np.flatnonzero(~direct)
    if of.size:
        found[of] = _iterated(_part(grams, of, every), every[of], limits)
    return found


def padded_side(side: int) -> int:
    """The side that a matrix is padded to: the next of 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, and so on."""
    power = 1 << max(side - 1, 7).bit_length()
    between = (power * 3 // 4 + 7) // 8 * 8
    return between if side <= between else power


def batches(sides: Sequence[int], budget_bytes: int) -> Iterator[list[int]]:
    """Indices into `sides` in groups to be solved together, each index once: the smaller sides first.

    A group of B matrices has one padded side n, and solving it needs at most `budget_bytes`; a matrix too large for that
    comes alone.
    """
    groups: dict[int, list[int]] = {}
    for index, side in enumerate(sides):
        groups.setdefault(padded_side(side), []).append(index)
    for n, group in sorted(groups.items()):
        size = max(1, budget_bytes // (8 * COPIES * n * n))
        yield from (group[begin : begin + size] for begin in range(0, len(group), size))


def _part(grams: Array, of: Host, sides: Host) -> Array:
    """The problems numbered `of`, without padding that none of them needs; no copy where that is all of them."""
    n = int(sides[of].max())
    grams = grams if len(of) == grams.shape[0] else _taken(grams, of)
    return grams[:, :n, :n]


def _taken(array: Array, of: Host) -> Array:
    return array_namespace(array).take(array, _on(array, of), axis=0)


def _on(like: Array, values: Host) -> Array:
    """`values` on the device of `like`."""
    return array_namespace(like).asarray(values, device=device(like))


def _host(array: Array) -> Host:
    return np.asarray(to_device(array, "cpu") if is_torch_array(array) else array)


def _column(sides: Host, like: Array) -> Array:
    return _on(like, sides)[:, None]


def _all_values(grams: Array, sides: Host) -> Eigenpairs:
    """All eigenvalues by LAPACK. Those of the padding are 0, which the second of a semidefinite matrix is not below."""
    xp = array_namespace(grams)
    found = np.zeros(len(sides), dtype=EIGENPAIR)
    values = _host(xp.linalg.eigvalsh(grams))[:, -2:]
    found["status"], found["side"] = Status.ALL_VALUES, sides
    found["value"] = np.maximum(values[:, ::-1], 0.0)
    found["frobenius"] = _host(xp.linalg.vector_norm(grams, axis=(1, 2)))
    return found


def _iterated(grams: Array, sides: Host, limits: SolverLimits) -> Eigenpairs:
    """Block power iteration and proof. A proof that fails means a missed eigenvalue, so there is a second search."""
    vectors, products, converged = _search(grams, sides, limits, seed=0)
    found, vectors = _settled(grams, sides, vectors)
    found["products"] += products
    found["status"] = np.where(converged, Status.NOT_ASKED, Status.NOT_CONVERGED)
    asked = np.flatnonzero(converged & (sides <= limits.proof_side))
    if asked.size:
        found[asked] = _proved(_part(grams, asked, sides), found[asked], _taken(vectors[:, 0, :], asked), limits)
    missed = np.flatnonzero(found["status"] == Status.MISSED)
    if missed.size:
        found[missed] = _second_search(_part(grams, missed, sides), found[missed], _taken(vectors, missed), limits)
    return found


def _second_search(grams: Array, found: Eigenpairs, vectors: Array, limits: SolverLimits) -> Eigenpairs:
    """Look from elsewhere, further, and in the complement of the first vector, where a missed value is the largest."""
    xp = array_namespace(grams)
    n, sides = grams.shape[1], found["side"].astype(np.int64)
    first = vectors[:, :1, :n]
    deflated = grams - _outer(first[:, 0, :], found["value"][:, 0])
    closer = replace(limits, tolerance=limits.tolerance / 8)
    vectors, products, converged = _search(deflated, sides, closer, seed=1)
    del deflated  # before the proof needs as much memory again
    settled, vectors = _settled(grams, sides, xp.concat([first, vectors[:, :1, :]], axis=1))
    settled["products"] += found["products"] + products
    proved = _proved(grams, settled, vectors[:, 0, :], limits)
    proved["status"][~converged] = Status.MISSED
    return proved


def _search(grams: Array, sides: Host, limits: SolverLimits, seed: int) -> tuple[Array, Host, Host]:
    """The two best Ritz vectors of each problem (B, 2, n); the products that took; whether it converged."""
    xp = array_namespace(grams)
    count = len(sides)
    vectors = xp.zeros((count, BLOCK, grams.shape[1]), dtype=grams.dtype, device=device(grams))
    products, converged, open_ = np.zeros(count, int), np.zeros(count, bool), np.ones(count, bool)
    spaces, here = _KrylovSpaces(grams, sides, seed), np.arange(count)  # the problems that the spaces are of
    look = FIRST_LOOK
    while True:
        look = min(look, int(sides[open_].max()))
        while spaces.width < look and spaces.width + BLOCK <= limits.most_products:
            spaces.extend()
        good = (spaces.width >= sides[here]) | _exact_enough(*spaces.rayleigh_ritz(), sides[here], limits)
        last = spaces.width + BLOCK > limits.most_products
        ended = np.flatnonzero(open_[here] & (good | last))
        if ended.size:
            which = here[ended]
            best = spaces.ritz_vectors()
            for place, end in zip(which.tolist(), ended.tolist(), strict=True):  # the array API has no list of places
                vectors[place, ...] = best[end, ...]
            products[which] = np.minimum(spaces.width, sides[which])  # rows past the side are zero
            converged[which], open_[which] = good[ended], False
        if not open_.any():
            return vectors, products, converged
        rest = np.flatnonzero(open_[here])
        if 2 * rest.size <= here.size:  # what has ended rides along until it is half, so that copying stays cheap
            spaces.keep(rest)
            here = here[rest]
        # Rayleigh-Ritz costs width^3, so it is done less often as the space grows.
        look = spaces.width + max(2 * BLOCK, spaces.width // 4)


def _exact_enough(values: Host, residuals: Host, sides: Host, limits: SolverLimits) -> Host:
    """Whether both values are as exact as asked. `values`: the three best (B, 3); `residuals`: of the first two.

    A Ritz value is off by about residual^2 / gap to the rest of the spectrum, and by no more than its residual. Where no
    proof follows the estimate is not relied on.
    """
    values = np.maximum(values, 0.0)
    gaps = values[:, :2] - values[:, 1:]
    with_proof = (sides <= limits.proof_side)[:, None]
    estimates = np.where(gaps > residuals, residuals**2 / np.where(gaps > 0, gaps, 1.0), residuals)
    errors = np.where(with_proof, estimates, residuals)
    scale = np.sqrt(values[:, 0] * values[:, 1])[:, None]
    goals = np.where(with_proof, limits.tolerance / 8, limits.tolerance) * scale
    reachable = (sides * EPS * values[:, 0])[:, None]
    return np.asarray((errors <= np.maximum(goals, reachable)).all(axis=1))


class _KrylovSpaces:
    """Orthonormal bases of span{V, G V, G^2 V, ...}, one a problem, grown a block at a time, with the projections of G.

    Vectors are rows, (B, width, n). A space as wide as its problem's side goes on with zero rows, so that the others can
    grow. Their Ritz values are 0, and the two largest that are looked for are not below that.
    """

    def __init__(self, grams: Array, sides: Host, seed: int):
        self.xp = xp = array_namespace(grams)
        self.width = 0
        self._grams, self._sides, self._seed = grams, sides, seed
        inside = _on(grams, np.arange(grams.shape[1])) < _column(sides, grams)
        self._inside = xp.astype(inside, grams.dtype)[:, None, :]
        self._basis, self._small = grams[:, :0, :], grams[:, :0, :0]
        self._best = grams[:, :0, :0]
        start = self._noise()
        if seed == 0:  # nearly the vector of ones, which is near the first eigenvector of a non-negative matrix
            ones = self._inside[:, 0, :] * (1.0 + 0.1 * start[:, 0, :])
            start = xp.stack([ones, start[:, 1, :]], axis=1)
        self._add(_orthonormal(_orthonormal(start)[0])[0])

    def _noise(self) -> Array:
        """A block of noise within each side; longer vectors begin as shorter ones do, so padding changes nothing."""
        draws = np.random.default_rng([self._seed, self.width]).standard_normal((self._grams.shape[1], BLOCK))
        return self._inside * _on(self._grams, np.ascontiguousarray(draws.T))

    def _reserve(self, width: int) -> None:
        """Room for `width` rows: twice as many as before, so that little is copied and little is empty."""
        xp, (count, room, n) = self.xp, self._basis.shape
        if width <= room:
            return
        wanted = max(width, min(max(2 * room, 4 * FIRST_LOOK), int(self._sides.max()) + BLOCK))
        basis = xp.empty((count, wanted, n), dtype=self._basis.dtype, device=device(self._basis))
        small = xp.empty((count, wanted, wanted), dtype=self._basis.dtype, device=device(self._basis))
        basis[:, : self.width, :] = self._basis[:, : self.width, :]
        small[:, : self.width, : self.width] = self._small[:, : self.width, : self.width]
        self._basis, self._small = basis, small

    def _add(self, block: Array) -> None:
        """Append a block (B, 2, n); keep what of its image lies outside the basis."""
        xp, old, new = self.xp, self.width, self.width + BLOCK
        self._reserve(new)
        real = np.arange(old, new) < self._sides[:, None]
        if not real.all():
            block = block * _on(block, real.astype(np.float64))[:, :, None]
        self._basis[:, old:new, :] = block
        self.width = new
        image = _times(self._grams, block)
        basis = self._basis[:, :new, :]
        projected = image @ xp.matrix_transpose(basis)
        # The projection is also the first pass of Gram-Schmidt.
        self._rest = image - projected @ basis
        self._size = xp.linalg.vector_norm(image, axis=2)
        self._small[:, old:new, :new] = projected
        self._small[:, :new, old:new] = xp.matrix_transpose(projected)

    def extend(self) -> None:
        """Add the part of the last block's image that lies outside the basis."""
        block, spent = _orthonormal(self._rest, SPENT * self._size)
        if bool(self.xp.any(spent)):
            # The space is invariant, or nearly: what is left of a direction is rounding, and noise serves better.
            block = self.xp.where(spent[:, :, None], self._outside(self._noise()), block)
            block = _orthonormal(block)[0]
        # The second pass removes what rounding let through the first, which dividing by the length has enlarged.
        self._add(_orthonormal(self._outside(block))[0])

    def _outside(self, block: Array) -> Array:
        basis = self._basis[:, : self.width, :]
        return block - (block @ self.xp.matrix_transpose(basis)) @ basis

    def rayleigh_ritz(self) -> tuple[Host, Host]:
        """The three best Ritz values (B, 3), the largest first, and the residuals of the first two (B, 2).

        G v - value v has a part outside the basis only where v has one in the last block.
        """
        xp, width = self.xp, self.width
        values, turn = xp.linalg.eigh(self._small[:, :width, :width])
        self._best = xp.matrix_transpose(xp.flip(turn[:, :, -2:], axis=2))
        residuals = xp.linalg.vector_norm(self._best[:, :, -BLOCK:] @ self._rest, axis=2)
        top = np.zeros((len(self._sides), 3))
        top[:, : min(width, 3)] = _host(values)[:, : -min(width, 3) - 1 : -1]
        return top, _host(residuals)

    def ritz_vectors(self) -> Array:
        """The vectors (B, 2, n) of the two best values of the last `rayleigh_ritz`."""
        return self._best @ self._basis[:, : self.width, :]

    def keep(self, of: Host) -> None:
        """Go on with the problems numbered `of` only."""
        self._sides = self._sides[of]
        self._grams, self._inside = _taken(self._grams, of), _taken(self._inside, of)
        self._basis, self._small = _taken(self._basis, of), _taken(self._small, of)
        self._rest, self._size = _taken(self._rest, of), _taken(self._size, of)


def _times(grams: Array, block: Array) -> Array:
    """The images of the rows of `block` (B, 2, n)."""
    if is_numpy_array(block):
        # One vector at a time: BLAS takes two to four times as long for two rows together as for one.
        return np.concatenate([block[:, i : i + 1, :] @ grams for i in range(block.shape[1])], axis=1)
    return block @ grams


def _orthonormal(block: Array, least: Array | None = None) -> tuple[Array, Array]:
    """The rows of each block (B, 2, n) made orthonormal, and whether they were too short for it (B, 2).

    Rows of length up to `least` (B, 2; by default 0) become zero and are not taken out of those after them.
    """
    xp = array_namespace(block)
    rows: list[Array] = []
    short = []
    for i in range(block.shape[1]):
        row = block[:, i, :]
        for other in rows:
            row = row - xp.linalg.vecdot(other, row)[:, None] * other
        length = xp.linalg.vector_norm(row, axis=1)
        short.append(length <= (0.0 if least is None else least[:, i]))
        row = row / xp.where(short[-1], xp.ones_like(length), length)[:, None]
        rows.append(xp.where(short[-1][:, None], xp.zeros_like(row), row))
    return xp.stack(rows, axis=1), xp.stack(short, axis=1)


def _settled(grams: Array, sides: Host, vectors: Array) -> tuple[Eigenpairs, Array]:
    """Ritz values and residuals of the final two vectors, from products with the matrix and not from the recurrence.

    The table lacks a status. The vectors (B, 2, n) come back turned, the first value's first.
    """
    xp = array_namespace(grams)
    vectors = _orthonormal(_orthonormal(vectors)[0])[0]
    image = _times(grams, vectors)
    values, turn = xp.linalg.eigh(image @ xp.matrix_transpose(vectors))
    turn, values = xp.matrix_transpose(xp.flip(turn, axis=2)), xp.flip(values, axis=1)
    vectors, image = turn @ vectors, turn @ image
    found = np.zeros(len(sides), dtype=EIGENPAIR)
    found["side"], found["products"] = sides, BLOCK
    found["value"] = np.maximum(_host(values), 0.0)
    found["residual"] = _host(xp.linalg.vector_norm(image - values[:, :, None] * vectors, axis=2))
    found["frobenius"] = _host(xp.linalg.vector_norm(grams, axis=(1, 2)))
    return found, vectors


def _proved(grams: Array, found: Eigenpairs, first: Array, limits: SolverLimits) -> Eigenpairs:
    """The table with status, shift and trace of the proof that no eigenvalue but the first is above the shift.

    For any vector v, lambda_2(G) <= lambda_1(G - c v v^T) by Weyl's inequality, and t > lambda_1(B) exactly when
    t I - B has a Cholesky factorisation. `first` (B, n) are the v, the first values the c. Padding gets a unit diagonal.
    """
    xp, n = array_namespace(grams), grams.shape[1]
    found = found.copy()
    values = found["value"]
    found["shift"] = shift_for(values[:, 0], values[:, 1], found["side"], limits.tolerance)
    matrices = _outer(first[:, :n], values[:, 0])
    matrices -= grams
    inside = _on(grams, np.arange(n)) < _column(found["side"].astype(np.int64), grams)
    diagonals = xp.linalg.diagonal(matrices) + xp.where(inside, _column(found["shift"], grams), 1.0)
    xp.reshape(matrices, (len(found), n * n))[:, :: n + 1] = diagonals  # the same memory, as it is contiguous
    found["trace"] = _host(xp.sum(xp.where(inside, diagonals, 0.0), axis=1))
    found["status"] = np.where(_have_factors(matrices), Status.PROVED, Status.MISSED)
    return found


def _outer(vectors: Array, values: Host) -> Array:
    """value v v^T of each row v."""
    return (_column(values, vectors) * vectors)[:, :, None] * vectors[:, None, :]


def _have_factors(matrices: Array) -> Host:
    """Which of the matrices (B, n, n) have a Cholesky factor, all of it finite.

    The square of each element is taken from its row's diagonal, so a diagonal that is finite vouches for the rest.
    """
    xp = array_namespace(matrices)
    if is_torch_array(matrices):
        factors, info = xp.linalg.cholesky_ex(matrices)
        return _host((info == 0) & xp.all(xp.isfinite(xp.linalg.diagonal(factors)), axis=1))
    return np.array([_has_factor(matrix) for matrix in _host(matrices)], dtype=bool)


def _has_factor(matrix: Host) -> bool:
    try:
        factor = np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        return False
    return bool(np.isfinite(np.diagonal(factor)).all())
