"""Graphs with known spectra, random biregular ones, and what switches make of them."""

from __future__ import annotations

from collections import Counter
from math import sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pai_cli.sampling.expanders import cayley
from pai_cli.sampling.expanders.biregular import biregular, trade
from pai_cli.sampling.expanders.explicit import fitting
from pai_cli.sampling.expanders.fields import field, is_prime, prime_power
from pai_cli.sampling.expanders.lifts import lift, signing
from pai_cli.sampling.expanders.planes import affine_plane, copies, projective_plane
from pai_cli.sampling.expanders.switches import improved
from pai_cli.spectral.graph import BipartiteGraph
from pai_cli.spectral.singular import structure_pair

Rng = np.random.Generator
ORDERS = [2, 3, 4, 5, 7, 8, 9, 11, 16, 25]


def rng(seed: int = 0) -> Rng:
    return np.random.default_rng(seed)


def values(matrix: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """All singular values, the largest first."""
    return np.linalg.svd(matrix.astype(np.float64), compute_uv=False)


def degrees(matrix: np.ndarray[Any, Any]) -> tuple[list[int], list[int]]:
    return matrix.sum(axis=1).tolist(), matrix.sum(axis=0).tolist()


# --- finite fields


@pytest.mark.parametrize("order", ORDERS)
def test_a_field_is_one(order: int) -> None:
    numbers = field(order)
    every = np.arange(order)
    for table, neutral, members in ((numbers.plus, 0, every), (numbers.times, 1, every[1:])):
        assert np.array_equal(table, table.T)
        assert np.array_equal(table[neutral], every)
        inside = table[np.ix_(members, members)]
        assert all(sorted(row) == members.tolist() for row in inside)  # so every one has an inverse
        a, b, c = rng(order).choice(members, (3, 200))
        assert np.array_equal(table[table[a, b], c], table[a, table[b, c]])
    assert not numbers.times[0].any()
    a, b, c = rng(order).integers(order, size=(3, 200))
    together = numbers.times[a, numbers.plus[b, c]]
    assert np.array_equal(together, numbers.plus[numbers.times[a, b], numbers.times[a, c]])


@pytest.mark.parametrize("order", [-3, 0, 1, 6, 12, 100])
def test_other_sizes_have_no_field(order: int) -> None:
    with pytest.raises(ValueError, match=f"there is no field of {order} elements"):
        field(order)


def test_primes_and_their_powers() -> None:
    sieve = [n for n in range(2, 200) if all(n % k for k in range(2, n))]
    assert [n for n in range(-5, 200) if is_prime(n)] == sieve
    powers = {p**k: (p, k) for p in sieve for k in range(1, 9)}
    assert [prime_power(n) for n in range(200)] == [powers.get(n) for n in range(200)]


# --- planes


@pytest.mark.parametrize("q", ORDERS[:-1])
def test_projective_planes(q: int) -> None:
    plane = projective_plane(q)
    n = q * q + q + 1
    assert degrees(plane) == ([q + 1] * n, [q + 1] * n)
    overlap = plane.astype(int) @ plane.T
    assert (overlap[~np.eye(n, dtype=bool)] == 1).all()  # two points, one line
    pair = structure_pair(BipartiteGraph(plane))
    assert pair.sigma_1 == pytest.approx(q + 1, abs=pair.sigma_1_error)
    assert pair.sigma_2 == pytest.approx(sqrt(q), abs=pair.sigma_2_error)
    assert np.allclose(values(plane)[1:], sqrt(q))


@pytest.mark.parametrize("q", ORDERS)
def test_affine_planes(q: int) -> None:
    plane = affine_plane(q)
    assert degrees(plane) == ([q + 1] * q * q, [q] * (q * q + q))
    found = values(plane)
    assert found[0] == pytest.approx(sqrt(q * (q + 1)))
    assert np.allclose(found[1:], sqrt(q))


@pytest.mark.parametrize("make", [projective_plane, affine_plane])
def test_a_plane_of_no_prime_power(make: Any) -> None:
    with pytest.raises(ValueError, match="there is no field of 6 elements"):
        make(6)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_copies_of_a_plane_are_the_best_there_is(count: int) -> None:
    whole = copies(affine_plane(4), count, rng())
    assert np.allclose(values(whole)[1:], sqrt(4 * count))
    edges, (rows, columns) = whole.sum(), whole.shape
    least = sqrt((edges - edges**2 / (rows * columns)) / (rows - 1))  # the mean of the squares below the first
    assert values(whole)[1] == pytest.approx(least)


# --- Cayley graphs


@pytest.mark.parametrize(("p", "q"), [(5, 13), (17, 13), (29, 13)])
def test_the_graphs_of_lubotzky_phillips_sarnak(p: int, q: int) -> None:
    """5 is no square modulo 13, 17 and 29 are: both kinds."""
    matrix = cayley.lps(p, q)
    assert matrix.shape == (1092, 1092)
    assert degrees(matrix) == ([p + 1] * 1092, [p + 1] * 1092)
    graph = BipartiteGraph(matrix)
    assert graph.components == 1
    pair = structure_pair(graph)
    assert pair.sigma_1 == pytest.approx(p + 1)
    assert pair.sigma_2 is not None
    assert pair.sigma_2 <= 2 * sqrt(p)


@pytest.mark.parametrize(("p", "q"), [(5, 5), (3, 13), (5, 7), (9, 13), (5, 9), (37, 5), (13, 5)])
def test_those_that_do_not_exist(p: int, q: int) -> None:
    with pytest.raises(ValueError, match=rf"X\^\({p},{q}\) needs different primes of remainder 1 by 4, q above"):
        cayley.lps(p, q)


# --- lifts


@given(st.integers(1, 7), st.integers(1, 9), st.integers(0, 10**6))
def test_a_lift_has_the_old_values_and_those_of_the_signing(rows: int, columns: int, seed: int) -> None:
    draw = rng(seed)
    matrix = draw.random((rows, columns)) < 0.6
    positive = draw.random((rows, columns)) < 0.5
    lifted = lift(matrix, positive)
    assert lifted.shape == (2 * rows, 2 * columns)
    for side in (0, 1):
        assert np.array_equal(lifted.sum(axis=side), np.tile(matrix.sum(axis=side), 2))
    signed = np.where(positive, 1, -1) * matrix
    both = np.sort(np.concatenate([values(matrix), values(signed)]))
    assert np.allclose(np.sort(values(lifted)), both, atol=1e-9)


@pytest.mark.parametrize(
    "matrix",
    [np.ones((8, 72), bool), np.ones((5, 5), bool), projective_plane(3), affine_plane(5), affine_plane(3).T],
    ids=lambda m: f"{m.shape}",
)
def test_signings_within_the_ramanujan_bound(matrix: np.ndarray[Any, Any]) -> None:
    positive = signing(matrix, 200, rng())
    assert not (positive & ~matrix).any()
    by_row, by_column = degrees(matrix)
    assert values(np.where(positive, 1, -1) * matrix)[0] <= sqrt(by_row[0] - 1) + sqrt(by_column[0] - 1)


# --- random biregular graphs


@given(st.integers(1, 12), st.integers(1, 20), st.floats(0, 1), st.integers(0, 10**6))
def test_degrees_differ_by_one_at_most(rows: int, columns: int, share: float, seed: int) -> None:
    edges = round(share * rows * columns)
    matrix = biregular(rows, columns, edges, rng(seed))
    assert (matrix.dtype, matrix.shape, int(matrix.sum())) == (np.bool_, (rows, columns), edges)
    for found, count in zip(degrees(matrix), (rows, columns), strict=True):
        assert set(found) <= {edges // count, -(-edges // count)}
    assert np.array_equal(matrix, biregular(rows, columns, edges, rng(seed)))


@pytest.mark.parametrize("edges", [-1, 13])
def test_edges_that_do_not_fit(edges: int) -> None:
    with pytest.raises(ValueError, match=f"{edges} edges do not fit 3 rows and 4 columns"):
        biregular(3, 4, edges, rng())


@pytest.mark.parametrize(
    ("rows", "columns", "edges", "graphs", "draws"),
    # of 4 x 4 with two everywhere 90; of 3 x 4 with degrees (2, 2, 2), (2, 2, 1, 1): 6 choices of columns, 15 graphs each
    [(4, 4, 8, 90, 720), (3, 4, 6, 90, 720), (3, 3, 2, 18, 360)],
)
def test_every_graph_is_as_likely(rows: int, columns: int, edges: int, graphs: int, draws: int) -> None:
    from scipy.stats import chisquare  # a second, which whoever runs other tests need not wait

    draw = rng(1)
    seen = Counter(biregular(rows, columns, edges, draw).tobytes() for _ in range(draws))
    assert len(seen) == graphs
    assert chisquare(list(seen.values())).pvalue > 1e-3


@given(st.integers(2, 9), st.integers(2, 9), st.integers(0, 10**6))
def test_a_trade_keeps_every_degree_and_no_edge_twice(rows: int, columns: int, seed: int) -> None:
    draw = rng(seed)
    matrix = draw.random((rows, columns)) < 0.5
    row, column = np.nonzero(matrix)
    trade(row, column, (rows, columns), draw)
    after = np.zeros_like(matrix)
    after[row, column] = True
    assert degrees(after) == degrees(matrix)


def test_large_ones_are_almost_ramanujan() -> None:
    """sigma_2 tends to the bound from below (Brito, Dumitriu, Harris 2021)."""
    matrix = biregular(256, 1024, 12288, rng())
    bound = sqrt(48 - 1) + sqrt(12 - 1)
    sigma = structure_pair(BipartiteGraph(matrix)).sigma_2
    assert sigma is not None
    assert 0.95 * bound < sigma < 1.01 * bound


# --- switches


@pytest.mark.parametrize(("rows", "columns", "edges"), [(16, 144, 690), (144, 16, 690), (64, 64, 410), (10, 64, 320)])
def test_switches_lower_sigma_2_and_keep_every_degree(rows: int, columns: int, edges: int) -> None:
    matrix = biregular(rows, columns, edges, rng())
    after, descent = improved(matrix, 60, rng(1))
    assert degrees(after) == degrees(matrix)
    assert descent is not None
    assert descent.changes > 0
    before, found = values(matrix)[:2], values(after)[:2]
    assert found[1] < 0.95 * before[1]
    assert found[1] ** 2 >= (edges - found[0] ** 2) / (
        min(rows, columns) - 1
    )  # the mean of the squares below the first
    assert descent.wiring.sigma == pytest.approx(found[1], rel=1e-5)
    again, _ = improved(matrix, 60, rng(1))
    assert np.array_equal(after, again)


@given(st.integers(1, 6), st.integers(1, 8), st.floats(0, 1), st.integers(0, 10**6))
def test_graphs_of_any_shape_are_never_worse_for_it(rows: int, columns: int, share: float, seed: int) -> None:
    matrix = biregular(rows, columns, round(share * rows * columns), rng(seed))
    after, _ = improved(matrix, 10, rng(seed))
    assert degrees(after) == degrees(matrix)
    if min(rows, columns) > 1:
        assert values(after)[1] <= values(matrix)[1] + 1e-6


def test_a_plane_cannot_be_improved() -> None:
    plane = projective_plane(3)
    after, descent = improved(plane, 50, rng())
    assert np.array_equal(after, plane)
    assert descent is not None
    assert descent.changes == 0


# --- what fits


@pytest.mark.parametrize(
    ("rows", "columns", "edges", "name", "best"),
    [
        (7, 7, 21, "PG(2,2)", True),
        (7, 21, 63, "3 x PG(2,2)", True),
        (21, 7, 63, "3 x PG(2,2)", True),
        (7, 7, 28, "complement of PG(2,2)", True),
        (64, 576, 4608, "8 x AG(2,8)", True),
        (64, 576, 64 * 576 - 4608, "complement of 8 x AG(2,8)", True),
        (1092, 1092, 6 * 1092, "LPS(5,13)", False),
        (16, 144, 1152, "2-lift of K(8,72)", False),
        (64, 576, 9216, "2 times the 2-lift of K(16,144)", False),
        (42, 14, 126, "2-lift of 3 x PG(2,2)", False),
    ],
)
def test_known_graphs_that_fit(rows: int, columns: int, edges: int, name: str, best: bool) -> None:
    fit = fitting(rows, columns, edges)[0]
    assert (fit.name, fit.is_best) == (name, best)
    matrix = fit.make(20, rng())
    assert (matrix.shape, int(matrix.sum())) == ((rows, columns), edges)
    assert degrees(matrix) == ([edges // rows] * rows, [edges // columns] * columns)
    if best:
        sides = min(rows, columns) - 1
        assert values(matrix)[1] == pytest.approx(sqrt((edges - edges**2 / (rows * columns)) / sides))


@pytest.mark.parametrize(
    ("rows", "columns", "edges"),
    [(16, 27, 223), (36, 42, 252), (7, 7, 20), (64, 576, 4609), (1, 1, 1), (2, 2, 2), (4, 4, 8)],
)
def test_mostly_nothing_fits(rows: int, columns: int, edges: int) -> None:
    """Such as 36 points: 6 is no power of a prime."""
    assert fitting(rows, columns, edges) == []
