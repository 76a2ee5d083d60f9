"""The two largest singular values of parts of a layer: closed forms, then a solver, then what squaring has lost.

A part is a range of a graph's left vertices, sorted by degree: all of them, or one degree's. All parts of a layer are
solved together, and those of many layers, so that the cost is that of the arithmetic and not of the calls. Which solver a
part gets is said in `solvers`, what its evidence is worth in `bounds`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial

import numpy as np

from pai_cli.errors import NotFiniteError
from pai_cli.spectral import batched
from pai_cli.spectral.compiled.solve import Asked, Solving
from pai_cli.spectral.counting import beforehand, count_instead, left_off
from pai_cli.spectral.device.solve import solve as solve_tensors
from pai_cli.spectral.direct import (
    pair_of_complete,
    pair_of_gram,
    pair_of_matrix,
    pair_of_stars,
    pair_of_vector,
)
from pai_cli.spectral.graph import BipartiteGraph, host
from pai_cli.spectral.namespaces import array_namespace
from pai_cli.spectral.problems import Problems, smaller_gram
from pai_cli.spectral.result import EPS, Outcome, Pairs, SingularPair, unanswered
from pai_cli.spectral.solvers import DEFAULT, SVD_SIDE, Solver, SolverOptions, lapack_follows, patience
from pai_cli.spectral.spreading import Spread, in_turn


def structure_pair(graph: BipartiteGraph, options: SolverOptions = DEFAULT) -> SingularPair:
    """sigma_1 and sigma_2 of the layer's 0/1 mask."""
    return singular_pairs([Problems.whole(graph)], options)[0][0]


def weighted_pair(graph: BipartiteGraph, options: SolverOptions = DEFAULT) -> SingularPair:
    """sigma_1 and sigma_2 of `A = abs(W) * M`. Raises `NotFiniteError` where they overflow."""
    return singular_pairs([Problems.whole(graph, weighted=True)], options)[0][0]


def singular_pairs(
    requests: Sequence[Problems], options: SolverOptions = DEFAULT, spread: Spread | None = None
) -> list[Pairs]:
    """The pairs of every part of every request, in order. `spread`: who works beside this thread; no number depends on it.

    Raises `NotFiniteError` for weights whose singular values overflow, and `MemoryError`.
    """
    if not requests:
        return []
    with closing(SolvingPairs(requests, options, spread)) as solving:
        return solving.pairs()


class SolvingPairs:
    """Requests, at least one, whose pairs are being found. `spread`: who works beside this thread: one at once, all from
    `join` on; `ready`: who prepares what they work on, which is done when this returns.
    """

    def __init__(
        self, requests: Sequence[Problems], options: SolverOptions, spread: Spread | None, ready: Spread | None = None
    ):
        self._requests, self._options, self._turn = requests, options, spread or in_turn
        self._answers = _closed_forms(requests, self._every_part())
        self._open = np.array([not solver for solver in self._answers.solver], dtype=bool)
        own = np.split(self._open, np.cumsum(self._sizes)[:-1])
        self._rest = [request.take(np.flatnonzero(at)) for request, at in zip(requests, own, strict=True)]
        self._compiled = Solving([], None)
        if not self._by_lapack:
            ours = [one for one in self._rest if one.graph.compiled]
            asked = [Asked.of(one, patience(beforehand(one, options), _largest_side([one]))) for one in ours]
            self._compiled = Solving(asked, spread, ready or self._turn)

    @property
    def _sizes(self) -> list[int]:
        return [len(request) for request in self._requests]

    @property
    def _by_lapack(self) -> bool:
        return self._options.solver in (Solver.GRAM, Solver.DIRECT)

    def _every_part(self) -> list[tuple[Problems, int]]:
        return [(request, k) for request in self._requests for k in range(len(request))]

    def join(self) -> None:
        """Let all work who are free."""
        self._compiled.join()

    def pairs(self) -> list[Pairs]:
        """The pairs of every part of every request, in order. Raises `NotFiniteError` and `MemoryError`."""
        options, parts = self._options, self._every_part()
        if self._by_lapack:
            found = list(self._turn(partial(_by_lapack, options=options), self._rest))
        else:  # each where it lives
            compiled = iter(self._compiled.pairs())
            others = _by_arrays([one for one in self._rest if not one.graph.compiled], options, self._turn)
            found = [next(compiled if one.graph.compiled else others) for one in self._rest]
            left = [
                (request, its)
                for request, its in zip(self._rest, found, strict=True)
                if request.graph.compiled and set(its.outcome) != {Outcome.PROVED}
            ]
            list(self._turn(lambda one: _count(*one, options), left))
        at, solved = np.flatnonzero(self._open), Pairs.joined(found)
        _settle([parts[k] for k in at.tolist()], solved, options, self._turn)
        self._answers.put(at, solved)
        _scale(self._answers, self._requests)
        return self._answers.split(self._sizes)

    def close(self) -> None:
        """Whoever still works begins nothing more."""
        self._compiled.close()


