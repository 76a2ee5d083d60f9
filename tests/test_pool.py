"""Pieces of work in this process and in others: order, laziness, errors, and workers that die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import workers
from conftest import ROOT

from pai_cli.compute import processes
from pai_cli.compute.pieces import Here, Outcome
from pai_cli.compute.pool import open_pool
from pai_cli.compute.processes import AHEAD, SHORT_AHEAD, Processes
from pai_cli.errors import MaskError, WorkerLostError


@pytest.fixture(scope="module")
def two() -> Iterator[Processes]:
    """Two worker processes, for all the tests that leave them alive."""
    pool = Processes(2)
    yield pool
    pool.close()


@pytest.mark.parametrize("count", [0, 1, 3, 40])
def test_outcomes_are_in_order(two: Processes, count: int) -> None:
    assert [one.get() for one in two.map(workers.times, 3, range(count))] == [3 * n for n in range(count)]
    assert [one.get() for one in Here().map(workers.times, 3, range(count))] == [3 * n for n in range(count)]


def test_order_does_not_depend_on_which_is_done_first(two: Processes) -> None:
    assert [one.get() for one in two.map(workers.slower_first, 6, range(6))] == list(range(6))


def test_items_are_drawn_as_they_are_needed(two: Processes) -> None:
    drawn = []

    def items() -> Iterator[int]:
        for number in range(1000):
            drawn.append(number)
            yield number

    outcomes = two.map(workers.times, 1, items())
    for number in range(5):
        assert next(outcomes).get() == number
        assert len(drawn) <= number + 1 + AHEAD * two.workers
    outcomes.close()  # type: ignore[attr-defined]


def test_what_is_known_already_comes_out_in_its_place(two: Processes) -> None:
    for pool in (two, Here()):
        items = [Outcome(-1), 1, Outcome(-2), Outcome(-3), 2, *(Outcome(n) for n in range(100))]
        values = [one.get() for one in pool.map(workers.times, 2, items)]
        assert values == [-1, 2, -2, -3, 4, *range(100)]


def test_errors_travel(two: Processes, capfd: pytest.CaptureFixture[str]) -> None:
    fine, ours, other = two.map(workers.faulty, None, range(3))
    assert fine.get() == 0
    with pytest.raises(MaskError, match="one: is no mask"):
        ours.get()
    assert isinstance(other.error, RuntimeError)
    assert str(other.error) == "UnreadableError: 1 and 2"
    assert capfd.readouterr().out == ""


def test_what_cannot_be_had_at_a_worker_is_an_error(two: Processes) -> None:
    (one,) = two.map(workers.times, Broken(), [1])
    assert str(one.error) == "cannot be read"
    (one,) = two.map(workers.times, 1, [Broken()])
    assert str(one.error) == "cannot be read"


class Broken:
    def __reduce__(self) -> tuple[object, ...]:
        return workers.fail_to_read, ()


def test_workers_share_the_cores_and_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    cores = min(5, len(os.sched_getaffinity(0)))
    with open_pool(2) as pool:
        assert pool.workers == 2
        first = [one.get() for one in pool.map(workers.where, None, range(20))]
        second = [one.get() for one in pool.map(workers.where, None, range(20))]
    processes = {process for process, _, _ in first + second}
    assert 1 <= len(processes) <= 2
    assert os.getpid() not in processes
    assert {(threads, torch) for _, threads, torch in first} == {(str(max(1, cores // 2)), False)}
    assert os.environ["OMP_NUM_THREADS"] == "5"
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_one_job_is_this_process() -> None:
    with open_pool(1) as pool:
        assert pool.workers == 1
        (one,) = pool.map(workers.where, None, [0])
    assert one.get()[0] == os.getpid()


def test_as_many_jobs_as_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with open_pool(None) as pool:
        assert pool.workers == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    with open_pool(None) as pool:
        assert pool.workers == len(os.sched_getaffinity(0))


def test_a_worker_that_dies_costs_its_piece_only(two: Processes, tmp_path: Path) -> None:
    assert [one.get() for one in two.map(workers.dies_once, tmp_path, range(5))] == list(range(5))


@pytest.mark.parametrize(
    ("how", "why"),
    [("exit", "with exit status 7"), ("kill", "killed by SIGKILL, as a system short of memory does")],
)
def test_a_piece_that_kills_every_worker_is_given_up(two: Processes, how: str, why: str) -> None:
    outcomes = list(two.map(workers.deadly, how, range(7)))
    assert [one.value for one in outcomes] == [0, 1, 2, None, 4, 5, 6]
    assert isinstance(outcomes[3].error, WorkerLostError)
    assert str(outcomes[3].error) == (
        f"the process at work on it died 3 times, {why}; a smaller jobs= leaves each process more memory"
    )


# --- this process works too


@pytest.mark.parametrize("jobs", [2, 3])
def test_this_process_is_one_of_those_that_work(jobs: int, tmp_path: Path) -> None:
    drawn, found, pool, mark = [], [], Processes(jobs), tmp_path / "mark"

    def items() -> Iterator[int]:
        for number in range(300):
            drawn.append(number)
            yield number

    def here(_: int) -> Outcome[int]:
        mark.touch()
        return Outcome(os.getpid())

    for outcome in pool.map(workers.after, mark, items(), here):
        found.append(outcome.get())
        assert len(drawn) <= len(found) + SHORT_AHEAD * pool.workers
    assert len(found) == 300
    assert set(found) == {os.getpid(), *(worker.process.pid for worker in pool._running)}
    assert len(pool._running) == jobs - 1
    assert all(one.get() != os.getpid() for one in pool.map(workers.after, mark, range(20)))
    assert len(pool._running) == jobs  # where it only waits, others do all the work
    pool.close()


def test_what_is_not_for_this_process_ends_its_part(tmp_path: Path) -> None:
    pool, asked, mark = Processes(2), [], tmp_path / "mark"

    def here(number: int) -> Outcome[int] | None:
        asked.append(number)
        if len(asked) < 3:
            return Outcome(os.getpid())
        mark.touch()
        return None

    found = [one.get() for one in pool.map(workers.after, mark, range(20), here)]
    assert len(asked) == 3
    assert [number for number, process in enumerate(found) if process == os.getpid()] == asked[:2]
    assert len(pool._running) == 2
    pool.close()


def test_what_killed_a_worker_is_not_tried_here(tmp_path: Path) -> None:
    pool = Processes(2)

    def here(number: int) -> Outcome[int]:
        assert number != 0
        return Outcome(number)

    outcomes = list(pool.map(workers.deadly_first, None, range(100), here))
    assert [one.value for one in outcomes] == [None, *range(1, 100)]
    assert isinstance(outcomes[0].error, WorkerLostError)
    assert [one.get() for one in pool.map(workers.times, 2, range(9), lambda n: Outcome(2 * n))] == [*range(0, 18, 2)]
    pool.close()


def test_a_fault_of_this_process_ends_the_workers() -> None:
    pool = Processes(2)

    def here(_: int) -> Outcome[int]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(pool.map(workers.times, 2, range(100), here))
    assert not pool._running


@pytest.mark.parametrize("most", [1, 2])
def test_a_system_that_starts_no_more_processes(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that there are do the work."""
    start, started = processes._start, []

    def limited(*args: int, **how: bool) -> object:
        if len(started) == most:
            raise OSError(24, "Too many open files")
        started.append(start(*args, **how))
        return started[-1]

    monkeypatch.setattr(processes, "_start", limited)
    pool = Processes(50)
    assert [one.get() for one in pool.map(workers.times, 2, range(30))] == [2 * n for n in range(30)]
    assert pool.workers == most
    pool.close()
    with pytest.raises(WorkerLostError, match="no process can be started: Too many open files; jobs=1 works in"):
        list(pool.map(workers.times, 2, [1]))


