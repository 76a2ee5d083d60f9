"""`singular_values` and `ramanujan`: the engine for people with matrices and no networks."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from conftest import random_mask

from pai_cli.api.matrix import ramanujan, singular_values
from pai_cli.errors import ArrayError, NotFiniteError, PaiError, ParameterError, SolverError, UsageError
from pai_cli.spectral import matrices, sparse
from pai_cli.spectral.compiled import calls
from pai_cli.spectral.metrics import measure_layer

MASK = random_mask((24, 37), 0.4)
WEIGHTED = MASK * np.random.default_rng(1).random(MASK.shape)
SIGNED = MASK * np.random.default_rng(2).normal(size=MASK.shape)
KINDS = {"0/1": MASK.astype(np.float64), "weighted": WEIGHTED, "signed": SIGNED}


def check(found: Any, matrix: np.ndarray) -> None:
    """Both values lie within their own bounds of LAPACK's, which has an error itself."""
    expected = np.linalg.svd(np.asarray(matrix, dtype=np.float64), compute_uv=False)
    lapack = 1e-13 * expected[0]
    assert abs(found.sigma_1 - expected[0]) <= found.error_1 + lapack
    assert abs(found.sigma_2 - expected[1]) <= found.error_2 + lapack
    assert found.proved
    assert found.outcome == "proved"
    assert max(found.error_1, found.error_2) <= 1e-9 * found.sigma_1


# What is computed ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("turned", [False, True])
def test_values_of_the_matrix_itself(kind: str, turned: bool, engine: str) -> None:
    matrix = KINDS[kind].T if turned else KINDS[kind]
    found = singular_values(matrix)
    check(found, matrix)
    assert (found.solver == "direct") is (kind == "signed")


def test_signs_count() -> None:
    """[[1, 1], [1, -1]] has two values of sqrt 2; abs() of it has 2 and 0."""
    found = singular_values(np.array([[1.0, 1.0], [1.0, -1.0]]))
    assert (found.sigma_1, found.sigma_2) == pytest.approx((math.sqrt(2), math.sqrt(2)), abs=1e-14)
    found = singular_values(np.ones((2, 2)))
    assert (found.sigma_1, found.sigma_2, found.error_2) == (2.0, 0.0, 0.0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("solver", ["auto", "gram", "power", "direct"])
def test_each_solver_gives_the_same(kind: str, solver: str) -> None:
    if kind == "signed" and solver in ("gram", "power"):
        with pytest.raises(SolverError, match=f"solver='{solver}' rests on entries that are not negative"):
            singular_values(KINDS[kind], solver=solver)
        return
    check(singular_values(KINDS[kind], solver=solver), KINDS[kind])


def test_a_matrix_free_value_is_not_proved_unless_asked() -> None:
    pytest.importorskip("pai_cli.spectral.compiled._kernel")
    free = singular_values(MASK, solver="matrix-free")
    assert not free.proved
    assert "not proved" in free.outcome
    assert free.sigma_2 == pytest.approx(singular_values(MASK).sigma_2, rel=1e-8)
    with pytest.raises(UsageError, match="certify=True needs a Gram matrix, which solver=matrix-free does without"):
        singular_values(MASK, solver="matrix-free", certify=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "form", ["csr_array", "csc_array", "coo_array", "lil_array", "dok_array", "csr_matrix", "bsr_array"]
)
def test_sparse_matrices_are_the_same_matrix(kind: str, form: str, engine: str) -> None:
    dense = singular_values(KINDS[kind])
    found = singular_values(getattr(sp, form)(KINDS[kind]))
    check(found, KINDS[kind])
    if kind != "signed":  # without empty rows LAPACK takes another path
        assert found == dense


def test_sparse_booleans_and_integers() -> None:
    assert singular_values(sp.csr_array(MASK)) == singular_values(MASK)
    assert singular_values(sp.csr_array(MASK.astype(np.int8))) == singular_values(MASK)


def test_a_large_sparse_matrix_stays_sparse(monkeypatch: pytest.MonkeyPatch) -> None:
    """40,000 x 40,000 with a dense block of 30: nothing of the size of the whole is made."""
    at = np.arange(30) * 1000
    block = random_mask((30, 30), 0.5, seed=3)
    rows, columns = np.nonzero(block)
    large = sp.coo_array((np.ones(len(rows)), (at[rows], at[columns])), shape=(40_000, 40_000))
    for most in (900, 899):  # with bits, and as lists alone
        monkeypatch.setattr(sparse, "MOST_ENTRIES", most)
        check(singular_values(large), block)
        graph = ramanujan(large)
        assert (graph.rows, graph.columns, graph.kept) == (40_000, 40_000, int(block.sum()))
    monkeypatch.setattr(calls, "kernel", None)
    monkeypatch.setattr(sparse, "MOST_DENSE", 899)
    with pytest.raises(ArrayError, match="30 rows and 30 columns with entries, more than 899 places"):
        singular_values(large)


def test_lapack_takes_no_large_sparse_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pai_cli.spectral.compiled._kernel")
    monkeypatch.setattr(sparse, "MOST_DENSE", 100)
    check(singular_values(sp.csr_array(MASK)), MASK)
    with pytest.raises(ArrayError, match="too many for LAPACK, which takes no sparse matrix"):
        singular_values(sp.csr_array(MASK), solver="direct")


def test_a_large_signed_matrix_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrices, "SVD_SIDE", 23)
    for given in (SIGNED, sp.csr_array(SIGNED)):
        with pytest.raises(ArrayError, match="has negative entries, for which 24 x 37 is too large"):
            singular_values(given)


