"""sigma_1 and sigma_2 against a dense float64 SVD and against graphs whose answer is known, by both engines."""

from __future__ import annotations

import math
import os
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from graphs import (
    EPS,
    RESNET20,
    VGG16,
    WEIGHTS,
    Mask,
    Matrix,
    assert_agrees,
    biregular_rounds,
    even_cycle,
    exactly,
    near_complete,
    projective_plane,
    rank_two,
    shuffled,
    skewed,
    stars,
    svd,
    uniform,
    union,
    with_isolated,
)
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from random_graphs import (
    EVERY_KIND,
    Case,
    assert_residuals_hold,
    case_of,
    check_all,
    check_residuals,
    error_over_bound,
)
from scipy.sparse import csr_array
from scipy.sparse.linalg import svds

from pai_cli.errors import NotFiniteError
from pai_cli.spectral import singular, solvers
from pai_cli.spectral.direct import forming_error
from pai_cli.spectral.graph import BipartiteGraph
from pai_cli.spectral.matrices import matrix_pair
from pai_cli.spectral.problems import Problems
from pai_cli.spectral.result import Outcome, Pairs, SingularPair
from pai_cli.spectral.singular import singular_pairs, structure_pair, weighted_pair
from pai_cli.spectral.solvers import DEFAULT, Solver, SolverOptions
from pai_cli.spectral.subgraphs import regular_subgraphs
from pai_cli.spelling import for_python

pytestmark = pytest.mark.usefixtures("engine")
TENSORS = pytest.mark.parametrize("engine", ["arrays"], indirect=True)  # of torch: no other engine takes them

DENSITIES = (0.001, 0.01, 0.1, 0.5, 0.99, 1.0)
LAYERS = (  # with the largest and some between, whose reference SVD takes long, at fewer densities
    *((shape, DENSITIES) for shape in sorted({*RESNET20, VGG16[0], VGG16[-1]})),
    ((128, 1152), (0.01, 0.1, 0.99)),
    ((512, 512), (0.1,)),
    ((512, 4608), (0.01,)),
)

SMALL_MASKS = arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))


def structure(mask: Mask, options: SolverOptions = DEFAULT) -> SingularPair:
    return structure_pair(BipartiteGraph(mask), options)


def weighted(mask: Mask, weights: Matrix, options: SolverOptions = DEFAULT) -> SingularPair:
    return weighted_pair(BipartiteGraph(mask, weights), options)


def check_any(pair: SingularPair, matrix: Matrix, note: str) -> None:
    """Right also where there are not two singular values: `matrix` has its isolated vertices."""
    live = matrix[matrix.any(axis=1)][:, matrix.any(axis=0)]
    if live.size == 0:
        assert pair.outcome is Outcome.COLLAPSED, note
        assert pair.sigma_1 is None, note
    elif min(live.shape) == 1:
        assert pair.outcome is Outcome.ONE_VALUE, note
        assert pair.sigma_2 is None, note
        assert pair.sigma_1 is not None, note
        assert pair.sigma_1_error is not None, note
        assert abs(pair.sigma_1 - svd(live)[0]) <= pair.sigma_1_error + 50 * EPS * pair.sigma_1, note
        assert pair.sigma_1_error <= 1e-9 * pair.sigma_1, note
    else:
        assert pair.outcome is Outcome.PROVED, note
        assert_agrees(pair, svd(live), note)


# Many random graphs (and new ones in `make fuzz`) --------------------------------------------------------------------

SEEDS = 24  # of each kind


@cache
def random_cases() -> list[Case]:
    return [case_of(kind, seed) for kind in EVERY_KIND for seed in range(SEEDS)]


def test_random_graphs(engine: str) -> None:
    cases = random_cases()
    assert sum(case.weights is not None and "twelve orders" in case.note for case in cases) > 100
    solvers = check_all(cases)
    assert set(solvers) == {"closed form", "gram", "direct", *(["power"] if engine == "compiled" else [])}
    assert solvers["gram"] > 175


@pytest.mark.usefixtures("iterate_from_33")
def test_random_graphs_with_the_iteration_from_side_33() -> None:
    solvers = check_all(random_cases())
    assert solvers["power"] > 120
    assert solvers["gram"] > 175
    assert solvers["direct"] < 60


def test_iteration_on_small_graphs_of_every_kind() -> None:
    """The iteration forced on sides where it has no room: few dimensions, odd ones, many equal values."""
    solvers = check_all(random_cases()[::5], SolverOptions(solver=Solver.POWER))
    assert solvers["power"] > 50
    assert solvers["gram"] < 20  # sides of 2 and 3 have no room for two vectors and their images


@pytest.mark.usefixtures("iterate_from_33")
@pytest.mark.parametrize("kind", ["uniform", "skewed", "biregular", "disconnected", "copies", "near complete"])
def test_larger_graphs(kind: str) -> None:
    makers = {
        "uniform": lambda rng: uniform(rng, 150, int(rng.integers(150, 600)), rng.uniform(0.02, 0.9)),
        "skewed": lambda rng: skewed(rng, int(rng.integers(150, 400)), 150, rng.uniform(0.02, 0.5)),
        "biregular": lambda rng: biregular_rounds(rng, 8, int(rng.integers(15, 40)), int(rng.integers(4, 20))),
        "disconnected": lambda rng: union(*(uniform(rng, 70, 100, rng.uniform(0.05, 0.9)) for _ in range(3))),
        "copies": lambda rng: union(*[uniform(rng, 70, 100, rng.uniform(0.05, 0.9))] * 3),
        "near complete": lambda rng: near_complete(rng, 160, 300, int(rng.integers(1, 300))),
    }
    for seed in range(2):
        rng = np.random.default_rng(seed)
        mask = shuffled(rng, makers[kind](rng))
        weights = WEIGHTS["twelve orders"](rng, mask.shape)
        check_any(structure(mask), mask.astype(float), f"{kind}, seed {seed}")
        check_any(weighted(mask, weights), weights * mask, f"{kind}, weighted, seed {seed}")


@pytest.mark.parametrize(("shape", "densities"), LAYERS, ids=lambda case: str(case).replace(", ", "x"))
def test_layers_of_resnet20_and_vgg16(shape: tuple[int, int], densities: tuple[float, ...]) -> None:
    for density in densities:
        mask, weights, expected = layer(shape, density)
        if density == 1.0:
            assert_agrees(structure(mask), [math.sqrt(mask.size), 0.0])
        else:
            check_against(structure(mask), expected[0], f"mask, density {density}")
        check_against(weighted(mask, weights), expected[1], f"weighted, density {density}")


@cache
def layer(shape: tuple[int, int], density: float) -> tuple[Mask, Matrix, tuple[list[float], list[float]]]:
    """A layer's mask and weights, and the dense reference of both; kept, because both engines are asked."""
    rng = np.random.default_rng(7)
    rows, columns = shape
    mask = exactly(rng, rows, columns, max(1, round(density * rows * columns)))
    weights = rng.normal(size=shape)
    expected = [] if mask.all() else svd_of_live(mask)  # of all ones the answer is known, and the reference less exact
    return mask, weights, (expected, svd_of_live(np.abs(weights) * mask))


