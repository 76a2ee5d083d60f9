"""A layer as a graph: unrolling against what torch's layers do, counts, order of columns, components, subgraphs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from graphs import KINDS, Mask, assert_agrees, svd, uniform, union, with_isolated
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from pai_cli.spectral.graph import BipartiteGraph, unroll
from pai_cli.spectral.layout import PLAIN, Layout
from pai_cli.spectral.problems import smaller_gram
from pai_cli.spectral.result import Outcome, Pairs
from pai_cli.spectral.singular import singular_pairs
from pai_cli.spectral.solvers import SolverOptions
from pai_cli.spectral.subgraphs import RegularSubgraphs, regular_subgraphs
from pai_cli.spectral.validation import MOST_VERTICES

# Whatever asks a graph is run with graphs kept as bits and with graphs kept as arrays.
BOTH_ENGINES = pytest.mark.usefixtures("engine")
MASKS = arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 14)))


def complete(rows: int, columns: int) -> Mask:
    return np.ones((rows, columns), dtype=bool)


# unroll ------------------------------------------------------------------------------------------------------------


def test_unroll_of_a_linear_layer_is_its_weight() -> None:
    weight = np.arange(12).reshape(3, 4)
    assert (unroll(weight) == weight).all()


@pytest.mark.parametrize("kernel", [(3,), (3, 2), (2, 3, 2)], ids=str)
@pytest.mark.parametrize(
    ("channels", "out", "groups"), [(4, 6, 1), (4, 6, 2), (6, 6, 6), (3, 12, 3), (6, 3, 3), (1, 5, 1)]
)
def test_unrolled_convolution_maps_a_patch_to_the_outputs(
    channels: int, out: int, groups: int, kernel: tuple[int, ...]
) -> None:
    """On an input of the kernel's own size a convolution is a matrix: rows outputs, columns channel and position."""
    torch.manual_seed(0)
    conv = getattr(torch.nn, f"Conv{len(kernel)}d")(channels, out, kernel, groups=groups, bias=False)
    matrix = unroll(conv.weight.detach(), Layout(groups=groups))
    patch = torch.randn(1, channels, *kernel)
    assert matrix.shape == (out, patch.numel())
    assert torch.allclose(matrix @ patch.flatten(), conv(patch).detach().flatten(), atol=1e-5)


@pytest.mark.parametrize("kernel", [(3,), (3, 2), (2, 3, 2)], ids=str)
@pytest.mark.parametrize(
    ("channels", "out", "groups"), [(4, 6, 1), (4, 6, 2), (6, 6, 6), (3, 12, 3), (6, 3, 3), (1, 5, 1)]
)
def test_unrolled_transposed_convolution_maps_a_pixel_to_every_position(
    channels: int, out: int, groups: int, kernel: tuple[int, ...]
) -> None:
    """One input pixel becomes a kernel-sized output: at each position, the columns of that position act on it."""
    torch.manual_seed(0)
    conv = getattr(torch.nn, f"ConvTranspose{len(kernel)}d")(channels, out, kernel, groups=groups, bias=False)
    matrix = unroll(conv.weight.detach(), Layout(groups=groups, transposed=True))
    positions = int(np.prod(kernel))
    assert matrix.shape == (out, channels * positions)
    pixel = torch.randn(1, channels, *(1 for _ in kernel))
    expected = conv(pixel).detach().reshape(out, positions)
    by_position = matrix.reshape(out, channels, positions)
    assert torch.allclose(torch.einsum("ocp,c->op", by_position, pixel.flatten()), expected, atol=1e-5)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_unroll_keeps_kind_dtype_and_every_entry_once(groups: int, transposed: bool) -> None:
    tensor = np.arange(1, 4 * 2 * 3 * 3 + 1).reshape(4, 2, 3, 3)
    matrix = unroll(tensor, Layout(groups, transposed))
    assert sorted(matrix[matrix != 0].tolist()) == sorted(tensor.flatten().tolist())
    assert unroll(tensor > 5, Layout(groups, transposed)).dtype == bool
    as_torch = unroll(torch.from_numpy(tensor), Layout(groups, transposed))
    assert isinstance(as_torch, torch.Tensor)
    assert (as_torch.numpy() == matrix).all()


def test_unroll_does_not_write_to_its_input() -> None:
    tensor = np.ones((4, 2, 3, 3))
    for layout in (PLAIN, Layout(2), Layout(2, transposed=True), Layout(1, transposed=True)):
        unroll(tensor, layout)
    assert (tensor == 1).all()


