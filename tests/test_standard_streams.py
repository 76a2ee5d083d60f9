"""`-`: a mask file, a list or a table on standard input, and a file on standard output."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from conftest import SAMPLES, Pai
from copies import STOPPED, begin
from safetensors.numpy import load_file
from workers import wait_until

import pai_cli as pai_library
from pai_cli.commands import options
from pai_cli.errors import CheckpointError, ParameterError, UsageError
from pai_cli.files.standard_input import kept

pytestmark = pytest.mark.usefixtures("measured_once")

MASK = SAMPLES / "erk-0.05.safetensors"


def test_a_mask_on_standard_input_is_measured(pai: Pai) -> None:
    wanted = pai("analyze", MASK, "--columns", "layer,dr,kept", "--format", "csv")
    done = pai("analyze", "-", "--columns", "layer,dr,kept", "--format", "csv", stdin=MASK.read_bytes())
    assert (done.status, done.out) == (0, wanted.out)
    ranked = pai("rank", "-", "--columns", "method,value", "--format", "json", stdin=MASK.read_bytes()).json()
    assert ranked == pai("rank", MASK, "--columns", "method,value", "--format", "json").json()


@pytest.mark.parametrize("kind", ["npz", "npy", "torch"])
def test_files_of_other_tools_on_standard_input(pai: Pai, tmp_path: Path, kind: str) -> None:
    mask = np.eye(6, 8, dtype=bool)
    if kind == "npz":
        np.savez(tmp_path / "m.npz", w=mask)
    elif kind == "npy":
        np.save(tmp_path / "m.npy", mask)
    else:
        import torch

        torch.save({"w": torch.from_numpy(mask)}, tmp_path / "m.torch")
    raw = next(tmp_path.iterdir()).read_bytes()
    assert [row["kept"] for row in pai("analyze", "-", "--format", "json", stdin=raw).json()] == [6, 6]


def test_lists_on_standard_input_are_lists_still(pai: Pai) -> None:
    for between in ("\n", "\0"):
        listed = between.join([str(MASK), str(SAMPLES / "random-0.05.safetensors"), ""])
        done = pai("analyze", "-", "--summary", "--columns", "method", "--format", "json", stdin=listed)
        assert [row["method"] for row in done.json()] == ["erk", "random"]


def test_info_and_convert_read_it_too(pai: Pai, tmp_path: Path) -> None:
    assert pai("info", "-", "--format", "json", stdin=MASK.read_bytes()).json()[0]["method"] == "erk"
    out = tmp_path / "m.npz"
    assert pai("convert", "-", "--to", "npz", "-o", out, stdin=MASK.read_bytes()).status == 0
    assert pai("analyze", out, "--summary", "--format", "json").json()[0]["kept"] == 13417
    done = pai("convert", "-", stdin=MASK.read_bytes())
    assert (done.status, done.said) == (2, ["pai: error: -: what is on standard input has no name; give -o MASK"])


def files_of_each_kind(folder: Path) -> dict[str, bytes]:
    """A mask, or a graph, that standard input may hold, by the end of its file's name."""
    import torch
    from scipy import io, sparse

    mask = np.eye(6, 8, dtype=bool)
    np.savez(folder / "m.npz", w=mask)
    np.save(folder / "m.npy", mask)
    sparse.save_npz(folder / "m.scipy.npz", sparse.csr_matrix(mask))
    io.mmwrite(folder / "m.mtx", sparse.csr_matrix(mask.astype(float)))
    torch.save({"w": torch.from_numpy(mask)}, folder / "m.pt")
    pai_library.Mask({"w": mask}).save(folder / "m.safetensors")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


COMMANDS = (
    ("analyze", "mask"),
    ("rank", "mask"),
    ("info", "file"),
    ("mine", "masks", "--level", "weight", "--min-edges", "1"),
)


@pytest.mark.parametrize("spelled", ["-", "/dev/stdin"])
def test_what_is_on_standard_input_is_called_so(pai: Pai, tmp_path: Path, spelled: str) -> None:
    """In tables, in formats for programs and in errors: where it is kept is nobody's business."""
    for name, raw in files_of_each_kind(tmp_path).items():
        for command, column, *flags in COMMANDS:
            done = pai(command, spelled, *flags, "--format", "json", stdin=raw)
            assert (done.status, done.json()[0][column]) == (0, ["-"] if command == "mine" else "-"), (name, command)
            shown = pai(command, spelled, *flags, stdin=raw)
            assert "standard-input" not in shown.out.replace(" standard-input ", " ") + shown.err  # but a graph's layer
            broken = pai(command, spelled, *flags, stdin=raw[:-20])
            assert (broken.status, broken.said[-1][:15]) == (1, "pai: error: -: ")
            assert "standard-input" not in broken.out + broken.err
        done = pai("convert", spelled, "-o", tmp_path / "out.safetensors", "--force", stdin=raw[:-20])
        assert (done.status, len(done.said), done.said[0][:15]) == (1, 1, "pai: error: -: ")
    raw = (tmp_path / "m.safetensors").read_bytes()
    done = pai("convert", spelled, "-o", tmp_path / "out.safetensors", stdin=raw)
    assert done.status == 0
    assert pai("convert", spelled, stdin=raw).status == 2


