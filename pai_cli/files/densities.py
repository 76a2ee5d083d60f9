"""Layer densities from a file: a JSON object of layer names, or globs of them, and the fraction each keeps."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pai_cli.errors import DensitiesError, DensityError
from pai_cli.files.json_files import read_json
from pai_cli.printable import shortened
from pai_cli.spelling import option

LayerDensities = tuple[tuple[str, float], ...]
"""Pairs of a layer's name, or a glob, and its density, in the file's order."""


def read_densities(path: Path) -> LayerDensities:
    """The pairs of the file. Raises `DensitiesError` for a file that cannot be read or holds anything else."""
    pairs = read_json(path, DensitiesError, "mend it", where=option("densities", path), pairs=_Pairs)
    if not isinstance(pairs, _Pairs) or not pairs:
        raise DensitiesError(
            f'{option("densities", path)}: must be a JSON object such as {{"conv1": 0.5, "layer*": 0.05}}'
        )
    return checked_densities(pairs, str(path))


def checked_densities(pairs: Iterable[tuple[Any, Any]], where: str | None = None) -> LayerDensities:
    """The pairs, each a name and a number; `where`: the file that they are from. Raises `DensityError` for any other,
    `DensitiesError` where they are from a file.
    """
    error = DensityError if where is None else DensitiesError
    seen: dict[str, float] = {}
    for name, density in pairs:
        told = f"{option('densities', where)}: {name!r}"
        if isinstance(density, bool) or not isinstance(density, int | float):
            raise error(f"{told} has {_short(density)}, and a number is needed")
        if abs(density) > 1:  # before it becomes a float, which cannot be of any size
            raise error(f"{told} has {_short(density)}; must be above 0 and at most 1")
        if name in seen:
            raise error(f"{told} stands there twice; leave one")
        seen[name] = float(density)
    return tuple(seen.items())


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as pairs, so that a name that stands there twice can be told."""


def _short(value: object) -> str:
    told = "an object" if isinstance(value, _Pairs) else json.dumps(value, default=lambda other: type(other).__name__)
    return shortened(told, 40)
