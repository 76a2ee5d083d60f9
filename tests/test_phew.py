"""PHEW: what is kept lies on kept paths, over every real connection; how often walks take each way; large densities."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from networks import slim_network
from test_trace import conv, net
from torch import nn

from pai_cli.errors import MethodOptionError, ScoreError, TraceError
from pai_cli.methods.phew import make_scorer
from pai_cli.methods.registry import get
from pai_cli.methods.walks import Walker, _Choices
from pai_cli.models.network import Network, init_network, prunable_layers
from pai_cli.models.trace import INPUT, Graph, trace
from pai_cli.pruning.base import Masks, ScoreContext
from pai_cli.pruning.run import PruneRequest, choose_masks, prune


def wrap(model: nn.Module, shape: tuple[int, ...]) -> Network:
    return Network(model, "toy", shape, prunable_layers(model))


def shortcuts() -> Network:
    """Identity and projected shortcuts, a concatenation, groups, depthwise, transposed, and a flatten."""

    def forward(m, x):
        x = torch.relu(m.stem(x))
        x = x + m.second(torch.relu(m.first(x)))
        x = torch.relu(m.grouped(x) + m.project(x))
        x = torch.cat([m.deep(x), x], 1)
        return m.fc(m.up(x).flatten(1))

    torch.manual_seed(0)
    model = net(
        forward,
        stem=conv(3, 8), first=conv(8, 6), second=conv(6, 8), grouped=conv(8, 12, groups=4), project=conv(8, 12, 1),
        deep=conv(12, 12, groups=12), up=nn.ConvTranspose2d(24, 4, 2, groups=2), fc=nn.Linear(4 * 25, 5),
    )  # fmt: skip
    return wrap(model, (3, 4, 4))


def block_of(mask: np.ndarray, layout) -> np.ndarray:
    """Which places a row is connected to: (rows, places)."""
    groups = layout.groups
    flat = mask.reshape(*mask.shape[:2], -1).any(2)
    one = flat.shape[0] // groups
    parts = [flat[i * one : (i + 1) * one] for i in range(groups)]
    parts = [part.T if layout.transposed else part for part in parts]
    rows, places = parts[0].shape
    wide = np.zeros((rows * groups, places * groups), bool)
    for i, part in enumerate(parts):
        wide[i * rows : (i + 1) * rows, i * places : (i + 1) * places] = part
    return wide


def off_paths(graph: Graph, masks: Masks) -> dict[str, np.ndarray]:
    """Kept weights that lie on no path of kept weights from the input to the output, by a plain search."""
    blocks = [block_of(masks[call.layer.name], call.layer.layout) for call in graph.calls]
    reached = [np.zeros(block.shape[1], bool) for block in blocks]
    rows = [np.zeros(block.shape[0], bool) for block in blocks]
    for i, call in enumerate(graph.calls):
        for wire in call.wires:
            for unit, place in zip(wire.units, wire.places, strict=True):
                reached[i][place] |= wire.source == INPUT or rows[wire.source][unit]
        rows[i] = (blocks[i] & reached[i]).any(1)
    alive = [np.zeros(block.shape[0], bool) for block in blocks]
    for wire in graph.outputs:
        alive[wire.source][wire.units] = True
    for i in reversed(range(len(blocks))):
        open_places = (blocks[i] & alive[i][:, None]).any(0)
        for wire in graph.calls[i].wires:
            for unit, place in zip(wire.units, wire.places, strict=True):
                if wire.source != INPUT and open_places[place]:
                    alive[wire.source][unit] = True
    found = {}
    for i, call in enumerate(graph.calls):
        good = (blocks[i] & reached[i]) & alive[i][:, None]
        layout, mask = call.layer.layout, masks[call.layer.name]
        parts = [part.T if layout.transposed else part for row in np.split(good, layout.groups, 0) for part in [row]]
        size = good.shape[1] // layout.groups
        inside = np.concatenate(
            [
                (part[:, g * size : (g + 1) * size] if not layout.transposed else part[g * size : (g + 1) * size])
                for g, part in enumerate(parts)
            ]
        )
        found[call.layer.name] = mask & ~inside.reshape(*mask.shape[:2], *[1] * (mask.ndim - 2))
    return found


@pytest.mark.parametrize(
    ("name", "density"),
    [
        *itertools.product(["shortcuts", "mlp-30-20-20-5"], [0.02, 0.05, 0.2, 0.6, 0.95, 1.0]),
        *(("lenet-5", 0.05), ("resnet8", 0.05), ("resnet8-1x1", 0.2)),
    ],
)
def test_everything_kept_lies_on_a_kept_path_but_for_the_last_walk(name: str, density: float) -> None:
    network = shortcuts() if name == "shortcuts" else init_network(name, None, 1)
    masks, _ = choose_masks(network, PruneRequest(get("phew"), density, seed=3))
    graph = trace(network.model, network.input_shape)
    stray = off_paths(graph, masks)
    # A walk through a weight passes each call at most once.
    assert sum(int(mask.sum()) for mask in stray.values()) < len(graph.calls)


def scores_of(network: Network, counts: int | None, seed: int = 0) -> np.ndarray:
    context = ScoreContext(network, network.layers, network.input_shape, "cpu", seed, counts)
    return np.concatenate([value.numpy().reshape(-1) for value in make_scorer(context)(None).values.values()])


def test_scores_are_the_order_of_the_walks() -> None:
    network = shortcuts()
    some = scores_of(network, 100)
    found = np.sort(some[some > 0])[::-1]
    assert len(found) >= 100
    assert found.tolist() == [network.total - i for i in range(len(found))]
    assert np.array_equal(np.sort(scores_of(network, None)), np.arange(1, network.total + 1))


def test_a_larger_density_keeps_what_a_smaller_one_kept_when_walks_are_the_same() -> None:
    network = wrap(nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 4)), (6,))
    small, _ = choose_masks(network, PruneRequest(get("phew"), 0.2))
    large, _ = choose_masks(network, PruneRequest(get("phew"), 0.25))
    assert all((small[name] <= large[name]).all() for name in small)


def test_walks_take_each_way_as_often_as_its_magnitude_says() -> None:
    network = shortcuts()
    graph = trace(network.model, network.input_shape)
    magnitudes = {layer.name: network.parameter(layer.name).detach().numpy() for layer in network.layers}
    sizes = [value.size for value in magnitudes.values()]
    firsts = dict(zip(magnitudes, np.cumsum([0, *sizes]).tolist(), strict=False))
    walker = Walker(graph, magnitudes, firsts)
    walks = 20_000
    random = np.random.default_rng(0)
    steps = walker.forwards(np.arange(walks), np.zeros(walks, np.int64), random)
    taken = np.bincount(np.concatenate([part.weights for part in steps]), minlength=sum(sizes)) / walks
    wanted = np.concatenate([expected(graph, magnitudes)[name].reshape(-1) for name in magnitudes])
    assert np.abs(taken - wanted).max() < 6 * np.sqrt(0.25 / walks)
    assert np.abs(taken - wanted).mean() < 2 * np.sqrt(wanted / walks).mean()


def expected(graph: Graph, magnitudes: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Chance that a walk from unit 0 of the input takes each weight, by passing chances on from unit to unit."""
    chance = {name: np.zeros(value.shape) for name, value in magnitudes.items()}
    at = {INPUT: np.eye(1, graph.inputs)[0]} | {i: np.zeros(call.outputs) for i, call in enumerate(graph.calls)}
    ends = {(wire.source, int(unit)) for wire in graph.outputs for unit in wire.units}
    for source in sorted(at):
        for unit, here in enumerate(at[source]):
            if (source, unit) in ends or not here:
                continue
            options = []
            for i, call in enumerate(graph.calls):
                for wire in call.wires:
                    for place in wire.places[(wire.units == unit)] if wire.source == source else ():
                        options += [(i, *option) for option in weights_behind(call, int(place))]
            masses = np.array([abs(magnitudes[graph.calls[i].layer.name][index]) for i, index, _ in options])
            for (i, index, row), mass in zip(options, masses / masses.sum(), strict=True):
                chance[graph.calls[i].layer.name][index] += here * mass
                at[i][row] += here * mass
    return chance


