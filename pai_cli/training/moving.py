"""Which masks hold in a training whose masks move: those it begins with, and those after each update."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from pai_cli.errors import RecipeError
from pai_cli.files.messages import some_names
from pai_cli.pruning.base import Masks
from pai_cli.random import generator_for
from pai_cli.spectral.layout import PLAIN
from pai_cli.spelling import option
from pai_cli.training.dynamic import Arrays, Move, MoveTies, moved
from pai_cli.training.fan_in import EvenMove, as_stored, by_output, evened, fan_ins, moved_evenly
from pai_cli.training.gradual import Descent, kept_in
from pai_cli.training.recipe import Dynamic, Recipe

if TYPE_CHECKING:
    from pai_cli.models.network import PrunableLayer


class Moving:
    """How the masks of one training move, by its recipe; a function of what it begins with, the step, weights and gradients.

    `given`: the masks that the training was given; a gradual one that has none begins with all weights of the `layers`.
    `weights`: what gives those that the training begins with. `steps`: of the training. `first`: the masks it begins with;
    `told`: what is to be said of them, "" for nothing. Raises `RecipeError` where no mask would ever move, or none is of a
    layer.
    """

    def __init__(
        self,
        recipe: Recipe,
        given: Masks,
        layers: tuple[PrunableLayer, ...],
        weights: Callable[[Masks], Arrays],
        steps: int,
    ):
        self.recipe, self.steps = recipe, steps
        self._layouts = {layer.name: layer.layout for layer in layers}
        self._check_schedule()
        if recipe.dynamic is not None:
            given = self._to_move(given, layers)
        self.first, self.told = given, ""
        # An output of the last layer is a class, and no neuron to be spared; the layer may be one that has no mask.
        self._last = layers[-1].name if layers else None
        self._budgets: Mapping[str, int] = kept_in(given)
        self._descent: Descent | None = None
        if recipe.dynamic is not None and recipe.dynamic.gradual:
            by_layer = recipe.dynamic is Dynamic.GMP
            self._descent = Descent.of(given, recipe.final_density, by_layer=by_layer)
        if recipe.dynamic is Dynamic.SRIGL:
            self.first = self._evened(given, weights(given))

    def _to_move(self, given: Masks, layers: tuple[PrunableLayer, ...]) -> Masks:
        """The masks given, or those of all weights. Raises `RecipeError` where there is none, or none of a layer."""
        dynamic = self.recipe.dynamic
        assert dynamic is not None
        if given and given.keys().isdisjoint(self._layouts):
            raise RecipeError(
                f"{option('dynamic', dynamic)}: the mask is of {some_names(list(given))}, and of no layer that can be "
                f"pruned; give another {option('mask')}"
            )
        if not given and not dynamic.gradual:
            raise RecipeError(f"{option('dynamic', dynamic)}: there is no mask to move; give {option('mask')}")
        return given or {layer.name: np.ones(layer.shape, np.bool_) for layer in layers}

    def _check_schedule(self) -> None:
        recipe = self.recipe
        if recipe.dynamic is None or recipe.last_update(self.steps):
            return
        where = f"the first {recipe.update_until:g} of {self.steps} steps"
        if recipe.update_from:
            where = f"{where} after the first {recipe.update_from:g}"
        raise RecipeError(
            f"{option('dynamic', recipe.dynamic)}: the mask would never move: no multiple of "
            f"{option('update_every', recipe.update_every)} is in {where}; give a smaller one"
        )

    def _evened(self, given: Masks, weights: Arrays) -> Masks:
        """The masks with a constant fan-in in each layer."""
        first = {}
        for name, mask in given.items():
            layout = self._layouts.get(name, PLAIN)
            random = generator_for(self.recipe.seed, f"fan-in of {name}")
            rows = evened(by_output(mask, layout), by_output(weights[name], layout), random)
            first[name] = as_stored(rows, mask.shape, layout)
        changed = [name for name, mask in given.items() if not np.array_equal(mask, first[name])]
        if changed:
            before, after = (sum(kept_in(masks).values()) for masks in (given, first))
            self.told = (
                f"{option('dynamic', self.recipe.dynamic)}: outputs of {some_names(changed)} have different fan-in; each "
                f"begins with as many weights as the others of its layer, of all {before:,} weights {after:,}"
            )
        return first

    def updated(
        self, masks: Masks, weights: Arrays, gradients: Arrays, step: int, ties: MoveTies
    ) -> tuple[Masks, Masks]:
        """The masks that the update at `step` prunes to, and those that it ends with.

        What the first leave out is 0 when it grows again; what else is exchanged and returns has the weight that it had.
        `gradients`: of all weights. Raises `ScoreError` for NaN.
        """
        recipe, pruned = self.recipe, masks
        assert recipe.dynamic is not None
        share = recipe.moved_share(step, self.steps)
        if self._descent is not None:
            left = recipe.left_to_prune(step, self.steps)
            pruned = self._descent.pruned(masks, weights, left, ties.pruned)
            ties.count += sum(kept_in(masks).values()) - sum(kept_in(pruned).values())
        if recipe.dynamic is Dynamic.GMP:
            return pruned, pruned
        if recipe.dynamic is Dynamic.SRIGL:
            return pruned, self._moved_evenly(masks, weights, gradients, share, ties)
        kind = Dynamic.SET if recipe.dynamic is Dynamic.SET else Dynamic.RIGL
        return pruned, moved(pruned, weights, gradients, Move(kind, share, recipe.seed, step), ties)

    def _moved_evenly(self, masks: Masks, weights: Arrays, gradients: Arrays, share: float, ties: MoveTies) -> Masks:
        after = {}
        for name, mask in masks.items():
            layout = self._layouts.get(name, PLAIN)
            rows, sizes, slopes = (by_output(one, layout) for one in (mask, weights[name], gradients[name]))
            move = EvenMove(share, self._budgets[name], self.recipe.min_salient if name != self._last else 0.0)
            after[name] = as_stored(moved_evenly((name, rows), sizes, slopes, move, ties), mask.shape, layout)
        return after

    def ablated(self, masks: Masks) -> int:
        """How many outputs keep no weight, in all layers."""
        fans = [fan_ins(mask, self._layouts.get(name, PLAIN)) for name, mask in masks.items()]
        return sum(int(np.count_nonzero(fan == 0)) for fan in fans)
