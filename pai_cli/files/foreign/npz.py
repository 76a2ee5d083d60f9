"""Archives of `numpy.savez`, read array by array: no pickle in them is opened, and nothing unpacks without bound."""

from __future__ import annotations

import math
import zipfile
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING

from pai_cli.errors import MaskError
from pai_cli.files.foreign.base import Content, Stored

if TYPE_CHECKING:
    import numpy as np

SUFFIX = ".npy"
MOST_BYTES = 2**33
"""Of one compressed array: a small archive may not ask for any amount of memory."""

AGAIN = "copy it again, or save it with numpy.savez"


def is_npz(path: Path) -> bool:
    """Whether a zip file's members are arrays. Raises `MaskError` for a zip file without its end."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception as e:  # zipfile raises several kinds of what a damaged list of members makes it stumble over
        raise MaskError(f"{path}: truncated or damaged (a zip file without its end); copy it again") from e
    return bool(names) and all(name.endswith(SUFFIX) for name in names)


def read_npz(path: Path) -> Content:
    """Names, shapes and dtypes of the arrays; values are read when asked for."""
    tensors: dict[str, Stored] = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(SUFFIX)
            if name in tensors:
                raise MaskError(f"{path}: holds two arrays named {name!r}; {AGAIN}")
            tensors[name] = _stored(path, archive, member)
    return Content(path, "npz", (path,), tensors)


def _stored(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Stored:
    name = member.filename.removesuffix(SUFFIX)
    try:
        with archive.open(member) as stream:
            shape, dtype, _ = _header(stream)
            begin = stream.tell()
    except Exception as e:  # of zipfile, zlib and NumPy
        raise MaskError(f"{path}: array {name!r} is damaged; {AGAIN}") from e
    if dtype.kind not in "biuf":
        raise MaskError(f"{path}: array {name!r} holds {dtype}, not numbers; save the masks as boolean arrays")
    if begin + math.prod(shape) * dtype.itemsize != member.file_size:
        raise MaskError(f"{path}: array {name!r} is not as long as its shape {shape} says; {AGAIN}")
    if member.compress_type != zipfile.ZIP_STORED and member.file_size > MOST_BYTES:
        raise MaskError(
            f"{path}: array {name!r} would unpack to {member.file_size:,} bytes, more than {MOST_BYTES:,}; "
            "save it with numpy.savez, uncompressed"
        )
    return Stored(name, shape, dtype.kind == "f", partial(_array, path, member.filename))


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype, bool]:
    """Shape, dtype and whether values stand by columns. NumPy raises `ValueError` for what is no header."""
    from numpy.lib import format as npy

    version = npy.read_magic(stream)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, by_columns, dtype = read(stream)
    return shape, dtype, by_columns


def _array(path: Path, member: str) -> np.ndarray:
    import numpy as np

    try:
        with zipfile.ZipFile(path) as archive, archive.open(member) as stream:
            shape, dtype, by_columns = _header(stream)
            data = stream.read()  # zipfile compares its checksum
        flat = np.frombuffer(data, dtype)
        return flat.reshape(shape, order="F" if by_columns else "C")
    except MemoryError as e:
        raise MaskError(f"{path}: array {member.removesuffix(SUFFIX)!r} does not fit in memory") from e
    except Exception as e:  # of zipfile, zlib and NumPy
        raise MaskError(f"{path}: array {member.removesuffix(SUFFIX)!r} is damaged; {AGAIN}") from e
