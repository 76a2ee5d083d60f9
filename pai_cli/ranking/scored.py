"""A mask and what is known of it, wherever that came from: measured just now, or read from a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pai_cli.analysis.masks import MaskReport
from pai_cli.files.graph_files import GRAPH, KIND
from pai_cli.spectral.result import Measure

LAYER_DENSITY = "layer_density"
EQUAL_DENSITIES = 0.01  # relative difference under which two densities are compared as one


@dataclass(frozen=True)
class ScoredMask:
    """One mask: `values` and `counted` (over how many layers each value is a mean) by the metrics' names.

    `name`: its path as given, or what the table calls it. `density`: 0 to 1, of the layers it has, and `network_density` of
    the whole network; None where not known. `setting`: what
    it may not be compared across beside density, in words ("architecture resnet34"), "" where there is nothing.
    `accuracy`: the mean over its `runs`, 0 to 1, and `spread` their standard deviation; None where not known.
    `convention`: whose gaps and subgraphs its values are of; None where a table does not say.
    """

    name: str
    density: float | None
    values: Mapping[str, Measure]
    counted: Mapping[str, int] = field(default_factory=dict)
    method: str | None = None
    setting: str = ""
    accuracy: float | None = None
    runs: int = 0
    spread: float | None = None
    network_density: float | None = None
    convention: str | None = None


@dataclass(frozen=True)
class Within:
    """What masks that are compared have in common: `settings`, which their setting is made of, and `density`, what tells
    their density, None where density does not separate.
    """

    settings: tuple[str, ...] = ()
    density: str | None = None

    @property
    def by_density(self) -> bool:
        """Whether density separates."""
        return self.density is not None

    @property
    def names(self) -> tuple[str, ...]:
        """All of it."""
        return self.settings if self.density is None else (*self.settings, self.density)


WITHIN_DENSITY = Within((), "density")


def scored_masks(reports: Iterable[MaskReport]) -> list[ScoredMask]:
    """The masks that were measured; those that failed are left out.

    Means over different layers do not compare: masks of several networks have settings, named after the first of each.
    Graphs by themselves compare with each other, whatever they are called and however large they are.
    """
    measured = [(one, one.report) for one in reports if one.report is not None]
    networks: dict[frozenset[object], str] = {}
    for one, _ in measured:
        networks.setdefault(_layers(one), "graphs" if _is_graph(one) else f"layers of {one.path}")
    return [
        ScoredMask(
            name=str(one.path),
            density=report.density,
            values=report.measures,
            counted=report.counted,
            method=one.metadata.get("method"),
            setting=networks[_layers(one)] if len(networks) > 1 else "",
            network_density=None if one.count is None else one.count.density,
            convention=report.convention.value,
        )
        for one, report in measured
    ]


def _is_graph(one: MaskReport) -> bool:
    return one.metadata.get(KIND) == GRAPH


def _layers(one: MaskReport) -> frozenset[object]:
    """What masks that compare have alike."""
    return frozenset([GRAPH]) if _is_graph(one) else frozenset(one.shapes.items())


def equal_groups(masks: Sequence[ScoredMask], *, by_density: bool = True) -> list[list[ScoredMask]]:
    """The masks that may be compared with each other: of one setting and, `by_density`, of densities within 1%.

    Settings by name, densities from the sparsest (those without one first), masks by name. A density is compared with the
    group's first, not with the one before, so that a chain of small steps does not grow into a group.
    """
    groups: list[list[ScoredMask]] = []
    for mask in sorted(masks, key=lambda one: (one.setting, _density(one) if by_density else 0.0, one.name)):
        if groups and mask.setting == groups[-1][0].setting and not (by_density and _denser(mask, groups[-1][0])):
            groups[-1].append(mask)
        else:
            groups.append([mask])
    return groups


def methods_among(masks: Sequence[ScoredMask], *, within: Within) -> tuple[set[str], bool]:
    """The methods of masks with an accuracy, and whether any has several masks among those that are compared."""
    trained = [mask for mask in masks if mask.accuracy is not None and mask.method is not None]
    repeated = any(
        len({mask.method for mask in group}) < len(group)
        for group in equal_groups(trained, by_density=within.by_density)
    )
    return {mask.method for mask in trained if mask.method is not None}, repeated


def _density(mask: ScoredMask) -> float:
    return -1.0 if mask.density is None else mask.density


def _denser(mask: ScoredMask, first: ScoredMask) -> bool:
    if mask.density is None or first.density is None:
        return mask.density is not first.density
    return mask.density > first.density * (1 + EQUAL_DENSITIES)
