"""Graphs and weights of every kind, every solver, both engines: each value lies within its bound of a dense SVD."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from graphs import KINDS, LARGER_KINDS, WEIGHTS, Mask, Matrix, Rng, either_way, reference_rounding, svd

from pai_cli.spectral import solvers
from pai_cli.spectral.compiled import calls
from pai_cli.spectral.graph import BipartiteGraph
from pai_cli.spectral.result import Outcome, Pairs
from pai_cli.spectral.singular import singular_pairs
from pai_cli.spectral.solvers import Solver, SolverOptions
from pai_cli.spectral.subgraphs import regular_subgraphs

STRANGE_WEIGHTS = {
    "graded": lambda rng, shape: np.ldexp(rng.uniform(0.5, 1, shape), rng.integers(-1074, 900, shape)),
    "graded sides": lambda rng, shape: np.ldexp(
        rng.normal(size=shape), rng.integers(-250, 250, (shape[0], 1)) + rng.integers(-250, 250, (1, shape[1]))
    ),
    "below the normal range": lambda rng, shape: np.ldexp(rng.normal(size=shape), int(rng.integers(-1080, -1010))),
    "one large": lambda rng, shape: np.where(np.arange(np.prod(shape)).reshape(shape) == 3, 1e200, 1e-100),
    "nearly the largest": lambda rng, shape: rng.uniform(0, 1, shape) * 1e300,
    "integers": lambda rng, shape: rng.integers(-9, 10, shape).astype(float),
}

SINGULAR = (Outcome.PROVED, Outcome.TOO_WIDE)


def case(seed: int, folder: Path) -> None:
    """A mask, and weights for it, measured whole and by its left-regular subgraphs."""
    rng = np.random.default_rng(seed)
    mask = _mask(rng)
    kinds = {**WEIGHTS, **STRANGE_WEIGHTS}
    weights = kinds[str(rng.choice(list(kinds)))](rng, mask.shape) if rng.random() < 0.6 else None
    options = _options(rng)
    kept, calls.kernel = calls.kernel, calls.kernel if rng.random() < 0.7 else None
    direct = solvers.ARRAY_DIRECT_SIDE
    try:
        if rng.random() < 0.5:
            solvers.ARRAY_DIRECT_SIDE = solvers.COMPILED_DIRECT_SIDE  # so that NumPy iterates small ones too
        _check(mask, weights, options, as_tensor=rng.random() < 0.15)
    finally:
        calls.kernel, solvers.ARRAY_DIRECT_SIDE = kept, direct


def _mask(rng: Rng) -> Mask:
    if rng.random() < 0.6:
        kinds = KINDS if rng.random() < 0.6 else LARGER_KINDS
        return either_way(rng, kinds[str(rng.choice(list(kinds)))](rng))
    rows, columns = int(rng.integers(0, 9)), int(2 ** rng.uniform(0, 9))
    if rng.random() < 0.5:  # copies of few kinds of columns: many equal degrees, low rank
        few = rng.random((rows, int(rng.integers(1, 5)))) < rng.random()
        return either_way(rng, few[:, rng.integers(0, few.shape[1], columns)])
    return either_way(rng, rng.random((rows, columns)) < rng.random() ** 2)


def _options(rng: Rng) -> SolverOptions:
    solver = Solver(str(rng.choice(list(Solver))))
    return SolverOptions(
        tolerance=float(10.0 ** rng.uniform(-14, -2)) if rng.random() < 0.3 else solvers.TOLERANCE,
        most_products=int(rng.integers(1, 60)) if rng.random() < 0.2 else solvers.MOST_PRODUCTS,
        solver=solver,
        certify=solver is not Solver.MATRIX_FREE and rng.random() < 0.3,
    )


def _check(mask: Mask, weights: Matrix | None, options: SolverOptions, *, as_tensor: bool) -> None:
    given: list[object] = [mask, weights]
    if as_tensor:
        import torch

        given = [None if one is None else torch.from_numpy(np.ascontiguousarray(one)) for one in given]
    graph = BipartiteGraph(*given)
    assert graph.edges == int(mask.sum())
    order = np.array([int(column) for column in graph._columns], dtype=np.int64)
    parts = regular_subgraphs(graph)
    requests = [
        parts.problems(graph, weighted=weighted) for weighted in ((False,) if weights is None else (False, True))
    ]
    for request, pairs in zip(requests, singular_pairs(requests, options), strict=True):
        matrix = mask.astype(float) if not request.weighted else np.where(mask, np.abs(weights), 0.0)
        for k, (begin, end) in enumerate(request.ranges.tolist()):
            _check_pair(matrix[:, order[begin:end]], pairs, k, f"{options} weighted={request.weighted} part {k}")


def _check_pair(matrix: Matrix, pairs: Pairs, k: int, note: str) -> None:
    """The reference is of a matrix scaled by a power of two, so that its own squares neither overflow nor vanish."""
    pair, largest = pairs[k], float(matrix.max(initial=0.0))
    if matrix.size == 0 or pair.outcome is Outcome.COLLAPSED:
        assert pair.sigma_1 is None
        assert not matrix.any() or largest == 0.0, note
        return
    if pair.outcome is Outcome.NOT_CONVERGED:
        assert pair.sigma_1 is None, note
        assert options_may_end(note), note
        return
    exponent = int(np.frexp(largest)[1]) if largest > 0 else 0
    values = svd(np.ldexp(np.ldexp(matrix, -exponent // 2), -exponent - -exponent // 2))
    allowed = reference_rounding(matrix.shape, values[0])
    found = ((pair.sigma_1, pair.sigma_1_error, 0), (pair.sigma_2, pair.sigma_2_error, 1))
    for value, error, at in found:
        if value is None:
            assert pair.outcome is Outcome.ONE_VALUE, f"{note}: {pair}"
            continue
        assert error is not None
        candidates = values if pair.outcome in (Outcome.NOT_PROVED, Outcome.WIDE_NOT_PROVED) else values[at : at + 1]
        scaled, wide = float(np.ldexp(value, -exponent)), float(np.ldexp(error, -exponent))
        gap = min(abs(scaled - true) for true in candidates)
        assert gap <= wide + allowed, f"{note}: {pair}, expected {values[:3]} times 2^{exponent}, off by {gap}"


def options_may_end(note: str) -> bool:
    """Whether the budget was so small that an iteration may give up."""
    return f"most_products={solvers.MOST_PRODUCTS}," not in note
