"""The order and wiring of a network's layers, found by following one input through it.

The network runs once, in evaluation mode, on a copy. Every operation that PyTorch carries out is seen as it happens
(ATen operations, what `torch.fx` and `torch.export` would record), so control flow, hooks and programs of
`torch.export` need no special care: a network that runs on one input is a network that can be looked at.

A unit is one output channel of a convolution or one output of a linear layer. What stands between two layers is
looked through: norms, activations, pooling and dropout leave a unit where it is; a flatten puts it in several places;
additions bring several to one place; concatenations, slices and permutations move them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils._pytree import tree_leaves

from pai_cli.errors import MethodOptionError, TraceError
from pai_cli.files.messages import one_line
from pai_cli.models.copies import copied, remedy_for
from pai_cli.models.follow import CoarseInputNeeded, Follower, Visit
from pai_cli.models.huggingface import refuse_weights_alone
from pai_cli.spelling import option

if TYPE_CHECKING:
    from pai_cli.models.follow import Strand
    from pai_cli.models.network import PrunableLayer

OTHER_METHOD = f"take a {option('method')} that needs no wiring, such as erk"

INPUT = -1
"""As a wire's `source`: the network's own input."""


@dataclass(frozen=True, eq=False)
class Wire:
    """Which units of a source arrive where.

    Unit `units[i]` of the source arrives at place `places[i]` of the reader; both int64 and equally long, each pair
    once. `source`: the index of a call, or `INPUT`. A place is an input channel of a convolution, a column of a
    linear layer, or an element of the network's output.
    """

    source: int
    units: NDArray[np.int64]
    places: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Call:
    """One use of a layer: a layer that is used twice has two. `wires`: all that it reads."""

    layer: PrunableLayer
    wires: tuple[Wire, ...]

    @property
    def outputs(self) -> int:
        """How many units it has: rows of its matrix."""
        return self.layer.layout.matrix(self.layer.shape)[0]

    @property
    def places(self) -> int:
        """How many input channels (columns, for a linear layer) it reads."""
        first, second = self.layer.shape[:2]
        layout = self.layer.layout
        return first if layout.transposed else second * layout.groups


@dataclass(frozen=True, eq=False)
class Graph:
    """A network as units and wires.

    `calls`: in the order in which they ran, so every wire comes from an earlier call or the input. `inputs`: number of
    units of the network's input: elements that go everywhere together are one (a channel of an image that a
    convolution reads; a pixel, where the image is flattened). `outputs`: what the network returns.
    """

    calls: tuple[Call, ...]
    inputs: int
    outputs: tuple[Wire, ...]

    @property
    def order(self) -> tuple[str, ...]:
        """The layers' weights in the order of first use, each once."""
        return tuple(dict.fromkeys(call.layer.name for call in self.calls))

    def consecutive(self) -> Iterator[tuple[Call, Call, Wire]]:
        """Every (writer, reader, wire between them), readers in order; shortcuts give a reader several writers."""
        for reader in self.calls:
            for wire in reader.wires:
                if wire.source != INPUT:
                    yield self.calls[wire.source], reader, wire


def trace(model: nn.Module, input_shape: tuple[int, ...] | None, remedy: str = OTHER_METHOD) -> Graph:
    """The wiring of `model`, which is left as it was; `input_shape` is of one sample.

    `remedy`: what a person is told to do where the wiring cannot be followed.

    Found are the layers that multiply by a parameter: convolutions and linear layers, prunable or not, as modules or
    as functions. Raises `MethodOptionError` without an input shape or when the network fails on one such input,
    `TraceError` where an operation mixes units so that they cannot be told apart any more (attention), and when no
    layer reads the input.
    """
    refuse_weights_alone(model)
    if input_shape is None:
        raise MethodOptionError(
            "the shape of one input is not known, and the order of layers is found by following one; "
            f"give it with {option('input_shape')}, such as 3,32,32"
        )
    try:
        twin = copied(model).cpu().float().eval().requires_grad_(False)
    except Exception as error:
        raise TraceError(
            f"the network cannot be copied ({one_line(error)}), so its layers cannot be followed"
        ) from error
    shape = (1, *input_shape)
    try:
        # Each value of the input by itself, so that a flattened image has its pixels as units.
        follower, output = _followed(twin, shape, torch.arange(int(np.prod(shape))).reshape(shape), remedy)
    except CoarseInputNeeded:  # something pools or resizes the input: only its channels stay apart
        channels = [1] * len(shape)
        channels[1] = shape[1]
        follower, output = _followed(twin, shape, torch.arange(shape[1]).reshape(channels), remedy)
    if not follower.visits:
        raise TraceError(f"no convolution or linear layer of the network reads its input; check {option('model')}")
    return _graph(follower.visits, output)


