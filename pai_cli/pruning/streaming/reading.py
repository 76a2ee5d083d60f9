"""The one pass that reads every byte of a checkpoint: its digest, whether its numbers are finite, and the first tallies."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from math import prod
from pathlib import Path
from threading import Lock
from typing import Any, Generic, TypeVar
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

from pai_cli.compute.threads import mapped
from pai_cli.errors import CheckpointError
from pai_cli.files.checkpoints import Checkpoint
from pai_cli.files.tensors import Span, not_finite
from pai_cli.models.layers import PrunableLayer
from pai_cli.printable import reason_of
from pai_cli.pruning.streaming.keys import KINDS, Keys, first_not_finite, magnitudes
from pai_cli.pruning.ties import TOGETHER

PIECE_WEIGHTS = TOGETHER  # few pieces for every core are under way, so that these bound the memory

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
            raise CheckpointError(f"{path}: cannot be read: {reason_of(e)}") from e
        return buffer

    def read_span(self, span: Span, begin: int, size: int) -> NDArray[np.uint8]:
        """That many bytes of a tensor, from byte `begin` of it on."""
        return self.read(span.path, span.begin + begin, size)

    def _read_into(self, path: Path, buffer: NDArray[np.uint8], begin: int) -> int:
        opened = self._opened.get(path)
        if opened is None:
            opened = self._opened.setdefault(path, _Opened(path))  # another thread's, where that was quicker
        if hasattr(os, "preadv"):
            return os.preadv(opened.descriptor, [buffer.data], begin)
        with opened.lock, os.fdopen(opened.descriptor, "rb", buffering=0, closefd=False) as stream:  # Windows
            stream.seek(begin)
            return stream.readinto(buffer.data) or 0


class _Opened:
    """A file that is open as long as this object is there."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self.lock = Lock()
        finalize(self, os.close, self.descriptor)


def changed(path: Path) -> CheckpointError:
    """The fault of a checkpoint that is not what it was in an earlier pass."""
    return CheckpointError(f"{path}: changed while it was being read; wait until it is written, and prune it again")


PIECE_BYTES = 2**20  # read at once of what is not looked into

Tallied = TypeVar("Tallied")
Look = Callable[[str, int, Keys], Tallied | None]
"""What is to be found in a piece of a tensor, given its name, the flat index at which it begins and its magnitudes; may
write over them."""


@dataclass(frozen=True)
class Part:
    """Bytes of a file, and whose they are; `name` is "" where nobody asks. `start`: the flat index of the first weight."""

    path: Path
    begin: int
    size: int
    name: str = ""
    start: int = 0


Take = Callable[[Part, Tallied | None], None]


@dataclass(frozen=True)
class Seen(Generic[Tallied]):
    """A part, its bytes, and what was found in them."""

    part: Part
    raw: NDArray[np.uint8]
    fault: int | None
    tallied: Tallied | None


def check_dtypes(checkpoint: Checkpoint, names: tuple[str, ...]) -> None:
    """Raise `CheckpointError` for a tensor of these that holds no floating numbers of 16 to 64 bits."""
    for name in names:
        dtype = checkpoint.span(name).dtype
        if dtype not in KINDS:
            checkpoint.finite_array(name)  # which tells what is wrong with most of them
            raise CheckpointError(
                f"{checkpoint.path}: tensor {name!r} has dtype {dtype}, which cannot be read; convert it to float32"
            )


def read_all(
    checkpoint: Checkpoint, names: tuple[str, ...], look: Look[Tallied], take: Take[Tallied], files: OpenFiles
) -> str:
    """Read the checkpoint once, in the order of its digest, which is given.

    `names`: the tensors whose numbers must be finite; `look` is asked of their pieces, by several threads, and `take`
    is given what it found, in order. Raises `NotFiniteError`, naming the tensor, and `CheckpointError`.
    """
    spans = {name: checkpoint.span(name) for name in names}

    def see(part: Part) -> Seen[Tallied]:
        raw = files.read(part.path, part.begin, part.size)
        if not part.name:
            return Seen(part, raw, None, None)
        dtype = spans[part.name].dtype
        magnitude = magnitudes(raw, dtype)
        fault = first_not_finite(magnitude, dtype)
        return Seen(part, raw, fault, look(part.name, part.start, magnitude) if fault is None else None)

    digest = hashlib.sha256()
    with closing(mapped(see, _parts(checkpoint.files, spans), ahead=AHEAD)) as parts:
        for seen in parts:
            if seen.fault is not None:
                raise _not_finite(checkpoint, seen, spans[seen.part.name])
            digest.update(seen.raw.data)
            take(seen.part, seen.tallied)
    return digest.hexdigest()


def _parts(paths: tuple[Path, ...], spans: Mapping[str, Span]) -> Iterator[Part]:
    """Every byte of the files, in order: the pieces of the tensors, as `pieces_of` cuts them, and parts of no tensor."""
    for path in paths:
        end, size = 0, path.stat().st_size
        inside = sorted(((span.begin, span.size, name) for name, span in spans.items() if span.path == path))
        for begin, length, name in inside:
            yield from _between(path, end, begin)
            width = KINDS[spans[name].dtype].bits.itemsize
            for start, stop in cut(length // width):
                yield Part(path, begin + start * width, (stop - start) * width, name, start)
            end = begin + length
        if end > size:
            raise changed(path)
        yield from _between(path, end, size)


def _between(path: Path, begin: int, end: int) -> Iterator[Part]:
    for start in range(begin, end, PIECE_BYTES):
        yield Part(path, start, min(PIECE_BYTES, end - start))


def _not_finite(checkpoint: Checkpoint, seen: Seen[Tallied], span: Span) -> Exception:
    assert seen.fault is not None
    kind = KINDS[span.dtype]
    bits = seen.raw.view(kind.bits)[seen.fault]
    if int(bits) & kind.magnitude > kind.infinity:
        value = float("nan")
    else:
        value = float("-inf") if int(bits) > kind.magnitude else float("inf")
    return not_finite(checkpoint.path, seen.part.name, value, seen.part.start + seen.fault)
