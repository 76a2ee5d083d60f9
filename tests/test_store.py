"""The file of finished work: shared, killed, damaged, somebody else's, full; each told in one line or of no consequence."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import workers
from conftest import Pai
from copies import Ended, begin

from pai_cli.errors import StoreError
from pai_cli.files import store as stores
from pai_cli.files.store import Store, default_path, open_store, without_store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.db"


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def store(path: Path, told: list[str]) -> Iterator[Store]:
    with closing(open_store(path, told.append)) as opened:
        yield opened


def rows(path: Path) -> int:
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return int(database.execute("SELECT count(*) FROM results").fetchone()[0])


def test_what_is_put_is_found(store: Store, path: Path) -> None:
    assert store.get(b"a", layers=True) is None
    store.put(b"a", b"network", b"layers")
    assert store.get(b"a", layers=True) == (b"network", b"layers")  # though it may not be written yet
    store.write()
    assert store.get(b"a", layers=True) == (b"network", b"layers")
    assert store.get(b"a", layers=False) == (b"network", b"")
    store.put(b"a", b"other", b"")
    store.close()
    assert rows(path) == 1
    with closing(open_store(path, print)) as again:
        assert again.get(b"a", layers=True) == (b"other", b"")


def test_many_rows_are_written_together(store: Store, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "MOST_WAITING", 10)
    for number in range(25):
        store.put(str(number).encode(), b"", b"")
    assert rows(path) == 20


def test_rows_do_not_wait_long(store: Store, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "SECONDS_BETWEEN_WRITES", 0.0)
    store.put(b"a", b"", b"")
    assert rows(path) == 1


def test_no_store_keeps_nothing() -> None:
    store = without_store()
    store.put(b"a", b"b", b"c")
    assert store.get(b"a", layers=True) is None
    assert not store.open
    store.close()


WRITER = """
import sys
from pathlib import Path
from pai_cli.files import store
store.MOST_WAITING = 3
opened = store.open_store(Path(sys.argv[1]), print)
for number in range(int(sys.argv[3])):
    opened.put(f"{sys.argv[2]} {number}".encode(), b"n" * 5000, b"l" * 5000)
opened.close()
"""


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("code")
    (folder / "writing.py").write_text(WRITER)
    return folder


def test_two_processes_at_once(path: Path, code: Path) -> None:
    both = [begin([path, name, 200], module="writing", cwd=code) for name in ("a", "b")]
    assert [process.finish() for process in both] == [Ended(0, "", "")] * 2
    assert rows(path) == 400


def test_a_journal_is_known_before_its_first_bytes_are_written(path: Path) -> None:
    """As one command may meet that of another, which is just making the tables."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        database.execute("CREATE TABLE a (b)")
        journal = path.with_name(f"{path.name}-journal")
        assert not any(journal.read_bytes()[:8])
        assert stores.is_journal(journal)


@pytest.mark.parametrize("moment", [0.0, 0.05, 0.1])
def test_killed_in_the_middle_of_writing(path: Path, code: Path, moment: float) -> None:
    with begin([path, "a", 10**6], module="writing", cwd=code) as process:
        workers.wait_until(lambda: path.exists() and path.stat().st_size > 100_000)
        time.sleep(moment)
        process.signal(signal.SIGKILL)
        assert process.finish().status == -signal.SIGKILL
    kept = rows(path)
    assert kept > 0
    with closing(open_store(path, print)) as store:
        assert store.get(b"a 0", layers=True) == (b"n" * 5000, b"l" * 5000)
        store.put(b"more", b"", b"")
    assert rows(path) == kept + 1


def foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE mine (a)")
        database.commit()


def newer(path: Path) -> None:
    open_store(path, print).close()
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 99")


def damaged(path: Path) -> None:
    with closing(open_store(path, print)) as store:
        for number in range(200):
            store.put(str(number).encode(), b"n" * 1000, b"")
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 3000)


