"""The one pass that reads every byte of a checkpoint: its digest, whether its numbers are finite, and the first tallies."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from pai_cli.compute.threads import mapped
from pai_cli.errors import CheckpointError
from pai_cli.files.checkpoints import Checkpoint
from pai_cli.files.tensors import Span
from pai_cli.pruning.streaming.keys import KINDS, Keys, first_not_finite, magnitudes
from pai_cli.pruning.streaming.pieces import AHEAD, OpenFiles, changed, cut

PIECE_BYTES = 2**20  # read at once of what is not looked into

Found = TypeVar("Found")
Look = Callable[[str, int, Keys], Found | None]
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


Take = Callable[[Part, Found | None], None]


@dataclass(frozen=True)
class Seen(Generic[Found]):
    """A part, its bytes, and what was found in them."""

    part: Part
    raw: NDArray[np.uint8]
    fault: int | None
    found: Found | None


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
    checkpoint: Checkpoint, names: tuple[str, ...], look: Look[Found], take: Take[Found], files: OpenFiles
) -> str:
    """Read the checkpoint once, in the order of its digest, which is given.

    `names`: the tensors whose numbers must be finite; `look` is asked of their pieces, by several threads, and `take`
    is given what it found, in order. Raises `NotFiniteError`, naming the tensor, and `CheckpointError`.
    """
    spans = {name: checkpoint.span(name) for name in names}

    def see(part: Part) -> Seen[Found]:
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
            take(seen.part, seen.found)
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


def _not_finite(checkpoint: Checkpoint, seen: Seen[Found], span: Span) -> Exception:
    assert seen.fault is not None
    kind = KINDS[span.dtype]
    bits = seen.raw.view(kind.bits)[seen.fault]
    if int(bits) & kind.magnitude > kind.infinity:
        value = float("nan")
    else:
        value = float("-inf") if int(bits) > kind.magnitude else float("inf")
    return checkpoint.not_finite(seen.part.name, value, seen.part.start + seen.fault)
