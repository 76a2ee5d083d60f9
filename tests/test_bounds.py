"""What evidence is worth: rows of the table made by hand, from matrices whose eigenvalues are known exactly and vectors
that are off by as much as one likes. Whatever the row claims truthfully, the bounds must hold.
"""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from graphs import EPS, Matrix, Rng, svd
from hypothesis import given
from hypothesis import strategies as st

from pai_cli.spectral.bounds import OUTCOMES, pairs_of
from pai_cli.spectral.direct import forming_error
from pai_cli.spectral.result import Outcome, Pairs, root_interval, root_intervals
from pai_cli.spectral.solver_table import EIGENPAIR, Eigenpairs, Status, shift_for

TOLERANCE = 1e-9


# Eigenvalues, whole numbers so that the matrix below is exact; what is not given is 0.
SPECTRA: dict[str, list[int]] = {
    "apart": [900, 100, 40, 20, 9, 4, 1],
    "bulk edge": [900, 401, 400, 399, 398, 397, 396],
    "close first": [900, 899, 100, 50],
    "double first": [900, 900, 100, 50],
    "triple first": [900, 900, 900, 50],
    "double second": [900, 100, 100, 50],
    "all equal": [9] * 16,
    "rank one": [900],
    "rank two": [900, 1],
    "tiny second": [2**30, 1, 1],
    "plane": [1024, *[31] * 15],
}

PERTURBATIONS = (0.0, 1e-15, 1e-12, 1e-9, 1e-7, 1e-5, 1e-3, 0.03, 0.3)


def exact_matrix(values: list[int], side: int) -> tuple[Matrix, Matrix]:
    """A full matrix with exactly these eigenvalues, and its exact eigenvectors (columns): H D H, H the reflection
    I - (2/n) J. For n a power of two and whole numbers no entry needs rounding.
    """
    assert side & (side - 1) == 0
    diagonal = np.zeros(side)
    diagonal[: min(len(values), side)] = values[:side]
    mean = diagonal.sum() / side
    reflection = np.eye(side) - 2 / side
    matrix = np.diag(diagonal) - 2 / side * (diagonal[:, None] + diagonal[None, :]) + 4 / side * mean
    assert (matrix @ reflection == reflection * diagonal).all()  # so it is exact
    return matrix, reflection


def ritz(matrix: Matrix, vectors: Matrix) -> tuple[Matrix, Matrix, Matrix]:
    """Rayleigh-Ritz as the solvers do it last: values, residuals, vectors (columns), the larger value first."""
    vectors = np.linalg.qr(np.linalg.qr(vectors)[0])[0]
    values, turn = np.linalg.eigh(vectors.T @ matrix @ vectors)
    values, vectors = values[::-1], vectors @ turn[:, ::-1]
    return values, np.linalg.norm(matrix @ vectors - vectors * values, axis=0), vectors


def row_of(matrix: Matrix, vectors: Matrix, status: int, tolerance: float = TOLERANCE) -> Eigenpairs:
    """The row that a solver would write for two vectors near the first ones.

    For a proof the shift is raised until there is a factor, so that the claim is true whatever the vectors are.
    """
    row = np.zeros(1, dtype=EIGENPAIR)
    side = len(matrix)
    values, residuals, vectors = ritz(matrix, vectors)
    row["status"], row["side"], row["products"] = status, side, 7
    row["value"], row["residual"] = np.maximum(values, 0.0), residuals
    row["frobenius"] = np.linalg.norm(matrix)
    if status is Status.PROVED:
        shift = float(shift_for(row["value"][0, 0], row["value"][0, 1], side, tolerance))
        while True:
            proof = np.eye(side) * shift + row["value"][0, 0] * np.outer(vectors[:, 0], vectors[:, 0]) - matrix
            if has_factor(proof):
                break
            shift = shift * 1.1 + 1e-12
        row["shift"], row["trace"] = shift, np.trace(proof)
    return row


def has_factor(matrix: Matrix) -> bool:
    try:
        np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        return False
    return True


