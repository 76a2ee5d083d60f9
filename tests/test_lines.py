"""The lines people type first, in a real bash on real files, and the script that ranks all methods."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, Done, run_pai, save_mask
from safetensors import safe_open
from safetensors.torch import load_file

from pai_cli.methods.registry import METHODS

SCRIPT = ROOT / "scripts" / "rank-all.sh"
DEFAULT = "pai: keeping 5% of the weights, density 0.05 (the default; --density or --sparsity changes it)"

ASKING = """#!/usr/bin/env bash
# `pai` as the test's own process runs it: a start of Python and torch for every line of a script would take minutes.
printf '%s\\0' "$#" "$@" >"{folder}/ask"
read -r status <"{folder}/answer"
cat "{folder}/out"
cat "{folder}/err" >&2
exit "$status"
"""


@dataclass
class Bash:
    """A bash whose `pai` runs in this process; `before` sees each command's words and may answer in its place."""

    folder: Path
    asked: list[list[str]] = field(default_factory=list)
    before: Callable[[list[str]], Done | None] = lambda words: None

    def __call__(self, *words: object, **environment: str) -> Done:
        """Run a line, or a script with arguments."""
        command = [str(word) for word in words]
        command = ["bash", "-c", *command] if len(command) == 1 else ["bash", *command]
        path = f"{self.folder}:{os.environ['PATH']}"
        running = subprocess.Popen(
            command,
            env={**os.environ, "PATH": path, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        ask, answer = (os.open(self.folder / name, os.O_RDWR | os.O_NONBLOCK) for name in ("ask", "answer"))
        try:
            while running.poll() is None:
                if select.select([ask], [], [], 0.01)[0]:
                    self._serve(os.read(ask, 65536), answer)
            out, err = running.communicate()
        finally:
            running.kill()
            os.close(ask)
            os.close(answer)
        return Done(running.returncode, out, err)

    def _serve(self, request: bytes, answer: int) -> None:
        words = request.decode().split("\0")[1:-1]
        self.asked.append(words)
        done = self.before(words) or run_pai(*words)
        (self.folder / "out").write_text(done.out)
        (self.folder / "err").write_text(done.err)
        os.write(answer, f"{done.status}\n".encode())


@pytest.fixture
def bash(tmp_path_factory: pytest.TempPathFactory) -> Bash:
    folder = tmp_path_factory.mktemp("bin")
    for name in ("ask", "answer"):
        os.mkfifo(folder / name)
    (folder / "pai").write_text(ASKING.format(folder=folder))
    (folder / "pai").chmod(0o755)
    return Bash(folder)


@pytest.fixture
def made_of(tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """`made_of(kind)`: an empty working folder but for `model.pt`, a checkpoint of that kind."""

    def make(kind: str) -> None:
        if kind == "convolutions":
            assert run_pai("init", "lenet-5", "-o", "lenet.safetensors").status == 0
        state = load_file("lenet.safetensors" if kind == "convolutions" else small)
        Path("lenet.safetensors").unlink(missing_ok=True)
        torch.save({"state_dict": state, "epoch": 3} if "wrapped" in kind else state, "model.pt")

    monkeypatch.chdir(tmp_path)
    return make


# --- the lines


@pytest.mark.parametrize("kind", ["convolutions", "mlp", "wrapped mlp"])
def test_prune_then_analyze_as_it_stands(bash: Bash, made_of: Callable[[str], None], kind: str) -> None:
    made_of(kind)
    done = bash("pai prune model.pt --method synflow")
    assert (done.status, done.said[0]) == (0, DEFAULT)
    assert sorted(path.name for path in Path().iterdir()) == ["model-synflow-0.05.safetensors", "model.pt"]
    with safe_open("model-synflow-0.05.safetensors", framework="numpy") as mask:
        told = mask.metadata()
    assert (told["density"], told["density_default"]) == ("0.05", "true")
    done = bash("pai analyze model-synflow-0.05.safetensors")
    assert (done.status, done.err) == (0, "")
    assert "network mean" in done.out


@pytest.mark.parametrize(
    ("flags", "label"),
    [("--density 0.05", "0.05"), ("--sparsity 0.95", "0.05"), ("--pattern 2:4", "2of4"), ("--densities d.json", "d")],
)
def test_what_is_asked_for_is_no_default(bash: Bash, made_of: Callable[[str], None], flags: str, label: str) -> None:
    made_of("mlp")
    Path("d.json").write_text('{"*": 0.05}')
    done = bash(f"pai prune model.pt --method erk --format jsonl {flags}")
    assert done.status == 0
    assert not any("default" in line for line in done.said)
    assert {json.loads(line)["density_default"] for line in done.out.splitlines()} == {False}
    with safe_open(f"model-erk-{label}.safetensors", framework="numpy") as mask:
        assert "density_default" not in mask.metadata()


@pytest.mark.parametrize(
    ("flags", "path"),
    [
        ("--method erk --population 3", "model-erk-best-0.05.safetensors"),
        ("--construct biregular", "model-biregular-0.05.safetensors"),
    ],
)
def test_sample_has_the_same_default(bash: Bash, made_of: Callable[[str], None], flags: str, path: str) -> None:
    made_of("mlp")
    done = bash(f"pai sample model.pt {flags} --format json")
    assert (done.status, done.said[0]) == (0, DEFAULT)
    assert {row["density_default"] for row in done.json()} == {True}
    with safe_open(path, framework="numpy") as mask:
        assert mask.metadata()["density_default"] == "true"


def test_a_search_goes_on_whether_its_density_was_said_or_not(bash: Bash, made_of: Callable[[str], None]) -> None:
    made_of("mlp")
    assert bash("pai sample model.pt --method erk --population 3").status == 0
    done = bash("pai sample model.pt --method erk --population 5 --density 0.05 --resume --format json")
    assert (done.status, done.json()[1]["candidates"]) == (0, 5)


def test_a_default_that_cannot_be_is_told_as_any_density(bash: Bash, made_of: Callable[[str], None]) -> None:
    made_of("mlp")
    torch.save({"fc1.weight": torch.ones(2, 2), "fc2.weight": torch.ones(2, 2)}, "model.pt")
    done = bash("pai prune model.pt --method magnitude")
    assert (done.status, done.out, done.said[0]) == (2, "", DEFAULT)
    assert done.said[-1].startswith("pai: error: density 0.05 keeps fewer than one of 8 weights")


@pytest.mark.parametrize("flags", ["", "--density 0.5", "--method zzz"])
def test_without_a_known_method_the_methods_are_listed(bash: Bash, made_of: Callable[[str], None], flags: str) -> None:
    made_of("mlp")
    done = bash(f"pai prune model.pt {flags}")
    assert (done.status, done.out, len(done.said)) == (2, "", 1)
    assert done.said[0].endswith(", ".join(METHODS))


@pytest.fixture
def masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`masks/`: several methods and densities of one network."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "masks"
    folder.mkdir()
    for seed, (method, density) in enumerate([("erk", 0.3), ("erk", 0.6), ("random", 0.3), ("random", 0.6)]):
        draws = np.random.default_rng(seed)
        arrays = {name: draws.permutation(576).reshape(24, 24) < 576 * density for name in ("a", "b")}
        save_mask(folder / f"{method} {density}.safetensors", arrays, method=method)
    return folder


LOOP = 'for m in masks/*.safetensors; do pai analyze "$m" --summary --format tsv --no-header; done'


def test_a_loop_prints_a_line_a_mask(bash: Bash, masks: Path) -> None:
    done = bash(LOOP)
    assert (done.status, done.err) == (0, "")
    rows = [line.split("\t") for line in done.out.splitlines()]
    assert [row[0] for row in rows] == [f"masks/{path.name}" for path in sorted(masks.iterdir())]
    fields = bash("pai analyze masks --summary --format tsv").out.splitlines()[0].split("\t")
    assert {len(row) for row in rows} == {len(fields)}


def test_rank_a_folder_as_it_stands(bash: Bash, masks: Path) -> None:
    done = bash("pai rank masks/")
    assert done.status == 0
    assert len(done.said) == 1
    assert done.said[0].endswith("ranked within 2 groups of equal density")
    assert len(re.findall(r"^ +[12-] +masks/(erk|random) 0.[36]", done.out, re.MULTILINE)) == 4


def test_rank_a_folder_of_all_kinds_of_things(bash: Bash, masks: Path, small: Path) -> None:
    plain = bash("pai rank masks/").out
    shutil.copy(small, masks / "checkpoint.safetensors")
    (masks / "README.txt").write_text("")
    (masks / "more").mkdir()
    (masks / "ranking.tsv").write_text("")
    done = bash("pai rank masks/")
    assert (done.status, done.out) == (0, plain)
    assert done.said[:2] == [
        "pai: masks/checkpoint.safetensors: holds weights, not a mask; left out",
        "pai: masks: README.txt: not *.safetensors, *.npz, *.pt, *.pth in this folder; left out",
    ]
    whole = (masks / "erk 0.3.safetensors").read_bytes()
    (masks / "broken.safetensors").write_bytes(whole[: len(whole) // 2])
    done = bash("pai rank masks/")
    assert (done.status, done.out) == (1, plain)
    assert sum(line.startswith("pai: error: masks/broken.safetensors: truncated") for line in done.said) == 1


# --- the script


def listed(name: str) -> list[str]:
    found = re.search(rf'^{name}="([^"]*)"$', SCRIPT.read_text(), re.MULTILINE)
    assert found is not None
    return found[1].split()


def test_the_script_knows_every_method() -> None:
    assert listed("without_data") == [name for name, method in METHODS.items() if not method.data and not method.text]
    assert listed("with_data") == [name for name, method in METHODS.items() if method.data and not method.trains]
    assert listed("training") == [name for name, method in METHODS.items() if method.trains]


@pytest.fixture
def study(tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The script's arguments: a checkpoint, an empty folder and three densities."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(small, "-my model.safetensors")
    return ["-my model.safetensors", "all masks", "0.1", "0.2", "0.5"]


def masks_in(folder: str) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in Path(folder).glob("*.safetensors")}


def test_the_script_ranks_every_method_it_can_run(bash: Bash, study: list[str]) -> None:
    del study[3:]  # one density
    done = bash(SCRIPT, *study)
    assert done.status == 0
    methods = [name for name, method in METHODS.items() if not method.data and not method.text]
    made = masks_in("all masks")
    assert set(made) == {f"{method}-{density}.safetensors" for method in methods for density in study[2:]}
    rows = [line.split("\t") for line in Path("all masks/ranking.tsv").read_text().splitlines()]
    assert rows[0][:3] == ["rank", "mask", "method"]
    assert sorted(row[1] for row in rows[1:]) == sorted(f"all masks/{name}" for name in made)
    assert all(f"all masks/{name}" in done.out for name in made)
    bash.asked.clear()
    again = bash(SCRIPT, *study, "0.8", METHODS="random synflow")
    assert (again.status, masks_in("all masks").items() & made.items()) == (0, made.items())
    assert [words[-1] for words in bash.asked if words[0] == "prune"] == [
        f"all masks/{method}-0.8.safetensors" for method in ("random", "synflow")
    ]


def test_an_interrupted_script_goes_on(bash: Bash, study: list[str]) -> None:
    def fifth_is_stopped(words: list[str]) -> Done | None:
        return Done(130, "", "pai: interrupted\n") if len(bash.asked) == 5 else None

    bash.before = fifth_is_stopped
    done = bash(SCRIPT, *study, METHODS="random magnitude")
    assert (done.status, done.out, done.said[-1]) == (130, "", "rank-all: interrupted; the same line goes on")
    made = masks_in("all masks")
    assert len(made) == 4
    assert sorted(path.name for path in Path("all masks").iterdir() if path.suffix != ".safetensors") == [".rank-all"]
    done = bash(SCRIPT, *study, METHODS="random magnitude")
    after = masks_in("all masks")
    assert (done.status, len(after), after.items() & made.items()) == (0, 6, made.items())


def test_a_method_that_fails_is_passed_over(bash: Bash, study: list[str]) -> None:
    done = bash(SCRIPT, *study, METHODS="snip random")
    assert done.status == 1
    assert done.said[:4] == [
        *(
            f"rank-all: snip at {density}: not made: pai: error: --method snip: scores with labelled samples; give --data"
            for density in study[2:]
        ),
        "rank-all: 3 of 6 masks could not be made",
    ]
    assert len(Path("all masks/ranking.tsv").read_text().splitlines()) == 4


def test_data_and_flags_reach_those_that_take_them(bash: Bash, study: list[str]) -> None:
    bash.before = lambda words: Done(1, "", "pai: error: no\n")
    done = bash(SCRIPT, *study[:3], "--", "--ignore", "fc 1", DATA="my data", SEED="7")
    of = sum(not (method.trains or method.text) for method in METHODS.values())
    assert (done.status, done.said[-1]) == (1, f"rank-all: {of} of {of} masks could not be made")
    for words in bash.asked:
        method = METHODS[words[words.index("--method") + 1]]
        data = ["--data", "my data"] if method.data else []
        assert words[:2] == ["prune", "./-my model.safetensors"]
        assert words[words.index("--seed") :] == [
            *("--seed", "7", "-o", f"all masks/{method.name}-0.1.safetensors", *data, "--ignore", "fc 1")
        ]


def test_masks_made_otherwise_are_not_taken_for_this_run(bash: Bash, study: list[str]) -> None:
    assert bash(SCRIPT, *study, METHODS="random").status == 0
    made = masks_in("all masks")
    done = bash(SCRIPT, *study, METHODS="random", SEED="1")
    assert (done.status, done.out, len(done.said)) == (1, "", 1)
    assert done.said[0].startswith("rank-all: all masks: has masks made otherwise (seed 0, data none, flags none, ")
    assert masks_in("all masks") == made


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ([], 2, "usage: scripts/rank-all.sh CKPT OUT_FOLDER"),
        (["a"], 2, "usage: "),
        (["a", "b", "--density"], 2, "rank-all: --density: is no density"),
        (["none", "b"], 1, "rank-all: none: no such file"),
    ],
)
def test_the_script_says_what_is_wrong(bash: Bash, here: Path, words: list[str], status: int, said: str) -> None:
    done = bash(SCRIPT, *words) if words else bash(f"'{SCRIPT}'")
    assert (done.status, done.out) == (status, "")
    assert done.said[0].startswith(said)
    assert [path.name for path in here.iterdir()] == ["small.safetensors"]


def test_the_script_has_a_usage(bash: Bash) -> None:
    done = bash(SCRIPT, "--help")
    assert (done.status, done.err) == (0, "")
    assert "METHODS=" in done.out


def test_ctrl_c_ends_the_loop_and_not_one_turn_of_it(masks: Path) -> None:
    """Bash goes on with the next mask unless the command itself ended by the signal."""
    pai = f'"{sys.executable}" -m pai_cli analyze - --summary'
    line = f"for m in masks/*.safetensors; do echo turn >&2; {pai}; done"
    running = subprocess.Popen(
        ["bash", "-c", line],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert running.stderr is not None
    assert running.stderr.readline() == "turn\n"
    assert running.stdin is not None
    running.stdin.write("no mask\n" * 2**17)  # more than a pipe holds: written when it reads, and it reads to the end
    running.stdin.flush()
    os.killpg(running.pid, signal.SIGINT)
    _, err = running.communicate()
    assert (running.returncode, err.replace("pai: interrupted\n", "")) == (-signal.SIGINT, "")
