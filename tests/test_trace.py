"""The order and wiring of layers: what arrives where, over chains, shortcuts, concatenations, groups and flattening."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from networks import slim
from torch import nn
from torch.nn import functional as F  # noqa: N812

from pai_cli.errors import MethodOptionError, TraceError
from pai_cli.models.network import init_network
from pai_cli.models.operations import circular
from pai_cli.models.registry import known_names
from pai_cli.models.trace import INPUT, Call, Graph, Wire, trace
from pai_cli.spectral.layout import Layout


class Forward(nn.Module):
    """Layers by name, and what to do with them."""

    def __init__(self, forward, **layers):
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self._forward = forward

    def forward(self, x):
        return self._forward(self, x)


def net(forward, **layers) -> nn.Module:
    return Forward(forward, **layers)


def conv(inputs, outputs, kernel=3, **options) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False, **options)


def call(graph: Graph, name: str, which: int = 0) -> Call:
    return [one for one in graph.calls if one.layer.name == f"{name}.weight"][which]


def sources(graph: Graph, name: str, which: int = 0) -> dict[str, list[tuple[int, int]]]:
    """What a layer reads: by the writer's name, pairs of (unit, place)."""
    return {
        "input" if wire.source == INPUT else graph.calls[wire.source].layer.name.removesuffix(".weight"): pairs(wire)
        for wire in call(graph, name, which).wires
    }


def pairs(wire: Wire) -> list[tuple[int, int]]:
    assert wire.units.dtype == wire.places.dtype == np.int64
    found = list(zip(wire.units.tolist(), wire.places.tolist(), strict=True))
    assert len(set(found)) == len(found)
    return sorted(found, key=lambda pair: (pair[1], pair[0]))


def straight(count: int, offset: int = 0) -> list[tuple[int, int]]:
    return [(i, i + offset) for i in range(count)]


def test_chain() -> None:
    model = nn.Sequential(
        conv(3, 4), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Dropout(), conv(4, 5), nn.GELU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 6), nn.LayerNorm(6), nn.Hardswish(), nn.Linear(6, 2),
        nn.LogSoftmax(-1),
    )  # fmt: skip
    graph = trace(model, (3, 8, 8))
    assert graph.order == ("0.weight", "5.weight", "9.weight", "12.weight")
    assert graph.inputs == 3
    assert sources(graph, "0") == {"input": straight(3)}
    assert sources(graph, "5") == {"0": straight(4)}
    assert sources(graph, "9") == {"5": straight(5)}
    assert sources(graph, "12") == {"9": straight(6)}
    assert [(one.outputs, one.places) for one in graph.calls] == [(4, 3), (5, 4), (6, 5), (2, 6)]
    assert [(wire.source, pairs(wire)) for wire in graph.outputs] == [(3, straight(2))]
    assert [(a.layer.name, b.layer.name) for a, b, _ in graph.consecutive()] == list(pairwise(graph.order))


