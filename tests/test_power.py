"""Block power iteration in batches, and the proof that its second value is the second."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any

import array_api_strict
import numpy as np
import pytest
import torch
from graphs import (
    EPS,
    Mask,
    Matrix,
    Rng,
    biregular_rounds,
    even_cycle,
    near_complete,
    projective_plane,
    rank_two,
    shuffled,
    skewed,
    uniform,
    union,
)
from hypothesis import given
from hypothesis import strategies as st

from pai_cli.spectral import power
from pai_cli.spectral.power import batches, leading_eigenpairs, padded_side
from pai_cli.spectral.solver_table import EIGENPAIR, Eigenpairs, SolverLimits, Status, shift_for

ITERATE = SolverLimits(tolerance=1e-9, most_products=1200, direct_side=0, proof_side=4096)

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


def gram_of(matrix: np.ndarray) -> Matrix:
    matrix = np.asarray(matrix, dtype=np.float64)
    return matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix


def spectrum(gram: Matrix) -> Matrix:
    """All eigenvalues, largest first."""
    return np.linalg.eigvalsh(gram)[::-1]


def padded(grams: Sequence[Matrix], side: int = 0) -> tuple[Matrix, list[int]]:
    """One array of all, and their sides."""
    sides = [len(gram) for gram in grams]
    out = np.zeros((len(grams), max(side, *sides), max(side, *sides)))
    for k, gram in enumerate(grams):
        out[k, : len(gram), : len(gram)] = gram
    return out, sides


def solved(grams: Sequence[Matrix], limits: SolverLimits = ITERATE, side: int = 0) -> Eigenpairs:
    return leading_eigenpairs(*padded(grams, side), limits)


def rounding(gram: Matrix) -> float:
    return 4 * len(gram) * EPS * float(np.linalg.norm(gram))


def assert_true(row: Any, gram: Matrix, note: object = "") -> None:
    """What a row of the table claims, against all eigenvalues; and that it is as exact as was asked."""
    values, slack = spectrum(gram), rounding(gram)
    first, second = (float(value) for value in row["value"])
    assert row["status"] == Status.PROVED, note
    assert row["side"] == len(gram), note
    assert row["frobenius"] == pytest.approx(np.linalg.norm(gram), rel=1e-12), note
    for k in range(2):
        assert abs(row["value"][k] - values[k]) <= row["residual"][k] + slack, note
        assert row["value"][k] <= values[k] + slack, note  # a Ritz value is never above its own
        assert abs(row["value"][k] - values[k]) <= 1e-9 * math.sqrt(first * second) + slack, note
    assert first >= second >= 0, note
    assert values[1] <= row["shift"] + slack, note
    assert row["shift"] == shift_for(first, second, len(gram), ITERATE.tolerance), note
    trace = len(gram) * row["shift"] + first - np.trace(gram)
    assert row["trace"] == pytest.approx(trace, abs=slack, rel=1e-12), note


def assert_alike(one: Eigenpairs, other: Eigenpairs) -> None:
    """Two tables of the same problems, but for rounding.

    Products may differ: rounding splits a double eigenvalue, which turns its vectors and so divides their residuals anew.
    """
    assert (one["status"] == other["status"]).all()
    assert (one["side"] == other["side"]).all()
    assert one["value"] == pytest.approx(other["value"], rel=1e-10, abs=1e-12)
    assert one["frobenius"] == pytest.approx(other["frobenius"], rel=1e-12)
    assert one["shift"] == pytest.approx(other["shift"], rel=1e-9, abs=1e-12)


def distinct_weights(rng: Rng, values: list[float], rows: int, columns: int) -> Matrix:
    """A matrix of few singular values: not negative, for the parts do not overlap."""
    matrix = np.zeros((rows, columns))
    for index, value in enumerate(values):
        i = np.array_split(np.arange(rows), len(values))[index]
        j = np.array_split(np.arange(columns), len(values))[index]
        u, v = rng.uniform(0.5, 1, i.size), rng.uniform(0.5, 1, j.size)
        matrix[np.ix_(i, j)] = value * np.outer(u / np.linalg.norm(u), v / np.linalg.norm(v))
    return matrix


MASKS: dict[str, Callable[[Rng], Mask]] = {
    "wide": lambda rng: uniform(rng, 90, 840, 0.1),
    "tall": lambda rng: uniform(rng, 840, 80, 0.1),
    "square": lambda rng: uniform(rng, 96, 96, 0.2),
    "sparse": lambda rng: uniform(rng, 120, 270, 0.02),
    "dense": lambda rng: uniform(rng, 90, 120, 0.95),
    "near complete": lambda rng: near_complete(rng, 90, 180, 7),
    "skewed": lambda rng: skewed(rng, 90, 270, 0.07),
    "biregular": lambda rng: biregular_rounds(rng, 4, 21, 8),
    "two parts": lambda rng: shuffled(rng, union(uniform(rng, 60, 90, 0.3), uniform(rng, 45, 90, 0.15))),
    "many parts": lambda rng: shuffled(rng, union(*(uniform(rng, 10, 15, 0.4) for _ in range(9)))),
    "two copies": lambda rng: shuffled(rng, union(*[uniform(rng, 45, 80, 0.2)] * 2)),
    "twelve copies": lambda rng: shuffled(rng, union(*[uniform(rng, 8, 9, 0.5)] * 12)),
    "two complete parts": lambda rng: shuffled(rng, union(np.ones((45, 48), bool), np.ones((36, 42), bool))),
    "complete": lambda rng: np.ones((54, 60), bool),
    "rank two": lambda rng: rank_two(rng, 90, 120),
    "permutation": lambda rng: shuffled(rng, np.eye(91, dtype=bool)),
    "cycle": lambda rng: shuffled(rng, even_cycle(90)),
    "path": lambda rng: shuffled(rng, even_cycle(90)[:-1]),
    "stars": lambda rng: shuffled(rng, np.kron(np.eye(84, dtype=bool), np.ones((1, 3), dtype=bool))),
    "plane": lambda rng: shuffled(rng, projective_plane(7)),
    "tiny": lambda rng: uniform(rng, 5, 9, 0.5),
}


def spectrum_gaps(grams: list[Matrix]) -> Matrix:
    """By how much of the first eigenvalue the three largest differ at least."""
    tops = [spectrum(gram)[:3] for gram in grams]
    return np.array([-np.diff(top).max() / top[0] for top in tops])


@cache
def of_masks() -> list[Matrix]:
    """One of each kind; made once, as nothing writes into them."""
    return [gram_of(make(np.random.default_rng(4))) for make in MASKS.values()]


@cache
def of_weights() -> list[Matrix]:
    rng = np.random.default_rng(5)
    masks = [make(rng) for make in MASKS.values()]
    return [gram_of(np.abs(rng.normal(size=mask.shape)) * mask) for mask in masks]


def three() -> list[Matrix]:
    """The problem of side 90 is the second."""
    rng = np.random.default_rng(0)
    return [gram_of(uniform(rng, n, 3 * n, 0.1)) for n in (60, 90, 96)]


# Against all eigenvalues ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [of_masks, of_weights])
def test_iteration_against_all_eigenvalues(make: Callable[[], list[Matrix]]) -> None:
    grams = make()
    found = solved(grams)
    assert found.dtype == EIGENPAIR
    for row, gram, kind in zip(found, grams, MASKS, strict=True):
        assert_true(row, gram, kind)
        assert row["products"] <= len(gram) + 2, kind


@pytest.mark.parametrize("make", [of_masks, of_weights])
def test_a_problem_alone_is_solved_as_in_a_batch(make: Callable[[], list[Matrix]]) -> None:
    grams = make()
    alone = np.concatenate([solved([gram]) for gram in grams])
    assert_alike(solved(grams), alone)
    assert_alike(solved(grams[::-1])[::-1], alone)
    simple = spectrum_gaps(grams) > 1e-6
    assert simple.sum() > 8
    assert (solved(grams)["products"] == alone["products"])[simple].all()
    assert_alike(solved(grams, side=150), alone)


@pytest.mark.parametrize("extra", [1, 7, 120])
def test_padding_changes_nothing(extra: int) -> None:
    gram = gram_of(MASKS["wide"](np.random.default_rng(4)))
    # Another, larger problem keeps the padding from being cut off.
    large = gram_of(uniform(np.random.default_rng(0), len(gram) + extra, 900, 0.1))
    assert_alike(solved([gram]), solved([gram, large])[:1])


def test_same_batch_same_bits() -> None:
    for make in (of_masks, of_weights):
        assert (solved(make()) == solved([gram.copy() for gram in make()])).all()


@pytest.mark.parametrize("shape", [(60, 150), (150, 60), (50, 50)])
@pytest.mark.parametrize(
    "values", [[2.0], [2.0, 1.0], [1.0, 1.0], [3.0, 2.0, 1.0], [1.0, 1.0, 1.0], [5.0, 4.0, 4.0, 3.0, 1e-6]], ids=str
)
def test_fewer_directions_than_the_space_is_built_for(values: list[float], shape: tuple[int, int]) -> None:
    gram = gram_of(distinct_weights(np.random.default_rng(0), values, *shape))
    row = solved([gram])[0]
    assert_true(row, gram)
    expected = [value**2 for value in [*values, 0.0]][:2]
    assert row["value"] == pytest.approx(expected, rel=1e-9, abs=1e-13)


def test_diagonal_of_many_sizes() -> None:
    gram = np.diag(10.0 ** np.linspace(-12, 0, 200))
    assert_true(solved([gram])[0], gram)


@pytest.mark.parametrize("copies", [2, 3, 20])
def test_multiple_first_eigenvalue_is_seen(copies: int) -> None:
    rng = np.random.default_rng(1)
    gram = gram_of(shuffled(rng, union(*[uniform(rng, 12, 60, 0.3)] * copies)))
    top = spectrum(gram)[0]
    assert solved([gram])[0]["value"] == pytest.approx([top, top], rel=1e-12)


DEGENERATE = [np.zeros((9, 9)), np.eye(9), np.ones((9, 9)), np.diag([1.0, 0, 0, 0, 0]), np.eye(2), np.ones((3, 3))]


@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e12])
def test_degenerate_matrices(scale: float) -> None:
    grams = [scale * gram for gram in DEGENERATE]
    found = solved(grams)
    for row, gram in zip(found, grams, strict=True):
        assert np.isfinite(row.item()[1]).all()
        assert row["value"] == pytest.approx(spectrum(gram)[:2], abs=1e-13 * scale)
        # Nothing lies above the shift of the zero matrix, but 0 has no factor.
        assert row["status"] == (Status.PROVED if gram.any() else Status.MISSED)


SIDES = st.lists(st.integers(2, 14), min_size=1, max_size=6)


@given(sides=SIDES, seed=st.integers(0, 2**32), rank=st.integers(1, 16), direct=st.sampled_from([0, 7, 14]))
def test_small_problems_of_any_rank(sides: list[int], seed: int, rank: int, direct: int) -> None:
    """Also where the whole space is used up, of an odd number of dimensions too."""
    rng = np.random.default_rng(seed)
    grams = [gram_of(rng.uniform(size=(n, max(n, rank))) * (np.arange(max(n, rank)) < rank)) for n in sides]
    found = solved(grams, replace(ITERATE, direct_side=direct))
    for row, gram in zip(found, grams, strict=True):
        values = spectrum(gram)
        assert row["status"] == (Status.ALL_VALUES if len(gram) <= direct else Status.PROVED)
        assert row["value"] == pytest.approx(np.maximum(values[:2], 0), rel=1e-9, abs=100 * EPS * values[0])
        assert row["products"] <= len(gram) + 2


def test_all_values_up_to_the_direct_side() -> None:
    rng = np.random.default_rng(0)
    grams = [gram_of(uniform(rng, n, 3 * n, 0.3)) for n in (2, 40, 41, 10, 90)]
    grams.append(np.ones((30, 30)))
    found = solved(grams, replace(ITERATE, direct_side=40))
    expected = [Status.ALL_VALUES, Status.ALL_VALUES, Status.PROVED, Status.ALL_VALUES, Status.PROVED]
    assert list(found["status"]) == [*expected, Status.ALL_VALUES]
    for row, gram in zip(found, grams, strict=True):
        assert row["value"] == pytest.approx(np.maximum(spectrum(gram)[:2], 0), rel=1e-9, abs=1e-12)
        assert row["value"][1] >= 0
        assert row["frobenius"] == pytest.approx(np.linalg.norm(gram), rel=1e-13)
    direct = found[found["status"] == Status.ALL_VALUES]
    assert not direct["residual"].any()
    assert not direct["products"].any()


def test_no_problems() -> None:
    assert leading_eigenpairs(np.zeros((0, 8, 8)), [], ITERATE).shape == (0,)


def test_float32_of_integers_is_taken_exactly() -> None:
    grams, sides = padded(of_masks())
    found = leading_eigenpairs(grams.astype(np.float32), sides, ITERATE)
    assert (found == leading_eigenpairs(grams, sides, ITERATE)).all()


def test_input_is_left_as_it_was() -> None:
    grams, sides = padded(of_masks())
    before = grams.copy()
    leading_eigenpairs(grams, sides, ITERATE)
    assert (grams == before).all()


# Problems that end at different times --------------------------------------------------------------------------------


def test_invariant_and_finished_problems_disturb_no_other() -> None:
    """A hard problem among ones whose Krylov spaces end at once, and are wider than their sides long before it ends."""
    hard = gram_of(uniform(np.random.default_rng(0), 200, 1800, 0.1))
    alone = solved([hard])
    easy = [gram for gram in DEGENERATE if gram.any()] + [
        np.eye(120),
        gram_of(rank_two(np.random.default_rng(1), 99, 99)),
    ]
    for among in (easy, [hard, *easy], [*easy[:3], hard, hard], [hard] * 5 + easy):
        found = solved([*among, hard])
        assert_alike(found[-1:], alone)
        assert (found["status"] == Status.PROVED).all()
        assert found[-1]["products"] == alone[0]["products"] > 40
        assert all(row["products"] <= 12 for row, gram in zip(found, among, strict=False) if gram is not hard)


def test_padding_stays_zero() -> None:
    """Also of the noise that replaces spent directions."""
    grams = [np.eye(5), np.ones((9, 9)), gram_of(uniform(np.random.default_rng(0), 30, 90, 0.2))]
    batch, sides = padded(grams)
    spaces = power._KrylovSpaces(batch, np.array(sides), seed=0)
    while spaces.width < 30:
        spaces.extend()
        for k, gram in enumerate(grams):
            basis = spaces._basis[k, : spaces.width]
            assert not basis[:, len(gram) :].any()
            full = min(spaces.width, len(gram))
            assert basis[:full] @ basis[:full].T == pytest.approx(np.eye(full), abs=1e-13)
            assert not basis[full:].any()


# Budgets and tolerances ----------------------------------------------------------------------------------------------


def test_too_few_products_give_no_answer() -> None:
    """A hundred steps of the plain power iteration look settled and are wrong in the third digit, and so is a search
    cut short; but that one says so."""
    gram = gram_of(uniform(np.random.default_rng(0), 512, 4608, 0.1))
    values, vectors = np.linalg.eigh(gram)
    second, x = values[-2], np.random.default_rng(1).standard_normal(512)
    quotients = []
    for _ in range(100):
        x = gram @ (x - vectors[:, -1] * (vectors[:, -1] @ x))
        x /= np.linalg.norm(x)
        quotients.append(float(x @ gram @ x))
    assert quotients[-1] - quotients[-2] < 2e-4 * second
    assert second - quotients[-1] > 4e-3 * second

    for budget in (1, 2, 20, 60):
        short = solved([gram], replace(ITERATE, most_products=budget))[0]
        assert short["status"] == Status.NOT_CONVERGED
        assert short["products"] <= max(budget, 2) + 2
        assert short["shift"] == short["trace"] == 0
        if budget <= 20:
            assert second - short["value"][1] > 4e-3 * second
    assert_true(solved([gram])[0], gram)


def test_only_what_needs_more_products_is_not_converged() -> None:
    hard = gram_of(uniform(np.random.default_rng(0), 200, 1800, 0.1))
    found = solved([np.eye(50), hard, np.ones((50, 50))], replace(ITERATE, most_products=20))
    assert list(found["status"]) == [Status.PROVED, Status.NOT_CONVERGED, Status.PROVED]


def test_tolerance_sets_the_number_of_products() -> None:
    gram = gram_of(uniform(np.random.default_rng(0), 200, 1800, 0.1))
    counts = [solved([gram], replace(ITERATE, tolerance=t))[0]["products"] for t in (1e-2, 1e-5, 1e-9)]
    assert counts[0] < counts[1] < counts[2]


def test_a_tolerance_past_rounding_is_as_good_as_it_gets() -> None:
    rng = np.random.default_rng(0)
    grams = [gram_of(uniform(rng, n, 3 * n, 0.1)) for n in (100, 150, 160)]  # smaller ones may take their whole space
    for limits in (replace(ITERATE, tolerance=1e-17), replace(ITERATE, tolerance=1e-17, proof_side=0)):
        found = solved(grams, limits)
        assert (found["products"] < 0.95 * found["side"]).all()
        for row, gram in zip(found, grams, strict=True):
            assert row["value"] == pytest.approx(spectrum(gram)[:2], rel=1e-13)


@pytest.mark.parametrize("kind", ["wide", "path"])
@pytest.mark.parametrize("tolerance", [1e-2, 1e-3, 1e-4])
def test_a_loose_iteration_owns_up(kind: str, tolerance: float) -> None:
    gram = gram_of(MASKS[kind](np.random.default_rng(3)))
    row = solved([gram], replace(ITERATE, tolerance=tolerance))[0]
    values, slack = spectrum(gram), rounding(gram)
    assert row["status"] == Status.PROVED
    assert values[1] <= row["shift"] + slack
    assert all(abs(row["value"][k] - values[k]) <= row["residual"][k] + slack for k in range(2))
    assert np.abs(row["value"] - values[:2]).max() <= tolerance * math.sqrt(values[0] * values[1]) + slack


def test_past_the_proof_side_residuals_must_do() -> None:
    grams = of_masks()
    with_proof = solved(grams)
    found = solved(grams, replace(ITERATE, proof_side=0))
    mixed = solved(grams, replace(ITERATE, proof_side=90))
    assert (found["status"] == Status.NOT_ASKED).all()
    assert not found["shift"].any()
    for row, gram in zip(found, grams, strict=True):
        scale = math.sqrt(row["value"][0] * row["value"][1])
        assert row["residual"].max() <= 1e-9 * scale + rounding(gram)
        assert row["value"] == pytest.approx(spectrum(gram)[:2], rel=1e-9, abs=rounding(gram))
    wide = list(MASKS).index("wide")
    assert found[wide]["products"] > with_proof[wide]["products"]  # an estimate is smaller than its residual
    for kind in ("complete", "rank two", "permutation"):
        assert found[list(MASKS).index(kind)]["products"] <= 10, kind  # also where the goal, of a second value 0, is 0
    large = found["side"] > 90
    assert_alike(mixed[large], found[large])
    assert_alike(mixed[~large], with_proof[~large])
    assert (mixed["products"] == np.where(large, found["products"], with_proof["products"]))[
        spectrum_gaps(grams) > 1e-6
    ].all()


# The proof, and what follows when it fails ---------------------------------------------------------------------------


def claim(gram: Matrix, first: int, second: int, lower: float = 0.0) -> tuple[Matrix, Eigenpairs, Matrix]:
    """The arguments of a proof, had an iteration found eigenpairs number `first` and `second` (less `lower`)."""
    values, vectors = np.linalg.eigh(gram)
    found = np.zeros(1, dtype=EIGENPAIR)
    found["side"] = len(gram)
    found["value"] = [values[-1 - first], values[-1 - second] * (1 - lower)]
    return gram[None], found, np.ascontiguousarray(vectors[:, -1 - first])[None]


def proof_of(*claimed: Any) -> int:
    return int(power._proved(*claimed, ITERATE)["status"][0])


@pytest.mark.parametrize("kind", ["wide", "sparse", "skewed", "two parts", "rank two", "path"])
def test_true_pair_is_proved(kind: str) -> None:
    assert proof_of(*claim(gram_of(MASKS[kind](np.random.default_rng(4))), 0, 1)) is Status.PROVED


@pytest.mark.parametrize(
    ("first", "second"), [(0, 2), (0, 3), (0, 50), (1, 2), (1, 0), (2, 1)], ids=lambda index: str(index + 1)
)
def test_proof_refuses_another_pair(first: int, second: int) -> None:
    """Eigenpairs "first" and "second" are really eigenpairs of other ranks, exactly."""
    claimed = claim(gram_of(uniform(np.random.default_rng(0), 150, 450, 0.1)), first, second)
    # With the true first value for the second nothing is above the shift: true, if of no use.
    assert proof_of(*claimed) is (Status.PROVED if second == 0 else Status.MISSED)


def test_proof_refuses_a_value_just_too_small() -> None:
    gram = gram_of(uniform(np.random.default_rng(0), 150, 450, 0.1))
    assert proof_of(*claim(gram, 0, 1, lower=1e-10)) is Status.PROVED
    assert proof_of(*claim(gram, 0, 1, lower=1e-8)) is Status.MISSED


def test_proof_refuses_a_wrong_first_vector() -> None:
    gram, found, _ = claim(gram_of(uniform(np.random.default_rng(0), 150, 450, 0.1)), 0, 1)
    noise = np.random.default_rng(1).normal(size=(1, 150))
    assert proof_of(gram, found, noise / np.linalg.norm(noise)) is Status.MISSED


def test_proof_sees_a_double_first_value() -> None:
    gram = np.kron(np.eye(2), gram_of(uniform(np.random.default_rng(0), 75, 150, 0.1)))
    assert proof_of(*claim(gram, 0, 2)) is Status.MISSED
    assert proof_of(*claim(gram, 0, 1)) is Status.PROVED


def misled(monkeypatch: pytest.MonkeyPatch, seeds: Sequence[int], ranks: tuple[int, int]) -> list[tuple[int, int]]:
    """Searches with these seeds return eigenvectors of other ranks for problems of side 90.

    Gives the seed of each search, and the products it took for those problems.
    """
    search = power._search
    used: list[tuple[int, int]] = []

    def lost(grams: Any, sides: Any, limits: SolverLimits, seed: int) -> Any:
        vectors, products, converged = search(grams, sides, limits, seed)
        used.append((seed, int(products[sides == 90].sum())))
        for k in np.flatnonzero(sides == 90) if seed in seeds else ():
            exact = np.linalg.eigh(np.asarray(grams[k, :90, :90]))[1][:, ::-1]
            vectors[k, :, :90] = (
                vectors.dtype.type(exact[:, ranks].T)
                if isinstance(vectors, np.ndarray)
                else (torch.from_numpy(exact[:, ranks].T.copy()))
            )
        return vectors, products, converged

    monkeypatch.setattr(power, "_search", lost)
    return used


@pytest.mark.parametrize("ranks", [(0, 2), (0, 70), (1, 2)], ids=str)
@pytest.mark.parametrize("as_array", [np.asarray, torch.from_numpy])
def test_a_second_search_finds_what_was_missed(
    as_array: Callable[[Matrix], Any], ranks: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    grams = three()
    once = solved(grams)
    used = misled(monkeypatch, [0], ranks)
    batch, sides = padded(grams)
    found = leading_eigenpairs(as_array(batch), sides, ITERATE)
    assert [seed for seed, _ in used] == [0, 1]
    for row, gram in zip(found, grams, strict=True):
        assert_true(row, gram)
    assert found[1]["products"] == sum(products + 2 for _, products in used) > once[1]["products"]
    assert_alike(found, once)


def test_a_value_missed_twice_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    grams = three()
    misled(monkeypatch, [0, 1], (2, 3))
    found = solved(grams)
    assert list(found["status"]) == [Status.PROVED, Status.MISSED, Status.PROVED]
    assert found[1]["shift"] < spectrum(grams[1])[1]
    assert_true(found[0], grams[0])
    assert_true(found[2], grams[2])


def test_a_second_search_cut_short_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if what it came upon happens to be proved."""
    search, proofs = power._search, iter([False, True])

    def short(grams: Any, sides: Any, limits: SolverLimits, seed: int) -> Any:
        vectors, products, converged = search(grams, sides, limits, seed)
        return vectors, products, converged & (seed == 0)

    monkeypatch.setattr(power, "_search", short)
    monkeypatch.setattr(power, "_have_factors", lambda matrices: np.full(len(matrices), next(proofs)))
    assert (solved(three())["status"] == Status.MISSED).all()


