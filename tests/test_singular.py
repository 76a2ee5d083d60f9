"""sigma_1 and sigma_2 against a dense float64 SVD and against graphs whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from graphs import (
    EPS,
    KINDS,
    RESNET20,
    VGG16,
    WEIGHTS,
    Mask,
    Matrix,
    assert_agrees,
    even_cycle,
    exactly,
    near_complete,
    projective_plane,
    rank_two,
    shuffled,
    svd,
    uniform,
    union,
    with_isolated,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pai_cli.errors import NotFiniteError
from pai_cli.spectral import singular
from pai_cli.spectral.bipartite import BipartiteGraph
from pai_cli.spectral.result import Outcome, SingularPair, root_interval
from pai_cli.spectral.singular import DEFAULT, LAPACK_SIDE, SolverOptions, leading_pair, structure_pair, weighted_pair

LAYERS = sorted(set(RESNET20) | set(VGG16))
DENSITIES = (0.001, 0.01, 0.1, 0.5, 0.99, 1.0)
SLOW = {(512, 4608): (0.01, 0.5, 1.0)}  # the reference SVD of it takes half a second
CASES = [(shape, density) for shape in LAYERS for density in SLOW.get(shape, DENSITIES)]

SMALL_MASKS = arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))


def structure(mask: Mask) -> SingularPair:
    return structure_pair(BipartiteGraph(mask))


def weighted(mask: Mask, weights: Matrix) -> SingularPair:
    return weighted_pair(BipartiteGraph(mask, weights))


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


# Many random graphs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_masks_of_every_kind(kind: str) -> None:
    for seed in range(80):  # x 16 kinds = 1,280 graphs
        mask = KINDS[kind](np.random.default_rng(seed))
        check_any(structure(mask), mask.astype(float), f"{kind}, seed {seed}")


@pytest.mark.parametrize("values", WEIGHTS)
@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_every_kind(kind: str, values: str) -> None:
    for seed in range(12):  # x 16 kinds x 8 ranges of weights = 1,536 graphs
        rng = np.random.default_rng(seed)
        mask = KINDS[kind](rng)
        weights = WEIGHTS[values](rng, mask.shape)
        pair = weighted(mask, weights)
        live = np.abs(weights.astype(float)) * mask
        live = live[mask.any(axis=1)][:, mask.any(axis=0)]  # an edge of weight 0 keeps its vertices alive
        note = f"{kind}, {values}, seed {seed}"
        if live.size and not live.any() and min(live.shape) > 1:
            assert (pair.sigma_1, pair.sigma_2, pair.outcome) == (0.0, 0.0, Outcome.PROVED), note
        elif live.any() and min(live.shape) > 1:
            assert_agrees(pair, svd(live), note)
            assert pair.outcome is Outcome.PROVED, note
        else:
            check_any(pair, live, note)


@pytest.mark.parametrize("kind", KINDS)
def test_iteration_on_small_graphs_of_every_kind(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The iteration forced on sides where it has no room: few dimensions, odd ones, many equal values."""
    monkeypatch.setattr(singular, "LAPACK_SIDE", 3)
    for seed in range(20):
        mask = KINDS[kind](np.random.default_rng(1000 + seed))
        check_any(structure(mask), mask.astype(float), f"{kind}, seed {seed}")


def test_small_graphs_do_reach_the_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(singular, "LAPACK_SIDE", 3)
    solvers = [structure(KINDS["uniform"](np.random.default_rng(seed))).solver for seed in range(40)]
    assert solvers.count("power") > 20


@pytest.mark.parametrize(("shape", "density"), CASES, ids=lambda case: str(case).replace(", ", "x"))
def test_layers_of_resnet20_and_vgg16(shape: tuple[int, int], density: float) -> None:
    rng = np.random.default_rng(7)
    rows, columns = shape
    mask = exactly(rng, rows, columns, max(1, round(density * rows * columns)))
    if density == 1.0:  # the answer is exact, and the reference is not: up to 114 eps off
        assert_agrees(structure(mask), [math.sqrt(mask.size), 0.0])
    else:
        check_any(structure(mask), mask.astype(float), "mask")
    weights = rng.normal(size=shape)
    check_any(weighted(mask, weights), np.abs(weights) * mask, "weighted")


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


