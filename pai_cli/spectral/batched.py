"""Problems whose graph is kept as an array, other than a tensor: Gram matrices of many parts, solved in a few batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from array_api_compat import device

from pai_cli.spectral import solvers
from pai_cli.spectral.bounds import pairs_of
from pai_cli.spectral.power import batches, leading_eigenpairs, padded_side
from pai_cli.spectral.problems import Problems, smaller_gram
from pai_cli.spectral.result import Pairs
from pai_cli.spectral.solver_table import EIGENPAIR, Eigenpairs, limits_of
from pai_cli.spectral.solvers import SolverOptions

BATCH_BYTES = 2**30  # of Gram matrices worked on at once


def solve(requests: Sequence[Problems], options: SolverOptions) -> list[Pairs]:
    """The pairs of every request's parts; the requests must live on one device."""
    parts = [(request, k) for request in requests for k in range(len(request))]
    found = np.zeros(len(parts), dtype=EIGENPAIR)
    sides = [min(int(request.left[k]), int(request.right[k])) for request, k in parts]
    for batch in batches(sides, BATCH_BYTES):
        found[batch] = _solve_batch([parts[k] for k in batch], [sides[k] for k in batch], options)
    if not requests:
        return []
    sizes = [len(request) for request in requests]
    return pairs_of(found, np.repeat([request.forming for request in requests], sizes)).split(sizes)


def _solve_batch(parts: Sequence[tuple[Problems, int]], sides: Sequence[int], options: SolverOptions) -> Eigenpairs:
    """Gram matrices in one array, padded with zeros to one side."""
    xp, like = parts[0][0].graph.xp, parts[0][0].graph.left_degrees
    side = padded_side(max(sides))
    grams = xp.zeros((len(parts), side, side), dtype=xp.float64, device=device(like))
    for place, (request, k) in enumerate(parts):
        gram = smaller_gram(request.matrix(k))
        grams[place, : gram.shape[0], : gram.shape[0]] = xp.astype(gram, xp.float64)
    return leading_eigenpairs(grams, sides, limits_of(options, solvers.ARRAY_DIRECT_SIDE))
