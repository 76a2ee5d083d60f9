"""What layers cost: time on a core and on a device, and a device's memory, as far as their sizes tell.

Times of a core are those of `solvers`: one of a server of 2024, compiled, masks of density 0.1, by `benchmarks/costs.py`;
they are right within a factor of two. What a device takes follows from its own rates.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pai_cli.spectral.solvers import PROOF_SIDE

LAYER, ENTRY, PROOF = 4e-4, 1e-8, 1.4e-11
"""Seconds of a core for a layer, its mask and again its weights; for each entry of its matrix; and for each of side**3 where
a proof is made.
"""

PRODUCTS = 3.5e10  # multiplications and additions of a Gram matrix of weights, a second of a core

LAUNCHES = 2600  # of one call of the engine on a device, however many layers it is given

MOST_ENTRIES = 2**28  # of the matrices of one call: no larger one is quicker, and what is finished is shown

STEPS = 80  # of the iteration, each of two products with the matrix

PARTS = 2  # how many times the matrix a layer's subgraphs are together, the layer itself among them

ENTRY_BYTES, WEIGHTED_BYTES, GRAM_BYTES = 40, 110, 256
"""Of a device, while a mask is measured, and one with weights, an entry; and for each of side**2, as a layer has some thirty
Gram matrices. They are not below what torch's tensors in this machine's memory were seen to take.
"""


@dataclass(frozen=True)
class Work:
    """What measuring takes: seconds of a core; on a device, operations in single and double precision, and bytes sent."""

    seconds: float = 0.0
    single: float = 0.0
    double: float = 0.0
    sent: float = 0.0

    def times(self, factor: float) -> Work:
        """So many times the work."""
        return Work(*(factor * each for each in (self.seconds, self.single, self.double, self.sent)))


def work_of(matrices: Iterable[tuple[int, int]], *, weighted: bool) -> Work:
    """The work of layers of these rows and columns, with their weights where `weighted`."""
    seconds = single = double = sent = 0.0
    for rows, columns in matrices:
        side, entries = min(rows, columns), rows * columns
        gram, proof = 2.0 * side * entries, float(side) ** 3 if side <= PROOF_SIDE else 0.0
        seconds += LAYER * (1 + weighted) + ENTRY * entries + PROOF * proof + weighted * gram / PRODUCTS
        single += PARTS * gram
        double += PARTS * (float(side) ** 3 / 3 + 4.0 * STEPS * entries) + weighted * PARTS * gram
        sent += entries * (5 if weighted else 1)
    return Work(seconds, single, double, sent)


def bytes_there(matrix: tuple[int, int], *, weighted: bool) -> int:
    """Bytes of a device that a layer takes while it is measured."""
    rows, columns = matrix
    return rows * columns * (WEIGHTED_BYTES if weighted else ENTRY_BYTES) + GRAM_BYTES * min(rows, columns) ** 2
