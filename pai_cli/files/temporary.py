"""A file that is being written: without a name until it is whole, where the system has such files.

Elsewhere, and for the moment in which a file takes another's place, it has a name of its own beside its target,
`.pai-...@HOST.tmp`. Its writer holds a lock on it (flock), which ends with the process however that ends: so whoever writes
into the folder next knows those that nobody writes any more, and removes them. Those of other machines are left alone, for a
shared folder need not tell of their locks.
"""

from __future__ import annotations

import errno
import io
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pai_cli.files.locks import lock_now, open_files_can_go

PREFIX = ".pai-"
HOST = os.uname().nodename if hasattr(os, "uname") else ""
SUFFIX = f"@{re.sub('[^A-Za-z0-9.-]', '-', HOST)}.tmp"

NO_SUCH_FILES = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT, errno.ENOSYS)
"""What opening an unnamed file, or naming it, fails with on a system or file system that has none."""


class Raw(io.FileIO):
    """A file that remembers what went wrong when it was written to: libraries make errors of their own of that."""

    failed: BaseException | None = None

    def write(self, data: Any) -> int:
        """Write, and remember."""
        try:
            return super().write(data)
        except BaseException as error:
            self.failed = error
            raise


class Unfinished:
    """A file of a folder that is being written; `stream` is where to, `take` gives it its name."""

    def __init__(self, folder: Path, raw: Raw, name: str | None):
        self._folder, self._name = folder, name
        self.raw = raw
        self.stream = io.BufferedWriter(raw)

    def take(self, path: Path, *, replace: bool) -> None:
        """Be the file at `path`, of the same folder. Raises `FileExistsError` where one is there, unless `replace`."""
        if self._name is None:
            try:
                return self._link(path.name)
            except FileExistsError:
                if not replace:
                    raise
                name = free_name()
                self._link(name)
                self._name = name
        temporary = self._folder / self._name
        if replace:
            temporary.replace(path)
        else:
            _link(temporary, path)
        self._name = None
        return None

    def _link(self, name: str) -> None:
        folder = os.open(self._folder, os.O_RDONLY)
        try:  # with a folder to start from, Python asks for the file that the link in /proc leads to, not for the link
            os.link(f"/proc/self/fd/{self.raw.fileno()}", name, dst_dir_fd=folder, follow_symlinks=True)
        finally:
            os.close(folder)

    def discard(self) -> None:
        """Remove what is left of it."""
        if self._name is not None:
            (self._folder / self._name).unlink(missing_ok=True)
        with suppress(OSError):  # what is buffered has nowhere to go
            self.stream.close()


def _link(temporary: Path, path: Path) -> None:
    """Give the file its name unless another process took that name meanwhile."""
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        temporary.replace(path)
        return
    temporary.unlink()


@contextmanager
def unfinished(folder: Path) -> Iterator[Unfinished]:
    """A file to be written; gone with the block, unless it has taken its name. Raises `OSError`."""
    _sweep(folder)
    one = _unnamed(folder) or _named(folder)
    try:
        yield one
    finally:  # Ctrl-C too must leave nothing behind
        one.discard()


def _unnamed(folder: Path) -> Unfinished | None:
    if not hasattr(os, "O_TMPFILE") or not Path("/proc/self/fd").exists():
        return None
    try:
        descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o666)
    except OSError as error:
        if error.errno in NO_SUCH_FILES:
            return None
        raise
    lock_now(descriptor)
    return Unfinished(folder, Raw(descriptor, "w+b"), None)


def _named(folder: Path) -> Unfinished:
    while True:
        path = folder / free_name()
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_BINARY", 0), 0o666)
        lock_now(descriptor)
        if path.exists():
            return Unfinished(folder, Raw(descriptor, "w+b"), path.name)
        os.close(descriptor)  # swept between its making and its lock


def free_name() -> str:
    """A name that no file has, for one that is being written."""
    return f"{PREFIX}{secrets.token_hex(8)}{SUFFIX}"


_swept: set[Path] = set()


def _sweep(folder: Path) -> None:
    """Remove what processes that are gone have left in the folder; once a process, for a folder may have many files."""
    if not open_files_can_go() or folder.absolute() in _swept:
        return
    _swept.add(folder.absolute())
    for path in folder.glob(f"{PREFIX}*{SUFFIX}"):
        with suppress(OSError):  # not ours to open, or gone meanwhile
            descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW)
            try:
                if lock_now(descriptor):
                    path.unlink()
            finally:
                os.close(descriptor)
