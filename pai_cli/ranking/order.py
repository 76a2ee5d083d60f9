"""Masks in order of one score, within equal densities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pai_cli.ranking.composite import Score
from pai_cli.ranking.scored import ScoredMask, equal_groups
from pai_cli.spectral.result import Measure


@dataclass(frozen=True)
class RankedMask:
    """A mask's place.

    `rank`: 1 is best, equal for values whose error bounds overlap, None without a value. `group`: number of the group of
    masks that compare, from 0, the sparsest of a setting first. `margin`: how far its value is from the next mask's in the
    group, None for the last. `decided`: that in words. `counted`: over how many layers the value is a mean, None where a
    table does not say.
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
        ranked += _order(rows, score.name, larger_is_better)
    return ranked


def _order(group: list[RankedMask], name: str, larger_is_better: bool) -> list[RankedMask]:
    sign = -1.0 if larger_is_better else 1.0
    with_value = [row for row in group if row.value.value is not None]
    with_value.sort(key=lambda row: (sign * (row.value.value or 0.0), row.source.name))
    ordered: list[RankedMask] = []
    for place, row in enumerate(with_value):
        rank = place + 1
        if ordered and _tied(ordered[-1], row) and ordered[-1].rank is not None:
            rank = ordered[-1].rank
        following = with_value[place + 1] if place + 1 < len(with_value) else None
        ordered.append(_placed(row, rank, following, name, larger_is_better))
    if len(ordered) == 1:
        ordered = [replace(ordered[0], decided="alone at this density")]
    missing = [replace(row, decided=f"no {name}: {row.value.reason}") for row in group if not row.value.present]
    return ordered + missing


def _placed(row: RankedMask, rank: int, following: RankedMask | None, name: str, larger_is_better: bool) -> RankedMask:
    if following is None:
        return replace(row, rank=rank)
    margin = abs((row.value.value or 0.0) - (following.value.value or 0.0))
    if _tied(row, following):
        return replace(row, rank=rank, margin=margin, decided="tied with the next: within the error bounds")
    word = "larger" if larger_is_better else "smaller"
    # Means over other layers compare less well: say so where it decides.
    over = "" if row.counted == following.counted else f", over {row.counted} layers against {following.counted}"
    return replace(row, rank=rank, margin=margin, decided=f"{name} {word} by {margin:.4g}{over}")


def _tied(a: RankedMask, b: RankedMask) -> bool:
    difference = abs((a.value.value or 0.0) - (b.value.value or 0.0))
    return difference <= (a.value.error or 0.0) + (b.value.error or 0.0)
