"""Processes that begin as copies of one in which everything is loaded: a start of Python with torch takes over a second.

For what a process does when it runs, is signalled, or ends. How one starts is tested where one is started.
"""

from __future__ import annotations

import atexit
import gc
import json
import multiprocessing.util
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import IO, NamedTuple, NoReturn

ROOT = Path(__file__).parents[1]
PATIENCE = 300.0  # seconds: only what hangs takes so long, on any machine

STOPPED = {  # what a command ends with when it is stopped, and says last
    signal.SIGINT: (-signal.SIGINT, "pai: interrupted"),
    signal.SIGTERM: (143, "pai: interrupted by SIGTERM"),
}
if hasattr(signal, "SIGHUP"):  # which Windows has not
    STOPPED[signal.SIGHUP] = (129, "pai: interrupted by SIGHUP")


class Ended(NamedTuple):
    """How a process ended, its status as `Popen` has it, and what it said."""

    status: int
    out: str
    err: str


class Copy:
    """A running copy: its process, and what it says where that goes into pipes."""

    def __init__(self, told: socket.socket, out: IO[str] | None, err: IO[str] | None):
        self._told = told.makefile()
        self.out, self.err = out, err
        self.pid = int(self._told.readline())

    def signal(self, one: signal.Signals, *, group: bool = False) -> None:
        """Send it a signal; to its whole group, as a terminal does."""
        (os.killpg if group else os.kill)(self.pid, one)

    def __enter__(self) -> Copy:
        return self

    def __exit__(self, *_: object) -> None:
        """A test that fails leaves no process."""
        if not self._told.closed:
            self.kill()

    def kill(self) -> None:
        """End it, if it has not ended yet."""
        with suppress(ProcessLookupError):
            self.signal(signal.SIGKILL)
        self.finish()

    def finish(self) -> Ended:
        """Wait for its end, and for that of all who write where it does."""
        said = ["", ""]

        def read(which: int, stream: IO[str] | None) -> None:
            if stream is not None:
                with stream:
                    said[which] = stream.read()

        watch = threading.Timer(PATIENCE, os.kill, (self.pid, signal.SIGKILL))
        watch.start()
        reader = threading.Thread(target=read, args=(1, self.err))
        reader.start()
        read(0, self.out)
        reader.join()
        with self._told as told:
            status = int(told.readline())
        watch.cancel()
        return Ended(status, said[0], said[1])


