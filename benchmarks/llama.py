"""A mask file shaped like Llama 3 8B, made a block of rows at a time, and `pai analyze` at work on it."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from machine import resource_bytes

from pai_cli.files.masks import FORMAT, FORMAT_VERSION

LAYERS = 32

HIDDEN, KEYS, INNER = 4096, 1024, 14336

MATRICES = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (KEYS, HIDDEN),
    "self_attn.v_proj": (KEYS, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (INNER, HIDDEN),
    "mlp.up_proj": (INNER, HIDDEN),
    "mlp.down_proj": (HIDDEN, INNER),
}

BLOCK = 256  # rows made at once; times any row length a whole number of bytes

Shapes = dict[str, tuple[int, int]]


def shapes_of(layers: int) -> Shapes:
    """Names and shapes of the weights of the first `layers` layers."""
    names = ((f"model.layers.{k}.{name}.weight", shape) for k in range(layers) for name, shape in MATRICES.items())
    return dict(names)


def write_random_mask(path: Path, shapes: Shapes, density: float) -> None:
    """Write a packed mask file whose weights are kept on their own with probability `density`.

    `files.masks.write_mask` takes all masks at once, seven GB for all layers, so the file is made here piece by piece.
    """
    with path.open("wb") as stream:
        _write_header(stream, shapes)
        generator = np.random.default_rng(0)
        for rows, columns in shapes.values():
            for _ in range(rows // BLOCK):
                stream.write(_random_bits(generator, BLOCK * columns, density))


def _write_header(stream: BinaryIO, shapes: Shapes) -> None:
    metadata = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "layers": json.dumps({name: {} for name in shapes}, separators=(",", ":")),
        "shapes": json.dumps(shapes, separators=(",", ":")),
    }
    header: dict[str, object] = {"__metadata__": metadata}
    end = 0
    for name, (rows, columns) in shapes.items():
        begin, end = end, end + rows * columns // 8
        header[name] = {"data_offsets": [begin, end], "dtype": "U8", "shape": [end - begin]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    stream.write(len(text).to_bytes(8, "little") + text)


def _random_bits(generator: np.random.Generator, count: int, density: float) -> bytes:
    """`count` bits, each 1 with probability `density` rounded to 2^-16."""
    draws = np.frombuffer(generator.bytes(2 * count), dtype=np.uint16)
    return np.packbits(draws < round(density * 2**16)).tobytes()


@dataclass(frozen=True)
class Run:
    """A finished process: wall seconds, peak resident bytes, lines it wrote."""

    seconds: float
    peak: int
    lines: int


def analyze(path: Path, *arguments: str) -> Run:
    """`pai analyze` of a file, a line a layer, as a process of its own."""
    command = [sys.executable, "-m", "pai_cli", "analyze", str(path), "--format", "csv", *arguments]
    output = path.with_suffix(".csv")
    begin = time.perf_counter()
    with output.open("wb") as stream:
        actions = [(os.POSIX_SPAWN_DUP2, stream.fileno(), 1)]
        child = os.posix_spawn(sys.executable, command, dict(os.environ), file_actions=actions)
        _, status, usage = os.wait4(child, 0)
    wall = time.perf_counter() - begin
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"pai analyze failed: {os.waitstatus_to_exitcode(status)}")
    return Run(wall, resource_bytes(usage), sum(1 for _ in _lines(output)))


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as stream:
        yield from stream


def show_analysis(layers: int, density: float) -> None:
    """Write the file, analyse it, and print how that went."""
    shapes = shapes_of(layers)
    weights = sum(rows * columns for rows, columns in shapes.values())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "llama.safetensors"
        write_random_mask(path, shapes, density)
        size = path.stat().st_size
        run = analyze(path)
    print(
        f"Llama-3-8B-shaped mask, {layers} of {LAYERS} layers: {len(shapes)} matrices, {weights / 1e9:.2f} G weights, "
        f"density {density:g}, {size / 2**20:.0f} MiB of packed bits\n"
        f"pai analyze: {run.seconds:.1f} s ({run.seconds / len(shapes):.2f} s a matrix), "
        f"peak resident {run.peak / 2**20:.0f} MiB (pages of the mapped file among them), {run.lines} lines written"
    )