def test_depthwise_layer_is_disconnected() -> None:
    graph = BipartiteGraph(unroll(np.ones((6, 1, 3, 3), dtype=bool), Layout(groups=6)))
    assert (graph.n_L, graph.n_R, graph.edges, graph.components) == (54, 6, 54, 6)


@pytest.mark.parametrize("layout", [PLAIN, Layout(2), Layout(2, transposed=True)])
def test_unroll_stays_on_its_device(layout: Layout) -> None:
    """No copy through this machine's memory: torch's "meta" device would refuse one."""
    matrix = unroll(torch.zeros((4, 2, 3, 3), device="meta"), layout)
    assert matrix.device.type == "meta"


@pytest.mark.parametrize("shape", [(), (5,)])
def test_unroll_needs_two_dimensions(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="no rows and columns"):
        unroll(np.ones(shape))


def test_unroll_needs_groups_that_divide() -> None:
    with pytest.raises(ValueError, match="3 groups do not divide the 4 channels"):
        unroll(np.ones((4, 2, 3, 3)), Layout(groups=3))


# BipartiteGraph ----------------------------------------------------------------------------------------------------


@BOTH_ENGINES
@given(MASKS)
def test_counts_by_hand(mask: Mask) -> None:
    graph = BipartiteGraph(mask)
    columns, rows = mask.sum(axis=0), mask.sum(axis=1)
    n_L, n_R, edges = int((columns > 0).sum()), int((rows > 0).sum()), int(mask.sum())
    assert (graph.n_R0, graph.n_L0) == mask.shape
    assert (graph.n_L, graph.n_R, graph.edges) == (n_L, n_R, edges)
    assert graph.counts.d_L == (edges / n_L if n_L else 0)
    assert graph.counts.d_R == (edges / n_R if n_R else 0)
    assert graph.counts.size == mask.size
    assert graph.left_degrees.tolist() == sorted(columns[columns > 0].tolist())


@BOTH_ENGINES
@given(MASKS)
def test_incidence_is_the_mask_without_isolated_vertices_by_degree(mask: Mask) -> None:
    graph = BipartiteGraph(mask)
    live = mask[mask.any(axis=1)].T
    expected = sorted(live[live.any(axis=1)].tolist(), key=sum)  # stable, as the engine's order
    assert graph.incidence.astype(bool).tolist() == expected
    assert graph.incidence.dtype == np.float32


@BOTH_ENGINES
@given(MASKS)
def test_weighted_goes_with_incidence(mask: Mask) -> None:
    weights = -np.arange(1.0, mask.size + 1).reshape(mask.shape)
    graph = BipartiteGraph(mask, weights)
    assert ((graph.weighted > 0) == (graph.incidence > 0)).all()
    assert sorted(graph.weighted[graph.weighted > 0].tolist()) == sorted((-weights[mask]).tolist())
    assert graph.weighted.sum(axis=1).tolist() == [
        float(-(weights * mask)[:, j].sum()) for j in np.argsort(mask.sum(axis=0), kind="stable") if mask[:, j].any()
    ]
    assert graph.weighted.dtype == np.float64


@BOTH_ENGINES
@given(MASKS)
def test_left_classes_partition_by_degree(mask: Mask) -> None:
    graph = BipartiteGraph(mask)
    degrees = mask.sum(axis=0)
    degrees = degrees[degrees > 0]
    classes = graph.left_classes
    assert classes.degree.tolist() == sorted(set(degrees.tolist()))
    assert (classes.end - classes.begin).tolist() == [int((degrees == d).sum()) for d in classes.degree]
    assert [0, *classes.end.tolist()] == [*classes.begin.tolist(), graph.n_L]
    for degree, begin, end, n_R in zip(classes.degree, classes.begin, classes.end, classes.n_R, strict=True):
        assert (graph.incidence[begin:end].sum(axis=1) == degree).all()
        assert n_R == mask[:, mask.sum(axis=0) == degree].any(axis=1).sum()


@pytest.mark.parametrize("shape", [(3, 8), (8, 3), (5, 5)])
def test_gram_is_of_the_smaller_side(shape: tuple[int, int]) -> None:
    gram = smaller_gram(BipartiteGraph(complete(*shape)).incidence)
    assert (gram == max(shape)).all()
    assert gram.shape == (min(shape), min(shape))
    assert gram.dtype == np.float32


