"""The steps of an unrolled network: each joins elements to elements, and as a linear map it adds up what meets.

A step is applied to tensors of numbers, 0 or more. With ones as weights it adds up numbers of paths; with marks, 0 or 1,
it says where there are any. All of what a step holds is plain, so that it can be sent to other processes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from pai_cli.models.layers import PrunableLayer

VALUE = "the value"
"""Stands for the value in the arguments of an operation that moves it."""

Windows = tuple[tuple[int, ...], ...]
"""Of each place along one dimension of what a pooling gives, the places that it takes."""


@dataclass(frozen=True)
class Step:
    """Takes the values with these numbers and gives those."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def terms(self) -> int:
        """How many numbers are added, at the most, for one of those it gives."""
        return 1

    def apply(self, values: list[torch.Tensor]) -> list[torch.Tensor]:
        """What it gives of these values."""
        raise NotImplementedError


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

    @property
    def axis(self) -> int:
        """The dimension of what it reads and gives along which its units stand."""
        return -1 if self.convolution is None else 1

    def multiply(self, value: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """The layer without its bias."""
        layout = self.layer.layout
        if self.convolution is not None:
            stride, padding, dilation, more = self.convolution
            return torch.convolution(
                value, weight, None, stride, padding, dilation, layout.transposed, more, layout.groups
            )
        return value @ (weight if layout.transposed else weight.reshape(weight.shape[0], -1).T)


@dataclass(frozen=True)
class Join(Step):
    """What stands at one place after broadcasting to `shape`: additions, products and all other pointwise operations."""

    shape: tuple[int, ...]

    @property
    def terms(self) -> int:
        """As many as come together."""
        return len(self.inputs)

    def apply(self, values: list[torch.Tensor]) -> list[torch.Tensor]:
        """Their sum."""
        first, *others = values
        total = first.expand(self.shape)
        for value in others:
            total = total + value
        return [total]


@dataclass(frozen=True)
class Concatenation(Step):
    """Values beside each other along `dim`; `parts`: the number of a value, or the shape of what nothing stands in."""

    dim: int
    parts: tuple[int | tuple[int, ...], ...]
    stacked: bool = False

    def apply(self, values: list[torch.Tensor]) -> list[torch.Tensor]:
        """One tensor of all of them."""
        given = dict(zip(self.inputs, values, strict=True))
        parts = [given[one] if isinstance(one, int) else values[0].new_zeros(one) for one in self.parts]
        return [torch.stack(parts, self.dim) if self.stacked else torch.cat(parts, self.dim)]


@dataclass(frozen=True)
class Move(Step):
    """An operation of PyTorch that puts elements elsewhere, or in several places."""

    operation: str
    overload: str
    args: tuple[Any, ...]
    kwargs: tuple[tuple[str, Any], ...] = ()

    def apply(self, values: list[torch.Tensor]) -> list[torch.Tensor]:
        """The same operation on this value."""
        function = getattr(getattr(torch.ops.aten, self.operation), self.overload)
        args = [values[0] if one is VALUE or one == VALUE else one for one in self.args]
        found = function(*args, **dict(self.kwargs))
        return [found] if isinstance(found, torch.Tensor) else list(found)


@dataclass(frozen=True)
class Reshape(Step):
    """The same elements in another shape."""

    shape: tuple[int, ...]

    def apply(self, values: list[torch.Tensor]) -> list[torch.Tensor]:
        """The value in this shape."""
        return [values[0].reshape(self.shape)]


@dataclass(frozen=True)
class Reduction(Step):
    """All elements along some dimensions come together, `count` of them."""

    dims: tuple[int, ...]
    shape: tuple[int, ...]
    count: int

    @property
    def terms(self) -> int:
        """As many as come together."""
        return self.count

    def apply(self, values: list[torch.Tensor]) -> list[torch.Tensor]:
        """Their sums."""
        return [values[0].sum(self.dims).reshape(self.shape)]


@dataclass(frozen=True)
class Pooling(Step):
    """The elements of a window come together. `windows`: of each of the last dimensions."""

    windows: tuple[Windows, ...]

    @property
    def terms(self) -> int:
        """Elements of the largest window."""
        return math.prod(max(map(len, windows)) for windows in self.windows)

    def apply(self, values: list[torch.Tensor]) -> list[torch.Tensor]:
        """Their sums, one dimension after the other."""
        value = values[0]
        for number, windows in enumerate(self.windows):
            dim = value.dim() - len(self.windows) + number
            taken = value.new_zeros(len(windows), value.shape[dim])
            for row, places in enumerate(windows):
                taken[row, list(places)] = 1
            value = (value.movedim(dim, -1) @ taken.T).movedim(-1, dim)
        return [value]
