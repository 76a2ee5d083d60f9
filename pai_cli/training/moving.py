"""Which masks hold in a training whose masks move: those it begins with, and those after each update."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pai_cli.errors import RecipeError
from pai_cli.files.messages import some_names
from pai_cli.pruning.base import Masks, Pattern
from pai_cli.pruning.pattern import by_group, fits, from_groups, input_axis, inputs_of
from pai_cli.random import generator_for
from pai_cli.spectral.layout import PLAIN, Layout
from pai_cli.spelling import option
from pai_cli.training.dynamic import Arrays, Move, MoveTies, how_many, moved
from pai_cli.training.fan_in import EvenMove, as_stored, by_output, evened, fan_ins, moved_evenly
from pai_cli.training.gradual import Descent, kept_in
from pai_cli.training.recipe import Dynamic, Recipe

if TYPE_CHECKING:
    from pai_cli.models.network import PrunableLayer


class Moving:
    """How the masks of one training move, by its recipe; a function of what it begins with, the step, weights and gradients.

    `given`: the masks that the training was given; a gradual one that has none begins with all weights of the `layers`.
    `weights`: what gives those that the training begins with. `steps`: of the training. `first`: the masks it begins with;
    `fixed`: the names of those that no update moves, None where updates also prune; `told`: lines that are to be said of
    them. Raises `RecipeError` where no update would ever come, no mask is of a layer, or one has not the pattern.
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
        self._layers = {layer.name: layer for layer in layers}
        self._check_schedule()
        if recipe.dynamic is not None:
            given = self._to_move(given, layers)
        self.first, self.told = given, list[str]()
        self.fixed: list[str] | None = None
        # An output of the last layer is a class, and no neuron to be spared; the layer may be one that has no mask.
        self._last = layers[-1].name if layers else None
        self._budgets: Mapping[str, int] = kept_in(given)
        self._descent: Descent | None = None
        if recipe.dynamic is not None and recipe.dynamic.gradual:
            by_layer = recipe.dynamic is Dynamic.GMP
            self._descent = Descent.of(given, recipe.final_density, by_layer=by_layer)
        if recipe.dynamic is Dynamic.SRIGL and recipe.pattern is not None:
            self._check_pattern(given, recipe.pattern)
        elif recipe.dynamic is Dynamic.SRIGL:
            self.first = self._evened(given, weights(given))
        if recipe.dynamic is not None and not recipe.dynamic.gradual:
            self.fixed = self._unmoved()

    def _to_move(self, given: Masks, layers: tuple[PrunableLayer, ...]) -> Masks:
        """The masks given, or those of all weights. Raises `RecipeError` where there is none, or none of a layer."""
        dynamic = self.recipe.dynamic
        assert dynamic is not None
        if given and given.keys().isdisjoint(self._layers):
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

    def _layout(self, name: str) -> Layout:
        return self._layers[name].layout if name in self._layers else PLAIN

    def _check_pattern(self, given: Masks, pattern: Pattern) -> None:
        """Raise `RecipeError` for a mask that is not whole and keeps not N of every M inputs; say where it does."""
        partial = [name for name, mask in given.items() if not mask.all()]
        for name in partial:
            layer = self._layers.get(name)
            if layer is None:
                why = "is no layer that can be pruned"
            elif not fits(pattern, layer):
                why = f"has {inputs_of(layer)} inputs, no multiple of {pattern.of}"
            else:
                kept = by_group(given[name], input_axis(layer), pattern.of).sum(1)
                others = np.count_nonzero(kept != pattern.keep)
                why = f"keeps another number in {others:,} of {kept.size:,} groups of inputs" if others else ""
            if why:
                raise RecipeError(
                    f"{option('pattern', pattern)}: {name} {why}; {option('mask')} takes one that was pruned with it"
                )
        if partial:
            self.told.append(
                f"{option('dynamic', self.recipe.dynamic)}: each update keeps {pattern} in {some_names(partial)}, and "
                "ablates no output"
            )

    def _unmoved(self) -> list[str]:
        """The names of the masks that no update moves, as the first, which moves most, moves nothing there; says so."""
        share = self.recipe.moved_share(self.recipe.first_update(self.steps), self.steps)
        whole = [name for name, mask in self.first.items() if mask.all()]
        empty = [name for name, mask in self.first.items() if not mask.any()]
        few = [name for name, mask in self.first.items() if name not in whole + empty and not how_many(mask, share)]
        for names, why in (
            (whole, "all weights are kept there"),
            (empty, "no weight is kept there"),
            (few, f"{100 * share:.2g}% of the weights kept there come to less than half a weight"),
        ):
            if names:
                self.told.append(
                    f"{option('dynamic', self.recipe.dynamic)}: no update moves {some_names(names)}: {why}"
                )
        return whole + empty + few

    def _evened(self, given: Masks, weights: Arrays) -> Masks:
        """The masks with a constant fan-in in each layer."""
        first = {}
        for name, mask in given.items():
            layout = self._layout(name)
            random = generator_for(self.recipe.seed, f"fan-in of {name}")
            rows = evened(by_output(mask, layout), by_output(weights[name], layout), random)
            first[name] = as_stored(rows, mask.shape, layout)
        changed = [name for name, mask in given.items() if not np.array_equal(mask, first[name])]
        if changed:
            before, after = (sum(kept_in(masks).values()) for masks in (given, first))
            self.told.append(
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
            if name in (self.fixed or ()):
                after[name] = mask.copy()
                continue
            rows, sizes, slopes = (self._by_row(name, one) for one in (mask, weights[name], gradients[name]))
            ablates = self.recipe.pattern is None and name != self._last
            move = EvenMove(share, self._budgets[name], self.recipe.min_salient if ablates else 0.0)
            after[name] = self._stored(name, moved_evenly((name, rows), sizes, slopes, move, ties), mask.shape)
        return after

    def _by_row(self, name: str, array: NDArray[Any]) -> NDArray[Any]:
        """A layer's weights in rows that keep alike: one an output, or with a pattern one a group of its inputs."""
        pattern = self.recipe.pattern
        if pattern is None:
            return by_output(array, self._layout(name))
        return by_group(array, input_axis(self._layers[name]), pattern.of)

    def _stored(self, name: str, rows: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """What `_by_row` made rows of, in its shape."""
        if self.recipe.pattern is None:
            return as_stored(rows, shape, self._layout(name))
        return from_groups(rows, shape, input_axis(self._layers[name]))

    def ablated(self, masks: Masks) -> int:
        """How many outputs keep no weight, in all layers."""
        fans = [fan_ins(mask, self._layout(name)) for name, mask in masks.items()]
        return sum(int(np.count_nonzero(fan == 0)) for fan in fans)