FAULTS = {
    "folder": (lambda path: path.mkdir(), "is no regular file; --store takes a file"),
    "text": (
        lambda path: path.write_text("mask,accuracy\n" * 100),
        "is no store of finished work; delete it, or give another file with --store",
    ),
    "foreign": (foreign, "is a database of another program's; --store takes a file of pai's, or a new name"),
    "newer": (newer, "was made by a newer pai; upgrade pai-cli, or give another file with --store"),
    "damaged": (damaged, "is damaged; delete it, or give another file with --store"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_is_no_store(fault: str, path: Path) -> None:
    make, wanted = FAULTS[fault]
    make(path)
    before = None if path.is_dir() else path.read_bytes()
    with pytest.raises(StoreError) as error:
        open_store(path, print)
    assert str(error.value) == f"{path}: {wanted}"
    assert before is None or path.read_bytes() == before


@pytest.mark.parametrize("fault", FAULTS)
def test_the_users_own_store_is_in_the_way(fault: str, cache_folder: Path, told: list[str]) -> None:
    make, wanted = FAULTS[fault]
    cache_folder.mkdir(parents=True)
    make(cache_folder / "results.db")
    store = open_store(None, told.append)
    store.put(b"a", b"", b"")
    assert told == [f"{cache_folder / 'results.db'}: {wanted}; going on without it"]
    assert not store.open


def test_no_folder_for_it(tmp_path: Path, told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StoreError) as error:
        open_store(tmp_path / "no" / "results.db", print)
    assert str(error.value) == (
        f"{tmp_path / 'no' / 'results.db'}: the folder {tmp_path / 'no'} does not exist; make it first "
        f"(mkdir -p {tmp_path / 'no'})"
    )
    (tmp_path / "file").touch()
    monkeypatch.setenv("PAI_CACHE_DIR", str(tmp_path / "file"))
    assert not open_store(None, told.append).open
    assert told == [f"{tmp_path / 'file'}: cannot be made (File exists); going on without the store of finished work"]


def test_nobody_is_at_home(told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_: object) -> None:
        raise KeyError("uid not found")

    for name in ("HOME", "PAI_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    assert not open_store(None, told.append).open
    assert told == ["there is no home folder to keep finished work in; --store FILE or PAI_CACHE_DIR names a place"]
    monkeypatch.setenv("XDG_CACHE_HOME", "/scratch")  # needs no home
    assert default_path() == Path("/scratch/pai/results.db")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_file_that_may_not_be_written(path: Path) -> None:
    open_store(path, print).close()
    path.chmod(0o400)
    with pytest.raises(StoreError) as error:
        open_store(path, print)
    assert str(error.value) == f"{path}: cannot be written; --store FILE names another"


def test_a_file_that_is_only_for_reading(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_store(path, print).close()
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda path, **rest: connect(f"file:{path}?mode=ro", uri=True, **rest))
    with pytest.raises(StoreError) as error:
        open_store(path, print)
    assert str(error.value) == f"{path}: cannot be written; --store FILE names another"


def test_another_process_keeps_it(path: Path, told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "PATIENCE", 0.1)
    store = open_store(path, told.append)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError, match="another process has kept it locked for 0 seconds; --store FILE names"):
            open_store(path, print)
        store.put(b"a", b"", b"")
        store.write()
    assert told == [f"{path}: another process has kept it locked for 0 seconds; going on without the store"]
    assert not store.open


def test_a_full_disk_is_told_once(store: Store, path: Path, told: list[str]) -> None:
    assert store._database is not None
    store._database.execute("PRAGMA max_page_count = 20")
    for number in range(100):
        store.put(str(number).encode(), b"n" * 5000, b"")
        store.write()
    assert told == [f"{path}: cannot be used (database or disk is full); going on without the store"]
    assert rows(path) > 1


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("PAI_CACHE_DIR", "here")
    assert default_path() == Path("here/results.db")
    monkeypatch.delenv("PAI_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "/scratch")
    assert default_path() == Path("/scratch/pai/results.db")
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")  # which the standard has ignored
    monkeypatch.setattr(sys, "platform", "linux")
    assert default_path() == Path("/home/me/.cache/pai/results.db")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert default_path() == Path("/home/me/Library/Caches/pai/results.db")


@pytest.mark.parametrize("command", ["analyze", "rank"])
def test_wrong_usage(pai: Pai, samples: Path, command: str) -> None:
    done = pai(command, samples, "--store", "a.db", "--no-store")
    assert done.status == 2
    assert "--store and --no-store exclude each other: give one" in done.words


def test_a_fault_of_the_file_that_was_named_is_an_error(pai: Pai, samples: Path, tmp_path: Path) -> None:
    done = pai("analyze", samples / "erk-0.05.safetensors", "--store", tmp_path)
    assert (done.status, done.out) == (1, "")
    assert done.said == [f"pai: error: {tmp_path}: is no regular file; --store takes a file"]


def test_a_fault_of_the_users_own_is_a_note(pai: Pai, samples: Path, cache_folder: Path) -> None:
    cache_folder.mkdir(parents=True)
    (cache_folder / "results.db").write_text("no database" * 100)
    line = ("analyze", samples / "erk-0.05.safetensors", "--format", "csv")
    done = pai(*line)
    assert (done.status, done.out) == (0, pai(*line, "--no-store").out)
    assert done.said == [
        f"pai: {cache_folder / 'results.db'}: is no store of finished work; delete it, or give another file with --store; "
        "going on without it"
    ]
