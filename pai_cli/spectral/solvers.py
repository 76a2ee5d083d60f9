"""Which solver a problem gets: by measured cost, all in this one place.

    one vertex on a side, complete, stars      closed form     nothing to iterate
    side <= direct side                        gram            all eigenvalues of the Gram matrix
    side <= proof side                         power           block power iteration on it, the second value proved
    larger                                     matrix-free     power iteration with the matrix itself; proved on request, by
                                                               elimination where the graph is sparse (`counting`)
    sigma_2 so small that squaring loses it    direct          LAPACK on the matrix itself
    largest values in a cluster (bands,        counting        counts of eigenvalues, where elimination costs less than
      cycles)                                                  LAPACK would
      the same, side <= SVD side               gram            LAPACK, where the iteration has cost as much without an end
                                                               and nobody chose the solver

Where the numbers come from: one core of a server of 2024 with AVX-512, uniform random masks, best of several.

- All eigenvalues of a Gram matrix (Householder, QL) against iteration with proof, compiled, in microseconds: side 16 7 and
  13, 32 25 and 26, 64 100 and 44, 128 430 and 180. Through NumPy the two are equal at about 768 (54 and 51 milliseconds).
- Gram matrix, iteration and proof against the same without Gram matrix and proof, in milliseconds: 512 x 4608 3 and 11,
  1024 x 9216 18 and 44, 2048 x 2048 130 and 25, 4096 x 4096 1200 and 98. Up to 2048 a proof is still worth its time.
- A product by tables takes one addition for eight entries whatever the density, by lists one or two steps for each edge:
  3000 x 4096 in all 65 ms by tables; by lists 30 ms at density 0.04, 48 at 0.08, 58 at 0.1, 110 at 0.15.
- LAPACK in place of the C part's own (`benchmarks/lapack.py`): as long for Ritz values at width 32 and small Gram matrices,
  1.1 to 2.6 times as long for a proof up to side 1024, a third less at 2048, a third for Ritz values at 128; and importing
  scipy.linalg for it takes every command 200 ms more.
- On a device (`device/`) everything up to the proof side there is `power`: by squaring up to a padded side of 128, by
  Lanczos past it. What is solved together follows from a model of launches, bytes and operations (`device/plan.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache

from pai_cli.errors import SolverError
from pai_cli.spectral.parameters import flag, one_of, real_number, whole_number

TOLERANCE = 1e-9  # of sigma_1: the error bound that is asked for unless the caller asks otherwise

COMPILED_DIRECT_SIDE = 32

ARRAY_DIRECT_SIDE = 768

PROOF_SIDE = 2048

DEVICE_PROOF_SIDE = 8192  # on a device, where a factorisation costs no more than the iteration

SVD_SIDE = 6000  # past it LAPACK on the matrix takes many minutes, and the wide bound is flagged instead

FEW_EDGES = 0.08  # density up to which products go by lists of neighbours

MOST_PRODUCTS = 1200  # five times what the hardest graph tried (uniform 14336 x 4096) took

FEWEST_PRODUCTS = 300  # with a Gram matrix, before LAPACK takes over: twice what uniform graphs take


class Solver(StrEnum):
    """What may be asked for."""

    AUTO = "auto"
    GRAM = "gram"
    POWER = "power"
    MATRIX_FREE = "matrix-free"
    DIRECT = "direct"


@dataclass(frozen=True)
class SolverOptions:
    """How singular values are found.

    `tolerance`: error bound asked for, relative to sigma_1. `most_products`: where an iteration gives up;
    below the default LAPACK does not follow. `solver`: what runs in place of the choice made here. `certify`: prove the
    second value whatever that costs.

    Raises `ParameterError` for a value out of range or of another type, `SolverError` for what excludes each other.
    """

    tolerance: float = TOLERANCE
    most_products: int = MOST_PRODUCTS
    solver: Solver = Solver.AUTO
    certify: bool = False

    def __post_init__(self) -> None:
        plain = {
            "tolerance": real_number("tolerance", self.tolerance, above=0, below=1),
            "most_products": whole_number("most_products", self.most_products, 1, MOST),
            "solver": one_of("solver", self.solver, Solver),
            "certify": flag("certify", self.certify),
        }
        for name, value in plain.items():
            object.__setattr__(self, name, value)
        if self.certify and self.solver is Solver.MATRIX_FREE:
            raise SolverError("certify=True needs a Gram matrix, which solver='matrix-free' does without: take 'power'")


MOST = 2**31  # of products: more is no limit

DEFAULT = SolverOptions()


def lapack_follows(options: SolverOptions) -> bool:
    """Whether LAPACK goes on where an iteration has found no end: not for who chose the solver, or fewer products."""
    return options.solver is Solver.AUTO and options.most_products >= MOST_PRODUCTS


@lru_cache(4096)
def patience(options: SolverOptions, side: int) -> SolverOptions:
    """The same with as many products as LAPACK would cost, where it may follow on a Gram matrix of that side.

    All eigenvalues of a Gram matrix of side n take about as long as n / 4 products with it. Products without one cost less.
    """
    without = side > PROOF_SIDE and not options.certify
    if without or not lapack_follows(options):
        return options
    return replace(options, most_products=min(options.most_products, max(FEWEST_PRODUCTS, side // 4)))


ANY_SIDE = 2**31
