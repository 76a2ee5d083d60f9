"""Pieces of work in processes of this machine, each on its share of the cores.

Every worker has a pipe of its own, so that it is known which piece a worker that dies was at: that one is tried again,
and nothing else is lost. Workers are started afresh (`spawn`), because a copy of a process with torch's threads hangs.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import ModuleType
from typing import Any, TypeVar

from pai_cli.compute.environment import variables_set
from pai_cli.compute.pieces import Outcome
from pai_cli.compute.threads import threads_each
from pai_cli.compute.worker import COMMON, ITEM, serve
from pai_cli.errors import WorkerLostError
from pai_cli.spelling import option

Common = TypeVar("Common")
Item = TypeVar("Item")
Result = TypeVar("Result")

RETRIES = 2  # of a piece whose worker died

MAIN = b"__main__"  # in what is sent: something of it is defined in the program itself, and not in a module

QUEUED = 2  # pieces that a worker has: one to do, and the next, so that it need not wait for this process

PATIENCE = 2.0  # seconds

AHEAD = 4  # times the workers: how many pieces may be drawn before the oldest of them is done

SHORT_QUEUED, SHORT_AHEAD = 4, 32  # the same where this process works too: it gives late, and works while others start

BEGINNING = 8  # workers without an answer yet, at the most: where pieces are short, the first do them meanwhile


@dataclass
class _Piece:
    """An item on its way. `deaths`: how many workers died of it, or over it."""

    number: int
    message: bytes
    deaths: int = 0


@dataclass
class _Worker:
    """A process, this end of its pipe, the pieces it has, the one it is at first, and whether it ever answered."""

    process: SpawnProcess
    connection: Connection
    pieces: deque[_Piece] = field(default_factory=deque)
    answered: bool = False


class Processes:
    """A pool of so many processes, started when there is work for them. See `pieces.Pool`."""

    shares_files = True

    def __init__(self, count: int):
        self.workers = count
        self._running: list[_Worker] = []
        self._here: Callable[[Any], Outcome[Any] | None] | None = None
        self._beginning = max(BEGINNING, os.cpu_count() or 1)

    def map(
        self,
        function: Callable[[Common, Item], Result],
        common: Common,
        items: Iterable[Item | Outcome[Result]],
        here: Callable[[Item], Outcome[Result] | None] | None = None,
        /,
    ) -> Iterator[Outcome[Result]]:
        """See `pieces.Pool.map`; a piece whose worker died three times has a `WorkerLostError`.

        Where the system starts no more processes, those there are do the work. Raises `WorkerLostError` when it starts none.
        """
        shared = pickle.dumps((function, common), pickle.HIGHEST_PROTOCOL)
        finished, self._here = False, here
        try:
            for worker in self._running:
                _send(worker, COMMON, shared)
            yield from self._outcomes(shared, enumerate(items))
            finished = True
        finally:
            if not finished:  # what is under way would answer a question that nobody asks any more
                self.close()

    def _outcomes(self, shared: bytes, items: Iterator[tuple[int, Any]]) -> Iterator[Outcome[Any]]:
        waiting: deque[_Piece] = deque()  # drawn, or lost, and at no worker
        done: dict[int, Outcome[Any]] = {}
        following = drawn = 0
        more = True
        while more or following < drawn:
            self._give(waiting, shared)
            while more and not waiting and drawn < following + self._ahead and (self._here or self._room()):
                number, item = next(items, (-1, None))
                more = number >= 0
                drawn += more
                if isinstance(item, Outcome):
                    done[number] = item
                elif more:
                    waiting.append(_Piece(number, pickle.dumps(item, pickle.HIGHEST_PROTOCOL)))
                    self._give(waiting, shared)
            if following < drawn and following not in done and not self._worked(waiting, done):
                self._gather(waiting, done)
            while following in done:
                yield done.pop(following)
                following += 1

    def _worked(self, waiting: deque[_Piece], done: dict[int, Outcome[Any]]) -> bool:
        """Whether this process has done a piece, or found that the next is not for it, and need not wait yet."""
        if self._here is None or not waiting or waiting[0].deaths or wait(list(self._busy()), 0):
            return False
        outcome = self._here(pickle.loads(waiting[0].message))
        if outcome is None:
            self._here = None
        else:
            done[waiting.popleft().number] = outcome
        return True

    def _busy(self) -> dict[Any, _Worker]:
        """Workers that will answer, by their pipes."""
        return {worker.connection: worker for worker in self._running if worker.pieces}

    @property
    def _queued(self) -> int:
        return QUEUED if self._here is None else SHORT_QUEUED

    @property
    def _ahead(self) -> int:
        return self.workers * (AHEAD if self._here is None else SHORT_AHEAD)

    def _room(self) -> bool:
        return self._may_start() or any(len(worker.pieces) < self._queued for worker in self._running)

    def _may_start(self) -> bool:
        beginning = sum(not worker.answered for worker in self._running)
        return len(self._running) + (self._here is not None) < self.workers and beginning < self._beginning

    def _give(self, waiting: deque[_Piece], shared: bytes) -> None:
        """Hand out what waits: to a worker that is idle, to a new one, or to one that will soon be idle."""
        while waiting and self._room():
            worker = min(self._running, key=lambda worker: len(worker.pieces), default=None)
            if worker is None or (worker.pieces and self._may_start()):
                worker = self._started(shared) or worker
                if worker is None or len(worker.pieces) >= self._queued:
                    continue
            piece = waiting.popleft()
            worker.pieces.append(piece)
            _send(worker, ITEM, piece.message)

    def _started(self, shared: bytes) -> _Worker | None:
        """One worker more; None where the system has none to give, which is then not asked again."""
        try:
            worker = _start(self.workers, len(self._running), whole=MAIN in shared)
        except OSError as error:  # too many open files or processes, or no memory
            if not self._running:
                why = error.strerror or error
                raise WorkerLostError(
                    f"no process can be started: {why}; {option('jobs', '1')} works in this one"
                ) from error
            self.workers = len(self._running) + (self._here is not None)
            return None
        self._running.append(worker)
        _send(worker, COMMON, shared)
        return worker

    def _gather(self, waiting: deque[_Piece], done: dict[int, Outcome[Any]]) -> None:
        """Wait for an answer, or a death; take all that there are."""
        busy = self._busy()
        for connection in wait(list(busy)):
            worker = busy[connection]
            try:
                answer = worker.connection.recv_bytes()
            except (EOFError, OSError):
                self._bury(worker, waiting, done)
            else:
                worker.answered = True
                done[worker.pieces.popleft().number] = pickle.loads(answer)

    def _bury(self, worker: _Worker, waiting: deque[_Piece], done: dict[int, Outcome[Any]]) -> None:
        """Take back what a dead worker had; the piece that it was at is tried again, or given up."""
        self._running.remove(worker)
        worker.process.join(PATIENCE)  # its pipe closes a moment before it has its exit status
        _end(worker)
        at, *queued = worker.pieces
        waiting.extendleft(reversed(queued))
        at.deaths += 1
        if at.deaths <= RETRIES:
            waiting.appendleft(at)
        else:
            done[at.number] = Outcome(None, WorkerLostError(_why(worker.process.exitcode, at.deaths)))

    def close(self) -> None:
        """End all workers at once, whatever they are at."""
        running, self._running = self._running, []
        for worker in running:
            worker.process.kill()
        for worker in running:
            _end(worker)


def _start(count: int, number: int, *, whole: bool) -> _Worker:
    """`whole`: whether the worker needs what the person's own program defines."""
    ours, theirs = get_context("spawn").Pipe()
    process = get_context("spawn").Process(target=serve, args=(theirs,), name=f"pai-worker-{number}", daemon=True)
    try:
        with _inherited(threads_each(count)), nullcontext() if whole else _without_main():
            process.start()
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
    return _Worker(process, ours)