def _followed(
    model: nn.Module, shape: tuple[int, ...], labels: torch.Tensor, remedy: str
) -> tuple[Follower, list[list[Strand]]]:
    """The follower after one input, whose values have these labels; and the strands of each tensor returned."""
    follower = Follower(model)
    returned = run_followed(follower, torch.ones(shape), labels, remedy)
    return follower, [follower.strands(tensor) for tensor in returned]


def run_followed(follower: Follower, given: torch.Tensor, labels: torch.Tensor, remedy: str) -> list[torch.Tensor]:
    """The tensors that the follower's network returns of one input, whose values have these labels.

    Raises `TraceError` where the follower cannot follow, with what is told to do, and `MethodOptionError` where the network
    fails.
    """
    try:
        with torch.no_grad():
            follower.begin(given, INPUT, labels)
            with follower.following():
                returned = follower.model(given)
    except CoarseInputNeeded:
        raise
    except TraceError as error:
        raise TraceError(f"{error.text}; {remedy}") from error
    except Exception as error:
        text = ",".join(map(str, given.shape[1:]))
        remedy = remedy_for(error, f"give the shape it takes with {option('input_shape')}")
        raise MethodOptionError(
            f"the network failed on one input of shape {text} ({one_line(error)}); {remedy}"
        ) from error
    return tensors_in(returned)


def tensors_in(returned: object) -> list[torch.Tensor]:
    """All tensors in what a network returned, also in attributes of objects of its own, such as a dataclass."""
    found, seen = list[torch.Tensor](), set[int]()
    waiting = [returned]
    while waiting:
        leaf = waiting.pop(0)
        if isinstance(leaf, torch.Tensor):
            found.append(leaf)
        elif id(leaf) not in seen and not isinstance(leaf, type | nn.Module) and not callable(leaf):
            seen.add(id(leaf))
            leaves = tree_leaves(leaf)
            inside = [vars(leaf)] if leaves and leaves[0] is leaf and hasattr(leaf, "__dict__") else leaves
            waiting[:0] = [one for one in inside if one is not leaf]
    return found


def _graph(visits: list[Visit], returned: list[list[Strand]]) -> Graph:
    calls = [Call(visit.layer, tuple(Wire(*wire) for wire in visit.wires)) for visit in visits]
    ends: dict[int, list[NDArray[np.int64]]] = {}
    for strands in returned:
        for source, labels in strands:
            ends.setdefault(source, []).append(np.unique(labels.numpy()))
    outputs = []
    for source, found in ends.items():
        units = np.unique(np.concatenate(found))
        units = units[units >= 0]
        outputs.append(Wire(source, units, units))
    classes, count = _input_classes(calls)
    if classes is None:
        return Graph(tuple(calls), count, tuple(outputs))
    calls = [Call(call.layer, tuple(_merged(wire, classes) for wire in call.wires)) for call in calls]
    return Graph(tuple(calls), count, tuple(_merged(wire, classes) for wire in outputs))


def _input_classes(calls: list[Call]) -> tuple[NDArray[np.int64] | None, int]:
    """The class of each value of the input, -1 for one that enters nowhere; None to leave them as they are.

    Values that enter the same places of the same calls are one class, numbered by their first value.
    """
    wires = [wire for call in calls for wire in call.wires if wire.source == INPUT]
    size = 1 + max((int(wire.units.max(initial=-1)) for wire in wires), default=-1)
    places = np.full((len(wires), size), -1, np.int64)
    for row, wire in enumerate(wires):
        if len(np.unique(wire.units)) < len(wire.units):  # a value in several places: no short description
            return None, size
        places[row, wire.units] = wire.places
    entered = np.flatnonzero((places >= 0).any(0))
    _, first, inverse = np.unique(places[:, entered], axis=1, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    classes = np.full(size, -1, np.int64)
    classes[entered] = rank[inverse.reshape(-1)]
    return classes, len(first)


def _merged(wire: Wire, classes: NDArray[np.int64]) -> Wire:
    if wire.source != INPUT:
        return wire
    known = wire.units < len(classes)  # what goes straight to the output may be past all that a layer reads
    units = np.where(known, classes[np.where(known, wire.units, 0)], -1)
    places = wire.places
    pairs = np.unique(np.stack([units, places], 1)[units >= 0], axis=0)
    return Wire(INPUT, np.ascontiguousarray(pairs[:, 0]), np.ascontiguousarray(pairs[:, 1]))
