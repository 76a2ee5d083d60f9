"""Files that are being written: nothing is left of them, however that ends, and what is said is the system's error."""

from __future__ import annotations

import errno
import os
import signal
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from conftest import Pai

from pai_cli.errors import OutputError
from pai_cli.files import temporary
from pai_cli.files.atomic import write_atomically


@pytest.fixture(autouse=True)
def nothing_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(temporary, "_swept", set())


@pytest.fixture(params=["unnamed", "named"])
def kind(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the file system has files without a name, and where it has none."""
    if request.param == "named":
        monkeypatch.setattr(temporary, "_unnamed", lambda _: None)
    elif (one := temporary._unnamed(tmp_path)) is None:
        pytest.skip("this file system has none")
    else:
        one.discard()
    return str(request.param)


def names(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


def killed_in(work: Callable[[], None]) -> None:
    """Run it in a process of its own, which kills itself."""
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def kill(*_: Any, **__: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("there", [False, True], ids=["new", "replaced"])
@pytest.mark.parametrize("at", ["write", "fsync", "link", "replace", "unlink"])
def test_killed_anywhere_the_next_write_leaves_no_trace(
    tmp_path: Path, kind: str, at: str, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out"
    if there:
        path.write_bytes(b"old")

    def work() -> None:
        if at != "write":
            monkeypatch.setattr(os, at, kill)
        write_atomically(path, kill if at == "write" else lambda stream: _write(stream, b"new"), force=there)
        kill()  # where this kind has no such step

    killed_in(work)
    left = path.read_bytes() if path.exists() else None
    assert left in ((b"old", b"new") if there else (None, b"new"))
    assert kind == "named" or at == "replace" or len(names(tmp_path)) == (left is not None)
    write_atomically(tmp_path / "next", lambda stream: _write(stream, b"x"), force=False)
    assert names(tmp_path) == (["next"] if left is None else ["next", "out"])


def _write(stream: BinaryIO, data: bytes) -> None:
    stream.write(data)


def test_what_another_process_is_writing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(temporary, "_unnamed", lambda _: None)

    def write(stream: BinaryIO) -> None:
        stream.write(b"one")
        temporary._swept.clear()
        write_atomically(tmp_path / "two", lambda other: _write(other, b"two"), force=False)
        assert len(names(tmp_path)) == 2

    write_atomically(tmp_path / "one", write, force=False)
    assert names(tmp_path) == ["one", "two"]


def test_what_only_looks_like_one_stays(tmp_path: Path) -> None:
    ours = temporary.SUFFIX
    (tmp_path / f".pai-folder{ours}").mkdir()
    (tmp_path / "elsewhere").write_bytes(b"kept")
    (tmp_path / f".pai-link{ours}").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(tmp_path / f"a{ours}")
    (tmp_path / f".pai-0{ours.replace('@', '@an')}").write_bytes(
        b"another machine's, whose lock need not be known here"
    )
    before = names(tmp_path)
    write_atomically(tmp_path / "z", lambda stream: _write(stream, b"x"), force=False)
    assert names(tmp_path) == [*before, "z"]


@pytest.mark.parametrize("number", [*temporary.NO_SUCH_FILES, errno.EACCES])
def test_a_file_system_without_unnamed_files(tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = os.open

    def opened(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(number, os.strerror(number))
        return usual(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", opened)
    if number == errno.EACCES:
        with pytest.raises(OutputError, match="Permission denied"):
            write_atomically(tmp_path / "a", lambda stream: _write(stream, b"x"), force=False)
        return
    write_atomically(tmp_path / "a", lambda stream: _write(stream, b"x"), force=False)
    assert names(tmp_path) == ["a"]


def test_a_name_that_was_taken_meanwhile(tmp_path: Path, kind: str) -> None:
    def write(stream: BinaryIO) -> None:
        stream.write(b"ours")
        (tmp_path / "a").write_bytes(b"theirs")

    with pytest.raises(OutputError, match="exists already"):
        write_atomically(tmp_path / "a", write, force=False)
    assert (tmp_path / "a").read_bytes() == b"theirs"
    (tmp_path / "a").unlink()
    write_atomically(tmp_path / "a", write, force=True)
    assert (tmp_path / "a").read_bytes() == b"ours"
    assert names(tmp_path) == ["a"]


# --- the system's error


FAULTS = {
    errno.ENOSPC: "no space left on the device; free some or choose another folder with -o",
    errno.EIO: "Input/output error",
    errno.EFBIG: "File too large",
}

OUTPUTS = {
    "safetensors": ("prune", "{net}", "--method", "erk", "-o", "out.safetensors"),
    "npz": ("convert", "{mask}", "--to", "npz", "-o", "out.npz"),
    "dict": ("convert", "{mask}", "--to", "dense", "--weights", "{net}", "-o", "out.pt"),
    "init": ("init", "mlp-8-6-4", "-o", "out.safetensors"),
    "csv": ("analyze", "{mask}", "--report", "out.html"),
    "svg": ("analyze", "{mask}", "--plot", "out.svg"),
    "png": ("analyze", "{mask}", "--plot", "out.png"),
    "search": ("sample", "{net}", "--method", "erk", "--population", "2", "-o", "out.safetensors"),
    "compact": ("compact", "{mask}", "--weights", "{net}", "-o", "out.safetensors"),
    "packed": ("convert", "{mask}", "--packed", "-o", "out.safetensors"),
}


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes every write of a file fail, as on a disk that is full."""

    def fail_with(number: int) -> None:
        def write(self: temporary.Raw, data: Any) -> int:
            self.failed = OSError(number, os.strerror(number))
            raise self.failed

        monkeypatch.setattr(temporary.Raw, "write", write)

    return fail_with


@pytest.mark.parametrize(
    ("name", "number"), [*((name, errno.ENOSPC) for name in OUTPUTS), ("dict", errno.EIO), ("dict", errno.EFBIG)]
)
def test_one_line_says_what_the_system_said(
    name: str, number: int, small: Path, tmp_path: Path, pai: Pai, broken: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    mask = tmp_path / "mask.safetensors"
    assert pai("prune", small, "--method", "erk", "--density", 0.5, "-o", mask).status == 0
    broken(number)
    done = pai(*(word.format(net=small, mask=mask) for word in OUTPUTS[name]))
    assert done.status == 1
    assert done.said[-1].startswith("pai: error: out.")
    assert done.said[-1].endswith(f": cannot be written: {FAULTS[number]}")
    assert names(tmp_path) == ["mask.safetensors"]


@pytest.mark.parametrize("after", [0, 1, 3])
def test_what_a_library_makes_of_the_error_is_not_said(
    tmp_path: Path, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch and zipfile go on after a write that failed, and fail at something else."""
    torch = pytest.importorskip("torch")
    usual = temporary.Raw.write

    def write(self: temporary.Raw, data: Any) -> int:
        if self.tell() > after * 1000:
            self.failed = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            raise self.failed
        return usual(self, data)

    monkeypatch.setattr(temporary.Raw, "write", write)

    def zipped(stream: BinaryIO) -> None:
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("a", np.random.default_rng(0).bytes(100_000))

    tensors = {"a": torch.rand(10_000), "b": torch.rand(10_000)}
    for write_all in (zipped, lambda stream: torch.save(tensors, stream)):
        with pytest.raises(OutputError, match="no space left on the device"):
            write_atomically(tmp_path / "a", write_all, force=False)
        assert names(tmp_path) == []
