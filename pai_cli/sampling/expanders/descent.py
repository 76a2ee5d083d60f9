"""Going down the eighth power norm of the lower singular values, a few changes at a time.

The norm is dominated by the largest of them and yet is smooth where several are equal, as they are in random graphs, where
lowering sigma_2 alone lifts the next one above it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pai_cli.sampling.expanders.biregular import Rng

Reals = np.ndarray[Any, np.dtype[np.float64]]
Singles = np.ndarray[Any, np.dtype[np.float32]]

FIRST_SHARE = 32  # of the edges, one in so many is changed in the first step
GROWTH = 1.5  # of the next step after one that went down; after one that did not, half as many are changed
FAILURES = 12  # in a row, the last of them at single changes, after which nothing more is expected
PATIENCE, LEAST_GAIN = 40, 1e-3  # steps within which sigma_2 must fall by this share of itself
SMALL = 48  # sides up to here are solved densely, which is quicker there


class Wiring(ABC):
    """A matrix that can be changed: `matrix`, float32 of 0, 1 and -1 (rows, columns), rows <= columns.

    `gram`: the smaller Gram matrix without its first eigenvector, where `keep_first` says that this one stays; `square`: its
    square; `height`: the sum of the eighth powers of the singular values that are left; `sigma`: the largest of them.
    """

    keep_first = True

    def __init__(self, matrix: Singles, rng: Rng) -> None:
        self.matrix, self.rng = matrix, rng
        self.gram: Reals = (matrix @ matrix.T).astype(np.float64)  # whole numbers, exact in float32 to 2^24
        values, first = _top(self.gram, rng)
        if self.keep_first:
            self.gram = self.gram - values[0] * np.outer(first, first)
        self.square: Reals = self.gram @ self.gram
        self.height = float(np.sum(self.square**2))
        self.sigma = float(np.sqrt(max(values[1] if self.keep_first else values[0], 0.0)))

    @property
    def slope(self) -> Singles:
        """How fast the height grows with each entry, up to a factor: (rows, columns). Only what to try depends on it."""
        cube = self.square @ self.gram
        slope: Singles = (cube / np.max(np.abs(cube), initial=1.0)).astype(np.float32) @ self.matrix
        return slope

    @abstractmethod
    def changed(self, most: int) -> tuple[Wiring, int] | None:
        """The wiring with up to `most` changes that go down at first order, and how many; None when none was found."""


def _top(gram: Reals, rng: Rng) -> tuple[Reals, Reals]:
    """The two largest eigenvalues, and the first's eigenvector. `gram`: of side 2 or more."""
    if len(gram) <= SMALL:
        values, vectors = np.linalg.eigh(gram)
        return values[[-1, -2]], vectors[:, -1]
    from scipy.sparse.linalg import eigsh

    start = 1.0 + 0.01 * rng.standard_normal(len(gram))
    values, vectors = eigsh(gram, k=2, v0=start, tol=1e-7)
    order = np.argsort(-values)
    return values[order], vectors[:, order[0]]


@dataclass(frozen=True)
class Descent:
    """Where a descent ended: the wiring of the least sigma seen, how many changes led there, in how many steps."""

    wiring: Wiring
    changes: int
    steps: int


def descend(start: Wiring, steps: int, told: Callable[[int], None] | None = None) -> Descent:
    """Change `start` until its sigma stops falling, in `steps` steps at the most; `told` hears the step that is done.

    A step is taken when the height falls; the number of changes a step adapts. It ends when single changes fail again and
    again, or sigma has fallen by less than a thousandth in forty steps.
    """
    best = wiring = start
    changes = best_changes = failures = 0
    most = max(1, int(np.count_nonzero(start.matrix)) // FIRST_SHARE)
    marks = [start.sigma]
    for step in range(1, steps + 1):
        found = wiring.changed(most)
        if found is not None and found[0].height < wiring.height:
            wiring, changes = found[0], changes + found[1]
            most, failures = int(most * GROWTH) + 1, 0
            if wiring.sigma < best.sigma:
                best, best_changes = wiring, changes
        else:
            failures = failures + 1 if most == 1 else 0
            most = max(1, most // 2)
        marks.append(best.sigma)
        if told is not None:
            told(step)
        if failures >= FAILURES or (step >= PATIENCE and best.sigma > marks[-1 - PATIENCE] * (1 - LEAST_GAIN)):
            break
    return Descent(best, best_changes, len(marks) - 1)
