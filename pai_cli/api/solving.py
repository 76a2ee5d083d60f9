"""How singular values are to be found, from what a caller says of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pai_cli.compute.device import Device
from pai_cli.errors import SolverError
from pai_cli.refusals import Idle, refuse
from pai_cli.spectral.parameters import flag, one_of
from pai_cli.spelling import option

if TYPE_CHECKING:
    from pai_cli.spectral.solvers import SolverOptions

FREE = option("solver", "matrix-free")
SOLVING = (
    Idle(
        ("certify",),
        f"{{it}} needs a Gram matrix, which {FREE} does without: take power",
        where=lambda call: call.solver == "matrix-free",
    ),
)


def solver_options(solver: str, *, certify: bool, device: str) -> SolverOptions:
    """What is asked of the engine. Raises `UsageError` for what excludes each other, `SolverError` for what cannot run."""
    asked = dict(locals())
    from pai_cli.spectral.solvers import Solver, SolverOptions

    refuse(solver_options, SOLVING, asked)
    chosen = one_of("solver", solver, Solver)
    flag("certify", certify)
    if chosen is Solver.MATRIX_FREE:
        from pai_cli.spectral.compiled import calls

        if device in (Device.AUTO, Device.CPU) and not calls.available():
            raise SolverError(f"{FREE} needs the compiled part of the engine: install pai where there is a C compiler")
    return SolverOptions(solver=chosen, certify=certify)