def perturbed(rng: Rng, vectors: Matrix, size: float) -> Matrix:
    noise = rng.normal(size=vectors.shape)
    return vectors + size * noise / np.linalg.norm(noise, axis=0)


def assert_inside(pairs: Pairs, first: float, second: float, note: object = "") -> None:
    for value, error, true in ((pairs.sigma_1, pairs.error_1, first), (pairs.sigma_2, pairs.error_2, second)):
        assert abs(value[0] - true) <= error[0], f"{note}: {value[0]!r} +- {error[0]!r}, true {true!r}"


# With a proof ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [4, 16, 64])
@pytest.mark.parametrize("kind", SPECTRA)
def test_proved_values_are_within_their_bounds(kind: str, side: int) -> None:
    matrix, exact = exact_matrix(SPECTRA[kind], side)
    first, second = (math.sqrt(value) for value in [*SPECTRA[kind], 0][:2])
    for size, seed in product(PERTURBATIONS, range(3)):
        row = row_of(matrix, perturbed(np.random.default_rng(seed), exact[:, :2], size), Status.PROVED)
        pairs = pairs_of(row, 0.0)
        assert_inside(pairs, first, second, f"off by {size}, seed {seed}")
        assert pairs.outcome == [Outcome.PROVED]
        assert (pairs.solver, pairs.products.tolist()) == (["power"], [7])
        if size <= 1e-9 and second > 1e-3 * first:  # nearly exact vectors, so the bound is nearly what was asked
            assert max(pairs.error_1[0], pairs.error_2[0]) <= TOLERANCE * first


@pytest.mark.parametrize("side", [8, 32])
@pytest.mark.parametrize("kind", SPECTRA)
def test_a_proof_holds_for_any_vectors_whatever(kind: str, side: int) -> None:
    """Not near the first two eigenvectors: others, mixtures, noise. The shift at which there is a factor knows."""
    matrix, exact = exact_matrix(SPECTRA[kind], side)
    first, second = (math.sqrt(value) for value in [*SPECTRA[kind], 0][:2])
    rng = np.random.default_rng(0)
    choices = [exact[:, [i, j]] for i, j in product(range(4), repeat=2) if i != j]
    choices += [
        np.stack([exact[:, 0] + exact[:, 1], exact[:, 2]], axis=1),
        np.stack([exact[:, 0], exact[:, 2]], axis=1),
    ]
    choices += [rng.normal(size=(side, 2)) for _ in range(8)]
    for k, vectors in enumerate(choices):
        assert_inside(pairs_of(row_of(matrix, vectors, Status.PROVED), 0.0), first, second, k)


@given(
    st.lists(st.integers(0, 10**6), min_size=2, max_size=16),
    st.sampled_from([2, 4, 8, 16, 32]),
    st.floats(-16, 0),
    st.integers(0, 2**32),
)
def test_proved_values_of_any_spectrum(values: list[int], side: int, exponent: float, seed: int) -> None:
    values = sorted(values, reverse=True)
    matrix, exact = exact_matrix(values, side)
    row = row_of(matrix, perturbed(np.random.default_rng(seed), exact[:, :2], 10**exponent), Status.PROVED)
    assert_inside(pairs_of(row, 0.0), math.sqrt(values[0]), math.sqrt(values[1]))


def test_a_bound_on_the_second_eigenvalue_alone_would_not_bound_the_first() -> None:
    """v halfway between two eigenvectors: its value is far under the first, and `shift` no bound on that."""
    matrix, exact = exact_matrix([900, 100, 50], 8)
    row = row_of(matrix, np.stack([exact[:, 0] + exact[:, 1], exact[:, 2]], axis=1), Status.PROVED)
    assert row["value"][0, 0] == pytest.approx(500)
    assert row["shift"][0] < 900
    assert_inside(pairs_of(row, 0.0), 30.0, 10.0)