def test_needed_code_is_told_of_a_pickle_on_standard_input(pai: Pai, tmp_path: Path) -> None:
    import torch

    torch.save({"w": torch.ones(2, 3), "odd": Path()}, tmp_path / "m.pt")
    done = pai("analyze", "-", stdin=(tmp_path / "m.pt").read_bytes())
    assert done.status == 1
    assert done.said[0].startswith("pai: error: -: cannot be read without running code (pathlib.")


@pytest.mark.parametrize("spelled", ["-", "/dev/stdin"])
def test_lists_of_edges_on_standard_input(pai: Pai, tmp_path: Path, spelled: str) -> None:
    words = ("mine", "--graphs", spelled, "--support", "1.0", "--format", "json")
    done = pai(*words, stdin="source target\na b\nb c\nc d\n")
    assert [(one["masks"], one["edge_list"]) for one in done.json()] == [(["-"], ["a--b", "b--c", "c--d"])]
    assert done.said[0].startswith("pai: -: its first line, 'source target', is taken for the names")
    for number in (1, 2):
        (tmp_path / f"{number} of two").write_text(f"a b\nb c\nc d\nd {number}\n")
    listed = [str(tmp_path / f"{number} of two") for number in (1, 2)]
    for between in ("\n", "\0"):
        (found,) = pai(*words, stdin=between.join([*listed, ""])).json()
        assert (found["masks"], found["edges"]) == (listed, 3)
    with_one = pai("mine", "--graphs", listed[0], *words[2:], stdin="a b\nb c\nc d\n").json()
    assert [one["masks"] for one in with_one] == [[listed[0], "-"]]
    for text, told in (
        ("", "-: holds no edge; give two names a line, with a tab between"),
        ("a b\nc\n", "-: line 2: 'c' is no edge; give two names, with a tab between"),
        ("x" * 5000 + "\n", f"-: line 1: '{'x' * 39}…' is no edge; give two names, with a tab between"),
        (f"{listed[0]}\n{tmp_path}/none\n", f"{tmp_path}/none: no such file"),
    ):
        done = pai(*words, stdin=text)
        assert (done.status, done.said) == (1, [f"pai: error: {told}"])


def test_a_picture_in_the_place_of_a_graph_that_is_listed(pai: Pai, tmp_path: Path) -> None:
    path = tmp_path / "g.svg"
    path.write_text("a b\nb c\nc d\n")
    done = pai("mine", "--graphs", "-", "--plot", path, "--force", stdin=f"{path}\n")
    assert (done.status, len(done.said)) == (1, 1)
    assert "is a file that is read, which stays as it is" in done.said[0]


def test_a_kept_file_is_a_path_that_is_called_otherwise() -> None:
    path = kept(MASK.read_bytes())
    assert path is not None
    for one in (path, pickle.loads(pickle.dumps(path))):  # as workers get it
        assert (str(one), f"{one}", one.suffix) == ("-", "-", ".safetensors")
        assert one.read_bytes() == MASK.read_bytes()
        assert one.resolve().samefile(os.fspath(one))
        assert os.fspath(one.parent / one.name) == os.fspath(one)


@pytest.mark.parametrize(("raw", "told"), [(b"hello\n", "text (it begins with 'hello')"), (b"", "an empty file")])
def test_what_is_no_file_is_told(pai: Pai, raw: bytes, told: str) -> None:
    done = pai("info", "-", stdin=raw)
    assert (done.status, done.said) == (1, [f"pai: error: -: no mask and no checkpoint; it looks like {told}"])


def test_a_truncated_mask_on_standard_input(pai: Pai) -> None:
    done = pai("analyze", "-", stdin=MASK.read_bytes()[:-100])
    assert (done.status, len(done.said)) == (1, 1)
    assert done.said[0].startswith("pai: error: -: truncated or ")


