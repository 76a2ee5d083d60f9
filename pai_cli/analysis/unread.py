"""Layers that are not read yet: what of each is sent to a device, and what it becomes there.

A file's own bytes are sent where they are booleans, bits or plain floating-point numbers. The device unpacks and checks
them: eight booleans a byte, the first in its highest bit; a boolean's byte is 0 or 1; bits past the last element are 0.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from pai_cli.compute.uploads import ALIGNMENT, Piece
from pai_cli.errors import ArrayError, CheckpointError, MaskError
from pai_cli.files import matching
from pai_cli.files.masks import BITS, Mask, span_of, unrolls
from pai_cli.files.matching import Matched, Weights
from pai_cli.files.spans import SpanReader
from pai_cli.files.stacks import PartedWeights
from pai_cli.spectral.graph import host
from pai_cli.spectral.layout import Layout
from pai_cli.spectral.network import LayerInput

if TYPE_CHECKING:
    import torch

    from pai_cli.files.tensors import Span

NUMBERS = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}
"""Types of weights whose bytes are sent as they are, by safetensors' names and torch's."""


class Kind(IntEnum):
    """What bytes mean, in the order in which they are sent: whatever is alike is unpacked and checked at once."""

    BITS = 0
    BOOLEANS = 1
    CHECKED = 2
    NUMBERS = 3


@dataclass(frozen=True)
class Content:
    """A tensor's bytes. `dtype`: torch's name of numbers, "" of a mask."""

    kind: Kind
    shape: tuple[int, ...]
    piece: Piece
    dtype: str = ""


Contents = Callable[[SpanReader], Content]


@dataclass(frozen=True)
class UnreadLayer:
    """A layer of a mask, and its weights, wherever they are.

    `source`: what errors name it by. `read`: the layer in this machine's memory; raises what is wrong with it. `mask`,
    `weights`: their bytes; weights that are on the device already are a tensor, and those of equal `key` are one.
    """

    source: str
    name: str
    shape: tuple[int, ...]
    layout: Layout
    read: Callable[[], LayerInput]
    mask: Contents
    weights: Contents | torch.Tensor | None = None
    key: Hashable = None

    @property
    def size(self) -> int:
        """Entries of its matrix; of a layer in groups far more than weights."""
        rows, columns = self.layout.matrix(self.shape)
        return rows * columns


def unread_layer(mask: Mask, name: str, weights: Weights | None) -> UnreadLayer:
    """A layer of a mask file. Raises `MaskError` for one that cannot be unrolled."""
    shape, layout = tuple(mask.shapes[name]), mask.layout(name)
    unrolls(mask.path, name, shape, layout)

    def read() -> LayerInput:
        array = mask.array(name)
        return LayerInput(name, array, None if weights is None else weights.finite_array(name), layout)

    span = span_of(mask, name)
    own = partial(_stored, span, shape) if span is not None else partial(_checked, partial(mask.array, name))
    theirs = None if weights is None else _weights_of(weights, name)
    key = None if weights is None else _same(weights, name)
    return UnreadLayer(str(mask.path), name, shape, layout, read, own, theirs, key)


def held_layer(layer: LayerInput, source: str) -> UnreadLayer:
    """A layer that this machine holds, its weights perhaps on the device."""
    weights = layer.weights
    theirs = weights if weights is None or not isinstance(weights, np.ndarray) else partial(_numbers, lambda: weights)
    mask = partial(_checked, lambda: layer.mask)
    return UnreadLayer(
        source, layer.name, tuple(layer.mask.shape), layer.layout, partial(_on_the_host, layer), mask, theirs
    )


def _on_the_host(layer: LayerInput) -> LayerInput:
    weights = layer.weights
    return replace(layer, weights=None if weights is None else host(weights))


def _same(weights: Weights, name: str) -> Hashable:
    """What is equal for one tensor of one checkpoint, whatever masks call it."""
    if isinstance(weights, Matched):
        return _same(weights.weights, weights.names.get(name, name))
    if isinstance(weights, PartedWeights):
        stack, number = weights.places.get(name, (name, None))
        return _same(weights.weights, stack), number
    return id(weights), name


def _weights_of(weights: Weights, name: str) -> Contents:
    span = matching.span_of(weights, name)
    if span is None or span.dtype not in NUMBERS or sys.byteorder != "little":
        return partial(_numbers, partial(weights.finite_array, name))
    return partial(_stored, span, tuple(weights.shapes[name]))


def _stored(span: Span, shape: tuple[int, ...], files: SpanReader) -> Content:
    numbers = NUMBERS.get(span.dtype, "")
    error = CheckpointError if numbers else MaskError
    kind = Kind.NUMBERS if numbers else Kind.BITS if span.dtype == BITS else Kind.BOOLEANS
    return Content(kind, shape, Piece(span.size, lambda begin, view: files.fill(span, begin, view, error)), numbers)


def _checked(read: Callable[[], np.ndarray], _: SpanReader) -> Content:
    """A mask that was read and checked; what is no boolean is for the engine to refuse."""
    array = np.ascontiguousarray(read())
    if array.dtype != np.bool_:
        return _numbers(lambda: array, _)
    return Content(Kind.CHECKED, array.shape, _piece(array))


def _numbers(read: Callable[[], np.ndarray], _: SpanReader) -> Content:
    array = np.ascontiguousarray(read())
    if array.dtype not in (np.float16, np.float32, np.float64):
        array = array.astype(np.float64)
    return Content(Kind.NUMBERS, array.shape, _piece(array), array.dtype.name)


def _piece(array: np.ndarray[Any, Any]) -> Piece:
    held = memoryview(array.reshape(-1).view(np.uint8))  # type: ignore[arg-type]

    def fill(begin: int, view: memoryview) -> None:
        view[:] = held[begin : begin + len(view)]

    return Piece(array.nbytes, fill)


@dataclass
class Shipment:
    """Layers that are sent together.

    `pieces`, called by whoever reads, settles what is sent; `arrived`, called with the bytes on the device, makes layers.
    """

    layers: Sequence[UnreadLayer]
    files: SpanReader
    _sent: dict[Hashable, Content] = field(default_factory=dict)

    def pieces(self) -> Iterable[Piece]:
        """The bytes, of weights that several layers share once."""
        found: dict[Hashable, Content] = {}
        for at, layer in enumerate(self.layers):
            found["mask", at] = layer.mask(self.files)
            if callable(layer.weights) and (name := _key(layer, at)) not in found:
                found[name] = layer.weights(self.files)
        self._sent = dict(sorted(found.items(), key=lambda item: item[1].kind))
        return [content.piece for content in self._sent.values()]

    def arrived(self, there: torch.Tensor) -> list[LayerInput]:
        """The layers on the device. Raises `ArrayError` where a mask has other values than 0 and 1, after one wait."""
        places = self._places()
        _check(there, [(content, places[key]) for key, content in self._sent.items()])
        tensors = dict(self._tensors(there, places))
        return [
            LayerInput(layer.name, tensors["mask", at], tensors.get(_key(layer, at), layer.weights), layer.layout)
            for at, layer in enumerate(self.layers)
        ]

    def _places(self) -> dict[Hashable, int]:
        ends = accumulate((content.piece.room for content in self._sent.values()), initial=0)
        return dict(zip(self._sent, ends, strict=False))

    def _tensors(self, there: torch.Tensor, places: dict[Hashable, int]) -> Iterator[tuple[Hashable, torch.Tensor]]:
        import torch

        begin, end = _region(self._sent.values(), Kind.BITS)
        bits = _unpacked(there[begin:end]) if end > begin else there
        for key, content in self._sent.items():
            place, size = places[key], math.prod(content.shape)
            raw = there[place : place + content.piece.size]
            if content.kind is Kind.BITS:
                flat = bits[8 * place : 8 * place + size]
            elif content.kind is Kind.NUMBERS:
                numbers = raw.view(getattr(torch, content.dtype))
                flat = numbers.float() if content.dtype == "bfloat16" else numbers  # as this machine reads it
            else:
                flat = raw.view(torch.bool)
            yield key, flat.reshape(content.shape)


def _key(layer: UnreadLayer, at: int) -> Hashable:
    return ("weights", at) if layer.key is None else ("weights of", layer.key)


def _region(contents: Iterable[Content], kind: Kind) -> tuple[int, int]:
    """Where the bytes of a kind begin and end."""
    rooms = [(content.kind, content.piece.room) for content in contents]
    begin = sum(room for one, room in rooms if one < kind)
    return begin, begin + sum(room for one, room in rooms if one == kind)


def _unpacked(there: torch.Tensor) -> torch.Tensor:
    """Eight booleans of each byte, the highest bit first, in one piece of memory."""
    import torch

    shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=there.device)
    return there.unsqueeze(1).bitwise_right_shift(shifts).bitwise_and_(1).view(torch.bool).reshape(-1)


def _check(there: torch.Tensor, placed: Sequence[tuple[Content, int]]) -> None:
    """Raise `ArrayError` for a byte that is no boolean, and for a bit past a mask's last element."""
    import torch

    contents = [content for content, _ in placed]
    begin, end = _region(contents, Kind.BOOLEANS)
    wrong = (there[begin:end] > 1).any() if end > begin else None
    spare = [
        (place + content.piece.size - 1, 0xFF >> math.prod(content.shape) % 8)
        for content, place in placed
        if content.kind is Kind.BITS and math.prod(content.shape) % 8
    ]
    if spare:
        last, bits = torch.tensor(spare, device=there.device).T
        stray = there[last].bitwise_and(bits.to(torch.uint8)).any()
        wrong = stray if wrong is None else wrong | stray
    if wrong is not None and bool(wrong):
        raise ArrayError("a mask holds only 0 and 1, and no bit past its last element")


assert ALIGNMENT % 8 == 0  # so that numbers of any type begin where they may
