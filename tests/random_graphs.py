"""Random graphs of every kind, what a dense SVD says of each, and checks of all that the engine claims of them."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
from graphs import KINDS, LARGER_KINDS, WEIGHTS, Mask, Matrix, reference_rounding, svd

from pai_cli.spectral.graph import BipartiteGraph
from pai_cli.spectral.problems import Problems
from pai_cli.spectral.result import Outcome, SingularPair
from pai_cli.spectral.singular import singular_pairs
from pai_cli.spectral.solvers import DEFAULT, Solver, SolverOptions

EVERY_KIND = KINDS | LARGER_KINDS


@dataclass(frozen=True)
class Case:
    """A graph, as a problem to the engine, and what a dense SVD says: all singular values of the matrix (m, n)."""

    note: str
    mask: Mask
    weights: Matrix | None
    expected: list[float]
    outcome: Outcome

    def problem(self) -> Problems:
        return Problems.whole(BipartiteGraph(self.mask, self.weights), weighted=self.weights is not None)


def case_of(kind: str, seed: int) -> Case:
    """Every third graph has weights, and every other one of those 12 orders of magnitude of them; the others have each
    kind in turn, where a few seeds of every kind of graph are taken."""
    rng = np.random.default_rng(seed)
    mask = EVERY_KIND[kind](rng)
    note, weights = f"{kind}, seed {seed}", None
    if seed % 3 == 0:
        values = (
            "twelve orders" if seed % 2 else list(WEIGHTS)[(seed // 6 + list(EVERY_KIND).index(kind)) % len(WEIGHTS)]
        )
        weights = WEIGHTS[values](rng, mask.shape)
        note += f", weights {values}"
    rows, columns = int(mask.any(axis=1).sum()), int(mask.any(axis=0).sum())
    outcome = {0: Outcome.COLLAPSED, 1: Outcome.ONE_VALUE}.get(min(rows, columns), Outcome.PROVED)
    matrix = mask if weights is None else np.abs(weights.astype(np.float64)) * mask
    return Case(note, mask, weights, svd(matrix), outcome)


def error_over_bound(pair: SingularPair, case: Case) -> float:
    """The largest true error over its bound, the reference's own rounding taken off; inf for anything else that is wrong:
    no proof, a missing value, one too many, a bound wider than 1e-9 of sigma_1, sigma_2 the larger.

    A bound of 0 is kept by an error of 0 only.
    """
    if pair.outcome is not case.outcome:
        return math.inf
    given_ = [(pair.sigma_1, pair.sigma_1_error), (pair.sigma_2, pair.sigma_2_error)]
    wanted = {Outcome.COLLAPSED: 0, Outcome.ONE_VALUE: 1}.get(case.outcome, 2)
    if [value is not None for value, _ in given_] != [k < wanted for k in range(2)]:
        return math.inf
    rounding, worst = reference_rounding(case.mask.shape, case.expected[0]), 0.0
    for (value, error), true in zip(given_[:wanted], case.expected, strict=False):
        assert value is not None
        assert error is not None
        over = abs(value - true) - rounding
        if over > 0:
            worst = max(worst, over / error if error > 0 else math.inf)
        if not (error <= 1e-9 * case.expected[0] and value >= 0):
            return math.inf
    ordered = wanted < 2 or (pair.sigma_1 or 0.0) >= (pair.sigma_2 or 0.0)
    return worst if ordered else math.inf


def check_all(cases: list[Case], options: SolverOptions = DEFAULT) -> Counter[str]:
    """Every case answered within its bound, in batches; how often each solver ran. Says which are worst where not."""
    solvers: Counter[str] = Counter()
    found: list[tuple[float, str]] = []
    for begin in range(0, len(cases), 500):
        batch = cases[begin : begin + 500]
        for case, pairs in zip(batch, singular_pairs([case.problem() for case in batch], options), strict=True):
            pair = pairs[0]
            solvers[pair.solver] += 1
            found.append((error_over_bound(pair, case), f"{case.note}: {pair}, expected {case.expected[:3]}"))
    found.sort(reverse=True)
    wrong = [f"  {ratio:.3g}: {what}" for ratio, what in found if not ratio <= 1]
    assert not wrong, "\n".join(
        [f"{len(wrong)} of {len(cases)} graphs are out of their bounds or without a proof; worst first:", *wrong[:8]]
    )
    return solvers


def assert_residuals_hold(pair: SingularPair, expected: list[float], note: str = "") -> None:
    """Each value has a singular value within its bound, and the bound is as narrow as was asked."""
    assert pair.outcome is Outcome.NOT_PROVED, f"{note}: {pair}"
    for value, error in ((pair.sigma_1, pair.sigma_1_error), (pair.sigma_2, pair.sigma_2_error)):
        assert value is not None
        assert error is not None
        nearest = min(abs(value - true) for true in expected)
        assert nearest <= error + reference_rounding((len(expected),), expected[0]), f"{note}: {pair}, {expected[:4]}"
        assert error <= 1e-9 * expected[0], f"{note}: {pair}"
    assert pair.sigma_1_error is not None
    assert abs((pair.sigma_1 or 0.0) - expected[0]) <= 1e-9 * expected[0], note


def check_residuals(cases: list[Case]) -> int:
    """Every case answered without a proof, within the bounds that such an answer has; how many had none."""
    count = 0
    found = singular_pairs([case.problem() for case in cases], SolverOptions(solver=Solver.MATRIX_FREE))
    for case, pairs in zip(cases, found, strict=True):
        if pairs[0].outcome is Outcome.NOT_PROVED:
            assert_residuals_hold(pairs[0], case.expected, case.note)
            count += 1
        else:
            assert error_over_bound(pairs[0], case) <= 1, f"{case.note}: {pairs[0]}"
    return count
