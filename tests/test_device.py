"""The engine on a torch device, on tensors of the CPU and of `meta`: its bounds, what it dispatches, what it waits for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import ROOT
from dispatches import Dispatches, counted, counted_on_meta
from graphs import EPS, Mask, Matrix, Rng, even_cycle, shuffled, skewed, svd, uniform, union
from graphs import reference_rounding as rounding_of
from random_graphs import EVERY_KIND, case_of, error_over_bound

from pai_cli.errors import NotFiniteError
from pai_cli.spectral import solvers
from pai_cli.spectral.bounds import pairs_of
from pai_cli.spectral.device import krylov, plan, products, squaring
from pai_cli.spectral.device.gathering import graphs_of
from pai_cli.spectral.device.moving import noise
from pai_cli.spectral.device.products import Product, product_of
from pai_cli.spectral.graph import BipartiteGraph
from pai_cli.spectral.metrics import MetricOptions, measure_layer
from pai_cli.spectral.network import LayerInput, measure_together
from pai_cli.spectral.problems import Problems
from pai_cli.spectral.result import Outcome, Pairs, SingularPair
from pai_cli.spectral.singular import singular_pairs
from pai_cli.spectral.solver_table import EIGENPAIR, Status
from pai_cli.spectral.solvers import DEFAULT, Solver, SolverOptions
from pai_cli.spectral.subgraphs import regular_subgraphs

TOLERANCE = 1e-9


def resnet20() -> list[tuple[int, int]]:
    """The matrices of a ResNet-20 without its projections: (rows, columns)."""
    stages = [(16, 27), *[(16, 144)] * 6, (32, 144), *[(32, 288)] * 5, (64, 288), *[(64, 576)] * 5]
    return [*stages, (10, 64)]


def resnet34() -> list[tuple[int, int]]:
    """Those of a ResNet-34."""
    shapes, before = [(64, 147)], 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for _ in range(blocks):
            shapes += [(width, before * 9), (width, width * 9)]
            if before != width:
                shapes.append((width, before))
            before = width
    return [*shapes, (10, 512)]


def vgg16() -> list[tuple[int, int]]:
    """Those of a VGG-16."""
    widths = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    return [*((out, 9 * into) for into, out in pairwise(widths)), (10, 512)]


def resnet50() -> list[tuple[int, int]]:
    """Those of a ResNet-50."""
    shapes, before = [(64, 147)], 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            shapes += [(width, before), (width, width * 9), (4 * width, width)]
            if not block:
                shapes.append((4 * width, before))
            before = 4 * width
    return [*shapes, (1000, 2048)]


LLAMA = [(4096, 4096), (1024, 4096), (1024, 4096), (4096, 4096), (14336, 4096), (14336, 4096), (4096, 14336)]


def tensors(masks: list[Mask]) -> list[torch.Tensor]:
    return [torch.from_numpy(mask) for mask in masks]


def random_masks(shapes: list[tuple[int, int]], density: float = 0.1) -> list[Mask]:
    rng = np.random.default_rng(7)
    return [uniform(rng, rows, columns, density) for rows, columns in shapes]


def solved(mask: Mask, weights: Matrix | None = None, options: SolverOptions = DEFAULT) -> SingularPair:
    """The pair of all of the graph, on tensors."""
    graph = graphs_of([torch.from_numpy(mask)], [None if weights is None else torch.from_numpy(weights)])[0]
    return singular_pairs([Problems.whole(graph, weighted=weights is not None)], options)[0][0]


def check_every_problem(masks: list[Mask], weights: list[Matrix] | None = None) -> int:
    """Every graph and every left-regular subgraph against a dense SVD; how many there are."""
    given = [None] * len(masks) if weights is None else [torch.from_numpy(own) for own in weights]
    graphs = graphs_of(tensors(masks), given)
    requests = [regular_subgraphs(graph).problems(graph, weighted=weights is not None) for graph in graphs]
    for k, (request, pairs) in enumerate(zip(requests, singular_pairs(requests), strict=True)):
        matrix = masks[k].astype(float) if weights is None else np.abs(weights[k]) * masks[k]
        for part, (begin, end) in enumerate(request.ranges.tolist()):
            check_pair(matrix[:, request.graph._columns[begin:end]], pairs, part)
    return sum(map(len, requests))


def check_pair(matrix: Matrix, pairs: Pairs, part: int) -> None:
    pair, true = pairs[part], svd(matrix)
    allowed = rounding_of(matrix.shape, true[0])
    assert pair.outcome is Outcome.PROVED, pair
    for value, error, expected in zip(
        (pair.sigma_1, pair.sigma_2), (pair.sigma_1_error, pair.sigma_2_error), true, strict=False
    ):
        assert value is not None
        assert error is not None
        assert abs(value - expected) <= error + allowed, f"{pair}, expected {true[:2]}"
        assert error <= TOLERANCE * true[0]


# What is dispatched ----------------------------------------------------------------------------------------------------


def core_on_meta() -> Iterator[Callable[[], object]]:
    def of(*shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=torch.float64, device="meta")

    def times(vectors: torch.Tensor) -> torch.Tensor:
        return torch.bmm(of(3, 200, 200), vectors)

    yield lambda: squaring.two_largest(of(5, 64, 64), 32)
    for starts in ([of(3, 200, 1)], [of(3, 200, 1)] * 2):
        yield lambda starts=starts: krylov.settled(times, krylov.search(times, starts, 20))  # type: ignore[misc]
    ritz = krylov.settled(times, krylov.search(times, [of(3, 200, 1)], 20)).ritz
    yield lambda: krylov.proof(of(3, 200, 200), of(3), ritz, TOLERANCE)


def test_the_core_reads_no_value() -> None:
    """A tensor on `meta` has none, so that nothing waits for it, and that all could be captured as one graph of launches."""
    for run in core_on_meta():
        run()
    with pytest.raises(RuntimeError):
        bool(torch.empty(3, device="meta").sum() > 0)


@pytest.mark.parametrize(
    ("shapes", "launches", "waits"),
    [
        (resnet20(), 900, 6),
        (resnet34(), 2600, 6),
        (vgg16(), 2600, 6),
        (resnet50(), 2600, 6),
        ([(4096, 14336)], 2000, 6),
        (LLAMA, 2600, 4),
    ],
    ids=["ResNet-20", "ResNet-34", "VGG-16", "ResNet-50", "4096 x 14336", "Llama layer"],
)
def test_launches_and_waits_of_networks(
    shapes: list[tuple[int, int]], launches: int, waits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, problems = counted_on_meta(shapes, 0.1, monkeypatch)
    assert problems > len(shapes)
    assert 100 < seen.launches <= launches
    assert seen.waits <= waits
    assert seen.solved == []
    large = max(rows * columns for rows, columns in shapes) > plan.SMALL  # a product of its own
    if product_of("meta") is Product.HALF:
        assert {"aten::bmm.dtype", *(["aten::mm.dtype"] if large else [])} <= set(seen.names)
    else:  # which takes no batches
        assert not large or seen.names["aten::_int_mm"]


def test_launches_and_waits_as_counted_on_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same of a ResNet-20 with values, from the masks to the reports."""
    layers = [LayerInput(str(k), mask) for k, mask in enumerate(tensors(random_masks(resnet20())))]
    measure_together(layers[:1], MetricOptions())
    with counted(monkeypatch) as seen:
        reports = measure_together(layers, MetricOptions())
    assert {outcome for report in reports for outcome in report.outcomes} == {Outcome.PROVED}
    assert seen.launches <= 900
    assert 3 <= seen.waits <= 6  # one more where a layer is not connected
    assert [shape for shape in seen.solved if shape[-1] > 32 or shape[0] == 1 or len(shape) == 2] == []


