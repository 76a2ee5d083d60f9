"""Paths of kept weights: against an enumeration of every path, known answers, and laws."""

from __future__ import annotations

import math
import pickle
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import run, slim
from torch import nn
from torch.nn import functional as F  # noqa: N812

from pai_cli.errors import MethodOptionError, TraceError
from pai_cli.models.network import init_network, prunable_layers
from pai_cli.models.unrolled.degrees import Loose, loose
from pai_cli.models.unrolled.kept import Kept
from pai_cli.models.unrolled.paths import NetworkPaths, Unrolled
from pai_cli.models.unrolled.sums import NO_PATH, TOO_FAR_APART
from pai_cli.models.unrolled.tape import Tape, unroll

# --- every path, one by one


@dataclass
class Elements:
    """A graph of numbered elements; an edge has a weight's place, (name, flat index), or None."""

    count: int = 0
    edges: dict[int, list[tuple[int, tuple[str, int] | None]]] = field(default_factory=dict)
    rows: dict[int, tuple[str, int]] = field(default_factory=dict)

    def new(self, *shape: int) -> np.ndarray:
        self.count += math.prod(shape)
        return np.arange(self.count - math.prod(shape), self.count).reshape(shape)

    def join(self, source: int, target: int, weight: tuple[str, int] | None = None) -> None:
        self.edges.setdefault(int(source), []).append((int(target), weight))

    def all_paths(self, starts: np.ndarray, ends: np.ndarray, masks: dict[str, np.ndarray]):
        """Every path of kept weights, as the elements and the weights on it."""
        last = set(ends.reshape(-1).tolist())

        def from_here(at: int, elements: list[int], weights: list[tuple[str, int]]):
            if at in last:
                yield list(elements), list(weights)
            for target, weight in self.edges.get(at, ()):
                if weight is None or masks[weight[0]].reshape(-1)[weight[1]]:
                    yield from from_here(target, [*elements, target], weights + ([] if weight is None else [weight]))

        for start in starts.reshape(-1).tolist():
            yield from from_here(start, [start], [])


