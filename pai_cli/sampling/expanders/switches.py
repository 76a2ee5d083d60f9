"""Lowering sigma_2 by switches, which leave every degree as it is: edges (a, i), (b, j) become (a, j), (b, i)."""

from __future__ import annotations

import numpy as np

from pai_cli.sampling.expanders.biregular import Matrix, Rng
from pai_cli.sampling.expanders.descent import Descent, Singles, Wiring, descend

PROPOSALS, MOST_PROPOSALS = 4, 2**17  # pairs of edges looked at in a step: so many for each edge, and at the most
MORE = 4  # times the switches wanted, looked at for some that do not get into each other's way


class Switched(Wiring):
    """A graph that is changed by switches; sigma is its sigma_2."""

    def changed(self, most: int) -> tuple[Wiring, int] | None:
        """See `Wiring`. Switches that use the same edge or make the same one are not taken together."""
        matrix, slope = self.matrix, self.slope
        # np.nonzero(matrix) takes eight times as long.
        row, column = np.divmod(np.flatnonzero(matrix != 0), matrix.shape[1])
        first, second = self.rng.integers(len(row), size=(2, min(PROPOSALS * len(row), MOST_PROPOSALS)))
        free = (matrix[row[first], column[second]] == 0) & (matrix[row[second], column[first]] == 0)
        first, second = first[free], second[free]
        a, i, b, j = row[first], column[first], row[second], column[second]
        gain = slope[a, i] + slope[b, j] - slope[a, j] - slope[b, i]
        order = _largest(gain, MORE * most)
        cells = len(row) + np.stack([a * matrix.shape[1] + j, b * matrix.shape[1] + i], axis=1)
        order = order[_apart(np.column_stack([first, second, cells])[order])][:most]
        if not len(order):
            return None
        changed: Singles = matrix.copy()
        changed[a[order], i[order]] = changed[b[order], j[order]] = 0.0
        changed[a[order], j[order]] = changed[b[order], i[order]] = 1.0
        return Switched(changed, self.rng), len(order)


def _largest(gain: np.ndarray, most: int) -> np.ndarray:
    """Where up to `most` of the largest gains above 0 are, the largest first."""
    places = np.flatnonzero(gain > 0)
    if len(places) > most:
        places = places[np.argpartition(-gain[places], most - 1)[:most]]
    order: np.ndarray = places[np.lexsort((places, -gain[places]))]
    return order


def _apart(used: np.ndarray) -> np.ndarray:
    """Which rows share no number with an earlier row. A row that is left out still counts as earlier."""
    _, place = np.unique(used.reshape(-1), return_index=True)
    is_first = np.zeros(used.size, dtype=np.bool_)
    is_first[place] = True
    apart: Matrix = np.asarray(is_first.reshape(used.shape).all(axis=1))
    return apart


def improved(matrix: Matrix, steps: int, rng: Rng) -> tuple[Matrix, Descent | None]:
    """The matrix after switches that lower its sigma_2, and how that went; None where there is nothing to switch."""
    if matrix.shape[0] > matrix.shape[1]:
        turned, descent = improved(matrix.T, steps, rng)
        return turned.T, descent
    if min(matrix.shape) < 2 or not matrix.any() or matrix.all():
        return matrix, None
    descent = descend(Switched(matrix.astype(np.float32), rng), steps)
    return descent.wiring.matrix > 0, descent
