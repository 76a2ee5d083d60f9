"""N:M selection: of every M consecutive inputs of an output, N are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pai_cli.errors import ScoreError
from pai_cli.pruning.base import Pattern
from pai_cli.pruning.groups import keep_largest_in_groups

if TYPE_CHECKING:
    from pai_cli.models.network import PrunableLayer


def fits(pattern: Pattern, layer: PrunableLayer) -> bool:
    """Whether M divides the inputs of each output of the layer."""
    return inputs_of(layer) % pattern.of == 0


def input_axis(layer: PrunableLayer) -> int:
    """The weight's dimension that runs over inputs: 1, of a transposed convolution 0."""
    return 0 if layer.layout.transposed else 1


def inputs_of(layer: PrunableLayer) -> int:
    """Input channels that one output of the layer reads: those of its group."""
    inputs = layer.shape[input_axis(layer)]
    return inputs // layer.layout.groups if layer.layout.transposed else inputs


def keep_in_groups(
    scores: NDArray[np.floating[Any]],
    count: int,
    of: int,
    layer: PrunableLayer,
    active: NDArray[np.bool_] | None = None,
) -> NDArray[np.bool_]:
    """A mask that keeps, of every `of` consecutive inputs at one output and kernel position, `count` of largest score.

    Ties go to the lower input. With `active`, only weights that are true there are kept; each group must have `count`
    of them. Raises `ScoreError` naming the layer when an active score is NaN.
    """
    axis = input_axis(layer)
    if np.isnan(scores if active is None else scores[active]).any():
        raise ScoreError(f"{layer.name}: a score is NaN; check the weights for NaN or infinite values")
    if active is None:
        return keep_largest_in_groups(scores, scores.shape, axis, Pattern(count, of)).reshape(scores.shape)
    groups, dead = _in_groups(scores, axis, of), ~_in_groups(active, axis, of)
    # Stable sorts, the less important key first, so that equal scores stay in the order of their inputs.
    order = np.argsort(-groups, axis=1, kind="stable")
    order = np.take_along_axis(
        order, np.argsort(np.take_along_axis(dead, order, axis=1), axis=1, kind="stable"), axis=1
    )
    kept = np.zeros(groups.shape, np.bool_)
    np.put_along_axis(kept, order[:, :count], True, axis=1)
    moved = np.moveaxis(scores, axis, -1).shape
    return np.ascontiguousarray(np.moveaxis(kept.reshape(moved), -1, axis))


def _in_groups(array: NDArray[Any], axis: int, of: int) -> NDArray[Any]:
    return np.moveaxis(array, axis, -1).reshape(-1, of)
