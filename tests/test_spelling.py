"""How parameters are named: to a program, on a command line, and in what is written; never as they travel."""

from __future__ import annotations

import copy
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, UNSPELLED, Pai
from typer.main import get_command

from pai_cli.app import app
from pai_cli.compute.pieces import Here, Outcome
from pai_cli.compute.worker import answered
from pai_cli.errors import ArrayError, CheckpointError, MethodOptionError, OutputError, PaiError
from pai_cli.files.messages import one_line
from pai_cli.sampling.candidates import Failure
from pai_cli.sampling.measuring import measures_of
from pai_cli.sampling.search import SHOWN, _line
from pai_cli.sampling.state import SearchState
from pai_cli.spectral.network import NetworkReport
from pai_cli.spectral.result import Measure
from pai_cli.spectral.result import Outcome as Answer
from pai_cli.spectral.table import NO_LAYERS
from pai_cli.spelling import SWITCHES, flag_of, for_python, for_shell, option

SPELLINGS = {
    "alone": (f"give {option('per_class')}", "give per_class=", "give --per-class"),
    "with its value": (f"{option('density', 1.5)}: is above 1", "density=1.5: is above 1", "--density 1.5: is above 1"),
    "before what is said of it": (f"{option('log_dir')}: needs Dask", "log_dir: needs Dask", "--log-dir: needs Dask"),
    "a value that is nothing": (f"{option('model', '')}!", "model=!", "--model!"),
    "a value that is 0": (option("rounds", 0), "rounds=0", "--rounds 0"),
    "of another name": (f"{option('output')}, {option('kind', 'nni')}", "output=, kind=nni", "-o, --from nni"),
    "a switch": (f"{option('force')} replaces it", "force=True replaces it", "--force replaces it"),
    "a switch that is off": (f"or {option('rescale', False)}", "or rescale=False", "or --no-rescale"),
    "a switch that is on": (f"or {option('rescale', True)}", "or rescale=True", "or --rescale"),
    "a switch that denies": (option("no_store"), "no_store=True", "--no-store"),
    "two": (option("scope", "layer") + option("pattern"), "scope=layerpattern=", "--scope layer--pattern"),
    "a value of many words": (option("by", "'a + b'"), "by='a + b'", "--by 'a + b'"),
    "none": ("density = 1, --x", "density = 1, --x", "density = 1, --x"),
}


@pytest.mark.parametrize("text", SPELLINGS)
def test_both_spellings(text: str) -> None:
    message, python, shell = SPELLINGS[text]
    assert (for_python(message), for_shell(message)) == (python, shell)
    error = PaiError(message)
    assert (str(error), error.in_shell, error.text) == (python, shell, message)


@pytest.mark.parametrize(
    "value", ["\ue000trust\ue002", "\ue001", "a\ue002b", "\\1\\g<0>", "{}%s", "a\nb\x1b[2J", "--x"]
)
def test_a_value_may_be_anything(value: str) -> None:
    message = f"{option('model', value)}: no; {option('force')}"
    shown = value.translate({0xE000 + at: f"\\ue00{at}" for at in range(3)})
    assert for_python(message) == f"model={shown}: no; force=True"
    assert for_shell(message) == f"--model {shown}: no; --force"
    assert PaiError(message).in_shell.isprintable()


def test_a_name_in_a_file_cannot_break_a_message() -> None:
    error = OutputError(f"a\ue000b\ue002: \ue000: {option('force')} replaces it")
    assert str(error) == "ab: \\ue000: force=True replaces it"


def names_in(*folders: Path) -> set[str]:
    """The parameters that messages of these modules name outright."""
    named = re.compile(r"\boption\(\s*['\"]([a-z_]+)['\"]")
    files = {file for folder in folders for file in folder.rglob("*.py")}
    return {name for file in files for name in named.findall(file.read_text(encoding="utf-8"))}


