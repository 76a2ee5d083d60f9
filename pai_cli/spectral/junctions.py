"""How well the outputs of one layer meet the inputs of the next: compatibility, Copeland score, overlap.

All are of unrolled masks: `p` has a row for each of its outputs; `q`, which reads them, has columns for each output of
p: as many as its kernel has positions, or, in a linear layer after a flatten, as there are pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import fsum

import numpy as np
from numpy.typing import NDArray

from pai_cli.errors import ArrayError
from pai_cli.spectral.result import Measure
from pai_cli.spectral.validation import indices, zero_one

Mask = NDArray[np.bool_]
Integers = NDArray[np.int64]

NOTHING_WRITTEN = "no live output in the layer before"
NOTHING_READ = "no live output in the layer after"
NOTHING_SHARED = "no channel is read at every kernel position"

BLOCK = 2**24  # entries of q that `overlap` rearranges at once


@dataclass(frozen=True, eq=False)
class Junction:
    """Where two layers meet: output `outputs[i]` of p stands at column `columns[i]` of q; each pair once, sorted.

    Both are int64 and equally long. Outputs that q does not read are in none of the pairs. Raises `ArrayError` for others.
    """

    outputs: Integers
    columns: Integers

    def __post_init__(self) -> None:
        outputs, columns = indices(self.outputs, "outputs"), indices(self.columns, "columns")
        if len(outputs) != len(columns):
            raise ArrayError(f"{len(outputs)} outputs and {len(columns)} columns: a junction is made of pairs")
        steps, turns = np.diff(outputs), np.diff(columns)
        if np.any((steps < 0) | ((steps == 0) & (turns <= 0))):
            raise ArrayError("the pairs of a junction must increase: by output, then by column, each pair once")
        object.__setattr__(self, "outputs", outputs)
        object.__setattr__(self, "columns", columns)

    def between(self, outputs: int, columns: int) -> None:
        """Raise `ArrayError` unless p has all of these outputs and q all of these columns."""
        if len(self.outputs) and not (self.outputs[-1] < outputs and np.max(self.columns) < columns):
            raise ArrayError(f"a junction of more than the {outputs} outputs and {columns} columns that are there")

    @staticmethod
    def regular(outputs: int, k: int) -> Junction:
        """Each of p's outputs at the next k columns of q."""
        return Junction(np.repeat(np.arange(outputs), k), np.arange(outputs * k))


@dataclass(frozen=True, eq=False)
class Degrees:
    """Kept weights of each row (output) and column of an unrolled mask, int64. Raises `ArrayError` for others."""

    rows: Integers
    columns: Integers

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", indices(self.rows, "rows"))
        object.__setattr__(self, "columns", indices(self.columns, "columns"))

    @staticmethod
    def of(mask: Mask) -> Degrees:
        """Those of a mask, (rows, columns). Raises `ArrayError` for what is no mask."""
        mask = zero_one(mask)
        return Degrees(mask.sum(axis=1, dtype=np.int64), mask.sum(axis=0, dtype=np.int64))


def compatibility(p: Degrees, q: Degrees, where: Junction) -> Measure:
    """The share of p's live outputs, among those that stand at a column of q, that q reads at all; 0 to 1.

    An output is live when a kept weight leads to it. Missing when none is.
    """
    where.between(len(p.rows), len(q.columns))
    live = where.outputs[p.rows[where.outputs] > 0]
    if not len(live):
        return Measure.missing(NOTHING_WRITTEN)
    read = where.outputs[(p.rows[where.outputs] > 0) & (q.columns[where.columns] > 0)]
    return Measure.of(len(np.unique(read)) / len(np.unique(live)))


def copeland(p: Degrees, q: Degrees, where: Junction) -> Measure:
    """How much of q each live output of p reaches for how much of p reaches it, on average; 0 or more.

    The mean over live outputs of p and their columns in q of (degree into q / live rows of q) / (degree from p / live
    columns of p). Missing when p has no live output that q could read or q no live row.
    """
    where.between(len(p.rows), len(q.columns))
    into, out = p.rows[where.outputs], q.columns[where.columns]
    live = into > 0
    rows, columns = int(np.count_nonzero(q.rows)), int(np.count_nonzero(p.columns))
    if not live.any():
        return Measure.missing(NOTHING_WRITTEN)
    if rows == 0:
        return Measure.missing(NOTHING_READ)
    ratios = fsum((out[live] / into[live]).tolist())
    return Measure.of(ratios * columns / (rows * int(np.count_nonzero(live))))


def overlap(q: Mask, where: Junction) -> Measure:
    """How much the kernel positions of an input channel agree on the rows that they lead to, on average; 0 to 1.

    q: (rows, columns). The mean over input channels of (rows that all positions lead to) / (the smallest degree among
    the positions); channels with a position that leads nowhere are left out. Missing when no channel is left.
    """
    q = zero_one(q)
    if not len(where.outputs):
        return Measure.missing(NOTHING_SHARED)
    where.between(int(where.outputs[-1]) + 1, q.shape[1])
    starts = np.flatnonzero(np.diff(where.outputs, prepend=-1))
    smallest = np.minimum.reduceat(q.sum(axis=0, dtype=np.int64)[where.columns], starts)
    common = np.zeros(len(starts), np.int64)
    step = max(1, BLOCK // len(where.columns))
    for row in range(0, len(q), step):
        common += np.logical_and.reduceat(q[row : row + step, where.columns], starts, axis=1).sum(axis=0)
    counted = smallest > 0
    if not counted.any():
        return Measure.missing(NOTHING_SHARED)
    return Measure.of(fsum((common[counted] / smallest[counted]).tolist()) / int(np.count_nonzero(counted)))