def test_explicit_zeros_are_no_entries() -> None:
    stored = sp.csr_array(WEIGHTED)
    stored.data[:5] = 0
    dense = stored.toarray()
    assert singular_values(stored) == singular_values(dense)
    plain = sp.csr_array(MASK.astype(np.float64))
    plain.data[:5] = 0
    assert ramanujan(plain).kept == int(MASK.sum()) - 5


def test_no_entry_at_all_is_two_values_of_0() -> None:
    for given in (np.zeros((6, 4)), sp.coo_array((6, 4)), np.zeros((6, 4), bool)):
        found = singular_values(given)
        assert (found.sigma_1, found.sigma_2, found.error_1, found.error_2) == (0.0, 0.0, 0.0, 0.0)
        assert found.proved


def test_rank_one_by_empty_rows_has_a_second_value_of_0() -> None:
    """The graph has one right vertex, the matrix six rows."""
    matrix = np.zeros((6, 4))
    matrix[2] = 3.0
    for given, first in ((matrix, 6.0), (sp.coo_array(matrix), 6.0), (matrix != 0, 2.0)):
        found = singular_values(given)
        assert found.sigma_2 == found.error_2 == 0.0
        assert found.sigma_1 == pytest.approx(first)


@pytest.mark.parametrize("shape", [(1, 7), (7, 1)])
def test_one_row_or_column_has_one_value(shape: tuple[int, int]) -> None:
    for sign in (1, -1):
        found = singular_values(np.full(shape, sign * 2.0))
        assert found.sigma_1 == pytest.approx(2 * math.sqrt(7), abs=found.error_1)
        assert (found.sigma_2, found.error_2, found.outcome) == (None, None, "fewer than two singular values")
    assert singular_values(np.zeros(shape)).sigma_1 == 0.0


def test_very_large_and_very_small_entries() -> None:
    for scale in (1e300, 1e-300, 1e-310):
        for matrix in (WEIGHTED, SIGNED):
            found = singular_values(matrix * scale)
            expected = singular_values(matrix)
            assert found.sigma_1 == pytest.approx(expected.sigma_1 * scale, rel=1e-9, abs=1e-322)
    for value in (1.7e308, -1.7e308):
        with pytest.raises(NotFiniteError, match="so large that"):
            singular_values(np.full((5, 5), value))


# What is taken as it is ----------------------------------------------------------------------------------------------


