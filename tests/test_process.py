"""`pai` as a process of its own: what only shows from outside."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, SAMPLES, Pai, random_mask, save_mask
from copies import STOPPED, begin, run
from safetensors.numpy import load_file
from workers import PATIENCE, wait_until

from pai_cli import __version__
from pai_cli.spectral.compiled import calls

ENGINE = "compiled" if calls.available() else "on NumPy: no C compiler at installation"

MASK = SAMPLES / "synflow-0.05.safetensors"
PAI = (sys.executable, "-W", "error", "-m", "pai_cli")


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


def started(*words: object, **more: str) -> subprocess.CompletedProcess[str]:
    """By a start of Python; where that is not what matters, `copies.run` is quicker."""
    return subprocess.run(
        [*PAI, *map(str, words)], env=environment(**more), capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def python(code: str, *words: object) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], env=environment(), capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()[-1]


def test_it_runs_as_a_module() -> None:
    done = started("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"pai {__version__} (engine {ENGINE})\n", "")


@pytest.mark.parametrize("more", [{}, {"COMP_WORDS": "pai an"}, {"COMP_WORDS": "pai an", "COMP_CWORD": "one"}])
def test_a_completion_that_says_not_where_is_none(more: dict[str, str]) -> None:
    done = run(["--version"], _PAI_COMPLETE="complete_bash", **more)
    assert done == (0, f"pai {__version__} (engine {ENGINE})\n", "")


@pytest.mark.parametrize(
    ("flags", "last"), [(["--format", "json"], "standard output: No space left on device"), ([], "standard output: ")]
)
def test_standard_output_is_full(flags: list[str], last: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = run(["analyze", MASK, "--layers", "conv1", *flags], into=(full.fileno(), None))
    assert done.status == 1
    assert len(done.err.splitlines()) == 1
    assert done.err.startswith(f"pai: error: {last}")


def test_a_reader_that_has_seen_enough() -> None:
    """`pai analyze ... | head -1`: no word about it."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = run(["analyze", MASK, "--layers", "conv1", "--format", "csv"], into=(writing, None))
    finally:
        os.close(writing)
    assert (done.status, done.err) == (1, "")


