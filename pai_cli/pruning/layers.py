"""Which layers a name or glob means: for leaving layers out, and for giving each its density."""

from __future__ import annotations

import re
from math import isfinite
from typing import TYPE_CHECKING

from pai_cli.errors import DensityError, LayerSelectionError
from pai_cli.files.messages import some_names
from pai_cli.files.ordering import matches
from pai_cli.spelling import option

if TYPE_CHECKING:
    from pai_cli.files.densities import LayerDensities
    from pai_cli.models.network import PrunableLayer

MAGIC = frozenset("*?[")
MOST_GLOBS = 1_000


def select_layers(layers: tuple[PrunableLayer, ...], ignore: tuple[str, ...]) -> tuple[PrunableLayer, ...]:
    """The layers that no glob matches, by their names with or without `.weight`.

    Raises `LayerSelectionError` when a glob matches nothing, or when nothing is left.
    """
    for glob in ignore:
        _check_matches("ignore", glob, layers)
    left = tuple(layer for layer in layers if not any(matches(layer.name, glob) for glob in ignore))
    if not left:
        cause = f"{option('ignore', ' '.join(ignore))}: leaves" if ignore else "the network has"
        remedy = "drop a glob" if ignore else f"check {option('model')}"
        raise LayerSelectionError(f"{cause} no layer to prune; {remedy}")
    return left


def given_densities(
    given: LayerDensities, layers: tuple[PrunableLayer, ...], chosen: tuple[PrunableLayer, ...]
) -> dict[str, float]:
    """The density of each layer of `chosen`: of its own name, else of the first glob that matches it.

    `layers` are all of the network's. Raises `DensityError` for a density not above 0 and at most 1,
    `LayerSelectionError` for a name that no layer has and for layers that no name matches.
    """
    exact = dict(given)
    names = {own for layer in layers for own in _own_names(layer)}
    globs = []
    for glob, density in given:
        if not (isfinite(density) and 0 < density <= 1):
            raise DensityError(f"{option('densities')}: {glob!r} has {density:g}; must be above 0 and at most 1")
        if MAGIC & set(glob):
            globs.append((glob, density))
        if len(globs) > MOST_GLOBS:
            raise DensityError(f"{option('densities')}: has more than {MOST_GLOBS:,} globs; give layers by name")
        if glob not in names:
            _check_matches("densities", glob, layers)
    found = {layer.name: _density_of(layer, exact, globs) for layer in chosen}
    missing = [name for name, density in found.items() if density is None]
    if missing:
        raise LayerSelectionError(
            f'{option("densities")}: has no density for {some_names(missing)}; add them, or "*" as the last, or '
            f"{option('ignore')} them"
        )
    return {name: density for name, density in found.items() if density is not None}


def _own_names(layer: PrunableLayer) -> tuple[str, ...]:
    """By which a layer is meant, an expert by the name of the tensor that it is in, too."""
    return layer.name, layer.name.removesuffix(".weight"), re.sub(r"\[[0-9]+\]$", "", layer.name)


def _density_of(layer: PrunableLayer, exact: dict[str, float], globs: list[tuple[str, float]]) -> float | None:
    for own in _own_names(layer):
        if own in exact:
            return exact[own]
    return next((density for glob, density in globs if matches(layer.name, glob)), None)


def _check_matches(name: str, glob: str, layers: tuple[PrunableLayer, ...]) -> None:
    if not any(matches(layer.name, glob) for layer in layers):
        raise LayerSelectionError(
            f"{option(name, glob)}: matches none of the {len(layers)} prunable layers "
            f"({some_names(layer.name for layer in layers)})"
        )
