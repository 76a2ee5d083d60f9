"""Block power iteration and the certificate that its second value is the second."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from graphs import EPS, Matrix, assert_agrees, biregular, even_cycle, rank_two, shuffled, skewed, svd, uniform, union

from pai_cli.spectral import singular
from pai_cli.spectral.bipartite import BipartiteGraph, smaller_gram
from pai_cli.spectral.power import RitzPair, certify_second, first_bound, krylov_power
from pai_cli.spectral.result import Outcome
from pai_cli.spectral.singular import leading_pair, structure_pair, weighted_pair

MANY = 1200


def gram_of(matrix: Matrix) -> Matrix:
    return smaller_gram(np.asarray(matrix, dtype=np.float64))


def spectrum(gram: Matrix) -> tuple[Matrix, Matrix]:
    """All eigenvalues, largest first, and their vectors."""
    values, vectors = np.linalg.eigh(gram)
    return values[::-1], vectors[:, ::-1]


def exact_pair(gram: Matrix, first: int, second: int) -> RitzPair:
    """What an iteration would return that had found eigenpairs number `first` and `second`."""
    values, vectors = spectrum(gram)
    rounding = 4 * len(gram) * EPS * float(np.linalg.norm(gram))
    return RitzPair(
        (float(values[first]), float(values[second])),
        (rounding, rounding),
        np.ascontiguousarray(vectors[:, [first, second]]),
        rounding,
        0,
        True,
    )


def distinct_weights(rng: np.random.Generator, values: list[float], rows: int, columns: int) -> Matrix:
    """A matrix of few singular values: not negative, for the parts do not overlap."""
    matrix = np.zeros((rows, columns))
    for index, value in enumerate(values):
        i = np.array_split(np.arange(rows), len(values))[index]
        j = np.array_split(np.arange(columns), len(values))[index]
        u, v = rng.uniform(0.5, 1, i.size), rng.uniform(0.5, 1, j.size)
        matrix[np.ix_(i, j)] = value * np.outer(u / np.linalg.norm(u), v / np.linalg.norm(v))
    return matrix


pytestmark = pytest.mark.usefixtures("iterate_from_257")

# All with a smaller side above 256.
MASKS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "wide": lambda rng: uniform(rng, 300, 1400, 0.1),
    "tall": lambda rng: uniform(rng, 1400, 300, 0.1),
    "square": lambda rng: uniform(rng, 320, 320, 0.2),
    "sparse": lambda rng: uniform(rng, 400, 900, 0.01),
    "dense": lambda rng: uniform(rng, 300, 400, 0.95),
    "skewed": lambda rng: skewed(rng, 300, 900, 0.05),
    "biregular": lambda rng: biregular(rng, 288, 576, 4),
    "two parts": lambda rng: shuffled(rng, union(uniform(rng, 200, 300, 0.2), uniform(rng, 150, 300, 0.1))),
    "many parts": lambda rng: shuffled(rng, union(*(uniform(rng, 20, 30, 0.3) for _ in range(15)))),
    "two copies": lambda rng: shuffled(rng, union(*[uniform(rng, 150, 260, 0.2)] * 2)),
    "forty copies": lambda rng: shuffled(rng, union(*[uniform(rng, 8, 9, 0.5)] * 40)),
    "two complete parts": lambda rng: shuffled(rng, union(np.ones((150, 160), bool), np.ones((120, 140), bool))),
    "rank two": lambda rng: rank_two(rng, 300, 400),
    "permutation": lambda rng: shuffled(rng, np.eye(301, dtype=bool)),
    "cycle": lambda rng: shuffled(rng, even_cycle(300)),
    "path": lambda rng: shuffled(rng, even_cycle(300)[:-1]),
    "stars": lambda rng: shuffled(rng, np.kron(np.eye(280, dtype=bool), np.ones((1, 3), dtype=bool))),
}


@pytest.mark.parametrize("kind", MASKS)
def test_iteration_on_masks(kind: str) -> None:
    mask = MASKS[kind](np.random.default_rng(4))
    pair = structure_pair(BipartiteGraph(mask))
    assert (pair.solver, pair.outcome) == ("power", Outcome.PROVED)
    assert_agrees(pair, svd(mask))


@pytest.mark.parametrize("kind", MASKS)
def test_iteration_on_weights(kind: str) -> None:
    rng = np.random.default_rng(5)
    mask = MASKS[kind](rng)
    weights = rng.normal(size=mask.shape)
    pair = weighted_pair(BipartiteGraph(mask, weights))
    assert pair.outcome is Outcome.PROVED
    assert_agrees(pair, svd(np.abs(weights) * mask))


@pytest.mark.parametrize("shape", [(260, 900), (900, 260), (300, 300)])
@pytest.mark.parametrize(
    "values", [[2.0], [2.0, 1.0], [1.0, 1.0], [3.0, 2.0, 1.0], [1.0, 1.0, 1.0], [5.0, 4.0, 4.0, 3.0, 1e-9]], ids=str
)
def test_fewer_directions_than_the_space_is_built_for(values: list[float], shape: tuple[int, int]) -> None:
    matrix = distinct_weights(np.random.default_rng(0), values, *shape)
    pair = leading_pair(matrix, None, binary=False)
    assert pair.outcome is Outcome.PROVED
    assert_agrees(pair, [*values, 0.0])


def test_diagonal_of_many_sizes() -> None:
    values = 10.0 ** np.linspace(0, -12, 300)
    assert_agrees(leading_pair(np.diag(values[::-1]), None, binary=False), [float(value) for value in values])


# krylov_power ------------------------------------------------------------------------------------------------------


def test_too_few_products_are_admitted() -> None:
    gram = gram_of(uniform(np.random.default_rng(0), 300, 2700, 0.1))
    short = krylov_power(gram, tolerance=1e-10, most_products=20)
    assert not short.converged
    assert 20 <= short.products < 50
    full = krylov_power(gram, tolerance=1e-10, most_products=MANY)
    assert full.converged
    assert full.products < 300
    values = spectrum(gram)[0]
    assert abs(short.values[1] - values[1]) > 1e-6 * values[1]  # so there was something to admit
    assert full.values[1] == pytest.approx(values[1], rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", MASKS)
def test_ritz_pairs_are_what_they_say(kind: str, seed: int) -> None:
    """Values within residuals of eigenvalues and none above its own, vectors orthonormal, residuals true."""
    gram = gram_of(MASKS[kind](np.random.default_rng(4)))
    pair = krylov_power(gram, tolerance=1e-10, most_products=MANY, seed=seed)
    values = spectrum(gram)[0]
    rounding = 50 * EPS * values[0]
    assert pair.converged
    for index in range(2):
        assert abs(pair.values[index] - values[index]) <= pair.residuals[index] + rounding
        assert pair.values[index] <= values[index] + pair.rounding + rounding
        vector = pair.vectors[:, index]
        assert np.linalg.norm(gram @ vector - pair.values[index] * vector) <= pair.residuals[index] + rounding
        assert abs(pair.values[index] - values[index]) <= 1e-10 * values[0] + 2 * pair.rounding
    assert pair.vectors.T @ pair.vectors == pytest.approx(np.eye(2), abs=1e-13)


@pytest.mark.parametrize("copies", [2, 3, 20])
def test_multiple_sigma_1_is_found(copies: int) -> None:
    rng = np.random.default_rng(1)
    gram = gram_of(shuffled(rng, union(*[uniform(rng, 30, 60, 0.3)] * copies)))
    pair = krylov_power(gram, tolerance=1e-10, most_products=MANY)
    top = spectrum(gram)[0][0]
    assert pair.values == (pytest.approx(top, rel=1e-12), pytest.approx(top, rel=1e-12))


@pytest.mark.parametrize("n", [4, 5, 6, 7, 30, 31])
def test_converged_is_true_of_the_values(n: int) -> None:
    """Also where the whole space is used up, of an odd number of dimensions too."""
    for seed in range(20):
        gram = gram_of(np.random.default_rng(seed).uniform(size=(n, n + 3)))
        pair = krylov_power(gram, tolerance=1e-10, most_products=MANY)
        values = spectrum(gram)[0]
        goal = 1e-10 * math.sqrt(values[0] * values[1]) + 3 * pair.rounding
        assert pair.converged, seed
        assert max(abs(pair.values[i] - values[i]) for i in range(2)) <= goal, seed
        assert pair.values[1] == pytest.approx(values[1], rel=1e-10), seed
        assert pair.products <= n + 4, seed


@pytest.mark.parametrize("matrix", [np.zeros((9, 9)), np.eye(9), np.ones((9, 9)), np.diag([1.0, 0, 0, 0, 0])])
def test_degenerate_matrices(matrix: Matrix) -> None:
    pair = krylov_power(matrix, tolerance=1e-10, most_products=MANY)
    values = spectrum(matrix)[0]
    assert pair.converged
    assert pair.values == (pytest.approx(values[0], abs=1e-13), pytest.approx(values[1], abs=1e-13))


def test_tolerance_sets_the_number_of_products() -> None:
    gram = gram_of(uniform(np.random.default_rng(0), 300, 2700, 0.1))
    counts = [krylov_power(gram, tolerance=t, most_products=MANY).products for t in (1e-3, 1e-6, 1e-10)]
    assert counts[0] < counts[1] < counts[2]


def test_same_seed_same_answer() -> None:
    gram = gram_of(uniform(np.random.default_rng(0), 300, 700, 0.1))
    one, two, other = (krylov_power(gram, tolerance=1e-10, most_products=MANY, seed=seed) for seed in (1, 1, 2))
    assert one.values == two.values
    assert (one.vectors == two.vectors).all()
    assert not (one.vectors == other.vectors).all()


# certify_second ----------------------------------------------------------------------------------------------------

SMALL_SLACK = 1e-6


@pytest.mark.parametrize("kind", ["wide", "sparse", "skewed", "two parts", "rank two", "path"])
def test_certificate_is_a_true_and_tight_bound(kind: str) -> None:
    gram = gram_of(MASKS[kind](np.random.default_rng(4)))
    values = spectrum(gram)[0]
    for slack in (SMALL_SLACK, 1e-3, 1.0):
        bound = certify_second(gram, exact_pair(gram, 0, 1), slack)
        assert bound is not None
        assert values[1] - 50 * EPS * values[0] <= bound <= values[1] + slack + 1e-9 * values[0]


@pytest.mark.parametrize(
    ("first", "second"), [(0, 2), (0, 3), (0, 50), (1, 2), (1, 0), (2, 1)], ids=lambda index: str(index + 1)
)
def test_certificate_refuses_another_pair(first: int, second: int) -> None:
    """Found "first" and "second" are really eigenpairs of other ranks, with perfect residuals."""
    gram = gram_of(uniform(np.random.default_rng(0), 300, 900, 0.1))
    pair = exact_pair(gram, first, second)
    bound = certify_second(gram, pair, SMALL_SLACK)
    if second == 0:  # a value above the second is still an upper bound, but for the wrong first vector
        assert bound is None or bound >= spectrum(gram)[0][1]
    else:
        assert bound is None


def test_certificate_refuses_a_value_just_too_small() -> None:
    gram = gram_of(uniform(np.random.default_rng(0), 300, 900, 0.1))
    true = exact_pair(gram, 0, 1)
    low = RitzPair((true.values[0], true.values[1] * (1 - 1e-6)), *_rest(true))
    assert certify_second(gram, low, 0.0) is None
    assert certify_second(gram, low, true.values[1] * 2e-6) is not None


def test_certificate_refuses_a_wrong_first_vector() -> None:
    gram = gram_of(uniform(np.random.default_rng(0), 300, 900, 0.1))
    true = exact_pair(gram, 0, 1)
    noise = np.random.default_rng(1).normal(size=(300, 2))
    wrong = RitzPair(true.values, true.residuals, np.linalg.qr(noise)[0], *_rest(true)[2:])
    assert certify_second(gram, wrong, SMALL_SLACK) is None


def test_certificate_sees_a_double_first_value() -> None:
    one = gram_of(uniform(np.random.default_rng(0), 150, 300, 0.1))
    gram = np.kron(np.eye(2), one)
    values = spectrum(gram)[0]
    missed = exact_pair(gram, 0, 2)
    assert missed.values[1] < values[1] - 1
    assert certify_second(gram, missed, SMALL_SLACK) is None
    bound = certify_second(gram, exact_pair(gram, 0, 1), SMALL_SLACK)
    assert bound == pytest.approx(values[0], rel=1e-8)


def _rest(pair: RitzPair) -> tuple[tuple[float, float], Matrix, float, int, bool]:
    return pair.residuals, pair.vectors, pair.rounding, pair.products, pair.converged


# What the engine does with them ------------------------------------------------------------------------------------


def test_a_missed_eigenvalue_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An iteration that always returns the third pair for the second: the certificate fails, LAPACK answers."""
    mask = uniform(np.random.default_rng(0), 300, 900, 0.1)
    asked = []

    def third(gram: Matrix, *, tolerance: float, most_products: int, seed: int = 0) -> RitzPair:
        asked.append(seed)
        return exact_pair(gram, 0, 2)

    monkeypatch.setattr(singular, "krylov_power", third)
    pair = structure_pair(BipartiteGraph(mask))
    assert_agrees(pair, svd(mask))
    assert pair.solver == "gram"
    assert len(set(asked)) == len(asked) > 1  # other starts were tried first