def test_flatten_multiplies_channels() -> None:
    model = nn.Sequential(conv(1, 2), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(2 * 4, 3))
    graph = trace(model, (1, 4, 4))
    assert sources(graph, "3") == {"0": [(place // 4, place) for place in range(8)]}
    assert graph.inputs == 1


def test_a_flattened_image_has_its_pixels_as_units() -> None:
    graph = trace(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), (3, 2, 2))
    assert graph.inputs == 12
    assert sources(graph, "1") == {"input": straight(12)}


def test_a_pooled_image_has_its_channels_as_units() -> None:
    graph = trace(nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(3 * 4, 3)), (3, 4, 4))
    assert sources(graph, "2") == {"input": [(place // 4, place) for place in range(12)]}
    assert trace(net(lambda m, x: m.a(x.mean((2, 3))), a=nn.Linear(3, 2)), (3, 4, 4)).inputs == 3


@pytest.mark.filterwarnings("ignore")  # torch.export's own parts are deprecated in places
def test_circular_padding_leaves_channels_where_they_are() -> None:
    model = nn.Sequential(conv(2, 3, padding_mode="circular"), conv(3, 4, 5, padding_mode="circular"))
    program = torch.export.export(model.eval(), (torch.ones(1, 2, 5, 6),)).module()
    for one in (model, program):
        graph = trace(one, (2, 5, 6))
        assert sources(graph, "0") == {"input": [(0, 0), (1, 1)]}
        assert sources(graph, "1") == {"0": [(0, 0), (1, 1), (2, 2)]}


@pytest.mark.parametrize("pads", [(2, 1), (0, 4, 3, 1), (1, 2, 0, 0, 3, 4)])
def test_circular_padding_is_that_of_pytorch(pads: tuple[int, ...]) -> None:
    given = torch.arange(360.0).reshape(2, 3, 4, 3, 5)[(0,) * (3 - len(pads) // 2)]
    assert torch.equal(circular(given, pads), F.pad(given, pads, mode="circular"))


def test_identity_shortcut_joins() -> None:
    def forward(m, x):
        x = torch.relu(m.stem(x))
        x = torch.relu(m.second(torch.relu(m.first(x))) + x)
        return m.fc(x.mean((2, 3)))

    graph = trace(net(forward, stem=conv(3, 4), first=conv(4, 6), second=conv(6, 4), fc=nn.Linear(4, 2)), (3, 8, 8))
    assert sources(graph, "first") == {"stem": straight(4)}
    assert sources(graph, "second") == {"first": straight(6)}
    assert sources(graph, "fc") == {"second": straight(4), "stem": straight(4)}


def test_projected_shortcut_joins() -> None:
    def forward(m, x):
        x = torch.relu(m.stem(x))
        y = m.second(torch.relu(m.first(x)))
        y += m.shortcut(x)
        return m.fc(y.mean((2, 3)))

    layers = {"stem": conv(3, 4), "first": conv(4, 6), "second": conv(6, 5), "shortcut": conv(4, 5, 1)}
    graph = trace(net(forward, **layers, fc=nn.Linear(5, 2)), (3, 8, 8))
    assert sources(graph, "shortcut") == sources(graph, "first") == {"stem": straight(4)}
    assert sources(graph, "fc") == {"second": straight(5), "shortcut": straight(5)}


def test_padded_shortcut_moves_channels() -> None:
    graph = trace(init_network("resnet20", 10, 0).model, (3, 32, 32))
    found = sources(graph, "layer2.1.conv1")
    assert found["layer1.2.conv2"] == straight(16, offset=8)
    assert found["layer2.0.conv2"] == straight(32)
    assert next(iter(found)) == "layer2.0.conv2"
    assert len(sources(graph, "linear")) == 10  # the stem and nine blocks


def test_concatenations_offset() -> None:
    def forward(m, x):
        first = m.a(x)
        second = m.b(first)
        both = torch.cat([first, second], 1)
        return m.d(torch.cat([m.c(both), both], dim=1))

    graph = trace(net(forward, a=conv(3, 4), b=conv(4, 2), c=conv(6, 3), d=conv(9, 1)), (3, 5, 5))
    assert sources(graph, "c") == {"a": straight(4), "b": straight(2, 4)}
    assert sources(graph, "d") == {"c": straight(3), "a": straight(4, 3), "b": straight(2, 7)}


def test_a_split_and_a_concatenation_undo_each_other() -> None:
    def forward(m, x):
        left, right = m.a(x).chunk(2, 1)
        return m.b(torch.cat([right, left], 1)) + m.b(torch.stack([left, right], 1).flatten(1, 2))

    graph = trace(net(forward, a=conv(3, 4), b=conv(4, 2)), (3, 5, 5))
    assert sources(graph, "b") == {"a": [(2, 0), (3, 1), (0, 2), (1, 3)]}
    assert sources(graph, "b", 1) == {"a": straight(4)}
    assert graph.order == ("a.weight", "b.weight")
    assert [wire.source for wire in graph.outputs] == [1, 2]


def test_a_shuffle_permutes() -> None:
    def forward(m, x):
        x = m.a(x)
        n, c, h, w = x.shape
        return m.b(x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w))

    graph = trace(net(forward, a=conv(2, 6), b=conv(6, 6, groups=3)), (2, 4, 4))
    assert sources(graph, "b") == {"a": [(0, 0), (3, 1), (1, 2), (4, 3), (2, 4), (5, 5)]}


def test_grouped_depthwise_and_transposed() -> None:
    model = nn.Sequential(conv(4, 8, groups=2), conv(8, 8, groups=8), nn.ConvTranspose2d(8, 6, 2, groups=2), conv(6, 3))
    graph = trace(model, (4, 6, 6))
    assert [one.layer.layout for one in graph.calls] == [
        Layout(2), Layout(8), Layout(2, transposed=True), Layout(),
    ]  # fmt: skip
    assert [(one.places, one.outputs) for one in graph.calls] == [(4, 8), (8, 8), (8, 6), (6, 3)]
    assert [pairs(one.wires[0]) for one in graph.calls] == [straight(4), straight(8), straight(8), straight(6)]


def test_linear_on_tokens() -> None:
    graph = trace(nn.Sequential(nn.Linear(5, 6), nn.Linear(6, 7, bias=False), nn.Flatten(), nn.Linear(21, 2)), (3, 5))
    assert graph.inputs == 5
    assert sources(graph, "1") == {"0": straight(6)}
    assert sources(graph, "3") == {"1": [(place % 7, place) for place in range(21)]}


def test_mixing_tokens_reads_every_channel_at_every_token() -> None:
    def forward(m, x):
        tokens = m.embed(x).flatten(2)  # (1, 4, 9)
        return m.channels(m.tokens(tokens).transpose(1, 2))

    graph = trace(net(forward, embed=conv(3, 4), tokens=nn.Linear(9, 5), channels=nn.Linear(4, 2)), (3, 3, 3))
    assert sources(graph, "tokens") == {"embed": [(unit, place) for place in range(9) for unit in range(4)]}
    assert sources(graph, "channels") == {"tokens": [(unit, place) for place in range(4) for unit in range(5)]}


def test_gates_join() -> None:
    def forward(m, x):
        x = m.a(x)
        gate = torch.sigmoid(m.up(torch.relu(m.down(x.mean((2, 3), keepdim=True)))))
        spatial = torch.sigmoid(m.map(x.mean(1, keepdim=True)))
        return m.b(x * gate * spatial)

    layers = {"a": conv(3, 4), "down": conv(4, 2, 1), "up": conv(2, 4, 1), "map": conv(1, 1, 7), "b": conv(4, 2)}
    graph = trace(net(forward, **layers), (3, 8, 8))
    assert sources(graph, "map") == {"a": [(unit, 0) for unit in range(4)]}
    assert sources(graph, "b") == {"a": straight(4), "up": straight(4), "map": [(0, place) for place in range(4)]}


def test_a_layer_used_twice_has_two_calls() -> None:
    tied = nn.Linear(4, 4)
    graph = trace(net(lambda m, x: m.a(torch.relu(m.a(x))), a=tied), (4,))
    assert [one.layer.name for one in graph.calls] == ["a.weight", "a.weight"]
    assert sources(graph, "a", 1) == {"a": straight(4)}
    assert graph.order == ("a.weight",)


def test_functions_count_as_layers_do() -> None:
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.kernel = nn.Parameter(torch.randn(4, 3, 3, 3))
            self.table = nn.Parameter(torch.randn(4, 4))  # stored as Hugging Face's Conv1D stores it
            self.usual = nn.Parameter(torch.randn(2, 4))

        def forward(self, x):
            x = F.conv2d(x, self.kernel).mean((2, 3))
            return F.linear(torch.addmm(torch.zeros(4), x, self.table), self.usual)

    graph = trace(Functional(), (3, 8, 8))
    assert graph.order == ("kernel", "table", "usual")
    assert [one.layer.layout.transposed for one in graph.calls] == [False, True, False]
    assert [(one.places, one.outputs) for one in graph.calls] == [(3, 4), (4, 4), (4, 2)]


def test_what_returns_several() -> None:
    graph = trace(net(lambda m, x: {"deep": m.b(m.a(x)), "aux": [m.c(m.a(x))]}, a=nn.Linear(3, 4), b=nn.Linear(4, 2),
                      c=nn.Linear(4, 1)), (3,))  # fmt: skip
    assert [(graph.calls[wire.source].layer.name, len(wire.units)) for wire in graph.outputs] == [
        ("b.weight", 2), ("c.weight", 1),
    ]  # fmt: skip


NAMED = [name for name in known_names() if name != "mlp-A-B-...-Z" and "imagenet" not in name and "vit" not in name]


# One of each kind of block, of few channels; all of them as they are, hundreds of layers, `make fuzz` looks at.
KINDS = (
    *("resnet18", "resnet18-3x3", "resnet50", "resnet20", "resnet20-1x1", "wrn-16-1", "vgg11", "vgg11-bn"),
    *("mobilenetv2", "densenet121", "lenet-5", "lenet-300-100", "mlp-20-15-5"),
)


@pytest.mark.parametrize("name", KINDS)
def test_every_prunable_layer_of_the_known_networks_is_found(name: str) -> None:
    with slim():
        assert_every_layer_is_found(name, largest=64)


def assert_every_layer_is_found(name: str, largest: int = 224) -> None:
    """Of images of at most so many pixels a side."""
    network = init_network(name, None, 0)
    before = [parameter.clone() for parameter in network.model.parameters()]
    network.model.train()
    channels, *sides = network.input_shape
    graph = trace(network.model, (channels, *(min(side, largest) for side in sides)))
    assert network.model.training
    assert all(torch.equal(a, b) for a, b in zip(before, network.model.parameters(), strict=True))
    assert {one.layer for one in graph.calls} == set(network.layers)
    for one in graph.calls:
        read = np.unique(np.concatenate([wire.places for wire in one.wires]))
        assert read.tolist() == list(range(one.places))  # nothing reads from nowhere
        assert all(wire.source < graph.calls.index(one) for wire in one.wires)
    assert len(graph.outputs) == 1


def test_half_precision_and_training_mode() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)).to(torch.bfloat16).train()
    assert trace(model, (4,)).order == ("0.weight", "2.weight")
    assert model[0].weight.dtype == torch.bfloat16


def refusal(model: nn.Module, shape: tuple[int, ...] | None, error: type[Exception] = TraceError) -> str:
    with pytest.raises(error) as caught:
        trace(model, shape)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_cannot_be_followed_is_said_in_one_line() -> None:
    def attend(m, x):
        q, k, v = m.qkv(x).chunk(3, -1)
        return m.out((q @ k.transpose(-2, -1)).softmax(-1) @ v)

    attention = net(attend, qkv=nn.Linear(4, 12), out=nn.Linear(4, 4))
    line = (
        "the wiring of the network cannot be followed: {} calls {}, which {} so that units cannot be told apart; "
        "take a method= that needs no wiring, such as erk"
    )
    assert refusal(attention, (5, 4)) == line.format("the network", "bmm", "mixes its inputs")
    inside = refusal(nn.Sequential(nn.Linear(4, 4), nn.TransformerEncoderLayer(4, 2, batch_first=True)), (5, 4))
    assert inside.startswith("the wiring of the network cannot be followed: '1.self_attn' calls ")

    def parts(m, x):
        x = m.a(x)
        half = x[:, :2]
        half += m.b(half)
        return m.c(x)

    in_part = net(parts, a=nn.Linear(4, 4), b=nn.Linear(2, 2), c=nn.Linear(4, 1))
    assert refusal(in_part, (4,)) == line.format("the network", "add", "writes into part of a tensor")

    def placed(m, x):
        x = m.a(x)
        beside = torch.zeros(1, 6)
        beside[:, 1:5] = x
        return m.b(beside) + m.c(x)

    beside = net(placed, a=nn.Linear(4, 4), b=nn.Linear(6, 1), c=nn.Linear(4, 1))
    assert refusal(beside, (4,)) == line.format("the network", "copy", "writes into part of a tensor")
    assert "calls mm, which mixes" in refusal(net(lambda m, x: m.a(x) @ m.a.weight.relu(), a=nn.Linear(3, 3)), (3,))


def test_what_cannot_be_run_is_said_in_one_line() -> None:
    assert refusal(nn.Linear(3, 2), None, MethodOptionError) == (
        "the shape of one input is not known, and the order of layers is found by following one; "
        "give it with input_shape=, such as 3,32,32"
    )
    assert refusal(nn.Linear(3, 2), (4,), MethodOptionError) == (
        "the network failed on one input of shape 4 (RuntimeError: mat1 and mat2 shapes cannot be multiplied "
        "(1x4 and 3x2)); give the shape it takes with input_shape="
    )
    assert refusal(nn.ReLU(), (4,)) == "no convolution or linear layer of the network reads its input; check model="


def test_the_input_may_go_straight_to_the_output() -> None:
    graph = trace(net(lambda m, x: m.a(x[:, :2]) + x, a=nn.Linear(2, 3)), (3,))
    assert graph.inputs == 2
    assert {wire.source: wire.units.tolist() for wire in graph.outputs} == {0: [0, 1, 2], INPUT: [0, 1]}
