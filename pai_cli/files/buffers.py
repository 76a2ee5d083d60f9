"""Tensors that are buffers and no weights, by their names or by their zeros: causal masks, bands, positions."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from pai_cli.files.messages import some_names

if TYPE_CHECKING:
    import numpy as np

LEAST_SIDE = 4  # rows and columns that a rule takes: in fewer, chance may look like one

NO_WEIGHT = re.compile(
    r"(.+_)?(bias|mask|table|coords|index|ids|cached|freqs?|window|pe)|pos(ition)?(al)?_?(emb.*|enc.*)", re.IGNORECASE
)
"""Last parts of names that are of buffers, biases and positions, which are not pruned."""


def told_of_buffers(shapes: Mapping[str, tuple[int, ...]], read: Callable[[str], np.ndarray]) -> str:
    """What to say of masks that are of buffers, such as causal ones, by their names and by their zeros; "" for none."""
    named = [name for name, shape in shapes.items() if len(shape) > 1 and no_weight(name)]
    found = [name for name in named if not (kept := read(name)).all() and kept.any() and by_diagonals(kept)]
    if not found:
        return ""
    told = f"{some_names(map(repr, found))}, which by name and zeros (whole diagonals) is a buffer and no weight"
    return f"counts {told}; make masks of parameters alone"


def no_weight(name: str) -> bool:
    """Whether it is called as buffers, biases and positions are."""
    return NO_WEIGHT.fullmatch(name.rpartition(".")[2]) is not None


def by_diagonals(kept: np.ndarray) -> bool:
    """Whether all matrices in the last two dimensions have the same zeros, and each diagonal is 0 or not throughout."""
    if min(kept.shape[-2:]) < LEAST_SIDE:
        return False
    matrices = kept.reshape(-1, *kept.shape[-2:])
    return bool((matrices == matrices[0]).all() and (matrices[0, 1:, 1:] == matrices[0, :-1, :-1]).all())
