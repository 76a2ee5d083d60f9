"""Whether data are the same as before: a path alone does not tell."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pai_cli.data.arrays import ArrayDataset
from pai_cli.data.images import ImageDataset

if TYPE_CHECKING:
    from pai_cli.data.base import Dataset

SAMPLED, AT_ONCE = 8, 1024


def digest_of(parts: Sequence[Dataset]) -> str:
    """Hex SHA-256 of all labels, and of what is in memory all values.

    Of images in files, which may be hundreds of gigabytes, the size of every file, and some images as a network takes
    them. Raises `DataError` for one of those that cannot be read.
    """
    digest = hashlib.sha256()
    for part in parts:
        chosen = np.linspace(0, len(part) - 1, SAMPLED).astype(np.int64)
        arrays: list[NDArray[Any]] = [part.labels, part.examples(chosen)]
        if isinstance(part, ArrayDataset):
            arrays.append(part.stored)
        elif isinstance(part, ImageDataset):
            arrays.append(_sizes(part))
        for array in arrays:
            digest.update(f"{array.dtype.str} {array.shape} ".encode())
            for first in range(0, len(array), AT_ONCE):  # a copy of few at a time, of a view the rows in order
                digest.update(array[first : first + AT_ONCE].tobytes())
    return digest.hexdigest()


def _sizes(part: ImageDataset) -> NDArray[np.int64]:
    """The bytes of every file; none of images that are parts of larger files."""
    if not isinstance(part.source(0)[1], Path):
        return np.zeros(0, dtype=np.int64)
    files = (part.source(index)[1] for index in range(len(part)))
    return np.asarray(
        [file.stat().st_size if isinstance(file, Path) and file.exists() else -1 for file in files], dtype=np.int64
    )