class Program(nn.Module):
    """A random network, and beside it the graph of its elements, built by loops of their own."""

    def __init__(self, random: np.random.Generator) -> None:
        super().__init__()
        self.graph = Elements()
        self.run: list = []  # (function, positions of the values it takes)
        self.places = [self.graph.new(1, 4, 4)]
        self.inputs = self.places[0]
        self.drawn = random
        for _ in range(3):
            self.grow_image()
        self.add(self.flat, -1)
        for _ in range(2):
            self.grow_vector()
        self.linear(len(self.places) - 1, 2)
        self.outputs = self.places[-1]

    def add(self, make, *which: int) -> None:
        which = tuple(range(len(self.places))[one] for one in which)
        function, places = make(*(self.places[one] for one in which))
        self.run.append((function, which))
        self.places.append(places)

    def some(self, dims: int) -> int:
        return int(self.drawn.choice([at for at, places in enumerate(self.places) if places.ndim == dims]))

    def grow_image(self) -> None:
        one = self.some(3)
        kind = self.drawn.integers(5)
        if kind <= 1:
            self.conv(one)
        elif kind == 2:
            self.add(self.pool, one)
        elif kind == 3:  # a block beside a shortcut
            self.conv(one, len(self.places[one]), 3, 1, 1)
            self.add(self.plus, one, -1)
        else:
            same = [at for at, places in enumerate(self.places) if places.shape[1:] == self.places[one].shape[1:]]
            self.add(self.beside, one, int(self.drawn.choice(same)))

    def grow_vector(self) -> None:
        one = self.some(1)
        kind = self.drawn.integers(4)
        if kind <= 1:
            self.linear(one, int(self.drawn.integers(1, 4)))
        elif kind == 2:
            self.linear(one, len(self.places[one]))
            self.add(self.plus, one, -1)
        else:
            self.add(self.beside, one, self.some(1))

    def conv(self, which: int, *given: int) -> None:
        """One convolution: `given` its rows, kernel, stride and padding, or drawn."""
        places = self.places[which]
        channels, height, width = places.shape
        groups = channels if self.drawn.integers(3) == 0 else 1
        padding = int(self.drawn.integers(0, 2))
        kernel = int(self.drawn.integers(1, min(3, height + 2 * padding) + 1))
        drawn = groups * int(self.drawn.integers(1, 3)), kernel, int(self.drawn.integers(1, 3)), padding
        rows, kernel, stride, padding = given or drawn
        layer = nn.Conv2d(channels, rows, kernel, stride, padding, groups=groups)
        name = f"layer{len(self.run)}"
        self.add_module(name, layer)

        def make(given: np.ndarray):
            side = (height + 2 * padding - kernel) // stride + 1
            made = self.graph.new(rows, side, side)
            shape = tuple(layer.weight.shape)
            for row, y, x, c, i, j in product(
                range(rows), range(side), range(side), range(shape[1]), *[range(kernel)] * 2
            ):
                up, across = y * stride + i - padding, x * stride + j - padding
                if 0 <= up < height and 0 <= across < width:
                    channel = row // (rows // groups) * shape[1] + c
                    weight = f"{name}.weight", int(np.ravel_multi_index((row, c, i, j), shape))
                    self.graph.join(given[channel, up, across], made[row, y, x], weight)
                self.graph.rows[int(made[row, y, x])] = name, row
            return layer, made

        self.add(make, which)

    def linear(self, which: int, rows: int) -> None:
        layer = nn.Linear(len(self.places[which]), rows)
        name = f"layer{len(self.run)}"
        self.add_module(name, layer)

        def make(given: np.ndarray):
            made = self.graph.new(rows)
            for row, column in product(range(rows), range(len(given))):
                self.graph.join(given[column], made[row], (f"{name}.weight", row * len(given) + column))
                self.graph.rows[int(made[row])] = name, row
            return layer, made

        self.add(make, which)

    def pool(self, given: np.ndarray):
        channels, height, width = given.shape
        pooled = F.avg_pool2d if self.drawn.integers(2) else F.max_pool2d
        kernel, padding = (2, 0) if self.drawn.integers(2) else (3, 1)
        side = -(-height // 2)  # the last window may be cut
        made = self.graph.new(channels, side, side)
        for c, row, column in product(range(channels), range(side), range(side)):
            for y, x in product(range(height), range(width)):
                if all(0 <= at - 2 * window + padding < kernel for at, window in ((y, row), (x, column))):
                    self.graph.join(given[c, y, x], made[c, row, column])
        return lambda value: pooled(value, kernel, 2, padding, ceil_mode=kernel == 2), made

    def plus(self, one: np.ndarray, other: np.ndarray):
        made = self.graph.new(*one.shape)
        for taken in (one, other):
            for source, target in zip(taken.reshape(-1), made.reshape(-1), strict=True):
                self.graph.join(source, target)
        return lambda a, b: torch.relu(a + b), made

    def beside(self, one: np.ndarray, other: np.ndarray):
        made = self.graph.new(len(one) + len(other), *one.shape[1:])
        for source, target in zip(np.concatenate([one, other]).reshape(-1), made.reshape(-1), strict=True):
            self.graph.join(source, target)
        return lambda a, b: torch.cat([torch.tanh(a), b], 1), made

    def flat(self, given: np.ndarray):
        made = self.graph.new(given.size)
        for source, target in zip(given.reshape(-1), made, strict=True):
            self.graph.join(source, target)
        return lambda value: value.flatten(1), made

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values = [x]
        for function, which in self.run:
            values.append(function(*(values[one] for one in which)))
        return values[-1]


def measured(model: nn.Module, masks: dict[str, np.ndarray], shape: tuple[int, ...]) -> NetworkPaths:
    parameters = dict(model.named_parameters())
    return Unrolled(unroll(model, shape)).measure(masks, lambda name: parameters[name].detach().numpy())


def random_masks(model: nn.Module, density: float, random: np.random.Generator) -> dict[str, np.ndarray]:
    return {layer.name: random.random(layer.shape) < density for layer in prunable_layers(model)}


@pytest.mark.parametrize("seed", range(25))
def test_every_path_of_a_random_network(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if seed % 2:  # no layer is too small for a sparse matrix
        monkeypatch.setattr("pai_cli.models.unrolled.kept.SMALL", 0)
    check_every_path(seed)


def check_every_path(seed: int) -> None:
    """One random network under one random mask: each weight, number and sum is what the paths, taken one by one, say."""
    random = np.random.default_rng(seed)
    torch.manual_seed(seed % 2**32)
    model = Program(random)
    masks = random_masks(model, 0.45, random)
    paths = list(model.graph.all_paths(model.inputs, model.outputs, masks))
    weights = {name: parameter.detach().double().numpy().reshape(-1) for name, parameter in model.named_parameters()}
    found = measured(model, masks, (1, 4, 4))
    on_a_path = {name: {weight for _, used in paths for one, weight in used if one == name} for name in masks}
    effective = Unrolled(unroll(model, (1, 4, 4))).effective(masks)
    for name, mask in masks.items():
        assert set(np.flatnonzero(effective[name])) == on_a_path[name]
        assert (found.layers[name].kept, found.layers[name].effective) == (mask.sum(), len(on_a_path[name]))
    if not paths:
        assert found.log_paths.reason == found.log_path_weight.reason == NO_PATH
    else:
        near(found.log_paths, math.log(len(paths)))
        near(
            found.log_path_weight,
            math.log(math.fsum(math.prod(abs(weights[n][i]) for n, i in used) for _, used in paths)),
        )
    last = max((name for name, _ in model.graph.rows.values()), key=lambda name: int(name[5:]))
    on = {model.graph.rows[e] for elements, _ in paths for e in elements if e in model.graph.rows}
    assert found.effective_nodes == len([unit for unit in on if unit[0] != last])


def kept(tape: Tape, masks: dict[str, np.ndarray]) -> dict[str, Kept]:
    return {name: Kept(layer, masks.get(name)) for name, layer in tape.layers.items()}


def loose_by_hand(model: Program, masks: dict[str, np.ndarray]) -> Loose:
    """Every edge, one by one, from the node it leads out of: through what has no weight, to what a layer gives."""
    inputs = set(model.inputs.reshape(-1).tolist())
    nodes, into, out = inputs | set(model.graph.rows), Counter[int](), Counter[int]()

    def targets(at: int):
        for target, weight in model.graph.edges.get(at, ()):
            if weight is None:
                yield from targets(target)
            elif masks[weight[0]].reshape(-1)[weight[1]]:
                yield target

    for node in nodes:
        for target in targets(node):
            out[node] += 1
            into[target] += 1
    last = {node for node in model.outputs.reshape(-1).tolist() if node in model.graph.rows}
    sinks = [node for node in nodes - last if into[node] and not out[node]]
    sources = [node for node in nodes - inputs if out[node] and not into[node]]
    alone = [node for node in nodes if not into[node] and not out[node]]
    counts = len(nodes), into.total(), len(sinks), len(sources), len(alone)
    return Loose(*counts, sum(into[node] for node in sinks), sum(out[node] for node in sources))


@pytest.mark.parametrize("seed", range(40))
def test_what_of_a_random_network_leads_nowhere(seed: int) -> None:
    random = np.random.default_rng(seed)
    model = Program(random)
    tape = unroll(model, (1, 4, 4))
    for density in (0.0, 0.3, 0.6, 1.0):
        masks = random_masks(model, density, random)
        assert loose(tape, kept(tape, masks)) == loose_by_hand(model, masks)


def test_what_of_a_chain_leads_nowhere() -> None:
    masks = {
        "0.weight": np.array(
            [[1, 0, 0], [1, 1, 0], [0, 0, 0]], bool
        ),  # unit 2 has no edge into it; the last input has none
        "1.weight": np.array([[1, 0, 0], [1, 0, 1]], bool),  # unit 1 below is read by nobody: a sink of two edges
        "2.weight": np.array([[0, 1], [0, 0]], bool),  # unit 0 is a sink; the last output has no edge
    }
    tape = unroll(chain(3, 3, 2, 2), (3,))
    found = loose(tape, kept(tape, masks))
    assert found == Loose(nodes=10, edges=7, sinks=2, sources=1, disconnected=2, into_sinks=3, out_of_sources=1)


@pytest.mark.parametrize(("name", "nodes"), [("resnet20", 191_894), ("resnet32", 306_582)])
def test_nodes_as_the_study_has_them(name: str, nodes: int) -> None:
    """The study counts the first convolution's padded input, 3 x 34 x 34, and no other padding."""
    tape = unroll(init_network(name, None, 0).model, (3, 32, 32))
    found = loose(tape, kept(tape, {}))
    assert found.nodes == nodes - 3 * (34**2 - 32**2)
    assert (found.sinks, found.sources, found.disconnected) == (0, 0, 0)


def near(measure, value: float) -> None:
    assert abs(measure.value - value) <= measure.error + 1e-14 * abs(value)
    assert measure.error < 1e-12 * max(1, abs(value))


# --- known answers


def chain(*sizes: int, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(sizes)))


def test_a_chain_is_a_product_of_matrices() -> None:
    model, random = chain(5, 7, 6, 3), np.random.default_rng(0)
    masks = random_masks(model, 0.6, random)
    found = measured(model, masks, (5,))
    number = np.ones(5, np.int64)
    weight = np.ones(5)
    for name, mask in masks.items():
        number = mask.astype(np.int64) @ number
        weight = (np.abs(model.get_parameter(name).detach().double().numpy()) * mask) @ weight
    near(found.log_paths, math.log(number.sum()))
    near(found.log_path_weight, math.log(weight.sum()))
    assert found.macs == sum(mask.sum() for mask in masks.values())


def test_dead_units_by_hand() -> None:
    masks = {
        "0.weight": np.array([[1, 0], [0, 0], [0, 1]], bool),  # unit 1 has no input
        "1.weight": np.array([[1, 1, 0], [0, 0, 0]], bool),  # unit 1 has no input; unit 2 below is read by nobody
        "2.weight": np.array([[1, 0], [1, 1]], bool),
    }
    found = measured(chain(2, 3, 2, 2), masks, (2,))
    counts = {name: (one.kept, one.effective, one.dead_inputs, one.dead_outputs) for name, one in found.layers.items()}
    assert counts == {"0.weight": (2, 1, 0, 1), "1.weight": (2, 1, 1, 0), "2.weight": (3, 2, 1, 0)}
    assert (found.nodes, found.effective_nodes) == (5, 2)
    near(found.log_paths, math.log(2))
    assert (found.macs, found.macs_effective) == (7, 4)


def test_the_centre_of_a_kernel_is_all_that_one_pixel_meets() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.Flatten(), nn.Linear(3, 2))
    masks = {layer.name: np.ones(layer.shape, bool) for layer in prunable_layers(model)}
    found = measured(model, masks, (2, 1, 1))
    assert found.layers["0.weight"].effective == 2 * 3
    near(found.log_paths, math.log(2 * 3 * 2))
    assert (found.macs, found.macs_effective) == (54 + 6, 6 + 6)


