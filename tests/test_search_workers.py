"""Searches by several processes: the same result whoever makes the candidates, and whenever it is stopped."""

from __future__ import annotations

import pickle
import shutil
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Pai, run_pai
from copies import STOPPED, begin
from workers import wait_until

from pai_cli.compute.pieces import Outcome
from pai_cli.compute.processes import Processes
from pai_cli.errors import NotPortableError, WorkerLostError
from pai_cli.files.checkpoints import open_checkpoint
from pai_cli.methods.registry import get
from pai_cli.models.network import Network, init_network, load_network
from pai_cli.pruning.run import PruneRequest
from pai_cli.sampling import workers as working
from pai_cli.sampling.candidates import Candidate, Workshop, candidate
from pai_cli.sampling.expanders import network as building
from pai_cli.sampling.search import SearchRequest
from pai_cli.sampling.workers import Workers, made

STATE = "best.state.safetensors"


def words(method: str, population: int, *flags: object) -> list[str]:
    return [
        "sample", "small.safetensors", "--method", method, "--density", "0.4", "-o", "best.safetensors",
        "--population", str(population), *map(str, flags),
    ]  # fmt: skip


def result(folder: Path) -> tuple[str, dict[str, bytes], dict[str, bytes]]:
    """What a search ends with: the trajectory, the mask's tensors, the state's."""
    from safetensors.numpy import load_file

    mask, state = (
        {name: array.tobytes() for name, array in load_file(folder / file).items()}
        for file in ("best.safetensors", STATE)
    )
    return (folder / "best.jsonl").read_text(), mask, state


@pytest.fixture
def folder(tmp_path: Path, small: Path) -> Path:
    shutil.copy(small, tmp_path / "small.safetensors")
    return tmp_path


def candidates(folder: Path) -> int:
    trajectory = folder / "best.jsonl"
    return max(0, len(trajectory.read_text().splitlines()) - 1) if trajectory.exists() else 0


def stopped(folder: Path, how: signal.Signals, *arguments: str) -> int:
    """Begin a command, and signal it, or as a terminal does its group, after three candidates; its status.

    When it is told, all its processes have ended: they have the standard error that is read to its end.
    """
    with begin(arguments, cwd=folder) as process:
        wait_until(lambda: candidates(folder) >= 3)
        process.signal(how, group=how is not signal.SIGKILL)
        ended = process.finish()
    assert "Traceback" not in ended.err
    return ended.status


def assert_it_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch, *flags: str) -> None:
    """By one process, to the same as without a stop."""
    monkeypatch.chdir(folder)
    assert not (folder / "best.safetensors").exists()
    last = words("magnitude", candidates(folder) + 3, *flags, "--jobs", 1)
    assert run_pai(*last, "--resume").status == 0
    broken = result(folder)
    assert run_pai(*last, "--force").status == 0
    assert result(folder) == broken