def _by_arrays(requests: Sequence[Problems], options: SolverOptions, turn: Spread) -> Iterator[Pairs]:
    """In this machine's memory each request by itself, so that no number depends on what else is asked for; tensors of each
    device together, as one plan.
    """

    def own(some: Sequence[Problems]) -> SolverOptions:
        return patience(options, _largest_side(some))

    tensors: dict[str, list[Problems]] = {}
    for one in requests:
        if one.graph.place is not None:
            tensors.setdefault(one.graph.place, []).append(one)
    together = {name: iter(solve_tensors(some, own(some))) for name, some in tensors.items()}
    ours = iter(
        turn(lambda one: batched.solve([one], own([one]))[0], [one for one in requests if one.graph.place is None])
    )
    for one in requests:
        yield next(ours if one.graph.place is None else together[one.graph.place])


def _largest_side(requests: Sequence[Problems]) -> int:
    """The smaller side of the largest part."""
    return max((int(np.minimum(one.left, one.right).max(initial=0)) for one in requests), default=0)


def _by_lapack(request: Problems, options: SolverOptions) -> Pairs:
    pairs = Pairs.blank(len(request))
    for k in range(len(request)):
        pairs[k] = _svd_pair(request, k) if options.solver is Solver.DIRECT else _gram_pair(request, k)
    return pairs


def _gram_pair(request: Problems, k: int) -> SingularPair:
    gram = smaller_gram(host(request.matrix(k)))
    xp = array_namespace(gram)
    return pair_of_gram(xp.astype(gram, xp.float64), request.forming)


def _svd_pair(request: Problems, k: int) -> SingularPair:
    """In this machine's memory: a device solves one matrix no quicker, and waits for every reflection."""
    matrix = host(request.matrix(k))
    xp = array_namespace(matrix)
    return pair_of_matrix(xp.astype(matrix, xp.float64))


def _closed_forms(requests: Sequence[Problems], parts: Sequence[tuple[Problems, int]]) -> Pairs:
    """What needs no solver, of the requests' `parts`; the rest of the pairs have no solver's name."""
    found = Pairs.blank(len(parts))
    left, right, edges, scales = (
        np.concatenate([getattr(one, name) for one in requests]) for name in ("left", "right", "edges", "scales")
    )
    plain = np.repeat([not one.weighted for one in requests], [len(one) for one in requests])
    known = plain & ((edges == left) | (edges == right) | (edges == left * right))
    for at in np.flatnonzero(known | (np.minimum(left, right) <= 1) | (scales == 0.0)).tolist():
        found[at] = _closed_form(*parts[at])
    return found


