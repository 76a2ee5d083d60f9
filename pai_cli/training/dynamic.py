"""Dynamic sparse training: the mask moves while the weights are trained, every layer keeping its exact count.

SET (Mocanu et al. 2018, arXiv:1707.04780) grows weights drawn at random, RigL (Evci et al. 2020, arXiv:1911.11134) those
with the largest gradient; both drop the smallest of the kept. The schedule is RigL's: see `Recipe.moved_share`. What other
ways there are for a mask to move, `moving` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pai_cli.analysis.by_layer import Measuring
from pai_cli.analysis.engine import measure_everywhere
from pai_cli.analysis.masks import reason_of
from pai_cli.files.messages import some_names
from pai_cli.pruning.base import Masks
from pai_cli.pruning.effective import count_effective
from pai_cli.pruning.select import keep_largest
from pai_cli.pruning.ties import NOTEWORTHY, Ties
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


@dataclass
class MoveTies:
    """Where an update of `count` weights chose by position: among those of equal |w| which are pruned for good, and which
    drop, of equal gradient which grow.
    """

    count: int = 0
    pruned: Ties = field(default_factory=Ties)
    dropped: Ties = field(default_factory=Ties)
    grown: Ties = field(default_factory=Ties)

    @property
    def record(self) -> dict[str, int]:
        """How many weights dropped, and grew, by position."""
        return {
            "dropped_by_position": sum(
                tie.tied - tie.kept for ties in (self.pruned, self.dropped) for tie in ties.found.values()
            ),
            "grown_by_position": sum(tie.kept for tie in self.grown.found.values()),
        }

    def __str__(self) -> str:
        """What is worth telling of them, "" for nothing."""
        dropped, grown = self.record.values()
        told = [
            f"{number:,} of {self.count:,} {what} in {some_names(found)}"
            for number, what, found in (
                (dropped, "dropped weights are as small as others that stay,", self.pruned.found | self.dropped.found),
                (grown, "grown weights have the gradient of others that do not grow,", self.grown.found),
            )
            if number * NOTEWORTHY > self.count
        ]
        return " and ".join(told)


def how_many(mask: NDArray[np.bool_], share: float) -> int:
    """How many of a mask's k kept weights an update moves: round(share k), halves up; none where all weights are kept."""
    kept = int(np.count_nonzero(mask))
    return 0 if kept == mask.size else int(share * kept + 0.5)


def moved(masks: Masks, weights: Arrays, gradients: Arrays, move: Move, ties: MoveTies | None = None) -> Masks:
    """The masks after an update; each keeps as many weights as before.

    In a layer with k kept weights, round(share * k) are dropped, the smallest by |w|, and as many grown where none is kept
    then: those just dropped may return, as in both papers' code. `gradients`: of all weights, for RigL; ties go to the lower
    index, and `ties` takes note of them. A layer that is whole stays so. Raises `ScoreError` for NaN.
    """
    ties = ties or MoveTies()
    after: Masks = {}
    for name, mask in masks.items():
        count = how_many(mask, move.share)
        if count == 0:
            after[name] = mask.copy()
            continue
        ties.count += count
        left = int(np.count_nonzero(mask)) - count
        survivors = keep_largest({name: np.abs(weights[name])}, left, {name: mask}, ties.dropped)[name]
        if move.kind is Dynamic.RIGL:
            scores = np.abs(gradients[name])
        else:
            scores = generator_for(move.seed, f"growth of {name} at step {move.step}").random(mask.shape)
        after[name] = survivors | keep_largest({name: scores}, count, {name: ~survivors}, ties.grown)[name]
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
    report = summarise(measure_everywhere(inputs, total, how))
    record: Record = {"convention": convention.value}
    for name in SPECTRUM:
        record[name], record[f"{name}_error"] = report.measures[name].value, report.measures[name].error
    effective = None if unrolled is None else count_effective(unrolled, masks)
    record["effective_share"] = effective / report.kept if effective is not None and report.kept else None
    reasons = [reason_of(report, SPECTRUM), "" if effective is not None else f"effective_share: {NOT_UNROLLED}"]
    record["reason"] = for_shell("; ".join(filter(None, reasons))) or None
    return record


def share_of(explored: Masks) -> float:
    """The share of weights that are true, 0 to 1."""
    return sum(int(np.count_nonzero(one)) for one in explored.values()) / sum(one.size for one in explored.values())
