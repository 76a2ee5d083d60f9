"""Problems whose graph is kept as bits, given to the compiled part: those of all layers at once, piece by piece."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pai_cli.spectral import solvers
from pai_cli.spectral.bounds import pairs_of
from pai_cli.spectral.compiled import calls
from pai_cli.spectral.problems import Problems, smaller_gram
from pai_cli.spectral.result import Floats, Ints, Pairs
from pai_cli.spectral.solver_table import EIGENPAIR, Eigenpairs, SolverLimits, limits_of
from pai_cli.spectral.solvers import Solver, SolverOptions

PIECE = 4e6  # of `_Asked.costs`, a few milliseconds: what a thread takes at a time


@dataclass(frozen=True)
class _Asked:
    """A request, what is asked of the solver, and whether it goes by lists of weighted edges."""

    request: Problems
    limits: SolverLimits
    by_edges: bool

    @staticmethod
    def of(request: Problems, options: SolverOptions) -> _Asked:
        limits = limits_of(options, solvers.COMPILED_DIRECT_SIDE)
        large = np.minimum(request.left, request.right) > limits.proof_side
        if np.any(large):
            # A connected graph has one largest singular value, but its subgraphs may fall apart.
            parts = bool(np.any(large & (request.left < request.graph.n_L)))
            limits = replace(limits, twice=parts or request.graph.components > 1)
        lists = request.weighted and (request.graph.is_sparse or options.solver is Solver.MATRIX_FREE)
        return _Asked(request, limits, lists)

    @property
    def free_from(self) -> float:
        """The side past which there is no Gram matrix."""
        return self.limits.proof_side if self.by_edges or not self.request.weighted else np.inf

    @property
    def costs(self) -> Floats:
        """About how long each part takes: forming a Gram matrix of the smaller side, its factor, some fifty products."""
        small = np.minimum(self.request.left, self.request.right).astype(np.float64)
        large = np.maximum(self.request.left, self.request.right).astype(np.float64)
        forming = large if self.request.weighted else large / 16
        costs: Floats = np.where(
            small > self.free_from, 400.0 * self.request.edges, small**2 * (forming + small / 3 + 50)
        )
        return costs

    def pieces(self) -> list[Piece]:
        """All parts, in runs of about the same cost."""
        if not len(self.request):
            return []
        costs = self.costs
        every, cost = np.arange(len(costs)), float(costs.sum())
        if cost <= PIECE:
            return [Piece(self, every, cost)]
        middle = np.cumsum(costs) - costs / 2
        cuts = np.flatnonzero(np.diff(middle // PIECE)) + 1
        return [Piece(self, at, float(costs[at].sum())) for at in np.split(every, cuts)]


@dataclass(frozen=True)
class Piece:
    """Parts of a request that a thread solves one after another: `at`, which; `cost`, in products of two numbers."""

    asked: _Asked
    at: Ints
    cost: float

    def bytes_of(self) -> int:
        """About what solving takes at its peak: of the largest part a Gram matrix and its factor, and lists or a matrix."""
        request = self.asked.request.take(self.at)
        side = int(min(np.minimum(request.left, request.right).max(), self.asked.free_from))
        entries = request.edges * 2 if self.asked.by_edges else request.left * request.right
        return 16 * side**2 + (8 * int(entries.max()) if request.weighted else 0)

    def solve(self) -> Eigenpairs:
        """What is found for each part. Raises `MemoryError`."""
        request, limits = self.asked.request.take(self.at), self.asked.limits
        if not request.weighted:
            return calls.solve_bits(request.graph.bits, request.ranges, limits)
        if self.asked.by_edges:
            return calls.solve_edges(request.graph.edge_lists, request.ranges, request.right, limits)
        found = np.zeros(len(request), dtype=EIGENPAIR)
        for k in range(len(request)):  # many weighted edges: BLAS forms the Gram matrices, one by one
            found[k] = calls.solve_gram(smaller_gram(request.matrix(k)), limits)[0]
        return found


@dataclass(frozen=True)
class Work:
    """Requests, each with options of its own, as `pieces` that may be solved in any order by `Piece.solve`.

    The costliest come first, so that threads which take one after the other end at about the same time.
    """

    asked: tuple[_Asked, ...]
    pieces: tuple[Piece, ...]

    @staticmethod
    def of(requests: Sequence[Problems], options: Sequence[SolverOptions]) -> Work:
        """All parts of the requests."""
        asked = tuple(_Asked.of(request, own) for request, own in zip(requests, options, strict=True))
        pieces = sorted((piece for one in asked for piece in one.pieces()), key=lambda piece: -piece.cost)
        return Work(asked, tuple(pieces))

    def pairs(self, found: Sequence[Eigenpairs]) -> list[Pairs]:
        """The pairs of every request's parts, from what was found for each piece."""
        if not self.asked:
            return []
        sizes = [len(one.request) for one in self.asked]
        first = dict(zip(map(id, self.asked), np.cumsum([0, *sizes]).tolist(), strict=False))
        table = np.zeros(sum(sizes), dtype=EIGENPAIR)
        for piece, values in zip(self.pieces, found, strict=True):
            table[first[id(piece.asked)] + piece.at] = values
        forming = np.repeat([one.request.forming for one in self.asked], sizes)
        return pairs_of(table, forming, np.repeat([one.free_from for one in self.asked], sizes)).split(sizes)