def test_what_was_kept_of_standard_input_goes_with_the_process(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    words = [sys.executable, "-m", "pai_cli", "info", "-", "--format", "csv"]
    done = subprocess.run(words, input=MASK.read_bytes(), capture_output=True, env=environment, check=True)
    assert done.stdout.splitlines()[1].startswith(b"-,file,")
    assert list(tmp_path.iterdir()) == []
    assert kept(b"a list of names") is None


@pytest.mark.parametrize("how", STOPPED)
def test_it_goes_too_where_the_process_is_stopped(tmp_path: Path, how: signal.Signals) -> None:
    (tmp_path / "kept").mkdir()
    os.mkfifo(tmp_path / "out.npz")
    words = ["convert", "-", "--to", "npz", "-o", tmp_path / "out.npz"]  # which nobody reads: there it stays
    size = MASK.stat().st_size
    with MASK.open("rb") as mask, begin(words, reads=mask.fileno(), TMPDIR=str(tmp_path / "kept")) as process:
        wait_until(lambda: [one.stat().st_size for one in (tmp_path / "kept").rglob("*.safetensors")] == [size])
        process.signal(how)
        ended = process.finish()
    assert (ended.status, ended.err.splitlines()[-1]) == STOPPED[how]
    assert list((tmp_path / "kept").iterdir()) == []


def test_a_terminal_that_is_gone_is_no_hindrance(tmp_path: Path) -> None:
    """What is said to it goes nowhere, where to write would fail."""
    terminal, end = os.openpty()
    os.mkfifo(tmp_path / "out.npz")
    words = ["convert", "-", "--to", "npz", "-o", tmp_path / "out.npz"]
    with MASK.open("rb") as mask:
        process = begin(words, reads=mask.fileno(), into=(end, end), TMPDIR=str(tmp_path))
    os.close(end)
    with process:
        wait_until(lambda: any(one.stat().st_size for one in tmp_path.rglob("*.safetensors")))
        os.close(terminal)
        process.signal(signal.SIGHUP)
        assert process.finish().status == 129
    assert [path.name for path in tmp_path.iterdir()] == ["out.npz"]


@pytest.mark.parametrize("status", [130, 143, 129])
def test_it_goes_too_where_threads_are_left_at_work(tmp_path: Path, status: int) -> None:
    """As by Ctrl-C while layers are measured, which ends the process without Python's own end."""
    program = (
        "from pai_cli import app; from pai_cli.compute import threads; from pai_cli.files.standard_input import kept_as\n"
        f"threads.still_working = lambda: True; kept_as('.edges', b'a b'); app._leave_threads({status}); print('here')"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, env=environment, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-2 if status == 130 else status, b"", b"")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [("analyze", "-", "-"), ("mine", "-", "/dev/stdin"), ("mine", "--graphs", "-", "-")])
def test_standard_input_is_given_once(pai: Pai, words: tuple[str, ...]) -> None:
    done = pai(*words, stdin=b"a b\nb c\n")
    assert (done.status, done.said) == (2, ["pai: error: - is standard input, which can be read once; give it once"])


def test_where_standard_input_is_not_read_it_is_said(pai: Pai) -> None:
    for words in (("prune", "-", "--method", "erk"), ("analyze", MASK, "--weights", "-")):
        done = pai(*words, stdin=MASK.read_bytes())
        told = "pai: error: -: a checkpoint is not read from standard input; write it to a file, and give that"
        assert (done.status, done.said) == (2, [told])