def test_weights_wait_no_more_often(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    masks = random_masks([(16, 144), (32, 288), (10, 64)], 0.3)
    layers = [
        LayerInput(str(k), torch.from_numpy(mask), torch.from_numpy(rng.normal(size=mask.shape)))
        for k, mask in enumerate(masks)
    ]
    with counted(monkeypatch) as seen:
        measure_together(layers, MetricOptions(dense=False))
    assert seen.waits == 3


def test_a_large_layer_has_a_product_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "SMALL", 2**10)
    mask = uniform(np.random.default_rng(0), 60, 300, 0.1)
    with counted(monkeypatch) as seen:
        pair = solved(mask)
    assert seen.names["aten::_int_mm"] == 1
    assert pair.sigma_1 == pytest.approx(svd(mask)[0], rel=1e-12)


def test_many_small_masks_are_one_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty masks of a network take hardly more launches than one of them."""
    taken = []
    for count in (1, 20):
        rng = np.random.default_rng(0)
        masks = [uniform(rng, rows, columns, 0.3) for _ in range(count) for rows, columns in ((16, 144), (32, 144))]
        layers = [LayerInput(str(k), mask) for k, mask in enumerate(tensors(masks))]
        with counted(monkeypatch) as seen:
            measure_together(layers, MetricOptions())
        taken.append(seen.launches)
    assert taken[1] < 1.2 * taken[0]


def test_unmasked_layers_are_one_plan_too(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    layers = [
        LayerInput(str(k), torch.from_numpy(uniform(rng, 20, 90, 0.3)), torch.from_numpy(rng.normal(size=(20, 90))))
        for k in range(5)
    ]
    with counted(monkeypatch) as seen:
        together = measure_together(layers, MetricOptions())
    assert seen.waits == 6
    for layer, report in zip(layers, together, strict=True):
        alone = measure_layer(layer.mask.numpy(), layer.weights.numpy(), MetricOptions())
        for name in ("l2", "l2_dense", "lambda"):
            ours, theirs = report.measures[name], alone.measures[name]
            assert abs((ours.value or 0) - (theirs.value or 0)) <= (ours.error or 0) + (theirs.error or 0)


def test_a_second_round_is_one_wait_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """The values of a cycle are so close that the first round does not come far enough."""
    mask = even_cycle(150)
    with counted(monkeypatch) as seen:
        pair = solved(mask)
    assert (pair.solver, pair.outcome, seen.waits) == ("power", Outcome.PROVED, 4)
    assert (pair.sigma_1, pair.sigma_2) == pytest.approx(svd(mask)[:2], rel=1e-12)
    monkeypatch.setattr(solvers, "MOST_PRODUCTS", 10)
    assert solved(mask, None, SolverOptions(most_products=9)).outcome is Outcome.NOT_CONVERGED


def test_without_a_gram_matrix_none_is_formed(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = uniform(np.random.default_rng(0), 150, 400, 0.1)
    with counted(monkeypatch) as seen:
        pair = solved(mask, None, SolverOptions(solver=Solver.MATRIX_FREE))
    assert (pair.solver, pair.outcome) == ("matrix-free", Outcome.NOT_PROVED)
    assert [shape for _, shape in seen.shapes if shape[-2:] in ((150, 150), (256, 256), (400, 400), (512, 512))] == []
    assert (pair.sigma_1, pair.sigma_2) == pytest.approx(svd(mask)[:2], rel=1e-9)
    forming = Dispatches()
    with forming:
        solved(mask)
    assert [shape for _, shape in forming.shapes if shape[-2:] == (256, 256)]


@pytest.mark.parametrize(
    ("part", "tolerance"),
    [(np.ones((1, 100)), 1e-1), (np.ones((1, 100)), 1e-4), (even_cycle(100), 1e-9), (even_cycle(300), 1e-9)],
    ids=["stars, loosely", "stars", "cycles", "long cycles"],
)
def test_without_a_gram_matrix_a_double_first_value_is_two(part: np.ndarray, tolerance: float) -> None:
    """Lanczos from one vector has one vector of each value, and its residuals look well: the second is sought apart."""
    mask = union(part, part.T)
    pair = solved(mask, None, SolverOptions(solver=Solver.MATRIX_FREE, tolerance=tolerance))
    first, second = svd(mask)[:2]
    assert (pair.sigma_1, pair.sigma_2) == pytest.approx((first, second), rel=1e-9)


def test_a_second_value_whose_square_vanishes_has_an_answer() -> None:
    weights = np.array([[1.0, 1e-106, 0.0], [0.0, 3e-156, 8e-120]])
    pair = solved(np.ones(weights.shape, dtype=bool), weights, SolverOptions(solver=Solver.POWER))
    assert pair.sigma_1 == pytest.approx(1.0)
    assert pair.sigma_2 is not None
    assert pair.sigma_2_error is not None
    assert abs(pair.sigma_2 - 8e-120) <= pair.sigma_2_error <= TOLERANCE


@pytest.mark.parametrize("size", [1e-5, 1e-6, 1e-8])
@pytest.mark.parametrize("side", [7, 14, 60])
def test_a_second_value_near_rounding_has_an_answer_without_a_gram_matrix(side: int, size: float) -> None:
    """Of weights nearly alike its square is little above what Lanczos leaves of an image; LAPACK goes on from there."""
    for seed in range(3):
        weights = 1 + size * np.random.default_rng(seed).normal(size=(side, side + 40))
        mask = np.ones(weights.shape, dtype=bool)
        pair, true = solved(mask, weights, SolverOptions(solver=Solver.MATRIX_FREE)), svd(weights)
        assert pair.outcome is not Outcome.NOT_CONVERGED
        assert pair.sigma_2 is not None
        assert pair.sigma_2_error is not None
        assert pair.sigma_2_error <= TOLERANCE * true[0]
        assert abs(pair.sigma_2 - true[1]) <= pair.sigma_2_error + rounding_of(weights.shape, true[0])


def test_past_the_proof_side_there_is_no_gram_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solvers, "DEVICE_PROOF_SIDE", 100)
    mask = uniform(np.random.default_rng(0), 150, 400, 0.1)
    assert solved(mask).outcome is Outcome.NOT_PROVED
    pair = solved(mask, None, SolverOptions(certify=True))
    assert (pair.solver, pair.outcome) == ("power", Outcome.PROVED)


# Products --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("has", ["all", "int8", "none"])
def test_products_of_masks_are_exact(has: str, monkeypatch: pytest.MonkeyPatch) -> None:
    product_of.cache_clear()
    answers = iter({"all": [True], "int8": [False, True], "none": [False, False]}[has])
    monkeypatch.setattr(products, "_runs", lambda product: next(answers))
    kind = product_of("cpu")
    monkeypatch.setattr(products, "product_of", lambda name: kind)
    assert kind is {"all": Product.HALF, "int8": Product.INT8, "none": Product.FLOAT32}[has]
    place = "meta" if kind is Product.HALF else "cpu"  # no CPU has the product in half precision
    rows = (torch.rand((3, 40, 700), generator=torch.Generator().manual_seed(0)) < 0.5).to(torch.int8)
    with Dispatches() as seen:
        one, many = products.gram(rows[0].to(place)), products.grams(rows.to(place))
    if kind is Product.HALF:
        assert {"aten::mm.dtype", "aten::bmm.dtype"} <= set(seen.names)
        assert (one.dtype, many.dtype) == (torch.float32, torch.float32)
    else:
        exact = rows.double() @ rows.double().mT
        assert torch.equal(one.double(), exact[0])
        assert torch.equal(many.double(), exact)
        assert seen.names["aten::_int_mm"] == (kind is Product.INT8)
    product_of.cache_clear()


def test_a_device_is_asked_once_what_it_has() -> None:
    product_of.cache_clear()
    assert product_of("cpu") in (Product.INT8, Product.FLOAT32)
    assert product_of.cache_info().currsize == 1
    assert product_of("cpu") is product_of("cpu")
    product_of.cache_clear()


def test_a_wrong_call_is_not_taken_for_a_missing_product() -> None:
    def wrong() -> object:
        raise TypeError("mm() got an unexpected keyword argument")

    with pytest.raises(TypeError):
        products._runs(wrong)


def test_a_product_that_is_not_exact_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that adds in half precision would be: the entries of a Gram matrix have a known sum."""
    exact = products.gram
    monkeypatch.setattr(plan, "SMALL", 2**10)
    monkeypatch.setattr(products, "gram", lambda rows: exact(rows).half().float() + 1)
    mask = uniform(np.random.default_rng(0), 60, 400, 0.5)
    pair = solved(mask)
    assert (pair.solver, pair.outcome) == ("gram", Outcome.PROVED)
    assert pair.sigma_1 == pytest.approx(svd(mask)[0], rel=1e-12)


