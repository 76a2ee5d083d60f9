"""Which units of a network are one vertex: what one layer writes is what the next one reads.

A unit that a layer writes and a place that reads it are one vertex. Where a network adds, a place reads several units,
and all of them are one vertex: after the sum nothing tells them apart, so whoever keeps a kernel to one feeds the same
readers. A residual stage therefore has one vertex a channel, not one a block.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pai_cli.errors import TraceError
from pai_cli.spectral.layout import Layout
from pai_cli.spelling import option

if TYPE_CHECKING:
    from pai_cli.models.trace import Graph

Indices = NDArray[np.int64]

BLOCK = re.compile(
    r"(?P<block>.*\.\d+)\.(?:conv(?P<step>[1-9])|(?P<shortcut>downsample\.0|shortcut\.0|convShortcut))(?:\.weight)?"
)
"""The layers of a residual block, by the names of torchvision and of the CIFAR networks, or of their weights."""


@dataclass(frozen=True, eq=False)
class Wiring:
    """The vertex of each unit that a layer writes, and of each place that it reads (input channel, or column)."""

    outputs: Mapping[str, Indices]
    inputs: Mapping[str, Indices]

    def called(self, own: Mapping[str, str]) -> Wiring:
        """The same with layers under their `own` names, those that have any."""
        return Wiring(*({own.get(name, name): at for name, at in ends.items()} for ends in (self.outputs, self.inputs)))


@dataclass(frozen=True)
class Sizes:
    """How many units a layer writes and how many places it reads."""

    outputs: int
    places: int


def sizes_of(shape: tuple[int, ...], layout: Layout) -> Sizes:
    """Of a weight with this shape."""
    if layout.transposed:
        return Sizes(shape[1] * layout.groups, shape[0])
    return Sizes(shape[0], shape[1] * layout.groups)


class _Vertices:
    """Units and places as they are named, and which of them are the same."""

    def __init__(self, sizes: Mapping[str, Sizes]):
        self.count = 0
        self.outputs = {name: self.new(size.outputs) for name, size in sizes.items()}
        self.inputs = {name: self.new(size.places) for name, size in sizes.items()}
        self._links = [np.empty((0, 2), np.int64)]

    def new(self, count: int) -> Indices:
        self.count += count
        return np.arange(self.count - count, self.count)

    def same(self, some: Indices, others: Indices) -> None:
        """One by one, these are the same."""
        self._links.append(np.stack([some, others], 1))

    def wiring(self) -> Wiring:
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        links = np.concatenate(self._links)
        graph = coo_array((np.ones(len(links)), (links[:, 0], links[:, 1])), shape=(self.count, self.count))
        vertex = connected_components(graph, directed=False)[1].astype(np.int64)
        return Wiring(
            {name: vertex[units] for name, units in self.outputs.items()},
            {name: vertex[places] for name, places in self.inputs.items()},
        )


def traced_wiring(graph: Graph) -> Wiring:
    """The wiring of a network that was followed; its layers without a mask are there too."""
    sizes = {call.layer.name: Sizes(call.outputs, call.places) for call in graph.calls}
    vertices = _Vertices(sizes)
    given = vertices.new(graph.inputs)
    for call in graph.calls:
        places = vertices.inputs[call.layer.name]
        for wire in call.wires:
            source = given if wire.source < 0 else vertices.outputs[graph.calls[wire.source].layer.name]
            vertices.same(source[wire.units], places[wire.places])
    return vertices.wiring()


def named_wiring(shapes: Mapping[str, tuple[int, ...]], layouts: Mapping[str, Layout]) -> Wiring:
    """The wiring that names and order tell, without the network: a chain, in which residual blocks have their shortcuts.

    Each layer reads the one before; a linear layer may read each channel as several columns, as after a flatten. A block is
    known by its layers `conv1`, `conv2`, ... and its shortcut `downsample.0`, `shortcut.0` or `convShortcut`, or none:
    then what enters it is added to what it writes, from the middle channels on where that is wider.

    Raises `TraceError` for grouped convolutions and where sizes do not fit.
    """
    sizes = {name: sizes_of(shape, layouts[name]) for name, shape in shapes.items()}
    vertices = _Vertices(sizes)
    stream: Indices | None = None
    for block in _blocks(list(shapes)):
        for name in block:
            if layouts[name].groups > 1:
                raise TraceError(
                    f"{name!r} is a grouped convolution, of which names do not tell who reads it; {REMEDY}"
                )
        stream = _entered(vertices, block, stream, {name for name in block if len(shapes[name]) == 2})
    return vertices.wiring()


REMEDY = f"give {option('weights', 'CKPT')}, by which the network is followed, or {option('level', 'weight')}"


def _blocks(names: list[str]) -> list[list[str]]:
    """Layers in order; those of a residual block together, its shortcut first."""
    blocks: dict[str, list[str]] = {}
    for name in names:
        match = BLOCK.fullmatch(name)
        blocks.setdefault(match["block"] if match else name, []).append(name)
    found: list[list[str]] = []
    for layers in blocks.values():
        steps = [name for name in layers if _step(name)]
        if len(layers) > 1 and len(steps) > 1:
            found.append([name for name in layers if not _step(name)] + sorted(steps, key=_step))
        else:
            found += [[name] for name in layers]
    return found


def _step(name: str) -> int:
    match = BLOCK.fullmatch(name)
    return int(match["step"] or 0) if match else 0


def _entered(vertices: _Vertices, block: list[str], stream: Indices | None, linear: set[str]) -> Indices:
    """What is in the stream after a block, or a single layer, that reads it."""
    shortcuts = [name for name in block if len(block) > 1 and not _step(name)]
    now = stream
    for name in block:
        if name not in shortcuts:
            now = _read(vertices, name, now, name in linear)
    assert now is not None
    for name in shortcuts:
        written = _read(vertices, name, stream, name in linear)
        if len(written) != len(now):
            raise TraceError(f"{name!r} writes {len(written)} channels, and its block {len(now)}; {REMEDY}")
        vertices.same(written, now)
    if len(block) > 1 and not shortcuts and stream is not None:
        before = (len(now) - len(stream)) // 2
        if before < 0:
            raise TraceError(f"the block of {block[0]!r} writes fewer channels than enter it; {REMEDY}")
        vertices.same(stream, now[before : before + len(stream)])
    return now


def _read(vertices: _Vertices, name: str, stream: Indices | None, linear: bool) -> Indices:
    places = vertices.inputs[name]
    if stream is not None:
        times = len(places) // len(stream)
        if times * len(stream) != len(places) or times == 0 or (times > 1 and not linear):
            raise TraceError(
                f"{name!r} reads {len(places)} channels where {len(stream)} come before it, so the order of the layers "
                f"does not tell who reads whom; {REMEDY}"
            )
        vertices.same(np.repeat(stream, times), places)
    return vertices.outputs[name]
