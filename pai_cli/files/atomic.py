"""Writing a file whole or not at all."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from pai_cli.errors import OutputError
from pai_cli.files.temporary import Raw, unfinished
from pai_cli.printable import reason_of
from pai_cli.spelling import option


def check_output(path: Path, *, force: bool) -> None:
    """Refuse an output path that could not be written, before any work is done for it.

    Raises `OutputError` when the folder is missing or may not be written to, when `path` is a folder, or when a regular
    file stands there and `force` is false.
    """
    if path.is_dir():
        raise OutputError(f"{path}: is a directory; give a file name")
    folder = path.parent
    if not folder.is_dir():
        raise OutputError(f"{path}: the folder {folder} does not exist; make it first (mkdir -p {folder})")
    if is_special(path):
        return
    if os.path.lexists(path) and not force:  # a link that leads nowhere is there too
        raise OutputError(f"{path}: exists already; {option('force')} replaces it")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"{path}: no permission to write in {folder}")


def write_atomically(path: Path, write: Callable[[BinaryIO], None], *, force: bool) -> None:
    """Call `write` on an unfinished file of the folder, flush it to disk, give it the name `path`, and flush the folder.

    A reader never sees half a file; when anything fails the old file stays and the new one goes. A device or pipe
    (`/dev/stdout`) cannot be renamed onto and is written to directly. Raises `OutputError`, whatever the library that
    writes makes of the system's error.
    """
    check_output(path, force=force)
    try:
        if is_special(path):
            with _opened(path) as stream:
                _call(write, stream)
            return
        with unfinished(path.parent) as file:
            _call(write, file.stream)
            file.stream.flush()
            os.fsync(file.stream.fileno())
            file.take(path, replace=force)
        flush_folder(path.parent)
    except FileExistsError:
        raise OutputError(f"{path}: exists already; {option('force')} replaces it") from None
    except OSError as e:
        raise OutputError(f"{path}: cannot be written: {_reason(e)}") from e


def write_bytes(path: Path, data: bytes, *, force: bool) -> None:
    """Write these bytes as `write_atomically` does. Raises `OutputError`."""

    def write(stream: BinaryIO) -> None:
        stream.write(data)

    write_atomically(path, write, force=force)


def _call(write: Callable[[BinaryIO], None], stream: io.BufferedWriter[Raw]) -> None:
    """Write; where the file failed, and the library that wrote has made another error of it, raise the file's."""
    try:
        write(stream)
    except Exception as error:
        failed = stream.raw.failed
        if failed is None or failed is error:
            raise
        raise failed from error


class _Onward(Raw):
    """A stream that only goes on: `>>` writes at the end of a file, wherever one has gone back to."""

    def seek(self, *_: int) -> int:
        """Refused."""
        raise io.UnsupportedOperation("seek")

    def tell(self) -> int:
        """Refused, for what knows where it stands goes back."""
        raise io.UnsupportedOperation("tell")

    def seekable(self) -> bool:
        """It is not."""
        return False


def _opened(path: Path) -> io.BufferedWriter[Raw]:
    """A device or a pipe. A stream of this process is taken as it stands: opened anew, a file it was sent to would lose
    what is in it.
    """
    number = path.readlink().name if path.is_symlink() else ""
    return io.BufferedWriter(_Onward(os.dup(int(number)), "wb") if number.isdecimal() else Raw(path, "wb"))


def flush_folder(folder: Path) -> None:
    """See to it that the names of a folder's files are on the disk, though the power fail.

    A file system that cannot do that for a folder is left alone: the files are whole in any case.
    """
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def flush_file(path: Path) -> None:
    """See to it that what was appended to a file is on the disk. Raises `OutputError`."""
    try:
        with path.open("rb+") as stream:
            os.fsync(stream.fileno())
    except OSError as e:
        raise OutputError(f"{path}: cannot be written: {_reason(e)}") from e


def is_special(path: Path) -> bool:
    """Whether `path` is a device, a pipe or one of this process's streams, which cannot be renamed onto."""
    if path.is_symlink() and path.readlink().as_posix().startswith(("/proc/self/fd/", "/dev/fd/")):
        return True  # /dev/stdout, whatever it leads to: the name itself must stay
    return path.exists() and not path.is_file() and not path.is_dir()


def _reason(e: OSError) -> str:
    if e.errno == errno.ENOSPC:
        return f"no space left on the device; free some or choose another folder with {option('output')}"
    return reason_of(e) if e.strerror or str(e) else "not all of it was taken; the disk may be full"