def _closed_form(request: Problems, k: int) -> SingularPair:
    """Of a part without edges, with one vertex on a side, of zeros, complete, or of stars."""
    left, right, edges = (int(numbers[k]) for numbers in (request.left, request.right, request.edges))
    if request.graph.edges == 0:
        return unanswered(Outcome.COLLAPSED, "closed form")
    if request.scales[k] == 0.0 and min(left, right) > 1:
        return SingularPair(0.0, 0.0, 0.0, 0.0, "closed form", Outcome.PROVED)
    if request.scales[k] == 0.0:
        return SingularPair(0.0, None, 0.0, None, "closed form", Outcome.ONE_VALUE)
    if min(left, right) <= 1:
        return pair_of_vector(request.values(k))
    if edges == left * right:
        return pair_of_complete(edges)
    return pair_of_stars(request.degrees(k, left=edges == right))


def _count(request: Problems, found: Pairs, options: SolverOptions) -> None:
    """Where counting goes on, and where it cannot, the iteration with all its patience, and what that leaves to count."""
    count_instead(request, found, options)
    at = left_off(request, found, options)
    if len(at):
        rest = request.take(at)
        asked = Asked.of(rest, replace(options, certify=False))
        (again,) = Solving([asked], None).pairs()
        count_instead(rest, again, options)
        found.put(at, again)


def _settle(parts: Sequence[tuple[Problems, int]], pairs: Pairs, options: SolverOptions, turn: Spread) -> None:
    """Go on where a proof failed or the iteration found no end, or where squaring left too few digits."""
    wide = np.maximum(pairs.error_1, pairs.error_2) > options.tolerance * pairs.sigma_1
    without = np.isnan(pairs.sigma_1)
    places = np.flatnonzero(wide | without).tolist()
    for at, pair in zip(places, turn(lambda at: _settled(*parts[at], pairs[at], options), places), strict=True):
        pairs[at] = pair


def _settled(request: Problems, k: int, pair: SingularPair, options: SolverOptions) -> SingularPair:
    """What stands in the place of a pair without values, or with wide bounds: LAPACK finds every eigenvalue, or every
    singular value.
    """
    whole, outcome = request.graph.may_be_dense, pair.outcome
    small = whole and min(request.left[k], request.right[k]) <= SVD_SIDE
    if outcome is Outcome.MISSED:
        pair = _gram_pair(request, k) if whole else unanswered(Outcome.NOT_CONVERGED, pair.solver)
    if outcome is Outcome.NOT_CONVERGED and small and lapack_follows(options):
        pair = _gram_pair(request, k)
    if pair.outcome is Outcome.NOT_CONVERGED or pair.within(options.tolerance):
        return pair
    if small and options.solver is not Solver.DIRECT:
        pair = _svd_pair(request, k)
    if pair.outcome is Outcome.NOT_CONVERGED or pair.within(options.tolerance):
        return pair
    wider = {Outcome.NOT_PROVED: Outcome.WIDE_NOT_PROVED, Outcome.TOO_FULL: Outcome.TOO_FULL}
    return replace(pair, outcome=wider.get(pair.outcome, Outcome.TOO_WIDE))


def _scale(pairs: Pairs, requests: Sequence[Problems]) -> None:
    """Put the values of weights back in the weights' own scale. Raises `NotFiniteError`.

    Scaling rounds every entry twice at most, which moves each singular value by up to eps * sigma_1; the last step may
    underflow.
    """
    weighted = np.repeat([one.weighted and one.graph.edges > 0 for one in requests], [len(one) for one in requests])
    if not weighted.any():
        return
    scales = np.concatenate([one.scales for one in requests])[weighted]
    size = np.nan_to_num(pairs.sigma_1[weighted])
    with np.errstate(over="ignore"):
        if not np.all(np.isfinite(size * scales)):
            raise NotFiniteError("the weights are so large that their singular values overflow float64")
        for error in (pairs.error_1, pairs.error_2):
            own = error[weighted]
            exact = (own == 0.0) & (size == 0.0)
            error[weighted] = np.where(exact, 0.0, (own + 3 * EPS * size) * scales + np.nextafter(0.0, 1.0))
    for values in (pairs.sigma_1, pairs.sigma_2):
        values[weighted] *= scales
