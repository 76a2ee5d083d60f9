"""Dynamic sparse training: the mask moves while the weights are trained, every layer keeping its exact count.

SET (Mocanu et al. 2018, arXiv:1707.04780) grows weights drawn at random, RigL (Evci et al. 2020, arXiv:1911.11134) those
with the largest gradient; both drop the smallest of the kept. The schedule is RigL's: see `Recipe.moved_share`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pai_cli.analysis.masks import Measuring, measure_everywhere
from pai_cli.pruning.base import Masks
from pai_cli.pruning.effective import count_effective
from pai_cli.pruning.select import keep_largest
from pai_cli.random import generator_for
from pai_cli.spectral.conventions import Convention
from pai_cli.spectral.metrics import MetricOptions
from pai_cli.spectral.network import DenseCache, LayerInput, summarise
from pai_cli.spelling import for_shell
from pai_cli.training.recipe import Dynamic

if TYPE_CHECKING:
    from pai_cli.files.tables import Record
    from pai_cli.models.network import PrunableLayer
    from pai_cli.models.unrolled.paths import Unrolled

SPECTRUM = ("dr", "dr_imdb", "lambda", "lambda_imsg", "l2")
NOT_UNROLLED = "the network cannot be unrolled"

Arrays = Mapping[str, NDArray[np.floating[Any]]]


@dataclass(frozen=True)
class Move:
    """One mask update: `kind` of growth, the `share` of every layer's kept weights that moves, the seed, the step."""

    kind: Dynamic
    share: float
    seed: int
    step: int


def moved(masks: Masks, weights: Arrays, gradients: Arrays, move: Move) -> Masks:
    """The masks after an update; each keeps as many weights as before.

    In a layer with k kept weights, round(share * k) are dropped, the smallest by |w|, and as many grown where none is kept
    then: those just dropped may return, as in both papers' code. `gradients`: of all weights, for RigL; ties go to the lower
    index. A layer that is whole stays so. Raises `ScoreError` for NaN.
    """
    after: Masks = {}
    for name, mask in masks.items():
        kept = int(np.count_nonzero(mask))
        count = int(move.share * kept + 0.5)
        if count == 0 or kept == mask.size:
            after[name] = mask.copy()
            continue
        survivors = keep_largest({name: np.abs(weights[name])}, kept - count, {name: mask})[name]
        if move.kind is Dynamic.RIGL:
            scores = np.abs(gradients[name])
        else:
            scores = generator_for(move.seed, f"growth of {name} at step {move.step}").random(mask.shape)
        after[name] = survivors | keep_largest({name: scores}, count, {name: ~survivors})[name]
    return after


def spectrum(
    layers: tuple[PrunableLayer, ...],
    masks: Masks,
    weights: Arrays,
    unrolled: Unrolled | None = None,
    convention: Convention = Convention.H23,
) -> Record:
    """The network's means of dr, dr_imdb, lambda, lambda_imsg and l2 with their error bounds, and the share of the kept
    weights that lie on a path from input to output; None, and why, where missing.

    `weights`: as they are now. Layers without a mask are left out. `unrolled`: the network, None where it cannot be.
    """
    inputs = (
        LayerInput(layer.name, masks[layer.name], weights[layer.name], layer.layout)
        for layer in layers
        if layer.name in masks
    )
    total = sum(mask.size for mask in masks.values())
    how = Measuring(MetricOptions(convention=convention, dense=False), DenseCache(), "the network in training")
    measures = summarise(measure_everywhere(inputs, total, how)).measures
    record: Record = {"convention": convention.value}
    for name in SPECTRUM:
        record[name], record[f"{name}_error"] = measures[name].value, measures[name].error
    reasons = [f"{name}: {measures[name].reason}" for name in SPECTRUM if measures[name].reason is not None]
    effective = None if unrolled is None else count_effective(unrolled, masks)
    kept = sum(int(np.count_nonzero(mask)) for mask in masks.values())
    record["effective_share"] = effective / kept if effective is not None and kept else None
    if effective is None:
        reasons.append(f"effective_share: {NOT_UNROLLED}")
    record["reason"] = for_shell("; ".join(reasons)) or None
    return record


def share_of(explored: Masks) -> float:
    """The share of weights that are true, 0 to 1."""
    return sum(int(np.count_nonzero(one)) for one in explored.values()) / sum(one.size for one in explored.values())
