"""Stacks: tensors of three dimensions, a matrix an expert, taken apart as `name[0]`, `name[1]`, and put together again.

A layer's graph is that of one matrix, and a pattern, a density or an order of scores is a layer's; so whoever counts or
measures sees an expert as a layer by itself. Files have one tensor, of the checkpoint's name and shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pai_cli.errors import LayerSelectionError
from pai_cli.files.masks import BITS, Mask, span_of
from pai_cli.files.matching import Aliases, Weights
from pai_cli.files.matching import span_of as span_of_weights
from pai_cli.files.ordering import matches
from pai_cli.files.tensors import Span, TensorFile
from pai_cli.spectral.layout import Layout
from pai_cli.spelling import option

if TYPE_CHECKING:
    import numpy as np

Shape = tuple[int, ...]
Places = Mapping[str, tuple[str, int]]
"""Of each part, the stack that it is of, and which of it."""


def part_names(name: str, shape: Shape) -> list[str]:
    """What the matrices of a stack are called, in order."""
    return [f"{name}[{number}]" for number in range(shape[0])]


def places_of(stacks: Collection[str], shapes: Mapping[str, Shape]) -> dict[str, tuple[str, int]]:
    """Where the parts of these stacks stand."""
    return {part: (name, number) for name in stacks for number, part in enumerate(part_names(name, shapes[name]))}


def parted_shapes(shapes: Mapping[str, Shape], stacks: Collection[str]) -> dict[str, Shape]:
    """Shapes by name in their order, those of stacks as their parts'."""
    return {
        part: shape[1:] if name in stacks else shape
        for name, shape in shapes.items()
        for part in (part_names(name, shape) if name in stacks else (name,))
    }


def stacked_shapes(shapes: Mapping[str, Shape], stacks: Mapping[str, Shape]) -> dict[str, Shape]:
    """The opposite of `parted_shapes`: a stack stands where its first part stood. `stacks`: their shapes."""
    places = places_of(stacks, stacks)
    return {places[name][0] if name in places else name: shape for name, shape in _firsts(shapes, stacks, places)}


def _firsts(shapes: Mapping[str, Shape], stacks: Mapping[str, Shape], places: Places) -> Iterator[tuple[str, Shape]]:
    for name, shape in shapes.items():
        stack, number = places.get(name, (name, 0))
        if not number:
            yield name, stacks.get(stack, shape)


def stacked_masks(masks: Mapping[str, np.ndarray], stacks: Mapping[str, Shape]) -> dict[str, np.ndarray]:
    """Masks of parts, which are all there, as masks of their stacks."""
    import numpy as np

    shapes = stacked_shapes({name: mask.shape for name, mask in masks.items()}, stacks)
    return {
        name: np.stack([masks[part] for part in part_names(name, shape)]) if name in stacks else masks[name]
        for name, shape in shapes.items()
    }


def stacked_layouts(layouts: Mapping[str, Layout], stacks: Mapping[str, Shape]) -> dict[str, Layout]:
    """Layouts of parts as those of their stacks."""
    places = places_of(stacks, stacks)
    found = {}
    for name, layout in layouts.items():
        stack, _ = places.get(name, (name, 0))
        found[stack] = replace(layout, stacked=True) if name in places else layout
    return found


def check_ignored(stacks: Mapping[str, Shape], ignore: Sequence[str]) -> None:
    """Raise `LayerSelectionError` for globs that leave out some experts of a stack and not others: its mask is one."""
    for name, shape in stacks.items():
        left = [part for part in part_names(name, shape) if any(matches(part, glob) for glob in ignore)]
        if 0 < len(left) < shape[0]:
            raise LayerSelectionError(
                f"{option('ignore', ' '.join(ignore))}: leaves out {left[0]!r}, which is in one tensor with experts "
                f"that it does not leave out; give {name!r}, which leaves out all of them"
            )


def whole_stacks(stacks: Mapping[str, Shape], names: Collection[str]) -> dict[str, Shape]:
    """The stacks whose parts are among the names: those that were not left out."""
    return {name: shape for name, shape in stacks.items() if f"{name}[0]" in names}


def part_of(span: Span, shape: Shape, number: int) -> Span | None:
    """Where one part of a stack of this shape stands, given where the stack does; None where its bits begin in a byte."""
    size = span.size // shape[0]
    if span.dtype == BITS:
        each = math.prod(shape[1:])
        if each % 8:
            return None
        size = each // 8
    return replace(span, begin=span.begin + number * size, size=size)


