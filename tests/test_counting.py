"""How many singular values are above a number, by elimination: against LAPACK, where it ends, and what rests on it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
from graphs import EPS, KINDS, LARGER_KINDS, assert_agrees, biregular, even_cycle, projective_plane, svd, uniform, union

from pai_cli.api.matrix import singular_values
from pai_cli.spectral import counting, inertia, restarted, solvers, sparse
from pai_cli.spectral.compiled import calls
from pai_cli.spectral.compiled.calls import EdgeLists
from pai_cli.spectral.definite import definite_within, least_pair
from pai_cli.spectral.graph import BipartiteGraph
from pai_cli.spectral.inertia import Count, count_above, proved_at_most
from pai_cli.spectral.problems import Problems, edges_of
from pai_cli.spectral.result import Outcome
from pai_cli.spectral.singular import structure_pair, weighted_pair
from pai_cli.spectral.solvers import Solver, SolverOptions
from pai_cli.spectral.sparse import SparseGraph
from pai_cli.spectral.validation import sparse_entries

pytestmark = pytest.mark.skipif(not calls.available(), reason="elimination is in the compiled part")

WITHOUT_END = 2.0**52


def lists_of(matrix: np.ndarray) -> EdgeLists:
    columns = sp.csc_array(np.abs(matrix).astype(np.float64))
    columns.sort_indices()
    begin, neighbour = columns.indptr.astype(np.int64), columns.indices.astype(np.int32)
    return EdgeLists(begin, neighbour, columns.data, matrix.shape[0])


def every_kind(seed: int) -> list[tuple[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    masks = [(name, make(rng)) for name, make in (KINDS | LARGER_KINDS).items()]
    weighted = [(f"{name}, weighted", mask * rng.lognormal(0, 3, mask.shape)) for name, mask in masks]
    return [(name, one[:, one.any(axis=0)]) for name, one in masks + weighted if one.any()]


@pytest.mark.parametrize(("name", "matrix"), every_kind(0), ids=[name for name, _ in every_kind(0)])
def test_counts_are_those_of_lapack(name: str, matrix: np.ndarray) -> None:
    """At the values themselves, where an error of a bit would change the count, between them, and beside all."""
    scaled = matrix / matrix.max()
    values = np.array(svd(scaled))
    above = values[values > 1e-3 * values[0]]
    tried = [*above[:4], *(above[:4] * (1 + 1e-7)), *(above[:4] * (1 - 1e-7)), values[0] * 1.5, above[-1] * 0.7]
    rounding = 100 * max(matrix.shape) * EPS * values[0]  # of the values that are compared with
    lists = lists_of(scaled)
    for at in tried:
        found = count_above(lists, float(at), WITHOUT_END, rest=10_000)
        assert found is not None, name
        assert found.error < 1e-6 * values[0]
        most = int(np.count_nonzero(values > at - found.error - rounding))
        least = int(np.count_nonzero(values > at + found.error + rounding))
        assert min(least, 2) <= found.above <= most, (name, at)
        for told in (0, 1):
            proof = proved_at_most(lists, float(at), told)
            if isinstance(proof, Count):
                assert np.count_nonzero(values > at + proof.error + rounding) <= told, (name, at)


def test_an_error_bound_is_not_too_small() -> None:
    """The factors by themselves, in exact arithmetic: what was eliminated is that of a matrix no further than told."""
    mask = biregular(np.random.default_rng(4), 60, 60, 4)
    lists = lists_of(mask)
    values = np.array(svd(mask))
    for at in np.linspace(0.5, 3.9, 40):
        found = count_above(lists, float(at), WITHOUT_END)
        assert found is not None
        assert 0 < found.error < 1e-12
        assert found.above == min(2, np.count_nonzero(values > at))
        asked = {"most_rest": 64, "most_entries": WITHOUT_END, "most_work": WITHOUT_END}
        parts = calls.eliminate(lists, float(at), most_below=10**6, **asked)
        assert parts is not None
        assert parts.weight >= (at + 4) * (1 - 1e-12)  # |L| |D| |L^T| + |S| is no less than |M|
        assert inertia._moved(parts) >= (parts.updates + 3) * EPS / 2 * parts.weight


@pytest.mark.parametrize("rows", [3, 64, 255, 256, 257, 700])
def test_definite_or_not(rows: int) -> None:
    """By a matrix with known eigenvalues, just above 0 and just below; and with one below that is lifted."""
    rng = np.random.default_rng(rows)
    turn = np.linalg.qr(rng.standard_normal((rows, rows)))[0]
    for least, expected in ((1e-9, True), (-1e-9, False)):
        values = np.concatenate([[least], rng.uniform(0.5, 2, rows - 1)])
        matrix = (turn * values) @ turn.T
        found = definite_within((matrix + matrix.T) / 2)
        assert (found is not None) is expected
        if found is not None:
            assert 0 < found < 1e-10
        values[-1] = -3.0
        matrix = (turn * values) @ turn.T
        symmetric = (matrix + matrix.T) / 2
        assert definite_within(symmetric.copy()) is None
        value, vector = least_pair(symmetric)
        assert value == pytest.approx(-3.0, abs=1e-6)
        assert (definite_within(symmetric, vector * math.sqrt(6)) is not None) is expected


def test_a_dense_rest_is_proved(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random graph, of which elimination leaves most: the second value is proved, and a smaller one is not."""
    monkeypatch.setattr(inertia, "COUNTED_REST", 40)
    mask = biregular(np.random.default_rng(1), 300, 300, 6)
    lists, values = lists_of(mask), svd(mask)
    for above, expected in ((1e-8, True), (-1e-8, False)):
        found = proved_at_most(lists, values[1] + above, 1)
        assert isinstance(found, Count) is expected
        assert found is Outcome.MISSED or (isinstance(found, Count) and found.error < 1e-10)
    assert isinstance(proved_at_most(lists, values[0] + 1e-8, 0), Count)
    assert proved_at_most(lists, values[0] - 1e-8, 0) is Outcome.MISSED


