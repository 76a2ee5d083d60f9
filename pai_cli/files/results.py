"""The table of accuracies that trainings add to and `pai rank` reads: CSV, a row a training."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from pai_cli.errors import OutputError
from pai_cli.files.atomic import is_special, write_bytes
from pai_cli.files.first_bytes import no_text, open_text
from pai_cli.files.locks import open_files_can_go, wait_for_lock
from pai_cli.files.tables import as_cell
from pai_cli.printable import reason_of
from pai_cli.spelling import option

FIELDS = (
    *("mask", "accuracy", "seed", "dataset", "recipe", "density", "epochs", "best_epoch", "validation_accuracy"),
    *("accuracy_low", "accuracy_high", "checkpoint", "trained"),
)
"""`mask`, `accuracy`, `seed` and `dataset` are what `pai rank` looks at."""

KEY = ("mask", "seed", "dataset")
"""What tells one training from another: of a table with two accuracies of the same, none could be believed."""

Row = dict[str, str]


def check_results(path: Path, row: Row, *, own: bool, force: bool) -> None:
    """Refuse, before any work, a table that `row` could not be added to; `row` has the values of `KEY` and `trained`.

    Raises `OutputError` for a file that is another table, or has that training already and `force` is false. `own`: a row
    with the same `trained` is this training's, which is being continued.
    """
    if is_special(path):
        raise OutputError(f"{path}: is a device or a pipe, and {option('results')} adds to a table; name a file")
    row = _as_cells(row)
    others = [old for old in _read(path) if _same(row, old) and not (own and old["trained"] == row["trained"])]
    if others and not force:
        told = ", ".join(f"{key} {row[key]}" for key in KEY)
        raise OutputError(
            f"{path}: has a row of {told} already; give {option('results')} another file, or {option('force')} to "
            "replace it"
        )


def add_result(path: Path, row: Row) -> None:
    """Add a row of `FIELDS`, or put it in the place of the same training's; the table is replaced, whole or not at all.

    Several processes may do so at once: a lock beside the table makes them take turns. Raises `OutputError`.
    """
    with _locked(path):
        own = _as_cells(row)
        text = _table([*(old for old in _read(path) if not _same(own, old)), own]).encode()
        write_bytes(path, text, force=True)


def _same(one: Row, other: Row) -> bool:
    return all(one[key] == other[key] for key in KEY)


def _read(path: Path) -> list[Row]:
    try:
        with open_text(path, OutputError) as stream:
            text = stream.read()
    except FileNotFoundError:
        return []
    except UnicodeDecodeError as e:
        raise OutputError(f"{path}: {no_text(path)}; give {option('results')} another file") from e
    except OSError as e:
        raise OutputError(f"{path}: cannot be read: {reason_of(e)}") from e
    reader = csv.DictReader(io.StringIO(text))
    try:
        if text and tuple(reader.fieldnames or ()) != FIELDS:
            raise OutputError(
                f"{path}: is not a table of pai train (its first line differs); give {option('results')} another file"
            )
        rows = list(reader)
    except csv.Error as e:  # a field of more than 128 KiB
        raise OutputError(
            f"{path}: line {reader.line_num + 1}: {reason_of(e)}; mend it, or give {option('results')} another file"
        ) from e
    if any(None in row or None in row.values() for row in rows):
        raise OutputError(
            f"{path}: has a row of another length than its first line; mend it, or give {option('results')} another "
            "file"
        )
    return [_as_cells(row) for row in rows]


def _as_cells(row: Row) -> Row:
    return {field: as_cell(text) for field, text in row.items()}


def _table(rows: Sequence[Row]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def lock_beside(path: Path) -> Path:
    """The lock of a table; it never has anything in it."""
    return path.with_name(f".{path.name}.lock")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of a table: a file beside it, gone when nobody holds it."""
    lock = lock_beside(path)
    try:
        stream = _lock_file(lock)
    except OSError as e:
        raise OutputError(f"{lock}: cannot be locked: {reason_of(e)}") from e
    with stream:
        try:
            yield
        finally:
            if open_files_can_go():
                lock.unlink(missing_ok=True)
    if not open_files_can_go():
        with suppress(OSError):  # another process may have it open
            lock.unlink(missing_ok=True)


def _lock_file(lock: Path) -> TextIO:
    """The file, opened and locked. One that its holder removed while this waited locks nothing: then another is tried."""
    while True:
        stream = lock.open("a", encoding="utf-8")
        wait_for_lock(stream.fileno())
        with suppress(FileNotFoundError):
            if os.fstat(stream.fileno()).st_ino == lock.stat().st_ino:
                return stream
        stream.close()
