"""Problems whose graph is kept as bits, given to the compiled part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from pai_cli.spectral import restarted, solvers
from pai_cli.spectral.bounds import pairs_of
from pai_cli.spectral.compiled import calls
from pai_cli.spectral.compiled.calls import EdgeLists
from pai_cli.spectral.problems import Problems, edges_of, smaller_gram
from pai_cli.spectral.result import Floats, Pairs
from pai_cli.spectral.solver_table import EIGENPAIR, Eigenpairs, SolverLimits, limits_of
from pai_cli.spectral.solvers import Solver, SolverOptions
from pai_cli.spectral.spreading import Spread, in_turn

PRODUCTS = 40  # with a Gram matrix until its values are found, and what finding them takes beside


@dataclass(frozen=True)
class Asked:
    """A request, what is asked of the solver, and the lists of edges, with their weights, where it goes by those."""

    request: Problems
    limits: SolverLimits
    edges: EdgeLists | None

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
        edges = request.graph.edge_lists if len(request) and (weighted or request.graph.listed) else None
        if edges is not None and not request.weighted:
            edges = replace(edges, value=np.ones(len(edges.value)))
        return Asked(request, limits, edges)

    @property
    def free_from(self) -> float:
        """The side past which there is no Gram matrix."""
        return self.limits.proof_side if self.edges is not None or not self.request.weighted else np.inf

    @cached_property
    def parts(self) -> calls.Parts | None:
        """The request as the compiled part solves it with others; None where it takes its parts one by one."""
        request, weights = self.request, self.request.graph.weights
        ranges, touched = request.ranges, request.right
        if not len(request):
            return None
        if self.edges is not None:
            if np.any(np.minimum(request.left, request.right) > restarted.FROM_SIDE):
                return None
            graph = calls.graph_of_edges(self.edges)
        elif not request.weighted:
            graph = calls.graph_of_bits(request.graph.bits)
        elif weights is not None and request.graph.is_complete and len(request) == 1:
            graph, ranges = calls.graph_of_weights(weights, float(request.scales[0])), np.array([[0, 1]])
        else:
            return None
        return calls.Parts(graph, ranges, touched, self.limits)

    @property
    def costs(self) -> Floats:
        """About how many operations each part takes: its Gram matrix, the products with it, and the proof."""
        request = self.request
        near, far = np.sort(np.stack([request.left, request.right]).astype(np.float64), axis=0)
        kept = request.edges.astype(np.float64)
        forming = near * near * far / 64 if self.edges is None else kept * kept / np.maximum(far, 1.0)
        costs: Floats = forming + near * near * (near / 3 + PRODUCTS)
        return costs

    def one_by_one(self) -> Eigenpairs:
        """What is found for each part where the compiled part takes them by themselves: many weighted edges, whose Gram
        matrices BLAS forms, and graphs with many vertices, for which there is an iteration that keeps few vectors.
        """
        if self.edges is not None:
            return self._in_little_memory()
        found = np.zeros(len(self.request), dtype=EIGENPAIR)
        for k in range(len(self.request)):
            found[k] = calls.solve_gram(smaller_gram(self.request.matrix(k)), self.limits)[0]
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


class Solving:
    """Requests that are being solved; where others work beside this thread, what takes longest is begun first.

    `spread`: who works: one at once, all from `join` on; `ready`: who prepares what they work on, which is done when this
    returns.
    """

    def __init__(self, asked: Sequence[Asked], spread: Spread | None, ready: Spread = in_turn):
        self._asked, self._turn = asked, spread or in_turn
        self._parts = list(ready(lambda one: one.parts, asked))
        given = zip(asked, self._parts, strict=True)
        together, order = [one for one, parts in given if parts is not None], None
        if spread is not None and together:
            order = np.argsort(-np.concatenate([one.costs for one in together]), kind="stable")
        parts = [one for one in self._parts if one is not None]
        self._queue = calls.Queue(parts, order, spread) if parts else None

    def join(self) -> None:
        """Let all work who are free."""
        if self._queue is not None:
            self._queue.join()

    def pairs(self) -> list[Pairs]:
        """The pairs of every request's parts: bounds are worked out for all at once. Raises `MemoryError`."""
        if not self._asked:
            return []
        together = iter(self._queue.found() if self._queue is not None else ())
        alone = [one for one, parts in zip(self._asked, self._parts, strict=True) if parts is None]
        others = iter(self._turn(Asked.one_by_one, alone))
        found = [next(others if parts is None else together) for parts in self._parts]
        sizes = [len(one.request) for one in self._asked]
        forming = np.repeat([one.request.forming for one in self._asked], sizes)
        table = np.concatenate([one.view(np.float64) for one in found]).view(EIGENPAIR)
        return pairs_of(table, forming, np.repeat([one.free_from for one in self._asked], sizes)).split(sizes)

    def close(self) -> None:
        """Whoever still works begins nothing more."""
        if self._queue is not None:
            self._queue.close()
