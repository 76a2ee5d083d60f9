"""Pruning a checkpoint that is not loaded: speed and memory. `make bench` runs it.

    python benchmarks/streaming.py --runs magnitude random --warm

Makes a sharded bfloat16 checkpoint in the layout of Llama's folders, 2 G weights unless --layers says otherwise, in a
temporary folder (4 GB, and 2 GB for a mask), and removes it. Each run is a process of its own, begun after the
checkpoint has left the system's cache of files, which is how a checkpoint larger than memory is found; with --warm all of it
stays cached. So does the reading beside it. A virtual machine's host takes back memory that lies free for a few seconds,
and whoever reads a file then waits until there is memory for it once more: --settle has both begin so long after the
checkpoint has left the cache.

read      reading every byte of it into one buffer, nothing else, just before
seconds   `pai prune`, from its start to its end, at density 0.5: the digest of the checkpoint, the selection, the mask
          written and flushed
/read     that, as a multiple of reading
cpu       seconds of all cores together: what other work on the machine does not change
peak      the most memory resident, MiB
bound     twice the largest tensor and 500 MiB
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from machine import describe, resource_bytes, seconds
from tables import LEFT, Table

LAYERS, QUICK_LAYERS, SHARDS = 39, 6, 4

HIDDEN, KEYS, INNER, VOCABULARY = 2048, 512, 6144, 32000

MATRICES = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (KEYS, HIDDEN),
    "self_attn.v_proj": (KEYS, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (INNER, HIDDEN),
    "mlp.up_proj": (INNER, HIDDEN),
    "mlp.down_proj": (HIDDEN, INNER),
}

POOL = 2**22  # weights drawn; every tensor is made of pieces of them, as drawing all would take minutes

BUFFER_BYTES = 2**23

RUNS = {
    "random": ("--method", "random", "--density", "0.5"),
    "uniform": ("--method", "uniform", "--density", "0.5"),
    "erk": ("--method", "erk", "--density", "0.5"),
    "smart-ratio": ("--method", "smart-ratio", "--density", "0.5"),
    "magnitude": ("--method", "magnitude", "--density", "0.5"),
    "magnitude, packed": ("--method", "magnitude", "--density", "0.5", "--packed"),
    "magnitude, layer": ("--method", "magnitude", "--density", "0.5", "--scope", "layer"),
    "magnitude, 2:4": ("--method", "magnitude", "--pattern", "2:4"),
}

Shapes = dict[str, tuple[int, ...]]


def shapes_of(layers: int) -> Shapes:
    """Names and shapes of a network of so many layers."""
    shapes: Shapes = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN)}
    for k in range(layers):
        shapes |= {f"model.layers.{k}.{name}.weight": shape for name, shape in MATRICES.items()}
        shapes[f"model.layers.{k}.input_layernorm.weight"] = (HIDDEN,)
    return shapes | {"model.norm.weight": (HIDDEN,), "lm_head.weight": (VOCABULARY, HIDDEN)}


def write_checkpoint(folder: Path, shapes: Shapes) -> None:
    """Write a folder as Hugging Face has them; the same at every call."""
    (folder / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    generator = np.random.default_rng(0)
    pool = generator.standard_normal(POOL, np.float32).view(np.uint32) >> 16  # bfloat16, rounded towards zero
    halves = np.concatenate([pool, pool]).astype("<u2")
    names = list(shapes)
    where = {name: f"model-{k * SHARDS // len(names):05}.safetensors" for k, name in enumerate(names)}
    for shard in sorted(set(where.values())):
        with (folder / shard).open("wb") as stream:
            inside = {name: shapes[name] for name in names if where[name] == shard}
            stream.write(_header(inside))
            for shape in inside.values():
                left = int(np.prod(shape))
                while left:
                    begin = int(generator.integers(POOL))
                    piece = halves[begin : begin + min(left, POOL)]
                    stream.write(piece.data)
                    left -= piece.size
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}), encoding="utf-8")
    os.sync()


def _header(shapes: Shapes) -> bytes:
    header: dict[str, object] = {}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def shards(folder: Path) -> Iterator[Path]:
    """The files with its weights."""
    yield from sorted(folder.glob("model-*.safetensors"))


def forget(folder: Path) -> None:
    """Have the system's cache of files let the checkpoint go."""
    for path in shards(folder):
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def read(folder: Path) -> None:
    """Read all of it into one buffer."""
    buffer = bytearray(BUFFER_BYTES)
    for path in shards(folder):
        with path.open("rb", buffering=0) as stream:
            while stream.readinto(buffer):
                pass