def test_a_file_on_standard_output(small: Path) -> None:
    words = [sys.executable, "-m", "pai_cli", "prune", str(small), "--method", "erk", "--density", "0.5", "-o", "-"]
    done = subprocess.run(words, capture_output=True, check=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.safetensors"
        path.write_bytes(done.stdout)
        assert pai_library.Mask.load(path).density == pytest.approx(0.5, abs=1e-3)
    assert b"wrote /dev/stdout" in done.stderr


def test_a_terminal_gets_no_binary(monkeypatch: pytest.MonkeyPatch) -> None:
    for given in (Path("-"), Path("/dev/stdout")):
        with monkeypatch.context() as patch:
            patch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
            with pytest.raises(UsageError, match=f"^{given}: standard output is a terminal, and this is no text"):
                options.written(given)
    assert options.written(Path("m.safetensors")) == Path("m.safetensors")
    assert options.written(None) is None
    monkeypatch.setattr(options, "STDOUT", Path("/nowhere/stdout"))
    with pytest.raises(UsageError, match=r"^-: standard output is no file on this system; name one$"):
        options.written(Path("-"))


# --- files of holes, and what else is no file


@pytest.mark.parametrize("name", ["x.safetensors", "x.pt", "x.npz", "x.npy", "x.txt"])
def test_a_file_of_holes_is_told_at_once(pai: Pai, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with path.open("wb") as stream:
        stream.truncate(2**42)  # four terabytes, of which none is there: an hour to read
    for command in ("analyze", "rank"):
        done = pai(command, path)
        assert (done.status, len(done.said)) == (1, 1)
        assert "it looks like zeros where it begins, as a copy that was not finished" in done.said[0]


def test_a_large_file_with_bytes_to_spare_is_told_at_once(pai: Pai, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(MASK.read_bytes())
    np.savez(tmp_path / "m.npz", w=np.eye(4, dtype=bool))
    for one, told in ((path, "truncated or with bytes to spare"), (tmp_path / "m.npz", "a zip file without its end")):
        with one.open("r+b") as stream:
            stream.truncate(2**42)
        done = pai("analyze", one)
        assert (done.status, len(done.said)) == (1, 1)
        assert told in done.said[0]


@pytest.mark.parametrize("store", [False, True, 3])
def test_a_store_is_a_path(store: object) -> None:
    for call in (pai_library.analyze, pai_library.rank):
        with pytest.raises(ParameterError, match=rf"^store={store}: give a file's path; no_store=True keeps nothing$"):
            call(MASK, store=store)


def test_a_program_gets_it_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for spelled in ("-", "/dev/stdin"):
        with MASK.open() as stream:
            monkeypatch.setattr(sys, "stdin", stream)
            (report,) = pai_library.analyze(spelled, summary=True)
        assert (report.name, report.to_dict()["network"]["mask"]) == ("-", "-")


def test_standard_input_of_a_program_is_told_of_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(CheckpointError, match=r"^-: no mask and no checkpoint; it looks like an empty file$"):
        pai_library.info("-")


def test_a_checkpoint_on_standard_input_is_refused(here: Path, pai: Pai) -> None:
    said = "pai: error: -: a checkpoint is not read from standard input; write it to a file, and give that"
    for words in (
        ("prune", "-", "--method", "erk", "-o", "m.safetensors"),
        ("sample", "-", "--method", "erk", "--population", 2, "-o", "m.safetensors"),
        ("train", "-", "--data", "digits", "-o", "t.safetensors"),
    ):
        done = pai(*words)
        assert (done.status, done.said[-1]) == (2, said)


def test_a_program_does_not_write_to_a_file_called_as_standard_output(here: Path) -> None:
    mask = pai_library.prune("small.safetensors", "erk")
    for call in (
        lambda: pai_library.init("mlp-6-5-4", output="-"),
        lambda: pai_library.prune("small.safetensors", "erk", output=Path("-")),
        lambda: pai_library.compact(mask, "small.safetensors", output="-"),
        lambda: mask.save("-"),
    ):
        with pytest.raises(UsageError, match=r"=-: names no file; give a path, or /dev/stdout to write there$"):
            call()
    for name, call in {
        "plot": lambda: pai_library.analyze(mask, plot="-"),
        "report": lambda: pai_library.rank(mask, report="-"),
        "store": lambda: pai_library.analyze(mask, store="-"),
        "results": lambda: pai_library.train("small.safetensors", "digits", output="t.safetensors", results="-"),
        "trajectory": lambda: pai_library.sample("small.safetensors", "erk", population=2, trajectory="-"),
        # A training needs a file beside what it writes: standard output is no way for it.
        "output": lambda: pai_library.train("small.safetensors", "digits", output="-"),
    }.items():
        with pytest.raises(UsageError, match=rf"^{name}=-: names no file; give a path$"):
            call()
    with pytest.raises(UsageError, match=r"^output=-: names no file; give a path$"):
        pai_library.prune("small.safetensors", "imp", data="digits", output="-")
    assert not Path("-").exists()


def test_a_smaller_network_on_standard_output(pai: Pai, here: Path) -> None:
    assert pai("prune", "small.safetensors", "--method", "erk", "--density", 0.3, "-o", "m.safetensors").status == 0
    words = ["compact", "m.safetensors", "--weights", "small.safetensors", "--timing-runs", "1", "-o"]
    assert pai(*words, "c.safetensors").status == 0
    done = subprocess.run([sys.executable, "-m", "pai_cli", *words, "-"], capture_output=True, check=True)
    Path("d.safetensors").write_bytes(done.stdout)
    one, other = load_file("c.safetensors"), load_file("d.safetensors")
    assert {name: array.tobytes() for name, array in one.items()} == {k: v.tobytes() for k, v in other.items()}


def test_standard_input_in_the_place_of_other_files(pai: Pai, here: Path) -> None:
    for words, told in (
        (
            ("--densities", "-"),
            "--densities -: cannot be read: No such file or directory; standard input is not read here",
        ),
        (("--data", "-"), "-: no such file or folder; standard input is not read here; --data takes digits, "),
    ):
        method = "erk" if words[0] == "--densities" else "snip"
        done = pai("prune", "small.safetensors", "--method", method, *words)
        assert (done.status, done.said[-1][: len(told) + 12]) == (1, f"pai: error: {told}")
