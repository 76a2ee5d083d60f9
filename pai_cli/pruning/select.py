"""Keeping an exact number of weights: the largest scores, with a written rule for ties."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pai_cli.errors import ScoreError
from pai_cli.pruning.base import Masks
from pai_cli.pruning.ties import Cut, Ties

ScoreArrays = Mapping[str, NDArray[np.floating[Any]]]


class Selection(NamedTuple):
    """The ways to select, on the host or where the scores are: the same masks to the bit."""

    largest: Callable[..., Any]
    largest_by_layer: Callable[..., Any]
    in_layers: Callable[..., Any]
    safe_count: Callable[..., int]


def keep_largest(scores: ScoreArrays, count: int, active: Masks | None = None, ties: Ties | None = None) -> Masks:
    """Masks of exactly `count` weights, the largest scores over all layers together.

    Ties go to the lower index, counted through the layers in the order of `scores` and within a layer row by row, unless
    `ties` says otherwise, which also takes note of them. With `active`, only weights that are true there may be kept; what
    is false stays false, whatever its score. Raises `ScoreError` naming the layer when an active score is NaN, and
    `ValueError` when `count` is below 0 or above the number of weights to choose from.
    """
    total = _active_count(scores, active)
    if not 0 <= count <= total:
        raise ValueError(f"cannot keep {count} of {total} weights")
    # One buffer, partitioned in place: with 60 million weights each further copy is half a gigabyte.
    candidates = active_scores(scores, active)
    if count == 0:
        return {name: np.zeros(values.shape, dtype=np.bool_) for name, values in scores.items()}
    cut = total - count
    candidates.partition(cut)
    threshold = candidates[cut]
    above = int(np.count_nonzero(candidates[cut:] > threshold))
    tied = total - cut - above + int(np.count_nonzero(candidates[:cut] == threshold))
    del candidates
    return _masks_above(scores, threshold, (ties or Ties()).cut(tied, count - above), active)


def keep_largest_by_layer(
    scores: ScoreArrays, counts: Mapping[str, int], active: Masks | None = None, ties: Ties | None = None
) -> Masks:
    """Masks of exactly `counts[name]` weights in each layer, by the rules of `keep_largest`."""
    masks: Masks = {}
    for name, values in scores.items():
        of_layer = None if active is None else {name: active[name]}
        masks |= keep_largest({name: values}, counts[name], of_layer, ties)
    return masks


def active_scores(scores: ScoreArrays, active: Masks | None = None) -> NDArray[np.floating[Any]]:
    """The scores of the active weights, flat, in network order, as a new array.

    Raises `ScoreError` on NaN.
    """
    dtype = np.result_type(*(values.dtype for values in scores.values()))
    flat = np.empty(_active_count(scores, active), dtype)
    start = 0
    for name, values in scores.items():
        chosen = values.reshape(-1) if active is None else values[active[name]]
        piece = flat[start : start + chosen.size]
        piece[:] = chosen
        # The minimum of an array with a NaN is NaN, and unlike isnan().any() it needs no array of its own.
        if piece.size and np.isnan(piece.min()):
            raise nan_score(name)
        start += chosen.size
    return flat


def nan_score(layer: str) -> ScoreError:
    """What to raise where a layer has one."""
    return ScoreError(f"{layer}: a score is NaN; check the weights for NaN or infinite values")


def _active_count(scores: ScoreArrays, active: Masks | None) -> int:
    if active is None:
        return sum(values.size for values in scores.values())
    return sum(int(np.count_nonzero(active[name])) for name in scores)


def _masks_above(scores: ScoreArrays, threshold: np.floating[Any], cut: Cut, active: Masks | None) -> Masks:
    """Every active weight above the threshold, and those that the cut takes of the ones that equal it."""
    masks: Masks = {}
    for name, values in scores.items():
        mask = np.greater(values, threshold, order="C")
        if active is not None:
            mask &= active[name]
        if cut.keep or cut.tied:
            equal = np.equal(values, threshold, order="C")
            if active is not None:
                equal &= active[name]
            places = np.flatnonzero(equal)
            mask.reshape(-1)[cut.of_layer(name, len(places)).of_all(places, mask.size)] = True
        masks[name] = mask
    return masks
