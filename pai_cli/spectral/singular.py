"""The two largest singular values of parts of a layer: closed forms, then a solver, then what squaring has lost.

A part is a range of a graph's left vertices, sorted by degree: all of them, or one degree's. All parts of a layer are
solved together, and those of many layers, so that the cost is that of the arithmetic and not of the calls. Which solver a
part gets is said in `solvers`, what its evidence is worth in `bounds`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from pai_cli.errors import NotFiniteError
from pai_cli.spectral import batched
from pai_cli.spectral.compiled.solve import Asked, pairs
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


def structure_pair(graph: BipartiteGraph, options: SolverOptions = DEFAULT) -> SingularPair:
    """sigma_1 and sigma_2 of the layer's 0/1 mask."""
    return singular_pairs([Problems.whole(graph)], options)[0][0]


def weighted_pair(graph: BipartiteGraph, options: SolverOptions = DEFAULT) -> SingularPair:
    """sigma_1 and sigma_2 of `A = abs(W) * M`. Raises `NotFiniteError` where they overflow."""
    return singular_pairs([Problems.whole(graph, weighted=True)], options)[0][0]


def singular_pairs(requests: Sequence[Problems], options: SolverOptions = DEFAULT) -> list[Pairs]:
    """The pairs of every part of every request, in order.

    Raises `NotFiniteError` for weights whose singular values overflow, and `MemoryError`.
    """
    if not requests:
        return []
    parts = [(request, k) for request in requests for k in range(len(request))]
    sizes = [len(request) for request in requests]
    answers = _closed_forms(requests, parts)
    still_open = np.array([not solver for solver in answers.solver], dtype=bool)
    own = np.split(still_open, np.cumsum(sizes)[:-1])
    rest = [request.take(np.flatnonzero(at)) for request, at in zip(requests, own, strict=True)]
    if options.solver in (Solver.GRAM, Solver.DIRECT):
        found = [_by_lapack(request, options) for request in rest]
    else:  # each where it lives
        ours, arrays = ([one for one in rest if one.graph.compiled == compiled] for compiled in (True, False))
        asked = [Asked.of(one, patience(beforehand(one, options), _largest_side([one]))) for one in ours]
        compiled = iter(pairs(asked, list(map(Asked.solve, asked))))
        others = _by_arrays(arrays, options)
        found = [next(compiled if one.graph.compiled else others) for one in rest]
        for request, its in zip(rest, found, strict=True):
            if request.graph.compiled and set(its.outcome) != {Outcome.PROVED}:
                _count(request, its, options)
    at, solved = np.flatnonzero(still_open), Pairs.joined(found)
    _settle([parts[k] for k in at.tolist()], solved, options)
    answers.put(at, solved)
    return [_scaled(pairs, request) for pairs, request in zip(answers.split(sizes), requests, strict=True)]


def _by_arrays(requests: Sequence[Problems], options: SolverOptions) -> Iterator[Pairs]:
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
    for one in requests:
        place = one.graph.place
        yield batched.solve([one], own([one]))[0] if place is None else next(together[place])


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
        again = pairs([asked], [asked.solve()])[0]
        count_instead(rest, again, options)
        found.put(at, again)


def _settle(parts: Sequence[tuple[Problems, int]], pairs: Pairs, options: SolverOptions) -> None:
    """Go on where a proof failed or the iteration found no end (LAPACK then finds every eigenvalue), or where squaring left
    too few digits.
    """
    wide = np.maximum(pairs.error_1, pairs.error_2) > options.tolerance * pairs.sigma_1
    without = np.isnan(pairs.sigma_1)
    for at in np.flatnonzero(wide | without).tolist():
        request, k = parts[at]
        whole, outcome = request.graph.may_be_dense, pairs.outcome[at]
        small = whole and min(request.left[k], request.right[k]) <= SVD_SIDE
        if outcome is Outcome.MISSED:
            pairs[at] = _gram_pair(request, k) if whole else unanswered(Outcome.NOT_CONVERGED, pairs.solver[at])
        if outcome is Outcome.NOT_CONVERGED and small and lapack_follows(options):
            pairs[at] = _gram_pair(request, k)
        if (
            pairs.outcome[at] is not Outcome.NOT_CONVERGED
            and not pairs[at].within(options.tolerance)
            and small
            and options.solver is not Solver.DIRECT
        ):
            pairs[at] = _svd_pair(request, k)
        if pairs.outcome[at] is not Outcome.NOT_CONVERGED and not pairs[at].within(options.tolerance):
            wider = {Outcome.NOT_PROVED: Outcome.WIDE_NOT_PROVED, Outcome.TOO_FULL: Outcome.TOO_FULL}
            pairs.outcome[at] = wider.get(pairs.outcome[at], Outcome.TOO_WIDE)


def _scaled(pairs: Pairs, request: Problems) -> Pairs:
    """Weights' values back in the weights' own scale.

    Scaling rounds every entry twice at most, which moves each singular value by up to eps * sigma_1; the last step may
    underflow.
    """
    if not request.weighted or request.graph.edges == 0:
        return pairs
    scales, size = request.scales, np.nan_to_num(pairs.sigma_1)
    with np.errstate(over="ignore"):
        if not np.all(np.isfinite(size * scales)):
            raise NotFiniteError("the weights are so large that their singular values overflow float64")
        for error in (pairs.error_1, pairs.error_2):
            exact = (error == 0.0) & (size == 0.0)
            error[:] = np.where(exact, 0.0, (error + 3 * EPS * size) * scales + np.nextafter(0.0, 1.0))
    pairs.sigma_1, pairs.sigma_2 = pairs.sigma_1 * scales, pairs.sigma_2 * scales
    return pairs