# Bounds ----------------------------------------------------------------------------------------------------------------


def test_every_problem_of_a_resnet20() -> None:
    assert check_every_problem(random_masks(resnet20())) > 60


def test_problems_of_layers_of_a_resnet34() -> None:
    assert check_every_problem(random_masks([(128, 576), (256, 128), (10, 512)])) > 10


def test_problems_with_weights() -> None:
    rng = np.random.default_rng(1)
    masks = random_masks([(16, 144), (32, 144), (40, 300)], 0.3)
    weights = [rng.normal(size=masks[0].shape), 10.0 ** rng.uniform(-12, 0, masks[1].shape), rng.normal(size=(40, 300))]
    assert check_every_problem(masks, weights) > 10


def test_random_graphs_of_every_kind() -> None:
    """Weights over 12 orders of magnitude among them. All are one plan."""
    cases = [case_of(kind, 1000 + seed) for kind in EVERY_KIND for seed in range(8)]
    graphs = graphs_of(
        tensors([case.mask for case in cases]),
        [None if case.weights is None else torch.from_numpy(case.weights) for case in cases],
    )
    requests = [
        Problems.whole(graph, weighted=case.weights is not None) for graph, case in zip(graphs, cases, strict=True)
    ]
    for case, pairs in zip(cases, singular_pairs(requests), strict=True):
        assert error_over_bound(pairs[0], case) <= 1, f"{case.note}: {pairs[0]}, expected {case.expected[:3]}"


