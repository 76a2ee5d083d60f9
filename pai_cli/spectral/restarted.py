"""The two largest singular values of a graph with so many vertices that few vectors may be kept.

The iteration is the compiled part's: Lanczos with every vector of its basis orthogonal to all others. But the basis is of
`WIDTH` vectors at most; when it is full, the best Ritz vectors and the next direction begin a new one (thick restart: Wu,
Simon, "Thick-restart Lanczos method for large symmetric eigenvalue problems", SIAM J. Matrix Anal. Appl. 22, 2000).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pai_cli.spectral.compiled.calls import EdgeLists
from pai_cli.spectral.result import EPS, Floats
from pai_cli.spectral.solver_table import EIGENPAIR, Eigenpairs, SolverLimits, Status

WIDTH = 48  # vectors of a basis

KEPT = 16  # Ritz vectors that begin the next one

SPENT = 1e-10  # of the largest eigenvalue: an image's part outside the basis is nothing but rounding

COLUMNS = 2**16  # of a basis that are turned at once

FROM_SIDE = 2**17  # where the compiled part's basis, of hundreds of vectors, would be larger than the graph

PAIRWISE = 256
"""Rounding errors that a sum of any length by NumPy has, in EPS of what it sums up: it adds pairs of sums of 128 terms or
less (Higham, "Accuracy and Stability of Numerical Algorithms", 4.2). A product with a sparse matrix has as many as the
longest row.
"""

Times = Callable[[Floats], Floats]


def leading_pair(edges: EdgeLists, touched: int, limits: SolverLimits) -> Eigenpairs:
    """The two largest eigenvalues of A A^T, A without its scale, as the compiled part finds them without a Gram matrix."""
    from scipy.sparse import csr_array

    lists = csr_array((edges.value, edges.neighbour, edges.begin), shape=(len(edges.begin) - 1, edges.right))
    turned = lists.T.tocsr()
    near, far = (lists, turned) if lists.shape[0] <= touched else (turned, lists)
    side = near.shape[0]

    def times(vector: Floats) -> Floats:
        image: Floats = near @ (far @ vector)
        return image

    found = np.zeros(1, dtype=EIGENPAIR)
    found["side"], found["status"] = side, Status.NOT_CONVERGED
    vectors, products, converged = _search(times, side, limits, None)
    if converged and limits.twice:
        beside, more, converged = _search(times, side, limits, vectors[0])
        products += more
        values = [float(one @ times(one)) for one in (vectors[1], beside[0])]
        vectors[1] = beside[0] if values[1] > values[0] else vectors[1]
    _settle(times, vectors, found)
    found["products"] = products + 2
    terms = int(np.diff(near.indptr).max()) + int(np.diff(far.indptr).max()) + PAIRWISE
    found["frobenius"] = found["value"][:, 0] * 2 * terms / side  # so that bounds.py has 8 terms EPS value of rounding
    found["status"] = Status.NOT_ASKED if converged else Status.NOT_CONVERGED
    return found


def _settle(times: Times, vectors: Floats, found: Eigenpairs) -> None:
    """Rayleigh-Ritz on the two vectors, with fresh products and sums of pairs."""
    for _ in range(2):
        vectors[1] -= _dot(vectors[0], vectors[1]) * vectors[0]
        for k in (0, 1):
            vectors[k] /= np.sqrt(_dot(vectors[k], vectors[k]))
    images = [times(one) for one in vectors]
    crossed = _dot(vectors[0], images[1])
    small = [[_dot(vectors[0], images[0]), crossed], [crossed, _dot(vectors[1], images[1])]]
    turn = np.linalg.eigh(np.array(small))[1][:, ::-1].T
    for k, (a, b) in enumerate(turn.tolist()):
        vector, image = a * vectors[0] + b * vectors[1], a * images[0] + b * images[1]
        value = _dot(vector, image)
        found["value"][0, k] = value
        image -= value * vector
        found["residual"][0, k] = np.sqrt(_dot(image, image))


def _dot(x: Floats, y: Floats) -> float:
    return float(np.sum(x * y))


@dataclass
class _Basis:
    """Orthonormal rows, the projection of the operator, and what is left of the last image outside."""

    rows: Floats
    small: Floats
    width: int = 0
    beside: Floats | None = None

    def outside(self, vector: Floats) -> Floats:
        """Take from the vector what lies in the basis; how much that was of each row."""
        along = np.zeros(self.width)
        for _ in range(2):
            some = self.rows[: self.width] @ vector
            vector -= some @ self.rows[: self.width]
            along += some
            if self.beside is not None:
                vector -= (self.beside @ vector) * self.beside
        return along

    def add(self, vector: Floats) -> None:
        """One more row. Where nothing is left of an image the space is invariant, and noise goes on."""
        noise = np.random.default_rng(self.width)
        while (size := float(np.linalg.norm(vector))) <= SPENT * self.size:
            vector[:] = noise.standard_normal(len(vector))
            self.outside(vector)
        self.rows[self.width] = vector / size
        self.width += 1

    @property
    def size(self) -> float:
        """That of the operator, as far as it is known."""
        return float(np.abs(self.small).max())

    def turned(self, turn: Floats) -> None:
        """Its rows become these combinations of them."""
        for begin in range(0, self.rows.shape[1], COLUMNS):
            part = self.rows[:, begin : begin + COLUMNS]
            part[: len(turn)] = turn @ part[: self.width]
        self.width = len(turn)


def _search(times: Times, side: int, limits: SolverLimits, beside: Floats | None) -> tuple[Floats, int, bool]:
    """The two best Ritz vectors, the products that took, and whether they are as good as asked."""
    basis = _Basis(np.empty((WIDTH + 1, side)), np.zeros((WIDTH + 1, WIDTH + 1)), beside=beside)
    start = np.random.default_rng(0 if beside is None else 1).standard_normal(side)
    rest: Floats = 1.0 + 0.3 * start if beside is None else start
    basis.outside(rest)
    products = 0
    while True:
        while basis.width < WIDTH:
            basis.add(rest)
            rest = times(basis.rows[basis.width - 1])
            products += 1
            basis.small[basis.width - 1, : basis.width] = basis.outside(rest)
        left = float(np.linalg.norm(rest))
        values, turn = np.linalg.eigh(basis.small[: basis.width, : basis.width])
        best = turn[:, ::-1].T
        residuals = left * np.abs(best[:2, -1])
        goal = max(limits.tolerance * float(np.sqrt(max(values[-1] * values[-2], 0.0))), side * EPS * float(values[-1]))
        converged = bool((residuals <= goal).all())
        ended = converged or products + WIDTH - KEPT > limits.most_products
        basis.turned(best[: 2 if ended else KEPT])
        if ended:
            return basis.rows[:2].copy(), products, converged
        basis.small[:] = 0.0
        basis.small[range(KEPT), range(KEPT)] = values[::-1][:KEPT]