def svd_of_live(matrix: np.ndarray) -> list[float]:
    """Without isolated vertices: as many values as the smaller side has."""
    return svd(matrix[matrix.any(axis=1)][:, matrix.any(axis=0)])


def check_against(pair: SingularPair, expected: list[float], note: str) -> None:
    if len(expected) > 1:
        assert pair.outcome is Outcome.PROVED, note
        assert_agrees(pair, expected, note)
    else:
        assert (pair.outcome, pair.sigma_2) == (Outcome.ONE_VALUE, None), note
        assert pair.sigma_1 == pytest.approx(expected[0], rel=1e-13), note


# Known answers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 2), (2, 9), (9, 2), (16, 27), (300, 40), (300, 301), (512, 4608)])
def test_complete_graph(shape: tuple[int, int]) -> None:
    pair = structure(np.ones(shape, dtype=bool))
    assert pair.sigma_1 == pytest.approx(math.sqrt(shape[0] * shape[1]), rel=2 * EPS)
    assert (pair.sigma_2, pair.sigma_2_error) == (0.0, 0.0)
    assert (pair.solver, pair.outcome) == ("closed form", Outcome.PROVED)


def test_complete_graph_among_isolated_vertices() -> None:
    mask = with_isolated(np.random.default_rng(0), np.ones((5, 8), dtype=bool), 3, 4)
    pair = structure(mask)
    assert (pair.sigma_1, pair.sigma_2) == (pytest.approx(math.sqrt(40), rel=2 * EPS), 0.0)


@pytest.mark.usefixtures("iterate_from_33")
@pytest.mark.parametrize("q", [2, 3, 5, 7, 13, 23])
def test_projective_plane(q: int) -> None:
    pair = structure(shuffled(np.random.default_rng(q), projective_plane(q)))
    assert pair.sigma_1 is not None
    assert pair.sigma_2 is not None
    assert abs(pair.sigma_1 - (q + 1)) <= 64 * EPS * (q + 1)
    assert abs(pair.sigma_2 - math.sqrt(q)) <= 64 * EPS * (q + 1)
    assert_agrees(pair, [q + 1, math.sqrt(q)])
    assert pair.outcome is Outcome.PROVED
    assert pair.solver == ("gram" if q <= 5 else "power")


def test_a_large_projective_plane_as_it_is_solved_by_default() -> None:
    pair = structure(projective_plane(31))  # side 993
    assert_agrees(pair, [32.0, math.sqrt(31)])
    assert (pair.solver, pair.outcome) == ("power", Outcome.PROVED)


@pytest.mark.usefixtures("iterate_from_33")
@pytest.mark.parametrize("half", [2, 3, 4, 5, 10, 32, 33, 37, 200])
def test_even_cycle(half: int) -> None:
    pair = structure(shuffled(np.random.default_rng(half), even_cycle(half)))
    expected = sorted((2 * abs(math.cos(math.pi * j / half)) for j in range(half)), reverse=True)
    assert_agrees(pair, expected, f"cycle of {2 * half}")
    assert pair.outcome is Outcome.PROVED


@pytest.mark.usefixtures("iterate_from_33")
@pytest.mark.parametrize(
    ("shape", "copies"), [*(((5, 9), k) for k in (2, 3, 7)), ((17, 40), 2), ((60, 100), 3), ((150, 70), 2)]
)
def test_copies_have_sigma_1_twice(shape: tuple[int, int], copies: int) -> None:
    """The compiled iteration sees a multiple value once: the proof must fail, and the second search find the other."""
    for seed in range(2):
        rng = np.random.default_rng(copies + 10 * seed)
        one = uniform(rng, *shape, density=0.3)
        mask = shuffled(rng, union(*[one] * copies))
        pair = structure(mask)
        assert_agrees(pair, [svd(one)[0]] * 2, f"seed {seed}")
        weights = 10.0 ** rng.uniform(-12, 0, one.shape)
        heavy = weighted(union(*[one] * copies), np.kron(np.eye(copies), weights))
        assert_agrees(heavy, [svd(weights * one)[0]] * 2, f"weighted, seed {seed}")
        assert pair.outcome is heavy.outcome is Outcome.PROVED
        if min(shape) * copies > solvers.COMPILED_DIRECT_SIDE:
            assert {pair.solver, heavy.solver} <= {"power", "direct"}


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("shapes", [((4, 6), (3, 5)), ((20, 31), (4, 4)), ((30, 40), (5, 4))])
def test_kronecker_product(shapes: tuple[tuple[int, int], tuple[int, int]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    left, right = (uniform(rng, *shape, density=0.6) for shape in shapes)
    expected = sorted((a * b for a in svd(left) for b in svd(right)), reverse=True)
    assert_agrees(structure(np.kron(left, right)), expected)


@pytest.mark.parametrize("half", [2, 6, 33, 255, 256, 257, 300])
def test_permutation_matrix(half: int) -> None:
    mask = shuffled(np.random.default_rng(0), np.eye(half, dtype=bool))
    pair = structure(mask)
    assert (pair.sigma_1, pair.sigma_2) == (1.0, 1.0)
    assert (pair.solver, pair.outcome) == ("closed form", Outcome.PROVED)
    assert_agrees(weighted(mask, np.full(mask.shape, -0.3)), [0.3, 0.3])


@pytest.mark.parametrize(("centres", "leaves"), [(2, 2), (2, 40), (5, 9), (40, 50), (90, 400)])
def test_stars_are_the_roots_of_their_sizes(centres: int, leaves: int) -> None:
    mask = shuffled(np.random.default_rng(leaves), stars(np.random.default_rng(centres), centres, leaves))
    sizes = sorted(mask.sum(axis=0).tolist(), reverse=True)
    for matrix in (mask, mask.T, with_isolated(np.random.default_rng(0), mask, 3, 2)):
        pair = structure(matrix)
        if sizes[1] == 0:
            assert pair.outcome is Outcome.ONE_VALUE
            continue
        assert (pair.sigma_1, pair.sigma_2) == (math.sqrt(sizes[0]), math.sqrt(sizes[1]))
        assert (pair.solver, pair.outcome) == ("closed form", Outcome.PROVED)
        assert (pair.sigma_1_error, pair.sigma_2_error) == (EPS * math.sqrt(sizes[0]), EPS * math.sqrt(sizes[1]))


def test_one_more_edge_is_no_star() -> None:
    """Each row has one edge but for one that has two: next to the closed form, and not it."""
    mask = stars(np.random.default_rng(0), 6, 30)
    mask[0, :2] = True
    assert structure(mask).solver == "gram"
    assert_agrees(structure(mask), svd(mask))
    assert_agrees(structure(mask.T), svd(mask))


@pytest.mark.parametrize("shape", [(5, 9), (64, 576), (200, 90)])
def test_near_complete_mask(shape: tuple[int, int]) -> None:
    for zeros in (1, 2, 5, 40):
        mask = near_complete(np.random.default_rng(zeros), *shape, zeros=zeros)
        assert_agrees(structure(mask), svd(mask), f"{zeros} zeros")


@pytest.mark.usefixtures("iterate_from_33")
def test_one_zero_among_ones_exactly() -> None:
    """J minus one entry has rank 2: the sum of squares is mn - 1 and the product of both values sqrt((m-1)(n-1))."""
    for shape in ((4, 7), (40, 70), (300, 320)):
        mask, sigma = one_zero(*shape)
        assert_agrees(structure(mask), sigma)


def one_zero(m: int, n: int) -> tuple[Mask, list[float]]:
    """Ones but in one place, and both singular values."""
    mask = np.ones((m, n), dtype=bool)
    mask[1, 2] = False
    total, det = m * n - 1, (m - 1) * (n - 1)
    largest = (total + math.sqrt(total**2 - 4 * det)) / 2
    return mask, [math.sqrt(largest), math.sqrt(det / largest)]


@pytest.mark.usefixtures("iterate_from_33")
@pytest.mark.parametrize("shape", [(6, 9), (200, 90), (90, 100)])
def test_rank_two_mask(shape: tuple[int, int]) -> None:
    mask = rank_two(np.random.default_rng(0), *shape)
    assert_agrees(structure(mask), svd(mask))


@pytest.mark.parametrize("mask", [np.ones((1, 1)), np.ones((1, 7)), np.ones((7, 1))])
def test_one_vertex_on_a_side(mask: Matrix) -> None:
    pair = structure(mask.astype(bool))
    assert pair.sigma_1 == pytest.approx(math.sqrt(mask.size), rel=4 * EPS)
    assert (pair.sigma_2, pair.outcome) == (None, Outcome.ONE_VALUE)
    weights = np.arange(1.0, mask.size + 1).reshape(mask.shape) * -1e-250
    pair = weighted(mask.astype(bool), weights)
    assert pair.sigma_1 == pytest.approx(float(np.linalg.norm(weights / 1e-250)) * 1e-250, rel=1e-14, abs=0)
    assert (pair.sigma_2, pair.outcome) == (None, Outcome.ONE_VALUE)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (300, 300), (0, 4), (4, 0)])
