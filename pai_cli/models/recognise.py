"""Telling a network from the names and shapes of its state dict."""

from __future__ import annotations

from pai_cli.models.base import Architecture, Shapes, shapes_of
from pai_cli.models.registry import FAMILIES

OPTIONAL = "num_batches_tracked"
"""A batch norm's counter, which older PyTorch did not write and no output depends on."""


def recognise(shapes: Shapes) -> Architecture | None:
    """The known architecture, of any class count, whose state dict has exactly these names and shapes, or None.

    Nothing is guessed: a family suggests a network, it is built without memory, and every name and shape must
    agree. `num_batches_tracked` may be missing.
    """
    if any(0 in shape for shape in shapes.values()):
        return None  # none of these has an empty tensor, and to build one would warn
    for family in FAMILIES:
        found = family.guess(shapes)
        if found is not None and agrees(found, shapes):
            return found
    return None


def agrees(found: Architecture, shapes: Shapes) -> bool:
    """Whether the architecture's state dict has exactly these names and shapes."""
    try:
        built = shapes_of(found.build)
    except (RuntimeError, OverflowError):  # sizes whose product no integer holds
        return False
    missing = {name for name in built.keys() - shapes.keys() if not name.endswith(OPTIONAL)}
    return not missing and all(built.get(name) == tuple(shape) for name, shape in shapes.items())