def test_a_second_start_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = uniform(np.random.default_rng(0), 300, 900, 0.1)

    def lucky(gram: Matrix, *, tolerance: float, most_products: int, seed: int = 0) -> RitzPair:
        found = krylov_power(gram, tolerance=tolerance, most_products=most_products, seed=seed)
        return found if seed else exact_pair(gram, 0, 2)

    monkeypatch.setattr(singular, "krylov_power", lucky)
    pair = structure_pair(BipartiteGraph(mask))
    assert_agrees(pair, svd(mask))
    assert pair.solver == "power"


@pytest.mark.parametrize(("kind", "off"), [("wide", (0, 1e-7)), ("path", (1e-7, 1e-7))])
def test_bounds_cover_a_loose_iteration(kind: str, off: tuple[float, float]) -> None:
    """With a loose tolerance values are visibly off (by `off` of sigma_1 or more), and the bounds must own up to it."""
    rng = np.random.default_rng(3)
    mask = uniform(rng, 300, 2700, 0.1) if kind == "wide" else shuffled(rng, even_cycle(301)[:-1])
    expected = svd(mask)
    errors = [0.0, 0.0]
    for tolerance in (1e-2, 1e-3, 1e-4):
        pair = structure_pair(BipartiteGraph(mask), singular.SolverOptions(tolerance=tolerance))
        assert_agrees(pair, expected, tolerance=tolerance)
        assert pair.solver == "power"
        errors[0] = max(errors[0], abs((pair.sigma_1 or 0) - expected[0]))
        errors[1] = max(errors[1], abs((pair.sigma_2 or 0) - expected[1]))
    assert errors[0] >= off[0] * expected[0]
    assert errors[1] >= off[1] * expected[0]


