"""SRigL: every output of a layer keeps as many weights as the others, and outputs with few salient ones keep none.

Lasby et al. 2024, arXiv:2305.02299. Constant fan-in of k among F inputs is N:M sparsity with N = k and M = F. For a smaller
M the rows are groups of M inputs, not outputs, and none is ablated: where each group keeps N, no other takes its weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pai_cli.pruning.allocation import exact
from pai_cli.pruning.select import keep_largest, nan_score
from pai_cli.pruning.ties import in_groups
from pai_cli.spectral.layout import PLAIN, Layout
from pai_cli.training.dynamic import MoveTies, how_many

Bits = NDArray[np.bool_]
Floats = NDArray[np.floating[Any]]


def by_output(array: NDArray[Any], layout: Layout = PLAIN) -> NDArray[Any]:
    """A layer's weights, a row of what it reads for each output."""
    if not layout.transposed:
        return array.reshape(array.shape[0], -1)
    inputs, outputs = array.shape[:2]
    groups = layout.groups
    apart = array.reshape(groups, inputs // groups, outputs, -1)
    return apart.swapaxes(1, 2).reshape(groups * outputs, -1)


def as_stored(rows: NDArray[Any], shape: tuple[int, ...], layout: Layout = PLAIN) -> NDArray[Any]:
    """What `by_output` made rows of, in its shape."""
    if not layout.transposed:
        return rows.reshape(shape)
    inputs, outputs = shape[:2]
    apart = rows.reshape(layout.groups, outputs, inputs // layout.groups, -1)
    return np.ascontiguousarray(apart.swapaxes(1, 2)).reshape(shape)


def fan_ins(mask: Bits, layout: Layout = PLAIN) -> NDArray[np.int64]:
    """How many weights each output keeps."""
    found: NDArray[np.int64] = by_output(mask, layout).sum(axis=1, dtype=np.int64)
    return found


def evened(mask: Bits, weights: Floats, random: np.random.Generator) -> Bits:
    """A mask of rows in which every row that keeps weights keeps as many, from one of any kind: at most as many in all.

    Each of the R rows gets floor(n / R) of n weights: of its own the largest by |w|, and what is missing at random. With
    fewer weights than rows, the n rows that had the most get one each. A mask that is so already is left as it is.
    """
    degrees = mask.sum(axis=1)
    if np.unique(degrees[degrees > 0]).size <= 1:
        return mask.copy()
    kept = int(degrees.sum())
    alive = _first(degrees, min(len(mask), kept))
    drawn = random.random(mask.shape)
    return _filled(mask & alive[:, None], np.abs(weights), drawn, kept // int(alive.sum()), alive)


@dataclass(frozen=True)
class EvenMove:
    """An update of a layer of which `budget` weights are kept at most, a `share` of them moved. `min_salient`: which share
    of the fan-in before any output was ablated must be salient for an output to keep weights; 0, and none is ablated.
    """

    share: float
    budget: int
    min_salient: float


def moved_evenly(layer: tuple[str, Bits], weights: Floats, gradients: Floats, move: EvenMove, ties: MoveTies) -> Bits:
    """The mask of a layer after an update, all given as rows, one an output (Lasby et al. 2024, section 3.1), or one a group
    of inputs.

    Of n kept weights K = round(share n) are to go. Salient are the n - K largest of them by |w|, and the K largest by
    gradient of the others. Outputs with fewer salient weights than min_salient k, or none, keep no weight, where k is the
    fan-in of all outputs together; at least so many outputs stay that the others' fan-in is possible. Of the A that stay
    each gets floor(budget / A): those of the n - K largest weights of the layer that are its own, and by gradient what is
    missing; so those just dropped may return, and so may an output. `layer`: its name and its mask. `ties` takes note of
    where equals were told apart by position. Raises `ScoreError` for NaN.
    """
    name, mask = layer
    outputs, fan_in = mask.shape
    kept, count = int(np.count_nonzero(mask)), how_many(mask, move.share)
    if count == 0:
        return mask.copy()
    sizes, slopes = np.abs(weights), np.abs(gradients)
    if np.isnan(slopes).any():
        raise nan_score(name)
    alive: Bits = np.any(mask, axis=1)
    if move.min_salient > 0:
        salient = keep_largest({name: sizes}, kept - count, {name: mask})[name]
        salient |= keep_largest({name: slopes}, min(count, mask.size - kept), {name: ~mask})[name]
        least = exact(move.min_salient) * (move.budget // outputs)
        found = salient.sum(axis=1)
        stay = np.count_nonzero(found >= max(1, math.ceil(least)))
        alive = _first(found, min(max(stay, -(-move.budget // fan_in)), move.budget))
    here = mask & alive[:, None]
    left = min(kept - count, int(np.count_nonzero(here)))
    survivors = keep_largest({name: sizes}, left, {name: here}, ties.dropped)[name]
    after = _filled(survivors, sizes, slopes, move.budget // int(alive.sum()), alive)
    ties.count += int(np.count_nonzero(after & ~survivors))
    tie = in_groups(slopes, after & ~survivors, ~survivors & alive[:, None])
    if tie.tied:
        ties.grown.note(name, tie)
    return after


def _first(scores: NDArray[np.integer[Any]], count: int) -> Bits:
    """The `count` largest, the earlier first among equals."""
    chosen = np.zeros(len(scores), np.bool_)
    chosen[np.argsort(-scores, kind="stable")[:count]] = True
    return chosen


def _filled(kept: Bits, sizes: Floats, scores: Floats, count: int, alive: Bits) -> Bits:
    """`count` weights in each row that is alive: of those kept the largest, and then of the others by their scores."""
    order = np.lexsort((-np.where(kept, sizes, scores), ~kept), axis=1)
    chosen = np.zeros(kept.shape, np.bool_)
    np.put_along_axis(chosen, order[:, :count], True, axis=1)
    chosen &= alive[:, None]
    return chosen
