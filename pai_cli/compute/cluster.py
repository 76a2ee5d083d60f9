"""Pieces of work on a Dask cluster, whose workers share nothing with this machine but the installed packages.

Items travel pickled, several in one task where they are short; tasks are few at a time, so that ten thousand items take
no more of this machine than ten. Dask tries a task again whose worker died, as often as the scheduler's
`allowed-failures` says. Whoever can reach a Dask cluster can run code on it: it is for networks that are trusted.
"""

from __future__ import annotations

import logging
import pickle
import time
import uuid
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from threading import Lock
from typing import Any, TypeVar

from pai_cli import __version__
from pai_cli.compute.pieces import Outcome
from pai_cli.compute.slurm import slurm_workers
from pai_cli.compute.worker import answered, unpickled
from pai_cli.errors import ClusterError, WorkerLostError, install
from pai_cli.printable import reason_of
from pai_cli.spectral.compiled import calls
from pai_cli.spelling import option

Common = TypeVar("Common")
Item = TypeVar("Item")
Result = TypeVar("Result")

Client = Any  # Dask's own classes, which are not typed
Future = Any

SLURM = "slurm"

PATIENCE = 10.0  # seconds to wait for a scheduler's answer, and for its first worker

LONELY = 300.0  # seconds to wait for a worker when all have gone

LOOK = 10.0  # seconds between looks at whether any is left

SETTINGS = {
    # What a dead worker had is asked of it for so long, while everything waits, before it is computed again.
    "distributed.comm.timeouts.connect": "5s",
    # Dask keeps what it sent last for its developers: of messages with masks in them the usual thousand is much memory.
    "distributed.admin.low-level-log-length": 10,
}

AHEAD = 3  # times the workers: how many tasks are under way

SECONDS_OF_TASK = 0.3  # that items are put together for: a task costs scheduler and client a few milliseconds

MOST_ITEMS, MOST_BYTES = 64, 2**22  # of one task


@dataclass(frozen=True)
class _Shared:
    """What all tasks of one `map` have in common: a key, and the function with its first argument, pickled."""

    key: str
    message: bytes


@dataclass
class _Task:
    """Items in order: outcomes already, or what of them travels; and the task on the cluster, if anything does.

    `alone`: its one item is suspected of killing workers, and goes when no other suspect does.
    """

    items: list[Outcome[Any] | bytes]
    alone: bool = False
    future: Future | None = None

    @property
    def messages(self) -> list[bytes]:
        """What travels."""
        return [item for item in self.items if isinstance(item, bytes)]