def test_every_parameter_that_is_named_is_one_of_the_command_line() -> None:
    commands = get_command(app).commands.values()  # type: ignore[attr-defined]
    options = [one for command in commands for one in command.params if one.param_type_name == "option"]
    flags = {(one.name, flag) for one in options for flag in one.opts}
    below = names_in(*(folder for folder in (ROOT / "pai_cli").iterdir() if folder.is_dir() and folder.name != "api"))
    assert len(below) > 50
    assert {(name, flag_of(name)) for name in below} - flags == set()
    parameters = {name for name, _ in flags}  # a function of the library may have others, which no command line gives
    assert {(name, flag_of(name)) for name in names_in(ROOT / "pai_cli" / "api") & parameters} - flags == set()
    assert {one.name for one in options if one.is_flag} == SWITCHES


def test_one_error_is_made_of_another() -> None:
    inner = CheckpointError(f"x: code; give {option('trust')}")
    outer = OutputError(f"y: {inner.text}")
    assert (str(outer), outer.in_shell) == ("y: x: code; give trust=True", "y: x: code; give --trust")
    assert PaiError(one_line(inner)).in_shell == "CheckpointError: x: code; give --trust"


@pytest.mark.parametrize("error", [MethodOptionError, ArrayError, CheckpointError])
def test_errors_travel(error: type[PaiError]) -> None:
    first = error(f"{option('noise', 0.5)}: no\x1b; give {option('per_class')}")
    for other in (pickle.loads(pickle.dumps(first)), copy.copy(first), copy.deepcopy(first)):
        assert type(other) is error
        assert (other.text, str(other), other.in_shell) == (first.text, str(first), first.in_shell)
        assert other.in_shell == "--noise 0.5: no\\x1b; give --per-class"


def refused(_common: object, item: str) -> object:
    raise MethodOptionError(f"{item}: give {option('data')}")


def test_errors_of_workers_travel() -> None:
    outcome: Outcome[object] = pickle.loads(answered(refused, None, pickle.dumps("x")))
    assert isinstance(outcome.error, MethodOptionError)
    assert outcome.error.in_shell == "x: give --data"
    (here,) = Here().map(refused, None, ["x"])
    assert str(here.error) == "x: give data="


UNPROVED = Measure.missing(Answer.NOT_PROVED.value)


def test_a_trajectory_has_flags() -> None:
    measures = measures_of(NetworkReport(NO_LAYERS, dict.fromkeys(SHOWN, UNPROVED), {}, 0, 1, (), ()))
    assert measures["reason"].endswith("takes --certify")
    explored = {"w": np.ones(3, dtype=np.bool_)}
    line = _line(Failure(1, f"synflow: give more {option('rounds')}"), SearchState(explored=explored), 0, SHOWN)
    assert line["reason"] == "synflow: give more --rounds"


@pytest.mark.parametrize("kind", ["table", "json", "jsonl", "csv", "tsv"])
def test_reasons_are_shown_with_flags(pai: Pai, samples: Path, kind: str) -> None:
    mask = samples / "erk-0.05.safetensors"
    shown = pai("analyze", mask, "--format", kind, "--no-store")
    assert shown.status == 0
    assert ("needs --weights" in shown.out) == (kind != "table")  # which leaves out what the person chose


def test_pages_and_pictures_have_flags(pai: Pai, samples: Path, tmp_path: Path) -> None:
    mask, bad = samples / "erk-0.05.safetensors", tmp_path / "bad.pt"
    torch.save({"a": Path("x")}, bad)
    page, picture = tmp_path / "a.html", tmp_path / "a.svg"
    done = pai("analyze", mask, bad, "--report", page, "--plot", picture, "--no-store")
    assert "give --trust" in done.err
    assert "give --trust" in page.read_text(encoding="utf-8")
    for file in (page, picture):
        assert not UNSPELLED.search(file.read_text(encoding="utf-8"))
