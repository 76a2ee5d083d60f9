"""Command lines whose outputs fall on anything, however spelled: no input changes, and nothing unnamed comes or goes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
from conftest import SMALL, run_pai

THERE = (
    *("net.safetensors", "mask.safetensors", "data.npz", "notes.svg", "page.html", "t.csv", "s.db", "lines.jsonl"),
    *("lines.state.safetensors", ".new.csv.lock", "new.db-journal", "densities.json"),
)
NEW = ("new", "new.safetensors", "new.svg", "new.html", "new.csv", "new.db", "new.npz", "lines.safetensors", "lines")
INPUTS = {
    "NET": "net.safetensors",
    "MASK": "mask.safetensors",
    "DATA": "data.npz",
    "JSON": "densities.json",
    "CSV": "t.csv",
}
COMMANDS = (
    "init mlp-4-3-2 -o OUT",
    "prune NET --method random --density 0.5 -o OUT",
    "prune NET --method erk --densities JSON -o OUT --reinit -w OUT",
    "prune NET --method edge-popup --density 0.5 --data DATA --epochs 1 -o OUT -w OUT",
    "sample NET --method erk --density 0.5 --population 1 -o OUT",
    "sample NET --method erk --density 0.5 --population 1 -o OUT --trajectory OUT --plot OUT.svg",
    "sample NET --construct biregular --density 0.5 -o OUT",
    "train NET --mask MASK --data DATA --epochs 1 --batch-size 9 -o OUT --results OUT",
    "train NET --mask MASK --data DATA --epochs 1 --batch-size 9 --dynamic set -o OUT --mask-out OUT --plot OUT.svg",
    "analyze MASK MASK --summary --plot OUT.svg --report OUT.html --store OUT",
    "rank MASK --weights NET --no-store --report OUT.html",
    "rank --table CSV --plot OUT.svg",
    "mine MASK MASK --level weight -o OUT --plot OUT.svg",
    "convert MASK -o OUT",
    "convert MASK --to npz -o OUT",
    "convert MASK --to dense --weights NET -o OUT",
)
RESUMED = ("train", "--population", "edge-popup")


def case(seed: int, folder: Path) -> None:
    """A command with random inputs and outputs among a few small files, links to them and names that are free."""
    rng = random.Random(seed)
    with contextlib.chdir(folder):
        _fill()
        pattern = rng.choice(COMMANDS).split()
        words, read, written = [], set(), set()
        for word in pattern:
            if word in INPUTS:
                words.append(_spelled(rng, INPUTS[word] if rng.random() < 0.95 else rng.choice(THERE)))
                read.add(os.path.realpath(words[-1]))
            elif word.startswith("OUT"):
                name = rng.choice(THERE if rng.random() < 0.4 else NEW)
                words.append(_spelled(rng, name if word == "OUT" or name.endswith(word[3:]) else f"new{word[3:]}"))
                written.add(words[-1])
            else:
                words.append(word)
        flags = ("--force", "--resume") if set(RESUMED) & set(pattern) else ("--force",)
        more = [flag for flag in flags if rng.random() < 0.4]
        before = _state()
        done = run_pai(*words, *more)
        after = _state()
        told = f"{words} {more}\n{done.err}"
        assert "error: unexpected " not in done.err, told
        free = {os.path.normpath(name) for one in written for name in _of(one)}
        for path, digest in before.items():
            changed = after.get(path) != digest
            assert not (changed and os.path.realpath(path) in read), f"{path} is read, and is another now: {told}"
            real = {os.path.realpath(one) for one in written}
            kept = (
                os.path.realpath(path) in real
                and path.endswith((".csv", ".db"))
                and {"--results", "--store"} & set(words)
            )
            assert not changed or more or kept, f"{path} is another now: {told}"
        for path in before.keys() ^ after.keys():
            assert path in {os.path.relpath(_place(one)) for one in free}, f"{path} came or went: {told}"


def _fill() -> None:
    """Files of each kind that is read or in the way, and a folder with links to the place itself."""
    for name, content in _base().items():
        Path(name).write_bytes(content)
    x, y = np.ones((40, 1, 4, 6), np.float32), np.arange(40) % 10
    np.savez("data.npz", x=x, y=y, x_test=x, y_test=y)
    Path("densities.json").write_text('{"*": 0.5}')
    Path("t.csv").write_text("mask,dr_imdb,density\na,1,0.5\nb,2,0.5\n")
    for name in THERE:
        if not Path(name).exists():
            Path(name).write_bytes(b"" if name == "s.db" else b"my own")
    Path("sub").mkdir()
    Path("there").symlink_to(".")
    Path("link").symlink_to("mask.safetensors")


@cache
def _base() -> dict[str, bytes]:
    """A checkpoint and a mask of it, made once."""
    with tempfile.TemporaryDirectory() as folder:
        net, mask = Path(folder, "net.safetensors"), Path(folder, "mask.safetensors")
        assert run_pai("init", SMALL, "-o", net).status == 0
        assert run_pai("prune", net, "--method", "erk", "--density", 0.5, "-o", mask).status == 0
        return {path.name: path.read_bytes() for path in (net, mask)}


def _spelled(rng: random.Random, name: str) -> str:
    way = rng.choice(
        ("{}", "{}", "./{}", "sub/../{}", "there/{}", "there/there/./{}", "link" if "mask" in name else "{}")
    )
    return way.format(name)


def _place(path: str) -> Path:
    """A path with the links among its folders followed, but not one that it is itself."""
    return Path(os.path.realpath(Path(path).parent)) / Path(path).name


def _of(path: str) -> list[str]:
    """An output, and what its command may keep beside it."""
    folder, name = str(Path(path).parent), Path(path).name
    stem = name.removesuffix(".safetensors")
    beside = (name, f"{stem}.jsonl", f"{stem}.state.safetensors", f"{name.removesuffix('.jsonl')}.state.safetensors")
    return [f"{folder}/{one}" for one in beside]


def _state() -> dict[str, str]:
    """The digest of every file, and where a link leads, by path."""
    found = {}
    for place, folders, files in os.walk("."):
        for name in (*files, *(one for one in folders if Path(place, one).is_symlink())):
            path = Path(place, name)
            found[str(path)] = (
                str(path.readlink()) if path.is_symlink() else hashlib.sha256(path.read_bytes()).hexdigest()
            )
    return found
