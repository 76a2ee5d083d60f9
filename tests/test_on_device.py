"""Selection on a device gives the host's masks to the bit, and its budgets of launches and waits hold.

A device called `cpu:0` is worked on as a GPU is, with the same operations, on CPU tensors.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from dispatched import Dispatched, dispatched
from networks import wrap
from standin import Toy
from torch import nn

from pai_cli.errors import ScoreError
from pai_cli.methods.registry import get
from pai_cli.models.device_masks import DeviceMasks
from pai_cli.models.network import Network, init_network
from pai_cli.pruning import run
from pai_cli.pruning.base import Masks, Method, Pattern, ScoreContext, Scorer, Scores
from pai_cli.pruning.counts import ON_HOST
from pai_cli.pruning.on_device import ON_DEVICE, in_full
from pai_cli.pruning.run import PruneRequest, choose_masks
from pai_cli.pruning.select import Selection
from pai_cli.pruning.ties import Ties

SHAPES = {"first": (7, 4, 3, 3), "second": (5, 8), "third": (3, 12, 1, 1), "last": (2, 4)}
KINDS = ("plain", "equal", "zeros", "infinite", "half", "mixed", "constant", "strided", "lowest", "highest")
RULES = ("first", "random", "error")


def scores_of(kind: str, seed: int) -> dict[str, torch.Tensor]:
    """Scores that are hard to select from: with equal ones, zeros of both signs, infinities, of several types."""
    random = np.random.default_rng(seed)
    found = {name: torch.from_numpy(random.standard_normal(shape)) for name, shape in SHAPES.items()}
    if kind in ("equal", "infinite", "mixed"):
        found = {name: (one * 2).round() for name, one in found.items()}
    if kind == "zeros":
        found = {name: one.sign() * 0.0 for name, one in found.items()}
    if kind == "infinite":
        found = {name: torch.where(one.abs() > 2, one.sign() * torch.inf, one) for name, one in found.items()}
    if kind == "half":
        return {name: one.to(torch.bfloat16) for name, one in found.items()}
    if kind == "mixed":
        found["first"], found["last"] = found["first"].float() + 0.1, found["last"].half()
    if kind in ("lowest", "highest"):
        end = -torch.inf if kind == "lowest" else torch.inf
        found = {name: torch.where(one.abs() < 1.5, end, one) for name, one in found.items()}
    if kind == "constant":
        found = {name: torch.ones_like(one) for name, one in found.items()}
    if kind == "strided":
        found["first"] = found["first"].contiguous(memory_format=torch.channels_last)
    return found


def on_host(scores: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: run._as_numpy(one) for name, one in scores.items()}


def outcome(select: Any, ties: Ties) -> tuple[Any, Any]:
    """The masks and the ties, or what was raised."""
    try:
        masks = select()
    except (ScoreError, ValueError) as error:
        return type(error), str(error)
    if not isinstance(masks, dict):
        kept = {name: int(np.count_nonzero(mask)) for name, mask in masks.arrays().items()}
        assert masks.kept == kept
        assert masks.total == sum(kept.values())
        assert all(np.array_equal(masks[name], one) for name, one in masks.arrays().items())
        masks = masks.arrays()
    assert all(mask.flags.c_contiguous and mask.dtype == np.bool_ for mask in masks.values())
    return {name: (mask.shape, mask.tobytes()) for name, mask in masks.items()}, dict(ties.found)


def both(name: str, scores: dict[str, torch.Tensor], active: Masks | None, rule: str, *given: Any) -> tuple[Any, Any]:
    """What host and device make of the same scores."""
    there = None
    if active is not None:
        flat = torch.cat([torch.from_numpy(one).reshape(-1) for one in active.values()])
        shapes = {layer: one.shape for layer, one in active.items()}
        there = DeviceMasks(flat, shapes, {layer: int(np.count_nonzero(one)) for layer, one in active.items()})
    found = []
    for by, values, masks in ((ON_HOST, on_host(scores), active), (ON_DEVICE, in_full(scores), there)):
        ties = Ties(rule, 3)  # type: ignore[arg-type]
        found.append(outcome(partial(getattr(by, name), values, *given, masks, ties), ties))
    return found[0], found[1]


def half_of(seed: int) -> Masks:
    random = np.random.default_rng(seed)
    return {name: random.random(shape) < 0.5 for name, shape in SHAPES.items()}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_largest_of_a_network(kind, rule):
    for seed in range(4):
        scores = scores_of(kind, seed)
        for active in (None, half_of(seed + 10)):
            total = sum(int(one.sum()) for one in (active or {n: np.ones(s) for n, s in SHAPES.items()}).values())
            for count in (0, 1, total // 20, total // 2, total - 1, total, total + 1, -1):
                host, device = both("largest", scores, active, rule, count)
                assert host == device, (seed, count)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_largest_of_each_layer(kind, rule):
    for seed in range(4):
        scores = scores_of(kind, seed)
        for active in (None, half_of(seed + 10)):
            sizes = {n: int((active or half_of(1))[n].sum() if active else np.prod(SHAPES[n])) for n in SHAPES}
            for share in (0.0, 0.1, 0.5, 1.0):
                counts = {name: int(share * size) for name, size in sizes.items()}
                host, device = both("largest_by_layer", scores, active, rule, counts)
                assert host == device, (seed, share)


def layers_of(*, transposed: bool) -> Network:
    first = nn.ConvTranspose2d(8, 6, 3, groups=2) if transposed else nn.Conv2d(4, 7, 3)
    return wrap(nn.Sequential(first, nn.Conv2d(3, 5, 1), nn.Linear(40, 9)), None)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", ["plain", "equal", "zeros", "infinite", "half"])
@pytest.mark.parametrize("pattern", [Pattern(1, 2), Pattern(2, 4), Pattern(3, 20)])
@pytest.mark.parametrize("transposed", [False, True])
def test_groups_of_consecutive_inputs(kind, rule, pattern, transposed):
    layers = layers_of(transposed=transposed).layers
    wider = Pattern(pattern.of - 1, pattern.of)
    for seed in range(3):
        random = np.random.default_rng(seed)
        scores = {one.name: torch.from_numpy(random.standard_normal(one.shape)) for one in layers}
        if kind != "plain":
            scores = {name: (one * 2).round() * (kind != "zeros") for name, one in scores.items()}
        if kind == "infinite":
            scores = {name: torch.where(one.abs() > 1, one.sign() * torch.inf, one) for name, one in scores.items()}
        if kind == "half":
            scores = {name: one.half() for name, one in scores.items()}
        before = ON_HOST.in_layers(on_host({n: -s for n, s in scores.items()}), wider, layers, None, Ties())
        for active in (None, before):
            host, device = both("in_layers", scores, active, rule, pattern, layers)
            assert host == device, seed


@pytest.mark.parametrize("name", ["largest", "largest_by_layer", "in_layers"])
@pytest.mark.parametrize("alive", [False, True])
def test_a_nan_is_refused_by_name_where_its_weight_is_left(name, alive):
    layers = layers_of(transposed=False).layers
    scores = {one.name: torch.rand(one.shape, dtype=torch.float64) for one in layers}
    active = {layer: np.ones(one.shape, bool) for layer, one in scores.items()}
    active["0.weight"][2, :2] = False
    place = (2, 3, 0, 0) if alive else (2, 0, 0, 0)
    scores["0.weight"][place] = torch.nan
    given = {
        "largest": (50,),
        "largest_by_layer": (dict.fromkeys(scores, 4),),
        "in_layers": (Pattern(1, 4), layers),
    }[name]
    host, device = both(name, scores, active, "first", *given)
    assert host == device
    assert (host[0] is ScoreError) == alive
    assert both(name, scores, None, "first", *given)[1][0] is ScoreError
    if name != "in_layers":  # before anything is counted
        assert both(name, scores, active, "error", *given)[1] == both(name, scores, active, "error", *given)[0]


@pytest.mark.parametrize("kind", ["plain", "equal", "infinite", "constant"])
def test_how_few_weights_a_round_may_keep(kind):
    for seed in range(6):
        scores = {name: one.abs() for name, one in scores_of(kind, seed).items()}
        for active in (None, half_of(seed)):
            total = sum(float(one.sum()) for one in scores.values() if np.isfinite(float(one.sum())))
            for share in (0.0, 1e-9, 0.01, 0.3, 0.999, 1.0, 5.0):
                host, device = safe_counts(scores, active, share * total)
                assert host == device, (seed, share)
    scores["second"][1, 1] = torch.nan
    host, device = safe_counts(scores, None, 1.0)
    assert host == device
    assert "second: a score is NaN" in host[1]
    scores["second"][1, 1] = -5.0  # a method of somebody's own: sums may fall
    for flow in (-1.0, 0.5, 3.0, 100.0):
        host, device = safe_counts(scores, None, flow)
        assert host == device


def safe_counts(scores: dict[str, torch.Tensor], active: Masks | None, flow: float) -> list[Any]:
    there = None
    if active is not None:
        flat = torch.cat([torch.from_numpy(one).reshape(-1) for one in active.values()])
        there = DeviceMasks(flat, SHAPES, int(flat.sum()))
    found = []
    for by, values, masks in ((ON_HOST, on_host(scores), active), (ON_DEVICE, in_full(scores), there)):
        try:
            found.append(by.safe_count(values, masks, 3, flow))
        except ScoreError as error:
            found.append(("refused", str(error)))
    return found


def test_what_is_pruned_becomes_zero_whatever_it_was():
    weights = {"a": torch.tensor([[-1.0, torch.nan], [torch.inf, -0.0]]), "b": torch.tensor([-2.0, 3.0, -0.0])}
    kept = {"a": weights["a"].clone(), "b": weights["b"].clone()}
    flat = torch.tensor([True, False, False, False, False, True, True])
    masks = DeviceMasks(flat, {"a": (2, 2), "b": (3,)}, 3)
    masks.remove_from(weights)
    for name, mask in masks.arrays().items():
        bits = weights[name].view(torch.int32)
        assert torch.equal(bits[torch.from_numpy(mask)], kept[name].view(torch.int32)[torch.from_numpy(mask)])
        assert not bits[torch.from_numpy(~mask)].any()
    assert masks.kept == {"a": 1, "b": 2}
    assert list(masks) == ["a", "b"]
    assert len(masks) == 2


def small() -> Network:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(4, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128, 10),
    )
    return wrap(model, (4, 8, 8))


RUNS = {
    "global": ("synflow", {}),
    "auto": ("synflow", {"rounds": "auto", "density": 0.3}),
    "layer": ("synflow", {"scope": "layer"}),
    "N:M": ("synflow", {"pattern": Pattern(1, 4), "density": None}),
    "random": ("synflow", {"ties": "random"}),
    "invert": ("synflow", {"invert": True, "rounds": 1}),
    "shuffle": ("synflow", {"shuffle": True}),
    "samples": ("iter-snip", {"data": "toy", "per_class": 2}),
    "recovers": ("force", {"data": "toy", "per_class": 2}),
    "recovers, layer": ("force", {"data": "toy", "per_class": 2, "scope": "layer", "batch_norm": "running"}),
    "recovers, N:M": ("force", {"data": "toy", "per_class": 2, "pattern": Pattern(1, 4), "density": None}),
    "by sample": ("fisher", {"data": "toy", "per_class": 2}),
    "by probes": ("hutchinson", {"data": "toy", "per_class": 1}),
    "squared": ("synflow-l2", {}),
    "grasp": ("grasp", {"data": "toy", "per_class": 2, "scope": "layer"}),
    "given": ("synflow", {"densities": (("*", 0.25),), "density": None}),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_whole_run_selects_as_the_host_would(name, monkeypatch):
    method, options = RUNS[name]
    wish = {"density": 0.2, "device": "cpu:0"}
    if get(method).iterative:
        wish["rounds"] = 6
    network = small()
    dataset = Toy(10, (4, 8, 8), 4) if get(method).data else None
    request = PruneRequest(get(method), **{**wish, **options})
    ties = Ties(request.ties, request.seed)
    found = choose_masks(network, request, dataset=dataset, ties=ties)
    asked = run._asked
    monkeypatch.setattr(run, "_asked", lambda scorer, wish, *rest: asked(scorer, replace(wish, device="cpu"), *rest))
    noted = Ties(request.ties, request.seed)
    expected = choose_masks(network, request, dataset=dataset, ties=noted)
    assert found[1] == expected[1]
    assert {n: one.tobytes() for n, one in found[0].items()} == {n: one.tobytes() for n, one in expected[0].items()}
    assert ties.found == noted.found


def test_a_method_of_ones_own_is_given_arrays(monkeypatch):
    given: list[type] = []

    def make_scorer(context: ScoreContext) -> Scorer:
        def score(masks: Masks | None) -> Scores:
            given.append(type(masks))
            assert masks is None or all(isinstance(one, np.ndarray) for one in masks.values())
            return Scores({layer.name: torch.rand(layer.shape, device=context.device) for layer in context.layers})

        return score

    mine = Method("mine", "", "", make_scorer, iterative=True)
    used: list[Selection] = []
    asked = run._asked
    monkeypatch.setattr(run, "_asked", lambda *given: used.append((found := asked(*given)).by) or found)
    choose_masks(small(), PruneRequest(mine, 0.3, rounds=3, device="cpu:0"))
    assert given == [type(None), dict, dict]
    assert used == [ON_DEVICE] * 3


def test_scores_that_a_method_leaves_on_the_host_are_selected_from_there():
    request = PruneRequest(get("synflow"), 0.5, device="cuda")
    masks = DeviceMasks(torch.tensor([True, False]), {"a": (2,)}, 1)
    for before in (None, masks, masks.arrays()):
        found = run._asked(lambda _: Scores({"a": torch.ones(2)}), request, ("a",), before)  # type: ignore[arg-type]
        assert found.by is ON_HOST
        assert isinstance(found.scores["a"], np.ndarray)
        assert before is None or found.masks["a"].tolist() == [True, False]  # type: ignore[index]


def a_round(method: str, network: Network, **options: Any) -> tuple[float, float, float]:
    """Launches, waits and sends of each round, but for the first two and what is done once a run."""
    dataset = Toy(10, network.input_shape or (), 3) if get(method).data else None

    def rounds(count: int) -> Dispatched:
        request = PruneRequest(get(method), 0.05, rounds=count, device="cpu:0", **options)
        return dispatched(lambda: choose_masks(network, request, dataset=dataset))

    few, many = rounds(2), rounds(6)
    spent = [(one.launches.total(), one.waits.total(), one.sends) for one in (few, many)]
    return tuple((b - a) / 4 for a, b in zip(*spent, strict=True))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("method", "options", "most"),
    [
        ("synflow", {}, 180),
        ("synflow", {"scope": "layer"}, 450),
        ("iter-snip", {"data": "toy", "per_class": 3}, 210),
        ("force", {"data": "toy", "per_class": 3}, 210),
    ],
    ids=["synflow", "layer", "iter-snip", "force"],
)
def test_a_round_waits_for_its_loss_or_flow_and_for_its_selection(method, options, most):
    launches, waits, sends = a_round(method, init_network("resnet20", 10, 0), **options)
    assert waits == 2
    assert sends == 0
    assert launches <= most


def test_a_selection_waits_once_and_takes_three_times_the_memory_of_its_scores():
    scores = {str(k): torch.rand(1000, dtype=torch.float64) for k in range(20)}
    counts = dict.fromkeys(scores, 400)
    size = sum(one.nbytes for one in scores.values())
    active = ON_DEVICE.largest(scores, 15000)
    for share in (0.05, 0.3, 0.5, 0.7):
        found = dispatched(lambda share=share: ON_DEVICE.largest(scores, int(share * 20000), active, Ties()))
        assert found.waits.total() == 1
        assert found.launches.total() <= 20
        assert found.bytes <= 3 * size
    assert dispatched(lambda: ON_DEVICE.largest_by_layer(scores, counts)).waits.total() == 1
    assert dispatched(lambda: ON_DEVICE.safe_count(scores, active, 10, 50.0)).waits.total() == 2
    equal = {name: torch.ones_like(one) for name, one in scores.items()}
    assert dispatched(lambda: ON_DEVICE.largest(equal, 5000)).waits.total() == 2
    assert dispatched(lambda: ON_DEVICE.largest_by_layer(equal, counts)).waits.total() == 1
    drawn = dispatched(lambda: ON_DEVICE.largest(equal, 5000, None, Ties("random")))
    assert drawn.waits.total() == 2
    layers = layers_of(transposed=False).layers
    values = {one.name: torch.rand(one.shape) for one in layers}
    found = dispatched(lambda: ON_DEVICE.in_layers(values, Pattern(2, 4), layers))
    assert found.waits.total() == 1
    assert found.launches.total() <= 40
    same = {name: torch.ones_like(one) for name, one in values.items()}
    assert dispatched(lambda: ON_DEVICE.in_layers(same, Pattern(2, 4), layers)).waits.total() == 2


def test_what_is_counted_is_there_to_be_counted():
    """The counter sees each kind of read and of sending, so that a budget of none says something."""
    values = torch.arange(4.0)
    for read in (
        lambda: float(values[0]),
        lambda: bool(values[1] > 0),
        values.tolist,
        values.cpu,
        values.nonzero,
        lambda: values[values > 1],
        values[0].item,
    ):
        assert dispatched(read).waits.total() == 1
    assert dispatched(lambda: torch.from_numpy(np.ones(2))).sends == 1
    assert dispatched(lambda: torch.tensor([1, 2])).sends == 1
    found = dispatched(lambda: (values * 2).view(2, 2).add_(1))
    assert (found.launches.total(), found.waits.total(), found.sends) == (2, 0, 0)
    assert found.bytes == values.nbytes


def test_layers_of_one_method_that_is_not_marked_are_arrays_too():
    request = PruneRequest(replace(get("synflow"), device_masks=False), 0.2, rounds=4, device="cpu:0")
    marked = PruneRequest(get("synflow"), 0.2, rounds=4, device="cpu:0")
    one, other = choose_masks(small(), request)[0], choose_masks(small(), marked)[0]
    assert all(np.array_equal(one[name], other[name]) for name in one)
