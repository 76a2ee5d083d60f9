"""Runs cases in worker processes, one kind after the other by the time each has had, and tells what failed."""

from __future__ import annotations

import importlib
import multiprocessing
import resource
import secrets
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path

HELPERS = ("__init__", "__main__", "running")
KINDS = tuple(sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in HELPERS))
MOST_SECONDS = 120  # a case that takes longer hangs
MOST_MEMORY = 6 * 2**30  # bytes of address space beyond what the worker has when it starts
LONGEST = 4_000  # characters of a traceback that are shown

CONTEXT = multiprocessing.get_context("spawn")


def run_case(kind: str, seed: int) -> None:
    """One case, in a folder of its own; raises what it raises."""
    folder = Path(tempfile.mkdtemp(prefix="pai-fuzz-"))
    try:
        importlib.import_module(f"fuzz.{kind}").case(seed, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run_again(kind: str, seed: int) -> int:
    """One case in this process, for a debugger; its traceback is Python's own."""
    run_case(kind, seed)
    print(f"{kind} {seed}: holds")
    return 0


def serve(pipe: Connection) -> None:
    """Run the cases that come, and answer each with "" or a traceback."""
    for kind in KINDS:
        importlib.import_module(f"fuzz.{kind}")
    # Address space in use, in pages; torch alone maps gigabytes that it never touches.
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MOST_MEMORY, resource.RLIM_INFINITY))
    pipe.send("")
    while True:
        try:
            kind, seed = pipe.recv()
        except EOFError:
            return
        try:
            run_case(kind, seed)
            pipe.send("")
        except BaseException:
            pipe.send(traceback.format_exc())


@dataclass
class Worker:
    """A process at work on a case since a moment."""

    pipe: Connection = field(init=False)
    process: multiprocessing.process.BaseProcess = field(init=False)
    kind: str = ""
    seed: int = 0
    since: float = 0.0

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Start the process, and wait until it is ready."""
        self.pipe, theirs = CONTEXT.Pipe()
        self.process = CONTEXT.Process(target=serve, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()
        self.pipe.recv()

    def begin(self, kind: str) -> None:
        """Start a case of a new seed."""
        self.kind, self.seed, self.since = kind, secrets.randbits(48), time.monotonic()
        self.pipe.send((self.kind, self.seed))

    def answer(self) -> str:
        """What went wrong with its case, "" when nothing did."""
        try:
            return str(self.pipe.recv())
        except EOFError:
            self.process.join()
            return f"the process died with exit code {self.process.exitcode}"

    def stop(self) -> None:
        """End it, whatever it does."""
        self.process.kill()
        self.process.join()

    def restart(self) -> None:
        """Another process in the place of one that hangs or is dead."""
        self.stop()
        self.start()


def fuzz(kinds: list[str], seconds: float, *, jobs: int) -> int:
    """New cases of these kinds for so long; 1 when any failed."""
    workers = [Worker() for _ in range(jobs)]
    spent, cases, failures = dict.fromkeys(kinds, 0.0), Counter[str](), Counter[str]()
    end = time.monotonic() + seconds
    for worker in workers:
        worker.begin(_next(kinds, spent, workers))
    while any(worker.kind for worker in workers):
        ready = wait([worker.pipe for worker in workers], timeout=1.0)
        for worker in workers:
            hangs = time.monotonic() - worker.since > MOST_SECONDS
            if not worker.kind or (worker.pipe not in ready and not hangs):
                continue
            wrong = worker.answer() if worker.pipe in ready else f"still at work after {MOST_SECONDS} seconds"
            spent[worker.kind] += time.monotonic() - worker.since
            cases[worker.kind] += 1
            if wrong:
                failures[worker.kind] += 1
                print(f'FAILED: make fuzz FUZZ="{worker.kind} {worker.seed}"\n{wrong[-LONGEST:]}', flush=True)
            worker.kind = ""
            if not worker.process.is_alive() or hangs:
                worker.restart()
            if time.monotonic() < end:
                worker.begin(_next(kinds, spent, workers))
    for worker in workers:
        worker.stop()
    for kind in kinds:
        print(f"{kind:20} {cases[kind]:>10,} cases {spent[kind]:>8,.0f} s {failures[kind]:>6,} failed")
    sys.stdout.flush()
    return 1 if failures else 0


def _next(kinds: list[str], spent: dict[str, float], workers: list[Worker]) -> str:
    """The kind that has had the least time, what is being done counted."""
    now = time.monotonic()
    under_way = Counter[str]()
    for worker in workers:
        if worker.kind:
            under_way[worker.kind] += int(1000 * (now - worker.since)) + 1
    return min(kinds, key=lambda kind: spent[kind] + under_way[kind] / 1000)
