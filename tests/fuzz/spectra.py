"""Graphs of every kind, by any engine and solver: what is claimed of two singular values holds against a dense SVD."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import numpy as np
from random_graphs import EVERY_KIND, case_of, check_all, check_residuals

from pai_cli.spectral import solvers
from pai_cli.spectral.compiled import calls
from pai_cli.spectral.solvers import Solver, SolverOptions


def case(seed: int, folder: Path) -> None:
    """A few graphs of each kind, solved together in one way."""
    rng = np.random.default_rng(seed)
    cases = [case_of(kind, int(rng.integers(2**48))) for kind in EVERY_KIND for _ in range(4)]
    with ExitStack() as patches:
        if rng.random() < 0.4:
            patches.enter_context(patch.object(calls, "kernel", None))
        if rng.random() < 0.5:  # the iteration, though the matrices are small
            patches.enter_context(patch.object(solvers, "ARRAY_DIRECT_SIDE", solvers.COMPILED_DIRECT_SIDE))
            patches.enter_context(patch.object(solvers, "PROOF_SIDE", 40))
        solver = list(Solver)[rng.integers(len(Solver))]
        if solver is Solver.MATRIX_FREE or solvers.PROOF_SIDE == 40:
            check_residuals(cases)
        else:
            check_all(cases, SolverOptions(solver=solver))