class PartedFile(TensorFile):
    """A file whose `stacks` are given as their parts, each read by itself."""

    def __init__(self, file: TensorFile, stacks: Collection[str]):
        self.__dict__.update({key: value for key, value in vars(file).items() if key != "shapes"})
        self._file = file
        self._places = places_of(stacks, file.shapes)
        self.names = tuple(self.shapes)

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """Shape of every tensor, of a stack those of its parts."""
        return parted_shapes(self._file.shapes, {name for name, _ in self._places.values()})

    def dtype(self, name: str) -> str:
        """As the file has it."""
        return self._file.dtype(self._places.get(name, (name, 0))[0])

    def span(self, name: str) -> Span:
        """Where the bytes stand in the file."""
        if name not in self._places:
            return self._file.span(name)
        stack, number = self._places[name]
        span = part_of(self._file.span(stack), self._file.shapes[stack], number)
        assert span is not None
        return span

    def array(self, name: str) -> np.ndarray:
        """One tensor, or one part of a stack, without the others."""
        if name not in self._places:
            return self._file.array(name)
        return self._file.part(*self._places[name])


class PartedMask:
    """A mask whose stacks are given as their parts; `whole` is as it came. See `files.masks.Mask`."""

    def __init__(self, mask: Mask, stacks: Collection[str]):
        self.whole = mask
        self.path: Path = mask.path
        self.metadata = mask.metadata
        self.remark = mask.remark
        shapes = {name: tuple(mask.shapes[name]) for name in mask.names}
        self.shapes: Mapping[str, Shape] = parted_shapes(shapes, stacks)
        self.names = tuple(self.shapes)
        self._places = places_of(stacks, shapes)
        self._last = _Last()

    def layout(self, name: str) -> Layout:
        """That of one matrix."""
        return replace(self.whole.layout(self._places.get(name, (name, 0))[0]), stacked=False)

    def array(self, name: str) -> np.ndarray:
        """One parameter's mask, or that of one matrix of a stack."""
        if name not in self._places:
            return self.whole.array(name)
        stack, number = self._places[name]
        one: np.ndarray = self._last.of(stack, self.whole.array)[number]
        return one

    def span(self, name: str) -> Span | None:
        """Where the bytes stand, as `MaskFile.span` says."""
        stack, number = self._places.get(name, (name, 0))
        span = span_of(self.whole, stack)
        return span if span is None or name not in self._places else part_of(span, self.whole.shapes[stack], number)


class PartedWeights:
    """A checkpoint whose stacks are given as their parts beside themselves. See `files.matching.Weights`."""

    def __init__(self, weights: Weights, stacks: Collection[str]):
        self.weights = weights
        self.path: Path = weights.path
        self.places: Places = places_of(stacks, weights.shapes)
        self._last = _Last()

    @cached_property
    def shapes(self) -> Mapping[str, Shape]:
        """Shape of every tensor, and of every part."""
        whole = self.weights.shapes
        return {**whole, **{part: whole[stack][1:] for part, (stack, _) in self.places.items()}}

    @property
    def aliases(self) -> Aliases:
        """The other names of tensors that have several."""
        return self.weights.aliases

    def finite_array(self, name: str) -> np.ndarray:
        """One tensor, or one part; raises what keeps it, or its stack, from being weights."""
        if name not in self.places:
            return self.weights.finite_array(name)
        stack, number = self.places[name]
        one: np.ndarray = self._last.of(stack, self.weights.finite_array)[number]
        return one

    def span_of(self, name: str) -> Span | None:
        """Where the bytes stand; None where that is not known."""
        stack, number = self.places.get(name, (name, 0))
        span = span_of_weights(self.weights, stack)
        return span if span is None or name not in self.places else part_of(span, self.shapes[stack], number)


class _Last:
    """The stack that was read last: its parts are asked for one after the other."""

    def __init__(self) -> None:
        self._held: tuple[str, np.ndarray] | None = None

    def of(self, name: str, read: Callable[[str], np.ndarray]) -> np.ndarray:
        """The stack."""
        held = self._held  # as one, whatever other threads do
        if held is None or held[0] != name:
            self._held = held = name, read(name)
        return held[1]


def parted(mask: Mask) -> Mask:
    """The mask with its stacks as their parts; itself where it has none."""
    stacks = [name for name in mask.names if mask.layout(name).stacked]
    return PartedMask(mask, stacks) if stacks else mask


def parted_weights(weights: Weights, mask: Mask) -> Weights:
    """The weights that go with a mask of `parted`."""
    if not isinstance(mask, PartedMask):
        return weights
    return PartedWeights(weights, [name for name in mask.whole.names if mask.whole.layout(name).stacked])
