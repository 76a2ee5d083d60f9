"""N:M selection by comparing, which for small groups is quicker than sorting."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pai_cli.pruning.base import Pattern

Scores = NDArray[Any]
"""Numbers without NaN."""

MOST_COMPARED = 16  # larger groups are sorted: comparing each with each grows with the square


def keep_largest_in_groups(scores: Scores, shape: tuple[int, ...], axis: int, pattern: Pattern) -> NDArray[np.bool_]:
    """The largest scores of each of the pattern's groups along the axis; ties go to the lower index.

    `shape`: of the scores; the pattern divides its side along the axis. The mask is flat.
    """
    keep, of = pattern
    moved = np.moveaxis(scores.reshape(shape), axis, -1)
    columns = np.ascontiguousarray(moved.reshape(-1, of).T)
    if of > MOST_COMPARED:
        order = np.argsort(descending(columns), axis=0, kind="stable")
        kept = np.zeros(columns.shape, np.bool_)
        np.put_along_axis(kept, order[:keep], True, axis=0)
    else:
        kept = _ranks(columns) < keep
    back = np.ascontiguousarray(kept.T).reshape(moved.shape)
    return np.ascontiguousarray(np.moveaxis(back, -1, axis)).reshape(-1)


def descending(scores: Scores) -> Scores:
    """Numbers in the opposite order: sorted, the largest score comes first."""
    return ~scores if scores.dtype.kind == "u" else -scores


def _ranks(columns: Scores) -> NDArray[np.uint8]:
    """How many of a group come before each: larger ones, and equal ones of lower index."""
    ranks = np.zeros(columns.shape, np.uint8)
    for later in range(1, len(columns)):
        for earlier in range(later):
            first = columns[earlier] >= columns[later]
            ranks[later] += first
            ranks[earlier] += ~first
    return ranks
