"""N:M selection: of every M consecutive inputs of an output, N are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pai_cli.pruning.base import Masks, Pattern
from pai_cli.pruning.groups import keep_largest_in_groups
from pai_cli.pruning.select import ScoreArrays, nan_score
from pai_cli.pruning.ties import Ties, in_groups

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


def keep_in_layers(
    scores: ScoreArrays,
    pattern: Pattern,
    layers: Sequence[PrunableLayer],
    active: Masks | None = None,
    ties: Ties | None = None,
) -> Masks:
    """`keep_in_groups` of every layer that the pattern fits; the others are whole."""
    return {
        layer.name: keep_in_groups(
            scores[layer.name], pattern, layer, None if active is None else active[layer.name], ties
        )
        if fits(pattern, layer)
        else np.ones(layer.shape, np.bool_)
        for layer in layers
    }


def keep_in_groups(
    scores: NDArray[np.floating[Any]],
    pattern: Pattern,
    layer: PrunableLayer,
    active: NDArray[np.bool_] | None = None,
    ties: Ties | None = None,
) -> NDArray[np.bool_]:
    """A mask that keeps, of every M consecutive inputs at one output and kernel position, the N of largest score.

    Ties go to the lower input, unless `ties` says otherwise, which also takes note of them. With `active`, only weights that
    are true there are kept; each group must have N of them. Raises `ScoreError` naming the layer when an active score is
    NaN.
    """
    axis, ties = input_axis(layer), ties or Ties()
    if np.isnan(scores if active is None else scores[active]).any():
        raise nan_score(layer.name)
    if active is None and ties.rule != "random":
        kept = keep_largest_in_groups(scores, scores.shape, axis, pattern).reshape(scores.shape)
    else:
        kept = _by_sorting(scores, pattern, axis, active, ties)
    alive = None if active is None else by_group(active, axis, pattern.of)
    tie = in_groups(by_group(scores, axis, pattern.of), by_group(kept, axis, pattern.of), alive)
    if tie.tied:
        ties.note(layer.name, tie)
    return kept


def _by_sorting(
    scores: NDArray[np.floating[Any]], pattern: Pattern, axis: int, active: NDArray[np.bool_] | None, ties: Ties
) -> NDArray[np.bool_]:
    """The same of weights that were pruned before, or with ties that are drawn."""
    groups = by_group(scores, axis, pattern.of)
    dead = np.zeros(groups.shape, np.bool_) if active is None else ~by_group(active, axis, pattern.of)
    # The last key is the most important; without a drawn one, equal scores stay in the order of their inputs.
    drawn = (ties.generator().random(groups.shape),) if ties.rule == "random" else ()
    order = np.lexsort((*drawn, -groups, dead), axis=1)
    kept = np.zeros(groups.shape, np.bool_)
    np.put_along_axis(kept, order[:, : pattern.keep], True, axis=1)
    return from_groups(kept, scores.shape, axis)


def by_group(array: NDArray[Any], axis: int, of: int) -> NDArray[Any]:
    """A weight's values, a row for each `of` consecutive inputs of an output at one kernel position; `axis`: of inputs."""
    return np.moveaxis(array, axis, -1).reshape(-1, of)


def from_groups(groups: NDArray[Any], shape: tuple[int, ...], axis: int) -> NDArray[Any]:
    """What `by_group` made rows of, in its shape."""
    others = [side for number, side in enumerate(shape) if number != axis]
    return np.ascontiguousarray(np.moveaxis(groups.reshape(*others, shape[axis]), -1, axis))
