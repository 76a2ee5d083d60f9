"""Masks in order of one score, within equal densities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pai_cli.ranking.expression import Score
from pai_cli.ranking.scored import ScoredMask, equal_groups
from pai_cli.ranking.statistics import dense_ranks
from pai_cli.spectral.result import Measure


@dataclass(frozen=True)
class RankedMask:
    """A mask's place.

    `rank`: 1 is best, equal for values whose error bounds overlap and for what such ties link, None without a value.
    `group`: number of the group of masks that compare, from 0, the sparsest of a setting first. `margin`: how far its value
    is from the next mask's in the group, None for the last. `decided`: that in words. `counted`: over how many layers the
    value is a mean, or pairs of layers, None where a table does not say.
    """

    source: ScoredMask
    value: Measure
    counted: int | None
    group: int
    rank: int | None = None
    margin: float | None = None
    decided: str = ""


def rank_masks(
    masks: Sequence[ScoredMask], score: Score, *, larger_is_better: bool, by_density: bool = True
) -> list[RankedMask]:
    """Every mask, group by group as `equal_groups` has them, best first; those without a value end their group."""
    ranked: list[RankedMask] = []
    for number, group in enumerate(equal_groups(masks, by_density=by_density)):
        rows = [RankedMask(one, score.measure(one.values), score.layers(one.counted), number) for one in group]
        ranked += _order(rows, score, larger_is_better)
    return ranked


def _order(group: list[RankedMask], score: Score, larger_is_better: bool) -> list[RankedMask]:
    sign = -1.0 if larger_is_better else 1.0
    with_value = [row for row in group if row.value.value is not None]
    with_value.sort(key=lambda row: (sign * (row.value.value or 0.0), row.source.name))
    places = _places(with_value, sign)
    ordered = []
    for place, (row, rank) in enumerate(zip(with_value, places, strict=True), start=1):
        following = with_value[place] if place < len(with_value) else None
        tied = place < len(with_value) and places[place] == rank
        ordered.append(_placed(row, rank, following, score, larger_is_better, tied=tied))
    if len(ordered) == 1:
        ordered = [replace(ordered[0], decided="alone at this density")]
    missing = [replace(row, decided=f"no {score.name}: {row.value.reason}") for row in group if not row.value.present]
    return ordered + missing


def _places(ordered: Sequence[RankedMask], sign: float) -> list[int]:
    """The rank of each: 1 for the best, one more than how many are before what it is tied with."""
    values = np.array([sign * (row.value.value or 0.0) for row in ordered])
    tied = dense_ranks(values, np.array([row.value.error or 0.0 for row in ordered]))
    return [int(place) + 1 for place in np.searchsorted(tied, tied)]


def _placed(
    row: RankedMask, rank: int, following: RankedMask | None, score: Score, larger_is_better: bool, *, tied: bool
) -> RankedMask:
    if following is None:
        return replace(row, rank=rank)
    margin = abs((row.value.value or 0.0) - (following.value.value or 0.0))
    if tied:
        return replace(row, rank=rank, margin=margin, decided="tied with the next: within the error bounds")
    word = "larger" if larger_is_better else "smaller"
    # Means over other layers compare less well: say so where it decides.
    over = "" if row.counted == following.counted else f", over {row.counted} {score.unit} against {following.counted}"
    return replace(row, rank=rank, margin=margin, decided=f"{score.name} {word} by {margin:.4g}{over}")
