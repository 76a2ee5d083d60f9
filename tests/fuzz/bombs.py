"""Small files that tell of large things: one line says so, in the time and memory that files of their size take."""

from __future__ import annotations

import io
import json
import random
import resource
import time
import zipfile
from pathlib import Path

import numpy as np
from conftest import SAMPLES, SMALL, Done, run_pai

MOST_SECONDS = 20  # of the processor: a case takes milliseconds, and one that follows words and not bytes takes hours
MOST_MEMORY = 2**31  # bytes of address space beyond what the process has already
SIDES = (0, 1, 2, 3, 7, 64, 1_000, 2**16, 2**24, 2**31, 2**32, 2**40, 2**60, 2**63, 2**64, 10**30)
NUMBERS = (
    "0.1",
    "1",
    "0",
    "-1",
    "1e999",
    "-1e999",
    "1" + "0" * 400,
    "1" + "0" * 5_000,
    "NaN",
    "1e-400",
    "true",
    "[]",
    "{}",
)


def case(seed: int, folder: Path) -> None:
    """One such file, given to the command that reads it."""
    rng = random.Random(seed)
    rng.choice((_safetensors, _npz, _densities, _table, _index))(rng, folder)


def held(*arguments: object) -> Done:
    """Run `pai` within the bounds of this module, and check that it says what is wrong in one line, if anything is."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    bound = used + MOST_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (bound if soft == resource.RLIM_INFINITY else min(soft, bound), hard))
    begun = time.process_time()
    try:
        done = run_pai(*arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert time.process_time() - begun < MOST_SECONDS
    usage = (2,) if {"--table", "--densities"} & {*arguments} else ()  # a column that is not there, a density of 0
    assert done.status in (0, 1, *usage), done
    for word in ("error: unexpected", "Traceback", "out of memory", "in memory"):
        assert word not in done.err + done.out, done.err
    assert sum(line.startswith("pai: error:") for line in done.said) == (done.status != 0), done.err
    return done


def _analyze(path: Path, rng: random.Random) -> None:
    if rng.random() < 0.3:
        held("convert", path, "-o", path.with_name("out.safetensors"), "--force")
    held("analyze", path, "--summary", "--no-store", "--jobs", 1)


def _shape(rng: random.Random) -> list[int]:
    """Mostly a shape that no file could hold, at times one of a few elements."""
    return [rng.choice(SIDES) for _ in range(rng.choice((0, 1, 2, 2, 2, 4, 40)))]


def _safetensors(rng: random.Random, folder: Path) -> None:
    entries: dict[str, object] = {}
    at = 0
    for number in range(rng.choice((1, 2, 3, 3_000))):
        shape = rng.choice(([4, 4], [4, 1, 3, 3], [0], [0, 2**60], [2]))
        size = int(np.prod(shape, dtype=object))
        entries[f"w{number}"] = {
            "dtype": rng.choice(("BOOL", "BOOL", "U8", "F32")) if rng.random() < 0.3 else "BOOL",
            "shape": _shape(rng) if rng.random() < 0.1 else shape,
            "data_offsets": [at, at + size],
        }
        at += size
    layers = {name: rng.choice(({}, {}, {"groups": rng.choice(SIDES)}, {"transposed": True})) for name in entries}
    metadata = {"format": "pai-mask", "layers": json.dumps(layers)}
    if rng.random() < 0.3:
        metadata["shapes"] = json.dumps({name: _shape(rng) for name in entries})
    if rng.random() < 0.2:
        metadata["layers"] = rng.choice(("[" * 10**5, '{"w0":' * 10**5, json.dumps({"w0": {"groups": 10**300}})))
    header = json.dumps({"__metadata__": metadata, **entries}).encode()
    data = len(header).to_bytes(8, "little") + header + bytes(rng.choices((0, 1), k=at))
    path = folder / "a.safetensors"
    path.write_bytes(data)
    _analyze(path, rng)


def _npz(rng: random.Random, folder: Path) -> None:
    stream = io.BytesIO()
    method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(stream, "w", method) as archive:
        for number in range(rng.choice((1, 2, 300))):
            shape = _shape(rng) if rng.random() < 0.3 else (4, 4)
            with archive.open(f"w{number}.npy", "w") as member:
                head = {
                    "descr": rng.choice(("|b1", "<i8", "<f4", "<c16", "|O")),
                    "fortran_order": False,
                    "shape": tuple(shape),
                }
                np.lib.format.write_array_header_1_0(member, head)
                zeros = 2**22 if rng.random() < 0.05 else 16
                member.write(bytes(zeros))
    data = bytearray(stream.getvalue())
    for _ in range(rng.choice((0, 0, 1, 3))):  # the sizes that the list of members tells
        at = data.index(b"PK\1\2") + rng.choice((20, 24, 42))
        data[at : at + 4] = rng.choice((0, 1, 2**20, 2**31, 2**32 - 1)).to_bytes(4, "little")
    if rng.random() < 0.2:
        begin, end = data.index(b"PK\1\2"), data.index(b"PK\5\6")
        data[begin:end] = data[begin:end] * rng.choice((2, 1_000))
        tail = data.index(b"PK\5\6", begin)
        data[tail + 12 : tail + 16] = (tail - begin).to_bytes(4, "little")
    path = folder / "a.npz"
    path.write_bytes(data)
    _analyze(path, rng)


def _densities(rng: random.Random, folder: Path) -> None:
    checkpoint, path = folder / "small.safetensors", folder / "d.json"
    assert run_pai("init", SMALL, "-o", checkpoint).status == 0
    names = rng.choice((["*"], [f"*{'*' * k}" for k in range(3_000)], [f"n{k}" for k in range(50_000)], ["*", "*"]))
    pairs = ", ".join(f'"{name}": {"0.1" if rng.random() < 0.9 else rng.choice(NUMBERS)}' for name in names)
    path.write_text(rng.choice(("{" + pairs + "}",) * 4 + ('{"a":' + "[" * 10**5,)))
    held("prune", checkpoint, "--method", "magnitude", "--densities", path, "-o", folder / "out.safetensors")


def _table(rng: random.Random, folder: Path) -> None:
    columns, rows = rng.choice(((5_000, 2), (3, 3_000), (20_000, 1), (2, 2)))
    names = ["mask", *(rng.choice(("m", "m", "density", "m1_error")) + str(k) for k in range(columns)), "accuracy"]
    lines = [",".join(names)]
    for row in range(rows):
        cell = "a" * 200_000 if rng.random() < 0.1 else f"a{row}"
        lines.append(",".join([cell, *(str(rng.random()) for _ in range(columns)), str(rng.random())]))
    path = folder / "t.csv"
    path.write_text("\n".join(lines) + "\n")
    if rng.random() < 0.3:
        held("rank", SAMPLES / "magnitude-0.02.safetensors", "--accuracy", path, "--no-store", "--jobs", 1)
    else:
        held("rank", "--table", path, *rng.choice(((), ("--group-by", "nothing"), ("--by", "m0"))))


def _index(rng: random.Random, folder: Path) -> None:
    run_pai("init", SMALL, "-o", folder / "shard.safetensors")
    shard = rng.choice(("shard.safetensors", "../../x", "none.safetensors", "/etc/passwd", "", "a\0b"))
    names = {f"w{k}": shard for k in range(rng.choice((1, 20_000)))}
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": names if rng.random() < 0.9 else rng.choice(([], {"w": 1}, None))}))
    held("prune", path, "--method", "magnitude", "--density", "0.5", "-o", folder / "out.safetensors")