@BOTH_ENGINES
def test_grams_of_classes_add_up_to_the_gram() -> None:
    mask = uniform(np.random.default_rng(0), 20, 200, 0.3)
    graph = BipartiteGraph(mask)
    classes = graph.left_classes
    parts = [graph.incidence[begin:end] for begin, end in zip(classes.begin, classes.end, strict=True)]
    assert len(parts) > 5
    assert (sum(part.T @ part for part in parts) == smaller_gram(graph.incidence)).all()


def test_smaller_gram_either_way() -> None:
    matrix = np.random.default_rng(0).normal(size=(4, 7))
    assert smaller_gram(matrix) == pytest.approx(matrix @ matrix.T)
    assert smaller_gram(matrix.T) == pytest.approx(matrix @ matrix.T)


@BOTH_ENGINES
@pytest.mark.parametrize("kind", KINDS)
def test_components_as_scipy_counts_them(kind: str) -> None:
    for seed in range(6):
        mask = KINDS[kind](np.random.default_rng(seed))
        row, column = np.nonzero(mask)
        side, isolated = sum(mask.shape), int((~mask.any(axis=0)).sum() + (~mask.any(axis=1)).sum())
        graph = csr_array((np.ones(len(row)), (row, column + len(mask))), shape=(side, side))
        expected = connected_components(graph, directed=False)[0] - isolated
        assert BipartiteGraph(mask).components == expected, seed
        assert BipartiteGraph(torch.from_numpy(mask)).components == expected, seed


@BOTH_ENGINES
def test_components_of_known_graphs() -> None:
    path = np.eye(6, dtype=bool) | np.eye(6, k=1, dtype=bool)  # connected, but no vertex is next to all
    assert BipartiteGraph(path).components == 1
    assert BipartiteGraph(union(path, path, complete(2, 3))).components == 3
    assert BipartiteGraph(with_isolated(np.random.default_rng(0), path, 3, 3)).components == 1
    assert BipartiteGraph(np.zeros((3, 3), dtype=bool)).components == 0


@BOTH_ENGINES
@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int64, np.float32, np.float64])
def test_masks_of_any_type_are_the_same_graph(dtype: type) -> None:
    mask = uniform(np.random.default_rng(0), 9, 11, 0.4)
    graph, other = BipartiteGraph(mask), BipartiteGraph(mask.astype(dtype))
    assert graph.counts == other.counts
    assert (graph.incidence == other.incidence).all()
    assert (graph.incidence == BipartiteGraph(torch.from_numpy(mask.astype(dtype))).incidence.numpy()).all()


def test_what_is_no_matrix_is_refused() -> None:
    with pytest.raises(ValueError, match=r"not shape \(2, 2, 2\)"):
        BipartiteGraph(np.ones((2, 2, 2), dtype=bool))
    with pytest.raises(ValueError, match="past exact float32"):
        BipartiteGraph(np.zeros((0, MOST_VERTICES), dtype=bool))


@BOTH_ENGINES
def test_left_classes_of_known_graphs() -> None:
    classes = BipartiteGraph(np.array([[1, 1, 0, 1], [1, 0, 0, 0]], dtype=bool)).left_classes
    columns = (classes.degree, classes.begin, classes.end, classes.n_R)
    assert [column.tolist() for column in columns] == [[1, 2], [0, 2], [2, 3], [1, 2]]
    assert all(column.dtype == np.int64 for column in columns)
    none = BipartiteGraph(np.zeros((3, 4), dtype=bool)).left_classes
    assert [len(column) for column in (none.degree, none.begin, none.end, none.n_R)] == [0, 0, 0, 0]


@BOTH_ENGINES
@given(MASKS)
def test_the_largest_weight_of_a_range(mask: Mask) -> None:
    weights = np.random.default_rng(int(mask.sum())).normal(size=mask.shape)
    graph = BipartiteGraph(mask, weights)
    order = [j for j in np.argsort(mask.sum(axis=0), kind="stable").tolist() if mask[:, j].any()]
    largest = [float(np.abs(weights[mask[:, j], j]).max()) for j in order]
    for begin in range(graph.n_L):
        for end in range(begin + 1, graph.n_L + 1):
            assert graph.largest_weight(begin, end) == max(largest[begin:end])


