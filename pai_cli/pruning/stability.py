"""How stable a mask is: what of it is kept again by prunings of weights that differ in their last digits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PERTURBATION = 1e-6
"""The largest relative change of a weight where nobody says: some eight times what float32 tells apart."""


@dataclass(frozen=True)
class Stability:
    """What prunings of perturbed weights keep of a mask.

    `perturbation`: the largest relative change of a weight. `kept`: by layer, in network order, how many weights the mask
    keeps. `shared`: of each pruning, one at least, how many of those it keeps too. `stable`: how many every pruning keeps.
    `failed`: how many prunings more the method could not make. Of a method that looks at no weight each pruning would keep
    the same: `shared` then tells so of as many as were asked for, and none was made.
    """

    perturbation: float
    kept: Mapping[str, int]
    shared: tuple[Mapping[str, int], ...]
    stable: Mapping[str, int]
    failed: int = 0

    @property
    def prunings(self) -> int:
        """How many there were."""
        return len(self.shared)

    def overlaps(self, layer: str | None = None) -> tuple[float, ...]:
        """Of each pruning the share of kept weights, of a layer or the network, that it keeps too: 0 to 1.

        Nothing of a layer that keeps no weight.
        """
        kept = _of(self.kept, layer)
        return tuple(_of(shared, layer) / kept for shared in self.shared) if kept else ()

    def overlap(self, layer: str | None = None) -> float | None:
        """The mean of the overlaps; None of a layer that keeps no weight."""
        overlaps = self.overlaps(layer)
        return sum(overlaps) / len(overlaps) if overlaps else None

    def least_overlap(self, layer: str | None = None) -> float | None:
        """The smallest of the overlaps; None of a layer that keeps no weight."""
        return min(self.overlaps(layer), default=None)

    def record(self, layer: str | None = None) -> dict[str, Any]:
        """What is shown of a layer, or of the network."""
        return {
            "overlap": self.overlap(layer),
            "least_overlap": self.least_overlap(layer),
            "stable": _of(self.stable, layer),
        }

    def facts(self) -> dict[str, Any]:
        """All of it, as a mask file tells it."""
        return {
            "prunings": self.prunings,
            "perturbation": self.perturbation,
            "failed": self.failed,
            **self.record(),
            "overlaps": list(self.overlaps()),
            "layers": {name: self.record(name) for name in self.kept},
        }


def _of(counts: Mapping[str, int], layer: str | None) -> int:
    return sum(counts.values()) if layer is None else counts[layer]
