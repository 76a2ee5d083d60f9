"""Problems whose graph is kept as bits, given to the compiled part."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pai_cli.spectral import solvers
from pai_cli.spectral.bounds import pairs_of
from pai_cli.spectral.compiled import calls
from pai_cli.spectral.problems import Problems, smaller_gram
from pai_cli.spectral.result import Pairs
from pai_cli.spectral.solver_table import EIGENPAIR, Eigenpairs, SolverLimits, limits_of
from pai_cli.spectral.solvers import Solver, SolverOptions


def solve(request: Problems, options: SolverOptions) -> Pairs:
    """The pairs of a request's parts. Raises `MemoryError`."""
    if not len(request):
        return Pairs.blank(0)
    limits = limits_of(options, solvers.COMPILED_DIRECT_SIDE)
    large = np.minimum(request.left, request.right) > limits.proof_side
    if np.any(large):
        # A connected graph has one largest singular value, but its subgraphs may fall apart.
        parts = bool(np.any(large & (request.left < request.graph.n_L)))
        limits = replace(limits, twice=parts or request.graph.components > 1)
    if not request.weighted:
        return pairs_of(calls.solve_bits(request.graph.bits, request.ranges, limits), 0.0, limits.proof_side)
    graph = request.graph
    if graph.is_sparse or options.solver is Solver.MATRIX_FREE:
        found = calls.solve_edges(graph.edge_lists, request.ranges, request.right, limits)
        return pairs_of(found, request.forming, limits.proof_side)
    return pairs_of(_solve_dense(request, limits), request.forming)


def _solve_dense(request: Problems, limits: SolverLimits) -> Eigenpairs:
    """Many weighted edges: BLAS forms the Gram matrices, one by one."""
    found = np.zeros(len(request), dtype=EIGENPAIR)
    for k in range(len(request)):
        found[k] = calls.solve_gram(smaller_gram(request.matrix(k)), limits)[0]
    return found
