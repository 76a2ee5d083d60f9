"""The two largest singular values of any real matrix, which need be no layer's.

The engine's proofs rest on entries that are not negative: Gram matrices of such are off by no more than their entries are,
and the first vector has one sign. A matrix without negative entries is the engine's `abs(W) * M`, and goes there. One with
negative entries goes to LAPACK, whose bound holds for any real matrix.
"""

from __future__ import annotations

import math
from dataclasses import replace

from array_api_compat import is_torch_array

from pai_cli.errors import ArrayError, NotFiniteError, SolverError
from pai_cli.spectral.device.gathering import graphs_of
from pai_cli.spectral.direct import pair_of_matrix, pair_of_vector
from pai_cli.spectral.graph import Array, BipartiteGraph, host
from pai_cli.spectral.namespaces import array_namespace
from pai_cli.spectral.result import EPS, LEAST, Outcome, SingularPair
from pai_cli.spectral.singular import structure_pair, weighted_pair
from pai_cli.spectral.solvers import DEFAULT, SVD_SIDE, Solver, SolverOptions
from pai_cli.spectral.sparse import SparseGraph
from pai_cli.spectral.validation import Entries, is_sparse, real_matrix, sparse_entries

MOST_SIGNED = 2**27
"""Entries of a matrix that LAPACK takes for its signs, one column beside the other: 1 GiB in float64."""


def matrix_pair(matrix: Array, options: SolverOptions = DEFAULT) -> SingularPair:
    """sigma_1 and sigma_2 of the matrix itself, signs and all.

    `matrix`: (rows, columns), at least one of each; a NumPy array, a torch tensor, sparse of SciPy, or `Entries`. A matrix
    of one row or column has one singular value. Raises `ArrayError`, `NotFiniteError`, `SolverError`.
    """
    if is_sparse(matrix) or isinstance(matrix, Entries):
        entries = matrix if isinstance(matrix, Entries) else sparse_entries(matrix)
        pair = _pair_of_entries(entries, options)
        return _of_all(pair, entries.shape)
    plain = real_matrix(matrix)
    xp = array_namespace(plain)
    if plain.dtype == xp.bool:
        pair = structure_pair(_graph(plain), options)
    elif bool(xp.any(plain < 0)):
        pair = _signed_pair(plain, options)
    elif bool(xp.all((plain == 0) | (plain == 1))):
        pair = structure_pair(_graph(plain), options)
    else:
        pair = weighted_pair(_graph(plain != 0, plain), options)
    return _of_all(pair, tuple(plain.shape))


def _graph(mask: Array, weights: Array | None = None) -> BipartiteGraph:
    return graphs_of([mask], [weights])[0] if is_torch_array(mask) else BipartiteGraph(mask, weights)


def _of_all(pair: SingularPair, shape: tuple[int, ...]) -> SingularPair:
    """The pair of the whole matrix: rows and columns of zeros, which a graph is without, have singular values of 0."""
    if pair.outcome is Outcome.COLLAPSED:
        pair = replace(pair, sigma_1=0.0, sigma_1_error=0.0, outcome=Outcome.ONE_VALUE)
    if pair.outcome is Outcome.ONE_VALUE and min(shape) > 1:
        return replace(pair, sigma_2=0.0, sigma_2_error=0.0, outcome=Outcome.PROVED)
    return pair


def _pair_of_entries(entries: Entries, options: SolverOptions) -> SingularPair:
    values = entries.values
    if (values < 0).any():
        return _signed_pair(_live_block(entries), options)
    graph = SparseGraph(entries)
    return structure_pair(graph, options) if (values == 1).all() else weighted_pair(graph, options)


def _live_block(entries: Entries) -> Array:
    """The matrix without its empty rows and columns."""
    import numpy as np

    live_rows, rows = np.unique(entries.rows, return_inverse=True)
    live_columns, columns = np.unique(entries.columns, return_inverse=True)
    _check_signed((len(live_rows), len(live_columns)))
    block = np.zeros((len(live_rows), len(live_columns)))
    block[rows.reshape(-1), columns.reshape(-1)] = entries.values
    return block


def _check_signed(shape: tuple[int, ...]) -> None:
    if min(shape) > SVD_SIDE or shape[0] * shape[1] > MOST_SIGNED:
        raise ArrayError(
            f"the matrix: has negative entries, for which {shape[0]:,} x {shape[1]:,} is too large: LAPACK takes a smaller "
            f"side of {SVD_SIDE:,} and {MOST_SIGNED:,} entries; abs() of it may be larger, and is another matrix"
        )


def _signed_pair(matrix: Array, options: SolverOptions) -> SingularPair:
    """By LAPACK on the matrix itself, which is divided by a power of two so that nothing overflows on the way."""
    if options.solver not in (Solver.AUTO, Solver.DIRECT):
        raise SolverError(
            f"solver={options.solver.value!r} rests on entries that are not negative, and the matrix has some: take 'direct'"
        )
    shape = tuple(matrix.shape)
    _check_signed(shape)
    xp = array_namespace(matrix)
    wide = xp.astype(matrix, xp.float64)
    power = math.frexp(float(xp.max(xp.abs(wide))))[1] - 1
    scaled = wide / math.ldexp(1.0, power)
    if min(shape) == 1:
        return _scaled(pair_of_vector(xp.abs(scaled)), power)
    pair = _scaled(pair_of_matrix(host(scaled)), power)
    return pair if pair.within(options.tolerance) else replace(pair, outcome=Outcome.TOO_WIDE)


def _scaled(pair: SingularPair, power: int) -> SingularPair:
    """Times a power of two, which is exact unless it leaves the normal range."""

    def times(value: float | None, lost: float = 0.0) -> float | None:
        return None if value is None else math.ldexp(value, power) + lost

    try:
        return replace(
            pair,
            sigma_1=times(pair.sigma_1),
            sigma_2=times(pair.sigma_2),
            sigma_1_error=times(pair.sigma_1_error and pair.sigma_1_error * (1 + EPS), LEAST),
            sigma_2_error=times(pair.sigma_2_error and pair.sigma_2_error * (1 + EPS), LEAST),
        )
    except OverflowError as error:
        raise NotFiniteError("the matrix is so large that its singular values overflow float64") from error
