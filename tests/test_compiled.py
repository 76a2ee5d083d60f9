"""The compiled part by itself: bits, edges, components, Gram matrices, and that wrong arguments end before it."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace

import numpy as np
import pytest
from conftest import ROOT
from graphs import (
    EPS,
    KINDS,
    LARGER_KINDS,
    Mask,
    Matrix,
    Rng,
    even_cycle,
    projective_plane,
    rank_two,
    reference_rounding,
    shuffled,
    skewed,
    svd,
    uniform,
    union,
    with_isolated,
)
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from pai_cli.spectral.compiled import calls
from pai_cli.spectral.compiled.calls import EdgeLists
from pai_cli.spectral.graph import BipartiteGraph
from pai_cli.spectral.solver_table import EIGENPAIR, Eigenpairs, SolverLimits, Status, shift_for

pytestmark = pytest.mark.skipif(
    not calls.available(), reason="the compiled part of the engine is not built: installed without a C compiler"
)

LIMITS = SolverLimits(tolerance=1e-9, most_products=1200, direct_side=32, proof_side=4096, few_edges=0.07)
ALL_VALUES = SolverLimits(1e-9, 1200, 4096, 4096)
ITERATE = SolverLimits(1e-9, 1200, 3, 4096)
# A Gram matrix that is given is iterated; else tables, or lists up to 0 edges.
WITHOUT_PROOF = SolverLimits(1e-9, 1200, 3, 3)
BY_TABLES = SolverLimits(1e-9, 1200, 3, 3, few_edges=0.0)
BY_LISTS = SolverLimits(1e-9, 1200, 3, 3, few_edges=1.0)

MASKS = arrays(bool, st.tuples(st.integers(0, 150), st.integers(0, 150)))


def unpacked(bits: np.ndarray, rows: int) -> Mask:
    """The mask that bits are of, and nothing beyond its rows."""
    if bits.size == 0:
        return np.zeros((rows, len(bits)), dtype=bool)
    entries = np.unpackbits(bits.view(np.uint8).reshape(len(bits), -1), axis=1, bitorder="little").astype(bool)
    assert not entries[:, rows:].any()
    return entries[:, :rows].T


def live(mask: Mask) -> Mask:
    """Without the columns that have no edge, as the solvers ask."""
    return mask[:, mask.any(axis=0)]


def pack_columns(mask: Mask) -> np.ndarray:
    """Columns as rows of bits, all of them, in their order."""
    rows, columns = mask.shape
    bits = np.empty((-(-columns // 64) * 64, -(-rows // 64)), dtype=np.uint64)
    degrees = np.zeros(rows, dtype=np.int64)
    if mask.size:
        calls.kernel.pack(np.ascontiguousarray(mask).view(np.uint8), bits, degrees)
    assert degrees.tolist() == np.count_nonzero(mask, axis=1).tolist()
    return bits[:columns]


def packed(mask: Mask) -> np.ndarray:
    return np.ascontiguousarray(pack_columns(live(mask)))


def everything(rows: int) -> np.ndarray:
    return np.array([[0, rows]])


def bytes_of(found: Eigenpairs) -> bytes:
    return np.ascontiguousarray(found).tobytes()


# The layout that C and Python share --------------------------------------------------------------------------------

HEADER = (ROOT / "pai_cli" / "spectral" / "compiled" / "kernel.h").read_text(encoding="utf-8")


def members_of(structure: str) -> list[str]:
    """Names of a structure's members, in order; an array's with its size, as value[2]."""
    (body,) = re.findall(r"typedef struct \{([^}]*)\} " + structure + ";", HEADER)
    body = re.sub(r"/\*.*?\*/", "", body, flags=re.DOTALL)
    declared = [line.strip() for line in body.split(";") if line.strip()]
    assert all(line.startswith("double ") for line in declared)
    return [name.strip() for line in declared for name in line.removeprefix("double ").split(",")]


def test_a_row_of_the_table_is_what_c_writes() -> None:
    names = [
        name if EIGENPAIR[name].shape == () else f"{name}[{EIGENPAIR[name].shape[0]}]" for name in EIGENPAIR.names or ()
    ]
    assert names == members_of("found_t")
    assert all(EIGENPAIR[name].base == np.float64 for name in EIGENPAIR.names or ())
    assert EIGENPAIR.itemsize == 8 * 10
    assert EIGENPAIR.itemsize == sum(EIGENPAIR[name].itemsize for name in EIGENPAIR.names or ())  # no gaps


def test_limits_are_what_c_reads() -> None:
    names = [field.name.replace("most_products", "most") for field in fields(SolverLimits)]
    assert names == members_of("limits_t")
    limits = SolverLimits(1.0, 2, 3, 4, 5.0, twice=True)
    assert limits.packed.tolist() == [1, 2, 3, 4, 5, 1]
    assert limits.packed.dtype == np.float64


def test_every_status_has_the_same_number_in_c() -> None:
    (names,) = re.findall(r"enum status \{([^}]*)\}", HEADER)
    ours = {name: number for name, number in vars(Status).items() if name.isupper()}
    assert {name.strip(): number for number, name in enumerate(names.split(","))} | {"BOUNDED": 6} == ours  # a device's
    assert {type(number) for number in ours.values()} == {int}  # whose attributes are no Python code


def test_every_number_of_a_row_arrives_where_it_belongs() -> None:
    """Each can be worked out again from the Gram matrix, so none may stand in another's place."""
    mask = live(uniform(np.random.default_rng(0), 50, 90, 0.2))
    gram = mask.astype(float) @ mask.T.astype(float)
    row = calls.solve_bits(packed(mask), everything(mask.shape[1]), LIMITS)[0]
    values = np.linalg.eigvalsh(gram)[::-1]
    assert (row["status"], row["side"]) == (Status.PROVED, 50)
    assert row["value"] == pytest.approx(values[:2], rel=1e-9)
    assert row["frobenius"] == pytest.approx(np.linalg.norm(gram), rel=1e-14)
    assert row["shift"] == pytest.approx(shift_for(*row["value"], 50, LIMITS.tolerance), rel=1e-15)
    assert row["trace"] == pytest.approx(50 * row["shift"] + row["value"][0] - np.trace(gram), rel=1e-12)
    assert (row["residual"] > 0).all()
    assert (row["residual"] < 1e-3 * values[0]).all()
    assert 5 < row["products"] <= 52


