"""Singular values of sparse graphs by counting how many are above a number: where that proves more, or goes on.

Two kinds of answers of an iteration come here. Of a large sparse graph it leaves open whether its values are the two
largest, which one count proves. And where the largest values stand close together (bands, cycles, copies that hardly differ)
it finds no end; bisection by counts does not mind how close they are, and where elimination fills little a count takes about
as long as a few products.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from pai_cli.spectral import solvers
from pai_cli.spectral.inertia import COUNTED_REST, count_above, proved_at_most
from pai_cli.spectral.problems import Problems, edges_of
from pai_cli.spectral.result import EPS, Ints, Outcome, Pairs, SingularPair, unanswered
from pai_cli.spectral.solvers import FEWEST_PRODUCTS, SolverOptions, lapack_follows

LAPACK_SHARE = 5e-4  # entries read in a count, by the cube of the smaller side, for all counts to cost less than LAPACK

FEWEST_READ, MOST_READ = 2.0**20, 2.0**27  # the same of small sides, and of those LAPACK does not take

SPARSE_GRAM = 8  # a Gram matrix with a share of entries under 1 / 8 is better not made


def beforehand(request: Problems, options: SolverOptions) -> SolverOptions:
    """What the iteration is asked for first: no proof where a count will follow, and no patience where counts may go on."""
    small = min(request.graph.n_L, request.graph.n_R) <= solvers.PROOF_SIDE
    if small or not lapack_follows(options) or not request.graph.compiled:
        return options
    sparse = _large_and_sparse(request)
    if not sparse or not all(sparse):
        return options
    return replace(options, certify=False, most_products=FEWEST_PRODUCTS)


def left_off(request: Problems, pairs: Pairs, options: SolverOptions) -> Ints:
    """The parts whose iteration ended before its time, and which counts did not answer."""
    ended = np.array([one is Outcome.NOT_CONVERGED for one in pairs.outcome], dtype=bool)
    early = beforehand(request, options).most_products < options.most_products
    return np.flatnonzero(ended & (np.minimum(request.left, request.right) > solvers.PROOF_SIDE) & early)


def _large_and_sparse(request: Problems) -> list[bool]:
    """Of each part that is past the proof side, whether its smaller side's Gram matrix is better not made."""
    near, wide = np.minimum(request.left, request.right), np.maximum(request.left, request.right)
    large = near > solvers.PROOF_SIDE
    pairs = request.edges.astype(np.float64) ** 2 / wide  # of edges of a vertex, where all have the same degree
    sparse = request.graph.listed | (pairs * SPARSE_GRAM <= near.astype(np.float64) ** 2)
    return [bool(one) for one in sparse[large]]


def count_instead(request: Problems, pairs: Pairs, options: SolverOptions) -> None:
    """Go on by counting where an iteration found no end, or left open what is to be certified."""
    if not lapack_follows(options):
        return
    for k in range(len(request)):
        outcome = pairs.outcome[k]
        if outcome in (Outcome.NOT_CONVERGED, Outcome.MISSED):
            found = by_counting(request, k, options.tolerance)
            if found is not None:
                pairs[k] = found
        elif outcome is Outcome.NOT_PROVED and options.certify:
            pairs[k] = certified(request, k, pairs[k], options.tolerance)


def certified(request: Problems, k: int, pair: SingularPair, tolerance: float) -> SingularPair:
    """The pair of part `k`, in its own scale, proved to be the two largest; or as it was, with the reason.

    `pair` came of an iteration: within each bound there is a singular value, and no less than each value's place says
    (Cauchy). If at most one is above s + |E|, and sigma_1 with its bound is, then no other is: sigma_2 <= s + |E|. If none
    is, that holds for both.
    """
    first, second, error_1, error_2 = pair.sigma_1, pair.sigma_2, pair.sigma_1_error, pair.sigma_2_error
    if first is None or second is None or error_1 is None or error_2 is None:
        return pair
    edges, slack = edges_of(request, k), 0.75 * tolerance * first
    one = first - error_1 > second + 2 * slack
    at = (second if one else first) + slack
    if not one and (counted := by_counting(request, k, tolerance)) is not None:
        return counted
    found = proved_at_most(edges, at, 1 if one else 0)
    if found is Outcome.MISSED:
        return by_counting(request, k, tolerance) or unanswered(Outcome.MISSED, pair.solver, pair.products)
    if isinstance(found, Outcome):
        return replace(pair, outcome=found)
    above = at + found.error
    if one and not first - error_1 > above:
        return pair
    error_1 = error_1 if one else max(error_1, above - first)
    error_2 = max(error_2, above - second)
    error_1, error_2 = error_1 * (1 + EPS), error_2 * (1 + EPS)
    return replace(pair, sigma_1_error=error_1, sigma_2_error=error_2, outcome=Outcome.PROVED)


@dataclass
class _Bracket:
    low: float
    high: float

    @property
    def middle(self) -> float:
        return (self.low + self.high) / 2

    @property
    def half(self) -> float:
        return (self.high - self.low) / 2 + EPS * self.high


def by_counting(request: Problems, k: int, tolerance: float) -> SingularPair | None:
    """Both values of part `k`, in its own scale, by bisection with counts: each between two numbers with proved counts.

    None where elimination leaves too much, or counting so often would cost more than LAPACK.
    """
    edges = edges_of(request, k)
    side = float(min(request.left[k], request.right[k]))
    work = max(FEWEST_READ, min(side**3 * LAPACK_SHARE, MOST_READ))
    rest = int(min(COUNTED_REST, max(32, side // 8)))
    columns = np.add.reduceat(edges.value, edges.begin[:-1])
    rows = np.bincount(edges.neighbour, edges.value)
    top = math.sqrt(float(rows.max()) * float(columns.max())) * (1 + 1e-9)
    one, two = _Bracket(0.0, top), _Bracket(0.0, top)
    goal = tolerance / 8
    for bracket in (one, two):
        while bracket.half > goal * one.high:
            at = bracket.middle
            found = count_above(edges, at, work, rest)
            if found is None:
                return None
            width = bracket.half
            if found.above < 1:
                one.high = min(one.high, at + found.error)
            if found.above < 2:
                two.high = min(two.high, at + found.error)
            if found.above > 0:
                one.low = max(one.low, at - found.error)
            if found.above > 1:
                two.low = max(two.low, at - found.error)
            if bracket.half > 0.75 * width:  # rounding leaves no more to be found
                break
    return SingularPair(one.middle, two.middle, one.half, two.half, "counting", Outcome.PROVED)
