"""Gradual pruning while the weights are trained: fewer weights are kept at every update, the largest by magnitude.

GMP (Zhu and Gupta 2017, arXiv:1710.01878) prunes every layer alike; GraNet (Liu et al. 2021, arXiv:2106.10404) the network
as a whole, and then exchanges weights in each layer as RigL does. Both by one cubic schedule: `Recipe.left_to_prune`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import floor

import numpy as np

from pai_cli.errors import RecipeError
from pai_cli.pruning.allocation import kept_count, whole_counts
from pai_cli.pruning.base import Masks
from pai_cli.pruning.select import ScoreArrays, keep_largest, keep_largest_by_layer
from pai_cli.pruning.ties import Ties
from pai_cli.spelling import option


def kept_in(masks: Masks) -> dict[str, int]:
    """How many weights each mask keeps."""
    return {name: int(np.count_nonzero(mask)) for name, mask in masks.items()}


@dataclass(frozen=True)
class Descent:
    """From how many weights to how many each layer goes. `by_layer`: whether each has its own count, or only all of them."""

    first: Mapping[str, int]
    last: Mapping[str, int]
    by_layer: bool

    @staticmethod
    def of(masks: Masks, density: float, *, by_layer: bool) -> Descent:
        """From these masks to `density` of the weights that they are of: the total exactly, each layer's share of what it
        begins with within one weight.

        Raises `RecipeError` for a density that keeps no weight, or more than the masks do.
        """
        first = kept_in(masks)
        begins, size = sum(first.values()), sum(mask.size for mask in masks.values())
        ends = kept_count(density, size)
        given = option("final_density", f"{density:g}")
        if ends == 0:
            raise RecipeError(f"{given}: keeps fewer than one of {size:,} weights; give a larger one")
        # Where all weights are kept to the end, none can be exchanged.
        if ends > begins or (ends == begins and (by_layer or ends == size)):
            raise RecipeError(
                f"{given}: keeps {ends:,} of {size:,} weights, and the mask begins with {begins:,}; give a smaller one"
            )
        last = whole_counts({name: Fraction(count * ends, begins) for name, count in first.items()}, ends)
        return Descent(first, last, by_layer)

    def pruned(self, masks: Masks, weights: ScoreArrays, left: Fraction, ties: Ties | None = None) -> Masks:
        """The masks when the share `left` of what is pruned in all is still kept: of the kept weights the largest by |w|.

        In each layer last + round(left (first - last)), halves up; where only all layers have a count, the same of their
        sums. No weight returns. Ties go to the lower index.
        """
        sizes = {name: np.abs(weights[name]) for name in masks}
        if self.by_layer:
            counts = {name: _between(count, self.last[name], left) for name, count in self.first.items()}
            return keep_largest_by_layer(sizes, counts, masks, ties)
        total = _between(sum(self.first.values()), sum(self.last.values()), left)
        return keep_largest(sizes, total, masks, ties)


def _between(first: int, last: int, left: Fraction) -> int:
    return last + floor(left * (first - last) + Fraction(1, 2))