@BOTH_ENGINES
def test_order_in_memory_does_not_matter() -> None:
    """A transposed or strided mask is the same graph, and so is one of another memory order."""
    rng = np.random.default_rng(0)
    mask, weights = uniform(rng, 90, 70, 0.1), rng.normal(size=(90, 70))
    graph = BipartiteGraph(mask, weights)
    wide = np.repeat(np.repeat(mask, 2, axis=0), 3, axis=1)
    for same in (np.asfortranarray(mask), mask.T.copy().T, wide[::2, ::3], mask[::-1][::-1]):
        other = BipartiteGraph(same, np.asfortranarray(weights))
        assert other.counts == graph.counts
        assert (other.incidence == graph.incidence).all()
        assert (other.weighted == graph.weighted).all()
        assert (other.left_classes.n_R == graph.left_classes.n_R).all()


def test_bits_are_the_incidence_matrix(engine: str) -> None:
    graph = BipartiteGraph(uniform(np.random.default_rng(0), 130, 40, 0.02))
    assert graph.packed == (engine == "compiled")
    if graph.packed:
        bits = np.unpackbits(graph.bits.view(np.uint8), axis=1, bitorder="little")
        assert (bits[:, bits.any(axis=0)] == graph.incidence).all()


# Left-regular subgraphs --------------------------------------------------------------------------------------------


def by_definition(mask: Mask) -> dict[int, Mask]:
    """Every kept K_d, degree to its own mask, word for word as metrics.md section 3 defines it."""
    kept = {}
    degrees = [sum(column) for column in mask.T.tolist()]
    for degree in sorted(set(degrees) - {0}):
        columns = [j for j, d in enumerate(degrees) if d == degree]
        rows = [i for i in range(mask.shape[0]) if any(mask[i, j] for j in columns)]
        edges = degree * len(columns)
        if len(columns) >= 3 and edges / len(columns) >= 3 and edges / len(rows) >= 3:
            kept[degree] = mask[np.ix_(rows, columns)]
    return kept


def dense_masks() -> st.SearchStrategy[Mask]:
    """Small masks whose columns come from few patterns, so that degrees are shared and touch few rows."""
    return st.integers(0, 2**32).map(_dense_mask)


def _dense_mask(seed: int) -> Mask:
    rng = np.random.default_rng(seed)
    rows, columns = int(rng.integers(3, 9)), int(rng.integers(3, 25))
    mask = uniform(rng, rows, columns, rng.uniform(0.3, 0.95))
    return with_isolated(rng, mask, int(rng.integers(0, 3)), int(rng.integers(0, 3)))


def solved(mask: Mask, weights: np.ndarray | None = None) -> tuple[RegularSubgraphs, Pairs, Pairs | None]:
    """Every kept K_d, with the singular values of its mask and of its weights."""
    graph = BipartiteGraph(mask, weights)
    found = regular_subgraphs(graph)
    kinds = (False,) if weights is None else (False, True)
    pairs = singular_pairs([found.problems(graph, weighted=kind) for kind in kinds], SolverOptions())
    answers = [answer.take(found.places(graph)) for answer in pairs]
    return found, answers[0], answers[1] if weights is not None else None


def check_subgraphs(mask: Mask, weights: np.ndarray) -> int:
    found, structure, weighted = solved(mask, weights)
    expected = by_definition(mask)
    assert found.degree.tolist() == list(expected)
    assert weighted is not None
    assert len(found) == len(structure) == len(weighted)
    for k, (degree, block) in enumerate(expected.items()):
        assert (found.n_R[k], found.n_L[k]) == block.shape
        assert found.edges[k] == block.sum()
        assert found.ranges[k, 1] - found.ranges[k, 0] == block.shape[1]
        whole = (np.abs(weights) * mask)[:, mask.sum(axis=0) == degree]
        for pair, matrix in ((structure[k], block), (weighted[k], whole)):
            assert_agrees(pair, svd(matrix), f"degree {degree}")
            assert pair.outcome is Outcome.PROVED
    return len(found)


@BOTH_ENGINES
@given(dense_masks())
def test_left_regular_subgraphs_by_definition(mask: Mask) -> None:
    check_subgraphs(mask, np.random.default_rng(0).normal(size=mask.shape))


@BOTH_ENGINES
@pytest.mark.parametrize(("rows", "columns", "density"), [(16, 144, 0.5), (64, 576, 0.1), (128, 288, 0.3)])
def test_left_regular_subgraphs_of_layers(rows: int, columns: int, density: float) -> None:
    rng = np.random.default_rng(0)
    mask = uniform(rng, rows, columns, density)
    assert check_subgraphs(mask, rng.normal(size=mask.shape)) >= 2