@pytest.mark.parametrize("name", ["residual", "shift", "trace", "frobenius"])
def test_worse_evidence_widens_a_bound(name: str) -> None:
    matrix, exact = exact_matrix(SPECTRA["apart"], 16)
    row = row_of(matrix, perturbed(np.random.default_rng(0), exact[:, :2], 1e-6), Status.PROVED)
    worse = row.copy()
    worse[name] *= 1e6 if name == "frobenius" else 1e3 if name == "trace" else 2.0
    before, after = pairs_of(row, 0.0), pairs_of(worse, 0.0)
    changed = {"residual": "error_1", "shift": "error_2", "trace": "error_2", "frobenius": "error_1"}[name]
    assert getattr(after, changed)[0] > getattr(before, changed)[0]
    assert (after.sigma_1[0], after.sigma_2[0]) == (before.sigma_1[0], before.sigma_2[0])


def test_the_factor_that_was_seen_is_of_a_matrix_nearby() -> None:
    """Rounding may let a matrix through that has no factor: singular here, and found by halving to what is just refused."""
    side = 64
    matrix, exact = exact_matrix(SPECTRA["bulk edge"], side)
    rng, least = np.random.default_rng(0), math.inf
    for _ in range(8):
        row = row_of(matrix, perturbed(rng, exact[:, :2], 1e-14), Status.PROVED)
        vector = ritz(matrix, perturbed(rng, exact[:, :2], 1e-14))[2][:, 0]
        low, high = 400.0, 402.0
        for _ in range(60):
            middle = (low + high) / 2
            proof = np.eye(side) * middle + row["value"][0, 0] * np.outer(vector, vector) - matrix
            low, high = (low, middle) if has_factor(proof) else (middle, high)
        row["shift"], row["trace"] = high, high * side + row["value"][0, 0] - np.trace(matrix)
        row["value"][0, 1] = high  # nothing to spare above it
        pairs = pairs_of(row, 0.0)
        assert math.sqrt(401) <= pairs.sigma_2[0] + pairs.error_2[0]
        least = min(least, high)
    assert least <= 401 + 1e-9


# Without a proof ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [4, 16, 64])
@pytest.mark.parametrize("kind", SPECTRA)
def test_a_residual_says_that_an_eigenvalue_is_near(kind: str, side: int) -> None:
    matrix, exact = exact_matrix(SPECTRA[kind], side)
    sigma = np.sqrt([*SPECTRA[kind][:side], *[0] * (side - len(SPECTRA[kind]))])
    for size, seed, columns in product(PERTURBATIONS, range(2), ([0, 1], [0, 2], [1, 2], [2, 3])):
        vectors = perturbed(np.random.default_rng(seed), exact[:, columns], size)
        pairs = pairs_of(row_of(matrix, vectors, Status.NOT_ASKED), 0.0, 1)
        for value, error in ((pairs.sigma_1[0], pairs.error_1[0]), (pairs.sigma_2[0], pairs.error_2[0])):
            assert np.abs(sigma - value).min() <= error, (size, seed, columns)
        assert pairs.outcome == [Outcome.NOT_PROVED]
        assert pairs.solver == ["matrix-free"]
        if size == 0 and columns == [0, 1] and kind in ("apart", "bulk edge", "close first", "double second"):
            assert max(pairs.error_1[0], pairs.error_2[0]) <= 1e-12 * sigma[0]


def test_a_residual_bound_is_no_wider_than_the_residual() -> None:
    matrix, exact = exact_matrix(SPECTRA["apart"], 16)
    row = row_of(matrix, perturbed(np.random.default_rng(0), exact[:, :2], 1e-5), Status.NOT_ASKED)
    pairs = pairs_of(row, 0.0)
    for value, error, residual in zip(
        (pairs.sigma_1[0], pairs.sigma_2[0]), (pairs.error_1[0], pairs.error_2[0]), row["residual"][0], strict=True
    ):
        assert error == pytest.approx(residual / (2 * value), rel=1e-3)


# All values --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [2, 4, 16, 64])
@pytest.mark.parametrize("kind", SPECTRA)
def test_all_values_by_lapack(kind: str, side: int) -> None:
    matrix, _ = exact_matrix(SPECTRA[kind], side)
    values = np.linalg.eigvalsh(matrix)[::-1]
    pairs = pairs_of(all_values(values[:2], side), 0.0)
    assert_inside(pairs, *(math.sqrt(value) for value in [*SPECTRA[kind], 0][:2]))
    assert (pairs.outcome, pairs.solver) == ([Outcome.PROVED], ["gram"])