def begin(
    arguments: Iterable[object],
    *,
    of: tuple[str, ...] = ("pai_cli.*",),
    module: str = "pai_cli",
    cwd: Path | None = None,
    into: tuple[int | None, int | None] = (None, None),
    reads: int | None = None,
    **environment: str,
) -> Copy:
    """`python -m module` with these arguments, in a session of its own; the processes of its pools are copies, too.

    `module`: may be one of the folder `cwd`. `of`: modules that are loaded by then, by default all of pai's. `into`:
    descriptors for standard output and error, pipes by default. `reads`: of standard input, which is else empty.
    """
    ours, theirs = socket.socketpair()
    empty = os.open(os.devnull, os.O_RDONLY)
    pipes = [None if one is not None else os.pipe() for one in into]
    ends = [one if pipe is None else pipe[1] for one, pipe in zip(into, pipes, strict=True)]
    request = {
        "of": of,
        "module": module,
        "arguments": [str(one) for one in arguments],
        "cwd": str(cwd or Path.cwd()),
        "environment": {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
    }
    standard = [empty if reads is None else reads, *(int(end or 0) for end in ends)]
    socket.send_fds(_origin(of[0]), [b"x"], [*standard, theirs.fileno()])
    os.close(empty)
    for pipe in pipes:
        if pipe is not None:
            os.close(pipe[1])
    theirs.close()
    out, err = (None if pipe is None else os.fdopen(pipe[0], encoding="utf-8") for pipe in pipes)
    with ours:
        ours.sendall(json.dumps(request).encode() + b"\n")
        return Copy(ours, out, err)


def run(arguments: Iterable[object], **how: object) -> Ended:
    """Begin a copy and wait for its end."""
    return begin(arguments, **how).finish()  # type: ignore[arg-type]


@cache
def _origin(_: str) -> socket.socket:
    """The process that is copied, one for each of what is loaded first: it ends when this one does, and nobody can ask.

    Dask does with signals as it likes, once it is loaded, so that pai's processes are not copied from its.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
        started = subprocess.Popen(
            [sys.executable, "-W", "error", __file__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env={**environment, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
    atexit.register(started.wait)
    atexit.register(ours.close)
    return ours


def _load(names: Iterable[str]) -> None:
    """Import modules; `a.*` is all of a package but what it does as a program."""
    for name in names:
        package = import_module(name.removesuffix(".*"))
        if name.endswith(".*"):
            inside = (one.name for one in walk_packages(package.__path__, f"{package.__name__}."))
            _load(one for one in inside if not one.endswith(".__main__"))


def _started_by_copying(_: object, words: list[bytes | str], kept: Sequence[int]) -> int:
    """In the place of a start of Python by `spawn`, with the same words and no other files open."""
    # What Python does before and after a fork is not there where another program begins: a signal would be told of there.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPED)
    process = os.fork()
    if process:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return process
    try:
        for one in [int(path.name) for path in Path("/dev/fd").iterdir()]:
            if one > 2 and one not in kept:
                with suppress(OSError):  # that of the folder itself
                    os.close(one)
        _forget_buffers()
        for number in STOPPED.keys() - {signal.SIGINT}:
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.SIG_DFL)  # as where another program begins
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        code = os.fsdecode(words[words.index("-c") + 1])
        sys.argv = ["-c", "--multiprocessing-fork"]
        _end(_run(lambda: exec(code, {"__name__": "__main__"})))
    finally:
        os._exit(1)


def _forget_buffers() -> None:
    """Drop what the process that this one is a copy of has said and not written yet: that is its own to write."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        there = os.dup(number)
        os.dup2(nowhere, number)
        stream.flush()
        os.dup2(there, number)
        os.close(there)
    os.close(nowhere)


def _copied(requests: socket.socket) -> None:
    """Wait for requests; comes back in each copy, which is by then what it is asked to be."""
    loaded: set[str] = set()
    while True:
        asked, descriptors, *_ = socket.recv_fds(requests, 1, 4)
        with suppress(ChildProcessError):  # of those that have ended
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not asked:
            os._exit(0)
        told = socket.socket(fileno=descriptors.pop())
        with told.makefile() as stream:
            request = json.loads(stream.readline())
        if not loaded.issuperset(request["of"]):
            _load(request["of"])
            loaded.update(request["of"])
            gc.freeze()  # or a look for what is no longer used would write into all that a copy shares with this one
        if os.fork() == 0:
            break
        told.close()
        for one in descriptors:
            os.close(one)
    requests.close()
    process = os.fork()
    if process:  # this one waits for the copy's end, and tells it
        for one in descriptors:
            os.close(one)
        told.sendall(f"{process}\n".encode())
        threading.Thread(target=_end_with, args=(told, process), daemon=True).start()
        _, status = os.waitpid(process, 0)
        with suppress(OSError):
            told.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
        os._exit(0)
    told.close()
    os.setsid()
    for number, one in enumerate(descriptors):
        os.dup2(one, number)
        os.close(one)
    encoding = request["environment"].get("PYTHONIOENCODING", "utf-8")
    sys.stdin = os.fdopen(0, encoding=encoding)
    sys.stdout, sys.stderr = os.fdopen(1, "w", encoding=encoding), os.fdopen(2, "w", 1, encoding=encoding)
    _become(request["cwd"], request["environment"], [request["module"], *request["arguments"]])


def _end_with(told: socket.socket, process: int) -> None:
    """End a copy that nobody waits for any more, as the tests have been ended."""
    told.recv(1)
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


def _become(folder: str, environment: Mapping[str, str], words: list[str]) -> None:
    os.chdir(folder)
    path = environment.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [folder, *(one for one in path if one not in sys.path)]
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = words
    tempfile.tempdir = None  # looked for anew, in this environment
    if "PYTHONWARNINGS" in environment:
        warnings.simplefilter(environment["PYTHONWARNINGS"])  # type: ignore[arg-type]
    sys.modules.pop(words[0], None)  # where it was loaded; it is run now
    if "dask" in sys.modules:
        import_module("dask.config").refresh()  # from the environment


def _run(work: Callable[[], object]) -> object:
    """What a process ends with: a status, words, or an interruption."""
    try:
        work()
    except SystemExit as leaving:
        return leaving.code
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        return error if isinstance(error, KeyboardInterrupt) else 1
    return 0


def _end(status: object) -> NoReturn:
    """As Python ends; but without taking all that is loaded apart, which takes as long as to load it."""
    if isinstance(status, str):
        print(status, file=sys.stderr)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None and not stream.closed:
                stream.flush()
    except OSError as error:
        os.write(2, f"Exception ignored at exit: {error}\n".encode())
        os._exit(120)
    if isinstance(status, KeyboardInterrupt):
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.raise_signal(signal.SIGINT)
    os._exit(status if isinstance(status, int) else 0 if status is None else 1)


if __name__ == "__main__":
    multiprocessing.util.spawnv_passfds = _started_by_copying  # type: ignore[assignment]
    _copied(socket.socket(fileno=int(sys.argv[1])))
    _end(_run(lambda: runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)))
