"""Tensors in which equal slices are held once: of an image most rows are alike, and differ near the border alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Places = tuple[int, ...]
"""Of each place along one dimension, which of the slices held stands there; they are numbered as they first appear."""

Windows = tuple[tuple[int, ...], ...]
"""Of each place along one dimension, the places of another tensor that it takes, -1 for none."""


@dataclass(frozen=True, eq=False)
class Folded:
    """A tensor. `values`: its slices that differ; `places`: of each dimension from the third on, where they stand."""

    values: Array
    places: tuple[Places, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole tensor."""
        return (*self.values.shape[:2], *map(len, self.places))

    @property
    def counts(self) -> Array:
        """At how many places each of the last dimensions' values stands, to be broadcast with `values`."""
        found = np.ones((1,) * min(2, self.values.ndim))
        for places in self.places:
            found = found[..., None] * np.bincount(places)
        return found

    def unfolded(self) -> Array:
        """The whole tensor."""
        values = self.values
        for dim, places in enumerate(self.places, 2):
            if values.shape[dim] != len(places):
                values = values.take(places, dim)
        return values

    def folded(self) -> Folded:
        """The same tensor, slices that turned out equal held once."""
        values, several = self.values, []
        for dim, places in enumerate(self.places, 2):
            if values.shape[dim] > 1:
                first: dict[bytes, int] = {}
                slices = np.moveaxis(values, dim, 0)
                numbers = [first.setdefault(one.tobytes(), len(first)) for one in slices]
                if len(first) < len(numbers):
                    values = values.take([numbers.index(one) for one in range(len(first))], dim)
                several.append(tuple(numbers[one] for one in places))
            else:
                several.append(places)
        return Folded(values, tuple(several))

    @staticmethod
    def of(whole: Array) -> Folded:
        """This tensor, of which nothing is known to be equal."""
        return Folded(whole, tuple(tuple(range(size)) for size in whole.shape[2:]))

    @staticmethod
    def constant(shape: tuple[int, ...], value: float) -> Folded:
        """One number everywhere."""
        held = (*shape[:2], *(min(size, 1) for size in shape[2:]))
        return Folded(np.full(held, float(value)), tuple((0,) * size for size in shape[2:]))


def aligned(several: Sequence[Folded]) -> list[Folded]:
    """The same tensors, of the same sizes from the third dimension on, with the same places."""
    found = list(several)
    for dim in range(len(found[0].places)):
        both = tuple(one.places[dim] for one in found)
        if all(one == both[0] for one in both):
            continue
        taken, places = _together(both)
        for number, one in enumerate(found):
            every = (*one.places[:dim], places, *one.places[dim + 1 :])
            found[number] = Folded(one.values.take(taken[number], dim + 2), every)
    return found


@lru_cache(4096)
def _together(several: tuple[Places, ...]) -> tuple[tuple[Places, ...], Places]:
    """Of several tensors' slices, which stand together at any place, and where they do."""
    numbers: dict[tuple[int, ...], int] = {}
    places = tuple(numbers.setdefault(key, len(numbers)) for key in zip(*several, strict=True))
    return tuple(zip(*numbers, strict=True)), places


@lru_cache(4096)
def taken(windows: Windows, places: Places) -> tuple[Array, Places]:
    """What windows take of folded slices: for each that differs, a column of the slices' numbers, -1 for none; and where."""
    numbers: dict[tuple[int, ...], int] = {}
    found = tuple(
        numbers.setdefault(tuple(-1 if one < 0 else places[one] for one in window), len(numbers)) for window in windows
    )
    return np.array(list(numbers), np.int64).reshape(len(numbers), -1).T, found


def added_up(value: Folded, windows: Sequence[Windows]) -> Folded:
    """What meets in the windows of each of the last dimensions, one after the other."""
    values, several = value.values, list(value.places)
    first = len(several) - len(windows)
    for dim, one in enumerate(windows, first):
        slices, several[dim] = taken(one, several[dim])
        nothing = np.zeros_like(values.take([0], dim + 2))
        padded = np.concatenate([values, nothing], dim + 2)
        values = sum((padded.take(row, dim + 2) for row in slices[1:]), start=padded.take(slices[0], dim + 2))
    return Folded(values, tuple(several))


@lru_cache(1024)
def turned(windows: Windows, size: int) -> Windows:
    """Of each of `size` places, the windows that take it."""
    found: list[list[int]] = [[] for _ in range(size)]
    for number, window in enumerate(windows):
        for one in window:
            found[one].append(number)
    return evened(tuple(map(tuple, found)))


@lru_cache(1024)
def evened(windows: Windows) -> Windows:
    """The same windows, all as long as the longest."""
    most = max(1, *map(len, windows))
    return tuple((*one, *(-1,) * (most - len(one))) for one in windows)


@lru_cache(1024)
def meetings(rows: int, columns: int, how: tuple[int, int, int, int]) -> tuple[Windows, Windows]:
    """Of a convolution along one dimension: what of `columns` places each of `rows` meets by each of the kernel's weights;
    and of each of `columns`, which of `rows`. `how`: kernel, stride, padding and dilation.
    """
    kernel, stride, padding, dilation = how
    reads = [[row * stride - padding + one * dilation for one in range(kernel)] for row in range(rows)]
    back = [[-1] * kernel for _ in range(columns)]
    for row, window in enumerate(reads):
        for one, place in enumerate(window):
            if 0 <= place < columns:
                back[place][one] = row
            else:
                window[one] = -1
    return tuple(map(tuple, reads)), tuple(map(tuple, back))


@lru_cache(4096)
def met_by(places: Places, size: int, how: tuple[int, int, int, int], *, back: bool) -> tuple[Array, Places, bool]:
    """As `taken`, of what a convolution's kernel meets at each of `size` places, of rows or `back` of columns; and whether
    that is one slice each, as they stand. `how`: as in `meetings`.
    """
    windows = meetings(len(places), size, how)[1] if back else meetings(size, len(places), how)[0]
    slices, found = taken(windows, places)
    return slices, found, slices.tolist() == [list(range(1 + max(places, default=-1)))]


def picked(values: Array, slices: Sequence[Array], batch: int, *, each: bool) -> Array:
    """What a kernel's weights meet of `values` (channels, `batch`, slices along each dimension), as (channels, kernel,
    batch * places), the kernel as one dimension. `slices`: by dimension, as `taken` gives them.

    `each`: the values are (channels, kernel, batch, slices), and each of the kernel's weights meets its own.
    """
    sides = len(slices)
    ahead, held = values.shape[:-sides], values.shape[-sides:]
    padded = np.zeros((*ahead, *(size + 1 for size in held)), values.dtype)  # the last of each: nothing
    padded[tuple(map(slice, (*ahead, *held)))] = values
    every = math.prod(padded.shape[-sides:])
    where = np.arange(batch).reshape(-1, *(1,) * sides) * every
    if each:
        kernel = [len(one) for one in slices]
        where = where + (np.arange(math.prod(kernel)) * batch * every).reshape(*kernel, *(1,) * (sides + 1))
    for dim, one in enumerate(slices):
        every //= held[dim] + 1
        shape = [1] * (2 * sides + 1)
        shape[dim], shape[sides + 1 + dim] = one.shape
        where = where + (one % (held[dim] + 1) * every).reshape(shape)
    found: Array = padded.reshape(len(values), -1).take(where.reshape(-1), 1)
    return found.reshape(len(values), math.prod(map(len, slices)), -1)
