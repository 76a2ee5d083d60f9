"""Pieces of tensors, and the files that they are read from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

from pai_cli.errors import CheckpointError
from pai_cli.files.tensors import Span
from pai_cli.models.layers import PrunableLayer

PIECE_WEIGHTS = 2**19  # few pieces for every core are under way, so that these bound the memory

AHEAD = 4  # pieces a core: the digest of one, or its writing, takes as long as looking at it


@dataclass(frozen=True)
class Piece:
    """The weights `start` to `stop` of a layer, by flat index."""

    layer: PrunableLayer
    start: int
    stop: int


def pieces_of(layer: PrunableLayer, unit: int = 1) -> Iterator[Piece]:
    """A layer in pieces of about `PIECE_WEIGHTS`, in order; each but the last is a multiple of `unit` weights."""
    for start, stop in cut(prod(layer.shape), unit):
        yield Piece(layer, start, stop)


def cut(size: int, unit: int = 1) -> Iterator[tuple[int, int]]:
    """Where the pieces of so many weights begin and end."""
    step = max(1, PIECE_WEIGHTS // unit) * unit
    for start in range(0, size, step):
        yield start, min(start + step, size)


class OpenFiles(AbstractContextManager["OpenFiles"]):
    """Files read from any place by any thread. Read, not mapped: mapped pages would count as this process's memory."""

    def __init__(self) -> None:
        self._opened: dict[Path, _Opened] = {}

    def __exit__(self, *_: Any) -> None:
        """Let go of them; each is closed once no thread that a fault left behind is reading it."""
        self._opened = {}

    def read(self, path: Path, begin: int, size: int) -> NDArray[np.uint8]:
        """That many bytes. Raises `CheckpointError` when the file cannot be read or has become shorter."""
        buffer = np.empty(size, np.uint8)
        done = 0
        try:
            while done < size:
                got = self._read_into(path, buffer[done:], begin + done)
                if not got:
                    raise changed(path)
                done += got
        except OSError as e:
            raise CheckpointError(f"{path}: cannot be read: {e.strerror or e}") from e
        return buffer

    def read_span(self, span: Span, begin: int, size: int) -> NDArray[np.uint8]:
        """That many bytes of a tensor, from byte `begin` of it on."""
        return self.read(span.path, span.begin + begin, size)

    def _read_into(self, path: Path, buffer: NDArray[np.uint8], begin: int) -> int:
        opened = self._opened.get(path)
        if opened is None:
            opened = self._opened.setdefault(path, _Opened(path))  # another thread's, where that was quicker
        return os.preadv(opened.descriptor, [buffer.data], begin)


class _Opened:
    """A file that is open as long as this object is there."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY)
        finalize(self, os.close, self.descriptor)


def changed(path: Path) -> CheckpointError:
    """The fault of a checkpoint that is not what it was in an earlier pass."""
    return CheckpointError(f"{path}: changed while it was being read; wait until it is written, and prune it again")