def test_a_layer_that_is_used_twice_and_one_that_is_not() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.idle = nn.Linear(3, 3), nn.Linear(3, 1), nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.a(self.a(x)))

    cycle = np.roll(np.eye(3, dtype=bool), 1, 0)
    masks = {"a.weight": cycle, "b.weight": np.array([[1, 0, 0]], bool), "idle.weight": np.eye(2, dtype=bool)}
    found = measured(Twice(), masks, (3,))
    one = found.layers["idle.weight"]
    assert (one.kept, one.effective, one.dead_inputs, one.dead_outputs) == (2, 0, 2, 2)
    assert found.layers["a.weight"].effective == 2  # 1 -> 2 -> 0 alone
    near(found.log_paths, 0.0)
    assert found.macs == 3 * 2 + 1


def test_a_transposed_convolution() -> None:
    model = nn.Sequential(
        nn.ConvTranspose2d(2, 4, 3, stride=2, groups=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1)
    )
    masks = {layer.name: np.ones(layer.shape, bool) for layer in prunable_layers(model)}
    masks["0.weight"][0] = False
    found = measured(model, masks, (2, 3, 3))
    assert found.layers["0.weight"].effective == masks["0.weight"].sum() == 2 * 9
    assert (found.layers["3.weight"].effective, found.layers["3.weight"].dead_inputs) == (2, 2)
    near(found.log_paths, math.log(9 * 2 * 9))
    assert found.macs == 9 * 18 + 4


