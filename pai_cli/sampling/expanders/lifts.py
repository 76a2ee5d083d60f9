"""2-lifts: graphs of twice the size, with the old singular values and those of a signing of the old edges.

Bilu and Linial 2006, https://arxiv.org/abs/math/0312022; that a signing with singular values within the Ramanujan bound
always exists is Marcus, Spielman, Srivastava 2013, https://arxiv.org/abs/1304.4132.
"""

from __future__ import annotations

import numpy as np

from pai_cli.sampling.expanders.biregular import Matrix, Rng
from pai_cli.sampling.expanders.descent import Wiring, descend


def lift(matrix: Matrix, positive: Matrix) -> Matrix:
    """The 2-lift, (2 rows, 2 columns): positive edges join vertices of the same copy, the others of different ones.

    Its singular values are those of `matrix` and those of the signed matrix (1 where positive, else -1, on the edges).
    """
    same, other = matrix & positive, matrix & ~positive
    return np.block([[same, other], [other, same]])


class Signed(Wiring):
    """A signed graph that is changed by turning signs; sigma is its largest singular value."""

    keep_first = False

    def changed(self, most: int) -> tuple[Wiring, int] | None:
        """See `Wiring`."""
        gain = (self.matrix * self.slope).reshape(-1)
        order = np.argsort(-gain, kind="stable")[:most]
        order = order[self.rng.random(len(order)) < 0.5] if most > 1 else order  # not the same ones after a failure
        order = order[gain[order] > 0]
        if not len(order):
            return None
        changed = self.matrix.copy()
        changed.reshape(-1)[order] *= -1.0
        return Signed(changed, self.rng), len(order)


def signing(matrix: Matrix, steps: int, rng: Rng) -> Matrix:
    """Which edges are positive in a signing of small singular values: a random one, its signs turned while that helps."""
    if matrix.shape[0] > matrix.shape[1]:
        return signing(matrix.T, steps, rng).T
    signs = np.where(rng.random(matrix.shape) < 0.5, np.float32(1), np.float32(-1)) * matrix
    if min(matrix.shape) < 2:
        return signs > 0
    return descend(Signed(signs, rng), steps).wiring.matrix > 0
