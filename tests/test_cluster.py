"""A real Dask scheduler with two worker processes on loopback."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import workers
from conftest import ROOT

from pai_cli.compute.cluster import DaskPool
from pai_cli.compute.pool import open_pool

pytest.importorskip("distributed")

SETTINGS = {
    "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1",
    "DASK_DISTRIBUTED__DASHBOARD__LINK": "",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "5s",
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
    "OMP_NUM_THREADS": "1",
}


class LoopbackCluster:
    """A scheduler, and workers each in a folder of its own; processes, so that nothing of Dask's runs in the tests' own."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.workers: list[subprocess.Popen[bytes]] = []
        self.scheduler = self._start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
        self.address = self._said("scheduler", r"Scheduler at:\s+(tcp://\S+)")

    def add_worker(self, **environment: str) -> subprocess.Popen[bytes]:
        name = f"worker{len(self.workers)}"
        flags = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--host", "127.0.0.1", "--name", name)
        worker = self._start("worker", self.address, *flags, name=name, **environment)
        self.workers.append(worker)
        return worker

    def _start(self, kind: str, *flags: str, name: str = "", **environment: str) -> subprocess.Popen[bytes]:
        folder = self.folder / (name or kind)
        folder.mkdir()
        with (folder / "said").open("wb") as said:
            return subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.dask_{kind}", *flags],
                cwd=folder, env={**os.environ, **SETTINGS, **environment}, stdout=said, stderr=said,
            )  # fmt: skip

    def _said(self, name: str, pattern: str) -> str:
        found: list[str] = []

        def said() -> bool:
            found[:] = re.findall(pattern, (self.folder / name / "said").read_text())
            return bool(found)

        workers.wait_until(said)
        return found[0]

    def close(self) -> None:
        for process in (*self.workers, self.scheduler):
            process.kill()
        for process in (*self.workers, self.scheduler):
            process.wait()


@pytest.fixture(scope="module")
def dask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackCluster]:
    """Two workers, which tests leave alive."""
    found = LoopbackCluster(tmp_path_factory.mktemp("dask"))
    try:
        found.add_worker()
        found.add_worker()
        yield found
    finally:
        found.close()


@pytest.fixture(scope="module")
def pool(dask: LoopbackCluster) -> Iterator[DaskPool]:
    with open_pool(None, dask.address) as opened:
        assert isinstance(opened, DaskPool)
        workers.wait_until(lambda: opened.workers == 2)
        yield opened


@pytest.mark.parametrize("count", [0, 1, 3, 200])
def test_outcomes_are_in_order(pool: DaskPool, count: int) -> None:
    assert [one.get() for one in pool.map(workers.times, 3, range(count))] == [3 * n for n in range(count)]