def test_a_random_graph_is_at_the_edge_of_its_bulk() -> None:
    """Random biregular graphs: sigma_2 comes up to sqrt(d_L - 1) + sqrt(d_R - 1) (Brito, Dumitriu, Harris 2021)."""
    row = solved([gram_of(biregular_rounds(np.random.default_rng(0), 6, 50, 12))])[0]
    assert row["value"][0] == pytest.approx(6 * 12, rel=1e-12)
    assert math.sqrt(row["value"][1]) == pytest.approx(math.sqrt(5) + math.sqrt(11), rel=0.05)


# torch ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_torch_says_the_same(at: str, dtype: torch.dtype) -> None:
    grams, sides = padded(of_masks())
    limits = replace(ITERATE, direct_side=60, proof_side=120)
    theirs = leading_eigenpairs(torch.from_numpy(grams).to(at, dtype), sides, limits)
    assert isinstance(theirs, np.ndarray)
    assert_alike(theirs, leading_eigenpairs(grams, sides, limits))
    assert set(theirs["status"]) == {Status.ALL_VALUES, Status.PROVED}


@pytest.mark.parametrize("at", DEVICES)
def test_torch_iteration_against_all_eigenvalues(at: str) -> None:
    for grams in (of_masks(), of_weights()):
        batch, sides = padded(grams)
        found = leading_eigenpairs(torch.from_numpy(batch).to(at), sides, ITERATE)
        for row, gram, kind in zip(found, grams, MASKS, strict=True):
            assert_true(row, gram, kind)


