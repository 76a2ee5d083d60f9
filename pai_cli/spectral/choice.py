"""Which solver a problem gets: by measured cost, all in this one place.

    one vertex on a side, complete, stars      closed form     nothing to iterate
    side <= direct side                        gram            all eigenvalues of the Gram matrix
    side <= proof side                         power           block power iteration on it, the second value proved
    larger                                     matrix-free     power iteration with the matrix itself; proved on request
    sigma_2 so small that squaring loses it    direct          LAPACK on the matrix itself

Where the numbers come from (one core of a 2024 server, times of uniform random masks; `make bench` prints them anew):

- Compiled, all eigenvalues of side 24, 32, 48 take 14, 27 and 75 us by Householder and QL; iteration with proof 25, 30 and
  43 us. LAPACK through NumPy against iteration through NumPy: equal at side 640.
- The proof is n^3 / 3 operations. At side 512 it is 1.3 ms of 3.6; at 2048 it is as long as all the rest; at 4096 it would
  take eight times the answer.
- A product by tables costs one step for eight entries whatever the density; by lists one or two for each edge.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

TOLERANCE = 1e-9  # of sigma_1: the error bound that is asked for unless the caller asks otherwise

COMPILED_DIRECT_SIDE = 32

ARRAY_DIRECT_SIDE = 640

DEVICE_DIRECT_SIDE = 32  # on a GPU, whose eigensolvers are slow and whose products are not

PROOF_SIDE = 2048

SVD_SIDE = 6000  # past it LAPACK on the matrix takes many minutes, and the wide bound is flagged instead

FEW_EDGES = 0.07  # density up to which products go by lists of neighbours

MOST_PRODUCTS = 1200  # five times what the hardest graph tried (uniform 14336 x 4096) took


class Solver(StrEnum):
    """What `--solver` takes."""

    AUTO = "auto"
    GRAM = "gram"
    POWER = "power"
    MATRIX_FREE = "matrix-free"
    DIRECT = "direct"


@dataclass(frozen=True)
class SolverOptions:
    """How singular values are found.

    `tolerance`: error bound asked for, relative to sigma_1. `most_products`: where an iteration gives up. `solver`: what
    runs in place of the choice made here. `certify`: prove the second value whatever that costs.
    """

    tolerance: float = TOLERANCE
    most_products: int = MOST_PRODUCTS
    solver: Solver = Solver.AUTO
    certify: bool = False


DEFAULT = SolverOptions()

ANY_SIDE = 2**31