def weights_behind(call, place: int) -> list[tuple[tuple[int, ...], int]]:
    """The weights that read a place, each as its index and the row that it leads to."""
    layout, shape = call.layer.layout, call.layer.shape
    group = place // (call.places // layout.groups)
    found = []
    for index in np.ndindex(*shape):
        if layout.transposed:
            reads, row = index[0], group * shape[1] + index[1]
        else:
            reads, row = (index[0] // (shape[0] // layout.groups)) * shape[1] + index[1], index[0]
        if reads == place:
            found.append((index, row))
    return found


def test_choices_follow_their_mass_whatever_its_size() -> None:
    mass = np.array([1e-300, 3e-300, 0.0, 0.0, 0.0, 1e300, 1e300, 5.0, 7.0, 9.0])
    allowed = np.array([True] * 7 + [False, True, False])
    choices = _Choices(mass, np.array([2, 3, 2, 3]), allowed)
    random = np.random.default_rng(0)
    share = np.bincount(choices.draw(np.repeat([0, 1, 2, 3], 10_000), random), minlength=10) / 10_000
    assert share == pytest.approx([0.25, 0.75, 1 / 3, 1 / 3, 1 / 3, 0.5, 0.5, 0, 1, 0], abs=0.02)
    assert share[[7, 8, 9]].tolist() == [0, 1, 0]


def test_zero_weights_are_walked_on_last() -> None:
    model = nn.Sequential(nn.Linear(10, 10, bias=False), nn.Linear(10, 10, bias=False))
    with torch.no_grad():
        model[0].weight[5:] = 0
        model[1].weight[:, 5:] = 0
    masks, _ = choose_masks(wrap(model, (10,)), PruneRequest(get("phew"), 0.5))
    assert masks["0.weight"].any(1).tolist() == [True] * 5 + [False] * 5
    assert sum(mask.sum() for mask in masks.values()) == 100 == sum(int((w != 0).sum()) for w in model.parameters())
    assert all(
        mask[(weight != 0).numpy()].all() for mask, weight in zip(masks.values(), model.parameters(), strict=True)
    )
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
    for density in (0.05, 0.5, 1.0):
        masks, _ = choose_masks(wrap(model, (10,)), PruneRequest(get("phew"), density))
        assert sum(mask.sum() for mask in masks.values()) == 200 * density


def test_weights_on_no_path_come_after_all_others() -> None:
    model = net(lambda m, x: m.b(m.a(x)[:, :3]), a=nn.Linear(4, 6), b=nn.Linear(3, 2), unused=nn.Linear(5, 5))
    network = wrap(model, (4,))
    masks, _ = choose_masks(network, PruneRequest(get("phew"), 18 / network.total))
    assert masks["a.weight"].any(1).tolist() == [True] * 3 + [False] * 3
    assert masks["a.weight"][:3].all()
    assert masks["b.weight"].all()
    assert not masks["unused.weight"].any()
    masks, _ = choose_masks(network, PruneRequest(get("phew"), 1.0))
    assert all(mask.all() for mask in masks.values())


def test_walks_lead_through_layers_that_are_ignored() -> None:
    network = shortcuts()
    result = prune(network, PruneRequest(get("phew"), 0.1, ignore=("second", "up")))
    assert not {"second.weight", "up.weight"} & set(result.masks)
    whole = {layer.name: np.ones(layer.shape, bool) for layer in network.layers} | result.masks
    graph = trace(network.model, network.input_shape)
    stray = off_paths(graph, whole)
    assert sum(int(stray[name].sum()) for name in result.masks) < len(graph.calls)
    assert result.connected is True


@pytest.mark.parametrize("name", ["resnet20", "vgg11-bn"])
def test_no_layer_collapses_where_random_would_leave_few(name: str) -> None:
    network = slim_network(name)
    result = prune(network, PruneRequest(get("phew"), 0.005))
    assert result.kept == round(0.005 * network.total)
    assert result.collapsed == ()
    assert result.connected is True


def test_what_phew_cannot_do_is_said_in_one_line() -> None:
    with pytest.raises(MethodOptionError, match=r"^the shape of one input is not known, .* input_shape="):
        choose_masks(
            Network(nn.Linear(3, 2), "toy", None, prunable_layers(nn.Linear(3, 2))), PruneRequest(get("phew"), 0.5)
        )
    cut = net(lambda m, x: x * m.a(x).numel(), a=nn.Linear(2, 2))
    with pytest.raises(ScoreError) as caught:
        choose_masks(wrap(cut, (2,)), PruneRequest(get("phew"), 0.5))
    assert str(caught.value) == "phew: no path leads from the network's input to its output; give another method="
    attention = wrap(nn.TransformerEncoderLayer(4, 2, batch_first=True), (3, 4))
    with pytest.raises(TraceError, match=r"take a method= that needs no wiring, such as erk$"):
        choose_masks(attention, PruneRequest(get("phew"), 0.5))
