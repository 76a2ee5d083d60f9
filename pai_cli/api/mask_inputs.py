"""Masks as programs give them, paths or masks that they hold, as the rest of the package takes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import copy
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pai_cli.api.masks import Mask
from pai_cli.errors import UsageError
from pai_cli.spelling import option

if TYPE_CHECKING:
    from pai_cli.files.masks import Mask as Stored

AnyMask = Any
"""A path, a `Mask`, or a mapping of boolean arrays or tensors by parameter name."""


def mask_or_path(given: AnyMask, name: str) -> str | Path | Mask:
    """Text and paths as they are, and what a program holds as a `Mask`. Raises `UsageError`, which names the parameter."""
    if isinstance(given, Mapping):
        return given if isinstance(given, Mask) else Mask.from_tensors(given)
    if isinstance(given, str):
        return given
    if isinstance(given, PathLike):
        return Path(given)
    raise UsageError(f"{option(name)}: give a path or a mask, not {type(given).__name__}")


def masks_or_paths(given: AnyMask, name: str) -> list[str | Path | Stored]:
    """One or several: text and paths as they are, and what a program holds as masks of files are.

    Such a mask is called by its file's name or by its place, "mask 2"; of a mapping of masks by its key there. Raises
    `UsageError`.
    """
    if isinstance(given, Mapping) and given and all(isinstance(one, Mask) for one in given.values()):
        return [stored_as(one, str(key), own_name=False) for key, one in given.items()]
    alone = isinstance(given, (str, PathLike, Mapping))
    if not alone and not isinstance(given, Iterable):
        raise UsageError(f"{option(name)}: give paths or masks, not {type(given).__name__}")
    every = [mask_or_path(one, name) for one in ([given] if alone else given)]
    return [stored_as(one, f"mask {place}") if isinstance(one, Mask) else one for place, one in enumerate(every, 1)]


def stored_as(mask: Mask, name: str = "the mask", *, own_name: bool = True) -> Stored:
    """A mask that a program holds as those of files are; it is called by its file's `own_name`, or by this one."""
    stored: Any = copy(mask.stored)
    stored.path = (own_name and mask.path) or Path(name)
    return cast("Stored", stored)


def open_given(given: AnyMask, *, trust: bool) -> Stored:
    """The mask, opened where it is a path. Raises what `open_mask` raises."""
    from pai_cli.files.opening import open_mask

    found = mask_or_path(given, "mask")
    return stored_as(found) if isinstance(found, Mask) else open_mask(Path(found), trust=trust)