def test_no_more_begin_than_there_is_work_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short pieces are done before a thousand processes would have begun."""
    monkeypatch.setattr(processes, "BEGINNING", 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    pool = Processes(1000)
    assert [one.get() for one in pool.map(workers.times, 2, range(40))] == [2 * n for n in range(40)]
    assert len(pool._running) <= 20
    pool.close()


def test_a_fault_in_the_items_ends_the_workers() -> None:
    pool = Processes(2)

    def items() -> Iterator[int]:
        yield 1
        raise MaskError("no more")

    with pytest.raises(MaskError, match="no more"):
        list(pool.map(workers.times, 2, items()))
    assert [one.get() for one in pool.map(workers.times, 2, [4])] == [8]
    pool.close()


PARENT = """
import sys
from pathlib import Path
import workers
from pai_cli.compute.pool import open_pool
if __name__ == "__main__":
    with open_pool(2) as pool:
        list(pool.map(workers.sleeps, Path(sys.argv[1]), range(4)))
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_its_parent(tmp_path: Path, how: signal.Signals) -> None:
    (tmp_path / "parent.py").write_text(PARENT)
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    folder = tmp_path / "workers"
    folder.mkdir()
    parent = subprocess.Popen(
        [sys.executable, tmp_path / "parent.py", folder], env={**os.environ, "PYTHONPATH": path},
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        workers.wait_until(lambda: len(list(folder.iterdir())) == 2)
        os.killpg(parent.pid, how) if how is signal.SIGINT else parent.kill()
        _, said = parent.communicate(timeout=workers.PATIENCE)
    finally:
        parent.kill()
    assert said.count("Traceback") == (1 if how is signal.SIGINT else 0)  # of the script above, none of a worker
    workers.wait_until(lambda: not any(Path(f"/proc/{one.name}").exists() for one in folder.iterdir()))