@BOTH_ENGINES
@pytest.mark.usefixtures("iterate_from_33")
def test_large_left_regular_subgraphs() -> None:
    """More than the direct side on both sides, so that a class of a graph goes through the iteration."""
    rng = np.random.default_rng(0)
    scores = rng.random((300, 700))
    degrees = np.repeat([8, 20], 350)
    mask = np.argsort(np.argsort(scores, axis=0), axis=0) < degrees
    assert check_subgraphs(mask, rng.normal(size=mask.shape)) == 2
    assert solved(mask)[1].solver == ["power", "power"]


@BOTH_ENGINES
@pytest.mark.parametrize(
    ("mask", "degrees"),
    [
        (complete(3, 3), [3]),  # the least that is kept
        (complete(3, 2), []),  # two left vertices are too few
        (complete(2, 9), []),  # a degree of 2 is too small
        (union(complete(3, 3), complete(3, 3)), [3]),
        (np.array([[1, 1, 1], [1, 1, 1], [1, 1, 0], [0, 0, 1]], dtype=bool), []),  # d_R = 9/4 is too small
        (np.hstack([complete(5, 4), np.arange(5)[:, None] < np.full(3, 3)]), [3, 5]),
        (np.zeros((4, 4), dtype=bool), []),
    ],
    ids=["K33", "K23", "K92", "two K33", "d_R below 3", "nested", "empty"],
)
def test_which_subgraphs_are_kept(mask: Mask, degrees: list[int]) -> None:
    assert regular_subgraphs(BipartiteGraph(mask)).degree.tolist() == degrees
    assert list(by_definition(mask)) == degrees


@BOTH_ENGINES
def test_a_graph_that_is_its_own_subgraph_is_solved_once() -> None:
    graph = BipartiteGraph(complete(4, 5))
    found = regular_subgraphs(graph)
    assert len(found) == 1
    assert found.places(graph).tolist() == [0]
    problems = found.problems(graph)
    assert problems.ranges.tolist() == [[0, 5]]
    assert (problems.left.tolist(), problems.right.tolist(), problems.edges.tolist()) == ([5], [4], [20])


@BOTH_ENGINES
def test_problems_are_the_graph_and_then_its_subgraphs() -> None:
    mask = np.hstack([complete(5, 4), np.arange(5)[:, None] < np.full(3, 3), np.eye(5, dtype=bool)[:, :2]])
    graph = BipartiteGraph(mask, np.ones(mask.shape))
    found = regular_subgraphs(graph)
    assert found.degree.tolist() == [3, 5]
    for weighted in (False, True):
        problems = found.problems(graph, weighted=weighted)
        assert problems.weighted == weighted
        assert problems.ranges.tolist() == [[0, 9], [2, 5], [5, 9]]
        assert problems.right.tolist() == [5, 3, 5]
        assert problems.edges.tolist() == [31, 9, 20]
    assert found.places(graph).tolist() == [1, 2]


@BOTH_ENGINES
def test_no_subgraph_is_no_problem() -> None:
    for mask in (complete(2, 9), np.zeros((4, 4), dtype=bool)):
        graph = BipartiteGraph(mask)
        found = regular_subgraphs(graph)
        assert len(found) == len(found.places(graph)) == 0
        assert len(found.problems(graph)) == 1


@BOTH_ENGINES
def test_torch_subgraphs() -> None:
    rng = np.random.default_rng(0)
    mask = uniform(rng, 10, 90, 0.5)
    weights = rng.normal(size=mask.shape)
    found, structure, weighted = solved(mask, weights)
    same, *theirs = solved(torch.from_numpy(mask), torch.from_numpy(weights))
    assert len(found) >= 3
    for name in ("degree", "n_L", "n_R", "ranges"):
        assert (getattr(found, name) == getattr(same, name)).all()
    for ours, other in zip((structure, weighted), theirs, strict=True):
        assert ours is not None
        assert other.sigma_1 == pytest.approx(ours.sigma_1, rel=1e-12)
        assert other.sigma_2 == pytest.approx(ours.sigma_2, rel=1e-12)


@pytest.mark.parametrize("layout", [Layout(), Layout(groups=2), Layout(transposed=True), Layout(2, transposed=True)])
def test_a_layout_tells_the_matrix_before_it_is_made(layout: Layout) -> None:
    shape = (4, 6, 3, 2)
    assert unroll(np.ones(shape), layout).shape == layout.matrix(shape)