def test_no_edge(shape: tuple[int, int]) -> None:
    mask = np.zeros(shape, dtype=bool)
    for solver in Solver:
        options = SolverOptions(solver=solver)
        for pair in (structure(mask, options), weighted(mask, np.ones(shape), options)):
            assert (pair.sigma_1, pair.sigma_2, pair.outcome) == (None, None, Outcome.COLLAPSED)


# Laws --------------------------------------------------------------------------------------------------------------


def close(pair: SingularPair, other: SingularPair) -> bool:
    """The same values within both bounds, or none for the same reason."""
    if pair.outcome is not other.outcome or (pair.sigma_2 is None) != (other.sigma_2 is None):
        return False
    if pair.sigma_1 is None or other.sigma_1 is None:
        return pair.sigma_1 is other.sigma_1
    assert pair.sigma_1_error is not None
    assert other.sigma_1_error is not None
    if abs(pair.sigma_1 - other.sigma_1) > pair.sigma_1_error + other.sigma_1_error:
        return False
    if pair.sigma_2 is None or other.sigma_2 is None:
        return True
    assert pair.sigma_2_error is not None
    assert other.sigma_2_error is not None
    return abs(pair.sigma_2 - other.sigma_2) <= pair.sigma_2_error + other.sigma_2_error


@given(SMALL_MASKS, st.integers(0, 2**32))
def test_order_and_side_do_not_matter(mask: Mask, seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=mask.shape)
    rows, columns = rng.permutation(mask.shape[0]), rng.permutation(mask.shape[1])
    moved, moved_weights = mask[rows][:, columns], weights[rows][:, columns]
    assert close(structure(mask), structure(moved))
    assert close(structure(mask), structure(mask.T))
    assert close(weighted(mask, weights), weighted(moved, moved_weights))
    assert close(weighted(mask, weights), weighted(mask.T, weights.T))


@given(SMALL_MASKS, st.integers(0, 5), st.integers(0, 5), st.integers(0, 2**32))
def test_isolated_vertices_change_nothing(mask: Mask, rows: int, columns: int, seed: int) -> None:
    assert close(structure(mask), structure(with_isolated(np.random.default_rng(seed), mask, rows, columns)))


@given(SMALL_MASKS, SMALL_MASKS)
def test_union_has_the_values_of_both(first: Mask, second: Mask) -> None:
    both = sorted(svd(first) + svd(second), reverse=True)
    pair = structure(union(first, second))
    live = union(first, second)
    sides = (int(live.any(axis=0).sum()), int(live.any(axis=1).sum()))
    if min(sides) >= 2:
        assert_agrees(pair, both)
    else:
        assert pair.sigma_2 is None


@given(SMALL_MASKS, SMALL_MASKS)
def test_kronecker_product_has_the_products(first: Mask, second: Mask) -> None:
    product = np.kron(first, second)
    pair = structure(product)
    if min(int(product.any(axis=0).sum()), int(product.any(axis=1).sum())) >= 2:
        products = sorted((a * b for a in svd(first) for b in svd(second)), reverse=True)
        assert_agrees(pair, [*products, 0.0])  # of one row and one column: 2 x 2 of rank one
    else:
        assert pair.sigma_2 is None