@pytest.mark.parametrize("make", [of_masks, of_weights])
@pytest.mark.parametrize(
    "limits", [ITERATE, replace(ITERATE, direct_side=60, proof_side=90)], ids=["iterated", "mixed"]
)
def test_the_array_api_is_enough(make: Callable[[], list[Matrix]], limits: SolverLimits) -> None:
    """Arrays that have the standard's functions and refuse everything else, such as true times 1.0."""
    grams, sides = padded(make())
    found = leading_eigenpairs(array_api_strict.asarray(grams), sides, limits)
    assert_alike(found, leading_eigenpairs(grams, sides, limits))
    for row, gram, kind in zip(found, make(), MASKS, strict=True):
        if row["status"] == Status.PROVED:
            assert_true(row, gram, kind)


def test_torch_proof_refuses() -> None:
    gram = gram_of(uniform(np.random.default_rng(0), 150, 450, 0.1))
    for second, expected in ((1, Status.PROVED), (2, Status.MISSED)):
        grams, found, first = claim(gram, 0, second)
        assert proof_of(torch.from_numpy(grams), found, torch.from_numpy(first)) is expected


@pytest.mark.parametrize("as_array", [np.asarray, torch.from_numpy])
def test_no_factor_of_what_is_not_finite_or_not_positive(as_array: Callable[[Matrix], Any]) -> None:
    bad = [np.eye(4), np.diag([1.0, 1, -1, 1]), np.zeros((4, 4)), np.diag([1.0, np.inf, 1, 1]), np.eye(4)]
    bad[4] = bad[4].copy()
    bad[4][2, 1] = bad[4][1, 2] = np.nan
    assert list(power._have_factors(as_array(np.stack([*bad, np.eye(4)])))) == [True, *[False] * 4, True]


