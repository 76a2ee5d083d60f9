"""The commands as a person types them: what is said when something is wrong, wrong usage, help and its examples."""

from __future__ import annotations

import errno
import importlib
import re
import shlex
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_type_hints

import numpy as np
import pytest
from conftest import ROOT, SAMPLES, Done, Pai, random_mask, run_pai, save_mask
from safetensors.numpy import load_file, save_file

from pai_cli import __version__
from pai_cli.app import LESS_MEMORY, app
from pai_cli.display.help import first_clause
from pai_cli.methods import registry
from pai_cli.pruning import counts as selecting
from pai_cli.pruning import run as running
from pai_cli.spectral import network as measuring
from pai_cli.spectral.compiled import calls

METHODS = ", ".join(registry.METHODS)
ENGINE = "compiled" if calls.available() else "on NumPy: no C compiler at installation"

COMMANDS = tuple(str(command.name) for command in app.registered_commands)
GOOD = (SAMPLES / "synflow-0.05.safetensors").read_bytes()
HEADER = int.from_bytes(GOOD[:8], "little")
NOT = "not a safetensors file"
GIVE = ": give a safetensors file, or one that torch.save wrote"


def with_length(length: int) -> bytes:
    return length.to_bytes(8, "little") + GOOD[8:]


# content, and what is said of it
DAMAGED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "the file is empty; copy it again"),
    "5 bytes": (GOOD[:5], f"{NOT} (5 bytes; its header alone takes 8); it looks like bytes of no known format{GIVE}"),
    "header cut": (GOOD[:1000], f"truncated: its header says {HEADER:,} bytes, the file has 1,000; copy it again"),
    "data cut": (
        GOOD[:-100],
        f"truncated or with bytes to spare: {len(GOOD) - 100:,} bytes do not match what its header lists; copy it again",
    ),
    "more data": (
        GOOD + b"xx",
        f"truncated or with bytes to spare: {len(GOOD) + 2:,} bytes do not match what its header lists; copy it again",
    ),
    "text": (
        b"hello world, this is text\n",
        f"{NOT}; it looks like text (it begins with 'hello world, this is text'){GIVE}",
    ),
    "html": (b"<!DOCTYPE html><html>", "a web page (HTML or XML), not the file itself; download it again"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(100), f"{NOT}; it looks like a picture{GIVE}"),
    "zip": (b"PK\x05\x06" + bytes(18), f"{NOT}; it looks like a zip archive{GIVE}"),
    "long header": (
        with_length(len(GOOD) + 1),
        f"truncated: its header says {len(GOOD) + 1:,} bytes, the file has {len(GOOD):,}; copy it again",
    ),
    "huge header": (
        with_length(2**63 + 1),
        f"truncated: its header says {2**63 + 1:,} bytes, the file has {len(GOOD):,}; copy it again",
    ),
    "no JSON": (GOOD[:9] + b"x" * (HEADER - 1) + GOOD[8 + HEADER :], "damaged safetensors file ("),
    "a list": (b"\x02\0\0\0\0\0\0\0[]", f"{NOT}; it looks like bytes of no known format{GIVE}"),
}


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_one_line(done: Done, line: str) -> None:
    assert done.said == [f"pai: error: {line}"]
    assert (done.status, done.out) == (1, "")


@pytest.mark.parametrize("case", DAMAGED)
@pytest.mark.parametrize("command", ["analyze", "rank", "analyze --weights"])
def test_damaged_masks_and_weights(pai: Pai, here: Path, case: str, command: str) -> None:
    content, said = DAMAGED[case]
    (here / "bad.safetensors").write_bytes(content)
    masks = ["bad.safetensors"] if command != "analyze --weights" else [SAMPLES / "erk-0.05.safetensors"]
    weights = ["--weights", "bad.safetensors"] if command == "analyze --weights" else []
    before = files(here)
    done = pai(command.split(maxsplit=1)[0], *masks, *weights, "--format", "jsonl")
    assert done.status == 1
    assert len(done.said) == 1
    assert done.said[0].startswith(f"pai: error: bad.safetensors: {said}")
    assert said.endswith("(") or done.said[0].endswith(said)
    assert files(here) == before


