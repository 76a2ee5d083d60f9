"""CIFAR-10 and CIFAR-100 as they are distributed, for Python and for C (Krizhevsky 2009).

https://www.cs.toronto.edu/~kriz/cifar.html. Images are 3x32x32, uint8; CIFAR-100's labels are the fine ones.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pai_cli.data.arrays import ArrayDataset, check_labels
from pai_cli.data.layouts import Cifar, cifar_binary, cifar_python
from pai_cli.data.normalise import CIFAR
from pai_cli.data.plain_pickle import read_plain
from pai_cli.errors import DataError
from pai_cli.files.first_bytes import check_readable

SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32

Part = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Pixels (n, 3072) and labels (n,) of one file."""


def open_python(folder: Path, *, train: bool) -> ArrayDataset:
    """The pickled batches in a folder. Raises `DataError` naming the file, and the index of a wrong label."""
    return _open(folder, cifar_python(folder), _pickled, train=train)


def open_binary(folder: Path, *, train: bool) -> ArrayDataset:
    """The binary batches in a folder. Raises `DataError` naming the file, and the index of a wrong record."""
    return _open(folder, cifar_binary(folder), _records, train=train)


def _open(folder: Path, layout: Cifar | None, read: Callable[[Path, Cifar], Part], *, train: bool) -> ArrayDataset:
    assert layout is not None  # the registry has seen one of its files
    names = layout.train if train else (layout.test,)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise DataError(f"{folder / missing[0]}: missing, of {layout.name}; unpack its archive again")
    parts = [read(folder / name, layout) for name in names]
    stored = np.concatenate([pixels for pixels, _ in parts]).reshape(-1, *SHAPE)
    labels = np.concatenate([labels for _, labels in parts])
    return ArrayDataset(layout.name, layout.classes, labels, stored, CIFAR[layout.name])


def _pickled(path: Path, layout: Cifar) -> Part:
    check_readable(path, DataError)
    held = read_plain(path)
    missing = [key for key in ("data", layout.key) if key not in held]
    if missing:
        raise DataError(f"{path}: no {missing[0]!r} in it; its keys are {', '.join(sorted(held)) or 'none'}")
    pixels = held["data"]
    if not isinstance(pixels, np.ndarray):
        raise DataError(f"{path}: data is a {type(pixels).__name__}, not an array")
    if pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != PIXELS:
        raise DataError(f"{path}: data is {pixels.dtype} of shape {pixels.shape}; uint8 (n, {PIXELS}) is needed")
    return pixels, check_labels(held[layout.key], len(pixels), str(path), layout.classes)


def _records(path: Path, layout: Cifar) -> Part:
    size = layout.label_bytes + PIXELS
    check_readable(path, DataError)
    raw = np.fromfile(path, dtype=np.uint8)
    if raw.size % size:
        raise DataError(
            f"{path}: truncated or damaged: {raw.size} bytes, and a record has {size}, "
            f"so record {raw.size // size} is cut short; copy it again"
        )
    records = raw.reshape(-1, size)
    labels = check_labels(records[:, layout.label_bytes - 1], len(records), str(path), layout.classes)
    return records[:, layout.label_bytes :], labels
