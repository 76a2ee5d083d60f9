"""N:M selection of a piece, quicker than by sorting."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pai_cli.pruning.base import Pattern
from pai_cli.pruning.streaming.keys import Keys

MOST_COMPARED = 16  # larger groups are sorted: comparing each with each grows with the square


def keep_largest_in_groups(keys: Keys, shape: tuple[int, ...], axis: int, pattern: Pattern) -> NDArray[np.bool_]:
    """The largest keys of each of the pattern's groups along the axis; ties go to the lower index.

    `shape`: of the keys; the pattern divides its side along the axis. The mask is flat, as the keys are.
    """
    keep, of = pattern
    moved = np.moveaxis(keys.reshape(shape), axis, -1)
    columns = np.ascontiguousarray(moved.reshape(-1, of).T)
    if of > MOST_COMPARED:
        order = np.argsort(~columns, axis=0, kind="stable")  # the largest key first
        kept = np.zeros(columns.shape, np.bool_)
        np.put_along_axis(kept, order[:keep], True, axis=0)
    else:
        kept = _ranks(columns) < keep
    back = np.ascontiguousarray(kept.T).reshape(moved.shape)
    return np.ascontiguousarray(np.moveaxis(back, -1, axis)).reshape(-1)


def _ranks(columns: Keys) -> NDArray[np.uint8]:
    """How many of a group come before each: larger ones, and equal ones of lower index."""
    ranks = np.zeros(columns.shape, np.uint8)
    for later in range(1, len(columns)):
        for earlier in range(later):
            first = columns[earlier] >= columns[later]
            ranks[later] += first
            ranks[earlier] += ~first
    return ranks