def all_values(values: Matrix | list[float], side: int) -> Eigenpairs:
    row = np.zeros(1, dtype=EIGENPAIR)
    row["status"], row["side"], row["value"] = Status.ALL_VALUES, side, values
    return row


@pytest.mark.parametrize("second", [900.0, 100.0, 1.0, 1e-6, 0.0])
@pytest.mark.parametrize("side", [2, 32, 640])
def test_all_values_may_be_off_by_the_backward_error_and_no_more(side: int, second: float) -> None:
    backward = (2 * side + 10) * EPS * 900
    for sign in (-0.999, 0.999):
        pairs = pairs_of(all_values([900 + sign * backward, max(second + sign * backward, -backward)], side), 0.0)
        assert_inside(pairs, 30.0, math.sqrt(second))
    pairs = pairs_of(all_values([900.0, second], side), 0.0)
    expected = math.sqrt(second + backward) - math.sqrt(max(second, 0))
    assert pairs.error_2[0] <= 1.01 * max(expected, math.sqrt(second) - math.sqrt(max(second - backward, 0))) + 60 * EPS


# The Gram matrix's own error ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("forming", [1e-12, 1e-8, 1e-4])
def test_a_gram_matrix_that_is_off_is_allowed_for(forming: float) -> None:
    """Every entry off by its share, at random and all in one direction, as a sum of rounded products may be."""
    worst = 0.0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        weights = rng.uniform(0, 1, (16, 30)) * (rng.random((16, 30)) < 0.5)
        sigma = svd(weights)
        noise = rng.uniform(-1, 1, (16, 16)) if seed % 3 else np.full((16, 16), 1.0 if seed % 2 else -1.0)
        noise = (noise + noise.T) / 2
        matrix = (weights @ weights.T) * (1 + 0.99 * forming * noise)
        values, vectors = np.linalg.eigh(matrix)
        for status in (Status.PROVED, Status.ALL_VALUES, Status.NOT_ASKED):
            row = (
                all_values(values[:-3:-1], 16)
                if status is Status.ALL_VALUES
                else row_of(matrix, vectors[:, [-1, -2]], status)
            )
            pairs = pairs_of(row, forming)
            assert_inside(pairs, sigma[0], sigma[1], f"status {status}, seed {seed}")
            worst = max(worst, abs(pairs.sigma_1[0] - sigma[0]) / pairs.error_1[0])
    assert worst > 0.4  # a bound that is not far from what can happen, so less would not do


@pytest.mark.parametrize("shared", [1, 10, 1000, 10**6])
def test_forming_error_covers_what_summing_rounds(shared: int) -> None:
    assert forming_error(shared) >= shared * EPS / 2
    assert forming_error(shared) <= 1.01 * shared * EPS
    rng = np.random.default_rng(shared)
    factor = rng.random((2, min(shared, 5000)))
    exact = [[math.fsum(a * b for a, b in zip(x, y, strict=True)) for x in factor] for y in factor]
    assert np.abs(factor @ factor.T - exact).max() <= forming_error(factor.shape[1]) * np.max(exact)


# The table ---------------------------------------------------------------------------------------------------------


def test_every_status_has_its_outcome() -> None:
    every = {number for name, number in vars(Status).items() if name.isupper()}
    assert set(OUTCOMES) == every - {Status.NO_MEMORY}
    answered = {status for status in OUTCOMES if OUTCOMES[status] in (Outcome.PROVED, Outcome.NOT_PROVED)}
    assert answered == {Status.ALL_VALUES, Status.PROVED, Status.NOT_ASKED, Status.BOUNDED}