@pytest.mark.parametrize("case", DAMAGED)
@pytest.mark.parametrize("command", ["prune", "sample"])
def test_damaged_checkpoints(pai: Pai, here: Path, case: str, command: str) -> None:
    (here / "bad.safetensors").write_bytes(DAMAGED[case][0])
    before = files(here)
    flags = ["--population", 2] if command == "sample" else []
    done = pai(command, "bad.safetensors", "--method", "erk", "--density", 0.5, *flags)
    assert (done.status, done.out, len(done.said)) == (1, "", 1)
    assert done.said[0].startswith("pai: error: bad.safetensors: ")
    assert "unexpected" not in done.err
    assert files(here) == before


PRUNE = ("prune", "small.safetensors", "--method", "magnitude")


def test_a_missing_file(pai: Pai, here: Path) -> None:
    for words in (["analyze", "no"], ["rank", "no"], ["prune", "no", "--method", "erk", "--density", 0.5]):
        assert_one_line(pai(*words), "no: no such file")
    assert_one_line(pai("analyze", SAMPLES / "erk-0.05.safetensors", "--weights", "no"), "no: no such file")


def test_a_folder_in_the_place_of_a_file(pai: Pai, here: Path) -> None:
    (here / "folder").mkdir()
    assert_one_line(
        pai("analyze", "folder"), "folder: no mask (*.safetensors, *.npz, *.pt, *.pth) in this folder, nor below it"
    )
    assert_one_line(pai("prune", "folder", "--method", "erk", "--density", 1), "folder: is a directory, not a file")
    done = pai("analyze", SAMPLES / "erk-0.05.safetensors", "--weights", "folder")
    assert_one_line(done, "folder: is a directory, not a file")


@pytest.mark.parametrize(
    "words",
    [
        ["analyze", "secret"],
        ["analyze", SAMPLES / "erk-0.05.safetensors", "--weights", "secret"],
        ["prune", "secret", "--method", "erk", "--density", 1],
        ["sample", "secret", "--method", "erk", "--density", 1, "--population", 2],
    ],
)
def test_a_file_that_may_not_be_read(pai: Pai, here: Path, words: list[object]) -> None:
    original: Callable[..., Any] = Path.open
    (here / "secret").write_bytes(GOOD)

    def forbidden(self: Path, *args: Any, **kwargs: Any) -> Any:
        if self.name == "secret":  # root may read anything, so it is pretended
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return original(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "open", forbidden)
        patch.setattr("os.access", lambda path, *_, **__: "secret" not in str(path))  # which Typer may ask
        done = pai(*words)
    assert_one_line(done, "secret: no permission to read it")


def test_a_mask_of_another_network(pai: Pai, here: Path) -> None:
    mask = SAMPLES / "erk-0.05.safetensors"
    assert_one_line(
        pai("analyze", mask, "--weights", "small.safetensors"),
        f"{mask}: masks 'conv1.weight', 'layer1.0.conv1.weight', 'layer1.0.conv2.weight' and 17 more, which "
        "small.safetensors does not have; --weights takes the checkpoint that the mask was made for",
    )


def test_weights_with_nan(pai: Pai, here: Path) -> None:
    arrays = load_file("small.safetensors")
    arrays["fc1.weight"][0, 5] = np.nan
    save_file(arrays, "nan.safetensors")
    assert_one_line(
        pai("prune", "nan.safetensors", "--method", "magnitude", "--density", 0.5, "-o", "m"),
        "nan.safetensors: tensor 'fc1.weight' holds nan at index 5; take a checkpoint from before the weights diverged",
    )
    assert not (here / "m").exists()


RANGE = "must be above 0 and at most 1 (the fraction of weights kept; --sparsity is the fraction removed)"
REMOVED = "must be 0 or more and below 1 (the fraction of weights removed; --density is the fraction kept)"


@pytest.mark.parametrize("command", ["prune", "sample"])
@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--density=0", f"density 0.0: {RANGE}"),
        ("--density=1.5", f"density 1.5: {RANGE}"),
        ("--density=-1", f"density -1.0: {RANGE}"),
        ("--density=nan", f"density nan: {RANGE}"),
        ("--density=inf", f"density inf: {RANGE}"),
        ("--sparsity=1", f"--sparsity 1: {REMOVED}"),
        ("--sparsity=95", f"--sparsity 95: {REMOVED}"),
        ("--sparsity=nan", f"--sparsity nan: {REMOVED}"),
        ("--density=1e-12", "density 1e-12 keeps fewer than one of 696 weights; the smallest is 0.00144"),
    ],
)
def test_densities_that_cannot_be(pai: Pai, here: Path, command: str, flag: str, said: str) -> None:
    flags = ["--population", 2] if command == "sample" else []
    before = files(here)
    done = pai(command, "small.safetensors", "--method", "magnitude", flag, *flags, "-o", "m")
    assert (done.status, done.out) == (2, "")
    assert done.said == [f"pai: error: {said}"]
    assert files(here) == before