def test_erk_at_a_density_of_two_thousandths() -> None:
    network = init_network("resnet20", 10, 0)
    masks = run(network, "erk", 0.002).masks
    found = Unrolled(unroll(network.model, network.input_shape)).measure(masks)
    counts = [(one.kept, one.effective) for one in found.layers.values()]
    assert tuple(map(sum, zip(*counts, strict=True))) == (537, 104)


def test_the_balance_is_of_shares_of_the_unmasked_network() -> None:
    masks = {"0.weight": np.eye(4, 3, dtype=bool), "1.weight": np.array([[1, 1, 0, 0]], bool)}
    found = measured(chain(3, 4, 1), masks, (3,))
    near(found.node_path_balance, (2 / 4 + math.log(2) / math.log(12)) / 2)
    alone = measured(nn.Linear(3, 2), {"weight": np.ones((2, 3), bool)}, (3,))
    assert alone.node_path_balance.reason == "the network without a mask has no hidden units, or one path only"


def test_depth_overflows_nothing() -> None:
    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(nn.Linear(40, 40) for _ in range(250))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for block in self.blocks:
                x = x + block(x)
            return x

    found = measured(Deep(), {}, (40,))
    near(found.log_paths, math.log(40) + 250 * math.log(41))


@pytest.mark.parametrize("size", [1e-300, 1e-320, 1e300])
def test_weights_of_any_size(size: float) -> None:
    model = chain(3, 4, 5, 2).double()
    for layer in model:
        nn.init.constant_(layer.weight, size)
    masks = random_masks(model, 0.7, np.random.default_rng(1))
    found = measured(model, masks, (3,))
    near(found.log_path_weight, found.log_paths.value + 3 * math.log(size))
    with torch.no_grad():
        model[1].weight.zero_()
    assert measured(model, masks, (3,)).log_path_weight.reason == NO_PATH
    assert measured(model, masks, (3,)).log_paths == found.log_paths