@pytest.mark.parametrize("status", [Status.MISSED, Status.NOT_CONVERGED])
def test_what_is_not_known_has_no_value(status: int) -> None:
    matrix, exact = exact_matrix(SPECTRA["apart"], 8)
    row = row_of(matrix, exact[:, :2], Status.PROVED)
    row["status"] = status
    pairs = pairs_of(row, 0.0)
    assert all(math.isnan(column[0]) for column in (pairs.sigma_1, pairs.sigma_2, pairs.error_1, pairs.error_2))
    assert pairs.outcome == [OUTCOMES[status]]
    assert pairs[0].sigma_1 is pairs[0].sigma_2_error is None
    assert pairs.products.tolist() == [7]


def test_rows_of_all_kinds_together_are_what_they_are_alone() -> None:
    rng, rows = np.random.default_rng(0), []
    for k, kind in enumerate(SPECTRA):
        matrix, exact = exact_matrix(SPECTRA[kind], 16)
        vectors = perturbed(rng, exact[:, :2], 1e-6)
        rows += [row_of(matrix, vectors, Status.PROVED), row_of(matrix, vectors, Status.NOT_ASKED)]
        rows += [all_values(np.linalg.eigvalsh(matrix)[:-3:-1], 16), row_of(matrix, vectors, Status.NOT_CONVERGED)]
        rows[-1]["status"] = (Status.NOT_CONVERGED, Status.MISSED)[k % 2]
    table = np.concatenate(rng.permutation(np.array(rows)))
    for forming in (0.0, 1e-13):
        together = pairs_of(table, forming)
        assert len(together) == len(table) == 4 * len(SPECTRA)
        for k in range(len(table)):
            assert together[k] == pairs_of(table[k : k + 1], forming)[0]


def test_no_rows_no_pairs() -> None:
    assert len(pairs_of(np.zeros(0, dtype=EIGENPAIR), 0.0)) == 0


def test_a_name_for_each_way() -> None:
    table = np.zeros(4, dtype=EIGENPAIR)
    table["status"] = [Status.ALL_VALUES, Status.PROVED, Status.NOT_ASKED, Status.NOT_CONVERGED]
    table["side"] = [4, 8, 9, 9]
    assert pairs_of(table, 0.0, 8).solver == ["gram", "power", "matrix-free", "matrix-free"]
    assert pairs_of(table, 0.0).solver == ["gram", "power", "power", "power"]


def test_rounding_below_0_is_0() -> None:
    pairs = pairs_of(all_values([4.0, -1e-17], 8), 0.0)
    assert pairs.sigma_2[0] == 0.0
    assert 0 < pairs.error_2[0] < 1e-6
    nothing = pairs_of(all_values([0.0, 0.0], 8), 0.0)
    assert [column[0] for column in (nothing.sigma_1, nothing.error_1, nothing.sigma_2, nothing.error_2)] == [
        0,
        0,
        0,
        0,
    ]


# Roots -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "value", "high"), [(3.9, 4.0, 4.2), (3.0, 4.0, 4.1), (-1e-9, 0.0, 1e-8), (-1e-9, 1e-12, 1e-8), (4, 4, 4)]
)
def test_root_interval_covers_the_root_of_everything_inside(low: float, value: float, high: float) -> None:
    root, error = root_interval(low, value, high)
    for inside in np.linspace(max(low, 0.0), high, 11):
        assert abs(math.sqrt(inside) - root) <= error
    assert error <= 1.01 * max(math.sqrt(high) - root, root - math.sqrt(max(low, 0.0))) + 4 * EPS


@given(st.lists(st.tuples(st.floats(-1, 1e6), st.floats(0, 1e3), st.floats(0, 1e3)), min_size=1, max_size=20))
def test_roots_of_many_are_the_roots_of_each(intervals: list[tuple[float, float, float]]) -> None:
    value, below, above = np.array(intervals).T
    roots, errors = root_intervals(value - below, value, value + above)
    for k in range(len(intervals)):
        assert (roots[k], errors[k]) == root_interval(value[k] - below[k], value[k], value[k] + above[k])
        for inside in (value[k] - below[k], value[k], value[k] + above[k]):
            assert abs(math.sqrt(max(inside, 0.0)) - roots[k]) <= errors[k]
