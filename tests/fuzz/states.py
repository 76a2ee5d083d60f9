"""States, trajectories, journals and stores, damaged or mixed up: what goes on from them ends as ever, or is refused."""

from __future__ import annotations

import atexit
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from conftest import Done, run_pai
from safetensors.numpy import load_file

Result = dict[str, Any]


@dataclass(frozen=True)
class Kept:
    """What an interrupted command left in a folder, the words that go on from it, and what they end with.

    `other`: the same of another seed. `{out}` in the words is the folder.
    """

    folder: Path
    other: Path
    words: tuple[str, ...]
    result: Result


def case(seed: int, folder: Path) -> None:
    """One file of an interrupted command damaged; then the command goes on."""
    rng = random.Random(seed)
    if rng.random() < 0.25:
        _store_case(rng, folder)
        return
    kept = rng.choice([_search, _training, _finished, _ticket])()
    shutil.copytree(kept.folder, folder, dirs_exist_ok=True)
    names = sorted(path.name for path in folder.iterdir() if path.name.startswith("o") and path.name != "o.safetensors")
    _damage(folder / rng.choice(names), kept.other, rng)
    done = _run(kept.words, folder)
    _check_words(done)
    if done.status == 0:
        assert _result(folder, done) == kept.result, done


def _store_case(rng: random.Random, folder: Path) -> None:
    """A store damaged: what is told of its masks is what is measured without it."""
    place, outputs = _stored()
    path = folder / "s.db"
    shutil.copy(place / "s.db", path)
    data = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 1, 1, 9))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    if rng.random() < 0.1:
        del data[rng.randrange(len(data)) :]
    path.write_bytes(data)
    kind = rng.choice(list(outputs))
    done = run_pai("analyze", place / "masks", "--store", path, "--format", "csv", "--jobs", 1, *kind)
    _check_words(done)
    assert done.status == 1 or done.out == outputs[kind], done


def _check_words(done: Done) -> None:
    assert done.status in (0, 1), done
    assert "error: unexpected " not in done.err, done.err
    assert "Traceback" not in done.err + done.out, done.err
    assert len([line for line in done.said if line.startswith("pai: error:")]) == done.status, done.err


