"""A real Dask scheduler with two worker processes on loopback."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import workers
from conftest import ROOT, SAMPLES, Pai, random_mask, save_mask
from copies import Copy, Ended, begin, run

from pai_cli.analysis.many import analyze_masks
from pai_cli.analysis.masks import AnalysisRequest
from pai_cli.api.working import check_cluster
from pai_cli.compute import cluster
from pai_cli.compute.cluster import DaskPool, about
from pai_cli.compute.pool import Outcome, open_pool
from pai_cli.errors import ClusterError, MaskError, WorkerLostError
from pai_cli.files.checkpoints import open_checkpoint
from pai_cli.files.opening import open_mask

pytest.importorskip("distributed")

SETTINGS = {
    "DASK_DISTRIBUTED__DASHBOARD__LINK": "",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "5s",
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
    "OMP_NUM_THREADS": "1",
    "PYTHONWARNINGS": "default",
}


WORKER = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--host", "127.0.0.1")
LOADED = ("distributed.cli.dask_scheduler", "distributed.cli.dask_worker", "pai_cli.analysis.many")


class LoopbackCluster:
    """A scheduler, and workers each in a folder of its own; processes, so that nothing of Dask's runs in the tests' own."""

    def __init__(self, folder: Path, allowed_failures: int = 1):
        self.folder = folder
        self.settings = SETTINGS | {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": str(allowed_failures)}
        self.workers: list[Copy] = []
        self.scheduler = self._start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
        self.address = self._said("scheduler", r"Scheduler at:\s+(tcp://\S+)")

    def add_worker(self) -> None:
        name = f"worker{len(self.workers)}"
        self.workers.append(self._start("worker", self.address, *WORKER, "--name", name, name=name))

    def _start(self, kind: str, *flags: str, name: str = "") -> Copy:
        folder = self.folder / (name or kind)
        folder.mkdir()
        with (folder / "said").open("wb") as said:
            into = said.fileno(), said.fileno()
            return begin(
                flags, of=LOADED, module=f"distributed.cli.dask_{kind}", cwd=folder, into=into, **self.settings
            )

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


def test_items_are_drawn_as_they_are_needed(pool: DaskPool) -> None:
    drawn = []

    def items() -> Iterator[int]:
        for number in range(100_000):
            drawn.append(number)
            yield number

    outcomes = pool.map(workers.times, 1, items())
    assert [next(outcomes).get() for _ in range(3)] == [0, 1, 2]
    assert len(drawn) <= (3 + cluster.AHEAD * pool.workers) * cluster.MOST_ITEMS
    outcomes.close()  # type: ignore[attr-defined]


def test_errors_travel_and_what_is_known_comes_out_in_its_place(pool: DaskPool) -> None:
    items: list[int | Outcome[int]] = [Outcome(-1), 0, Outcome(-2), 1, 2, *(Outcome(n) for n in range(200)), 3]
    first, fine, second, ours, other, *known, last = pool.map(workers.faulty, None, items)
    assert [one.get() for one in (first, fine, second, *known, last)] == [-1, 0, -2, *range(200), 3]
    with pytest.raises(MaskError, match="one: is no mask"):
        ours.get()
    assert str(other.error) == "UnreadableError: 1 and 2"


def test_short_items_travel_together(pool: DaskPool, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = []
    begun = DaskPool._begun
    monkeypatch.setattr(DaskPool, "_begun", lambda self, task, shared: tasks.append(task) or begun(self, task, shared))
    assert len(list(pool.map(workers.times, 1, range(640)))) == 640
    assert max(len(task.items) for task in tasks) == cluster.MOST_ITEMS
    assert len(tasks) < 30


def test_what_was_sent_is_forgotten(pool: DaskPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dask by itself keeps the last thousand messages."""
    monkeypatch.setattr(cluster, "MOST_ITEMS", 1)
    tracemalloc.start()
    try:
        for outcome in pool.map(workers.size, None, (bytes(150_000) for _ in range(50))):
            assert outcome.get() == 150_000
        assert tracemalloc.get_traced_memory()[0] < 4_000_000
    finally:
        tracemalloc.stop()