# Bits --------------------------------------------------------------------------------------------------------------


@given(MASKS)
def test_columns_become_rows_of_bits(mask: Mask) -> None:
    bits = pack_columns(mask)
    assert (bits.shape, bits.dtype) == ((mask.shape[1], -(-mask.shape[0] // 64)), np.uint64)
    assert (unpacked(bits, mask.shape[0]) == mask).all()


@pytest.mark.parametrize("rows", [1, 2, 63, 64, 65, 127, 128, 129, 191, 193])
def test_sides_around_whole_words(rows: int) -> None:
    for columns in (1, 7, 8, 9, 63, 64, 65, 127, 128, 129, 200):
        rng = np.random.default_rng(rows * 1000 + columns)
        for density in (0.0, 0.1, 0.5, 1.0):
            mask = uniform(rng, rows, columns, density)
            assert (unpacked(pack_columns(mask), rows) == mask).all(), columns


def test_booleans_of_any_byte() -> None:
    """A buffer that is read as booleans may hold any byte; each but 0 is true."""
    content = np.arange(256, dtype=np.uint8).repeat(3)
    content = np.random.default_rng(0).permutation(content).reshape(32, 24)
    assert (unpacked(pack_columns(content.view(np.bool_)), 32) == (content != 0)).all()
    for byte in range(1, 256):
        row = np.array([[0, byte, 0, 0, 0, 0, 0, byte, 0, byte]], dtype=np.uint8)
        assert (unpacked(pack_columns(row.view(np.bool_)), 1) == (row != 0)).all(), byte


def test_any_order_in_memory() -> None:
    mask = uniform(np.random.default_rng(0), 130, 75, 0.3)
    large = np.zeros((260, 225), dtype=bool)
    large[::2, ::3] = mask
    for same in (
        np.asfortranarray(mask),
        mask.T.copy().T,
        large[::2, ::3],
        mask[::-1].copy()[::-1],
        mask[:, ::-1][:, ::-1],
    ):
        assert (unpacked(pack_columns(same), 130) == mask).all()
    mask.flags.writeable = False
    assert (unpacked(pack_columns(mask), 130) == mask).all()


@given(MASKS)
def test_columns_with_an_edge_are_sorted_by_degree(mask: Mask) -> None:
    bits, columns, left, right = calls.arrange(mask)
    degrees = mask.sum(axis=0)
    order = np.argsort(degrees, kind="stable")
    assert columns.tolist() == order[degrees[order] > 0].tolist()
    assert left.tolist() == degrees[columns].tolist()
    assert right.tolist() == mask.sum(axis=1).tolist()
    assert (unpacked(bits, mask.shape[0]) == mask[:, columns]).all()


# Components and edges ----------------------------------------------------------------------------------------------


def components_by_scipy(mask: Mask) -> int:
    row, column = np.nonzero(mask)
    side, isolated = sum(mask.shape), int((~mask.any(axis=0)).sum() + (~mask.any(axis=1)).sum())
    graph = csr_array((np.ones(len(row)), (row, column + len(mask))), shape=(side, side))
    return int(connected_components(graph, directed=False)[0]) - isolated


@pytest.mark.parametrize("kind", KINDS | LARGER_KINDS)
def test_components_as_scipy_counts_them(kind: str) -> None:
    for seed in range(8):  # x 27 kinds
        rng = np.random.default_rng(5000 + seed)
        mask = live((KINDS | LARGER_KINDS)[kind](rng))
        for same in (mask, shuffled(rng, mask)):
            if same.size:
                assert calls.component_count(packed(same)) == components_by_scipy(same), seed


@given(st.integers(1, 300), st.integers(1, 300), st.floats(0, 3), st.integers(0, 2**32))
def test_components_of_few_edges(rows: int, columns: int, degree: float, seed: int) -> None:
    """Around one edge a vertex there are components of every size."""
    mask = live(uniform(np.random.default_rng(seed), rows, columns, min(1.0, degree / rows)))
    expected = components_by_scipy(mask) if mask.size else 0
    assert calls.component_count(packed(mask)) == expected


@pytest.mark.parametrize("length", [2, 63, 64, 65, 300])
def test_components_of_long_paths(length: int) -> None:
    """The farthest that a set of neighbours can be from all it will grow to, in both directions."""
    path = even_cycle(length)[:-1]
    for mask in (path, path[::-1], path[:, ::-1], shuffled(np.random.default_rng(0), path)):
        assert calls.component_count(packed(mask)) == 1
        assert calls.component_count(packed(union(mask, mask, mask))) == 3
    assert calls.component_count(packed(np.eye(length, dtype=bool))) == length


def test_no_vertex_no_component() -> None:
    assert calls.component_count(np.zeros((0, 2), dtype=np.uint64)) == 0


@given(MASKS)
def test_edges_of_bits(mask: Mask) -> None:
    begin, neighbour = calls.edges_of_bits(pack_columns(mask))
    assert (begin.dtype, neighbour.dtype) == (np.int64, np.int32)
    assert begin.tolist() == [0, *np.cumsum(mask.sum(axis=0)).tolist()]
    assert neighbour.tolist() == [row for column in mask.T for row in np.flatnonzero(column).tolist()]


def lists_of(mask: Mask, weights: Matrix) -> EdgeLists:
    begin, neighbour = calls.edges_of_bits(np.ascontiguousarray(pack_columns(mask)))
    left = np.repeat(np.arange(mask.shape[1]), np.diff(begin))
    return EdgeLists(begin, neighbour, np.abs(weights[neighbour, left]), mask.shape[0])


def solve_lists(lists: EdgeLists, ranges: np.ndarray, limits: SolverLimits) -> Eigenpairs:
    """`calls.solve_edges`, with the counts of right vertices that it asks for (1 where there is no such range)."""
    touched = [
        len(set(lists.neighbour[slice(*lists.begin[list(part)])])) if valid(part, lists) else 1 for part in ranges
    ]
    return calls.solve_edges(lists, ranges, np.array(touched), limits)


def valid(part: object, lists: EdgeLists) -> bool:
    at = np.atleast_1d(part)
    return at.dtype.kind == "i" and len(at) == 2 and 0 <= at[0] < at[1] < len(lists.begin)


# Gram matrices -----------------------------------------------------------------------------------------------------


def gram_of(rng: Rng, side: int) -> Matrix:
    """Of a random 0/1 matrix: integers."""
    factor = (rng.random((side, 2 * side)) < rng.uniform(0.05, 0.95)).astype(np.float64)
    return factor @ factor.T


def assert_solved(row: Eigenpairs, gram: Matrix, note: object = "") -> None:
    """What a row claims, against all eigenvalues by LAPACK."""
    values = np.linalg.eigvalsh(gram)[::-1]
    side, first = len(gram), max(float(values[0]), 0.0)
    rounding = (2 * side + 10) * EPS * first
    assert row["side"] == side, note
    assert row["frobenius"] == pytest.approx(np.linalg.norm(gram), rel=1e-13), note
    if row["status"] == Status.ALL_VALUES:
        expected = [values[0], values[1] if side > 1 else 0.0]
        assert np.abs(row["value"] - expected).max() <= rounding, f"{note}: {row}, expected {expected}"
    elif row["status"] == Status.PROVED:
        assert values[1] <= row["shift"] + rounding, f"{note}: {row}, expected {values[:3]}"
        assert (row["value"] <= values[:2] + rounding).all(), f"{note}: {row}, expected {values[:3]}"
        off = np.abs(row["value"] - values[:2])
        assert (off <= 1e-9 * first + rounding).all(), f"{note}: {row}, expected {values[:3]}"
    else:
        assert row["status"] == Status.NOT_ASKED, f"{note}: {row}"
        for k in range(2):
            nearest = float(np.abs(values - row["value"][k]).min())
            assert nearest <= row["residual"][k] + rounding, f"{note}: {row}, expected {values[:4]}"
    assert row["value"][0] >= row["value"][1] >= -rounding, f"{note}: {row}"


@pytest.mark.parametrize(
    "limits", [LIMITS, ALL_VALUES, ITERATE, WITHOUT_PROOF], ids=["as used", "all", "iterate", "unproved"]
)
def test_every_side(limits: SolverLimits) -> None:
    for side in [*range(1, 71), 96, 97, 130, 200]:
        if side <= 3 and limits.direct_side == 3 < side:
            continue
        gram = gram_of(np.random.default_rng(side), side)
        row = calls.solve_gram(gram, limits)[0]
        assert_solved(row, gram, side)
        expected = Status.ALL_VALUES if side <= limits.direct_side else Status.PROVED
        assert row["status"] == (Status.NOT_ASKED if limits is WITHOUT_PROOF and side > 3 else expected), side
        assert (row["products"] > 0) == (row["status"] != Status.ALL_VALUES)


def rotation(rng: Rng, side: int) -> Matrix:
    return np.linalg.qr(rng.normal(size=(side, side)))[0]


def with_spectrum(values: list[float], side: int) -> Matrix:
    """A full symmetric matrix with these eigenvalues, and 0."""
    turn = rotation(np.random.default_rng(side), side)
    diagonal = np.zeros(side)
    diagonal[: len(values)] = values[:side]
    gram = (turn * diagonal) @ turn.T
    return (gram + gram.T) / 2


DEGENERATE: dict[str, Callable[[int], Matrix]] = {
    "identity": np.eye,
    "large identity": lambda side: 1e12 * np.eye(side),
    "one entry": lambda side: np.diag([5.0] + [0.0] * (side - 1)),
    "last entry": lambda side: np.diag([0.0] * (side - 1) + [5.0]),
    "repeated entries": lambda side: np.diag(np.resize([3.0, 3.0, 2.0, 1.0], side)),
    "one apart": lambda side: np.diag([2.0] + [1.0] * (side - 1)),
    "halves": lambda side: np.diag(0.5 ** np.arange(side)),
    "ones": lambda side: np.ones((side, side)),
    "rank one": lambda side: np.outer(np.arange(1.0, side + 1), np.arange(1.0, side + 1)),
    "rank two": lambda side: np.kron(np.eye(2), np.ones((side, side)))[:side, :side] + np.ones((side, side)),
    "two blocks": lambda side: np.ones((side, side)) * (np.arange(side) % 2 == np.arange(side)[:, None] % 2),
    "path": lambda side: 2 * np.eye(side) + np.eye(side, k=1) + np.eye(side, k=-1),
    "cycle": lambda side: even_cycle(side).astype(float) @ even_cycle(side).T,
    "double first": lambda side: with_spectrum([7.0, 7.0, 1.0], side),
    "nearly double first": lambda side: with_spectrum([7.0, 7.0 - 1e-11, 1.0], side),
    "triple second": lambda side: with_spectrum([7.0, 2.0, 2.0, 2.0, 1.0], side),
    "graded": lambda side: with_spectrum([10.0**-k for k in range(side)], side),
    "tiny second": lambda side: with_spectrum([1.0, 1e-14], side),
}


@pytest.mark.parametrize("limits", [LIMITS, ALL_VALUES, ITERATE], ids=["as used", "all", "iterate"])
@pytest.mark.parametrize("kind", DEGENERATE)
def test_degenerate_matrices(kind: str, limits: SolverLimits) -> None:
    for side in (2, 3, 4, 5, 13, 31, 32, 33, 47, 64, 90):
        gram = DEGENERATE[kind](side)
        row = calls.solve_gram(gram, limits)[0]
        assert_solved(row, gram, side)
        assert row["status"] == (Status.ALL_VALUES if side <= limits.direct_side else Status.PROVED), side


@pytest.mark.parametrize("kind", sorted(set(DEGENERATE) - {"identity", "large identity"}))
def test_degenerate_matrices_without_a_proof(kind: str) -> None:
    for side in (4, 5, 8, 13, 32, 33, 64, 90):
        gram = DEGENERATE[kind](side)
        assert_solved(calls.solve_gram(gram, WITHOUT_PROOF)[0], gram, side)


@pytest.mark.parametrize("side", [4, 33, 90])
def test_a_residual_tells_the_truth_where_every_vector_is_an_eigenvector(side: int) -> None:
    """One product ends the search, and there is no second vector: nothing may be said of a second value."""
    row = calls.solve_gram(3 * np.eye(side), WITHOUT_PROOF)[0]
    if row["status"] == Status.NOT_ASKED:
        assert (np.abs(row["value"] - 3) <= row["residual"] + 100 * EPS).all(), row
    else:
        assert row["status"] in (Status.NOT_CONVERGED, Status.MISSED)


def test_the_zero_matrix_has_values_of_zero() -> None:
    for side in (1, 2, 3, 5, 32):
        row = calls.solve_gram(np.zeros((side, side)), LIMITS)[0]
        assert (row["status"], *row["value"]) == (Status.ALL_VALUES, 0, 0)
    for limits in (LIMITS, WITHOUT_PROOF):
        row = calls.solve_gram(np.zeros((40, 40)), limits)[0]
        assert row["status"] in (Status.MISSED, Status.NOT_CONVERGED) or row["value"].tolist() == [0, 0]


def test_only_the_lower_triangle_is_read() -> None:
    for side in (5, 31, 40, 66):
        gram = gram_of(np.random.default_rng(side), side)
        expected = calls.solve_gram(gram, LIMITS)
        below = np.where(np.tri(side, dtype=bool), gram, np.nan)
        assert bytes_of(calls.solve_gram(below, LIMITS)) == bytes_of(expected)


def test_a_gram_matrix_of_any_order_and_kind_is_left_as_it_was() -> None:
    for side in (30, 36, 41):
        gram = gram_of(np.random.default_rng(side), side)
        before = gram.copy()
        expected = calls.solve_gram(gram, LIMITS)
        assert (gram == before).all()
        large = np.zeros((2 * side, 2 * side))
        large[::2, ::2] = gram
        for same in (np.asfortranarray(gram), gram.astype(np.float32), gram.astype(np.int64), large[::2, ::2]):
            assert bytes_of(calls.solve_gram(same, LIMITS)) == bytes_of(expected)


# Problems of bits and of edges -------------------------------------------------------------------------------------


def graph_of(kind: str, seed: int) -> Mask:
    return live((KINDS | LARGER_KINDS)[kind](np.random.default_rng(9000 + seed)))


@pytest.mark.parametrize("limits", [LIMITS, ITERATE], ids=["as used", "iterate"])
@pytest.mark.parametrize("kind", KINDS | LARGER_KINDS)
def test_bits_and_edges_are_solved_as_their_gram_matrix(kind: str, limits: SolverLimits) -> None:
    for seed in range(4):
        mask = graph_of(kind, seed)
        rows = int(mask.any(axis=1).sum())
        side = min(rows, mask.shape[1])
        if side < 2 or 2 <= side <= 3 == limits.direct_side:
            continue
        matrix = mask[mask.any(axis=1)].astype(np.float64)
        gram = matrix @ matrix.T if rows < mask.shape[1] else matrix.T @ matrix
        row = calls.solve_bits(packed(mask), everything(mask.shape[1]), limits)[0]
        assert_solved(row, gram, seed)
        weights = np.random.default_rng(seed).uniform(0.5, 2.0, mask.shape)
        matrix = (mask * weights)[mask.any(axis=1)] / weights[mask].max()
        gram = matrix @ matrix.T if rows < mask.shape[1] else matrix.T @ matrix
        row = solve_lists(lists_of(mask, weights), everything(mask.shape[1]), limits)[0]
        assert_solved(row, gram, seed)


@pytest.mark.parametrize(
    "shape", [(20, 25), (40, 300), (300, 40), (64, 128), (129, 65), (33, 1100), (1100, 33), (130, 520)]
)
@pytest.mark.parametrize("density", [0.02, 0.1, 0.3, 0.95])
def test_weights_of_any_density(density: float, shape: tuple[int, int]) -> None:
    """Gram matrices from lists, by pairs of edges where these are few and by slabs of columns where not; either way up."""
    rng = np.random.default_rng(5)
    mask = live(uniform(rng, *shape, density))
    weights = 10.0 ** rng.uniform(-12, 0, mask.shape)
    matrix = mask * weights / weights[mask].max()
    matrix = matrix[mask.any(axis=1)]
    gram = matrix @ matrix.T if matrix.shape[0] < matrix.shape[1] else matrix.T @ matrix
    for limits in (LIMITS, ALL_VALUES):
        assert_solved(solve_lists(lists_of(mask, weights), everything(mask.shape[1]), limits)[0], gram, limits)


@pytest.mark.parametrize("largest", [2.0**-1074, 1e-300, 1e-91, 1e-89, 1e89, 1e91, 1e300, 2.0**1023])
@pytest.mark.parametrize(("shape", "density"), [((40, 60), 0.05), ((40, 60), 0.9), ((90, 36), 0.1), ((90, 36), 0.8)])
def test_weights_of_any_size(shape: tuple[int, int], density: float, largest: float) -> None:
    """Values are those of the weights over the largest, however far from 1 that is; those of other ranges do not matter."""
    rng = np.random.default_rng(6)
    mask = live(uniform(rng, *shape, density))
    weights = (rng.integers(1, 2, mask.shape) if largest < 1e-307 else rng.uniform(0.01, 1.0, mask.shape)) * largest
    matrix = (mask * weights)[mask.any(axis=1)] / weights[mask].max()
    gram = matrix @ matrix.T if matrix.shape[0] < matrix.shape[1] else matrix.T @ matrix
    assert_solved(solve_lists(lists_of(mask, weights), everything(mask.shape[1]), LIMITS)[0], gram, largest)
    beside = np.concatenate([mask, np.ones((len(mask), 1), dtype=bool)], axis=1)
    heavier = np.concatenate([weights, np.full((len(mask), 1), 2.0**1023)], axis=1)
    row = solve_lists(lists_of(beside, heavier), everything(mask.shape[1]), LIMITS)[0]
    assert_solved(row, gram, largest)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_weights_of_edges(dtype: type) -> None:
    """|W| of every edge, whatever order the lists have beside the columns."""
    rng = np.random.default_rng(7)
    for shape in ((5, 7), (70, 130), (130, 70)):
        weights = rng.standard_normal(shape).astype(dtype)
        mask = rng.random(shape) < 0.4
        columns = rng.permutation(shape[1])[: shape[1] - 2]
        begin, neighbour = calls.edges_of_bits(packed(mask)[columns])
        found = calls.weights_of_edges(begin, neighbour, columns, weights)
        assert (found == np.abs(weights[neighbour, np.repeat(columns, np.diff(begin))])).all()
        assert (calls.weights_of_edges(begin, neighbour, columns, np.asfortranarray(weights)) == found).all()


def solve_weights(weights: np.ndarray, largest: float, limits: SolverLimits) -> np.void:
    graph = calls.graph_of_weights(weights, largest)
    return calls.solve([calls.Parts(graph, everything(1), np.array([0]), limits)])[0][0]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(2, 3), (3, 2), (31, 40), (40, 300), (300, 40), (64, 512), (513, 66), (257, 259)])
def test_whole_matrices_of_weights(shape: tuple[int, int], dtype: type) -> None:
    weights = np.random.default_rng(8).standard_normal(shape).astype(dtype)
    absolute = np.abs(weights.astype(np.float64))
    matrix = absolute / absolute.max()
    gram = matrix @ matrix.T if shape[0] <= shape[1] else matrix.T @ matrix
    for limits in (LIMITS, ALL_VALUES):
        assert_solved(solve_weights(weights, absolute.max(), limits), gram, limits)
    for power in (-1000, 900):
        scaled = np.ldexp(absolute, power)
        assert_solved(solve_weights(scaled, scaled.max(), LIMITS), gram, power)


@pytest.mark.parametrize("touched", [1, 40, 10**6])
def test_a_wrong_count_of_right_vertices_costs_time_only(touched: int) -> None:
    """The count says which side is the smaller; either has the same singular values."""
    rng = np.random.default_rng(0)
    mask = live(uniform(rng, 40, 70, 0.3))
    lists, every = lists_of(mask, rng.uniform(0.5, 1, mask.shape)), everything(mask.shape[1])
    for limits in (LIMITS, BY_LISTS):
        expected = solve_lists(lists, every, limits)["value"][0]
        found = calls.solve_edges(lists, every, np.array([touched]), limits)["value"][0]
        assert found == pytest.approx(expected, rel=1e-9)


def test_counts_of_right_vertices_go_with_ranges() -> None:
    for touched in (np.array([1, 2]), np.zeros(0, dtype=np.int64), np.ones((1, 1), dtype=np.int64)):
        with pytest.raises(ValueError, match=r"as many counts|touched: "):
            calls.solve_edges(LISTS, everything(3), touched, LIMITS)


@pytest.mark.parametrize("shape", [(40, 300), (300, 40), (64, 128), (129, 65), (97, 97), (34, 700)])
@pytest.mark.parametrize("density", [0.03, 0.3, 0.95])
def test_without_a_gram_matrix(density: float, shape: tuple[int, int]) -> None:
    """By tables, by lists, by lists with weights: each value has an eigenvalue within its residual, and the right one."""
    rng = np.random.default_rng(4)
    mask = live(with_isolated(rng, uniform(rng, *shape, density), 5, 0))
    weights = rng.uniform(0.5, 2.0, mask.shape)
    sigma, heavy = svd(mask), svd(mask * weights / weights[mask].max())
    found = {
        "tables": (calls.solve_bits(packed(mask), everything(mask.shape[1]), BY_TABLES)[0], sigma),
        "lists": (calls.solve_bits(packed(mask), everything(mask.shape[1]), BY_LISTS)[0], sigma),
        "weights": (solve_lists(lists_of(mask, weights), everything(mask.shape[1]), BY_LISTS)[0], heavy),
    }
    for name, (row, expected) in found.items():
        assert row["status"] == Status.NOT_ASKED, name
        for k in range(2):
            off = abs(row["value"][k] - expected[k] ** 2)
            assert off <= row["residual"][k] + reference_rounding(mask.shape, expected[0] ** 2), (name, k)
            assert off <= 1e-9 * expected[0] * expected[k], (name, k)
        assert (row["residual"] <= 1e-9 * expected[0] * expected[1]).all(), name
        assert row["side"] >= min(mask.shape) - 5, name
        # Rounding is reckoned by side * frobenius: a product here sums over both sides.
        assert row["side"] * row["frobenius"] >= row["value"][0] * sum(mask[mask.any(axis=1)].shape) * 0.999, name
    assert found["tables"][0]["value"] == pytest.approx(found["lists"][0]["value"], rel=1e-12)


def test_each_range_is_solved_as_if_it_were_alone() -> None:
    rng = np.random.default_rng(0)
    mask = live(skewed(rng, 45, 400, 0.2))
    weights = rng.uniform(0.5, 2.0, mask.shape)
    edges = rng.permutation(mask.shape[1] + 1)[:60].reshape(-1, 2)
    ranges = np.sort(edges, axis=1)
    bits, lists = packed(mask), lists_of(mask, weights)
    for limits in (LIMITS, BY_TABLES, BY_LISTS):
        by_bits, by_edges = calls.solve_bits(bits, ranges, limits), solve_lists(lists, ranges, limits)
        assert len(by_bits) == len(by_edges) == len(ranges)
        for k, (begin, end) in enumerate(ranges.tolist()):
            part = np.ascontiguousarray(bits[begin:end])
            assert bytes_of(by_bits[k]) == bytes_of(calls.solve_bits(part, everything(end - begin), limits)[0])
            part = lists_of(np.ascontiguousarray(mask[:, begin:end]), weights[:, begin:end])
            assert bytes_of(by_edges[k]) == bytes_of(solve_lists(part, everything(end - begin), limits)[0])


def test_no_range_no_answer() -> None:
    mask = live(uniform(np.random.default_rng(0), 9, 12, 0.5))
    none = np.zeros((0, 2), dtype=np.int64)
    assert len(calls.solve_bits(packed(mask), none, LIMITS)) == 0
    assert len(solve_lists(lists_of(mask, np.ones(mask.shape)), none, LIMITS)) == 0


@pytest.mark.parametrize("copies", [2, 3, 5])
@pytest.mark.parametrize("shape", [(17, 30), (30, 17), (40, 60), (60, 40)])
def test_the_second_search_finds_what_the_first_has_missed(shape: tuple[int, int], copies: int) -> None:
    """One vector and its images see a multiple eigenvalue once; the proof fails, and what it missed is found."""
    for seed in range(4):
        rng = np.random.default_rng(seed)
        one = live(uniform(rng, *shape, 0.3))
        one = one[one.any(axis=1)]
        mask = shuffled(rng, union(*[one] * copies))
        row = calls.solve_bits(packed(mask), everything(mask.shape[1]), ITERATE)[0]
        assert row["status"] == Status.PROVED, (seed, row)
        values = [sigma**2 for sigma in svd(one)]
        assert row["value"] == pytest.approx([values[0], values[0]], rel=1e-9), seed
        assert row["shift"] >= values[0] * (1 - 1e-12)


@pytest.mark.parametrize("side", [4, 8, 33, 64, 90])
def test_the_first_search_alone_does_miss_it(side: int) -> None:
    """Three different eigenvalues, so its space is spent after three vectors, each value seen once."""
    gram = DEGENERATE["repeated entries"](side)
    assert calls.solve_gram(gram, WITHOUT_PROOF)[0]["value"] == pytest.approx([3, 2], rel=1e-14)
    row = calls.solve_gram(gram, ITERATE)[0]
    assert row["status"] == Status.PROVED
    assert row["value"] == pytest.approx([3, 3], rel=1e-14)
    blocks = DEGENERATE["two blocks"](side)
    assert calls.solve_gram(blocks, ITERATE)[0]["value"] == pytest.approx([-(-side // 2), side // 2], rel=1e-12)


@pytest.mark.parametrize("copies", [2, 3, 5])
@pytest.mark.parametrize("shape", [(17, 30), (30, 17), (40, 60)])
def test_values_without_a_proof_are_those_of_two_vectors_at_right_angles(shape: tuple[int, int], copies: int) -> None:
    """Rounding brings the second copy of a value in late, and then its vector must not be the first one again."""
    for seed in range(6):
        rng = np.random.default_rng(seed)
        mask = live(shuffled(rng, union(*[uniform(rng, *shape, 0.3)] * copies)))
        sigma = svd(mask)
        for limits in (BY_TABLES, BY_LISTS):
            row = calls.solve_bits(packed(mask), everything(mask.shape[1]), limits)[0]
            if row["status"] == Status.NOT_CONVERGED:
                continue
            assert row["status"] == Status.NOT_ASKED
            assert row["value"][0] == pytest.approx(sigma[0] ** 2, rel=1e-9), seed
            assert row["value"].sum() <= (sigma[0] ** 2 + sigma[1] ** 2) * (1 + 1e-9), seed
            for k in range(2):
                nearest = min(abs(row["value"][k] - value**2) for value in sigma)
                assert nearest <= row["residual"][k] + 100 * EPS * sigma[0] ** 2, seed


@pytest.mark.parametrize("copies", [2, 3])
@pytest.mark.parametrize("shape", [(30, 40), (40, 60), (60, 40)])
def test_a_search_twice_finds_it_without_a_proof(shape: tuple[int, int], copies: int) -> None:
    for seed in range(4):
        rng = np.random.default_rng(seed)
        one = live(uniform(rng, *shape, 0.3))
        mask, first = shuffled(rng, union(*[one] * copies)), svd(one)[0] ** 2
        lists, every = lists_of(mask, np.full(mask.shape, 2.0)), everything(mask.shape[1])
        for limits in (replace(BY_TABLES, twice=True), replace(BY_LISTS, twice=True)):
            for row in (*calls.solve_bits(packed(mask), every, limits), *solve_lists(lists, every, limits)):
                assert row["status"] == Status.NOT_ASKED
                assert row["value"] == pytest.approx([first, first], rel=1e-9), seed
                assert (row["residual"] <= 1.1e-9 * first).all(), seed


def test_a_search_twice_keeps_what_was_right() -> None:
    """Where no value is double the second search finds nothing better, and may not make it worse."""
    for seed in range(10):
        mask = live(uniform(np.random.default_rng(seed), 60, 90, 0.2))
        every = everything(mask.shape[1])
        once, twice = (
            calls.solve_bits(packed(mask), every, limits)[0] for limits in (BY_TABLES, replace(BY_TABLES, twice=True))
        )
        assert twice["value"] == pytest.approx(once["value"], rel=1e-12)
        assert twice["products"] > once["products"]
        assert (twice["residual"] <= 1e-9 * twice["value"][0]).all()


def test_a_plane_of_one_double_value_is_proved() -> None:
    for q in (5, 7, 11):
        mask = projective_plane(q)
        row = calls.solve_bits(packed(mask), everything(mask.shape[1]), ITERATE)[0]
        assert row["status"] == Status.PROVED
        assert row["value"] == pytest.approx([(q + 1) ** 2, q], rel=1e-14)


def test_too_few_products_do_not_converge() -> None:
    """By every way of multiplying; on a layer whose second value lies at the edge of a bulk."""
    rng = np.random.default_rng(0)
    mask = live(uniform(rng, 120, 900, 0.2))
    lists = lists_of(mask, 1 + 1e-3 * rng.normal(size=mask.shape))
    every = everything(mask.shape[1])
    for most in (*range(2, 20), 25):
        for name, direct, proof, few in (("proof", 3, 4096, 0.0), ("tables", 3, 3, 0.0), ("lists", 3, 3, 1.0)):
            limits = SolverLimits(1e-9, most, direct, proof, few)
            for row in (*calls.solve_bits(packed(mask), every, limits), *solve_lists(lists, every, limits)):
                assert row["status"] == Status.NOT_CONVERGED, (most, name, row)
                assert row["products"] <= most + 4, (most, name, row)


@pytest.mark.parametrize("half", [145, 185, 201])
def test_more_products_are_no_worse(half: int) -> None:
    """Cycles have double eigenvalues: errors fall to the level of rounding, and rise once a second copy is brought in."""
    bits, converged = packed(even_cycle(half)), []
    for most in range(60, half):
        limits = replace(BY_LISTS, most_products=most, twice=True)
        converged.append(bool(calls.solve_bits(bits, everything(half), limits)["status"][0] == Status.NOT_ASKED))
    assert not converged[0]
    assert converged == sorted(converged)


# Threads, memory ---------------------------------------------------------------------------------------------------


def many_problems() -> list[tuple[np.ndarray, np.ndarray, EdgeLists, Matrix]]:
    problems = []
    for seed, (rows, columns, density) in enumerate(
        [(30, 90, 0.3), (60, 200, 0.1), (200, 60, 0.5), (150, 150, 0.05), (100, 400, 0.9), (45, 45, 0.2)]
    ):
        rng = np.random.default_rng(seed)
        mask = live(uniform(rng, rows, columns, density))
        problems.append((mask, packed(mask), lists_of(mask, rng.uniform(0.5, 2, mask.shape)), gram_of(rng, rows)))
    return problems


def answers_to(problems: list[tuple[np.ndarray, np.ndarray, EdgeLists, Matrix]]) -> list[bytes]:
    """Everything that the compiled part is asked for, as bytes, so that any difference shows."""
    answers = []
    for mask, bits, lists, gram in problems:
        every = everything(len(bits))
        answers.append(pack_columns(mask).tobytes())
        answers.append(str(calls.component_count(bits)).encode())
        answers.extend(part.tobytes() for part in calls.edges_of_bits(bits))
        answers.extend(bytes_of(calls.solve_bits(bits, every, limits)) for limits in (LIMITS, BY_TABLES, BY_LISTS))
        answers.extend(bytes_of(solve_lists(lists, every, limits)) for limits in (LIMITS, BY_LISTS))
        answers.append(bytes_of(calls.solve_gram(gram, LIMITS)))
        answers.append(bytes_of(calls.solve_bits(bits, every, SolverLimits(1e-9, 12, 3, 4096))))
        answers.append(bytes_of(calls.solve_bits(bits, every, SolverLimits(1e-9, 12, 3, 3))))
    return answers


def test_other_threads_change_nothing() -> None:
    problems = many_problems()
    alone = answers_to(problems)
    backwards = problems[::-1]  # so that two threads are at different problems
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(answers_to, problems if k % 2 else backwards) for k in range(8)]
        results = [future.result() for future in futures]
    per_problem = len(alone) // len(problems)
    turned = [alone[k : k + per_problem] for k in range(0, len(alone), per_problem)][::-1]
    flat = [answer for group in turned for answer in group]
    assert all(result == (alone if k % 2 else flat) for k, result in enumerate(results))


M_PERTURB = -6  # of mallopt, as malloc.h has it


def test_what_memory_held_before_changes_nothing() -> None:
    """The C library fills what it hands out and takes back with a byte of our choice (glibc; elsewhere nothing is)."""
    fill = getattr(ctypes.CDLL(None), "mallopt", lambda _, byte: None)
    found = set()
    try:
        for byte in (0, 90, 255):
            fill(M_PERTURB, byte)
            found.add(b"".join(answers_to(many_problems())))
    finally:
        fill(M_PERTURB, 0)
    assert len(found) == 1


def test_inputs_are_left_as_they_were() -> None:
    for mask, bits, lists, gram in many_problems()[:6]:
        before = [array.copy() for array in (mask, bits, lists.begin, lists.neighbour, lists.value, gram)]
        answers_to([(mask, bits, lists, gram)])
        after = (mask, bits, lists.begin, lists.neighbour, lists.value, gram)
        assert all((old == new).all() for old, new in zip(before, after, strict=True))


# Arguments ---------------------------------------------------------------------------------------------------------

BITS = np.array([[5], [3], [1]], dtype=np.uint64)
LISTS = EdgeLists(np.array([0, 2, 4, 5]), np.array([0, 2, 0, 1, 0], dtype=np.int32), np.ones(5), 3)


@pytest.mark.parametrize(
    "bits",
    [BITS.astype(np.int64), BITS.astype(np.float64), BITS.view(np.uint8), BITS[:, 0], BITS[None], BITS[::2]],
    ids=["signed", "float", "bytes", "one dimension", "three", "strided"],
)
def test_bits_of_another_kind_are_refused(bits: np.ndarray) -> None:
    for call in (
        lambda: calls.component_count(bits),
        lambda: calls.kernel.neighbours(bits, np.empty(0, dtype=np.int32)),
        lambda: calls.solve_bits(bits, everything(1), LIMITS),
    ):
        with pytest.raises(ValueError, match="contiguous uint64 of 2 dimensions"):
            call()


@pytest.mark.parametrize(
    ("ranges", "why"),
    [
        ([[0, 4]], "not there"),
        ([[-1, 2]], "not there"),
        ([[0, 1], [2, 4]], "not there"),
        ([[0, 2**40]], "not there"),
        ([[1, 1]], "empty"),
        ([[2, 1]], "empty"),
        ([[0, 3], [3, 3]], "empty"),
        ([[0, 1, 2]], "not there"),
        ([[0]], "not there"),
        ([0, 2], "2 dimensions"),
    ],
)
def test_ranges_that_are_none_are_refused(ranges: list[object], why: str) -> None:
    given_ = np.array(ranges, dtype=np.int64)
    with pytest.raises(ValueError, match=why):
        calls.solve_bits(BITS, given_, LIMITS)
    with pytest.raises(ValueError, match=why):
        solve_lists(LISTS, given_, LIMITS)


@pytest.mark.parametrize("dtype", [np.int32, np.uint64, np.float64])
def test_ranges_of_another_kind_are_refused(dtype: type) -> None:
    for ranges in (np.array([[0, 2]], dtype=dtype), np.asfortranarray(np.array([[0, 2], [1, 3]]))):
        with pytest.raises(ValueError, match="contiguous int64 of 2 dimensions"):
            calls.solve_bits(BITS, ranges, LIMITS)
        with pytest.raises(ValueError, match="contiguous int64 of 2 dimensions"):
            solve_lists(LISTS, ranges, LIMITS)


@pytest.mark.parametrize(
    ("lists", "why"),
    [
        (EdgeLists(LISTS.begin.astype(np.int32), LISTS.neighbour, LISTS.value, 3), "contiguous int64"),
        (EdgeLists(LISTS.begin, LISTS.neighbour.astype(np.int64), LISTS.value, 3), "contiguous int32"),
        (EdgeLists(LISTS.begin, LISTS.neighbour, LISTS.value.astype(np.float32), 3), "contiguous float64"),
        (EdgeLists(LISTS.begin, LISTS.neighbour, np.ones(10)[::2], 3), "contiguous float64"),
        (EdgeLists(LISTS.begin, LISTS.neighbour[:4], LISTS.value, 3), "different lengths"),
        (EdgeLists(LISTS.begin, LISTS.neighbour, LISTS.value[:4], 3), "different lengths"),
        (EdgeLists(LISTS.begin[:3], LISTS.neighbour, LISTS.value, 3), "different lengths"),
    ],
)
def test_edge_lists_that_do_not_fit_are_refused(lists: EdgeLists, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        solve_lists(lists, everything(len(lists.begin) - 1), LIMITS)


def test_what_is_refused_is_so_by_a_little() -> None:
    """The arguments that the refused ones differ from are taken."""
    assert calls.component_count(BITS) == 1
    assert calls.solve_bits(BITS, everything(3), LIMITS)["status"].tolist() == [Status.ALL_VALUES]
    assert solve_lists(LISTS, everything(3), LIMITS)["status"].tolist() == [Status.ALL_VALUES]
    both = [calls.solve_bits(BITS, everything(3), LIMITS), solve_lists(LISTS, everything(3), LIMITS)]
    assert both[0]["value"][0] == pytest.approx(both[1]["value"][0], rel=1e-14)


def test_without_the_compiled_part_graphs_are_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = rank_two(np.random.default_rng(0), 9, 12)
    assert BipartiteGraph(mask).packed
    monkeypatch.setattr(calls, "kernel", None)
    assert not calls.available()
    assert not BipartiteGraph(mask).packed


def test_no_memory_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    class Kernel:
        @staticmethod
        def solve_gram(gram: object, limits: object, found: np.ndarray, side: int) -> None:
            found.view(EIGENPAIR)["status"] = Status.NO_MEMORY

    monkeypatch.setattr(calls, "kernel", Kernel)
    with pytest.raises(MemoryError):
        calls.solve_gram(np.eye(4), LIMITS)


@pytest.mark.parametrize("decades", [200, 300, 600])
def test_strongly_graded_weights_are_answered(decades: int) -> None:
    rng = np.random.default_rng(decades)
    for _ in range(60):
        side = int(rng.integers(2, 33))
        power = np.add.outer(rng.uniform(-decades / 4, decades / 4, side), rng.uniform(-decades / 4, decades / 4, side))
        gram = 10.0**power
        gram = gram / gram.max()
        found = calls.solve_gram(np.ascontiguousarray(gram @ gram.T), SolverLimits(1e-9, 1200, 32, 2048))
        assert found["status"][0] == Status.ALL_VALUES
        assert found["value"][0][0] == pytest.approx(np.linalg.eigvalsh(gram @ gram.T)[-1], rel=1e-12)
