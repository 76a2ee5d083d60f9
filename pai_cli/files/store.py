"""Work that is finished, kept in one SQLite file so that it is not done twice.

A store is a convenience: rows are found by a digest of all that they follow from, and have one of their own, so that a row
is right or is not found, and a store that is lost costs time alone. Several processes may use one at once. Rows go in a few
at a time, each time in one transaction, through SQLite's rollback journal and not its write-ahead log, which would not do on
the network file systems that home folders stand on.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pai_cli.errors import StoreError
from pai_cli.files.sealed import digest_of_row
from pai_cli.printable import reason_of
from pai_cli.spelling import option

OURS = 0x70616973  # "pais": SQLite's application_id of a file that is a store

FORM = 2  # of the tables; to be raised with any change of them: those of another form are dropped

PATIENCE = 20.0  # seconds to wait for another process that is writing

SECONDS_BETWEEN_WRITES = 1.0

MOST_WAITING = 500  # rows that wait to be written

SIZE = 32  # bytes of a digest, which stands before what it is of

TABLES = "CREATE TABLE IF NOT EXISTS results (key BLOB PRIMARY KEY, network BLOB NOT NULL, layers BLOB NOT NULL)"

OLD_TABLES = ("results", "digests")

JOURNALS = {"-journal": b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7", "-wal": b"\x37\x7f\x06"}
"""What SQLite keeps beside its file, by the ending of its name, and how it begins; SQLite removes any file of that name."""

FAULTS = (sqlite3.Error, UnicodeDecodeError)  # the latter of words with damaged names in them

Note = Callable[[str], None]


def default_path() -> Path:
    """`results.db` in PAI_CACHE_DIR, or else in the folder `pai` where the system keeps a user's caches.

    Raises `RuntimeError` where that would be in a home folder and there is none.
    """
    if told := os.environ.get("PAI_CACHE_DIR"):
        return Path(told) / "results.db"
    told = os.environ.get("XDG_CACHE_HOME", "")
    usual = Path("~/Library/Caches" if sys.platform == "darwin" else "~/.cache")
    return (Path(told) if Path(told).is_absolute() else usual.expanduser()) / "pai" / "results.db"


def is_journal(path: Path) -> bool:
    """Whether a file beside a store, of one of the names in `JOURNALS`, is SQLite's, or holds nothing.

    SQLite puts zeros where a journal's first bytes go, until all the others are on the disk.
    """
    with path.open("rb") as stream:
        start = stream.read(8)
    return not any(start) or any(
        path.name.endswith(name) and start.startswith(magic) for name, magic in JOURNALS.items()
    )


class Store:
    """Finished work by key. A fault of the file after it is open is told once, and the work goes on without it."""

    def __init__(self, path: Path, database: sqlite3.Connection | None, note: Note):
        self.path = path
        self._database = database
        self._note = note
        self._waiting: dict[bytes, tuple[bytes, bytes]] = {}
        self._damage_told = False
        self._written = time.monotonic()

    @property
    def open(self) -> bool:
        """Whether anything is kept."""
        return self._database is not None

    def get(self, key: bytes, *, layers: bool) -> tuple[bytes, bytes] | None:
        """A row: what holds for the network, and with `layers` what holds for its layers, else b""; None for no row."""
        if key in self._waiting:
            return self._waiting[key]
        column = "layers" if layers else "NULL"
        row = self._asked(f"SELECT network, {column} FROM results WHERE key = ?", key)
        if row is None:
            return None
        network = _opened_value(key, "network", row[0])
        rest = _opened_value(key, "layers", row[1]) if layers else b""
        if network is None or rest is None:
            if not self._damage_told:
                self._note(f"{self.path}: has damaged rows; what they were of is measured again")
            self._damage_told = True
            return None
        return network, rest

    def put(self, key: bytes, network: bytes, layers: bytes) -> None:
        """Keep a row; it is written with others, within about a second."""
        if self._database is None:
            return
        self._waiting[key] = (network, layers)
        if len(self._waiting) >= MOST_WAITING or time.monotonic() - self._written > SECONDS_BETWEEN_WRITES:
            self.write()

    def write(self) -> None:
        """Write what waits, in one transaction."""
        rows = [
            (key, _closed_value(key, "network", network), _closed_value(key, "layers", layers))
            for key, (network, layers) in self._waiting.items()
        ]
        if rows:
            self._changed("INSERT OR REPLACE INTO results VALUES (?, ?, ?)", rows)
        self._waiting.clear()
        self._written = time.monotonic()

    def close(self) -> None:
        """Write what waits, and let the file go."""
        self.write()
        if self._database is not None:
            self._database.close()
            self._database = None

    def _asked(self, question: str, *values: object) -> tuple[object, ...] | None:
        if self._database is None:
            return None
        try:
            row: tuple[object, ...] | None = self._database.execute(question, values).fetchone()
        except FAULTS as error:
            self._give_up(error)
            return None
        return row

    def _changed(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        if self._database is None:
            return
        try:
            with self._database:  # a transaction: all of it, or nothing
                self._database.execute("BEGIN IMMEDIATE")
                self._database.executemany(statement, rows)
        except FAULTS as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._note(f"{self.path}: {_words(error)}; going on without the store")
        if self._database is not None:
            self._database.close()
        self._database = None


def _closed_value(key: bytes, column: str, value: bytes) -> bytes:
    """A value as it is stored: after a digest of itself and of where it stands."""
    return digest_of_row(key, column.encode(), value) + value


def _opened_value(key: bytes, column: str, stored: object) -> bytes | None:
    """A value as it was put there; None where it is not what was stored."""
    if not isinstance(stored, bytes) or stored[:SIZE] != digest_of_row(key, column.encode(), stored[SIZE:]):
        return None
    return stored[SIZE:]


def without_store() -> Store:
    """A store that keeps nothing."""
    return Store(Path(os.devnull), None, print)


def open_store(path: Path | None, note: Note) -> Store:
    """The store at `path`, made where there is none; with None the user's own.

    Raises `StoreError` for a path that cannot be a store. When the user's own cannot be used, a `note` says so, and
    nothing is kept.
    """
    if path is not None:
        return Store(path, _opened(path), note)
    try:
        path = default_path()
    except RuntimeError:  # no HOME, and a user that the system does not know, as in containers
        note(
            f"there is no home folder to keep finished work in; {option('store', 'FILE')} or PAI_CACHE_DIR names a "
            "place"
        )
        return without_store()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return Store(path, _opened(path), note)
    except OSError as error:
        note(f"{path.parent}: cannot be made ({reason_of(error)}); going on without the store of finished work")
    except StoreError as error:
        note(f"{error.text}; going on without it")
    return Store(path, None, note)


def _opened(path: Path) -> sqlite3.Connection:
    """A connection to a file that is a store, or is made one. Raises `StoreError`."""
    try:
        if path.exists() and not stat.S_ISREG(path.stat().st_mode):
            raise StoreError(f"{path}: is no regular file; {option('store')} takes a file")
        if not path.parent.is_dir():
            raise StoreError(f"{path}: the folder {path.parent} does not exist; make it first (mkdir -p {path.parent})")
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {reason_of(error)}") from error
    try:
        database = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)
    except FAULTS as error:
        raise StoreError(
            f"{path}: {_words(error)}; {option('store', 'FILE')} names another, {option('no_store')} does without"
        ) from error
    try:
        _prepare(path, database)
    except FAULTS as error:
        database.close()
        remedy = (
            f"delete it, or give another file with {option('store')}"
            if _damaged(error)
            else f"{option('store', 'FILE')} names another"
        )
        raise StoreError(f"{path}: {_words(error)}; {remedy}") from error
    except StoreError:
        database.close()
        raise
    return database


def _prepare(path: Path, database: sqlite3.Connection) -> None:
    """Check whose file it is, and make the tables of one that is empty."""
    database.execute("BEGIN")  # answers of one moment, though another process is making the tables just now
    application, form, tables = _facts(database)
    database.execute("ROLLBACK")
    if application != OURS and tables:
        raise StoreError(
            f"{path}: is a database of another program's; {option('store')} takes a file of pai's, or a new name"
        )
    if application == OURS and form > FORM:
        raise StoreError(
            f"{path}: was made by a newer pai; upgrade pai-cli, or give another file with {option('store')}"
        )
    database.execute("BEGIN IMMEDIATE")
    try:
        made = _facts(database)[:2] == (
            OURS,
            FORM,
        )  # asked again: another process may have made it while this one waited
        database.execute(f"PRAGMA user_version = {FORM}")  # finds out whether the file can be written at all
        if made:
            database.execute("ROLLBACK")
            return
        drops = [f"DROP TABLE IF EXISTS {table}" for table in OLD_TABLES]
        for statement in (*drops, TABLES, f"PRAGMA application_id = {OURS}", "COMMIT"):
            database.execute(statement)
    finally:
        if database.in_transaction:
            database.execute("ROLLBACK")


def _facts(database: sqlite3.Connection) -> tuple[int, int, int]:
    """Whose database it is, of which form, and how many tables it has."""
    questions = ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_schema")
    application, form, tables = (int(database.execute(question).fetchone()[0]) for question in questions)
    return application, form, tables


def _damaged(error: Exception) -> bool:
    told = getattr(error, "sqlite_errorname", "").startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB"))
    return told or not isinstance(error, sqlite3.Error)


def _words(error: Exception) -> str:
    """What is wrong, for a person."""
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith("SQLITE_NOTADB"):
        return "is no store of finished work"
    if _damaged(error):
        return "is damaged"
    if name.startswith("SQLITE_BUSY"):
        return f"another process has kept it locked for {PATIENCE:.0f} seconds"
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
        return "cannot be written"
    return f"cannot be used ({reason_of(error)})"
