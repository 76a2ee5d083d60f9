"""Images and labels in IDX files, as MNIST and its kin are distributed (LeCun, Cortes, Burges 1998).

MNIST, Fashion-MNIST (arXiv:1708.07747), KMNIST (arXiv:1812.01718), EMNIST (arXiv:1702.05373): two zero bytes, the type of
the values (8: uint8), the number of dimensions, each dimension as a big-endian 32-bit number, then the values row by row.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from pai_cli.data.arrays import ArrayDataset, check_labels, checked, no_test_part
from pai_cli.data.layouts import Idx, idx_sets
from pai_cli.data.normalise import measure
from pai_cli.errors import DataError
from pai_cli.files.budget import RATIO, UNPACKED, told
from pai_cli.files.first_bytes import ENOUGH, check_readable, check_start, looks_like
from pai_cli.telling import note

DIMENSIONS = {"images": 3, "labels": 1}
WHITE = 255
CHUNK = 2**20
GZIPPED = b"\x1f\x8b"

EMNIST, FROM_ONE = "emnist", "emnist-letters"
"""How the names of EMNIST's sets begin, and the one whose labels are 1 to 26."""


def open_idx(path: Path, *, train: bool) -> ArrayDataset:
    """The images and labels of a folder with one set, or of the set that a file belongs to; gzipped or not.

    EMNIST's images are stored with rows and columns exchanged, and are turned upright; the labels of its letters, 1 to 26,
    become 0 to 25. Both are said. Raises `DataError` naming the file.
    """
    found = _found(path)
    stored, raw = _part(found, "train", path)
    first = 1 if found.name == FROM_ONE and raw.min() == 1 else 0
    labels = _counted(raw, first, len(stored), found.file("train", "labels"))
    classes = int(labels.max()) + 1
    normalisation = measure(checked(stored, str(path)), WHITE)
    if not train:
        shape = stored.shape[1:]
        if found.file("test", "images") is None and found.file("test", "labels") is None:
            raise no_test_part(str(path), "put its t10k-images and t10k-labels beside the training files")
        stored, raw = _part(found, "test", path)
        labels = _counted(raw, first, len(stored), found.file("test", "labels"), classes)
        if stored.shape[1:] != shape:
            here, there = (f"{height} x {width}" for _, height, width in (stored.shape[1:], shape))
            raise DataError(
                f"{found.file('test', 'images')}: images of {here}, and those for training are {there} pixels"
            )
    if found.name.startswith(EMNIST):
        note(f"{found.name}: EMNIST stores rows and columns exchanged; its images are turned upright")
        stored = stored.transpose(0, 1, 3, 2)
    if first:
        note(f"{found.name}: its labels begin at 1; class 1 is output 0, class {classes} is output {classes - 1}")
    return ArrayDataset(found.name, classes, labels, stored, normalisation)


def _counted(
    raw: NDArray[np.uint8], first: int, count: int, file: Path | None, classes: int | None = None
) -> NDArray[np.int64]:
    """The labels from 0, where `first` stands for that in the file."""
    if raw.min() < first:
        raise DataError(f"{file}: label 0 of example {raw.argmin()}, and the training labels begin at 1")
    return check_labels(raw.astype(np.int64) - first, count, str(file), classes)


def _found(path: Path) -> Idx:
    sets = idx_sets(path)
    if not sets:
        raise DataError(f"{path}: no IDX files")
    if len(sets) > 1:
        images = [one.file("train", "images") for one in sets]
        names = ", ".join(file.name for file in images if file is not None)
        raise DataError(
            f"{path}: holds several data sets; give the path of one's training images ({names or 'none here'})"
        )
    return sets[0]


def _part(found: Idx, part: str, path: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images (n, 1, H, W) and labels of a part, as they stand there."""
    files = {what: found.file(part, what) for what in DIMENSIONS}
    for what, file in files.items():
        if file is None:
            name = f"{found.prefix}{'t10k' if part == 'test' else part}-{what}-idx{DIMENSIONS[what]}-ubyte"
            folder = path if path.is_dir() else path.parent
            raise DataError(f"{folder / name}: missing, and so is {name}.gz; put it there")
    images, labels = (_values(file, what) for what, file in files.items() if file is not None)
    return images[:, None], labels


def _values(path: Path, what: str) -> NDArray[np.uint8]:
    """The array of a file that should hold images, (n, H, W), or labels, (n,)."""
    check_readable(path, DataError)
    size = path.stat().st_size
    with path.open("rb") as stream:
        gzipped = stream.read(2) == GZIPPED
        stream.seek(0)
        try:
            if gzipped:
                with gzip.GzipFile(fileobj=stream) as unpacked:
                    return _array(unpacked, path, what, UNPACKED + RATIO * size, gzipped=True)
            return _array(stream, path, what, size, gzipped=False)
        except (EOFError, zlib.error, gzip.BadGzipFile) as e:
            raise DataError(f"{path}: truncated or damaged, its gzip does not unpack; copy it again") from e


def _array(stream: BinaryIO | gzip.GzipFile, path: Path, what: str, most: int, *, gzipped: bool) -> NDArray[np.uint8]:
    """`most`: bytes that the file may make."""
    shape = _shape(stream, path, what)
    wanted = int(np.prod(shape, dtype=object))
    if gzipped and wanted > most:
        raise DataError(
            f"{path}: would unpack to {told(wanted)} bytes, more than {UNPACKED:,} + {RATIO} times its own; unpack it "
            "with gunzip"
        )
    values = _read(stream, min(wanted, most) + 1)
    if len(values) != wanted:
        there = f"{len(values):,} are there" if len(values) < wanted else "more are there"
        raise DataError(
            f"{path}: truncated or damaged: its header tells of {told(wanted)} values, and {there}; copy it again"
        )
    return np.frombuffer(values, dtype=np.uint8).reshape(shape)


def _shape(stream: BinaryIO | gzip.GzipFile, path: Path, what: str) -> tuple[int, ...]:
    """What the header says. Raises `DataError` for one of another kind of file."""
    dimensions = DIMENSIONS[what]
    magic = _read(stream, 4)
    if magic != bytes((0, 0, 8, dimensions)):
        start = bytes(magic + _read(stream, ENOUGH - len(magic)))
        check_start(str(path), start, DataError)  # also of one that was packed
        number, needed = int.from_bytes(magic, "big"), 2048 + dimensions
        swapped = {2048 + one: name for name, one in DIMENSIONS.items()}.get(number)
        held = (
            f"it holds {swapped}; give each file its own name again"
            if swapped
            else f"it looks like {looks_like(start)}; copy it again"
        )
        raise DataError(f"{path}: begins with {number}, and {what} with {needed}: {held}")
    header = _read(stream, 4 * dimensions)
    if len(header) < 4 * dimensions:
        raise DataError(f"{path}: truncated or damaged: its header is cut short; copy it again")
    shape = tuple(int(one) for one in np.frombuffer(header, dtype=">u4"))
    if 0 in shape:
        raise DataError(
            f"{path}: no examples" if shape[0] == 0 else f"{path}: images of {shape[1]} x {shape[2]} pixels"
        )
    return shape


def _read(stream: BinaryIO | gzip.GzipFile, most: int) -> bytearray:
    """The next bytes, at most so many; memory follows what is there."""
    taken = bytearray()
    while len(taken) < most and (more := stream.read(min(CHUNK, most - len(taken)))):
        taken += more
    return taken