def test_what_fills_up_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solvers, "PROOF_SIDE", 40)
    monkeypatch.setattr(inertia, "MOST_REST", 50)
    monkeypatch.setattr(inertia, "LEAST_ENTRIES", 0)
    matrix = biregular(np.random.default_rng(1), 300, 300, 6)
    pair = structure_pair(BipartiteGraph(matrix), SolverOptions(certify=True))
    assert pair.outcome is Outcome.TOO_FULL
    assert_agrees(replace(pair, outcome=Outcome.NOT_PROVED), svd(matrix))
    assert not singular_values(matrix, certify=True).proved
    assert "a factor of this graph fills" in singular_values(sp.csr_array(matrix), certify=True).outcome


def test_memory_and_work_have_an_end() -> None:
    lists = lists_of(biregular(np.random.default_rng(1), 300, 300, 6))
    asked = {"most_below": 1, "most_rest": 64}
    assert calls.eliminate(lists, 3.0, **asked, most_entries=2000, most_work=WITHOUT_END) is None
    assert calls.eliminate(lists, 3.0, **asked, most_entries=WITHOUT_END, most_work=1000) is None
    found = calls.eliminate(lists, 7.0, **asked, most_entries=WITHOUT_END, most_work=WITHOUT_END)
    assert found is not None
    assert found.rest is not None
    assert len(found.rest) <= 64
    assert np.array_equal(found.rest, found.rest.T)


@pytest.mark.parametrize("pairs", [4, 40, 3000])
def test_a_pivot_of_zero_waits_beside_a_weight_whose_square_is_zero(pairs: int) -> None:
    """Edges of weight 1, joined to a cycle by edges of weight 1e-170: at 1 every second pivot is 0."""
    cycle = np.eye(pairs) + 1e-170 * np.eye(pairs, k=1)
    cycle[-1, 0] = 1e-170
    lists = lists_of(cycle)
    for rest in (2, 512):
        found = count_above(lists, 1.0, WITHOUT_END, rest=rest)
        assert found is None or (math.isfinite(found.error) and found.error > 0)
    proof = proved_at_most(lists, 1.0, 1)
    assert not isinstance(proof, Count) or math.isfinite(proof.error)
    above = count_above(lists, 1.5, WITHOUT_END)
    assert above is not None
    assert above.above == 0


@pytest.fixture
def small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solvers, "PROOF_SIDE", 40)
    monkeypatch.setattr(counting, "SPARSE_GRAM", 1)


@pytest.mark.usefixtures("small_is_large")
@pytest.mark.parametrize("copies", [1, 2])
def test_certified_values_are_the_two_largest(copies: int) -> None:
    rng = np.random.default_rng(copies)
    mask = union(*[biregular(np.random.default_rng(7), 90, 60, 6) for _ in range(copies)])
    weights = np.exp(rng.normal(size=mask.shape))
    if copies == 2:
        weights[90:, 60:] = weights[:90, :60]
    graph = BipartiteGraph(mask, weights)
    for ask, expected in ((structure_pair, svd(mask)), (weighted_pair, svd(weights * mask))):
        assert ask(graph).outcome is Outcome.NOT_PROVED
        pair = ask(graph, SolverOptions(certify=True))
        assert pair.outcome is Outcome.PROVED
        assert pair.solver in ("matrix-free", "counting")
        assert_agrees(pair, expected)


@pytest.mark.usefixtures("small_is_large")
def test_a_value_that_the_iteration_missed_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search that would see a second copy is left out: a count tells, and counting finds it."""
    monkeypatch.setattr(SparseGraph, "components", 1)
    mask = union(*[even_cycle(60), even_cycle(60)])
    graph = SparseGraph(sparse_entries(sp.csc_array(mask)))
    pair = structure_pair(graph, SolverOptions(certify=True))
    assert pair.outcome is Outcome.PROVED
    assert_agrees(pair, svd(mask))
    assert pair.sigma_2 == pytest.approx(2.0, abs=1e-9)


@pytest.mark.usefixtures("small_is_large")
@pytest.mark.parametrize("weighted", [False, True])
def test_clusters_are_counted(monkeypatch: pytest.MonkeyPatch, weighted: bool) -> None:
    """A cycle's values stand closer together than an iteration of few products can tell."""
    for module in (solvers, counting):
        monkeypatch.setattr(module, "FEWEST_PRODUCTS", 20)
    half = 500
    matrix = even_cycle(half) * (0.75 if weighted else 1.0)
    graph = BipartiteGraph(matrix != 0, matrix)
    pair = (weighted_pair if weighted else structure_pair)(graph)
    assert pair.outcome is Outcome.PROVED
    assert pair.solver == "counting"
    scale = 0.75 if weighted else 1.0
    assert_agrees(pair, [2 * scale, 2 * scale * math.cos(math.pi / half)])