def test_rounding_of_a_weighted_gram_is_in_the_bound() -> None:
    """A mask's Gram matrix is exact, one of weights is not: its sigma_1 bound must be the wider by far."""
    mask = uniform(np.random.default_rng(3), 100, 2700, 0.2)
    exact = leading_pair(mask.astype(float), None, binary=True)
    rounded = leading_pair(mask * 0.1, None, binary=False)
    assert exact.sigma_1_error is not None
    assert rounded.sigma_1_error is not None
    assert rounded.sigma_1_error / 0.1 > 4 * exact.sigma_1_error
    assert rounded.sigma_1 == pytest.approx((exact.sigma_1 or 0) * 0.1, rel=1e-13)


# torch -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["wide", "two copies", "permutation", "rank two", "cycle"])
def test_torch_iteration(kind: str) -> None:
    gram = gram_of(MASKS[kind](np.random.default_rng(4)))
    ours = krylov_power(gram, tolerance=1e-10, most_products=MANY)
    theirs = krylov_power(torch.from_numpy(gram), tolerance=1e-10, most_products=MANY)
    assert theirs.converged
    assert isinstance(theirs.vectors, torch.Tensor)
    assert theirs.values == (pytest.approx(ours.values[0], rel=1e-12), pytest.approx(ours.values[1], rel=1e-12))
    bound = certify_second(torch.from_numpy(gram), theirs, SMALL_SLACK)
    assert bound is not None
    assert bound >= spectrum(gram)[0][1] - 50 * EPS * ours.values[0]