def test_a_search_on_a_cluster_is_stopped(dask: LoopbackCluster, pool: DaskPool, small: Path, tmp_path: Path) -> None:
    """What is done is kept, nothing is left on the cluster, and its workers, which are nobody's own, go on."""
    shutil.copy(small, tmp_path / "c.safetensors")
    words = ["sample", "c.safetensors", "--method", "magnitude", "--density", "0.5", "-o", "best.safetensors"]
    trajectory = tmp_path / "best.jsonl"
    with begin([*words, "--population", 10**6, "--cluster", dask.address], cwd=tmp_path) as process:
        workers.wait_until(lambda: trajectory.exists() and trajectory.read_bytes().count(b"\n") > 4)
        process.signal(signal.SIGTERM)
        status, out, err = process.finish()
    done = trajectory.read_text().count("\n") - 1
    assert (status, out) == (143, ""), err
    assert err.splitlines()[-2:] == [
        f"pai: best.state.safetensors: {done} of 1000000 candidates are done and kept; the same command with --resume "
        "goes on",
        "pai: interrupted by SIGTERM",
    ]
    assert {path.name for path in tmp_path.iterdir()} == {"c.safetensors", "best.jsonl", "best.state.safetensors"}
    assert list(pool.map(workers.times, 3, range(4))) == [Outcome(3 * n) for n in range(4)]
    workers.wait_until(lambda: not pool._client.run_on_scheduler(tasks_of_others))


def tasks_of_others(dask_scheduler: Any) -> list[str]:
    return [str(key) for key in dask_scheduler.tasks]


@pytest.fixture
def own(tmp_path: Path) -> Iterator[LoopbackCluster]:
    """A cluster of the test's own, without workers; no task is tried again."""
    found = LoopbackCluster(tmp_path, allowed_failures=0)
    yield found
    found.close()