# Batches -------------------------------------------------------------------------------------------------------------


def test_padded_sides() -> None:
    steps = [8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048]
    for side in range(1, 2049):
        assert padded_side(side) == next(step for step in steps if step >= side)


@given(sides=st.lists(st.one_of(st.integers(2, 40), st.integers(2, 5000)), max_size=60), budget=st.integers(1, 2**34))
def test_batches_hold_each_problem_once_and_fit(sides: list[int], budget: int) -> None:
    groups = list(batches(sides, budget))
    assert sorted(index for group in groups for index in group) == list(range(len(sides)))
    for group in groups:
        assert len({padded_side(sides[index]) for index in group}) == 1
        side = padded_side(sides[group[0]])
        assert len(group) == 1 or power.COPIES * 8 * len(group) * side**2 <= budget
        assert sorted(group) == group
    for group, later in pairwise(groups):
        side, next_side = padded_side(sides[group[0]]), padded_side(sides[later[0]])
        # A batch ends where the next problem would not fit.
        assert side < next_side or power.COPIES * 8 * (len(group) + 1) * side**2 > budget


@pytest.mark.parametrize("deflate", [False, True])
def test_a_batch_keeps_to_its_memory(deflate: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """At worst: spaces grow to their full width, and every problem is searched for a second time."""
    if deflate:
        monkeypatch.setattr(power, "_have_factors", lambda matrices: np.zeros(len(matrices), bool))
    gram = np.diag(1 - 1e-5 * np.arange(128.0))
    grams, sides = padded([gram] * 8)
    tracemalloc.start()
    try:
        found = leading_eigenpairs(grams, sides, ITERATE)
        used = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found["products"].min() > 60
    print(used / grams.nbytes)
    assert used + grams.nbytes <= power.COPIES * grams.nbytes