def test_torch_certificate_refuses() -> None:
    gram = gram_of(uniform(np.random.default_rng(0), 300, 900, 0.1))
    wrong = exact_pair(gram, 0, 2)
    as_torch = RitzPair(
        wrong.values, wrong.residuals, torch.from_numpy(wrong.vectors), wrong.rounding, wrong.products, wrong.converged
    )
    assert certify_second(torch.from_numpy(gram), as_torch, SMALL_SLACK) is None


def test_a_random_graph_is_at_the_edge_of_its_bulk() -> None:
    """Random biregular graphs: sigma_2 comes up to sqrt(d_L - 1) + sqrt(d_R - 1) (Brito, Dumitriu, Harris 2021)."""
    mask = biregular(np.random.default_rng(0), 300, 600, 6)
    pair = structure_pair(BipartiteGraph(mask))
    assert pair.sigma_1 == pytest.approx(math.sqrt(6 * 12), rel=1e-12)
    assert pair.sigma_2 == pytest.approx(math.sqrt(5) + math.sqrt(11), rel=0.05)


def test_first_bound_needs_what_was_certified() -> None:
    """With a vector far from the first, a bound on lambda_2(G) is not one on lambda_1(G - theta v v^T)."""
    gram = np.diag([100.0, 1.0, 1.0, 1.0])
    vectors = np.eye(4)[:, [1, 2]]
    pair = RitzPair((1.0, 1.0), (0.0, 0.0), vectors, 0.0, 0, converged=True)
    assert certify_second(gram, pair, 0.5) is None
    assert certify_second(gram, pair, 99.5) is not None
    assert first_bound(pair, 100.5) >= 100.0