def test_masks_while_a_worker_dies(dask: LoopbackCluster, pool: DaskPool, study: list[Path], resnet: Path) -> None:
    """The workers have their own folders: a mask's path relative to this one means nothing to them."""
    request = AnalysisRequest(weights=open_checkpoint(resnet))
    wanted = list(analyze_masks(study, request))
    dask.add_worker()
    workers.wait_until(lambda: pool.workers == 3)
    found = []
    for report in analyze_masks(study, request, pool=pool):
        found.append(report)
        if len(found) == 3:
            dask.workers[0].signal(signal.SIGKILL)
    assert [replace(report, error=None) for report in found] == [replace(report, error=None) for report in wanted]
    assert [str(report.error) for report in found] == [str(report.error) for report in wanted]
    assert [report.error is None for report in found] == [True] * 12 + [False, True]
    workers.wait_until(lambda: pool.workers == 2)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Thirteen masks, and after the twelfth a file that is none."""
    folder = tmp_path_factory.mktemp("study")
    shapes = open_mask(SAMPLES / "erk-0.05.safetensors").shapes
    paths = [
        save_mask(folder / f"{n}.safetensors", {name: random_mask(shape, 0.05, n) for name, shape in shapes.items()})
        for n in range(13)
    ]
    damaged = folder / "damaged.safetensors"
    damaged.write_bytes(paths[0].read_bytes()[:-100])
    return [*paths[:12], damaged, paths[12]]


def test_an_item_that_kills_its_workers_costs_itself_only_and_a_scheduler_that_dies_everything(
    own: LoopbackCluster,
) -> None:
    for _ in range(3):
        own.add_worker()
    with open_pool(None, own.address) as pool:
        workers.wait_until(lambda: pool.workers == 3)
        late = list(pool.map(workers.deadly_late, None, range(80)))
        assert [one.value for one in late] == [n if n != 50 else None for n in range(80)]
        assert isinstance(late[50].error, WorkerLostError)
        assert str(late[50].error) == (
            "the cluster's workers at work on it died, one after the other; their own logs say of what"
        )
        outcomes = pool.map(workers.slower_first, 20, range(20))
        next(outcomes)
        own.scheduler.signal(signal.SIGKILL)
        with pytest.raises(ClusterError) as told:
            list(outcomes)
    assert str(told.value) == (
        f"cluster={own.address}: the scheduler is gone; start it again, and the command: what is stored stays"
    )


def refusal(address: str) -> str:
    with pytest.raises(ClusterError) as told, open_pool(None, address):
        pass
    return str(told.value)


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "PATIENCE", 0.5)
    for address in ("tcp://127.0.0.1:9", "no-such-host.invalid:8786"):
        assert refusal(address) == (
            f"cluster={address}: no Dask scheduler answers there within 0.5 seconds; start one with `dask scheduler`, which "
            "prints its address"
        )


def test_what_a_scheme_needs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "PATIENCE", 0.5)
    assert refusal("tls://127.0.0.1:9") == (
        "cluster=tls://127.0.0.1:9: needs certificates: name them in distributed.comm.tls of Dask's configuration "
        "(~/.config/dask)"
    )
    assert cluster._unreached("ucx://h:9", TypeError("its package is not there")) == (
        "Dask cannot connect by ucx here; give the scheduler's tcp:// address"
    )


@pytest.mark.parametrize(
    "address", ["nowhere", "", "tcp://", "http://h:8786", "h:0", "h:65536", "h:x", "[::1", "tcp://h:1/x"]
)
def test_what_is_no_address_is_wrong_usage(pai: Pai, address: str) -> None:
    said = (
        f"pai: error: --cluster {address!r}: is no address of a Dask scheduler; give the one that `dask scheduler` prints, "
        "such as tcp://HOST:8786, or slurm"
    )
    for words in (
        ("analyze", "none.safetensors"), ("rank", "none.safetensors"),
        ("sample", "none.safetensors", "--method", "erk", "--population", 3),
    ):  # fmt: skip
        done = pai(*words, "--cluster", address)
        assert (done.status, done.said) == (2, [said])


def test_addresses_as_dask_prints_them() -> None:
    for address in (
        "tcp://10.0.0.1:8786",
        "host-1.example:1",
        "tls://[fe80::1%eth0]:65535",
        "ws://h:80",
        "slurm",
        None,
    ):
        check_cluster(address)


def test_no_worker_or_one_without_pai(own: LoopbackCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "PATIENCE", 0.5)
    assert refusal(own.address) == (
        f"cluster={own.address}: the scheduler has no worker; start some with `dask worker {own.address}`"
    )
    monkeypatch.setattr(cluster, "PATIENCE", 20)
    fake = own.folder / "fake" / "pai_cli"
    fake.mkdir(parents=True)
    (fake / "__init__.py").write_text("raise ImportError('there is none here')\n")
    worker = subprocess.Popen(
        [sys.executable, "-m", "distributed.cli.dask_worker", own.address, *WORKER], cwd=own.folder,
        env={**os.environ, **SETTINGS, "PYTHONPATH": str(fake.parent)}, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        assert re.fullmatch(
            rf"cluster={own.address}: the worker tcp://\S+ has no pai that works \(.*\); install pai-cli \S+ there",
            refusal(own.address),
        )
    finally:
        worker.kill()
        worker.wait()


def test_another_pai(dask: LoopbackCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    there = about()
    monkeypatch.setattr(cluster, "about", Renamed("about", "pai 9.9, engine compiled"))
    assert re.fullmatch(
        rf"cluster={dask.address}: the worker tcp://\S+ has {re.escape(there)}, and here it is pai 9.9, engine compiled: "
        "install the same at both ends",
        refusal(dask.address),
    )


class Renamed:
    """Here an answer of its own; at a worker, which finds it by its name, the real one."""

    def __init__(self, name: str, answer: str) -> None:
        self.name, self.answer = name, answer

    def __call__(self) -> str:
        return self.answer

    def __reduce__(self) -> tuple[object, ...]:
        return getattr, (cluster, self.name)


def test_a_worker_that_joins_later_with_another_pai() -> None:
    with pytest.raises(ClusterError, match=r"a worker has pai .*, and here it is pai 9\.9: install the same"):
        cluster._work(cluster._Shared("a", b""), "pai 9.9", [])


def test_without_dask(monkeypatch: pytest.MonkeyPatch, pai: Pai) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert refusal("tcp://127.0.0.1:9") == "cluster: needs Dask; pip install 'pai-cli[dask]'"


SBATCH = """#!/bin/sh
# What Slurm does with a job, done here at once: with a copy, as the script is gone once it is taken.
cp "$1" "$0.$$"
sh "$0.$$" >>"$(dirname "$0")/jobs" 2>&1 &
echo "Submitted batch job $$"
"""

NO_SBATCH = """#!/bin/sh
echo "sbatch: error: invalid partition specified: nowhere" >&2
exit 1
"""


def on_slurm(folder: Path, sbatch: str, *words: object) -> Ended:
    """`pai`, where sbatch is this script."""
    (folder / "bin").mkdir()
    for name, text in (("sbatch", sbatch), ("scancel", "#!/bin/sh\n")):
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o755)
    settings = {"CORES": "1", "MEMORY": "1GB", "INTERFACE": "lo", "LOCAL_DIRECTORY": str(folder)}
    return run(
        words,
        of=(*LOADED, "dask_jobqueue"),
        cwd=folder,
        **SETTINGS,
        **{f"DASK_JOBQUEUE__SLURM__{key}": value for key, value in settings.items()},
        PATH=f"{folder / 'bin'}:{os.environ['PATH']}",
    )


def test_slurm_as_the_tutorial_has_it(tmp_path: Path, study: list[Path], pai: Pai) -> None:
    page = (ROOT / "docs" / "tutorials" / "study.md").read_text(encoding="utf-8")
    (told,) = re.findall(r"^pai analyze masks --cluster slurm --jobs 20 (.*) >metrics.csv$", page, re.MULTILINE)
    line = ["analyze", *study[:3], *told.split(), "--no-store"]
    assert on_slurm(tmp_path, SBATCH, *line, "--cluster", "slurm", "--jobs", 2) == Ended(0, pai(*line).out, "")
    assert (tmp_path / "bin" / "jobs").read_text().count("Start worker at") >= 1


def test_slurm_that_takes_no_job(tmp_path: Path, study: list[Path]) -> None:
    done = on_slurm(tmp_path, NO_SBATCH, "analyze", *study, "--cluster", "slurm", "--jobs", 2)
    assert (done.status, done.out) == (1, "")
    assert done.err == (
        "pai: error: --cluster slurm: no job was taken: sbatch: error: invalid partition specified: nowhere; "
        "jobqueue.slurm is set in ~/.config/dask/jobqueue.yaml\n"
    )


def test_slurm_without_settings() -> None:
    assert refusal("slurm") == (
        "cluster=slurm: set jobqueue.slurm.cores and jobqueue.slurm.memory, of one job, in ~/.config/dask/jobqueue.yaml, "
        "and there its queue and walltime too"
    )


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        (["--cluster", "slurm"], "--cluster slurm: give --jobs N, how many jobs to ask Slurm for"),
        (
            ["--cluster", "tcp://h:1", "--jobs", "2"],
            "--jobs: the cluster at tcp://h:1 has the workers it has; leave --jobs out",
        ),
    ],
)
@pytest.mark.parametrize("command", ["analyze", "rank"])
def test_wrong_usage(pai: Pai, samples: Path, command: str, flags: list[str], wanted: str) -> None:
    done = pai(command, samples, *flags)
    assert done.status == 2
    assert wanted in done.words
