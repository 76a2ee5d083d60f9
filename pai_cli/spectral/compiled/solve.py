"""Problems whose graph is kept as bits, given to the compiled part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pai_cli.spectral import restarted, solvers
from pai_cli.spectral.bounds import pairs_of
from pai_cli.spectral.compiled import calls
from pai_cli.spectral.problems import Problems, edges_of, smaller_gram
from pai_cli.spectral.result import Pairs
from pai_cli.spectral.solver_table import EIGENPAIR, Eigenpairs, SolverLimits, limits_of
from pai_cli.spectral.solvers import Solver, SolverOptions


@dataclass(frozen=True)
class Asked:
    """A request, what is asked of the solver, and whether it goes by lists of weighted edges."""

    request: Problems
    limits: SolverLimits
    by_edges: bool

    @staticmethod
    def of(request: Problems, options: SolverOptions) -> Asked:
        """The request with what its graph and the options come to."""
        limits = limits_of(options, solvers.COMPILED_DIRECT_SIDE)
        large = np.minimum(request.left, request.right) > limits.proof_side
        if large.any():
            # A connected graph has one largest singular value, but its subgraphs may fall apart.
            parts = bool((large & (request.left < request.graph.n_L)).any())
            limits = replace(limits, twice=parts or request.graph.components > 1)
        weighted = request.weighted and (request.graph.is_sparse or options.solver is Solver.MATRIX_FREE)
        lists = weighted or request.graph.listed
        return Asked(request, limits, lists)

    @property
    def free_from(self) -> float:
        """The side past which there is no Gram matrix."""
        return self.limits.proof_side if self.by_edges or not self.request.weighted else np.inf

    def solve(self) -> Eigenpairs:
        """What is found for each part. Raises `MemoryError`."""
        request, limits = self.request, self.limits
        if not len(request):
            return np.zeros(0, dtype=EIGENPAIR)
        if self.by_edges:
            edges = request.graph.edge_lists
            if not request.weighted:
                edges = replace(edges, value=np.ones(len(edges.value)))
            if np.any(np.minimum(request.left, request.right) > restarted.FROM_SIDE):
                return self._in_little_memory()
            return calls.solve_edges(edges, request.ranges, request.right, limits)
        if not request.weighted:
            return calls.solve_bits(request.graph.bits, request.ranges, limits)
        weights = request.graph.weights
        if weights is not None and request.graph.is_complete and len(request) == 1:
            return calls.solve_weights(weights, float(request.scales[0]), limits)
        found = np.zeros(len(request), dtype=EIGENPAIR)
        for k in range(len(request)):  # many weighted edges: BLAS forms the Gram matrices, one by one
            found[k] = calls.solve_gram(smaller_gram(request.matrix(k)), limits)[0]
        return found

    def _in_little_memory(self) -> Eigenpairs:
        """Each part by itself, those with many vertices by the iteration that keeps few vectors."""
        request, found = self.request, np.zeros(len(self.request), dtype=EIGENPAIR)
        for k in range(len(request)):
            edges, touched = edges_of(request, k), int(request.right[k])
            if min(int(request.left[k]), touched) > restarted.FROM_SIDE:
                found[k] = restarted.leading_pair(edges, touched, self.limits)[0]
            else:
                whole = np.array([[0, int(request.left[k])]])
                found[k] = calls.solve_edges(edges, whole, np.array([touched]), self.limits)[0]
        return found


def pairs(asked: Sequence[Asked], found: Sequence[Eigenpairs]) -> list[Pairs]:
    """The pairs of every request's parts, from what was found for each: bounds are worked out for all at once."""
    if not asked:
        return []
    sizes = [len(one.request) for one in asked]
    forming = np.repeat([one.request.forming for one in asked], sizes)
    table = np.concatenate([one.view(np.float64) for one in found]).view(EIGENPAIR)
    return pairs_of(table, forming, np.repeat([one.free_from for one in asked], sizes)).split(sizes)