@given(st.integers(34, 60), st.integers(34, 90), st.floats(0.03, 0.97), st.integers(0, 2**32))
def test_laws_hold_past_the_direct_side(rows: int, columns: int, density: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = uniform(rng, rows, columns, density)
    weights = 10.0 ** rng.uniform(-12, 0, mask.shape)
    pair = structure(mask)
    assert close(pair, structure(np.ascontiguousarray(mask.T)))
    assert close(pair, structure(shuffled(rng, mask)))
    assert close(pair, structure(with_isolated(rng, mask, 5, 7)))
    assert close(weighted(mask, weights), weighted(mask.T, weights.T))
    twice = structure(union(mask, mask))
    assert pair.sigma_1 is not None
    assert_agrees(twice, [pair.sigma_1, pair.sigma_1])


@pytest.mark.usefixtures("iterate_from_33")
@pytest.mark.parametrize("shape", [(100, 230), (230, 100), (97, 97)])
def test_laws_hold_for_the_iteration(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    mask = uniform(rng, *shape, density=0.1)
    pair = structure(mask)
    assert pair.solver == "power"
    assert close(pair, structure(mask.T))
    assert close(pair, structure(shuffled(rng, mask)))
    assert close(pair, structure(with_isolated(rng, mask, 20, 30)))


# Weights of awkward size -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("iterate_from_33")
@pytest.mark.parametrize("shape", [(30, 40), (40, 30), (90, 100)])
@pytest.mark.parametrize("second", [1e-6, 1e-8, 1e-10])
def test_tiny_sigma_2_is_found_without_squaring(shape: tuple[int, int], second: float) -> None:
    """Two disjoint blocks of rank one, of norms 1 and `second`: squared, the smaller is lost to rounding."""
    mask, weights = two_blocks(shape, second)
    pair = weighted(mask, weights)
    assert (pair.solver, pair.outcome) == ("direct", Outcome.PROVED)
    assert_agrees(pair, [1.0, second])
    assert pair.sigma_2 == pytest.approx(second, rel=1e-3, abs=0)


def two_blocks(shape: tuple[int, int], second: float) -> tuple[Mask, Matrix]:
    """Weights of singular values 1 and `second`, two disjoint blocks of rank one, and the mask of those blocks."""
    half = shape[0] // 2, shape[1] // 2
    mask = union(np.ones(half, dtype=bool), np.ones((shape[0] - half[0], shape[1] - half[1]), dtype=bool))
    rng = np.random.default_rng(0)
    weights = np.zeros(shape)
    for block, norm in ((np.s_[: half[0], : half[1]], 1.0), (np.s_[half[0] :, half[1] :], second)):
        part = weights[block]
        u, v = rng.uniform(0.5, 1, part.shape[0]), rng.uniform(0.5, 1, part.shape[1])
        weights[block] = norm * np.outer(u / np.linalg.norm(u), v / np.linalg.norm(v))
    return mask, weights


@pytest.mark.parametrize("second", [1e-5, 1e-9])
def test_what_squaring_loses_is_flagged_where_a_matrix_is_too_large_for_more(
    second: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past `SVD_SIDE` the wide bound stays: it must hold, and the outcome must say that it is wide."""
    monkeypatch.setattr(singular, "SVD_SIDE", 39)
    mask, weights = two_blocks((80, 90), second)
    pair = weighted(mask, weights)
    assert pair.outcome is Outcome.TOO_WIDE
    assert pair.sigma_2 is not None
    assert pair.sigma_2_error is not None
    assert abs(pair.sigma_2 - second) <= pair.sigma_2_error
    assert pair.sigma_2_error > DEFAULT.tolerance


@pytest.mark.parametrize("shape", [(12, 30), (60, 90), (180, 130)])
def test_scaled_weights(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    mask = uniform(rng, *shape, density=0.4)
    weights = rng.normal(size=shape)
    pair = weighted(mask, weights)
    assert_agrees(pair, svd(np.abs(weights) * mask))
    for scale in (1e-200, 1e-150, 1e150, 1e200):
        scaled = weighted(mask, weights * scale)
        for value, other in (
            (pair.sigma_1, scaled.sigma_1),
            (pair.sigma_2, scaled.sigma_2),
            (pair.sigma_1_error, scaled.sigma_1_error),
        ):
            assert value is not None
            assert other is not None
            assert other / scale == pytest.approx(value, rel=1e-6 if value is pair.sigma_1_error else 1e-9), scale
        assert scaled.outcome is Outcome.PROVED, scale


def test_subnormal_weights_have_an_honest_bound() -> None:
    """Near the smallest float64 a value cannot be given to more than its last digit, and the bound must say so."""
    unit = math.ulp(0.0)
    pair = weighted(np.ones((4, 5), dtype=bool), np.full((4, 5), 20 * unit))
    assert pair.sigma_1 is not None
    assert pair.sigma_1_error is not None
    assert abs(pair.sigma_1 / unit - 20 * math.sqrt(20)) <= pair.sigma_1_error / unit + 1e-9


def test_values_past_float64_are_refused_or_finite() -> None:
    """sqrt(20) * 1e308 is no float64: infinity must not be handed on as proved."""
    with pytest.raises(NotFiniteError):
        weighted(np.ones((4, 5), dtype=bool), np.full((4, 5), 1e308))


@pytest.mark.parametrize("density", [1.0, 0.1])
@pytest.mark.parametrize("shape", [(2, 3), (30, 20), (300, 400)])
def test_weights_all_zero(shape: tuple[int, int], density: float) -> None:
    mask = uniform(np.random.default_rng(0), *shape, density=density)
    mask[0, 0] = mask[1, 1] = True
    for solver in Solver:
        pair = weighted(mask, np.zeros(shape), SolverOptions(solver=solver))
        assert (pair.sigma_1, pair.sigma_2, pair.sigma_1_error, pair.sigma_2_error) == (0.0, 0.0, 0.0, 0.0)
        assert pair.outcome is Outcome.PROVED


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (6, 1)])
def test_weights_all_zero_on_one_row_or_column(shape: tuple[int, int]) -> None:
    pair = weighted(np.ones(shape, dtype=bool), np.zeros(shape))
    assert (pair.sigma_1, pair.sigma_1_error, pair.sigma_2) == (0.0, 0.0, None)
    assert pair.outcome is Outcome.ONE_VALUE


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("density", [1.0, 0.1])
def test_weights_not_finite(density: float, bad: float) -> None:
    for shape in ((5, 6), (70, 80), (1, 6), (6, 1), (1, 1)):
        mask = uniform(np.random.default_rng(0), *shape, density=density)
        mask[0, 0] = True
        weights = np.ones(shape)
        weights[0, 0] = bad
        with pytest.raises(NotFiniteError, match="NaN or infinite"):
            weighted(mask, weights)


def test_weights_that_are_not_kept_may_be_anything_finite() -> None:
    rng = np.random.default_rng(0)
    mask, weights = uniform(rng, 40, 60, 0.1), rng.normal(size=(40, 60))
    wild = np.where(mask, weights, rng.choice([1e300, -1e300, 0.0, 1e-300], weights.shape))
    assert weighted(mask, weights) == weighted(mask, wild)


def test_weights_need_to_be_there_and_to_fit() -> None:
    mask = np.ones((3, 4), dtype=bool)
    for sparse in (mask, np.eye(3, 4, dtype=bool)):
        with pytest.raises(ValueError, match="without weights"):
            weighted_pair(BipartiteGraph(sparse))
    with pytest.raises(ValueError, match=r"\(4, 3\) for a mask of \(3, 4\)"):
        BipartiteGraph(mask, np.ones((4, 3)))


# Many problems at once ---------------------------------------------------------------------------------------------


def requests_of_layers(*, weights: bool) -> list[Problems]:
    """Of five layers, one of them empty: each whole, and each class of its left vertices."""
    rng = np.random.default_rng(0)
    requests = []
    for rows, columns, density in ((8, 90, 0.5), (50, 300, 0.3), (4, 6, 0.0), (300, 40, 0.1), (6, 200, 0.8)):
        mask = uniform(rng, rows, columns, density)
        graph = BipartiteGraph(mask, rng.normal(size=mask.shape))
        classes = graph.left_classes
        ranges = np.concatenate([[[0, graph.n_L]], np.stack([classes.begin, classes.end], axis=1)])
        right = np.concatenate([[graph.n_R], classes.n_R])
        requests.append(Problems(graph, ranges, right, weights))
    return requests


@pytest.mark.usefixtures("iterate_from_33")
@pytest.mark.parametrize("weights", [False, True])
def test_problems_together_are_what_they_are_alone(weights: bool, engine: str) -> None:
    requests = requests_of_layers(weights=weights)
    assert sum(map(len, requests)) > 50
    together = singular_pairs(requests)
    for request, pairs in zip(requests, together, strict=True):
        assert len(pairs) == len(request)
        (own,) = singular_pairs([request])  # no number depends on what else is asked for
        assert [own[k] for k in range(len(own))] == [pairs[k] for k in range(len(pairs))]
        for k, (begin, end) in enumerate(request.ranges.tolist()):
            (alone,) = singular_pairs([request.take(np.array([k]))])
            assert close(pairs[k], alone[0])
            if engine == "compiled":
                assert pairs[k] == alone[0]
            block = request.graph.weighted if weights else request.graph.incidence
            if request.graph.edges:
                check_against(pairs[k], svd_of_live(block[begin:end]), f"{begin} to {end}")


@pytest.mark.usefixtures("iterate_from_33")
def test_graphs_of_both_kinds_in_one_call() -> None:
    """Torch tensors and NumPy arrays, mask and weights: each answer goes to its own request."""
    rng = np.random.default_rng(0)
    masks = [uniform(rng, side, 2 * side, 0.4) for side in (5, 40, 9, 50, 12, 36)]
    weights = [rng.normal(size=mask.shape) for mask in masks]
    requests = []
    for k, (mask, values) in enumerate(zip(masks, weights, strict=True)):
        both = (mask, values) if k % 2 else (torch.from_numpy(mask), torch.from_numpy(values))
        requests.append(Problems.whole(BipartiteGraph(*both), weighted=k % 3 == 0))
    for k, pairs in enumerate(singular_pairs(requests)):
        assert_agrees(pairs[0], svd(np.abs(weights[k]) * masks[k] if k % 3 == 0 else masks[k]))


def test_a_gram_matrix_of_weights_is_rounded_and_one_of_a_mask_is_not() -> None:
    graph = BipartiteGraph(np.ones((30, 500), dtype=bool), np.ones((30, 500)))
    assert Problems.whole(graph).forming == 0.0
    assert Problems.whole(graph, weighted=True).forming == forming_error(500)


def test_no_problems() -> None:
    assert singular_pairs([]) == []
    request = Problems.whole(BipartiteGraph(np.ones((3, 4), dtype=bool))).take(np.array([], dtype=np.int64))
    (pairs,) = singular_pairs([request])
    assert len(pairs) == 0


# Options and outcomes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("past", [0, 1])
def test_solver_by_size(past: int, engine: str) -> None:
    rows = (solvers.COMPILED_DIRECT_SIDE if engine == "compiled" else solvers.ARRAY_DIRECT_SIDE) + past
    mask, sigma = one_zero(rows, rows + 50)
    pair = structure(mask)
    assert pair.solver == ("power" if past else "gram")
    assert (pair.products > 0) == (pair.solver == "power")
    assert_agrees(pair, sigma)


SOLVED_BY = {
    Solver.AUTO: ("gram", "power"),
    Solver.GRAM: ("gram", "gram"),
    Solver.POWER: ("power", "power"),
    Solver.MATRIX_FREE: ("matrix-free", "matrix-free"),
    Solver.DIRECT: ("direct", "direct"),
}


@pytest.mark.usefixtures("iterate_from_33")
@pytest.mark.parametrize("shape", [(20, 33), (33, 20), (50, 120), (120, 50)])
@pytest.mark.parametrize("density", [0.05, 0.15, 0.6])
def test_every_solver_gives_the_same_and_says_its_name(density: float, shape: tuple[int, int], engine: str) -> None:
    rng = np.random.default_rng(3)
    mask = uniform(rng, *shape, density=density)
    mask[0, :] = True  # connected, and not a star
    weights = rng.normal(size=shape)
    expected = svd(mask), svd(np.abs(weights) * mask)
    for solver in Solver:
        options = SolverOptions(solver=solver)
        name = SOLVED_BY[solver][min(shape) > 32]
        if engine == "arrays" and solver is Solver.MATRIX_FREE:
            name = "power"  # which there goes by Gram matrices all the same, and so must not be called free of them
        for pair, sigma in zip((structure(mask, options), weighted(mask, weights, options)), expected, strict=True):
            assert_agrees(pair, sigma, solver)
            assert pair.solver == name
            assert pair.outcome is (Outcome.NOT_PROVED if solver is Solver.MATRIX_FREE else Outcome.PROVED)
            assert (pair.products > 0) == (name in ("power", "matrix-free"))


@pytest.mark.parametrize("solver", Solver)
def test_closed_forms_need_no_solver(solver: Solver) -> None:
    options = SolverOptions(solver=solver)
    for mask in (np.ones((7, 9), dtype=bool), np.eye(50, dtype=bool), np.ones((1, 5), dtype=bool)):
        assert structure(mask, options).solver == "closed form"


# Plain power iteration is the trap ---------------------------------------------------------------------------------


@cache
def trap() -> tuple[Mask, Matrix, list[float]]:
    """A random layer whose sigma_2 is 1.009 times sigma_3: its mask, its Gram matrix, its singular values."""
    mask = uniform(np.random.default_rng(2), 128, 1152, 0.1)
    gram = mask.astype(np.float64) @ mask.astype(np.float64).T
    return mask, gram, [math.sqrt(value) for value in np.linalg.eigvalsh(gram)[::-1]]


def plain_power_iteration(gram: Matrix, steps: int) -> list[float]:
    """sigma_2 after each step of multiplying two vectors by the matrix and making them orthonormal again."""
    vectors = np.stack([np.ones(len(gram)), np.random.default_rng(0).normal(size=len(gram))], axis=1)
    estimates = []
    for _ in range(steps):
        vectors = np.linalg.qr(gram @ np.linalg.qr(vectors)[0])[0]
        estimates.append(math.sqrt(np.linalg.eigvalsh(vectors.T @ gram @ vectors)[0]))
    return estimates


def test_plain_power_iteration_is_wrong_while_its_steps_agree() -> None:
    """Why there is another solver: here 13.59 is right."""
    _, gram, sigma = trap()
    estimates = plain_power_iteration(gram, 100)
    wrong = [(sigma[1] - estimate) / sigma[1] for estimate in estimates]
    assert wrong[19] > 1e-2
    assert wrong[99] > 1e-3  # 100 steps: the third digit
    assert abs(estimates[99] - estimates[98]) < 1e-4 * sigma[1]  # while the last two agree in four
    assert f"{estimates[99]:.3g}" != f"{sigma[1]:.3g}"


@pytest.mark.usefixtures("iterate_from_33")
def test_too_few_products_are_never_an_answer() -> None:
    mask, _, _ = trap()
    rng = np.random.default_rng(0)
    graph = BipartiteGraph(mask, 1 + 1e-3 * rng.normal(size=mask.shape))
    every = [(structure_pair, most) for most in (3, 4, 8, 9, 12, 16, 25, 32)]
    for ask, most in (*every, (weighted_pair, 12), (weighted_pair, 25)):
        pair = ask(graph, SolverOptions(most_products=most))
        assert pair.outcome is Outcome.NOT_CONVERGED, pair
        assert (pair.sigma_1, pair.sigma_2, pair.sigma_1_error, pair.sigma_2_error) == (None, None, None, None)
        assert pair.solver == "power"
        assert pair.products <= most + 4  # and the products of the two vectors that are reported on


def everything_at(seed: int) -> list[SingularPair]:
    """All pairs of a few layers, their subgraphs among them; small enough that two engines' every way is taken."""
    rng = np.random.default_rng(seed)
    pairs = []
    for rows, columns, density in ((12, 30, 0.4), (40, 90, 0.2), (120, 50, 0.3)):
        mask = uniform(rng, rows, columns, density)
        graph = BipartiteGraph(mask, rng.normal(size=mask.shape))
        subgraphs = regular_subgraphs(graph)
        for options in (DEFAULT, SolverOptions(solver=Solver.DIRECT), SolverOptions(solver=Solver.MATRIX_FREE)):
            found = singular_pairs([subgraphs.problems(graph, weighted=which) for which in (False, True)], options)
            pairs.extend(pair for each in found for pair in map(each.__getitem__, range(len(each))))
    return pairs


@pytest.mark.usefixtures("iterate_from_33")
def test_threads_get_what_one_after_the_other_gets(engine: str) -> None:
    """Bit for bit, from the same seeds at once and from others."""
    alone = [everything_at(seed) for seed in range(4)]
    together = threading.Barrier(8)

    def at_once(seed: int) -> list[SingularPair]:
        together.wait()
        return everything_at(seed)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(at_once, [0, 1, 2, 3] * 2)) == alone * 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.usefixtures("iterate_from_33")
def test_a_fork_goes_on_with_the_engine(engine: str, tmp_path: Path) -> None:
    """A process that has used the engine is forked, as a pool of workers is: both get what they got before."""
    before = everything_at(0)
    answer = tmp_path / "answer"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of 3.12 on: threads of BLAS are there
        child = os.fork()
    if child == 0:
        try:
            answer.write_text(repr(everything_at(0)))
        finally:
            os._exit(0)
    assert everything_at(0) == before
    assert os.waitpid(child, 0)[1] == 0
    assert answer.read_text() == repr(before)


def band(side: int, *, width: int = 1, above: bool = True) -> Mask:
    """Ones on the diagonal, `width` of them below it, and above it as many where asked."""
    return sum((np.eye(side, k=k, dtype=bool) for k in range(-width, width * above + 1)), np.zeros((side, side), bool))


def known_clusters() -> dict[str, tuple[Mask, list[float]]]:
    """Whose values are cosines."""
    return {
        "band": (band(500), [1 + 2 * math.cos(k * math.pi / 501) for k in (1, 2)]),
        "path": (band(500, above=False), [2 * math.cos(k * math.pi / 1001) for k in (1, 2)]),
        "cycle": (even_cycle(700), [2.0, 2 * math.cos(math.pi / 700)]),
        "two cycles": (union(even_cycle(700), even_cycle(40)), [2.0, 2.0]),
    }


def clusters() -> dict[str, tuple[Mask, list[float]]]:
    """Those with many values near or at the largest, small enough for a dense SVD."""
    rng = np.random.default_rng(0)
    few = np.eye(150, dtype=bool)
    few[rng.integers(0, 150, 4), rng.integers(0, 150, 4)] = True
    block = uniform(rng, 9, 11, 0.5)
    masks = {
        "wide band": band(180, width=3),
        "torus": np.kron(even_cycle(12), even_cycle(11)),
        "band by band": np.kron(band(14), band(13)),
        "block by path": np.kron(band(20, above=False), uniform(rng, 8, 8, 0.5)),
        "identity and few": few,
        "equal blocks": np.kron(np.eye(16, dtype=bool), block),
        "all but equal blocks": union(*(near_complete(rng, 9, 9, zeros) for zeros in (3, 3, 3, 3, 4, 4, 4, 5))),
    }
    return {name: (mask, svd(mask)) for name, mask in masks.items()}


@pytest.mark.parametrize("proof_side", [solvers.PROOF_SIDE, 100], ids=["with a Gram matrix", "without"])
@pytest.mark.parametrize("name", known_clusters())
def test_largest_values_in_a_cluster_are_found(name: str, proof_side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the iteration has no end, LAPACK follows by itself; with and without a proof that was asked for."""
    monkeypatch.setattr(solvers, "PROOF_SIDE", proof_side)
    monkeypatch.setattr(solvers, "MOST_PRODUCTS", 200)
    mask, sigma = known_clusters()[name]
    for certify in (False, True):
        pair = structure(mask, SolverOptions(most_products=200, certify=certify))
        assert pair.outcome is Outcome.PROVED
        assert_agrees(pair, sigma)
        weights = np.full(mask.shape, 0.25)
        weighted = weighted_pair(BipartiteGraph(mask, weights), SolverOptions(most_products=200, certify=certify))
        assert_agrees(weighted, [value / 4 for value in sigma])


@pytest.mark.usefixtures("iterate_from_33")
@pytest.mark.parametrize("proof_side", [solvers.PROOF_SIDE, 60], ids=["with a Gram matrix", "without"])
@pytest.mark.parametrize("most", [24, 200], ids=["no end", "an end"])
def test_clusters_of_every_kind_have_an_answer(
    most: int, proof_side: int, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(solvers, "PROOF_SIDE", proof_side)
    for bound in ("MOST_PRODUCTS", "FEWEST_PRODUCTS"):
        monkeypatch.setattr(solvers, bound, most)
    options = SolverOptions(most_products=most)
    for name, (mask, sigma) in clusters().items():
        for pair in (structure(mask, options), matrix_pair(csr_array(mask), options)):
            assert_agrees(pair, sigma, name)
        weights = np.random.default_rng(1).uniform(0.249, 0.251, mask.shape)
        assert_agrees(weighted(mask, weights, options), svd(weights * mask), name)


@pytest.mark.parametrize("chosen", [Solver.POWER, Solver.MATRIX_FREE])
def test_who_chose_an_iteration_gets_no_other(chosen: Solver) -> None:
    pair = structure(band(500, above=False), SolverOptions(most_products=100, solver=chosen))
    assert pair.outcome is Outcome.NOT_CONVERGED
    assert (pair.sigma_1, pair.sigma_2) == (None, None)


@pytest.mark.usefixtures("iterate_from_33")
@pytest.mark.parametrize("most", [12, 25])
def test_too_few_products_without_a_gram_matrix_are_never_an_answer(most: int, engine: str) -> None:
    mask, _, _ = trap()
    for density in (None, 0.05):  # by tables and by lists
        part = mask if density is None else mask & uniform(np.random.default_rng(0), *mask.shape, density=density)
        pair = structure(part, SolverOptions(most_products=most, solver=Solver.MATRIX_FREE))
        assert pair.outcome is Outcome.NOT_CONVERGED, pair
        assert (pair.sigma_1, pair.sigma_2, pair.sigma_1_error, pair.sigma_2_error) == (None, None, None, None)
        assert pair.products <= most + 4


@pytest.mark.usefixtures("iterate_from_33")
def test_enough_products_are_right_where_plain_iteration_is_not() -> None:
    mask, _, sigma = trap()
    pair = structure(mask)
    assert_agrees(pair, sigma)
    assert pair.products < 100
    assert pair.outcome is Outcome.PROVED


@pytest.mark.usefixtures("iterate_from_33")
@pytest.mark.parametrize("solver", [Solver.AUTO, Solver.MATRIX_FREE])
def test_any_budget_ends_in_the_truth_or_in_no_answer(solver: Solver) -> None:
    """The last budget that is too small and the first that is enough lie somewhere in between."""
    rng = np.random.default_rng(0)
    mask = uniform(rng, 40, 160, 0.2)
    graph, sigma, outcomes = BipartiteGraph(mask), svd(mask), []
    for most in range(2, 61):
        pair = structure_pair(graph, SolverOptions(most_products=most, solver=solver))
        outcomes.append(pair.outcome)
        if pair.outcome is not Outcome.NOT_CONVERGED:
            assert_agrees(pair, sigma, f"{most} products")
            assert pair.solver in ("power", "matrix-free"), most  # and not LAPACK after a proof that could only fail
    assert outcomes[0] is Outcome.NOT_CONVERGED
    assert outcomes[-1] is not Outcome.NOT_CONVERGED
    assert outcomes == sorted(outcomes, key=lambda outcome: outcome is not Outcome.NOT_CONVERGED)


# With a proof and without ------------------------------------------------------------------------------------------


@pytest.fixture
def proofs_to_side_40(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solvers, "PROOF_SIDE", 40)


@pytest.mark.usefixtures("iterate_from_33", "proofs_to_side_40")
@pytest.mark.parametrize("shape", [(45, 150), (97, 71), (64, 128)])
@pytest.mark.parametrize("density", [0.02, 0.08, 0.3, 0.9])
def test_past_the_proof_side_a_proof_has_to_be_asked_for(density: float, shape: tuple[int, int], engine: str) -> None:
    """Densities to either side of what goes by lists, by tables and by BLAS; wide and tall."""
    rng = np.random.default_rng(11)
    mask = uniform(rng, *shape, density=density)
    mask[0, :] = True
    weights = rng.normal(size=shape)
    graph = BipartiteGraph(mask, weights)
    for ask, expected in ((structure_pair, svd(mask)), (weighted_pair, svd(np.abs(weights) * mask))):
        pair = ask(graph)
        assert_residuals_hold(pair, expected)
        assert_agrees(pair, expected)  # no copies here, so the values are the first two
        dense = ask is weighted_pair and not graph.is_sparse
        assert pair.solver == ("matrix-free" if engine == "compiled" and not dense else "power")
        assert "takes certify=True" in for_python(pair.outcome.value)
        certified = ask(graph, SolverOptions(certify=True))
        assert certified.outcome is Outcome.PROVED
        assert certified.solver in ("power", pair.solver)  # a Gram matrix, or a count beside what was found
        assert_agrees(certified, expected)


@pytest.mark.usefixtures("iterate_from_33", "proofs_to_side_40")
def test_residual_bounds_hold_on_every_kind() -> None:
    """Also where there are copies of values, of which an iteration without a proof may see one."""
    assert check_residuals(random_cases()[::5]) > 20


@pytest.mark.usefixtures("iterate_from_33", "proofs_to_side_40")
def test_a_residual_bound_holds_where_every_vector_is_an_eigenvector(monkeypatch: pytest.MonkeyPatch) -> None:
    """A permutation of equal weights: A A^T is a multiple of the identity, and the first product ends the search."""
    monkeypatch.setattr(singular, "SVD_SIDE", 3)  # as for a layer too large to begin anew with LAPACK
    mask = shuffled(np.random.default_rng(0), np.eye(60, dtype=bool))
    for options in (DEFAULT, SolverOptions(solver=Solver.MATRIX_FREE)):
        pair = weighted(mask, np.full(mask.shape, 0.3), options)
        for value, error in ((pair.sigma_1, pair.sigma_1_error), (pair.sigma_2, pair.sigma_2_error)):
            if value is not None:
                assert error is not None
                assert abs(value - 0.3) <= error, pair
    assert_agrees(weighted(mask, np.full(mask.shape, 0.3), SolverOptions(certify=True)), [0.3, 0.3])


@pytest.mark.usefixtures("iterate_from_33", "proofs_to_side_40")
@pytest.mark.parametrize("copies", [2, 3])
@pytest.mark.parametrize("density", [0.05, 0.3, 0.9])
def test_copies_are_found_past_the_proof_side_and_then_proved(density: float, copies: int) -> None:
    """A graph of several components may have sigma_1 more than once, so there it is looked for, proof or not."""
    for seed in range(2):
        rng = np.random.default_rng(seed)
        one = uniform(rng, 45, 70, density)
        weights = rng.uniform(0.5, 1, one.shape)
        heavy = np.kron(np.eye(copies), weights)
        mask, sigma = union(*[one] * copies), (svd(one)[0], svd(one * weights)[0])
        graph = BipartiteGraph(mask, heavy)
        for ask, first in zip((structure_pair, weighted_pair), sigma, strict=True):
            pair = ask(graph)
            assert pair.outcome in (Outcome.NOT_PROVED, Outcome.PROVED)  # proved where LAPACK had to narrow the bound
            assert_agrees(pair, [first, first], f"seed {seed}")
            pair = ask(graph, SolverOptions(certify=True))
            assert pair.outcome is Outcome.PROVED
            assert_agrees(pair, [first, first], f"certified, seed {seed}")


@pytest.mark.usefixtures("iterate_from_33", "proofs_to_side_40")
def test_copies_within_a_subgraph_are_found_past_the_proof_side() -> None:
    """The graph is connected, by columns of another degree; without them it is two copies."""
    rng = np.random.default_rng(0)
    one = biregular_rounds(rng, 5, 12, 6)
    copies = union(one, one)
    mask = np.hstack([copies, uniform(rng, copies.shape[0], 9, 0.5)])
    graph = BipartiteGraph(mask)
    at = graph.left_classes.degree.tolist().index(5)
    begin, end = graph.left_classes.begin[at], graph.left_classes.end[at]
    problems = Problems(graph, np.array([[0, graph.n_L], [begin, end]]), np.array([graph.n_R, copies.shape[0]]))
    assert (graph.components, int(end - begin)) == (1, copies.shape[1])
    (pairs,) = singular_pairs([problems])
    assert_agrees(pairs[0], svd(mask))
    assert_agrees(pairs[1], [svd(one)[0]] * 2)


def test_a_layer_past_the_proof_side_as_it_comes(engine: str) -> None:
    """With nothing set by the test, and SciPy's iteration for reference: a dense one takes too long."""
    side = solvers.PROOF_SIDE + 50
    mask = uniform(np.random.default_rng(0), side, side + 100, 0.003)
    mask[:, :side] |= np.eye(side, dtype=bool)
    pair = structure(mask)
    assert pair.solver == ("matrix-free" if engine == "compiled" else "power")
    assert pair.outcome is Outcome.NOT_PROVED
    start = np.random.default_rng(1).random(side)
    expected = svds(csr_array(mask.astype(np.float64)), k=2, tol=1e-13, v0=start, return_singular_vectors=False)
    assert_agrees(pair, sorted(expected.tolist(), reverse=True))


@pytest.mark.parametrize("shape", [(25, 90), (40, 90), (200, 150)])
@pytest.mark.usefixtures("iterate_from_33")
def test_bound_follows_the_tolerance(shape: tuple[int, int]) -> None:
    mask = uniform(np.random.default_rng(5), *shape, density=0.1)
    sigma = svd(mask)
    for tolerance in (1e-4, 1e-6, 1e-8, 1e-10):
        for solver in (Solver.AUTO, Solver.MATRIX_FREE):
            pair = structure(mask, SolverOptions(tolerance=tolerance, solver=solver))
            assert pair.outcome in (Outcome.PROVED, Outcome.NOT_PROVED)
            assert_agrees(pair, sigma, solver, tolerance=tolerance)


@pytest.mark.usefixtures("iterate_from_33")
def test_a_loose_tolerance_costs_less() -> None:
    mask = uniform(np.random.default_rng(5), 150, 200, density=0.1)
    products = [structure(mask, SolverOptions(tolerance=tolerance)).products for tolerance in (1e-4, 1e-9)]
    assert 0 < products[0] < products[1]


@pytest.mark.parametrize("shape", [(10, 12), (60, 80), (270, 280)])
def test_a_tolerance_out_of_reach_is_flagged(shape: tuple[int, int]) -> None:
    mask = uniform(np.random.default_rng(0), *shape, density=0.5)
    for pair in (
        structure_pair(BipartiteGraph(mask), SolverOptions(tolerance=1e-18)),
        weighted_pair(BipartiteGraph(mask, mask * 2.0), SolverOptions(tolerance=1e-18)),
    ):
        assert (pair.outcome, pair.solver) == (Outcome.TOO_WIDE, "direct")
        assert pair.sigma_1_error is not None
        assert pair.sigma_1_error > 0
        assert pair.sigma_1 is not None


def test_gap_inherits_both_errors() -> None:
    gap, error = Pairs.of([SingularPair(3.0, 1.0, 1e-3, 1e-2, "gram", Outcome.PROVED)]).gaps
    assert gap[0] == 2.0
    assert error[0] == pytest.approx(1.1e-2, rel=1e-9)
    assert error[0] >= 1.1e-2


# Other array libraries ---------------------------------------------------------------------------------------------

TORCH_CASES = {
    "gram": (30, 50, 0.3),
    "iteration": (90, 160, 0.1),
    "tall": (130, 80, 0.1),
    "complete": (7, 9, 1.0),
    "empty": (5, 6, 0.0),
    "row": (1, 9, 1.0),
    "sparse": (40, 50, 0.02),
}


@pytest.mark.usefixtures("iterate_from_33")
@pytest.mark.parametrize("case", TORCH_CASES)
def test_torch_gives_what_numpy_gives(case: str) -> None:
    rows, columns, density = TORCH_CASES[case]
    rng = np.random.default_rng(2)
    mask = uniform(rng, rows, columns, density)
    weights = rng.normal(size=mask.shape)
    ours = BipartiteGraph(mask, weights)
    theirs = BipartiteGraph(torch.from_numpy(mask), torch.from_numpy(weights))
    assert ours.counts == theirs.counts
    assert isinstance(theirs.incidence, torch.Tensor)
    for name in ("degree", "begin", "end", "n_R"):
        assert (getattr(ours.left_classes, name) == getattr(theirs.left_classes, name)).all(), name
    for pair, other in (
        (structure_pair(ours), structure_pair(theirs)),
        (weighted_pair(ours), weighted_pair(theirs)),
    ):
        assert other.solver in (pair.solver, "power")  # a device has no direct side
        assert close(pair, other)


@TENSORS
@pytest.mark.usefixtures("iterate_from_33")
def test_torch_on_random_graphs() -> None:
    cases = random_cases()[::5]
    masks = [torch.from_numpy(case.mask) for case in cases]
    weights = [None if case.weights is None else torch.from_numpy(case.weights) for case in cases]
    requests = [
        Problems.whole(BipartiteGraph(mask, values), weighted=values is not None)
        for mask, values in zip(masks, weights, strict=True)
    ]
    for case, pairs in zip(cases, singular_pairs(requests), strict=True):
        assert error_over_bound(pairs[0], case) <= 1, f"{case.note}: {pairs[0]}, expected {case.expected[:3]}"


@TENSORS
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("shape", [(5, 6), (1, 6)])
def test_torch_weights_not_finite(shape: tuple[int, int], bad: float) -> None:
    weights = torch.full(shape, bad, dtype=torch.float32)
    with pytest.raises(NotFiniteError):
        weighted_pair(BipartiteGraph(torch.ones(shape, dtype=torch.bool), weights))


@TENSORS
@pytest.mark.usefixtures("iterate_from_33")
def test_torch_tiny_sigma_2_and_options() -> None:
    matrix = torch.diag(torch.tensor([1.0, 1e-10, 1e-11], dtype=torch.float64))
    pair = weighted_pair(BipartiteGraph(torch.ones((3, 3), dtype=torch.bool), matrix))
    assert (pair.solver, pair.outcome) == ("direct", Outcome.PROVED)
    assert pair.sigma_2 == pytest.approx(1e-10, rel=1e-4, abs=0)
    mask = torch.from_numpy(uniform(np.random.default_rng(0), 300, 900, 0.1))
    short = structure_pair(BipartiteGraph(mask), SolverOptions(most_products=10))
    assert short.outcome is Outcome.NOT_CONVERGED


def test_defaults() -> None:
    assert DEFAULT.tolerance == 1e-9
    assert (DEFAULT.solver, DEFAULT.certify) == (Solver.AUTO, False)
    assert solvers.COMPILED_DIRECT_SIDE < solvers.ARRAY_DIRECT_SIDE < solvers.PROOF_SIDE < solvers.SVD_SIDE


def test_the_kind_of_engine_is_that_of_the_array(engine: str) -> None:
    mask = np.eye(4, dtype=bool)
    assert BipartiteGraph(mask).packed == (engine == "compiled")
    assert not BipartiteGraph(torch.from_numpy(mask)).packed
