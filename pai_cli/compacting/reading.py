"""What a layer makes of what arrives at its places: which of them it needs, and what constants do to its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pai_cli.compacting.following import Use
from pai_cli.compacting.shapes import Flags
from pai_cli.spectral.layout import Layout

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Read:
    """What a layer reads in all of its uses, by [group, row of the group, place of the group].

    `live`: a weight that is not 0 meets what depends on the input. `border`, `no_bias`: it meets a constant that no bias
    can take, for this reason. `constant`: what the place adds to the row whatever the input, where a bias can take it.
    `level`: by place, the number other than 0 that arrives at every position, NaN where there is none or several groups or
    uses would share it: constants of such places are multiples of each other, and one of them can carry all. `twice`:
    whether the layer is used several times.
    """

    live: Flags
    border: Flags
    no_bias: Flags
    constant: Floats
    level: Floats
    twice: bool

    @property
    def carried(self) -> Flags:
        """Where a constant that no bias can take could be taken by another place."""
        found: Flags = (self.border | self.no_bias) & ~np.isnan(self.level)
        return found

    @property
    def blocked(self) -> Flags:
        """Where a kept row needs this very place."""
        found: Flags = self.live | ((self.border | self.no_bias) & np.isnan(self.level))
        return found


def canonical(weight: Floats, layout: Layout) -> Floats:
    """A layer's weight as [group, row of the group, place of the group, element of the kernel]."""
    kernel = int(np.prod(weight.shape[2:]))
    grouped = weight.reshape(layout.groups, weight.shape[0] // layout.groups, weight.shape[1], kernel)
    return grouped.swapaxes(1, 2) if layout.transposed else grouped


def read(uses: Sequence[Use], weight: Floats, *, can_add: bool) -> Read:
    """What all uses of one layer read. `can_add`: whether its bias can gain constants, or one be given to it."""
    first, alone = uses[0], len(uses) == 1
    kernels = canonical(weight, first.layer.layout)
    there = kernels != 0
    shape = kernels.shape[0], 1, kernels.shape[2]
    varies = np.logical_or.reduce([use.varies for use in uses]).reshape(shape)
    levels = np.stack([use.level for use in uses])
    level = np.where((levels == levels[0]).all(0), levels[0], np.nan).reshape(shape)
    inside = np.logical_and.reduce([use.inside for use in uses])
    some = there.any(3)
    constant = some & ~varies & ~(level == 0)
    border = constant & (np.isnan(level) | (there & ~inside).any(3))
    foldable = constant & ~border
    homeless = foldable & (not (alone and can_add))
    taken = np.where(foldable & ~homeless, kernels.sum(3) * np.where(foldable, level, 0), 0)
    carries = ~varies & ~(level == 0) & alone & (len(kernels) == 1)
    return Read(some & varies, border, homeless, taken, np.where(carries, level, np.nan), not alone)
