"""What a solver of Gram matrices finds, before it is turned into singular values with bounds: plain numbers a problem.

Both kinds of solver, the compiled one and the one written against the array API, fill this same table, so that what a
number is worth is worked out in one place, `bounds`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pai_cli.spectral import solvers
from pai_cli.spectral.result import EPS
from pai_cli.spectral.solvers import Solver, SolverOptions

EIGENPAIR = np.dtype(
    [
        ("status", "f8"),  # a Status
        ("side", "f8"),  # n of the Gram matrix
        ("value", "f8", 2),  # its two largest eigenvalues, the larger first
        ("residual", "f8", 2),  # ||G v - value v|| of each, as computed; 0 when all eigenvalues were computed
        (
            "shift",
            "f8",
        ),  # t, where t I + value_1 v_1 v_1^T - G was seen to have a Cholesky factor; BOUNDED: see `bounds`
        ("trace", "f8"),  # of that matrix; BOUNDED: see `bounds`
        ("frobenius", "f8"),  # ||G||_F
        ("products", "f8"),  # with G
    ]
)
"""One problem. Eight-byte floats throughout, as the compiled solver writes them."""

Eigenpairs = np.ndarray[Any, np.dtype[np.void]]


class Status:
    """How a solver ended.

    Plain numbers: for a member of an enumeration NumPy asks its class for attributes, in Python code whose exceptions it
    drops, and that of a Ctrl-C with them.
    """

    ALL_VALUES = 0  # every eigenvalue was computed
    PROVED = 1  # the factorisation exists: no other eigenvalue is above
    MISSED = 2  # it does not: there is one
    NOT_CONVERGED = 3
    NO_MEMORY = 4
    NOT_ASKED = 5  # the pair is good, no proof was tried
    BOUNDED = 6  # by repeated squaring, whose norms bound both values from above


@dataclass(frozen=True)
class SolverLimits:
    """What is asked of a solver.

    tolerance: error bound of a singular value, relative to sigma_1. most_products: where an iteration gives up.
    direct_side: up to this side all eigenvalues are computed. proof_side: up to this side the second is proved. few_edges:
    up to this density a product without a Gram matrix goes by lists of neighbours. twice: where nothing is proved, look
    again for a second eigenvalue equal to the first, which only a graph of several components can have (Perron, Frobenius).
    """

    tolerance: float
    most_products: int
    direct_side: int
    proof_side: int
    few_edges: float = 0.0
    twice: bool = False

    @property
    def packed(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """The same as an array, as the compiled solver reads it."""
        members = (self.tolerance, self.most_products, self.direct_side, self.proof_side, self.few_edges, self.twice)
        return np.array(members, dtype=np.float64)


def limits_of(options: SolverOptions, direct_side: int, proof_side: int | None = None) -> SolverLimits:
    """What an eigensolver is asked for; `direct_side` and `proof_side` of the place where it runs."""
    proof_side = solvers.PROOF_SIDE if proof_side is None else proof_side
    if options.certify or options.solver is Solver.POWER:
        proof_side = solvers.ANY_SIDE
    if options.solver is Solver.POWER:
        direct_side = 3  # smaller spaces have no room for a block of two and its first power
    if options.solver is Solver.MATRIX_FREE and not options.certify:
        direct_side = proof_side = 3
    return SolverLimits(options.tolerance, options.most_products, direct_side, proof_side, solvers.FEW_EDGES)


def shift_for(first: Any, second: Any, side: Any, tolerance: float) -> Any:
    """Where the proof is tried: this much above the second value, `tolerance` of sigma_1 once the root is taken."""
    return second + tolerance * (first * second) ** 0.5 / 2 + 4 * side * EPS * first
