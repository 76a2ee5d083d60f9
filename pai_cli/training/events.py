"""A training's numbers as TensorBoard's events, where a folder for them is asked for. Needs no torch."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pai_cli.errors import MissingPackageError, OutputError, install
from pai_cli.files.ordering import spelled
from pai_cli.printable import reason_of
from pai_cli.spelling import option
from pai_cli.telling import warn

if TYPE_CHECKING:
    from pai_cli.files.tables import Record

DONE = "test_accuracy"
"""What the last row of a training has, and no other."""


def check_log_dir(path: Path | None, *, force: bool) -> None:
    """Refuse, before any work, a folder for TensorBoard that could not be written, or has events of another run.

    Raises `MissingPackageError` without the package, `OutputError`.
    """
    if path is None:
        return
    if find_spec("tensorboard") is None:
        raise MissingPackageError(f"{option('log_dir')}: needs tensorboard; {install('tensorboard')}")
    if spelled(str(path)) != str(path):
        raise OutputError(
            f"{option('log_dir', path)}: tensorboard takes no name that is not UTF-8; name another folder"
        )
    if path.exists() and not path.is_dir():
        raise OutputError(f"{option('log_dir', path)}: is a file; name a folder")
    if not force and path.is_dir() and any(path.glob("events.out.tfevents.*")):
        raise OutputError(
            f"{option('log_dir', path)}: has events of a training already; name another folder, or give "
            f"{option('force')}"
        )


@contextmanager
def events(folder: Path | None, rows: Iterable[Record]) -> Iterator[Callable[[Record], None]]:
    """What adds a row's numbers to the events in a folder, those of `rows` first; what adds nothing, without a folder.

    Events of a run before it are no longer shown. A folder that cannot be written any more, as on a full disk, is told, and
    nothing more is added: the training goes on. Raises `OutputError` where the first event cannot be written.
    """
    if folder is None:
        yield lambda _: None
        return
    try:
        file = _Events(folder)
    except OSError as e:
        raise OutputError(_refusal(folder, e)) from e
    with closing(file):
        for row in rows:
            file.add(row)
        yield file.add


def _refusal(folder: Path, e: OSError) -> str:
    return f"{option('log_dir', folder)}: cannot be written: {reason_of(e)}"


class _Events:
    """One file of events. Each is written at once, in this thread: what fails is told."""

    def __init__(self, folder: Path):
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"
        self._folder, self._step, self._stream = folder, 0, (folder / name).open("ab")
        try:
            self._write(Event(file_version="brain.Event:2"))
            self._write(Event(session_log=SessionLog(status=SessionLog.START)))  # what came before is not to be shown
        except OSError:
            self.close()
            raise

    def add(self, row: Record) -> None:
        """Write the row's numbers."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        if self._stream.closed:
            return
        ended = DONE in row  # the last row has no step, and repeats the best epoch's numbers
        step = row.get("step")
        self._step = step if isinstance(step, int) and step else self._step
        values = [
            Summary.Value(tag=key, simple_value=value)
            for key, value in row.items()
            if isinstance(value, (int, float)) and not isinstance(value, bool)
            if (key.startswith("test_") if ended else key not in ("step", "seconds"))
        ]
        try:
            self._write(Event(step=self._step, summary=Summary(value=values)))
        except OSError as e:
            warn(f"{_refusal(self._folder, e)}; no events from step {self._step} on")
            self.close()

    def close(self) -> None:
        """Close the file."""
        with suppress(OSError):  # of what could not be written, which was told
            self._stream.close()

    def _write(self, event: Any) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        event.wall_time = time.time()
        RecordWriter(self._stream).write(event.SerializeToString())
        self._stream.flush()