def _damage(path: Path, other: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    lines = bytes(data).splitlines(keepends=True)
    kind = rng.randrange(8)
    if kind <= 1 or len(data) < 2:
        for _ in range(rng.choice((1, 1, 1, 9))):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == 2:
        data[rng.randrange(len(data))] = rng.choice((0, 0x0A, 0x20, 0x22, 0x30, 0x7D, 0xFF))
    elif kind == 3:
        del data[rng.randrange(len(data)) :]
    elif kind == 4:
        rng.shuffle(lines)
        data = bytearray(b"".join(lines))
    elif kind == 5:
        lines.insert(rng.randrange(len(lines)), rng.choice(lines))
        data = bytearray(b"".join(lines))
    elif kind == 6:
        del lines[rng.randrange(len(lines))]
        data = bytearray(b"".join(lines))
    else:
        data = bytearray((other / path.name).read_bytes())
    path.write_bytes(data)


def _run(words: tuple[str, ...], folder: Path) -> Done:
    return run_pai(*(word.replace("{out}", str(folder)) for word in words))


def _result(folder: Path, done: Done) -> Result:
    """What a command ended with: the bits of what it wrote, and its table."""
    tensors = load_file(folder / "o.safetensors")
    found: Result = {name: (array.shape, array.tobytes()) for name, array in tensors.items()}
    rows = done.json()
    for row in rows:
        for name in ("mask", "trained", "seconds"):
            row.pop(name, None)
    return {**found, "rows": rows}


@cache
def _place() -> Path:
    """A network and its data, as long as the process lives."""
    folder = Path(tempfile.mkdtemp(prefix="pai-fuzz-states-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    net = folder / "net.safetensors"
    assert run_pai("init", "mlp-64-8-4", "-o", net).status == 0
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 4
    images = rng.standard_normal((120, 8, 8)).astype(np.float32) + labels[:, None, None]
    np.savez(folder / "d.npz", x=images, y=labels, x_test=images[:40], y_test=labels[:40])
    assert run_pai("prune", net, "--method", "erk", "--density", 0.5, "-o", folder / "m.safetensors").status == 0
    return folder


def _kept(first: Callable[[int], tuple[object, ...]], more: tuple[object, ...], where: str = "", step: int = 0) -> Kept:
    """A command begun with two seeds, interrupted at a step of `where` or done; and what the first ends with."""
    folders = []
    for seed in range(2):
        folder = _place() / f"{first(seed)[0]}-{len(list(_place().iterdir()))}"
        folder.mkdir()
        with _interrupted(where, step):
            _run(tuple(str(word) for word in first(seed)), folder)
        folders.append(folder)
    words = tuple(str(word) for word in (*first(0), *more, "--resume", "--format", "json"))
    whole = _place() / f"{folders[0].name}-whole"
    shutil.copytree(folders[0], whole)
    done = _run(words, whole)
    assert done.status == 0, done
    return Kept(folders[0], folders[1], words, _result(whole, done))


@contextmanager
def _interrupted(where: str, step: int) -> Iterator[None]:
    """Ctrl-C before this step of what `where` names; nothing without."""
    if not where:
        yield
        return
    from pai_cli.methods import score_training
    from pai_cli.training import loop

    kind: Any = {"Trainer": loop.Trainer, "ScoreTraining": score_training.ScoreTraining}[where]
    inner = kind._one_step

    def stopping(self: Any) -> Any:
        if self.step == step:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGINT)
        return inner(self)

    with mock.patch.object(kind, "_one_step", stopping):
        yield


@cache
def _search() -> Kept:
    net, out = _place() / "net.safetensors", "{out}/o.safetensors"
    words = ("sample", net, "--method", "magnitude", "--density", 0.5, "-o", out, "--jobs", 1)
    return _kept(lambda seed: (*words, "--seed", seed, "--population", 3), ("--population", 5))


@cache
def _training() -> Kept:
    return _kept(_train_words, (), "Trainer", 25)


@cache
def _finished() -> Kept:
    return _kept(_train_words, ())


def _train_words(seed: int) -> tuple[object, ...]:
    here = _place()
    words = ("train", here / "net.safetensors", "--mask", here / "m.safetensors", "--data", here / "d.npz")
    return (*words, "--epochs", 3, "--batch-size", 8, "--seed", seed, "-o", "{out}/o.safetensors")


@cache
def _ticket() -> Kept:
    here = _place()
    words = ("prune", here / "net.safetensors", "--method", "gem-miner", "--density", 0.3, "--data", here / "d.npz")
    more = ("--epochs", 5, "--freeze-every", 2, "--batch-size", 8, "-o", "{out}/o.safetensors")
    return _kept(lambda seed: (*words, *more, "--seed", seed), (), "ScoreTraining", 20)


@cache
def _stored() -> tuple[Path, dict[tuple[str, ...], str]]:
    """A folder with a store and the masks in it, and what is told of them."""
    place = _place() / "stored"
    (place / "masks").mkdir(parents=True)
    for seed in range(4):
        mask = place / "masks" / f"{seed}.safetensors"
        how = f"--method random --density 0.4 --seed {seed}".split()
        assert run_pai("prune", _place() / "net.safetensors", *how, "-o", mask).status == 0
    kinds: tuple[tuple[str, ...], ...] = ((), ("--summary",))
    words = ("analyze", place / "masks", "--format", "csv", "--jobs", 1)
    assert run_pai(*words, "--store", place / "s.db").status == 0
    return place, {kind: run_pai(*words, *kind, "--no-store").out for kind in kinds}