def test_sparsity_is_exact(pai: Pai, here: Path) -> None:
    assert pai(*PRUNE, "--sparsity", "0.95", "-o", "a").status == 0
    assert pai(*PRUNE, "--density", "0.05", "-o", "b").status == 0
    a, b = load_file("a"), load_file("b")
    assert all(np.array_equal(a[name], b[name]) for name in b)
    assert sum(int(array.sum()) for array in a.values()) == 35


OUTPUTS = {
    "no/m": "no/m: the folder no does not exist; make it first (mkdir -p no)",
    "folder": "folder: is a directory; give a file name",
    "there": "there: exists already; --force replaces it",
}


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize(
    "words",
    [
        [*PRUNE, "--density", 0.5],
        ["sample", *PRUNE[1:], "--density", 0.5, "--population", 2],
        ["init", "lenet5"],
    ],
    ids=lambda words: words[0],
)
def test_outputs_that_cannot_be(pai: Pai, here: Path, output: str, words: list[object]) -> None:
    (here / "folder").mkdir()
    (here / "there").write_bytes(b"precious")
    before = files(here)
    assert_one_line(pai(*words, "-o", output), OUTPUTS[output])
    assert files(here) == before


@pytest.mark.parametrize("command", ["prune", "sample"])
def test_output_on_a_full_device(pai: Pai, here: Path, command: str) -> None:
    flags = ["--population", 2, "--trajectory", "t.jsonl"] if command == "sample" else []
    done = pai(command, *PRUNE[1:], "--density", 0.5, *flags, "-o", "/dev/full")
    assert (done.status, done.out) == (1, "")
    assert done.said[-1] == (
        "pai: error: /dev/full: cannot be written: no space left on the device; free some or choose another folder with -o"
    )
    assert Path("/dev/full").is_char_device()


def test_a_search_into_a_device_needs_a_place_for_its_trajectory(pai: Pai, here: Path) -> None:
    folder = here / "dev"
    folder.mkdir()
    (folder / "null").symlink_to("/dev/null")
    done = pai("sample", *PRUNE[1:], "--density", 0.5, "--population", 2, "-o", "dev/null")
    assert [path.name for path in folder.iterdir()] == ["null"]
    assert done.status in (1, 2)
    assert "--trajectory" in done.words


def test_force_replaces(pai: Pai, here: Path) -> None:
    (here / "m").write_bytes(b"old")
    assert pai(*PRUNE, "--density", 0.5, "-o", "m", "--force").status == 0
    assert set(load_file("m")) == {"fc1.weight", "fc2.weight", "fc3.weight"}


def test_no_collapse(pai: Pai, here: Path) -> None:
    arrays = load_file("small.safetensors")
    arrays["fc2.weight"] *= 1e-6
    save_file(arrays, "thin.safetensors")
    command = ["prune", "thin.safetensors", "--method", "magnitude", "--density", 0.3, "-o", "m"]
    done = pai(*command, "--no-collapse")
    assert (done.status, done.out) == (1, "")
    assert done.said[-1] == (
        "pai: error: --no-collapse: 1 layers would keep no weight (fc2.weight); raise --density, or take --scope layer"
    )
    assert not (here / "m").exists()
    done = pai(*command)
    assert done.status == 0
    assert "pai: warning: layer collapse: fc2.weight kept no weight" in done.said


# --- names


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (
            ["prune", "small.safetensors", "--method", "sinflow", "--density", 1],
            2,
            f"unknown method 'sinflow': did you mean synflow? --method takes {METHODS}",
        ),
        (
            ["sample", "small.safetensors", "--method", "ERK", "--density", 1, "--population", 1],
            2,
            f"unknown method 'ERK': did you mean erk? --method takes {METHODS}",
        ),
        (
            ["prune", "small.safetensors", "--method", "zzz", "--density", 1],
            2,
            f"unknown method 'zzz': --method takes {METHODS}",
        ),
        (["rank", "x", "--by", "lamda"], 2, "unknown metric 'lamda': did you mean lambda? --by takes sigma_1, "),
    ],
)
def test_unknown_names(pai: Pai, here: Path, words: list[object], status: int, said: str) -> None:
    done = pai(*words)
    assert (done.status, done.out, len(done.said)) == (status, "", 1)
    assert done.said[0].startswith(f"pai: error: {said}")


