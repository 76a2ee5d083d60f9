"""Archives of `numpy.savez`, read array by array: no pickle in them is opened, and nothing unpacks without bound."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar

from pai_cli.errors import MaskError
from pai_cli.files.budget import BudgetError, check_dense, check_unpacked, zip_members
from pai_cli.files.foreign.base import Content, Stored
from pai_cli.files.masks import MOST_DIMENSIONS
from pai_cli.files.sparse_arrays import SCIPY, SparseError, dense, placed
from pai_cli.printable import reason_of

if TYPE_CHECKING:
    import numpy as np

Made = TypeVar("Made")

SUFFIX = ".npy"
OF_SCIPY = frozenset(["format", "shape", "data"])
"""What `scipy.sparse.save_npz` writes of every matrix, beside the places of its values."""

PLACES = ("coords", "row", "col", "indices", "indptr", "offsets")
"""What it writes of those, by the format."""

LONGEST_FORMAT = 2**12  # bytes of the array that names it, with its header

AGAIN = "copy it again, or save it with numpy.savez"


def is_npz(path: Path) -> bool:
    """Whether a zip file's members are arrays. Raises `MaskError` for a zip file without its end."""
    members = zip_members(path, MaskError, AGAIN)
    return bool(members) and all(one.filename.endswith(SUFFIX) for one in members)


def read_npz(path: Path) -> Content:
    """Names, shapes and dtypes of the arrays; values are read when asked for.

    A sparse matrix of SciPy's is one array without a name. The archive stays open as long as any array may be asked for: its
    list of members is read once.
    """
    members: dict[str, zipfile.ZipInfo] = {}
    archive = zipfile.ZipFile(path)
    for member in archive.infolist():
        name = member.filename.removesuffix(SUFFIX)
        if name in members:
            raise MaskError(f"{path}: holds two arrays named {name!r}; {AGAIN}")
        members[name] = member
    if members.keys() >= OF_SCIPY:
        return Content(path, "npz", (path,), listed=(_sparse(path, archive, members),))
    return Content(path, "npz", (path,), {name: _stored(path, archive, one) for name, one in members.items()})


def is_of_scipy(path: Path) -> bool:
    """Whether a zip file is a matrix of `scipy.sparse.save_npz`. Raises `MaskError` for one without its end."""
    if not is_npz(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return {name.removesuffix(SUFFIX) for name in archive.namelist()} >= OF_SCIPY


def read_scipy(path: Path) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """Places (dimensions, n), values (n) and shape of such a matrix, which stays sparse. Raises `MaskError`."""
    with zipfile.ZipFile(path) as archive:
        members = {member.filename.removesuffix(SUFFIX): member for member in archive.infolist()}
        kind, shape, parts = _sparse_parts(path, archive, members)
        places, values = _whole_of(path, lambda: placed(kind, {one: part.read() for one, part in parts.items()}, shape))
        return places, values, shape


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
    try:
        check_unpacked(member.file_size, member.compress_size)
    except BudgetError as e:
        raise MaskError(f"{path}: array {name!r} {e}") from e
    return Stored(name, shape, dtype.kind == "f", partial(_array, path, archive, member))


def _sparse(path: Path, archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo]) -> Stored:
    """The matrix that SciPy's arrays are of."""
    kind, shape, parts = _sparse_parts(path, archive, members)
    with archive.open(members["data"]) as stream:
        _, dtype, _ = _header(stream)
    try:
        check_dense(math.prod(shape) * dtype.itemsize, path.stat().st_size)
    except BudgetError as e:
        raise MaskError(f"{path}: {e}") from e

    def read() -> np.ndarray:
        return _whole_of(path, lambda: dense(kind, {one: part.read() for one, part in parts.items()}, shape))

    return Stored("its sparse matrix", shape, parts["data"].floating, read, kind)


def _sparse_parts(
    path: Path, archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo]
) -> tuple[str, tuple[int, ...], dict[str, Stored]]:
    """Format, shape and arrays of a sparse matrix."""
    kind = _format(path, archive, members["format"])
    sides = _stored(path, archive, members["shape"])
    shape = tuple(map(int, sides.read().reshape(-1)[:MOST_DIMENSIONS]))
    if kind not in SCIPY or sides.floating or sides.shape != (len(shape),) or min(shape, default=0) < 0:
        raise MaskError(f"{path}: its arrays {', '.join(sorted(OF_SCIPY))} are of no sparse matrix of SciPy's; {AGAIN}")
    return kind, shape, {one: _stored(path, archive, members[one]) for one in (*PLACES, "data") if one in members}


def _whole_of(path: Path, made: Callable[[], Made]) -> Made:
    """What is made of the parts, whose faults are the file's."""
    try:
        return made()
    except (ValueError, KeyError) as e:
        ours = reason_of(e) if isinstance(e, SparseError) else "has arrays that do not fit each other"
        what = f"lacks its array {reason_of(e)}" if isinstance(e, KeyError) else ours
        raise MaskError(f"{path}: its sparse matrix {what}; save it again with scipy.sparse.save_npz") from e


def _format(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> str:
    """How SciPy calls the format: an array of one text, of a byte a letter or of four."""
    if member.file_size > LONGEST_FORMAT:
        raise MaskError(f"{path}: array 'format' is no word; {AGAIN}")
    return _array(path, archive, member).tobytes().replace(b"\0", b"").decode("latin-1")


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype, bool]:
    """Shape, dtype and whether values stand by columns. NumPy raises `ValueError` for what is no header."""
    from numpy.lib import format as npy

    version = npy.read_magic(stream)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, by_columns, dtype = read(stream)
    return shape, dtype, by_columns


def _array(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    import numpy as np

    name = member.filename.removesuffix(SUFFIX)
    try:
        with archive.open(member) as stream:
            shape, dtype, by_columns = _header(stream)
            data = stream.read()  # zipfile compares its checksum
        flat = np.frombuffer(data, dtype)
        return flat.reshape(shape, order="F" if by_columns else "C")
    except MemoryError as e:
        raise MaskError(f"{path}: array {name!r} does not fit in memory") from e
    except Exception as e:  # of zipfile, zlib and NumPy
        raise MaskError(f"{path}: array {name!r} is damaged; {AGAIN}") from e