class DaskPool:
    """A pool of a cluster's workers. See `pieces.Pool`."""

    shares_files = False

    def __init__(self, client: Client, address: str):
        self._client = client
        self._address = address

    @property
    def workers(self) -> int:
        """How many threads the workers that are there now have together."""
        return max(1, self._threads())

    def _threads(self) -> int:
        try:
            threads: dict[str, int] = self._client.nthreads()
        except OSError as error:
            raise ClusterError(self._why(error)) from error
        return sum(threads.values())

    def map(
        self,
        function: Callable[[Common, Item], Result],
        common: Common,
        items: Iterable[Item | Outcome[Result]],
        _here: object = None,
        /,
    ) -> Iterator[Outcome[Result]]:
        """See `pieces.Pool.map`. Raises `ClusterError` when the scheduler goes away."""
        shared = _Shared(uuid.uuid4().hex, pickle.dumps((function, common), pickle.HIGHEST_PROTOCOL))
        # A task, not data put on workers: data is gone with the last worker that has it, and a task is done again.
        at_workers = self._client.submit(_the_same, shared, key=f"pai-common-{shared.key}")
        under_way: deque[_Task] = deque()
        try:
            yield from self._outcomes(at_workers, iter(items), under_way)
        finally:
            if self._client.status == "running":
                self._client.cancel([task.future for task in under_way if task.future is not None])

    def _outcomes(self, shared: Future, items: Iterator[Any], under_way: deque[_Task]) -> Iterator[Outcome[Any]]:
        size, more = 1, True
        while more or under_way:
            window = AHEAD * self.workers
            while more and len(under_way) < window:
                task = _drawn(items, size)
                more = bool(task.items)
                if more:
                    under_way.append(self._begun(task, shared))
            if not under_way:
                return
            task = under_way[0]
            answer = self._awaited(self._begun(task, shared) if task.alone else task)
            under_way.popleft()
            if answer is None and not task.alone:
                # Dask blames a worker's death on all that it had. Which of them it was shows when each goes alone.
                under_way.extendleft(_Task([item], alone=True) for item in reversed(task.items))
                continue
            seconds, answers = answer or (0.0, [pickle.dumps(Outcome(None, _lost()))])
            following = iter(answers)
            for item in task.items:
                yield item if isinstance(item, Outcome) else pickle.loads(next(following))
            if seconds:
                size = max(1, min(MOST_ITEMS, round(SECONDS_OF_TASK * len(answers) / seconds)))

    def _begun(self, task: _Task, shared: Future) -> _Task:
        if task.messages:
            task.future = self._client.submit(_work, shared, about(), task.messages, key=f"pai-{uuid.uuid4().hex}")
        return task

    def _awaited(self, task: _Task) -> tuple[float, list[bytes]] | None:
        """How long the task's items took, and their answers; None when its workers died."""
        if task.future is None:
            return 0.0, []
        try:
            answer = self._answer(task.future)
        except import_module("distributed").KilledWorker:
            return None
        except ClusterError as error:
            raise ClusterError(f"{option('cluster', self._address)}: {error.text}") from error
        except Exception as error:
            raise ClusterError(self._why(error)) from error
        return answer

    def _answer(self, future: Future) -> tuple[float, list[bytes]]:
        """Waits for a task; but not for ever where no worker is left."""
        seen = time.monotonic()
        while not future.done():
            with self._client.as_current(), suppress(TimeoutError):
                import_module("distributed").wait([future], timeout=min(LOOK, LONELY))
            if self._threads():
                seen = time.monotonic()
            elif time.monotonic() - seen > LONELY:
                raise ClusterError(f"all its workers have been gone for {LONELY:.0f} seconds; start some")
        answer: tuple[float, list[bytes]] = future.result()
        return answer

    def _why(self, error: Exception) -> str:
        gone = isinstance(error, OSError) or type(error).__name__.endswith("CancelledError")
        if gone or self._client.status != "running":
            return (
                f"{option('cluster', self._address)}: the scheduler is gone; start it again, and the command: what is "
                "stored stays"
            )
        return (
            f"{option('cluster', self._address)}: a worker cannot do the work ({type(error).__name__}: "
            f"{reason_of(error)})"
        )


def _drawn(items: Iterator[Any], size: int) -> _Task:
    """The next items, as many as make a task of them; none when there are no more."""
    taken: list[Outcome[Any] | bytes] = []
    count = held = 0
    for item in items:
        if isinstance(item, Outcome):
            taken.append(item)
        else:
            message = pickle.dumps(item, pickle.HIGHEST_PROTOCOL)
            taken.append(message)
            count, held = count + 1, held + len(message)
        if count >= size or len(taken) >= MOST_ITEMS or held >= MOST_BYTES:
            break
    return _Task(taken)


def _lost() -> WorkerLostError:
    return WorkerLostError("the cluster's workers at work on it died, one after the other; their own logs say of what")


# --- at the workers


def about() -> str:
    """The package as it is here, in words: what a client and its workers must have alike for equal results."""
    return f"pai {__version__}, engine {'compiled' if calls.available() else 'on NumPy'}"


def _the_same(shared: _Shared) -> _Shared:
    return shared


_known: dict[str, tuple[Callable[[Any, Any], Any], Any]] = {}
_lock = Lock()