# --- wrong usage

USAGE: dict[str, tuple[list[object], str]] = {
    "both": (
        [*PRUNE, "--density", 0.1, "--sparsity", 0.9],
        "--density and --sparsity exclude each other: give one",
    ),
    "sparsity": ([*PRUNE, "--sparsity", "much"], "--sparsity much: is not a number"),
    "density": ([*PRUNE, "--density", "much"], "--density"),
    "format": (
        ["analyze", "x", "--format", "xml"],
        "--format xml: give one of table, markdown, latex, json, jsonl, csv, tsv; pai analyze --help lists what it takes",
    ),
    "whole number": (["analyze", "x", "--jobs", "two"], "--jobs two: give a whole number; "),
    "too small": (["analyze", "x", "--jobs", "0"], "--jobs 0: give 1 or more; "),
    "number": (["mine", "x", "--timeout", "soon"], "--timeout soon: give a number; "),
    "too large": (["analyze", "x", "--jobs", 2**40], f"--jobs {2**40}: give a whole number from 1 to 2,147,483,648"),
    "input shape": (
        [*PRUNE, "--density", 0.5, "--input-shape", "3,x"],
        "--input-shape 3,x: give whole numbers above 0, such as 3,32,32",
    ),
    "zero input shape": ([*PRUNE, "--density", 0.5, "--input-shape", "3,0"], "give whole numbers above 0"),
    "squared input shape": ([*PRUNE, "--density", 0.5, "--input-shape", "3,²"], "give whole numbers above 0"),
    "rounds": ([*PRUNE, "--density", 0.5, "--rounds", "x"], "--rounds x: give a whole number, or auto"),
    "rounds of two minus signs": (
        [*PRUNE, "--density", 0.5, "--rounds=--5"],
        "--rounds --5: give a whole number, or auto",
    ),
    "squared rounds": ([*PRUNE, "--density", 0.5, "--rounds", "²"], "--rounds ²: give a whole number, or auto"),
    "population": (["sample", *PRUNE[1:], "--density", 0.5, "--population", 0], "--population"),
    "no population": (["sample", *PRUNE[1:], "--density", 0.5], "give --population to search, or --construct"),
    "no method": (["prune", "small.safetensors", "--density", 0.5], f"no method: give --method, which takes {METHODS}"),
    "no mask": (["analyze"], "missing argument"),
    "no such command": (["prone"], "no such command 'prone'"),
    "no such option": (["rank", "x", "--bye", "dr"], "no such option"),
    "scope": ([*PRUNE, "--density", 0.5, "--scope", "some"], "--scope"),
    "classes": (["init", "lenet5", "--classes", 0], "--classes"),
}


@pytest.mark.parametrize("case", USAGE)
def test_wrong_usage(pai: Pai, here: Path, case: str) -> None:
    words, said = USAGE[case]
    before = files(here)
    done = pai(*words)
    assert (done.status, done.out) == (2, "")
    assert said in done.words
    assert "Traceback" not in done.err
    assert files(here) == before


# --- tracebacks, interruption


