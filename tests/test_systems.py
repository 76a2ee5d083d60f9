"""Other systems, simulated: what Windows lacks is hidden from a process before `pai` is imported in it."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
from conftest import SAMPLES
from safetensors.numpy import load_file, save_file

WITHOUT = """
import os, signal, subprocess, sys, types

sys.modules["fcntl"] = None
held = set()

def locking(descriptor, mode, count):
    assert (mode, count) == (1, 1)
    held.add(os.fstat(descriptor).st_ino)

sys.modules["msvcrt"] = types.SimpleNamespace(locking=locking, LK_LOCK=1)
for module, names in ((signal, ["pthread_sigmask", "SIGHUP"]), (os, ["preadv", "pread", "O_TMPFILE"])):
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
from pai_cli.__main__ import main

sys.argv[0] = "pai"
main()
"""


def elsewhere(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, *map(str, words)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_prune_and_analyze(tmp_path: Path) -> None:
    done = elsewhere(tmp_path, "prune", SAMPLES / "resnet20.safetensors", "--method", "erk", "-o", "m.safetensors")
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert sum(int(one.sum()) for one in load_file(tmp_path / "m.safetensors").values()) == 13417
    assert [path.name for path in tmp_path.iterdir()] == ["m.safetensors"]
    done = elsewhere(tmp_path, "analyze", "m.safetensors", "--summary", "--no-store")
    assert (done.returncode, "m.safetensors" in done.stdout) == (0, True), done.stderr


def test_a_search_in_two_processes(tmp_path: Path) -> None:
    words = ("--method", "erk", "--population", 4, "--jobs", 2, "-o", "best.safetensors")
    done = elsewhere(tmp_path, "sample", SAMPLES / "resnet20.safetensors", *words)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "best.jsonl",
        "best.safetensors",
        "best.state.safetensors",
    ]


def test_a_table_of_results_is_locked(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    net = {"fc1.weight": rng.standard_normal((8, 64)), "fc1.bias": np.zeros(8)}
    net |= {"fc2.weight": rng.standard_normal((10, 8)), "fc2.bias": np.zeros(10)}
    save_file({name: one.astype(np.float32) for name, one in net.items()}, tmp_path / "net.safetensors")
    words = ("--data", "digits", "--epochs", 1, "--results", "runs.csv", "--input-shape", "1,8,8")
    done = elsewhere(tmp_path, "train", "net.safetensors", *words)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "runs.csv").open() as stream:
        assert len(list(csv.DictReader(stream))) == 1
    assert not list(tmp_path.glob(".*"))
