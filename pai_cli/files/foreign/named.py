"""A dict or archive of names to arrays of 0 and 1, such as OpenLTH's `mask.pth` (int32, by parameter name)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

from pai_cli.errors import MaskError
from pai_cli.files.foreign.base import Content, Masks, Names, as_mask
from pai_cli.files.masks import is_binary
from pai_cli.files.stored_names import without_mask_words

POSITION = re.compile(r"arr_([0-9]+)")
"""What `numpy.savez` calls arrays that were given without names."""


def recognises(container: Literal["torch", "npz"]) -> Callable[[Content], bool]:
    """Tells whether everything in such a container is 0 or 1, and named."""

    def told(content: Content) -> bool:
        if content.container != container or not content.tensors or content.masked:
            return False
        if all(POSITION.fullmatch(name) for name in content.tensors):
            return False
        return all(is_binary(stored.read()) for stored in content.tensors.values())

    return told


def masks(container: Literal["torch", "npz"]) -> Callable[[Content, Names | None], Masks]:
    """Reads every tensor as a mask. What all names have to say that they are masks (`x_mask`, `mask.x`) is left off."""

    def read(content: Content, _names: Names | None) -> Masks:
        if content.container != container:
            what = "file of torch.save" if container == "torch" else ".npz archive"
            raise MaskError(f"{content.path}: is no {what}")
        if not content.tensors:
            raise MaskError(f"{content.path}: has no names with arrays at its top")
        own = without_mask_words(content.tensors)
        return {own[name]: as_mask(content.path, stored) for name, stored in content.tensors.items()}

    return read