@pytest.mark.parametrize("q", [2, 3, 5, 7, 11, 13, 31])
def test_projective_plane(q: int) -> None:
    pair = structure(projective_plane(q))
    assert pair.sigma_1 == pytest.approx(q + 1, rel=1e-12)
    assert pair.sigma_2 == pytest.approx(math.sqrt(q), rel=1e-12)
    assert pair.outcome is Outcome.PROVED
    assert pair.solver == ("power" if q == 31 else "gram")


@pytest.mark.parametrize("half", [2, 3, 4, 5, 10, 37, 100, LAPACK_SIDE, LAPACK_SIDE + 1, 400])
def test_even_cycle(half: int) -> None:
    pair = structure(shuffled(np.random.default_rng(half), even_cycle(half)))
    expected = sorted((2 * abs(math.cos(math.pi * j / half)) for j in range(half)), reverse=True)
    assert_agrees(pair, expected, f"cycle of {2 * half}")


@pytest.mark.parametrize("copies", [2, 3, 7])
@pytest.mark.parametrize("shape", [(5, 9), (60, 200), (300, 150), (200, 320)])
def test_copies_have_sigma_1_twice(shape: tuple[int, int], copies: int) -> None:
    rng = np.random.default_rng(copies)
    one = uniform(rng, *shape, density=0.3)
    alone = structure(one)
    pair = structure(shuffled(rng, union(*[one] * copies)))
    assert alone.sigma_1 is not None
    assert pair.sigma_1 == pytest.approx(alone.sigma_1, rel=1e-9)
    assert pair.sigma_2 == pytest.approx(alone.sigma_1, rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("shapes", [((4, 6), (3, 5)), ((20, 31), (4, 4)), ((30, 40), (10, 9))])
def test_kronecker_product(shapes: tuple[tuple[int, int], tuple[int, int]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    left, right = (uniform(rng, *shape, density=0.6) for shape in shapes)
    expected = sorted((a * b for a in svd(left) for b in svd(right)), reverse=True)
    assert_agrees(structure(np.kron(left, right)), expected)


@pytest.mark.parametrize("half", [2, 6, 255, 256, 257, 300])
def test_permutation_matrix(half: int) -> None:
    pair = structure(shuffled(np.random.default_rng(0), np.eye(half, dtype=bool)))
    assert (pair.sigma_1, pair.sigma_2) == (pytest.approx(1, abs=1e-9), pytest.approx(1, abs=1e-9))


@pytest.mark.parametrize("zeros", [1, 2, 5, 40])
@pytest.mark.parametrize("shape", [(5, 9), (64, 576), (300, 500), (500, 300)])
def test_near_complete_mask(shape: tuple[int, int], zeros: int) -> None:
    rng = np.random.default_rng(zeros)
    mask = near_complete(rng, *shape, zeros=zeros)
    assert_agrees(structure(mask), svd(mask))


def test_one_zero_among_ones_exactly() -> None:
    """J minus one entry has rank 2: the sum of squares is mn - 1 and the product of both values sqrt((m-1)(n-1))."""
    for m, n in ((4, 7), (300, 320)):
        mask = np.ones((m, n), dtype=bool)
        mask[1, 2] = False
        total, det = m * n - 1, (m - 1) * (n - 1)
        root = math.sqrt(total**2 - 4 * det)
        largest = (total + root) / 2
        assert_agrees(structure(mask), [math.sqrt(largest), math.sqrt(det / largest)])


@pytest.mark.parametrize("shape", [(6, 9), (200, 90), (300, 400), (700, 280)])
def test_rank_two_mask(shape: tuple[int, int]) -> None:
    mask = rank_two(np.random.default_rng(0), *shape)
    assert_agrees(structure(mask), svd(mask))


@pytest.mark.parametrize("mask", [np.ones((1, 1)), np.ones((1, 7)), np.ones((7, 1))])
def test_one_vertex_on_a_side(mask: Matrix) -> None:
    pair = structure(mask.astype(bool))
    assert pair.sigma_1 == pytest.approx(math.sqrt(mask.size), rel=4 * EPS)
    assert (pair.sigma_2, pair.outcome) == (None, Outcome.ONE_VALUE)
    assert pair.second.reason == pair.gap.reason == "fewer than two singular values"
    weights = np.arange(1.0, mask.size + 1).reshape(mask.shape) * -1e-250
    pair = weighted(mask.astype(bool), weights)
    assert pair.sigma_1 == pytest.approx(float(np.linalg.norm(weights / 1e-250)) * 1e-250, rel=1e-14, abs=0)
    assert (pair.sigma_2, pair.outcome) == (None, Outcome.ONE_VALUE)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (300, 300), (0, 4), (4, 0)])
def test_no_edge(shape: tuple[int, int]) -> None:
    mask = np.zeros(shape, dtype=bool)
    for pair in (structure(mask), weighted(mask, np.ones(shape))):
        assert (pair.sigma_1, pair.sigma_2, pair.outcome) == (None, None, Outcome.COLLAPSED)
        assert pair.first.reason == pair.second.reason == pair.gap.reason == "collapsed"


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
@settings(max_examples=100, deadline=None)
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
@settings(max_examples=100, deadline=None)
def test_isolated_vertices_change_nothing(mask: Mask, rows: int, columns: int, seed: int) -> None:
    assert close(structure(mask), structure(with_isolated(np.random.default_rng(seed), mask, rows, columns)))


@given(SMALL_MASKS, SMALL_MASKS)
@settings(max_examples=100, deadline=None)
def test_union_has_the_values_of_both(first: Mask, second: Mask) -> None:
    both = sorted(svd(first) + svd(second), reverse=True)
    pair = structure(union(first, second))
    live = union(first, second)
    sides = (int(live.any(axis=0).sum()), int(live.any(axis=1).sum()))
    if min(sides) >= 2:
        assert_agrees(pair, both)
    else:
        assert pair.sigma_2 is None


@pytest.mark.usefixtures("iterate_from_257")
@pytest.mark.parametrize("shape", [(300, 700), (700, 300), (290, 290)])
def test_laws_hold_for_the_iteration(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    mask = uniform(rng, *shape, density=0.05)
    pair = structure(mask)
    assert pair.solver == "power"
    assert close(pair, structure(mask.T))
    assert close(pair, structure(shuffled(rng, mask)))
    assert close(pair, structure(with_isolated(rng, mask, 20, 30)))


# Weights of awkward size -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(30, 40), (40, 30), (270, 300)])
@pytest.mark.parametrize("second", [1e-6, 1e-8, 1e-10])
def test_tiny_sigma_2_is_found_without_squaring(shape: tuple[int, int], second: float) -> None:
    """Two disjoint blocks of rank one, of norms 1 and `second`: squared, the smaller is lost to rounding."""
    half = shape[0] // 2, shape[1] // 2
    mask = union(np.ones(half, dtype=bool), np.ones((shape[0] - half[0], shape[1] - half[1]), dtype=bool))
    rng = np.random.default_rng(0)
    weights = np.zeros(shape)
    for block, norm in ((np.s_[: half[0], : half[1]], 1.0), (np.s_[half[0] :, half[1] :], second)):
        part = weights[block]
        u, v = rng.uniform(0.5, 1, part.shape[0]), rng.uniform(0.5, 1, part.shape[1])
        weights[block] = norm * np.outer(u / np.linalg.norm(u), v / np.linalg.norm(v))
    pair = weighted(mask, weights)
    assert (pair.solver, pair.outcome) == ("direct", Outcome.PROVED)
    assert_agrees(pair, [1.0, second])
    assert pair.sigma_2 == pytest.approx(second, rel=1e-3, abs=0)


@pytest.mark.parametrize("shape", [(12, 30), (280, 400)])
@pytest.mark.parametrize("scale", [1e-200, 1e-150, 1e150, 1e200])
def test_scaled_weights(shape: tuple[int, int], scale: float) -> None:
    rng = np.random.default_rng(1)
    mask = uniform(rng, *shape, density=0.4)
    weights = rng.normal(size=shape)
    pair, scaled = weighted(mask, weights), weighted(mask, weights * scale)
    assert_agrees(pair, svd(np.abs(weights) * mask))
    for value, other in (
        (pair.sigma_1, scaled.sigma_1),
        (pair.sigma_2, scaled.sigma_2),
        (pair.sigma_1_error, scaled.sigma_1_error),
    ):
        assert value is not None
        assert other is not None
        assert other / scale == pytest.approx(value, rel=1e-9)
    assert scaled.outcome is Outcome.PROVED


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


@pytest.mark.parametrize("shape", [(2, 3), (30, 20), (300, 400)])
def test_weights_all_zero(shape: tuple[int, int]) -> None:
    pair = weighted(np.ones(shape, dtype=bool), np.zeros(shape))
    assert (pair.sigma_1, pair.sigma_2, pair.sigma_1_error, pair.sigma_2_error) == (0.0, 0.0, 0.0, 0.0)
    assert pair.outcome is Outcome.PROVED


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", [(5, 6), (300, 310), (1, 6), (6, 1), (1, 1)])
def test_weights_not_finite(shape: tuple[int, int], bad: float) -> None:
    weights = np.ones(shape)
    weights[0, 0] = bad
    with pytest.raises(NotFiniteError, match="NaN or infinite"):
        weighted(np.ones(shape, dtype=bool), weights)


def test_weights_need_to_be_there_and_to_fit() -> None:
    mask = np.ones((3, 4), dtype=bool)
    with pytest.raises(ValueError, match="without weights"):
        weighted_pair(BipartiteGraph(mask))
    with pytest.raises(ValueError, match=r"\(4, 3\) for a mask of \(3, 4\)"):
        BipartiteGraph(mask, np.ones((4, 3)))


# Options and outcomes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "solver"), [(LAPACK_SIDE, "gram"), (LAPACK_SIDE + 1, "power")])
def test_solver_by_size(rows: int, solver: str) -> None:
    mask = uniform(np.random.default_rng(0), rows, rows + 50, 0.1)
    pair = structure(mask)
    assert pair.solver == solver
    assert (pair.products > 0) == (solver == "power")
    assert_agrees(pair, svd(mask))


@pytest.mark.usefixtures("iterate_from_257")
def test_too_few_products_give_no_values() -> None:
    mask = uniform(np.random.default_rng(0), 300, 2700, 0.1).astype(float)
    pair = leading_pair(mask, None, binary=True, options=SolverOptions(most_products=20))
    assert pair.outcome is Outcome.NOT_CONVERGED
    assert (pair.sigma_1, pair.sigma_2, pair.sigma_1_error, pair.sigma_2_error) == (None, None, None, None)
    assert pair.first.reason == pair.gap.reason == "not converged: raise most_products"
    assert 20 <= pair.products < 50
    weights = leading_pair(mask * 0.1, None, binary=False, options=SolverOptions(most_products=20))
    assert (weights.outcome, weights.sigma_1) == (Outcome.NOT_CONVERGED, None)


@pytest.mark.parametrize("tolerance", [1e-4, 1e-6, 1e-8, 1e-10])
@pytest.mark.parametrize("shape", [(40, 90), (300, 900)])
def test_bound_follows_the_tolerance(shape: tuple[int, int], tolerance: float) -> None:
    mask = uniform(np.random.default_rng(5), *shape, density=0.1)
    pair = structure_pair(BipartiteGraph(mask), SolverOptions(tolerance=tolerance))
    assert pair.outcome is Outcome.PROVED
    assert_agrees(pair, svd(mask), tolerance=tolerance)


@pytest.mark.parametrize("shape", [(10, 12), (270, 280)])
def test_a_tolerance_out_of_reach_is_flagged(shape: tuple[int, int]) -> None:
    mask = uniform(np.random.default_rng(0), *shape, density=0.5)
    for pair in (
        structure_pair(BipartiteGraph(mask), SolverOptions(tolerance=1e-18)),
        weighted_pair(BipartiteGraph(mask, mask * 2.0), SolverOptions(tolerance=1e-18)),
    ):
        assert (pair.outcome, pair.solver) == (Outcome.TOO_WIDE, "direct")
        assert pair.sigma_1_error is not None
        assert pair.sigma_1_error > 0
        assert pair.first.present


def test_gap_inherits_both_errors() -> None:
    gap = SingularPair(3.0, 1.0, 1e-3, 1e-2, "gram", Outcome.PROVED).gap
    assert gap.value == 2.0
    assert gap.error == pytest.approx(1.1e-2, rel=1e-9)
    assert gap.error is not None
    assert gap.error >= 1.1e-2


@pytest.mark.parametrize(
    ("low", "value", "high"), [(3.9, 4.0, 4.2), (3.0, 4.0, 4.1), (-1e-9, 0.0, 1e-8), (-1e-9, 1e-12, 1e-8), (4, 4, 4)]
)
def test_root_interval_covers_the_root_of_everything_inside(low: float, value: float, high: float) -> None:
    root, error = root_interval(low, value, high)
    for inside in np.linspace(max(low, 0.0), high, 11):
        assert abs(math.sqrt(inside) - root) <= error
    assert error <= 1.01 * max(math.sqrt(high) - root, root - math.sqrt(max(low, 0.0))) + 4 * EPS


# Other array libraries ---------------------------------------------------------------------------------------------

TORCH_CASES = {
    "gram": (30, 50, 0.3),
    "iteration": (280, 500, 0.1),
    "tall": (400, 270, 0.1),
    "complete": (7, 9, 1.0),
    "empty": (5, 6, 0.0),
    "row": (1, 9, 1.0),
    "sparse": (40, 50, 0.02),
}


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
    assert ours.left_classes == theirs.left_classes
    for pair, other in (
        (structure_pair(ours), structure_pair(theirs)),
        (weighted_pair(ours), weighted_pair(theirs)),
    ):
        assert (pair.outcome, pair.solver) == (other.outcome, other.solver)
        for value, same in ((pair.sigma_1, other.sigma_1), (pair.sigma_2, other.sigma_2)):
            assert same == (None if value is None else pytest.approx(value, rel=1e-12))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("shape", [(5, 6), (1, 6)])
def test_torch_weights_not_finite(shape: tuple[int, int], bad: float) -> None:
    weights = torch.full(shape, bad, dtype=torch.float32)
    with pytest.raises(NotFiniteError):
        weighted_pair(BipartiteGraph(torch.ones(shape, dtype=torch.bool), weights))


@pytest.mark.usefixtures("iterate_from_257")
def test_torch_tiny_sigma_2_and_options() -> None:
    matrix = torch.diag(torch.tensor([1.0, 1e-10, 1e-11], dtype=torch.float64))
    pair = leading_pair(matrix, None, binary=False)
    assert (pair.solver, pair.outcome) == ("direct", Outcome.PROVED)
    assert pair.sigma_2 == pytest.approx(1e-10, rel=1e-4, abs=0)
    mask = torch.from_numpy(uniform(np.random.default_rng(0), 300, 900, 0.1))
    short = structure_pair(BipartiteGraph(mask), SolverOptions(most_products=10))
    assert short.outcome is Outcome.NOT_CONVERGED


def test_defaults() -> None:
    assert DEFAULT.tolerance == 1e-9
