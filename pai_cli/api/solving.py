"""How singular values are to be found, from what a caller says of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pai_cli.compute.device import Device
from pai_cli.errors import SolverError, UsageError
from pai_cli.spectral.parameters import flag, one_of
from pai_cli.spelling import option

if TYPE_CHECKING:
    from pai_cli.spectral.solvers import SolverOptions


def solver_options(solver: str, *, certify: bool, device: str) -> SolverOptions:
    """What is asked of the engine. Raises `UsageError` for what excludes each other, `SolverError` for what cannot run."""
    from pai_cli.spectral.solvers import Solver, SolverOptions

    chosen = one_of("solver", solver, Solver)
    flag("certify", certify)
    if chosen is Solver.MATRIX_FREE:
        from pai_cli.spectral.compiled import calls

        free = option("solver", "matrix-free")
        if certify:
            raise UsageError(f"{option('certify')} needs a Gram matrix, which {free} does without: take power")
        if device not in (Device.AUTO, Device.CPU):
            raise UsageError(f"{free} runs on the CPU only: leave {option('device')} out")
        if not calls.available():
            raise SolverError(f"{free} needs the compiled part of the engine: install pai where there is a C compiler")
    return SolverOptions(solver=chosen, certify=certify)
