"""One mask as a program gives it, a path or a mask that it holds, as the rest of the package takes it."""

from __future__ import annotations

from collections.abc import Mapping
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


def open_given(given: AnyMask, *, trust: bool) -> Stored:
    """The mask, opened where it is a path; one of a program is called by its file's name, if it has one.

    Raises what `open_mask` raises.
    """
    from pai_cli.files.opening import open_mask

    found = mask_or_path(given, "mask")
    if not isinstance(found, Mask):
        return open_mask(Path(found), trust=trust)
    stored: Any = copy(found.stored)
    stored.path = found.path or stored.path
    return cast("Stored", stored)
