"""What a file may make: work and memory follow the bytes that a file has, not the sizes that it tells.

A few hundred bytes can tell of a tensor of any size, of lists that hold themselves, or of zeros without end. Every reader
asks here before it makes what it was told of; the limits are far above what honest files need, and `docs/mask-file.md`
states them.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pai_cli.errors import PaiError
from pai_cli.files.sparse_arrays import is_sparse, parts_of

ALWAYS, FACTOR = 2**26, 32
"""The tensors of a file together may take so many bytes, and so many times the file's own: layers may share one tensor."""

ITEMS, ITEMS_A_BYTE = 2**20, 4
"""Containers may hold so many things, and so many more a byte of the file; what is held twice counts twice."""

UNPACKED, RATIO = 2**30, 64
"""A compressed array may unpack to so many bytes, and so many times what it takes compressed; all sparse ones of a file
together to so many, and so many times what the file takes.
"""

PIXELS, PIXELS_A_BYTE = 2**25, 64
"""A picture may have so many pixels, and so many more a byte of its file."""

MEMBERS = 2**17
"""Files in one archive."""

DEEP = 6
"""Levels of containers that are counted; nothing looks deeper for tensors than `with_tensors` and `unwrap` do."""

DIRECTORY = 2**24
"""Bytes that an archive's list of members may take."""

LAST = 2**16 + 22 + 20 + 56  # bytes in which an archive's end stands: a comment, and three records


class BudgetError(ValueError):
    """A file would make more than it may; the text says what was found and the limit, and no file's name."""


def told(count: int) -> str:
    """A number as a message says it, however large it is."""
    return f"{count:,}" if count < 10**15 else "more than 10^15"


@dataclass(frozen=True)
class _Counted:
    """Things, the bytes of their tensors, and the bytes that sparse tensors among them would take as plain arrays."""

    items: int = 1
    taken: int = 0
    dense: int = 0

    def __add__(self, other: _Counted) -> _Counted:
        return _Counted(self.items + other.items, self.taken + other.taken, self.dense + other.dense)


def check_tree(loaded: object, size: int) -> None:
    """Raise `BudgetError` when what was unpickled from `size` bytes is more than they may make.

    Lists, tuples and dicts are counted as what walks through them meets: one that is held by many counts for each. A tensor
    counts with all its elements, whether or not each has bytes of its own.
    """
    found = _count(loaded, DEEP, {})
    if found.items > ITEMS + ITEMS_A_BYTE * size:
        raise BudgetError(
            f"its {size:,} bytes make containers of {told(found.items)} things, as they hold each other; "
            "save model.state_dict() alone"
        )
    if found.taken > ALWAYS + FACTOR * size:
        raise BudgetError(
            f"its {size:,} bytes make tensors of {told(found.taken)} bytes, which are expanded or share their values, "
            f"more than {ALWAYS:,} + {FACTOR} times the file; save each with .clone()"
        )
    check_dense(found.dense, size)


def check_dense(dense: int, size: int) -> None:
    """Raise `BudgetError` when the sparse arrays in a file of `size` bytes may not become plain ones of `dense` bytes."""
    if dense > UNPACKED + RATIO * size:
        raise BudgetError(
            f"its sparse arrays would take {told(dense)} bytes as plain ones, more than {UNPACKED:,} + {RATIO} times the "
            "file; save them as boolean, or fewer in a file"
        )


def _count(value: object, depth: int, known: dict[tuple[int, int], _Counted]) -> _Counted:
    """What there is in `value`, itself included; `known` has what was counted, by identity."""
    inner = tuple(value.values()) if isinstance(value, Mapping) else value
    if not isinstance(inner, list | tuple):
        return _tensor(value)
    if depth == 0:
        return _Counted()
    key = id(value), depth
    if key not in known:
        known[key] = sum((_count(one, depth - 1, known) for one in inner), _Counted())
    return known[key]


def _tensor(value: Any) -> _Counted:
    """A tensor as a plain array; nothing for what cannot become one, without values or of another layout, and is refused
    later.
    """
    if is_sparse(value):
        parts = (_tensor(part) for part in parts_of(value).values())
        return sum(parts, _Counted(dense=math.prod(value.shape) * value.element_size()))
    if str(getattr(value, "layout", "torch.strided")) != "torch.strided" or getattr(value, "is_meta", False):
        return _Counted()
    taken = getattr(value, "nbytes", 0)
    return _Counted(taken=taken if isinstance(taken, int) else 0)


def check_unpacked(size: int, compressed: int) -> None:
    """Raise `BudgetError` when `compressed` bytes may not unpack to `size`."""
    if size > UNPACKED + RATIO * compressed:
        raise BudgetError(
            f"would unpack from {compressed:,} to {size:,} bytes, more than {UNPACKED:,} + {RATIO} times; save it as "
            "boolean, or uncompressed with numpy.savez"
        )


def check_pixels(width: int, height: int, size: int) -> None:
    """Raise `BudgetError` when a picture in `size` bytes may not be so wide and high."""
    limit = PIXELS + PIXELS_A_BYTE * size
    if width * height > limit:
        raise BudgetError(f"{width} x {height} pixels, more than the {limit:,} that {size:,} bytes may have")


def open_zip(stream: BinaryIO) -> zipfile.ZipFile:
    """The archive in a file, its list of members checked: how many, and that they do not claim the same bytes.

    Raises `BudgetError`; `zipfile.BadZipFile` and whatever else a damaged list makes `zipfile` stumble over.
    """
    size = stream.seek(0, 2)
    stream.seek(max(0, size - LAST))
    listed = _directory_size(stream.read())
    if listed > DIRECTORY:
        raise BudgetError(f"its list of members takes {listed:,} bytes, more than {DIRECTORY:,}")
    archive = zipfile.ZipFile(stream)
    members = archive.infolist()
    if len(members) > MEMBERS:
        raise BudgetError(f"holds {len(members):,} members, more than {MEMBERS:,}")
    claimed = sum(member.compress_size for member in members)
    if claimed > size:
        raise BudgetError(f"its members claim {claimed:,} bytes, and the file has {size:,}")
    return archive


def zip_members(path: Path, error: type[PaiError], instead: str) -> list[zipfile.ZipInfo]:
    """What a zip file lists. Raises `error`: for one that is too large, which says what to do `instead`, or damaged."""
    try:
        with path.open("rb") as stream, open_zip(stream) as archive:
            return archive.infolist()
    except BudgetError as e:
        raise error(f"{path}: {e}; {instead}") from e
    except Exception as e:  # zipfile raises several kinds of what a damaged list of members makes it stumble over
        raise error(f"{path}: truncated or damaged (a zip file without its end); copy it again") from e


def _directory_size(last: bytes) -> int:
    """What the end of an archive says of its list of members; 0 where there is no end, which `zipfile` will tell."""
    at = last.rfind(b"PK\5\6")
    size = int.from_bytes(last[at + 12 : at + 16], "little") if at >= 0 else 0
    large = last.rfind(b"PK\6\6")
    return int.from_bytes(last[large + 40 : large + 48], "little") if size == 2**32 - 1 and large >= 0 else size