TAKEN: dict[str, Callable[[np.ndarray], Any]] = {
    "negative strides": lambda matrix: matrix[::-1, ::-1][::-1, ::-1],
    "not contiguous": lambda matrix: np.repeat(matrix, 2, axis=1)[:, ::2],
    "Fortran order": np.asfortranarray,
    "another byte order": lambda matrix: matrix.astype(">f8"),
    "a tensor": torch.from_numpy,
    "a tensor with a gradient": lambda matrix: torch.from_numpy(matrix).requires_grad_(),
    "a turned tensor": lambda matrix: torch.from_numpy(matrix.T.copy()).T,
    "a parameter": lambda matrix: torch.nn.Parameter(torch.from_numpy(matrix)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", TAKEN)
def test_any_way_to_hold_a_matrix(kind: str, how: str) -> None:
    expected = singular_values(KINDS[kind])
    found = singular_values(TAKEN[how](KINDS[kind]))
    assert (found.sigma_1, found.sigma_2) == pytest.approx((expected.sigma_1, expected.sigma_2), rel=1e-14)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_narrow_numbers_are_what_they_say(kind: str, dtype: torch.dtype) -> None:
    given = torch.from_numpy(KINDS[kind]).to(dtype)
    check(singular_values(given), given.to(torch.float64).numpy())


def test_float16_and_integers_of_numpy() -> None:
    check(singular_values(SIGNED.astype(np.float16)), SIGNED.astype(np.float16))
    whole = np.round(SIGNED * 10).astype(np.int32)
    check(singular_values(whole), whole)
    check(singular_values(np.abs(whole).astype(np.uint8)), np.abs(whole))


def test_a_map_that_may_only_be_read(tmp_path: Path) -> None:
    np.save(tmp_path / "m.npy", SIGNED)
    mapped = np.load(tmp_path / "m.npy", mmap_mode="r")
    check(singular_values(mapped), SIGNED)
    for kind in ("0/1", "weighted"):
        np.save(tmp_path / "k.npy", KINDS[kind])
        check(singular_values(np.load(tmp_path / "k.npy", mmap_mode="r")), KINDS[kind])


def test_what_is_given_is_not_changed() -> None:
    for matrix in KINDS.values():
        for given in (matrix.copy(), sp.csr_array(matrix), sp.coo_array(matrix)):
            before = given.copy()
            singular_values(given)
            assert (given != before).sum() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_tensor_stays_a_tensor(kind: str) -> None:
    """As on a GPU: the engine works on what it is given."""
    pair = matrices.matrix_pair(torch.from_numpy(KINDS[kind]))
    expected = singular_values(KINDS[kind])
    assert (pair.sigma_1, pair.sigma_2) == pytest.approx((expected.sigma_1, expected.sigma_2), rel=1e-12)


# What is refused -----------------------------------------------------------------------------------------------------


def spoilt(value: Any) -> np.ndarray:
    matrix = WEIGHTED.copy()
    matrix[2, 3] = value
    return matrix


def twice() -> sp.coo_array:
    return sp.coo_array(([1.0, 1.0, 1.0], ([0, 2, 2], [1, 3, 3])), shape=(4, 5))


def out_of_place() -> sp.csr_array:
    damaged = sp.csr_array(MASK.astype(np.float64))
    damaged.indices = damaged.indices + 30
    return damaged


WRONG: list[tuple[str, Callable[[], Any], type[PaiError], str]] = [
    (
        "NaN",
        lambda: spoilt(np.nan),
        NotFiniteError,
        "the matrix has NaN or infinite values, the first nan at index (2, 3)",
    ),
    ("inf", lambda: spoilt(-np.inf), NotFiniteError, "the first -inf at index (2, 3)"),
    ("NaN, sparse", lambda: sp.coo_array(spoilt(np.nan)), NotFiniteError, "the first nan at index (2, 3)"),
    ("NaN alone", lambda: np.full((8, 8), np.nan), NotFiniteError, "the first nan at index (0, 0)"),
    ("0-d", lambda: np.array(1.0), ArrayError, "needs a matrix, not shape ()"),
    ("1-d", lambda: np.ones(5), ArrayError, "needs a matrix, not shape (5,)"),
    ("3-d", lambda: np.ones((2, 3, 4)), ArrayError, "needs a matrix, not shape (2, 3, 4)"),
    ("1-d, sparse", lambda: sp.coo_array(np.ones(5)), ArrayError, "needs a matrix, not shape (5,)"),
    ("no rows", lambda: np.zeros((0, 5)), ArrayError, "shape (0, 5) has no entry"),
    ("no columns", lambda: torch.zeros(5, 0), ArrayError, "shape (5, 0) has no entry"),
    ("no rows, sparse", lambda: sp.csr_array((0, 5)), ArrayError, "shape (0, 5) has no entry"),
    ("objects", lambda: WEIGHTED.astype(object), ArrayError, "its entries are object, not real numbers"),
    ("complex", lambda: WEIGHTED.astype(complex), ArrayError, "its entries are complex128, not real numbers"),
    ("complex, sparse", lambda: sp.csr_array(WEIGHTED.astype(complex)), ArrayError, "are complex128, not real numbers"),
    ("text", lambda: WEIGHTED.astype("U8"), ArrayError, "its entries are <U8, not real numbers"),
    ("masked", lambda: np.ma.masked_equal(WEIGHTED, 0), ArrayError, "a masked array has entries without a value"),
    ("a list", lambda: [[1, 0], [0, 1]], ArrayError, "a list is neither a NumPy array nor a torch tensor"),
    ("nothing", lambda: None, ArrayError, "a NoneType is neither a NumPy array nor a torch tensor"),
    ("large integers", lambda: np.full((3, 3), 2**60), ArrayError, "an integer that float64 does not hold"),
    (
        "sparse torch",
        lambda: torch.eye(4).to_sparse(),
        ArrayError,
        "a sparse or nested tensor is not taken",
    ),
    ("meta", lambda: torch.ones(3, 3, device="meta"), ArrayError, "a tensor on the device meta has no values"),
    (
        "complex torch",
        lambda: torch.ones(3, 3, dtype=torch.complex64),
        ArrayError,
        "are torch.complex64, not real numbers",
    ),
    (
        "twice",
        twice,
        ArrayError,
        "has several entries at index (2, 3), which SciPy adds up; call sum_duplicates() first",
    ),
    ("twice, csr", lambda: sp.csr_array(([1, 1], [3, 3], [0, 0, 2]), shape=(2, 4)), ArrayError, "at index (1, 3)"),
    ("damaged", out_of_place, ArrayError, "a damaged csr_array"),
    ("too long", lambda: sp.coo_array((2**24, 3)), ArrayError, "a side of 16,777,216 vertices"),
]


@pytest.mark.parametrize("call", [singular_values, ramanujan])
@pytest.mark.parametrize(("make", "kind", "text"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_what_is_no_matrix_is_refused(call: Any, make: Any, kind: type[PaiError], text: str) -> None:
    with pytest.raises((ArrayError, NotFiniteError) if call is ramanujan else kind) as told:
        call(make())
    if call is singular_values:
        assert text in str(told.value)
    assert str(told.value).startswith("the matrix")


def test_duplicates_summed_are_taken() -> None:
    given = twice()
    given.sum_duplicates()
    check(singular_values(given), given.toarray())
    with pytest.raises(ArrayError, match=r"index \(2, 3\) is 2.0, neither 0 nor 1"):
        ramanujan(given)


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({"solver": "lanczos"}, "solver='lanczos': give one of auto, gram"),
        ({"certify": 1}, "certify=1: give True or False"),
        ({"device": "tpu"}, "device='tpu': give one of auto, cpu, cuda"),
    ],
)
def test_choices_that_are_none(asked: dict[str, Any], text: str) -> None:
    for call in (singular_values, ramanujan):
        with pytest.raises(ParameterError) as told:
            call(MASK, **asked)
        assert text in str(told.value)


# The graph's own numbers ---------------------------------------------------------------------------------------------


def test_a_graphs_numbers_are_those_of_a_layer(engine: str) -> None:
    expected = measure_layer(MASK)
    for given in (MASK, MASK.astype(np.int64), sp.csr_array(MASK), torch.from_numpy(MASK)):
        graph = ramanujan(given)
        assert {name: (one.value, one.error) for name, one in graph.items()} == {
            name: (one.value, one.error) for name, one in expected.measures.items() if name in graph
        }
        assert (graph.rows, graph.columns, graph.kept, graph.total) == (24, 37, int(MASK.sum()), 24 * 37)
        assert graph.components == expected.counts.components
    assert "lambda" not in graph
    assert "dr_imdb" in graph


def test_the_complete_graph_is_ramanujan() -> None:
    graph = ramanujan(np.ones((8, 8)))
    assert (graph["sigma_1"].value, graph["sigma_2"].value) == (8.0, 0.0)
    assert graph["dr"].value == pytest.approx(2 * math.sqrt(7))
    assert graph.d_L == graph.d_R == 8.0


def test_weights_are_no_edges() -> None:
    for given in (WEIGHTED, sp.csr_array(WEIGHTED)):
        with pytest.raises(ArrayError, match="neither 0 nor 1"):
            ramanujan(given)


def test_a_graph_shows_itself() -> None:
    graph = ramanujan(MASK)
    assert "sigma_1" in repr(graph)
    assert "24x37" in repr(graph)
    assert graph._repr_html_().startswith("<div")
    assert graph.to_dict()["dr"] == graph["dr"].value
    with pytest.raises(KeyError, match="no metric 'lambda'"):
        graph["lambda"]