def test_a_mask_to_standard_output(
    pai: Pai,
    small: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    """`-o /dev/stdout` into a pipe, and into a file, where the name must not be replaced by a file of its own."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    words = ["prune", str(small), "--method", "erk", "--density", "0.5", "-o", "/dev/stdout"]
    reading, writing = os.pipe()  # which holds so small a mask
    done = run(words, into=(writing, None))
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        written = pipe.read()
    assert done.status == 0, done.err
    (tmp_path / "pipe").write_bytes(written)
    assert set(load_file(tmp_path / "pipe")) == {"fc1.weight", "fc2.weight", "fc3.weight"}
    assert Path("/dev/stdout").is_file()  # where pytest has it
    assert pai(*words).status == 0
    assert capfdbinary.readouterr().out == written


def test_a_pipe_is_not_waited_for_forever(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    done = run(["analyze", tmp_path / "pipe"])
    assert done.status == 1
    assert done.err.startswith(f"pai: error: {tmp_path / 'pipe'}: ")
    assert len(done.err.splitlines()) == 1


def test_no_terminal_no_colour_no_bars() -> None:
    done = run(["rank", MASK, SAMPLES / "erk-0.05.safetensors", "--weights", SAMPLES / "resnet20.safetensors"])
    assert done.status == 0
    assert "\x1b" not in done.out + done.err
    assert "\r" not in done.err
    assert "%|" not in done.err


def test_tables_in_a_terminal_of_few_letters() -> None:
    done = run(["analyze", MASK, "--layers", "conv1"], PYTHONIOENCODING="ascii")
    assert (done.status, done.err) == (0, "")
    assert "conv1.weight" in done.out


SHELLS = {"bash": "complete -o default -F _pai_completion pai", "zsh": "#compdef pai", "fish": "complete --command pai"}


@pytest.mark.parametrize("shell", SHELLS)
def test_completion(shell: str) -> None:
    done = run([], _PAI_COMPLETE=f"source_{shell}")
    assert done.status == 0
    assert SHELLS[shell] in done.out
    assert "_PAI_COMPLETE" in done.out


LINES = """
import json, sys
from typer.testing import CliRunner
from pai_cli.app import app
for words in json.loads(sys.argv[1]):
    result = CliRunner().invoke(app, words, prog_name="pai")
    assert result.exit_code == 0, result.output
print(sorted(set(sys.modules) & {"torch", "matplotlib", "numpy"}))
"""


def test_masks_and_tables_and_weights_of_numpy_and_safetensors_need_no_torch(tmp_path: Path) -> None:
    table = tmp_path / "published.csv"
    table.write_text("mask,dr,x,accuracy\n" + "".join(f"m{n},{n},{-n},0.{n + 2}\n" for n in range(5)))
    mask, weights, npz = str(MASK), str(SAMPLES / "resnet20.safetensors"), str(tmp_path / "m.npz")
    loaded = python(
        LINES,
        json.dumps(
            [
                ["analyze", mask],
                ["analyze", mask, "--weights", weights, "--layers", "layer1.*"],
                ["rank", mask, "--weights", weights],
                ["convert", mask, "--to", "npz", "-o", npz],
                ["analyze", npz],
                ["convert", npz, "-o", str(tmp_path / "m.safetensors")],
                ["mine", *(str(SAMPLES / f"{name}-0.02.safetensors") for name in ("erk", "synflow"))],
                ["rank", "--table", str(table), "--format", "csv", "--resamples", "100"],
            ]
        ),
    )
    assert loaded == "['numpy']"


def test_the_command_line_imports_nothing_heavy() -> None:
    found = "sorted(set(sys.modules) & {*sys.argv[1:]})"
    code = f"import sys, pai_cli.app; before = {found}; import numpy; print(before, {found})"
    assert python(code, "torch", "numpy", "scipy", "rich.progress", "safetensors") == "[] ['numpy']"


def test_what_was_said_before_other_processes_began_is_said_once(tmp_path: Path) -> None:
    """Of copies, too, which have what was said so far in buffers of their own: how many begin, the clock decides."""
    for number in range(6):
        save_mask(tmp_path / f"{number}.safetensors", {"w": random_mask((12, 8), seed=number)})
    program = (
        "from pai_cli.analysis import many; many.QUICK = many.MUCH = 0.0\nfrom pai_cli.__main__ import main; main()\n"
    )
    (tmp_path / "at_once.py").write_text(program)
    masks = [f"{number}.safetensors" for number in range(6)]
    words = ["analyze", *masks, "--summary", "--format", "csv", "--jobs", "2", "--no-store"]
    ended = run(words, module="at_once", cwd=tmp_path)
    assert (ended.status, ended.err) == (0, "")
    assert [line.split(",")[0] for line in ended.out.splitlines()] == ["mask", *masks]


def candidates(trajectory: Path) -> int:
    return max(0, len(trajectory.read_text().splitlines()) - 1) if trajectory.exists() else 0


@pytest.mark.parametrize("how", STOPPED)
def test_a_search_that_is_interrupted_goes_on(
    pai: Pai, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: signal.Signals
) -> None:
    def command(folder: str, population: int, *flags: str) -> list[str]:
        (tmp_path / folder).mkdir(exist_ok=True)
        shutil.copy(small, tmp_path / folder / "c.safetensors")
        words = ["sample", "c.safetensors", "--method", "magnitude", "--density", "0.5", "-o", "best.safetensors"]
        return [*words, "--population", str(population), *flags]

    trajectory = tmp_path / "stopped" / "best.jsonl"
    with begin(command("stopped", 10**6), cwd=tmp_path / "stopped") as process:
        wait_until(lambda: candidates(trajectory) >= 3)
        process.signal(how)
        status, out, err = process.finish()
    done = candidates(trajectory)
    assert status == STOPPED[how][0], err
    assert out == ""
    told = f"{done} of 1000000 candidates are done and kept; the same command with --resume goes on"
    assert err.splitlines()[-2:] == [f"pai: best.state.safetensors: {told}", STOPPED[how][1]]
    assert not (tmp_path / "stopped" / "best.safetensors").exists()
    assert not list((tmp_path / "stopped").glob(".*"))
    for folder, flags in (("stopped", ["--resume"]), ("whole", [])):
        words = command(folder, done + 2, *flags)
        monkeypatch.chdir(tmp_path / folder)
        assert pai(*words).status == 0
    stopped, whole = (tmp_path / folder for folder in ("stopped", "whole"))
    assert (stopped / "best.jsonl").read_text() == (whole / "best.jsonl").read_text()
    masks = [load_file(folder / "best.safetensors") for folder in (stopped, whole)]
    assert {name: mask.tobytes() for name, mask in masks[0].items()} == {n: m.tobytes() for n, m in masks[1].items()}
    assert json.loads((stopped / "best.jsonl").read_text().splitlines()[-1])["candidate"] == done + 1


SLOW = """
import sys, time
from pathlib import Path
from pai_cli.__main__ import main
from pai_cli.files.temporary import Raw

write = Raw.write
def slow(self, data):
    count = write(self, data)
    if not Path("begun").exists():
        Path("begun").touch()
        time.sleep(60)
    return count
Raw.write = slow
sys.exit(main())
"""


@pytest.mark.parametrize("target", ["pai", "npz", "dense", "torch-prune"])
def test_a_conversion_that_is_stopped_while_it_writes_leaves_nothing(small: Path, tmp_path: Path, target: str) -> None:
    shutil.copy(small, tmp_path / "c.safetensors")
    np.savez(tmp_path / "m.npz", **{"fc1.weight": np.eye(16, 24, dtype=bool)})
    (tmp_path / "slow.py").write_text(SLOW)
    before = {path.name for path in tmp_path.iterdir()}
    weights = ["--weights", "c.safetensors"] if target in ("dense", "torch-prune") else []
    output = f"out.{'npz' if target == 'npz' else 'pt' if target == 'torch-prune' else 'safetensors'}"
    words = ["convert", "m.npz", "--to", target, *weights, "-o", output]
    with begin(words, module="slow", cwd=tmp_path) as process:
        wait_until((tmp_path / "begun").exists)
        process.signal(signal.SIGTERM)
        status, out, err = process.finish()
    assert (status, out, err.splitlines()[-1]) == (143, "", "pai: interrupted by SIGTERM"), err
    assert {path.name for path in tmp_path.iterdir()} - {"begun", "__pycache__"} == before


@pytest.mark.parametrize("words", [("analyze", MASK), ("--version",)])
def test_standard_output_is_closed(words: tuple[object, ...]) -> None:
    line = " ".join([*PAI, *map(str, words), ">&-"])
    done = subprocess.run(["sh", "-c", line], env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "pai: error: standard output is closed; send it to a file or to /dev/null\n"


def test_standard_input_is_closed() -> None:
    line = " ".join([*PAI, "analyze", "-", "<&-"])
    done = subprocess.run(["sh", "-c", line], env=environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "pai: error: -: standard input lists no mask; give one path a line\n"


def on_a_terminal(columns: int, *words: object) -> str:
    """What a command shows on a terminal of that width."""
    import fcntl
    import pty
    import struct
    import termios

    inside, outside = pty.openpty()
    fcntl.ioctl(outside, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    with begin(words, into=(outside, outside), TERM="xterm", NO_COLOR="1") as process:
        os.close(outside)
        shown = b""
        while True:
            try:
                piece = os.read(inside, 65536)
            except OSError:  # the other end is closed
                break
            shown += piece
        assert process.finish().status == 0
    os.close(inside)
    return re.sub(r"\x1b\[[0-9;]*m", "", shown.decode())


@pytest.mark.parametrize("columns", [40, 110])
def test_a_narrow_terminal_cuts_no_number_and_no_name(pai: Pai, columns: int) -> None:
    words = ("analyze", MASK, "--weights", SAMPLES / "resnet20.safetensors", "--layers", "layer1.0.*")
    shown = on_a_terminal(columns, *words)
    whole = pai(*words).out
    header = next(line for line in shown.splitlines() if line.startswith(" layer "))
    assert str(MASK) in shown.replace("\r\n", "")
    values = {name: line.split() for line in whole.splitlines() for name in line.split()[:1]}
    names = header.split()
    for layer in ("layer1.0.conv1.weight", "layer1.0.conv2.weight"):
        short = layer.removeprefix("layer1.0.").removesuffix(".weight")  # as the note says
        line = next(line for line in shown.splitlines() if line.startswith(f" {short} "))
        for name, value in zip(values["layer"][1:], values[layer][1:], strict=True):
            assert (value in line.split()) == (name in names), name
    assert "no room for 'layer1.0.' and '.weight' of layers, " in shown
    assert ("no room for" in shown) == (len(names) < len(values["layer"]))
