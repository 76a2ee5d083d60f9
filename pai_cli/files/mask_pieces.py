"""Writing a mask file piece by piece, where the masks together do not fit in memory.

The bytes are those that `files.masks.write_mask` writes of the same masks.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from pai_cli.files.atomic import write_atomically
from pai_cli.files.canonical import canonical_header
from pai_cli.files.masks import check_layout, full_metadata
from pai_cli.spectral.layout import PLAIN, Layout

if TYPE_CHECKING:
    import numpy as np

BEHIND = 2**26  # bytes after which the system is asked to begin with the disk: else all of them wait for the end

Pieces = Callable[[str], Iterable["np.ndarray"]]
"""Of a parameter's name: its mask row by row, as flat boolean arrays one after the other."""


@dataclass(frozen=True)
class MaskOutline:
    """What a mask file tells but for the masks: shapes by parameter in network order, layouts, and the story told."""

    shapes: Mapping[str, tuple[int, ...]]
    layouts: Mapping[str, Layout]
    metadata: Mapping[str, str]


def file_order(names: Iterable[str]) -> list[str]:
    """The order in which a mask file holds its tensors: that of the safetensors library, by name."""
    return sorted(names)


def write_mask_pieces(path: Path, outline: MaskOutline, pieces: Pieces, *, packed: bool, force: bool) -> None:
    """Write a mask file, whole or not at all; `pieces` is called once a parameter, in `file_order`.

    Raises `OutputError`, `MaskMismatchError` for groups that do not divide channels, and `ValueError` when the pieces of a
    parameter are not as many as its shape has elements.
    """
    for name, shape in outline.shapes.items():
        check_layout(path, name, shape, outline.layouts.get(name, PLAIN))

    def write(stream: BinaryIO) -> None:
        stream.write(_header(outline, packed=packed))
        behind = _Behind(stream)
        for name in file_order(outline.shapes):
            written = 0
            for piece in _in_bytes(pieces(name)) if packed else pieces(name):
                behind.write(piece)
                written += piece.size
            if written != _stored_size(outline.shapes[name], packed=packed):
                raise ValueError(f"the pieces of {name!r} do not make up its shape {outline.shapes[name]}")

    write_atomically(path, write, force=force)


class _Behind:
    """Writes to a stream, and to the disk meanwhile."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._done = self._asked = 0

    def write(self, piece: np.ndarray) -> None:
        """Write the piece's bytes."""
        self._stream.write(piece.data)
        self._done += piece.nbytes
        if self._done - self._asked >= BEHIND and hasattr(os, "posix_fadvise"):
            self._stream.flush()
            with suppress(OSError):  # a pipe; or a disk that cannot: flushing at the end will tell
                os.posix_fadvise(self._stream.fileno(), self._asked, self._done - self._asked, os.POSIX_FADV_DONTNEED)
            self._asked = self._done


def _stored_size(shape: tuple[int, ...], *, packed: bool) -> int:
    return -(-math.prod(shape) // 8) if packed else math.prod(shape)


def _header(outline: MaskOutline, *, packed: bool) -> bytes:
    metadata = full_metadata(outline.shapes, outline.layouts, outline.metadata, packed=packed)
    header: dict[str, dict[str, object]] = {"__metadata__": {**metadata}}
    end = 0
    for name in file_order(outline.shapes):
        shape = outline.shapes[name]
        begin, end = end, end + _stored_size(shape, packed=packed)
        header[name] = {
            "dtype": "U8" if packed else "BOOL",
            "shape": [end - begin] if packed else list(shape),
            "data_offsets": [begin, end],
        }
    return canonical_header(header)


def _in_bytes(pieces: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The same bits, eight to a byte; what does not fill one waits for the next piece."""
    import numpy as np

    rest = np.zeros(0, np.bool_)
    for piece in pieces:
        bits = np.concatenate((rest, piece)) if rest.size else piece
        whole = bits.size - bits.size % 8
        rest = bits[whole:].copy()
        yield np.packbits(bits[:whole])
    if rest.size:
        yield np.packbits(rest)
