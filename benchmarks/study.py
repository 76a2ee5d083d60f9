"""Thousands of masks: how many a second, by how many workers, with and without the store. `make bench` runs it.

    python benchmarks/study.py --masks 1000

The masks are of ResNet-20, each weight kept with probability 0.05, in files as `pai prune` writes them: 270 kB each, 2.7 GB
for the usual ten thousand, in a temporary folder. Each row is `pai analyze --format csv` of them as a process of its own,
its start and the listing of the folder included; the cluster is a Dask scheduler with two workers on loopback.

workers   processes that measure
masks/s   masks over seconds
of ideal  that over the rate of one process times the workers
ms        of each mask, by the clock
peak      MiB that the command's own process had resident at most, which must not grow with the masks
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from machine import describe
from tables import LEFT, Table

from pai_cli.files.masks import MaskToWrite, write_mask
from pai_cli.files.opening import open_mask

NETWORK = Path(__file__).parents[1] / "sample_masks" / "erk-0.05.safetensors"  # for its layers

DENSITY = 0.05

COLUMNS = (
    ("how", 34, LEFT),
    ("masks", 6, "d"),
    ("workers", 7, "d"),
    ("seconds", 8, ".1f"),
    ("masks/s", 8, ".1f"),
    ("of ideal", 8, ".2f"),
    ("ms", 6, ".2f"),
    ("peak", 6, ".0f"),
)


@dataclass(frozen=True)
class Run:
    """Seconds of one command, and the MiB that its own process had at most; None where the system does not tell."""

    seconds: float
    peak: float | None


def make_masks(folder: Path, count: int) -> list[Path]:
    """Files of masks that differ, each weight kept with probability `DENSITY`."""
    network = open_mask(NETWORK)
    layouts = {name: network.layout(name) for name in network.names}
    rng = np.random.default_rng(0)
    paths = []
    for number in range(count):
        masks = {name: rng.random(shape, dtype=np.float32) < DENSITY for name, shape in network.shapes.items()}
        paths.append(folder / f"random-{number:05}.safetensors")
        write_mask(paths[-1], MaskToWrite(masks, layouts, {"method": "random"}), packed=False, force=False)
    return paths


def analyze(paths: Sequence[Path], *flags: object) -> Run:
    """`pai analyze` of these files. Raises `CalledProcessError` when it fails."""
    command = [sys.executable, "-m", "pai_cli", "analyze", "-", "--format", "csv", *map(str, flags)]
    names = "".join(f"{path}\n" for path in paths)
    begin = time.perf_counter()
    peak: float | None = None
    with tempfile.TemporaryFile("w+") as listed:
        listed.write(names)
        listed.seek(0)
        with subprocess.Popen(command, stdin=listed, stdout=subprocess.DEVNULL) as process:
            while process.poll() is None:
                peak = _peak(process.pid) or peak
                time.sleep(0.02)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Run(time.perf_counter() - begin, peak)


def _peak(process: int) -> float | None:
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text(encoding="ascii"))
    except OSError:  # no such file system, or no such process any more
        return None
    return int(found[1]) / 1024 if found else None


@contextmanager
def loopback_cluster(folder: Path, workers: int) -> Iterator[str]:
    """The address of a Dask scheduler on this machine with so many workers of one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    log = folder / "dask.log"
    processes = []

    def start(kind: str, *flags: str) -> None:
        with log.open("ab") as said:
            command = [
                sys.executable,
                "-m",
                f"distributed.cli.dask_{kind}",
                "--host",
                "127.0.0.1",
                "--no-dashboard",
                *flags,
            ]
            processes.append(subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=said))

    def told(pattern: str, times: int) -> str:
        for _ in range(600):
            found = re.findall(pattern, log.read_text())
            if len(found) >= times:
                return str(found[0])
            time.sleep(0.1)
        raise RuntimeError(f"Dask did not start: {log.read_text()}")

    try:
        start("scheduler", "--port", "0")
        address = told(r"Scheduler at:\s+(tcp://\S+)", 1)
        for _ in range(workers):
            start("worker", address, "--nthreads", "1", "--no-nanny")
        told(r"Registered to:\s+(tcp://\S+)", workers)
        yield address
    finally:
        for process in processes:
            process.kill()  # a worker that is asked to end waits for its scheduler, which may be gone
        for process in processes:
            process.wait()


def main() -> None:
    """Print a row a way of working."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--masks", type=int, default=10_000)
    parser.add_argument("--quick", action="store_true", help="three hundred masks")
    options = parser.parse_args()
    count = 300 if options.quick else options.masks
    describe()
    with tempfile.TemporaryDirectory(prefix="pai-study-") as name:
        folder = Path(name)
        paths = make_masks(folder, count)
        few = paths[: max(1, count // 10)]
        table = Table(COLUMNS)
        table.head()
        alone: list[float] = []

        def show(how: str, run: Run, masks: Sequence[Path], workers: int | None = None) -> None:
            rate = len(masks) / run.seconds
            if not alone:
                alone.append(rate)
            ideal = rate / (alone[0] * workers) if workers else None
            table.row(how, len(masks), workers, run.seconds, rate, ideal, 1000 / rate, run.peak)

        store = ("--store", folder / "results.db")
        show("this process, no store", analyze(paths, "--jobs", 1, "--no-store"), paths, 1)
        show("two processes, no store", analyze(few, "--jobs", 2, "--no-store"), few, 2)
        show("two processes, no store", analyze(paths, "--jobs", 2, "--no-store"), paths, 2)
        with loopback_cluster(folder, 2) as address:
            show("cluster of two, no store", analyze(few, "--cluster", address, "--no-store"), few, 2)
            show("cluster of two, no store", analyze(paths, "--cluster", address, "--no-store"), paths, 2)
        show("two processes, store is empty", analyze(paths, "--jobs", 2, *store), paths, 2)
        show("store has all", analyze(few, *store), few)
        show("store has all", analyze(paths, *store), paths)
        show("store has all, networks only", analyze(paths, *store, "--summary"), paths)
        print(f"the store: {(folder / 'results.db').stat().st_size / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
