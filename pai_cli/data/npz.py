"""Arrays in a NumPy archive: x and y, and where there is a test part x_test and y_test."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pai_cli.data.arrays import ArrayDataset, as_images, check_labels, checked, no_test_part
from pai_cli.data.base import no_need
from pai_cli.data.normalise import WHITE, as_stored, measure
from pai_cli.errors import DataError
from pai_cli.files.budget import BudgetError, check_unpacked, open_zip
from pai_cli.files.first_bytes import check_readable, looks_like
from pai_cli.files.messages import one_line, some_names
from pai_cli.telling import note


def open_npz(path: Path, *, train: bool, normalise: bool = False) -> ArrayDataset:
    """The arrays of an archive, read without unpickling, held in their own type.

    Floats are taken as they are, or with `normalise` standardised as whole numbers are.

    x is (n, C, H, W), (n, H, W, C) with C 1 or 3 where the second size is neither, (n, H, W) or (n, F); y is (n,), whole
    numbers from 0, and the largest says how many classes there are. Raises `DataError` naming array and index; also for
    `normalise` of whole numbers.
    """
    arrays = _read(path, ("x", "y") if train else ("x", "y", "x_test", "y_test"))
    stored = _images(arrays["x"], f"{path}: x")
    labels = check_labels(arrays["y"], len(stored), f"{path}: y")
    classes = int(labels.max()) + 1
    whole = stored.dtype.kind != "f"
    if whole and normalise:
        raise no_need(f"{path}, of {stored.dtype},")
    values = checked(stored, f"{path}: x")
    white = WHITE.get(stored.dtype.name, 1.0)
    normalisation = measure(values, white) if whole or normalise else as_stored(values)
    if not train:
        shape, kind = stored.shape[1:], stored.dtype
        stored = _images(arrays["x_test"], f"{path}: x_test")
        if stored.shape[1:] != shape or stored.dtype != kind:
            raise DataError(f"{path}: x_test is {stored.dtype} {stored.shape[1:]} an example, x is {kind} {shape}")
        labels = check_labels(arrays["y_test"], len(stored), f"{path}: y_test", classes)
        for _ in checked(stored, f"{path}: x_test"):
            pass  # read to the end, for the fault that it may raise; of x that is done above
    return ArrayDataset(path.name, classes, labels, stored, normalisation)


def _read(path: Path, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    start = check_readable(path, DataError)
    with path.open("rb") as stream:  # numpy leaves a damaged file open
        try:
            unpacked = _unpacked(stream)
            archive = np.load(stream, allow_pickle=False)
        except BudgetError as e:
            raise DataError(f"{path}: {e}; numpy.savez writes an archive") from e
        except Exception as e:  # not a zip file, or one whose list of members is damaged
            if start.startswith(b"PK"):
                raise DataError(f"{path}: truncated or damaged; copy it again") from e
            what = looks_like(start)
            raise DataError(f"{path}: not an .npz archive: it looks like {what}; numpy.savez writes one") from e
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise DataError(f"{path}: one array, not an .npz archive; numpy.savez writes one")
        missing = [name for name in names if name not in archive.files]
        if missing and missing[0].endswith("_test"):
            raise no_test_part(str(path), "store one as x_test and y_test")
        if missing:
            held = some_names(archive.files, 8) or "none"
            raise DataError(f"{path}: no array called {missing[0]}; arrays x and y are needed, these are there: {held}")
        others = [name for name in archive.files if name not in ("x", "y", "x_test", "y_test")]
        if others and "x_test" not in names:  # said once, of the part for training
            note(f"{path}: arrays left out, which are called neither x nor y: {some_names(others, 8)}")
        for name in names:
            try:
                check_unpacked(*unpacked.get(f"{name}.npy", (0, 0)))
            except BudgetError as e:
                raise DataError(f"{path}: {name} {e}") from e
        return {name: _array(archive, name, path) for name in names}


def _unpacked(stream: BinaryIO) -> dict[str, tuple[int, int]]:
    """Bytes of each member of an archive, unpacked and as they stand there; {} for a file that is no archive."""
    zipped = stream.read(2) == b"PK"
    found = {}
    if zipped:
        with open_zip(stream) as archive:
            found = {one.filename: (one.file_size, one.compress_size) for one in archive.infolist()}
    stream.seek(0)
    return found


def _array(archive: Any, name: str, path: Path) -> NDArray[Any]:
    if archive.files.count(name) > 1:
        raise DataError(f"{path}: holds two arrays named {name!r}; save it again with numpy.savez")
    try:
        array = archive[name]
    except Exception as e:  # a damaged member makes zipfile, zlib or numpy stumble
        if "allow_pickle" in str(e):
            raise DataError(f"{path}: {name} holds Python objects, which are not read; store numbers") from e
        raise DataError(f"{path}: {name} cannot be read, truncated or damaged ({one_line(e)})") from e
    if not isinstance(array, np.ndarray):  # numpy gives the bytes of what does not begin as an array
        raise DataError(f"{path}: {name} is no array; save it again with numpy.savez")
    return array


def _images(x: NDArray[Any], where: str) -> NDArray[Any]:
    """A view of `x` as (n, C, H, W)."""
    x = as_images(x, where, "(n, C, H, W), (n, H, W, C), (n, H, W) or (n, F)")
    return x.transpose(0, 3, 1, 2) if x.shape[1] not in (1, 3) and x.shape[3] in (1, 3) else x
