"""The steps of an unrolled network: each joins elements to elements, and as a linear map it adds up what meets.

A step is applied to tensors of numbers, 0 or more, and its transpose to what comes back. With ones as weights it adds up
numbers of paths; with marks, 0 or 1, it says where there are any. All of what a step holds is plain, so that it can be sent
to other processes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch

from pai_cli.models.layers import PrunableLayer
from pai_cli.models.unrolled.folded import (
    Array,
    Folded,
    Places,
    Windows,
    added_up,
    aligned,
    evened,
    met_by,
    picked,
    turned,
)
from pai_cli.models.unrolled.kept import Matrix

VALUE = "the value"
"""Stands for the value in the arguments of an operation that moves it."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Step:
    """Takes the values with these numbers and gives those."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def terms(self) -> int:
        """How many numbers are added, at the most, for one of those it gives."""
        return 1


@dataclass(frozen=True)
class Use(Step):
    """One use of a layer. `positions`: at how many places each of its weights is multiplied.

    `convolution`: stride, padding, dilation and output padding; None for a product with the weight's matrix.
    """

    layer: PrunableLayer
    positions: int
    convolution: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]] | None = None

    @property
    def terms(self) -> int:
        """Weights that lead to one output."""
        _, columns = self.layer.layout.matrix(self.layer.shape)
        return columns // self.layer.layout.groups

    def apply(self, read: Folded, matrix: Matrix, shape: Shape) -> Folded:
        """What the layer gives, without its bias; `shape`: that it gives."""
        return (self._out_of_columns if self.layer.layout.transposed else self._into_rows)(read, matrix, shape)

    def back(self, given: Folded, matrix: Matrix, shape: Shape) -> Folded:
        """The transpose of `apply`; `shape`: that the layer reads."""
        return (self._into_rows if self.layer.layout.transposed else self._out_of_columns)(given, matrix, shape)

    def meeting(self, read: Folded, given: Folded) -> tuple[Array, Array]:
        """What the rows and what the columns of the weight's matrix meet at the same places: each (its number, places).

        `read`: of what the layer reads, `given`: of what it gives.
        """
        rows, columns = self.by_units(given), self.by_units(read)
        if self.layer.layout.transposed:
            rows, columns = columns, rows
        one, other = aligned([rows, self._columns(columns, rows.shape)])
        return units_first(one.values), units_first(other.values)

    def by_units(self, value: Folded) -> Folded:
        """What the layer reads or gives, its units along the second dimension."""
        return value if self.convolution is not None else Folded(value.unfolded().reshape(-1, value.shape[-1]))

    def _into_rows(self, value: Folded, matrix: Matrix, shape: Shape) -> Folded:
        """From what meets the columns to what meets the rows."""
        columns = self._columns(self.by_units(value), shape)
        return self._shaped(matrix.times(units_first(columns.values)), columns, shape)

    def _out_of_columns(self, value: Folded, matrix: Matrix, shape: Shape) -> Folded:
        """From what meets the rows to what meets the columns, the transpose."""
        rows = self.by_units(value)
        found = matrix.turned_times(units_first(rows.values))
        slices, places, stands = self._sides(rows, shape, back=True)
        if stands:
            return self._shaped(found, Folded(rows.values, places), shape)
        batch, _, *held = rows.values.shape
        found = found.reshape(-1, *self.layer.shape[2:], batch, *held)
        summed = picked(found, slices, batch, each=True).sum(1)
        like = Folded(np.empty((batch, 0, *(one.shape[1] for one in slices))), places)
        return self._shaped(summed, like, shape)

    def _columns(self, value: Folded, shape: Shape) -> Folded:
        """By units and kernel's positions, as the matrix's columns are, what they meet at the places of the rows."""
        slices, places, stands = self._sides(value, shape, back=False)
        if stands:
            return Folded(value.values, places)
        batch = len(value.values)
        found = picked(value.values.swapaxes(0, 1), slices, batch, each=False)
        return Folded(found.reshape(-1, batch, *(one.shape[1] for one in slices)).swapaxes(0, 1), places)

    def _sides(self, value: Folded, shape: Shape, *, back: bool) -> tuple[list[Array], tuple[Places, ...], bool]:
        """What of the slices of `value` meets each of the kernel's positions, at the places of `shape`; where; and whether
        they all do as they stand.
        """
        if self.convolution is None:
            return [], (), True
        sides = zip(self.layer.shape[2:], *self.convolution[:3], strict=True)
        found = [
            met_by(places, size, how, back=back)
            for places, size, how in zip(value.places, shape[2:], sides, strict=True)
        ]
        return [one[0] for one in found], tuple(one[1] for one in found), all(one[2] for one in found)

    def _shaped(self, found: Array, like: Folded, shape: Shape) -> Folded:
        """A matrix (units, places), the places as those of `like` are, as what the layer reads or gives."""
        batch, _, *held = like.values.shape
        values = found.reshape(len(found), batch, *held).swapaxes(0, 1)
        return Folded(values, like.places) if self.convolution is not None else Folded.of(values.reshape(shape))


def units_first(values: Array) -> Array:
    """As a matrix: units along the second dimension, all else as one."""
    return values.swapaxes(0, 1).reshape(values.shape[1], -1)


class Fixed(Step, ABC):
    """A step without weights."""

    @abstractmethod
    def apply(self, values: Sequence[Folded]) -> list[Folded]:
        """What it gives of these values."""

    @abstractmethod
    def back(self, given: Sequence[Folded], shapes: Sequence[Shape]) -> list[Folded]:
        """The transpose of `apply`; `shapes`: that it takes."""


@dataclass(frozen=True)
class Join(Fixed):
    """What stands at one place after broadcasting to `shape`: additions, products and all other pointwise operations."""

    shape: tuple[int, ...]

    @property
    def terms(self) -> int:
        """As many as come together."""
        return len(self.inputs)

    def apply(self, values: Sequence[Folded]) -> list[Folded]:
        """Their sum."""
        first, *others = aligned([self._spread(value) for value in values])
        total = first.values
        for value in others:
            total = total + value.values
        held = (*self.shape[:2], *total.shape[2:])
        return [Folded(np.broadcast_to(total, held), first.places)]

    def back(self, given: Sequence[Folded], shapes: Sequence[Shape]) -> list[Folded]:
        """The same to each; summed up where it was broadcast."""
        found = []
        for shape in shapes:
            wide = (1,) * (len(self.shape) - len(shape)) + shape
            spread = tuple(dim for dim, size in enumerate(wide) if size != self.shape[dim])
            if shape == self.shape:
                found.append(given[0])
            else:
                found.append(Folded.of(given[0].unfolded().sum(spread, keepdims=True).reshape(shape)))
        return found

    def _spread(self, value: Folded) -> Folded:
        if value.values.ndim < len(self.shape):
            more = (1,) * (len(self.shape) - value.values.ndim)
            value = Folded.of(value.unfolded().reshape(*more, *value.shape))
        sizes = zip(value.places, self.shape[2:], strict=True)
        return Folded(value.values, tuple(one if len(one) == size else one * size for one, size in sizes))


@dataclass(frozen=True)
class Concatenation(Fixed):
    """Values beside each other along `dim`; `parts`: the number of a value, or the shape of what nothing stands in."""

    dim: int
    parts: tuple[int | tuple[int, ...], ...]
    stacked: bool = False

    def apply(self, values: Sequence[Folded]) -> list[Folded]:
        """One tensor of all of them."""
        given = dict(zip(self.inputs, values, strict=True))
        parts = [given[one] if isinstance(one, int) else Folded.constant(one, 0) for one in self.parts]
        if self.dim == 1 and not self.stacked:
            parts = aligned(parts)
            return [Folded(np.concatenate([one.values for one in parts], 1), parts[0].places)]
        join = np.stack if self.stacked else np.concatenate
        return [Folded.of(join([one.unfolded() for one in parts], self.dim)).folded()]

    def back(self, given: Sequence[Folded], shapes: Sequence[Shape]) -> list[Folded]:
        """To each what stands at its place."""
        of_value = dict(zip(self.inputs, shapes, strict=True))
        folded = given[0] if self.dim == 1 and not self.stacked else Folded(given[0].unfolded())
        found: dict[int, Folded] = {}
        begin = 0
        for part in self.parts:
            shape = of_value[part] if isinstance(part, int) else part
            size = 1 if self.stacked else shape[self.dim]
            if isinstance(part, int):
                values = folded.values.take(range(begin, begin + size), self.dim)
                if part in found:
                    values = values + found[part].values
                found[part] = Folded(values, folded.places)
            begin += size
        if folded is given[0]:
            return [found[one] for one in self.inputs]
        return [Folded.of(found[one].values.reshape(of_value[one])).folded() for one in self.inputs]


@dataclass(frozen=True)
class Move(Fixed):
    """An operation of PyTorch that puts elements elsewhere, or in several places."""

    operation: str
    overload: str
    args: tuple[Any, ...]
    kwargs: tuple[tuple[str, Any], ...] = ()

    def apply(self, values: Sequence[Folded]) -> list[Folded]:
        """The same operation on this value."""
        return [Folded.of(one.numpy()).folded() for one in self._moved(_tensor(values[0]))]

    def back(self, given: Sequence[Folded], shapes: Sequence[Shape]) -> list[Folded]:
        """Where each of the elements came from."""
        gradients = [_tensor(one) for one in given]
        with torch.enable_grad():
            value = torch.zeros(shapes[0], dtype=gradients[0].dtype, requires_grad=True)
            (found,) = torch.autograd.grad(self._moved(value), [value], gradients)
        return [Folded.of(found.numpy()).folded()]

    def _moved(self, value: torch.Tensor) -> list[torch.Tensor]:
        function = getattr(getattr(torch.ops.aten, self.operation), self.overload)
        args = [value if one is VALUE or one == VALUE else one for one in self.args]
        found = function(*args, **dict(self.kwargs))
        return [found] if isinstance(found, torch.Tensor) else list(found)


def _tensor(value: Folded) -> torch.Tensor:
    return torch.from_numpy(np.array(value.unfolded()))


@dataclass(frozen=True)
class Reshape(Fixed):
    """The same elements in another shape."""

    shape: tuple[int, ...]

    def apply(self, values: Sequence[Folded]) -> list[Folded]:
        """The value in this shape."""
        return [Folded.of(values[0].unfolded().reshape(self.shape)).folded()]

    def back(self, given: Sequence[Folded], shapes: Sequence[Shape]) -> list[Folded]:
        """In the shape it had."""
        return [Folded.of(given[0].unfolded().reshape(shapes[0])).folded()]


@dataclass(frozen=True)
class Reduction(Fixed):
    """All elements along some dimensions come together, `count` of them."""

    dims: tuple[int, ...]
    shape: tuple[int, ...]
    count: int

    @property
    def terms(self) -> int:
        """As many as come together."""
        return self.count

    def apply(self, values: Sequence[Folded]) -> list[Folded]:
        """Their sums."""
        found = values[0].values
        places = list(values[0].places)
        for dim in self.dims:
            if dim >= 2:  # a slice as often as it stands somewhere
                found = found * np.bincount(places[dim - 2]).reshape(-1, *(1,) * (found.ndim - 1 - dim))
                places[dim - 2] = (0,)
            found = found.sum(dim, keepdims=True)
        return [Folded.of(Folded(found, tuple(places)).unfolded().reshape(self.shape))]

    def back(self, given: Sequence[Folded], shapes: Sequence[Shape]) -> list[Folded]:
        """The same to all that came together."""
        kept = [1 if dim in self.dims else size for dim, size in enumerate(shapes[0])]
        values = given[0].unfolded().reshape(kept)
        places = [(0,) * size if dim in self.dims else tuple(range(size)) for dim, size in enumerate(shapes[0])]
        return [Folded(np.broadcast_to(values, (*shapes[0][:2], *kept[2:])), tuple(places[2:]))]


@dataclass(frozen=True)
class Pooling(Fixed):
    """The elements of a window come together. `windows`: of each of the last dimensions."""

    windows: tuple[Windows, ...]

    @property
    def terms(self) -> int:
        """Elements of the largest window."""
        return prod(max(map(len, windows)) for windows in self.windows)

    def apply(self, values: Sequence[Folded]) -> list[Folded]:
        """Their sums, one dimension after the other."""
        return [_pooled(values[0], [evened(one) for one in self.windows])]

    def back(self, given: Sequence[Folded], shapes: Sequence[Shape]) -> list[Folded]:
        """To each the sum of the windows that it is in."""
        sizes = shapes[0][-len(self.windows) :]
        return [_pooled(given[0], [turned(one, size) for one, size in zip(self.windows, sizes, strict=True)])]


def _pooled(value: Folded, windows: Sequence[Windows]) -> Folded:
    lacking = (None,) * (len(windows) + 2 - value.values.ndim)  # a tensor without a batch, or without channels
    if not lacking:
        return added_up(value, windows)
    return Folded.of(added_up(Folded.of(value.unfolded()[lacking]), windows).unfolded()[(0,) * len(lacking)])
