"""The two largest singular values of a layer: chooses a solver, proves the answer, tells how wide its error is.

    one vertex on a side, complete bipartite    closed form
    smaller side <= LAPACK_SIDE                 all eigenvalues of the Gram matrix
    larger                                      block power iteration on the Gram matrix, second eigenvalue certified
    sigma_2 so small that squaring lost it      LAPACK on the matrix itself

The Gram matrix of a 0/1 mask is made of integers, so it is exact in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from array_api_compat import array_namespace

from pai_cli.errors import NotFiniteError
from pai_cli.spectral.bipartite import Array, BipartiteGraph, smaller_gram
from pai_cli.spectral.gram import (
    forming_error,
    pair_of_complete,
    pair_of_gram,
    pair_of_matrix,
    pair_of_vector,
)
from pai_cli.spectral.power import certify_second, first_bound, krylov_power
from pai_cli.spectral.result import EPS, Outcome, SingularPair, root_interval, unanswered

TOLERANCE = 1e-9  # of sigma_1: the error bound that is asked for unless the caller asks otherwise

LAPACK_SIDE = 640  # measured: up to here all eigenvalues cost less than a certified iteration

DIRECT_SIDE = (
    6000  # of the smaller side: past it LAPACK on the matrix takes many minutes, and the bound is flagged instead
)

MOST_PRODUCTS = 1200  # five times what the hardest graph tried (uniform 14336 x 4096) took


@dataclass(frozen=True)
class SolverOptions:
    """`tolerance`: error bound asked for, relative to sigma_1. `most_products`: where an iteration gives up."""

    tolerance: float = TOLERANCE
    most_products: int = MOST_PRODUCTS


DEFAULT = SolverOptions()


def structure_pair(graph: BipartiteGraph, options: SolverOptions = DEFAULT) -> SingularPair:
    """sigma_1 and sigma_2 of the layer's 0/1 mask; asked again, the answer is remembered."""
    return _remembered(graph, "structure", options, _structure_pair)


def weighted_pair(graph: BipartiteGraph, options: SolverOptions = DEFAULT) -> SingularPair:
    """sigma_1 and sigma_2 of `A = abs(W) * M`, remembered. Raises `NotFiniteError` for weights with NaN or infinity."""
    return _remembered(graph, "weighted", options, _weighted_pair)


def _remembered(
    graph: BipartiteGraph,
    what: str,
    options: SolverOptions,
    solve: Callable[[BipartiteGraph, SolverOptions], SingularPair],
) -> SingularPair:
    if graph.edges == 0:
        return unanswered(Outcome.COLLAPSED, "closed form")
    key = (what, options)
    if key not in graph.answers:
        graph.answers[key] = solve(graph, options)
    answer: SingularPair = graph.answers[key]
    return answer


def _structure_pair(graph: BipartiteGraph, options: SolverOptions) -> SingularPair:
    if graph.edges == graph.n_L * graph.n_R:
        return complete_or_vector(graph.incidence, graph.edges)
    return leading_pair(graph.incidence, graph.gram, binary=True, options=options)


def _weighted_pair(graph: BipartiteGraph, options: SolverOptions) -> SingularPair:
    return leading_pair(graph.weighted, None, binary=False, options=options)


def complete_or_vector(matrix: Array, edges: int) -> SingularPair:
    """Closed forms for a mask with an edge everywhere."""
    return pair_of_complete(edges) if min(matrix.shape) > 1 else pair_of_vector(matrix)