def _function(shared: _Shared) -> tuple[Callable[[Any, Any], Any], Any]:
    """The function and what is common, made of bytes once a worker process; the last map's only is kept."""
    with _lock:
        if shared.key not in _known:
            _known.clear()
            _hold_threads()
            _known[shared.key] = unpickled(shared.message)
        return _known[shared.key]


def _hold_threads() -> None:
    """One BLAS thread in this process, for good: a worker has a task for each core, and limits that its threads would set
    and lift around their tasks would undo each other's.
    """
    import numpy as np  # noqa: F401  what is not loaded yet cannot be limited
    import scipy.linalg  # noqa: F401
    from threadpoolctl import threadpool_limits

    threadpool_limits(limits=1, user_api="blas")


def _work(shared: _Shared, client: str, messages: list[bytes]) -> tuple[float, list[bytes]]:
    """The answers to some items, and the seconds that they took."""
    if about() != client:
        raise ClusterError(_differs("a worker", about(), client))
    function, common = _function(shared)
    begin = time.perf_counter()
    answers = [answered(function, common, message) for message in messages]
    return time.perf_counter() - begin, answers


def _differs(worker: str, there: str, here: str) -> str:
    return f"{worker} has {there}, and here it is {here}: install the same at both ends"


# --- reaching a cluster


@contextmanager
def open_cluster(address: str, jobs: int | None) -> Iterator[DaskPool]:
    """The pool of a running scheduler's workers, or of `jobs` jobs that Slurm is asked for and that end with the block.

    Raises `ClusterError` when Dask is not installed, nobody answers, or the workers have no pai or another one.
    """
    try:
        import_module("distributed")
    except ImportError as error:
        raise ClusterError(f"{option('cluster')}: needs Dask; {install('dask')}") from error
    import_module("dask").config.set(SETTINGS)
    with _quiet():
        if address == SLURM:
            with slurm_workers(jobs or 1) as client:
                yield DaskPool(client, address)
            return
        with _connected(address) as client:
            _check_workers(client, address)
            yield DaskPool(client, address)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the many lines that Dask logs where something goes wrong: it is told here, in one."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


@contextmanager
def _connected(address: str) -> Iterator[Client]:
    kind = import_module("distributed").Client
    client = kind.__new__(kind)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # several lines on versions of packages that do not matter here
            client.__init__(address, timeout=PATIENCE, set_as_default=False)
    except Exception as error:  # nobody answers; or what the scheme needs is not there
        client.status = "closed"  # or it would try once more when it is forgotten, and complain
        raise ClusterError(f"{option('cluster', address)}: {_unreached(address, error)}") from error
    try:
        yield client
    finally:
        client.close(timeout=2)


def _unreached(address: str, error: Exception) -> str:
    """Why nobody was reached at this address, and what helps."""
    if isinstance(error, OSError):
        return (
            f"no Dask scheduler answers there within {PATIENCE:g} seconds; start one with `dask scheduler`, which prints "
            "its address"
        )
    scheme = address.partition("://")[0]
    if scheme in ("tls", "wss"):
        return "needs certificates: name them in distributed.comm.tls of Dask's configuration (~/.config/dask)"
    return f"Dask cannot connect by {scheme} here; give the scheduler's tcp:// address"


def _check_workers(client: Client, address: str) -> None:
    try:
        client.wait_for_workers(1, timeout=PATIENCE)
    except TimeoutError as error:
        raise ClusterError(
            f"{option('cluster', address)}: the scheduler has no worker; start some with `dask worker {address}`"
        ) from error
    told: dict[str, Any] = client.run(about, on_error="return")
    for worker, answer in sorted(told.items()):
        if isinstance(answer, Exception):
            raise ClusterError(
                f"{option('cluster', address)}: the worker {worker} has no pai that works ({reason_of(answer)}); "
                f"install pai-cli {__version__} there"
            )
        if answer != about():
            raise ClusterError(f"{option('cluster', address)}: {_differs(f'the worker {worker}', answer, about())}")
