"""Names of layers as they fit under a picture and into a narrow table."""

from __future__ import annotations

from collections.abc import Sequence

ENDING = ".weight"


def short_layers(layers: Sequence[str]) -> tuple[list[str], str]:
    """Layers without `.weight` and without the beginning that all share, whole parts of it; and that beginning.

    Names that would be the same without `.weight` keep it.
    """
    short = [layer.removesuffix(ENDING) for layer in layers]
    if len(set(short)) < len(set(layers)):
        short = list(layers)
    parts = [layer.split(".")[:-1] for layer in short]
    shared = 0
    for column in zip(*parts, strict=False):
        if len(set(column)) > 1:
            break
        shared += 1
    if len(layers) < 2 or not shared:
        return short, ""
    return [".".join(layer.split(".")[shared:]) for layer in short], ".".join(parts[0][:shared])