def leading_pair(matrix: Array, gram: Array | None, *, binary: bool, options: SolverOptions = DEFAULT) -> SingularPair:
    """The two largest singular values of a non-negative matrix (m x n, both at least 1, not all zero).

    `gram`: the smaller side's Gram matrix if the caller has it. `binary`: entries are 0 or 1, so that Gram matrix is
    exact. Otherwise the matrix must be float64; it is scaled by its largest entry, so that no square overflows.
    """
    xp = array_namespace(matrix)
    largest = 1.0 if binary else float(xp.max(matrix))
    if not math.isfinite(largest):
        raise NotFiniteError("the weights have NaN or infinite values")
    if min(matrix.shape) == 1:
        return pair_of_vector(matrix)
    if binary:
        return _solve(matrix, smaller_gram(matrix) if gram is None else gram, 0.0, options)
    if largest == 0.0:
        return SingularPair(0.0, 0.0, 0.0, 0.0, "closed form", Outcome.PROVED)
    matrix = matrix / largest
    pair = _solve(matrix, smaller_gram(matrix), forming_error(max(matrix.shape)), options)
    return _scaled(pair, largest)


def _solve(matrix: Array, gram: Array, forming: float, options: SolverOptions) -> SingularPair:
    xp = array_namespace(matrix)
    gram = xp.astype(gram, xp.float64)
    small = gram.shape[0] <= LAPACK_SIDE
    pair = pair_of_gram(gram, forming) if small else _iterate(gram, forming, options)
    if _narrow(pair, options.tolerance) or pair.outcome is Outcome.NOT_CONVERGED:
        return pair
    if gram.shape[0] > DIRECT_SIDE:
        return _flagged(pair)
    pair = pair_of_matrix(xp.astype(matrix, xp.float64))
    return pair if _narrow(pair, options.tolerance) else _flagged(pair)


def _iterate(gram: Array, forming: float, options: SolverOptions) -> SingularPair:
    """Block power iteration, certified.

    A certificate that fails means a missed eigenvalue, or an estimate that was too hopeful: the next attempt starts
    elsewhere and goes further. After three LAPACK takes over.
    """
    products = 0
    for attempt in range(3):
        tolerance = options.tolerance / 8 ** (attempt + 1)
        ritz = krylov_power(gram, tolerance=tolerance, most_products=options.most_products, seed=attempt)
        products += ritz.products
        if not ritz.converged:
            return unanswered(Outcome.NOT_CONVERGED, "power", products)
        first, second = max(ritz.values[0], 0.0), max(ritz.values[1], 0.0)
        slack = options.tolerance * (first * second) ** 0.5 / 2 + 4 * gram.shape[0] * EPS * first
        high = certify_second(gram, ritz, slack)
        if high is None:
            continue
        below = ritz.rounding + forming * first
        top = first_bound(ritz, high) + forming * first
        sigma_1, error_1 = root_interval(first - below, first, top)
        sigma_2, error_2 = root_interval(second - below, second, high + forming * first)
        return SingularPair(sigma_1, sigma_2, error_1, error_2, "power", Outcome.PROVED, products)
    return pair_of_gram(gram, forming)


def _narrow(pair: SingularPair, tolerance: float) -> bool:
    if pair.sigma_1 is None or pair.sigma_1_error is None or pair.sigma_2_error is None:
        return False
    return max(pair.sigma_1_error, pair.sigma_2_error) <= tolerance * pair.sigma_1


def _flagged(pair: SingularPair) -> SingularPair:
    return SingularPair(
        pair.sigma_1,
        pair.sigma_2,
        pair.sigma_1_error,
        pair.sigma_2_error,
        pair.solver,
        Outcome.TOO_WIDE,
        pair.products,
    )


def _scaled(pair: SingularPair, factor: float) -> SingularPair:
    def times(value: float | None) -> float | None:
        return None if value is None else value * factor

    def widened(error: float | None) -> float | None:
        # Scaling rounds every entry, which moves each singular value by up to eps * sigma_1; the last step may underflow.
        return None if error is None else (error + 3 * EPS * (pair.sigma_1 or 0.0)) * factor + math.ulp(0.0)

    if pair.sigma_1 is not None and not math.isfinite(pair.sigma_1 * factor):
        raise NotFiniteError("the weights are so large that their singular values overflow float64")
    return SingularPair(
        times(pair.sigma_1),
        times(pair.sigma_2),
        widened(pair.sigma_1_error),
        widened(pair.sigma_2_error),
        pair.solver,
        pair.outcome,
        pair.products,
    )