@contextmanager
def _inherited(variables: dict[str, str]) -> Iterator[None]:
    """What a process that is started meanwhile begins with: these variables, and Ctrl-C ignored, which in the middle of
    its imports would make it print where it was.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        with variables_set(variables):
            yield
        return
    resource_tracker.ensure_running()  # or it would be started in between, and lift what is set here
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with variables_set(variables):
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


@contextmanager
def _without_main() -> Iterator[None]:
    """What a process that is started meanwhile does not run again: the program that calls this library, which would begin
    anew in every worker unless all of it stood under `if __name__ == "__main__"`.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _send(worker: _Worker, kind: bytes, message: bytes) -> None:
    with suppress(OSError):  # it has died, which the next look at its pipe shows
        worker.connection.send_bytes(kind + message)  # at once: each message wakes a thread that is busy


def _end(worker: _Worker) -> None:
    worker.process.kill()
    worker.process.join()
    worker.connection.close()


def _why(exitcode: int | None, deaths: int) -> str:
    """What became of a worker, and what may help."""
    if exitcode is not None and exitcode < 0:
        try:
            name = signal.Signals(-exitcode).name
        except ValueError:
            name = f"signal {-exitcode}"
        by = f"killed by {name}" + (", as a system short of memory does" if name == "SIGKILL" else "")
    else:
        by = f"with exit status {exitcode}"
    return (
        f"the process at work on it died {deaths} times, {by}; a smaller {option('jobs')} leaves each process more "
        "memory"
    )
