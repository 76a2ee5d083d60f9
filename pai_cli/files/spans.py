"""Tensors' own bytes, read from where they stand in files without being made arrays."""

from __future__ import annotations

from contextlib import AbstractContextManager
from io import FileIO
from pathlib import Path

from pai_cli.errors import PaiError
from pai_cli.files.tensors import Span, stamp_of
from pai_cli.printable import reason_of


class SpanReader(AbstractContextManager["SpanReader"]):
    """Reads spans, those of one file after the other; the last file stays open until the next, or the block's end."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._file: FileIO | None = None

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
        self._path, self._file = None, None

    def fill(self, span: Span, begin: int, view: memoryview, error: type[PaiError]) -> None:
        """Fill a view with the span's bytes from byte `begin` of it on.

        Raises `error` when the file cannot be read, or is not the one whose header was.
        """
        try:
            file = self._opened(span.path)
            whole = stamp_of(file) == span.stamp and _filled(file, span.begin + begin, view)
        except OSError as e:
            raise error(f"{span.path}: cannot be read: {reason_of(e)}") from e
        if not whole:
            raise error(f"{span.path}: changed while it was read; wait until it is written, and try again")

    def _opened(self, path: Path) -> FileIO:
        if self._file is None or self._path != path:
            self.__exit__()
            self._file, self._path = FileIO(path), path
        return self._file


def _filled(file: FileIO, begin: int, view: memoryview) -> bool:
    """Whether the file has bytes for all of a view, which they fill."""
    file.seek(begin)
    done = 0
    while done < len(view):
        got = file.readinto(view[done:])
        if not got:
            return False
        done += got
    return True