def test_what_float64_does_not_span_is_told() -> None:
    class Apart(nn.Module):
        """One unit passes all blocks by, the other grows by each."""

        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(nn.Linear(9, 9) for _ in range(320))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for block in self.blocks:
                x = x + block(x)
            return x

    mask = np.ones((9, 9), bool)
    mask[0] = mask[:, 0] = False
    found = measured(Apart(), {f"blocks.{i}.weight": mask for i in range(320)}, (9,))
    assert found.log_paths.reason == TOO_FAR_APART
    assert all(one.effective == 64 for one in found.layers.values())  # marks do not fade


# --- laws


@given(st.integers(0, 10_000), st.floats(0.1, 0.9))
@settings(max_examples=5)
def test_removing_a_weight_adds_no_path(seed: int, density: float) -> None:
    random = np.random.default_rng(seed)
    model = Program(random)
    unrolled = Unrolled(unroll(model, (1, 4, 4)))
    masks = random_masks(model, density, random)
    fewer = {name: mask & (random.random(mask.shape) < 0.9) for name, mask in masks.items()}
    before, after = unrolled.effective(masks), unrolled.effective(fewer)
    assert all((after[name] <= before[name]).all() for name in masks)
    assert all((before[name] <= masks[name]).all() for name in masks)
    more, less = unrolled.measure(masks).log_paths, unrolled.measure(fewer).log_paths
    assert not less.present or less.value <= more.value + more.error + less.error
    again = unrolled.measure(before)  # what is on no path is on none
    assert all((unrolled.effective(before)[name] == before[name]).all() for name in masks)
    assert again.log_paths == unrolled.measure(masks).log_paths


@given(st.integers(0, 10_000))
@settings(max_examples=8)
def test_the_order_of_hidden_units_changes_nothing(seed: int) -> None:
    random = np.random.default_rng(seed)
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.Flatten(), nn.Linear(12, 2))
    masks = random_masks(model, 0.3, random)
    order = random.permutation(4)
    moved = {**masks, "0.weight": masks["0.weight"][order], "2.weight": masks["2.weight"][:, order]}
    unrolled = Unrolled(unroll(model, (2, 4, 4)))
    one, other = unrolled.measure(masks), unrolled.measure(moved)
    assert (one.layers, one.effective_nodes, one.macs_effective) == (
        other.layers,
        other.effective_nodes,
        other.macs_effective,
    )
    assert one.log_paths.reason == other.log_paths.reason
    if one.log_paths.present:
        near(one.log_paths, other.log_paths.value)


# One of each kind of block, of few channels.
KINDS = (
    *("resnet18-3x3", "resnet50", "resnet20", "resnet20-1x1", "wrn-16-1", "vgg11", "mobilenetv2", "densenet121"),
    *("lenet-5", "lenet-300-100", "mlp-20-15-5"),
)


