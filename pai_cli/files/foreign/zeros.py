"""Which zeros of a state dict are pruning, and which were there before: causal masks, padding, identities, tables.

Pruning scatters zeros over weights. A zero that a rule puts there follows it to the end: a triangle, a diagonal, a band, one
row. A tensor whose zeros do is taken for no pruned weight.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from pai_cli.files.buffers import LEAST_SIDE, by_diagonals, no_weight

if TYPE_CHECKING:
    import numpy as np

LEAST_SHARE = 0.01
"""Share of zeros from which a network looks pruned: zeros by chance stay below it."""

LEAST_LAYERS = 2
"""Layers with pruned weights that a network has at least, unless they are half of all it has."""

LEAST_NEIGHBOURS = 20  # kept weights next to each other, in rows that have nothing else, that are no chance


class Tensor(Protocol):
    """What is asked of a stored tensor."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its sides."""

    @property
    def floating(self) -> bool:
        """Whether it holds floating-point numbers."""

    @property
    def read(self) -> Callable[[], np.ndarray]:
        """Gets its values."""


@dataclass(frozen=True)
class Zeros:
    """What is 0 in a state dict's floating tensors of two dimensions or more.

    `sizes`, `zeros`: by name, of all of them. `exact`: those whose zeros no pruning made, or that are no weights: each with
    what it is instead. `binary`: whether no tensor of the state dict holds anything but 0 and 1.
    """

    sizes: Mapping[str, int]
    zeros: Mapping[str, int]
    exact: Mapping[str, str] = field(default_factory=dict)
    binary: bool = False

    @property
    def layers(self) -> tuple[str, ...]:
        """The tensors that may be pruned weights."""
        return tuple(name for name in self.sizes if name not in self.exact)

    @property
    def pruned(self) -> tuple[str, ...]:
        """Those of them that have a zero."""
        return tuple(name for name in self.layers if self.zeros[name])

    @property
    def share(self) -> float:
        """Zeros of layers that have other values too, as a share of all layers' weights.

        Layers that are 0 throughout are not counted: some networks begin with such layers.
        """
        zeros = sum(self.zeros[name] for name in self.pruned if self.zeros[name] < self.sizes[name])
        return zeros / max(1, sum(self.sizes[name] for name in self.layers))

    @property
    def look_pruned(self) -> bool:
        """Whether there are enough of them, in enough layers."""
        return self.share >= LEAST_SHARE and len(self.pruned) >= min(LEAST_LAYERS, math.ceil(len(self.layers) / 2))


def zeros_of(tensors: Mapping[str, Tensor]) -> Zeros:
    """Look at every tensor, one after the other."""
    import numpy as np

    from pai_cli.files.masks import is_binary

    sizes, zeros, exact, binary = {}, {}, {}, bool(tensors)
    for name, stored in tensors.items():
        weight = stored.floating and len(stored.shape) > 1
        if not weight and not binary:
            continue
        array = stored.read()
        binary = binary and is_binary(array)
        if not weight:
            continue
        sizes[name], zeros[name] = array.size, array.size - int(np.count_nonzero(array))
        if why := "by its name no weight" if no_weight(name) else _rule(array, zeros[name]):
            exact[name] = why
    return Zeros(sizes, zeros, exact, binary)


def _rule(array: np.ndarray, zeros: int) -> str:
    """The rule that an array's zeros follow, "" where pruning may have made them."""
    if not 0 < zeros < array.size:
        return ""
    kept = array != 0
    matrix = kept.reshape(len(kept), -1)
    values = array[kept]
    if values.size > 1 and bool((values == values[0]).all()):
        return f"0 and {values[0]:g} alone"
    if by_diagonals(kept):
        return "0 by whole diagonals"
    for side, one in (("row", matrix), ("column", matrix.T)):
        if told := _at_an_edge(one, side):
            return told
    if kept.ndim == 2 and (_in_runs(matrix) or _in_runs(matrix.T)):
        return "0 outside a band"
    squeezed = kept.reshape([side for side in kept.shape if side > 1])
    return "" if squeezed.shape == kept.shape or squeezed.ndim < 2 else _rule(array.reshape(squeezed.shape), zeros)


def _at_an_edge(kept: np.ndarray, side: str) -> str:
    """What to say where zeros are in one row alone, or in whole rows from the first or to the last."""
    import numpy as np

    some = np.flatnonzero(~kept.all(1))
    if len(kept) < LEAST_SIDE:
        return ""
    if len(some) == 1:
        return f"0 in {side} {some[0]} alone"
    edge = some[0] == 0 or some[-1] == len(kept) - 1
    whole = len(some) == some[-1] - some[0] + 1 and not kept[some].any()
    return f"0 in {side}s {some[0]} to {some[-1]}, whole ones, alone" if edge and whole else ""


def _in_runs(kept: np.ndarray) -> bool:
    """Whether what is kept of each row stands together, in rows of which enough is."""
    begins = kept[:, :1].sum(1) + (kept[:, 1:] & ~kept[:, :-1]).sum(1)
    partly = kept[kept.any(1) & ~kept.all(1)]
    return bool((begins <= 1).all()) and int(partly.sum()) - len(partly) >= LEAST_NEIGHBOURS
