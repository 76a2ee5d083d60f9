"""Masks of one network as a collection of graphs: kept kernels, or kept weights, are edges between its units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pai_cli.errors import MaskError, MaskMismatchError
from pai_cli.files.masks import Mask, check_layout, unknown_layouts
from pai_cli.mining.collection import Collection, Indices, Labels, add_holder, empty_holders
from pai_cli.mining.wiring import Wiring
from pai_cli.progress import Progress, silent
from pai_cli.spectral.layout import Layout


@dataclass(frozen=True, eq=False)
class _Layer:
    """Edges of one layer.

    `ends` of every edge it could have; `group` takes a kernel (by its first two indices, flat) to its edge, None where
    every kernel, or weight, is its own; `index` is the tensor's index of each edge's first kernel or weight.
    """

    ends: Indices
    group: Indices | None
    index: Indices
    sides: tuple[int, ...]

    def flags(self, array: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which edges a mask has."""
        kept = np.asarray(array.reshape(math.prod(self.sides), -1).any(axis=1))
        if self.group is None:
            return kept
        found = np.zeros(len(self.ends), np.bool_)
        found[self.group[kept]] = True
        return found


def check_same_network(masks: Sequence[Mask]) -> None:
    """Raise `MaskMismatchError` unless all masks have the layers of the first, in the same shapes and layouts."""
    first = masks[0]
    for mask in masks[1:]:
        if dict(mask.shapes) != dict(first.shapes):
            differing = sorted(set(mask.shapes.items()) ^ set(first.shapes.items()))
            raise MaskMismatchError(
                f"{mask.path}: masks other layers than {first.path} ({differing[0][0]!r} differs); "
                "mine the masks of one network at a time"
            )
    known = teller(masks)
    for mask in (mask for mask in masks if not unknown_layouts(mask)):
        for name in mask.names:
            if len(mask.shapes[name]) > 2 and mask.layout(name) != known.layout(name):
                raise MaskMismatchError(
                    f"{mask.path}: tells other groups or transposition of {name!r} than {known.path}; "
                    "mine the masks of one network at a time"
                )


def teller(masks: Sequence[Mask]) -> Mask:
    """The mask whose layouts hold for all: the first that tells them, or else the first."""
    return next((mask for mask in masks if not unknown_layouts(mask)), masks[0])


def matrices(mask: Mask) -> tuple[str, ...]:
    """The masked parameters that have rows and columns. Raises `MaskError` when none has."""
    names = tuple(name for name in mask.names if len(mask.shapes[name]) >= 2 and 0 not in mask.shapes[name])
    if not names:
        raise MaskError(f"{mask.path}: no tensor has rows and columns; a graph needs the mask of a weight")
    for name in names:
        shape, layout = mask.shapes[name], mask.layout(name)
        check_layout(mask.path, name, shape, layout)
        if layout.stacked:
            raise MaskError(
                f"{mask.path}: {name!r} holds {shape[0]} experts in one tensor, which pai mine does not take; mine a mask "
                "whose experts are tensors of their own"
            )
        if layout.kernel_first:
            raise MaskError(
                f"{mask.path}: {name!r} is a kernel as Flax and Keras store it, (..., inputs, outputs), which pai mine does "
                "not take; store it as (outputs, inputs, ...), and call it a weight"
            )
    return names


def collection_of_masks(masks: Sequence[Mask], wiring: Wiring | None, progress: Progress = silent) -> Collection:
    """The graphs of masks of one network: at the level of units by a wiring, at that of weights without.

    At the level of weights each layer stands by itself, as the bipartite graph of its unrolled matrix.
    Raises `MaskError` and `MaskMismatchError`.
    """
    check_same_network(masks)
    known = teller(masks)
    names = matrices(known)
    ends, holders, groups, index, possible, sides = [], [], [], [], [], []
    base = 0
    for number, name in enumerate(names):
        progress(number, len(names), name)
        shape, layout = known.shapes[name], known.layout(name)
        if wiring is None:
            layer, base = _by_weight(shape, layout, base)
        else:
            layer = _by_unit(name, shape, layout, wiring)
        held = empty_holders(len(layer.ends), len(masks))
        for graph, mask in enumerate(masks):
            add_holder(held, layer.flags(mask.array(name)), graph)
        some = np.flatnonzero(held.any(1))
        sides.append(layer.sides)
        possible.append(len(layer.ends))
        ends.append(layer.ends[some])
        holders.append(held[some])
        index.append(layer.index[some])
        groups.append(np.full(len(some), number, np.int32))
    group = np.concatenate(groups)
    return Collection(
        names=tuple(str(mask.path) for mask in masks),
        ends=np.concatenate(ends),
        holders=np.concatenate(holders),
        groups=group,
        group_names=names,
        possible=tuple(possible),
        labels=_labels(names, sides, group, np.concatenate(index)),
    )


def _labels(names: Sequence[str], sides: Sequence[tuple[int, ...]], group: NDArray[np.int32], index: Indices) -> Labels:
    def labels(edges: Indices) -> list[str]:
        """`NAME[a,b]`, the tensor's index of each edge."""
        found = []
        for edge in edges:
            layer = group[edge]
            found.append(
                f"{names[layer]}[{','.join(str(side) for side in np.unravel_index(index[edge], sides[layer]))}]"
            )
        return found

    return labels


def _units(shape: tuple[int, ...], layout: Layout) -> tuple[Indices, Indices]:
    """The unit that each kernel writes to and the place that it reads, in the order of the tensor's first two sides."""
    a, b = np.indices(shape[:2]).reshape(2, -1)
    block = a // (shape[0] // layout.groups) * shape[1]
    return (block + b, a) if layout.transposed else (a, block + b)


def _by_unit(name: str, shape: tuple[int, ...], layout: Layout, wiring: Wiring) -> _Layer:
    units, places = _units(shape, layout)
    ends = np.stack([wiring.outputs[name][units], wiring.inputs[name][places]], 1)
    everything = np.arange(len(ends))
    if len(np.unique(wiring.inputs[name])) == len(wiring.inputs[name]):
        return _Layer(ends, None, everything, shape[:2])
    # Columns that read one unit, as after a flatten, are one kernel.
    keys = np.stack([units, ends[:, 1]], 1)
    _, first, group = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    return _Layer(ends[first], group.reshape(-1), first, shape[:2])


def _by_weight(shape: tuple[int, ...], layout: Layout, base: int) -> tuple[_Layer, int]:
    """The layer, and the first vertex that is free after it."""
    units, places = _units(shape, layout)
    kernel = math.prod(shape[2:])
    rows, columns = layout.matrix(shape)
    position = np.tile(np.arange(kernel), len(units))
    column = np.repeat(places, kernel) * kernel + position
    ends = np.stack([base + np.repeat(units, kernel), base + rows + column], 1)
    return _Layer(ends, None, np.arange(len(ends)), shape), base + rows + columns
