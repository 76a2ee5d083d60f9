"""How many weights each round keeps, of what, and the selection that goes with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, Literal

from pai_cli.errors import DensityError, LayerSelectionError
from pai_cli.files.messages import some_names
from pai_cli.pruning.allocation import Shapes, kept_count, layer_counts, network_count
from pai_cli.pruning.base import Pattern, Scope
from pai_cli.pruning.pattern import fits, inputs_of, keep_in_layers
from pai_cli.pruning.schedule import exponential, safe_count
from pai_cli.pruning.select import Selection, keep_largest, keep_largest_by_layer
from pai_cli.pruning.ties import Ties
from pai_cli.spelling import option

if TYPE_CHECKING:
    from pai_cli.models.network import PrunableLayer

Counts = int | dict[str, int]
ON_HOST = Selection(keep_largest, keep_largest_by_layer, keep_in_layers, safe_count)


@dataclass(frozen=True)
class NetworkQuota:
    """One density for the network: which layer keeps how much is left to the scores."""

    shapes: Shapes
    density: float
    scope: Scope = "global"

    @property
    def total(self) -> int:
        """Number of weights."""
        return sum(prod(shape) for shape in self.shapes.values())

    def steps(self, rounds: int) -> list[Counts]:
        """Whole numbers of weights, after `exponential`."""
        return [network_count(density, self.total) for density in exponential(self.density, rounds)]

    def keep(self, scores: Any, counts: Counts, active: Any, ties: Ties | None = None, by: Selection = ON_HOST) -> Any:
        """The largest scores of the network."""
        assert isinstance(counts, int)
        return by.largest(scores, counts, active, ties)


class _ByLayer:
    """Selection in each layer by itself."""

    scope: Scope = "layer"

    def keep(self, scores: Any, counts: Counts, active: Any, ties: Ties | None = None, by: Selection = ON_HOST) -> Any:
        """The largest scores of each layer."""
        assert isinstance(counts, dict)
        return by.largest_by_layer(scores, counts, active, ties)


@dataclass(frozen=True)
class AllocatedQuota(_ByLayer):
    """A density for the network, shared out over the layers by a rule before anything is scored."""

    shapes: Shapes
    density: float
    rule: Literal["uniform", "erk", "smart-ratio"]

    def steps(self, rounds: int) -> list[Counts]:
        """Whole numbers of weights by layer, after `exponential`; no layer's ever grows."""
        found = [layer_counts(self.rule, self.shapes, density) for density in exponential(self.density, rounds)]
        # From the last round back, as a rule may give a layer one more when it shares out fewer.
        for k in range(rounds - 2, -1, -1):
            found[k] = {name: max(count, found[k + 1][name]) for name, count in found[k].items()}
        return list(found)


@dataclass(frozen=True)
class GivenQuota(_ByLayer):
    """A density for each layer, as given; each layer keeps round(density * size), halves up."""

    shapes: Shapes
    densities: Mapping[str, float]

    def steps(self, rounds: int) -> list[Counts]:
        """Whole numbers of weights by layer; in round k of n, of density^(k/n)."""
        by_layer = {name: exponential(self.densities[name], rounds) for name in self.shapes}
        sizes = {name: prod(shape) for name, shape in self.shapes.items()}
        if not any(kept_count(self.densities[name], size) for name, size in sizes.items()):
            raise DensityError(f"{option('densities')} keeps no weight of any layer; give larger ones")
        return [{name: kept_count(by_layer[name][k], sizes[name]) for name in self.shapes} for k in range(rounds)]


@dataclass(frozen=True)
class PatternQuota:
    """N of every M consecutive inputs; layers whose inputs M does not divide keep every weight."""

    layers: tuple[PrunableLayer, ...]
    pattern: Pattern
    scope: Scope = "layer"

    @property
    def shapes(self) -> Shapes:
        """Of every layer, those left whole among them."""
        return {layer.name: layer.shape for layer in self.layers}

    @property
    def whole(self) -> tuple[str, ...]:
        """The layers that the pattern does not fit."""
        return tuple(layer.name for layer in self.layers if not fits(self.pattern, layer))

    def steps(self, rounds: int) -> list[Counts]:
        """How many of each M; in round k of n, M (N/M)^(k/n) rounded, halves up."""
        self._check()
        return [kept_count(density, self.pattern.of) for density in exponential(self.pattern.density, rounds)]

    def keep(self, scores: Any, counts: Counts, active: Any, ties: Ties | None = None, by: Selection = ON_HOST) -> Any:
        """The largest scores of each group of M."""
        assert isinstance(counts, int)
        return by.in_layers(scores, Pattern(counts, self.pattern.of), self.layers, active, ties)

    def _check(self) -> None:
        self.pattern.check()
        if not any(fits(self.pattern, layer) for layer in self.layers):
            inputs = some_names(f"{layer.name} has {inputs_of(layer)}" for layer in self.layers)
            raise LayerSelectionError(
                f"{option('pattern', self.pattern)}: {self.pattern.of} divides the inputs of no layer ({inputs}); "
                "give another pattern"
            )


Quota = NetworkQuota | AllocatedQuota | GivenQuota | PatternQuota
"""What a run keeps: of weights of these `shapes`, in `steps`, whose last is what was asked for, those that `keep` chooses
from a round's scores; what is false in `active` stays false. `scope`: where the density holds, as a mask's metadata tells.
"""
