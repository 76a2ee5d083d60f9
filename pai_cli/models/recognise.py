"""Telling a network from the names and shapes of its state dict."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from pai_cli.errors import UnknownModelError
from pai_cli.files.checkpoints import Checkpoint
from pai_cli.models import mlp
from pai_cli.models.base import Architecture, Shapes, shapes_of
from pai_cli.models.registry import FAMILIES
from pai_cli.spelling import option

OPTIONAL = "num_batches_tracked"
"""A batch norm's counter, which older PyTorch did not write and no output depends on."""

DEEPEST = 3  # prefixes of wrappers in wrappers

_OF_MODULES = ("weight", "bias", OPTIONAL)


def recognise(shapes: Shapes, *, chains: bool = True) -> Architecture | None:
    """The known architecture, of any class count, whose state dict has exactly these names and shapes, or None.

    Nothing is guessed: a family suggests a network, it is built without memory, and every name and shape must
    agree. `num_batches_tracked` may be missing, and counters may be there that no network has (`is_counter`). `chains`:
    whether it may be an MLP, of which names say little.
    """
    if any(0 in shape for shape in shapes.values()):
        return None  # none of these has an empty tensor, and to build one would warn
    found = nearest(shapes, chains=chains)
    return found[0] if found is not None and all(is_counter(name, shapes[name]) for name in found[1]) else None


def nearest(shapes: Shapes, *, chains: bool = True) -> tuple[Architecture, tuple[str, ...]] | None:
    """The architecture all of whose tensors are there, in its shapes, and the names that are there beside them.

    One beside which there are counters alone is taken before others.
    """
    proper = {name: shape for name, shape in shapes.items() if not is_counter(name, shape)}
    others = None
    for family in FAMILIES:
        found = family.guess(proper) if chains or family is not mlp else None
        extra = None if found is None else beyond(found, shapes)
        if found is None or extra is None:
            continue
        if all(is_counter(name, shapes[name]) for name in extra):
            return found, extra
        others = others or (found, extra)
    return others


def is_counter(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor is what tools count in: of one element, and no module's weight (`n_averaged`, `total_ops`)."""
    return math.prod(shape) <= 1 and name.rpartition(".")[2] not in _OF_MODULES


def beyond(found: Architecture, shapes: Shapes) -> tuple[str, ...] | None:
    """The names that the architecture's state dict does not have; None where it has others, or other shapes."""
    try:
        built = shapes_of(found.build)
    except (RuntimeError, OverflowError):  # sizes whose product no integer holds
        return None
    missing = {name for name in built.keys() - shapes.keys() if not name.endswith(OPTIONAL)}
    if missing or any(tuple(shapes[name]) != shape for name, shape in built.items() if name in shapes):
        return None
    return tuple(name for name in shapes if name not in built)


def recognised(checkpoint: Checkpoint) -> Architecture | None:
    """The architecture of a checkpoint, from whose names a wrapper's prefix is stripped where that makes it known.

    An MLP only where no configuration names another architecture. Raises `UnknownModelError` for several networks in one.
    """
    chains = not any((checkpoint.config or {}).get(key) for key in ("model_type", "architectures", "architecture"))
    found = recognise(checkpoint.shapes, chains=chains)
    if found is None and strip_wrapper(checkpoint, lambda shapes: recognise(shapes, chains=chains) is not None):
        found = recognise(checkpoint.shapes, chains=chains)
    return found


def strip_wrapper(checkpoint: Checkpoint, fits: Callable[[Shapes], bool]) -> bool:
    """Strip the one prefix under which a network `fits`, beside which there is no matrix; whether there is one.

    Raises `UnknownModelError` where several networks fit, as of weights and of their average.
    """
    found = [prefix for prefix, inner in _under_prefixes(checkpoint.shapes) if fits(inner)]
    outermost = [one for one in found if not any(one != other and one.startswith(other) for other in found)]
    if len(outermost) > 1:
        names = " and ".join(map(repr, outermost))
        raise UnknownModelError(
            f"{checkpoint.path}: holds {len(outermost)} networks, under {names}; save the state dict of one, or give "
            f"{option('model', 'file.py:factory')} of them together"
        )
    if not outermost or any(
        len(shape) > 1 and math.prod(shape) > 1
        for name, shape in checkpoint.shapes.items()
        if not name.startswith(outermost[0])
    ):
        return False
    checkpoint.strip(outermost[0])
    return True


def _under_prefixes(shapes: Shapes) -> Iterator[tuple[str, Shapes]]:
    """Every beginning of names, of whole parts and not too many of them, and what has it, without it."""
    groups: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, shape in shapes.items():
        parts = name.split(".")
        for depth in range(1, min(DEEPEST, len(parts) - 1) + 1):
            prefix = ".".join(parts[:depth]) + "."
            groups.setdefault(prefix, {})[name.removeprefix(prefix)] = shape
    # A layer alone is no network: what begins each name of a network has several parts below it.
    yield from ((prefix, inner) for prefix, inner in groups.items() if any("." in name for name in inner))