@dataclass(frozen=True)
class Run:
    """A finished process: wall seconds, seconds of all cores, peak resident bytes."""

    seconds: float
    busy: float
    peak: int


def prune(folder: Path, arguments: tuple[str, ...]) -> Run:
    """`pai prune` of the folder, as a process of its own; the mask is removed."""
    mask = folder / "mask.safetensors"
    command = [sys.executable, "-m", "pai_cli", "prune", str(folder), *arguments, "-o", str(mask)]
    begin = time.perf_counter()
    with Path(os.devnull).open("wb") as nowhere:
        actions = [(os.POSIX_SPAWN_DUP2, nowhere.fileno(), stream) for stream in (1, 2)]
        child = os.posix_spawn(sys.executable, command, dict(os.environ), file_actions=actions)
        _, status, usage = os.wait4(child, 0)
    wall = time.perf_counter() - begin
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"{' '.join(command)} failed: {os.waitstatus_to_exitcode(status)}")
    mask.unlink()
    return Run(wall, usage.ru_utime + usage.ru_stime, resource_bytes(usage))


def measure(folder: Path, options: argparse.Namespace, bound: float) -> None:
    """Print a row a run."""

    def begin() -> None:
        os.sync()
        if not options.warm:
            forget(folder)
        time.sleep(options.settle)

    size = sum(path.stat().st_size for path in shards(folder))
    print(f"{size / 1e9:.2f} GB, {'cached' if options.warm else f'not cached for {options.settle:g} s'}")
    table = Table(
        (
            ("run", 18, LEFT),
            ("read", 6, ".1f"),
            ("seconds", 7, ".1f"),
            ("/read", 6, ".2fx"),
            ("cpu", 6, ".1f"),
            ("peak", 6, ".0f"),
            ("bound", 6, ".0f"),
        )
    )
    table.head()
    for name in options.runs:
        begin()
        reading = seconds(lambda: read(folder))
        begin()
        run = prune(folder, RUNS[name])
        table.row(name, reading, run.seconds, run.seconds / reading, run.busy, run.peak / 2**20, bound / 2**20)


def main() -> None:
    """Print a line a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=LAYERS, help=f"of the network; {LAYERS} make 2 G weights")
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=list(RUNS))
    parser.add_argument("--warm", action="store_true", help="leave the checkpoint in the system's cache of files")
    parser.add_argument("--settle", type=float, default=5.0, help="seconds to wait before each (default: 5)")
    parser.add_argument("--folder", type=Path, help="where to make the temporary folder; 6.5 GB")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_LAYERS} layers, 0.4 G weights, three runs")
    options = parser.parse_args()
    if options.quick:
        options.layers, options.runs = QUICK_LAYERS, ["random", "magnitude", "magnitude, packed"]
    describe()
    shapes = shapes_of(options.layers)
    weights = sum(int(np.prod(shape)) for shape in shapes.values())
    largest = 2 * max(int(np.prod(shape)) for shape in shapes.values())
    print(f"{weights / 1e9:.2f} G weights in bfloat16, {len(shapes)} tensors, the largest {largest / 2**20:.0f} MiB")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        write_checkpoint(Path(folder), shapes)
        measure(Path(folder), options, 2 * largest + 500 * 2**20)


if __name__ == "__main__":
    main()
