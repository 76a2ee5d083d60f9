"""The one pass that reads every byte of a checkpoint: its digest, whether its numbers are finite, and the first tallies."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pai_cli.compute.threads import mapped
from pai_cli.errors import CheckpointError
from pai_cli.files.checkpoints import Checkpoint
from pai_cli.files.tensors import Span
from pai_cli.pruning.streaming.keys import KINDS, Keys, first_not_finite, magnitudes
from pai_cli.pruning.streaming.pieces import OpenFiles, changed
from pai_cli.pruning.streaming.search import Tally

PIECE_BYTES = 2**20  # read at once

Look = Callable[[str, Keys], Tally | None]
"""What is to be found in a piece of a tensor, given its name and the piece's magnitudes; may write over them."""


@dataclass(frozen=True)
class Part:
    """Bytes of a file, and whose they are; `name` is "" where nobody asks."""

    path: Path
    begin: int
    size: int
    name: str


Take = Callable[[Part, Tally | None], None]


@dataclass(frozen=True)
class Seen:
    """A part, its bytes, and what was found in them."""

    part: Part
    raw: NDArray[np.uint8]
    fault: int | None
    tally: Tally | None


def check_dtypes(checkpoint: Checkpoint, names: tuple[str, ...]) -> None:
    """Raise `CheckpointError` for a tensor of these that holds no floating numbers of 16 to 64 bits."""
    for name in names:
        dtype = checkpoint.span(name).dtype
        if dtype not in KINDS:
            checkpoint.finite_array(name)  # which tells what is wrong with most of them
            raise CheckpointError(
                f"{checkpoint.path}: tensor {name!r} has dtype {dtype}, which cannot be read; convert it to float32"
            )


def read_all(checkpoint: Checkpoint, names: tuple[str, ...], look: Look, take: Take, files: OpenFiles) -> str:
    """Read the checkpoint once, in the order of its digest, which is given.

    `names`: the tensors whose numbers must be finite; `look` is asked of their pieces, by several threads, and `take`
    is given what it found, in order. Raises `NotFiniteError`, naming the tensor, and `CheckpointError`.
    """
    spans = {name: checkpoint.span(name) for name in names}

    def see(part: Part) -> Seen:
        raw = files.read(part.path, part.begin, part.size)
        if not part.name:
            return Seen(part, raw, None, None)
        dtype = spans[part.name].dtype
        magnitude = magnitudes(raw, dtype)
        fault = first_not_finite(magnitude, dtype)
        return Seen(part, raw, fault, look(part.name, magnitude) if fault is None else None)

    digest = hashlib.sha256()
    with closing(mapped(see, _parts(checkpoint.files, spans))) as parts:
        for seen in parts:
            if seen.fault is not None:
                raise _not_finite(checkpoint, seen, spans[seen.part.name])
            digest.update(seen.raw.data)
            take(seen.part, seen.tally)
    return digest.hexdigest()


def _parts(paths: tuple[Path, ...], spans: Mapping[str, Span]) -> Iterator[Part]:
    """Every byte of the files, in order, in parts of one tensor or of none."""
    for path in paths:
        end, size = 0, path.stat().st_size
        inside = sorted(((span.begin, span.size, name) for name, span in spans.items() if span.path == path))
        for begin, length, name in inside:
            yield from _cut(path, end, begin, "")
            yield from _cut(path, begin, begin + length, name)
            end = begin + length
        if end > size:
            raise changed(path)
        yield from _cut(path, end, size, "")


def _cut(path: Path, begin: int, end: int, name: str) -> Iterator[Part]:
    for start in range(begin, end, PIECE_BYTES):
        yield Part(path, start, min(PIECE_BYTES, end - start), name)


def _not_finite(checkpoint: Checkpoint, seen: Seen, span: Span) -> Exception:
    assert seen.fault is not None
    kind = KINDS[span.dtype]
    bits = seen.raw.view(kind.bits)[seen.fault]
    if int(bits) & kind.magnitude > kind.infinity:
        value = float("nan")
    else:
        value = float("-inf") if int(bits) > kind.magnitude else float("inf")
    before = (seen.part.begin - span.begin) // kind.bits.itemsize
    return checkpoint.not_finite(seen.part.name, value, before + seen.fault)