def with_spectrum(rng: Rng, values: Matrix) -> Matrix:
    turn = np.linalg.qr(rng.normal(size=(len(values),) * 2))[0]
    gram = (turn * values) @ turn.T
    return (gram + gram.T) / 2


def adversaries(side: int) -> dict[str, Matrix]:
    """Gram matrices with eigenvalues close together, far apart, many times over, or next to 0."""
    rng = np.random.default_rng(side)
    base = np.sort(rng.uniform(0, 0.9, side))[::-1].copy()
    made = {"identity": np.eye(side), "zero": np.zeros((side, side)), "rank one": np.ones((side, side))}
    for gap in (1e-3, 1e-6, 1e-8, 1e-9, 1e-10, 1e-12, 0.0):
        tops = {"first": [1, 1 - gap], "second": [5, 1, 1 - gap], "three": [1, 1 - gap, 1 - 2 * gap]}
        for name, top in tops.items():
            made[f"{name} {gap:g}"] = with_spectrum(rng, np.array([*top, *base[len(top) :]]))
        made[f"cluster {gap:g}"] = with_spectrum(rng, np.array([4, *(1 - gap * np.arange(side - 1))]))
    for small in (1e-3, 1e-6, 1e-9, 1e-12, 1e-15):
        made[f"tiny second {small:g}"] = with_spectrum(rng, np.array([1, *(base[1:] * small)]))
    many = np.exp(rng.uniform(-14, 14, (side, 3 * side)))
    made["12 orders"] = many @ many.T / many.max() ** 2
    part = uniform(rng, side // 3, side, 0.3).astype(float)
    copies = np.zeros((side, 3 * side))
    for k in range(3):
        copies[k * (side // 3) : (k + 1) * (side // 3), k * side : (k + 1) * side] = part
    made["three equal parts"] = copies @ copies.T
    return made


def by_squaring(grams: list[Matrix]) -> Pairs:
    """What the squaring is worth, for matrices that are no graph's."""
    best = squaring.two_largest(torch.from_numpy(np.stack(grams)), squaring.squarings_for(TOLERANCE))
    found = np.zeros(len(grams), dtype=EIGENPAIR)
    found["status"], found["side"] = Status.BOUNDED, len(grams[0])
    found["value"] = np.stack([best.first.numpy(), best.second.numpy()], axis=1).clip(min=0)
    found["shift"], found["trace"] = best.above_second.numpy(), best.above_first.numpy()
    found["frobenius"] = [np.linalg.norm(gram) for gram in grams]
    return pairs_of(found, 0.0)


@pytest.mark.parametrize("side", [3, 8, 33, 64])
def test_adversaries_of_the_squaring(side: int) -> None:
    made = adversaries(side)
    pairs = by_squaring(list(made.values()))
    for k, (name, gram) in enumerate(made.items()):
        values = np.linalg.eigvalsh(gram)[::-1]
        slack = 20 * side * EPS * max(values[0], 0.0)  # of LAPACK, and of making the matrix
        pair = pairs[k]
        for sigma, error, value in (
            (pair.sigma_1, pair.sigma_1_error, values[0]),
            (pair.sigma_2, pair.sigma_2_error, values[1]),
        ):
            assert sigma is not None
            assert error is not None
            assert max(sigma - error, 0.0) ** 2 <= value + slack, f"{name}: {pair}, expected {values[:3]}"
            assert (sigma + error) ** 2 >= value - slack, f"{name}: {pair}, expected {values[:3]}"
            if values[1] > 1e-8 * values[0]:
                assert error <= TOLERANCE * np.sqrt(values[0]), f"{name}: {pair}"


def test_the_bound_holds_where_rounding_did_its_worst() -> None:
    """Rows as the squaring would give them, had each product lost all that it can: still the true values lie within."""
    for side, first, second in ((64, 9.0, 4.0), (128, 1.0, 1.0), (3, 2.0**40, 1.0)):
        lost = 1 - side * side * EPS / 2
        found = np.zeros(1, dtype=EIGENPAIR)
        found["status"], found["side"], found["frobenius"] = Status.BOUNDED, side, np.hypot(first, second)
        found["trace"], found["shift"] = first * lost, second * lost - 2 * EPS * first
        found["value"] = [[found["trace"][0], min(second * lost, found["trace"][0])]]
        pair = pairs_of(found, 0.0)[0]
        assert pair.sigma_1 is not None
        assert pair.sigma_2 is not None
        assert pair.sigma_1 + (pair.sigma_1_error or 0) >= np.sqrt(first)
        assert pair.sigma_2 + (pair.sigma_2_error or 0) >= np.sqrt(second)


def test_norms_bound_from_above_whole_numbers() -> None:
    """Of matrices whose eigenvalues are known exactly."""
    grams = [np.kron(np.eye(k), np.full((60 // k, 60 // k), 1.0)) for k in (1, 2, 3, 5)]
    pairs = by_squaring(grams)
    for k, copies in enumerate((1, 2, 3, 5)):
        pair, true = pairs[k], np.sqrt(60 // copies)
        assert abs((pair.sigma_1 or 0) - true) <= (pair.sigma_1_error or 0) <= TOLERANCE * true
        assert abs((pair.sigma_2 or 0) - (true if copies > 1 else 0)) <= (pair.sigma_2_error or 0)


def test_a_narrower_tolerance_squares_more_often() -> None:
    assert squaring.squarings_for(1e-9) == squaring.squarings_for(1e-3) == 32
    assert squaring.squarings_for(1e-12) == 42
    assert squaring.squarings_for(1e-300) == 50


KRYLOV: dict[str, Callable[[Rng], Mask]] = {
    "uniform": lambda rng: uniform(rng, 140, 300, 0.1),
    "skewed": lambda rng: skewed(rng, 150, 200, 0.1),
    "two parts": lambda rng: shuffled(rng, union(uniform(rng, 70, 90, 0.2), uniform(rng, 75, 80, 0.3))),
    "three copies": lambda rng: union(*[uniform(rng, 50, 60, 0.3)] * 3),
    "cycle": lambda rng: even_cycle(150),
    "blocks": lambda rng: np.kron(np.eye(60, dtype=bool), np.ones((3, 4), dtype=bool)),
}


@pytest.mark.parametrize("kind", KRYLOV)
def test_larger_graphs_are_proved_on_the_device(kind: str) -> None:
    mask = KRYLOV[kind](np.random.default_rng(0))
    pair, true = solved(mask), svd(mask)
    assert (pair.solver, pair.outcome) == ("power", Outcome.PROVED)
    for value, error, expected in (
        (pair.sigma_1, pair.sigma_1_error, true[0]),
        (pair.sigma_2, pair.sigma_2_error, true[1]),
    ):
        assert value is not None
        assert error is not None
        assert abs(value - expected) <= error + rounding_of(mask.shape, true[0])
        assert error <= TOLERANCE * true[0]


def test_the_start_of_a_longer_vector_is_the_shorter_one() -> None:
    cpu = torch.device("cpu")
    for seed in (0, 1):
        assert torch.equal(noise(200, cpu, seed)[:64], noise(64, cpu, seed))


# Graphs ----------------------------------------------------------------------------------------------------------------


def test_gathered_graphs_are_the_same_graphs() -> None:
    rng = np.random.default_rng(0)
    masks = [EVERY_KIND[kind](rng) for kind in EVERY_KIND]
    masks += [np.zeros((5, 7), bool), np.ones((4, 3), bool), np.eye(9, dtype=bool), np.ones((1, 1), bool)]
    weights = [rng.normal(size=mask.shape) for mask in masks]
    graphs = graphs_of(tensors(masks), [torch.from_numpy(own) for own in weights])
    singular_pairs([Problems.whole(graph) for graph in graphs])  # which sees by the way what is connected
    for mask, own, graph in zip(masks, weights, graphs, strict=True):
        plain = BipartiteGraph(mask, own)
        assert graph.counts == plain.counts
        for name in ("degree", "begin", "end", "n_R"):
            assert (getattr(graph.left_classes, name) == getattr(plain.left_classes, name)).all(), name
        assert (graph.incidence.numpy() == plain.incidence).all()
        assert (graph.weighted.numpy() == plain.weighted).all()
        assert (graph.right_degrees == plain.right_degrees).all()
        whole = (0, graph.n_L)
        for begin, end in [
            *zip(graph.left_classes.begin.tolist(), graph.left_classes.end.tolist(), strict=True),
            whole,
        ]:
            if begin < end:
                assert graph.squares_of(begin, end) == (plain.incidence[begin:end].sum(axis=0) ** 2).sum()
                assert graph.largest_weight(begin, end) == plain.largest_weight(begin, end)
        assert graph.n_L < 2 or graph.squares_of(0, 1) is None or graph.left_classes.end[0] == 1


def test_weights_that_are_not_finite_are_told_by_their_place() -> None:
    mask = torch.ones((4, 5), dtype=torch.bool)
    weights = torch.ones((4, 5))
    weights[2, 3] = torch.nan
    with pytest.raises(NotFiniteError, match=r"nan at index \(2, 3\)"):
        graphs_of([mask, mask], [torch.ones((4, 5)), weights])


def test_problems_are_padded_together_where_that_costs_less() -> None:
    graphs = graphs_of(tensors(random_masks([(20, 90), (40, 200), (60, 300)])), [None] * 3)
    parts = plan.parts_of([Problems.whole(graph) for graph in graphs])
    way = plan.Way(plan.SolverLimits(TOLERANCE, 1200, 0, 8192))
    assert [batch.side for batch in plan.planned(parts, way)] == [64]
    slow = plan.Way(way.limits, rates=plan.Rates(launch=0.0))
    assert [batch.side for batch in plan.planned(parts, slow)] == [32, 64]
    tight = plan.Way(way.limits, room=8 * plan.COPIES * 64 * 64)
    assert [len(batch.parts) for batch in plan.planned(parts, tight)] == [1, 1, 1]
    assert sorted(part.place for batch in plan.planned(parts, slow) for part in batch.parts) == [0, 1, 2]


def test_the_benchmark_of_a_gpu_runs_without_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    gpu = import_module("gpu")
    place = gpu.Place("cpu", 64, 1e10, 1e10, 1e-6, 1e-6, 1e10)
    bench = gpu.Bench(gpu.Table(gpu.COLUMNS), place, 1)
    place.describe()
    gpu.check_bounds(place)
    bench.table.head()
    gpu.bench_layer(bench, [0.1])
    gpu.bench_llama(bench, 1, 0.1)
    rates, bounds, head, *rows = capsys.readouterr().out.splitlines()
    assert "us a launch" in rates
    assert " 0 broken" in bounds
    assert "predicted" in head
    assert [row.split("  ")[0] for row in rows] == ["sigma", "layer", "Llama-shaped"]
    assert all("PROVED" in row for row in rows)
