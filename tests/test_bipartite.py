"""A layer as a graph: unrolling against what torch's layers do, counts, order of columns, components, subgraphs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from graphs import KINDS, Mask, svd, uniform, union, with_isolated
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.sparse import bmat, csr_array
from scipy.sparse.csgraph import connected_components

from pai_cli.spectral.bipartite import EXACT_FLOAT32, BipartiteGraph, LeftClass, smaller_gram, unroll
from pai_cli.spectral.layout import PLAIN, Layout
from pai_cli.spectral.regular import regular_subgraphs
from pai_cli.spectral.result import Outcome

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


@given(MASKS)
@settings(max_examples=150, deadline=None)
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
    assert graph.right_degrees.tolist() == rows[rows > 0].tolist()


@given(MASKS)
@settings(max_examples=150, deadline=None)
def test_incidence_is_the_mask_without_isolated_vertices_by_degree(mask: Mask) -> None:
    graph = BipartiteGraph(mask)
    live = mask[mask.any(axis=1)].T
    expected = sorted(live[live.any(axis=1)].tolist(), key=sum)  # stable, as the engine's order
    assert graph.incidence.astype(bool).tolist() == expected
    assert graph.incidence.dtype == np.float32


@given(MASKS)
@settings(max_examples=100, deadline=None)
def test_weighted_goes_with_incidence(mask: Mask) -> None:
    weights = -np.arange(1.0, mask.size + 1).reshape(mask.shape)
    graph = BipartiteGraph(mask, weights)
    assert ((graph.weighted > 0) == (graph.incidence > 0)).all()
    assert sorted(graph.weighted[graph.weighted > 0].tolist()) == sorted((-weights[mask]).tolist())
    assert graph.weighted.sum(axis=1).tolist() == [
        float(-(weights * mask)[:, j].sum()) for j in np.argsort(mask.sum(axis=0), kind="stable") if mask[:, j].any()
    ]
    assert graph.weighted.dtype == np.float64


@given(MASKS)
@settings(max_examples=100, deadline=None)
def test_left_classes_partition_by_degree(mask: Mask) -> None:
    graph = BipartiteGraph(mask)
    degrees = mask.sum(axis=0)
    degrees = degrees[degrees > 0]
    assert [c.degree for c in graph.left_classes] == sorted(set(degrees.tolist()))
    assert [c.end - c.begin for c in graph.left_classes] == [
        int((degrees == d).sum()) for d in sorted(set(degrees.tolist()))
    ]
    for group in graph.left_classes:
        assert (graph.incidence[group.begin : group.end].sum(axis=1) == group.degree).all()


@pytest.mark.parametrize("shape", [(3, 8), (8, 3), (5, 5)])
def test_gram_is_of_the_smaller_side(shape: tuple[int, int]) -> None:
    graph = BipartiteGraph(complete(*shape))
    assert (graph.gram == max(shape)).all()
    assert graph.gram.shape == (min(shape), min(shape))
    assert graph.gram.dtype == np.float32


def test_grams_of_classes_add_up_to_the_gram() -> None:
    mask = uniform(np.random.default_rng(0), 20, 200, 0.3)
    graph = BipartiteGraph(mask)
    parts = [graph.incidence[c.begin : c.end] for c in graph.left_classes]
    assert len(parts) > 5
    assert (sum(part.T @ part for part in parts) == graph.gram).all()


def test_smaller_gram_either_way() -> None:
    matrix = np.random.default_rng(0).normal(size=(4, 7))
    assert smaller_gram(matrix) == pytest.approx(matrix @ matrix.T)
    assert smaller_gram(matrix.T) == pytest.approx(matrix @ matrix.T)


@pytest.mark.parametrize("kind", KINDS)
def test_components_as_scipy_counts_them(kind: str) -> None:
    for seed in range(20):
        mask = KINDS[kind](np.random.default_rng(seed))
        live = mask[mask.any(axis=1)][:, mask.any(axis=0)]
        expected = 0
        if live.size:
            block = csr_array(live)
            expected = connected_components(bmat([[None, block], [block.T, None]]), directed=False)[0]
        assert BipartiteGraph(mask).components == expected, seed
        assert BipartiteGraph(torch.from_numpy(mask)).components == expected, seed


def test_components_of_known_graphs() -> None:
    path = np.eye(6, dtype=bool) | np.eye(6, k=1, dtype=bool)  # connected, but no vertex is next to all
    assert BipartiteGraph(path).components == 1
    assert BipartiteGraph(union(path, path, complete(2, 3))).components == 3
    assert BipartiteGraph(with_isolated(np.random.default_rng(0), path, 3, 3)).components == 1
    assert BipartiteGraph(np.zeros((3, 3), dtype=bool)).components == 0


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
        BipartiteGraph(np.zeros((0, EXACT_FLOAT32), dtype=bool))


def test_left_class_is_a_value() -> None:
    graph = BipartiteGraph(np.array([[1, 1, 0, 1], [1, 0, 0, 0]], dtype=bool))
    assert graph.left_classes == (LeftClass(1, 0, 2), LeftClass(2, 2, 3))


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


def check_subgraphs(mask: Mask, weights: np.ndarray) -> int:
    found = list(regular_subgraphs(BipartiteGraph(mask, weights), weights=True))
    expected = by_definition(mask)
    assert [k.degree for k in found] == list(expected)
    for k, block in zip(found, expected.values(), strict=True):
        assert (k.n_R, k.n_L) == block.shape
        assert (k.d_L, k.d_R) == (block.sum() / k.n_L, block.sum() / k.n_R)
        values = svd(block)
        assert (k.structure.sigma_1, k.structure.sigma_2) == (
            pytest.approx(values[0], rel=1e-12),
            pytest.approx(values[1], abs=1e-9 * values[0]),
        )
        columns = np.flatnonzero(mask.sum(axis=0) == k.degree)
        values = svd((np.abs(weights) * mask)[:, columns])
        assert k.weighted is not None
        assert (k.weighted.sigma_1, k.weighted.sigma_2) == (
            pytest.approx(values[0], rel=1e-12),
            pytest.approx(values[1], abs=1e-9 * values[0]),
        )
        assert k.structure.outcome is k.weighted.outcome is Outcome.PROVED
    return len(found)


@given(dense_masks())
@settings(max_examples=200, deadline=None)
def test_left_regular_subgraphs_by_definition(mask: Mask) -> None:
    check_subgraphs(mask, np.random.default_rng(0).normal(size=mask.shape))


@pytest.mark.parametrize(("rows", "columns", "density"), [(16, 144, 0.5), (64, 576, 0.1), (128, 288, 0.3)])
def test_left_regular_subgraphs_of_layers(rows: int, columns: int, density: float) -> None:
    rng = np.random.default_rng(0)
    mask = uniform(rng, rows, columns, density)
    assert check_subgraphs(mask, rng.normal(size=mask.shape)) >= 2


@pytest.mark.usefixtures("iterate_from_257")
def test_large_left_regular_subgraphs() -> None:
    """More than LAPACK_SIDE on both sides, so that a class of a graph goes through the iteration."""
    rng = np.random.default_rng(0)
    scores = rng.random((300, 700))
    degrees = np.repeat([8, 20], 350)
    mask = np.argsort(np.argsort(scores, axis=0), axis=0) < degrees
    assert check_subgraphs(mask, rng.normal(size=mask.shape)) == 2
    assert [k.structure.solver for k in regular_subgraphs(BipartiteGraph(mask), weights=False)] == ["power", "power"]


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
    assert [k.degree for k in regular_subgraphs(BipartiteGraph(mask), weights=False)] == degrees
    assert list(by_definition(mask)) == degrees


def test_no_weights_no_weighted_values() -> None:
    (only,) = regular_subgraphs(BipartiteGraph(complete(4, 5)), weights=False)
    assert only.weighted is None


def test_torch_subgraphs() -> None:
    rng = np.random.default_rng(0)
    mask = uniform(rng, 10, 90, 0.5)
    weights = rng.normal(size=mask.shape)
    ours = list(regular_subgraphs(BipartiteGraph(mask, weights), weights=True))
    graph = BipartiteGraph(torch.from_numpy(mask), torch.from_numpy(weights))
    theirs = list(regular_subgraphs(graph, weights=True))
    assert len(ours) >= 3
    assert [(k.degree, k.n_L, k.n_R) for k in ours] == [(k.degree, k.n_L, k.n_R) for k in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert one.weighted is not None
        assert other.weighted is not None
        assert other.structure.sigma_2 == pytest.approx(one.structure.sigma_2, rel=1e-12)
        assert other.weighted.sigma_2 == pytest.approx(one.weighted.sigma_2, rel=1e-12)


@pytest.mark.parametrize("layout", [Layout(), Layout(groups=2), Layout(transposed=True), Layout(2, transposed=True)])
def test_a_layout_tells_the_matrix_before_it_is_made(layout: Layout) -> None:
    shape = (4, 6, 3, 2)
    assert unroll(np.ones(shape), layout).shape == layout.matrix(shape)
