"""Exact selection where the scores are: the rules of `select` and `pattern` on a device, with the same masks to the bit.

The k-th largest score is found by `topk` from the nearer end, without an order among what it gives; all counts of a round
are read together. So a round waits for the device once, and once more where ties are settled. Beside the scores a selection
takes at most three times their memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from pai_cli.models.device_masks import DeviceMasks
from pai_cli.pruning.base import Pattern
from pai_cli.pruning.pattern import fits, input_axis
from pai_cli.pruning.schedule import ROUNDING, left_of
from pai_cli.pruning.select import Selection, nan_score
from pai_cli.pruning.ties import Cut, Tie, Ties

if TYPE_CHECKING:
    from pai_cli.models.network import PrunableLayer

Tensors = Mapping[str, torch.Tensor]
ROOM = 1e-6
"""Relative, above a sum: more than sums of 10^9 numbers of one sign in any two orders differ by."""


def in_full(values: Tensors) -> dict[str, torch.Tensor]:
    """The scores; half precision becomes float32, as it does on the host."""
    found = {name: one.detach() for name, one in values.items()}
    return {name: one.float() if one.element_size() < 4 else one for name, one in found.items()}


def keep_largest(
    scores: Tensors, count: int, active: DeviceMasks | None = None, ties: Ties | None = None
) -> DeviceMasks:
    """As `select.keep_largest`."""
    total = sum(one.numel() for one in scores.values()) if active is None else active.total
    part = _Part.of(dict(scores), None if active is None else active.flat, count, total)
    kept = part.settled(_read([part])[0], ties or Ties())
    return DeviceMasks(kept, _shapes(scores), count)


def keep_largest_by_layer(
    scores: Tensors, counts: Mapping[str, int], active: DeviceMasks | None = None, ties: Ties | None = None
) -> DeviceMasks:
    """As `select.keep_largest_by_layer`."""
    ties, alive, parts = ties or Ties(), {} if active is None else active.pieces(), []
    for name, values in scores.items():
        total = values.numel() if active is None else active.kept[name]
        parts.append(_Part.of({name: values}, alive.get(name), counts[name], total))
    kept = [part.settled(found, ties) for part, found in zip(parts, _read(parts), strict=True)]
    return DeviceMasks(torch.cat(kept), _shapes(scores), {name: counts[name] for name in scores})


class _Found(NamedTuple):
    """Of the scores that are chosen from: whether one is NaN, how many are above the threshold, how many equal it."""

    nan: int
    above: int
    tied: int


@dataclass
class _Part:
    """Layers that are chosen from together: which scores are above the threshold, and which equal it."""

    sizes: dict[str, int]
    count: int
    nan: torch.Tensor
    above: torch.Tensor
    tied: torch.Tensor

    @classmethod
    def of(cls, scores: dict[str, torch.Tensor], alive: torch.Tensor | None, count: int, total: int) -> _Part:
        if not 0 <= count <= total:
            raise ValueError(f"cannot keep {count} of {total} weights")
        flat = torch.cat([one.reshape(-1) for one in scores.values()])
        # From the nearer end, as `topk` gives all that it passes; what is pruned is put to the other one.
        largest = count <= total - count + 1
        if alive is not None:
            flat.masked_fill_(~alive, -torch.inf if largest else torch.inf)
        nan = flat.isnan()
        if count:
            chosen = flat.topk(count if largest else total - count + 1, largest=largest, sorted=False).values
            threshold = chosen.amin() if largest else chosen.amax()
            above, tied = flat > threshold, flat == threshold
            if alive is not None:
                above, tied = above & alive, tied & alive
        else:
            above = tied = torch.zeros_like(nan)
        return cls({name: one.numel() for name, one in scores.items()}, count, nan, above, tied)

    def settled(self, found: _Found, ties: Ties) -> torch.Tensor:
        """The mask, flat: what is above, and of what is tied what `ties` takes."""
        if found.nan:
            by_layer = torch.stack([one.any() for one in self._split(self.nan)]).tolist()
            raise nan_score(next(name for name, any_nan in zip(self.sizes, by_layer, strict=True) if any_nan))
        if not self.count:
            return self.above
        keep = self.count - found.above
        cut = ties.cut(found.tied, keep)
        if keep < found.tied:
            self._settle(cut, [found.tied] if len(self.sizes) == 1 else None)
        return self.above | self.tied

    def _settle(self, cut: Cut, counts: list[int] | None) -> None:
        """Leave of the tied those that are kept; drawn ones are drawn by the host, from one copy of where they are."""
        tied = self.tied if cut.random is None else self.tied.cpu()
        pieces = self._split(tied)
        if counts is None and cut.random is None:
            counts = torch.stack([one.sum() for one in pieces]).tolist()
        elif counts is None:
            counts = [int(np.count_nonzero(one.numpy())) for one in pieces]
        for name, piece, count in zip(self.sizes, pieces, counts, strict=True):
            chosen = cut.of_layer(name, count)
            if chosen.keep == 0:
                piece.zero_()
            elif chosen.keep < count and chosen.random is None:
                piece.logical_and_(piece.cumsum(0) <= chosen.keep)
            elif chosen.keep < count:
                places = piece.numpy().nonzero()[0]
                drawn = chosen.of_all(places, len(piece))
                piece.zero_().numpy()[drawn] = True
        self.tied = tied.to(self.tied.device)

    def _split(self, flat: torch.Tensor) -> Sequence[torch.Tensor]:
        return flat.split_with_sizes(list(self.sizes.values()))


def _read(parts: list[_Part]) -> list[_Found]:
    """What was found of all of them, in one wait."""
    found = [one for part in parts for one in (part.nan.any(), part.above.sum(), part.tied.sum())]
    numbers = torch.stack(found).tolist()
    return [_Found(*numbers[at : at + 3]) for at in range(0, len(numbers), 3)]


def keep_in_layers(
    scores: Tensors,
    pattern: Pattern,
    layers: Sequence[PrunableLayer],
    active: DeviceMasks | None = None,
    ties: Ties | None = None,
) -> DeviceMasks:
    """As `pattern.keep_in_layers`: the groups of all layers that the pattern fits at once."""
    ties, before = ties or Ties(), {} if active is None else active.pieces()
    kept = {layer.name: torch.ones_like(scores[layer.name], dtype=torch.bool).reshape(-1) for layer in layers}
    fitted = [layer for layer in layers if fits(pattern, layer)]
    if fitted:
        groups = [_grouped(scores[layer.name], layer, pattern.of) for layer in fitted]
        alive = [_grouped(before[layer.name].reshape(layer.shape), layer, pattern.of) for layer in fitted if before]
        sizes = {layer.name: len(one) for layer, one in zip(fitted, groups, strict=True)}
        chosen = _kept_groups(torch.cat(groups), torch.cat(alive) if alive else None, sizes, pattern, ties)
        for layer, one in zip(fitted, chosen.split_with_sizes(list(sizes.values())), strict=True):
            axis = input_axis(layer)
            moved = scores[layer.name].movedim(axis, -1).shape
            kept[layer.name] = one.reshape(moved).movedim(-1, axis).reshape(-1)
    counts = {name: len(one) for name, one in kept.items()}
    counts |= {layer.name: counts[layer.name] // pattern.of * pattern.keep for layer in fitted}
    return DeviceMasks(torch.cat(list(kept.values())), {layer.name: layer.shape for layer in layers}, counts)


def _grouped(tensor: torch.Tensor, layer: PrunableLayer, of: int) -> torch.Tensor:
    """(groups, of), as `pattern` has them."""
    return tensor.movedim(input_axis(layer), -1).reshape(-1, of)


def _kept_groups(
    scores: torch.Tensor, alive: torch.Tensor | None, sizes: Mapping[str, int], pattern: Pattern, ties: Ties
) -> torch.Tensor:
    """Which of each group, a row, are kept. `sizes`: how many groups each layer has."""
    keys = [0.0 - scores]  # -0 and +0 are equal scores, in whatever way a device sorts
    if ties.rule == "random":
        drawn = [ties.generator().random((size, pattern.of)) for size in sizes.values()]
        keys.insert(0, torch.from_numpy(np.concatenate(drawn)).to(scores.device))
    if alive is not None:
        keys.append((~alive).to(torch.uint8))
    order = keys[0].argsort(dim=1, stable=True)
    for key in keys[1:]:  # the last is the most important
        order = order.gather(1, key.gather(1, order).argsort(dim=1, stable=True))
    kept = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, order[:, : pattern.keep], True)
    nan, equal = scores.isnan(), _tied(scores, kept, alive)
    if alive is not None:
        nan &= alive
    _note(nan, equal, kept, sizes, ties)
    return kept


def _tied(scores: torch.Tensor, kept: torch.Tensor, alive: torch.Tensor | None) -> torch.Tensor:
    """Where a score is the smallest of the kept ones of its group, and one that is not kept equals it: `ties.in_groups`."""
    free = ~kept if alive is None else alive & ~kept
    lowest = scores.masked_fill(~kept, torch.inf).amin(1, keepdim=True)
    highest = scores.masked_fill(~free, -torch.inf).amax(1, keepdim=True)
    equal = (scores == lowest) & (lowest == highest) & free.any(1, keepdim=True)
    return equal if alive is None else equal & alive


def _note(nan: torch.Tensor, equal: torch.Tensor, kept: torch.Tensor, sizes: Mapping[str, int], ties: Ties) -> None:
    """Raise for NaN, and take note of ties, layer by layer; in one wait where there is neither."""
    if not any(torch.stack([nan.any(), equal.any()]).tolist()):
        return
    rows = list(sizes.values())
    found = [nan.split_with_sizes(rows), equal.split_with_sizes(rows), (equal & kept).split_with_sizes(rows)]
    numbers = torch.stack([torch.stack([part.sum() for part in one]) for one in found]).tolist()
    for name, any_nan, tied, taken in zip(sizes, *numbers, strict=True):
        if any_nan:
            raise nan_score(name)
        if tied:
            ties.note(name, Tie(tied, taken))


def safe_count(scores: Tensors, active: DeviceMasks | None, target: int, flow: float) -> int:
    """As `schedule.safe_count`, to the weight: the host itself sums the smallest scores, in their order, and no others."""
    flat = torch.cat([one.reshape(-1) for one in scores.values()])
    left = len(flat) if active is None else active.total
    if active is not None:
        flat.masked_fill_(~active.flat, torch.inf)
    ordered = flat.sort().values[:left]
    below = ordered.cumsum(0, dtype=torch.float64) <= flow * (1 - ROUNDING) * (1 + ROOM)
    # Below 0 sums may fall again, and a NaN has no place in an order: then the host looks at all.
    nan, negative, enough = torch.stack([flat.isnan().any(), (ordered[:1] < 0).any(), below.sum()]).tolist()
    if nan:
        by_layer = torch.stack([one.isnan().any() for one in _living(scores, active)]).tolist()
        raise nan_score(next(name for name, any_nan in zip(scores, by_layer, strict=True) if any_nan))
    return left_of(ordered[: left if negative else enough + 1].cpu().numpy(), left, target, flow)


def _living(scores: Tensors, active: DeviceMasks | None) -> list[torch.Tensor]:
    """The scores, flat, with 0 where a weight is pruned."""
    if active is None:
        return [one.reshape(-1) for one in scores.values()]
    return [one.reshape(-1).where(active.pieces()[name], 0.0) for name, one in scores.items()]


def _shapes(scores: Tensors) -> dict[str, tuple[int, ...]]:
    return {name: tuple(one.shape) for name, one in scores.items()}


ON_DEVICE = Selection(keep_largest, keep_largest_by_layer, keep_in_layers, safe_count)