@pytest.mark.parametrize(("select", "how"), [("mask", signal.SIGKILL), ("layer", signal.SIGTERM)])
def test_stopped_with_two_processes_it_ends_the_same(
    folder: Path, select: str, how: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (
        stopped(folder, how, *words("magnitude", 10**6, "--select", select, "--jobs", 2))
        == STOPPED.get(how, (-how,))[0]
    )
    assert_it_goes_on(folder, monkeypatch, "--select", select)


def test_killed_alone_it_ends_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert stopped(folder, signal.SIGKILL, *words("magnitude", 10**6, "--jobs", "1")) == -signal.SIGKILL
    assert_it_goes_on(folder, monkeypatch)


def test_a_search_left_to_itself_takes_processes_when_much_is_left(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert run_pai(*words("erk", 12, "--jobs", 1)).status == 0
    alone = result(folder)
    counts: list[int] = []
    original = working.open_pool
    monkeypatch.setattr(working, "open_pool", lambda jobs, cluster: counts.append(jobs) or original(1, cluster))
    monkeypatch.setattr(working, "all_cores", lambda: 2)
    assert run_pai(*words("erk", 12, "--force")).status == 0
    assert (counts, result(folder)) == ([1], alone)  # nothing was left to do
    monkeypatch.setattr(working, "WORTH_PROCESSES", 0.0)
    counts.clear()
    assert run_pai(*words("erk", 12, "--force")).status == 0
    assert (counts, result(folder)) == ([2], alone)


class Losing:
    """A pool whose workers all die of item number 2."""

    workers, shares_files = 2, True

    def map(self, function, common, items):  # type: ignore[no-untyped-def]
        for number, item in enumerate(items):
            yield Outcome(None, WorkerLostError("it died")) if number == 2 else Outcome(function(common, item))


@pytest.mark.parametrize(
    ("asked", "lost"),
    [
        (["--method", "erk", "--population", 5, "--jobs", 2], "candidate 2"),
        (["--construct", "biregular", "--jobs", 2], "fc3.weight"),
    ],
)
def test_what_killed_its_workers_is_named(
    pai: Pai, folder: Path, asked: list[object], lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(working, "open_pool", lambda *_: nullcontext(Losing()))
    monkeypatch.setattr(building, "open_pool", lambda *_: nullcontext(Losing()))
    done = pai("sample", "small.safetensors", "--density", 0.4, "-o", "best.safetensors", *asked)
    assert (done.status, done.said[-1]) == (1, f"pai: error: {lost}: it died")
    assert not (folder / "best.safetensors").exists()


# --- networks of the user's own code

OWN = """
import torch
class Own(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2, self.fc3 = (torch.nn.Linear(a, b, bias=False) for a, b in ((24, 16), (16, 12), (12, 10)))
    def forward(self, x):
        return self.fc3(self.fc2(self.fc1(x)))
def make():
    return Own()
"""


def own_network(folder: Path) -> tuple[Network, str]:
    from safetensors.numpy import load_file, save_file

    (folder / "own.py").write_text(OWN)
    weights = {name: array for name, array in load_file(folder / "small.safetensors").items() if "weight" in name}
    save_file(weights, folder / "own.safetensors")
    factory = f"{folder / 'own.py'}:make"
    return load_network(open_checkpoint(folder / "own.safetensors"), factory), factory


def test_a_network_of_a_file_is_made_anew_elsewhere(folder: Path) -> None:
    network, factory = own_network(folder)
    workshop = Workshop(network, SearchRequest.of(PruneRequest(get("magnitude"), 0.4), 3, None), factory=factory)
    sent = pickle.dumps(workshop)
    del sys.modules["_pai_factory_own"]  # as in a process that never heard of it
    there = pickle.loads(sent)
    one, other = candidate(workshop, 2), candidate(there, 2)
    assert isinstance(one, Candidate)
    assert isinstance(other, Candidate)
    assert all(np.array_equal(one.masks[name], other.masks[name]) for name in one.masks)
    assert one.measures == other.measures


def test_a_network_that_cannot_be_sent(folder: Path) -> None:
    network, _ = own_network(folder)
    workshop = Workshop(
        network, SearchRequest.of(PruneRequest(get("magnitude"), 0.4), 3, None)
    )  # a factory that is not told
    sent = pickle.dumps(workshop)
    del sys.modules["_pai_factory_own"]
    text = r"the network cannot be sent to another process \(ModuleNotFoundError: .*_pai_factory_own.*\); give jobs=1"
    with pytest.raises(NotPortableError, match=text):
        pickle.loads(sent)
    text = r"the network cannot be sent to another process \(PicklingError: .*_pai_factory_own.*\); give jobs=1"
    with pytest.raises(NotPortableError, match=text):
        pickle.dumps(workshop)


def test_left_to_itself_a_network_that_cannot_be_sent_stays_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = init_network("mlp-24-16-12-10", 10, 0)
    network.model.hidden = lambda: 0
    request = SearchRequest.of(PruneRequest(get("magnitude"), 0.4), 4, None)
    monkeypatch.setattr(working, "WORTH_PROCESSES", 0.0)
    monkeypatch.setattr(working, "all_cores", lambda: 2)
    assert [one.number for one in made(Workshop(network, request), 0, Workers())] == [0, 1, 2, 3]
    with pytest.raises(NotPortableError):
        list(made(Workshop(network, request), 0, Workers(jobs=2)))


def test_what_comes_back_is_what_was_made_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """From a process that is started afresh; one is enough."""
    monkeypatch.setattr(working, "open_pool", lambda *_: closing(Processes(1)))
    network = init_network("mlp-24-16-12-10", 10, 0)
    workshop = Workshop(network, SearchRequest.of(PruneRequest(get("erk"), 0.4), 5, None))
    here: list[Any] = [candidate(workshop, number) for number in range(5)]
    there: list[Any] = list(made(workshop, 0, Workers(jobs=2)))
    for one, other in zip(here, there, strict=True):
        assert (one.measures, one.kept, one.layers) == (other.measures, other.kept, other.layers)
        assert all(np.array_equal(one.bits[name], other.bits[name]) for name in one.bits)


def test_threads_of_one_worker_do_not_disturb_each_other() -> None:
    """As a worker of a cluster may have them, with one workshop between them."""
    network = init_network("mlp-24-16-12-10", 10, 0)
    request = SearchRequest.of(PruneRequest(get("magnitude"), 0.4), 20, None)
    alone: list[Any] = [candidate(Workshop(network, request), number) for number in range(20)]
    shared = Workshop(network, request)
    with ThreadPoolExecutor(4) as pool:
        together: list[Any] = list(pool.map(lambda number: candidate(shared, number), range(20)))
    for one, other in zip(alone, together, strict=True):
        assert one.measures == other.measures
        assert all(np.array_equal(one.bits[name], other.bits[name]) for name in one.bits)


@pytest.mark.parametrize("jobs", [0, -1])
def test_there_is_at_least_one_job(pai: Pai, here: Path, jobs: int) -> None:
    done = pai(*words("erk", 2, "--jobs", jobs))
    assert done.status == 2
    assert "--jobs" in done.words