@pytest.mark.parametrize(
    "words", [["--debug", "analyze", "no"], ["analyze", "--debug", "no"], ["analyze", "no", "--debug"]]
)
def test_debug_may_stand_anywhere(here: Path, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise RuntimeError("a bug\nof two lines")

    monkeypatch.setattr(measuring, "unroll", broken)
    save_mask(here / "no", {"w": random_mask((4, 4))})
    line = "pai: error: unexpected RuntimeError: a bug of two lines; --debug shows where, and is what a report of this needs"
    done = run_pai(*words)
    assert done.status == 1
    assert "Traceback (most recent call last)" in done.err
    assert done.said[-1] == line
    assert_one_line(run_pai(*(word for word in words if word != "--debug")), line.removeprefix("pai: error: "))


def test_debug_of_an_error_that_was_foreseen(pai: Pai, here: Path) -> None:
    done = pai("prune", "no", "--method", "erk", "--density", 0.5, "--debug")
    assert done.status == 1
    assert "Traceback (most recent call last)" in done.err
    assert "CheckpointError" in done.err
    assert done.said[-1] == "pai: error: no: no such file"


@pytest.mark.parametrize(("module", "name"), [(selecting.NetworkQuota, "keep"), (running, "result_of")])
def test_interrupted(here: Path, monkeypatch: pytest.MonkeyPatch, module: object, name: str) -> None:
    def stop(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, name, stop)
    before = files(here)
    done = run_pai(*PRUNE, "--density", 0.5)
    assert (done.status, done.out) == (130, "")
    assert done.said[-1] == "pai: interrupted"
    assert "Traceback" not in done.err
    assert files(here) == before
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, speaks in (("0", True), ("1", False), ("x", True)):  # of several that torchrun started the first speaks
        monkeypatch.setenv("RANK", rank)
        assert ("pai: interrupted" in run_pai(*PRUNE, "--density", 0.5).said) == speaks


def test_out_of_memory(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise MemoryError

    monkeypatch.setattr(measuring, "unroll", full)
    assert_one_line(
        run_pai("analyze", save_mask(here / "m", {"w": random_mask((4, 4))})),
        f"{here / 'm'}: layer 'w' does not fit in memory; leave it out with pai analyze --layers",
    )
    monkeypatch.setattr("pai_cli.mining.run.parts_of", full)
    done = run_pai("mine", here / "m", "--format", "csv")
    assert done.said[-1] == "pai: error: out of memory; raise --support, or mine fewer masks or graphs"
    monkeypatch.setattr(selecting.NetworkQuota, "keep", full)
    assert run_pai(*PRUNE, "--density", 0.5).said[-1] == "pai: error: out of memory; a smaller network takes less"


@pytest.mark.parametrize("command", LESS_MEMORY)
def test_what_takes_less_memory_is_an_option_of_the_command(command: str) -> None:
    named = set(re.findall(r"--[a-z-]+", LESS_MEMORY[command]))
    assert named
    assert named <= set(re.findall(r"--[a-z-]+", run_pai("help", command).out))


# --- results


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv", "tsv", "table"])
def test_data_goes_to_standard_output_and_words_to_standard_error(pai: Pai, here: Path, kind: str) -> None:
    done = pai(*PRUNE, "--density", 0.5, "--format", kind)
    assert done.status == 0
    assert "pai:" not in done.out
    assert done.said == [
        "pai: small.safetensors: MLP 24-16-12-10 (10 classes), 696 prunable weights",
        "pai: wrote small-magnitude-0.5.safetensors: 348 of 696 weights kept, density 0.5",
    ]
    assert "\x1b" not in done.out + done.err


def test_what_prune_tells_is_what_it_wrote(pai: Pai, here: Path) -> None:
    rows = pai(*PRUNE, "--density", 0.3, "-o", "m", "--format", "json").json()
    masks = load_file("m")
    assert [row["layer"] for row in rows] == ["fc1.weight", "fc2.weight", "fc3.weight", None]
    for row in rows[:-1]:
        mask = masks[row["layer"]]
        assert (row["kept"], row["total"], row["density"]) == (mask.sum(), mask.size, mask.sum() / mask.size)
        assert row["shape"] == list(mask.shape)
    assert (rows[-1]["kept"], rows[-1]["total"]) == (209, 696)


def test_ignored_layers_are_not_in_the_mask(pai: Pai, here: Path) -> None:
    assert pai(*PRUNE, "--density", 0.5, "--ignore", "fc1", "--ignore", "fc3.*", "-o", "m").status == 0
    assert set(load_file("m")) == {"fc2.weight"}


def test_init_is_the_same_every_time(pai: Pai, here: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert pai("init", "mlp-24-16-12-10", "--seed", seed, "-o", name).status == 0
    a, b, c = (load_file(name) for name in "abc")
    assert all(np.array_equal(a[key], b[key]) for key in a)
    assert not np.array_equal(a["fc1.weight"], c["fc1.weight"])


# --- help


@pytest.mark.parametrize("width", [40, 60, 100])
def test_help_keeps_to_the_width_of_the_terminal(pai: Pai, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    for words in (("analyze", "--help"), ("help", "rank"), ("train", "--help")):
        *lines, example = pai(*words).out.rstrip().splitlines()
        assert example.startswith("Example: pai ")  # which is to be copied, and stays one line
        long = [line for line in lines if len(line) > width and len(line.split()) > 2]  # no name of an option is cut
        assert long == []


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Help without line breaks in its last line."""
    for name in ("COLUMNS", "TERMINAL_WIDTH"):
        monkeypatch.setenv(name, "300")


@cache
def help_of(*command: str) -> str:
    return run_pai(*command, "--help").out


# What takes long with the network that ships, and needs no more than some network.
STAND_IN = ("prune", "sample")


@pytest.mark.usefixtures("wide", "measured_once")
@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)], ids=lambda c: " ".join(("pai", *c)))
def test_the_example_runs_as_it_stands(
    command: tuple[str, ...], tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = help_of(*command).strip().splitlines()[-1].strip()
    assert last.startswith("Example: pai "), last
    words = shlex.split(last.removeprefix("Example: "))
    assert words[: 1 + len(command)] == ["pai", *command]
    assert all((ROOT / word).exists() for word in words if word.startswith("sample_masks"))
    if command and command[0] in STAND_IN:
        (tmp_path / "sample_masks").mkdir()
        shutil.copy(small, tmp_path / "sample_masks" / "resnet20.safetensors")
    else:
        shutil.copytree(SAMPLES, tmp_path / "sample_masks")
    if "digits" in words:  # a part of them is enough
        datasets = importlib.import_module("sklearn.datasets")
        every = datasets.load_digits()
        some = SimpleNamespace(images=every.images[:300], target=every.target[:300])
        monkeypatch.setattr(datasets, "load_digits", lambda: some)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # on one core no other process is started
    monkeypatch.chdir(tmp_path)
    done = run_pai(*words[1:])
    assert done.status == 0, done.err
    assert not any(line.startswith("pai: error") for line in done.said)


def test_help_names_every_command(pai: Pai) -> None:
    done = pai("--help")
    assert (done.status, done.err) == (0, "")
    listed = done.out.partition("Commands:\n")[2].partition("Other:\n")[0]
    assert set(re.findall(r"^  (\w+) ", listed, re.MULTILINE)) == set(COMMANDS)
    assert pai("-h").out == done.out


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize("command", COMMANDS)
def test_short_help(pai: Pai, command: str) -> None:
    assert pai(command, "-h").out == help_of(command)


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)], ids=lambda c: " ".join(("pai", *c)))
def test_help_reads_well(command: tuple[str, ...]) -> None:
    """No stop stands beside a stop."""
    text = help_of(*command)
    doubled = re.findall(r".{20}[.,;:][.,;:]+.{20}", text.replace("...", ""))
    assert doubled == []


def test_every_option_has_a_heading_and_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Help is read on 80 columns and one or two screens: what each option does fits on its line, or nearly."""
    monkeypatch.setenv("COLUMNS", "80")
    for command in COMMANDS:
        lines = run_pai(command, "--help").out.splitlines()
        shown = [line for line in lines if not line.startswith("Example: ")]
        assert len(lines) < 60, command
        assert max(map(len, shown)) <= 80, command
        assert "<bool>" not in "".join(lines)


def test_whole_help_has_every_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for command in app.registered_commands:
        told = " ".join(run_pai("help", command.name).out.split())
        for hint in get_type_hints(command.callback, include_extras=True).values():
            for one in getattr(hint, "__metadata__", ()):
                text = " ".join((one.help or "").split())
                assert first_clause(text) in told
                assert text.removeprefix(first_clause(text)) in told
    assert run_pai("help").out.startswith("Usage: pai COMMAND")


def test_help_of_no_command() -> None:
    done = run_pai("help", "prone")
    assert (done.status, done.out) == (2, "")
    assert "no command 'prone': there are init, prune" in done.err


def test_nothing_typed_is_help_and_wrong_usage(pai: Pai) -> None:
    done = pai()
    assert done.status == 2
    assert "Usage: pai" in done.out + done.err


def test_version(pai: Pai) -> None:
    assert pai("--version") == Done(0, f"pai {__version__} (engine {ENGINE})\n", "")


def test_every_command_is_in_the_reference() -> None:
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert re.findall(r"^## pai (\w+)$", text, re.MULTILINE) == list(COMMANDS)


@pytest.mark.parametrize("kind", ["json", "jsonl", "table"])
@pytest.mark.parametrize("command", ["analyze", "rank"])
def test_no_header_where_there_is_none(pai: Pai, command: str, kind: str) -> None:
    done = pai(command, SAMPLES / "erk-0.05.safetensors", "--format", kind, "--no-header")
    assert done.status == 2
    assert "--no-header" in done.err


def test_names_from_files_cannot_drive_the_terminal(pai: Pai, here: Path) -> None:
    save_mask(here / "m", {"evil\x1b[2J\nlayer": random_mask((4, 4))})
    done = pai("analyze", here / "m")
    assert "\x1b" not in done.out
    assert "evil\\x1b[2J\\nlayer" in done.out
