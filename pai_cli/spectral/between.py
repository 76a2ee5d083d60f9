"""How well the outputs of one layer meet the inputs of the next: compatibility, Copeland score, overlap.

All are of unrolled masks: `p` has a row for each of its outputs; `q`, which reads them, has k columns for each output of
p, one after the other (k is the size of its kernel; of a linear layer after a flatten, the number of pixels).
"""

from __future__ import annotations

from math import fsum

import numpy as np
from numpy.typing import NDArray

from pai_cli.spectral.result import Measure

Mask = NDArray[np.bool_]

NOTHING_WRITTEN = "no live output in the layer before"
NOTHING_READ = "no live output in the layer after"
NOTHING_SHARED = "no channel is read at every kernel position"


def compatibility(p: Mask, q: Mask, k: int) -> Measure:
    """The share of p's live outputs that q reads at all; 0 to 1.

    p: (outputs, columns); q: (rows, outputs * k). An output is live when a kept weight leads to it. Missing when none is.
    """
    live, read = p.any(axis=1), _degrees(p, q, k).any(axis=1)
    if not live.any():
        return Measure.missing(NOTHING_WRITTEN)
    return Measure.of(int(np.count_nonzero(live & read)) / int(np.count_nonzero(live)))


def copeland(p: Mask, q: Mask, k: int) -> Measure:
    """How much of q each live output of p reaches for how much of p reaches it, on average; 0 or more.

    The mean over live outputs of p and kernel positions of (degree into q / live rows of q) / (degree from p / live
    columns of p). p: (outputs, columns); q: (rows, outputs * k). Missing when p has no live output or q no live row.
    """
    into, out = p.sum(axis=1, dtype=np.int64), _degrees(p, q, k).sum(axis=1)
    live = into > 0
    rows = int(np.count_nonzero(q.any(axis=1)))
    if not live.any():
        return Measure.missing(NOTHING_WRITTEN)
    if rows == 0:
        return Measure.missing(NOTHING_READ)
    columns = int(np.count_nonzero(p.any(axis=0)))
    ratios = fsum((out[live] / into[live]).tolist())
    return Measure.of(ratios * columns / (rows * k * int(np.count_nonzero(live))))


def overlap(q: Mask, k: int) -> Measure:
    """How much the kernel positions of an input channel agree on the rows that they lead to, on average; 0 to 1.

    The mean over input channels of (rows that all k positions lead to) / (the smallest degree among the positions);
    channels with a position that leads nowhere are left out. q: (rows, channels * k). Missing when no channel is left.
    """
    positions = q.reshape(len(q), -1, k)
    smallest = positions.sum(axis=0, dtype=np.int64).min(axis=1)
    common = positions.all(axis=2).sum(axis=0, dtype=np.int64)
    counted = smallest > 0
    if not counted.any():
        return Measure.missing(NOTHING_SHARED)
    return Measure.of(fsum((common[counted] / smallest[counted]).tolist()) / int(np.count_nonzero(counted)))


def _degrees(p: Mask, q: Mask, k: int) -> NDArray[np.int64]:
    """The degree of each of q's columns, as (outputs of p, kernel positions)."""
    if q.shape[1] != len(p) * k:
        raise ValueError(f"q has {q.shape[1]} columns, which are not {k} for each of p's {len(p)} outputs")
    degrees: NDArray[np.int64] = q.sum(axis=0, dtype=np.int64)
    return degrees.reshape(len(p), k)