@pytest.mark.parametrize("name", KINDS)
def test_of_an_unmasked_network_all_is_effective_that_meets_more_than_padding(name: str) -> None:
    with slim():
        network = init_network(name, None, 0)
    channels, *sides = network.input_shape
    shape = (channels, *(min(side, 64) for side in sides))
    unrolled = Unrolled(unroll(network.model, shape))
    assert set(unrolled.tape.layers) == {layer.name for layer in network.layers}
    found = unrolled.measure({layer.name: np.ones(layer.shape, bool) for layer in network.layers})
    sizes: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for layer in network.layers:
        network.model.get_submodule(layer.name.removesuffix(".weight")).register_forward_hook(
            lambda _, given, out, name=layer.name: sizes.update({name: (given[0], out)})
        )
    with torch.no_grad():
        network.model.eval()(torch.ones(1, *shape))
    for layer in network.layers:
        one = found.layers[layer.name]
        assert (one.dead_inputs, one.dead_outputs) == (0, 0)
        given, _ = sizes[layer.name]
        centre = given.shape[2:] == (1, 1) and len(layer.shape) == 4
        assert one.effective == (layer.shape[0] * layer.shape[1] if centre else one.kept)
    assert found.log_paths == unrolled.log_paths
    assert found.macs == sum(
        out[0, 0].numel() * math.prod(layer.shape) if out.ndim == 4 else math.prod(layer.shape)
        for layer in network.layers
        for _, out in [sizes[layer.name]]
    )


def test_attention_mixes_elements() -> None:
    with slim():
        network = init_network("vit-tiny-patch16-224", 10, 0)
    with pytest.raises(TraceError, match="mixes its inputs"):
        unroll(network.model, network.input_shape)


class Largest(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.a(x).argmax(1)


@pytest.mark.parametrize(
    ("model", "shape", "error", "told"),
    [
        (nn.Linear(3, 2), None, MethodOptionError, "the shape of one input is not known"),
        (nn.Linear(3, 2), (4,), MethodOptionError, "the network failed on one input of shape 4"),
        (nn.Identity(), (4,), TraceError, "no convolution or linear layer"),
        (Largest(), (4,), TraceError, "nothing of what the network returns can be followed"),
        (
            nn.Sequential(nn.Conv2d(1, 1, 1), nn.Upsample(scale_factor=2, mode="bilinear")),
            (1, 4, 4),
            TraceError,
            "mixes",
        ),
    ],
)
def test_what_cannot_be_unrolled(model: nn.Module, shape, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        unroll(model, shape)


def into_a_part(wide: torch.Tensor, x: torch.Tensor) -> None:
    wide[:, :2] = x[:, 2:]


def into_a_view(wide: torch.Tensor, x: torch.Tensor) -> None:
    wide.view(4).copy_(x[0])


def added_to_a_part(wide: torch.Tensor, x: torch.Tensor) -> None:
    wide[:, 1:3].add_(x[:, 2:])


@pytest.mark.parametrize("write", [into_a_part, into_a_view, added_to_a_part])
def test_writing_into_a_part_is_refused(write) -> None:
    class Writes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            wide = torch.zeros(1, 4)
            write(wide, x)
            return self.a(wide)

    with pytest.raises(TraceError, match="writes into part of a tensor"):
        unroll(Writes(), (4,))


def test_moves_and_joins_of_users_own_modules() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.gate, self.b = nn.Conv2d(4, 4, 1), nn.Linear(4, 4), nn.Linear(9, 2, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.a(F.pixel_unshuffle(x, 2))  # 1 x 4 x 4 -> 4 x 2 x 2
            y = y * torch.sigmoid(self.gate(y.mean((2, 3))))[:, :, None, None]
            y = F.interpolate(y, scale_factor=2, mode="nearest")
            y = F.pad(y, (1, 0))[:, ::4].flatten(1)  # a column of nothing
            y = torch.stack([y, torch.zeros_like(y)], 1).amax(1)
            return y[:, :9] @ self.b.weight.T

    masks = {"a.weight": np.eye(4, dtype=bool)[:, :, None, None], "gate.weight": np.eye(4, dtype=bool)}
    masks["b.weight"] = np.ones((2, 9), bool)
    unrolled = pickle.loads(pickle.dumps(Unrolled(unroll(Own(), (1, 4, 4)))))
    found = unrolled.measure(masks)
    effective = unrolled.effective(masks)
    # Of each element of channel 0: itself, and by the gate all four; in each row of four, two elements twice.
    near(found.log_paths, math.log((8 - 1) * (1 + 4) * 2))
    assert effective["a.weight"].sum() == effective["gate.weight"].sum() == 1
    assert effective["b.weight"].sum(1).tolist() == [7, 7]


def test_the_network_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Dropout()).train()
    before = [parameter.clone() for parameter in model.parameters()]
    unroll(model, (3,))
    assert model.training
    assert all(map(torch.equal, before, model.parameters()))