@pytest.mark.usefixtures("small_is_large")
def test_what_cannot_be_counted_goes_on_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "FEWEST_PRODUCTS", 8)
    monkeypatch.setattr(counting, "FEWEST_READ", 10.0)
    monkeypatch.setattr(counting, "LAPACK_SHARE", 0.0)
    mask = biregular(np.random.default_rng(5), 120, 120, 5)
    pair = structure_pair(BipartiteGraph(mask))
    assert pair.solver == "matrix-free"
    assert pair.outcome is Outcome.NOT_PROVED
    assert_agrees(pair, svd(mask))
    certified = structure_pair(BipartiteGraph(mask), SolverOptions(certify=True))
    assert certified.outcome is Outcome.PROVED


def test_a_chosen_solver_is_not_exchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solvers, "PROOF_SIDE", 40)
    pair = structure_pair(BipartiteGraph(even_cycle(500)), SolverOptions(solver=Solver.MATRIX_FREE, most_products=20))
    assert pair.outcome is Outcome.NOT_CONVERGED


@pytest.mark.parametrize("from_side", [10**9, 60], ids=["compiled", "few vectors"])
@pytest.mark.parametrize("certify", [False, True])
def test_lists_alone_give_the_same(from_side: int, certify: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs of which nothing but lists is kept, with the iteration that keeps few vectors and the other."""
    monkeypatch.setattr(sparse, "MOST_ENTRIES", 0)
    monkeypatch.setattr(restarted, "FROM_SIDE", from_side)
    monkeypatch.setattr(solvers, "PROOF_SIDE", 40)
    for number, (name, matrix) in enumerate(every_kind(1)):
        given = np.where(np.arange(matrix.shape[0])[:, None] % 5 == 4, 0, matrix) if number % 3 == 0 else matrix
        if not given.any() or min(given.shape) < 2:
            continue
        found = singular_values(sp.csc_array(given), certify=certify)
        assert found.sigma_1 is not None, name
        expected = svd(given)
        assert abs(found.sigma_1 - expected[0]) <= found.error_1 + 1e-11 * expected[0], name
        assert abs(found.sigma_2 - expected[1]) <= found.error_2 + 1e-11 * expected[0], name


def test_a_listed_graph_is_the_same_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    mask = union(uniform(rng, 40, 70, 0.1), uniform(rng, 20, 9, 0.3), projective_plane(3))
    entries = sparse_entries(sp.csc_array(mask))
    usual = SparseGraph(entries)
    monkeypatch.setattr(sparse, "MOST_ENTRIES", 0)
    listed = SparseGraph(entries)
    assert listed.listed
    assert listed.counts == usual.counts == BipartiteGraph(mask).counts
    for name in ("degree", "begin", "end", "n_R"):
        assert np.array_equal(getattr(listed.left_classes, name), getattr(usual.left_classes, name))
    begin, end = int(listed.left_classes.begin[1]), int(listed.left_classes.end[-1])
    part = Problems(listed, np.array([[begin, end]]), listed.left_classes.n_R[1:2])
    assert edges_of(part, 0).begin[-1] == listed.left_degrees[begin:end].sum()


@pytest.mark.parametrize("make", [np.ones((1, 9)), np.ones((9, 1)), np.eye(9), np.ones((4, 5)), np.zeros((3, 3))])
def test_closed_forms_of_lists(make: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse, "MOST_ENTRIES", 0)
    monkeypatch.setattr(sparse, "MOST_DENSE", 0)  # so that nothing is made whole
    for matrix in (make, make * 3.5):
        found = singular_values(sp.csc_array(matrix))
        expected = svd(matrix)
        assert found.sigma_1 == pytest.approx(expected[0], abs=1e-12)
        second = expected[1] if len(expected) > 1 else 0.0
        assert abs((found.sigma_2 or 0.0) - second) <= (found.error_2 or 0.0) + 1e-12


def test_wrong_arguments_end_before_elimination() -> None:
    lists = lists_of(even_cycle(5))
    asked = {"most_below": 1, "most_rest": 8, "most_entries": 1e6, "most_work": 1e9}
    for wrong in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="limits or out"):
            calls.eliminate(lists, wrong, **asked)
    with pytest.raises(ValueError, match="limits or out"):
        calls.eliminate(lists, 1.0, **(asked | {"most_rest": 2**20}))
    with pytest.raises(ValueError, match="a right vertex that is not there"):
        calls.eliminate(replace(lists, right=2), 1.0, **asked)
