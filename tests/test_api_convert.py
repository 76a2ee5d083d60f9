"""`pai.convert` and `pai.init` as a program calls them."""

from __future__ import annotations

import logging
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SMALL, random_mask, run_pai, save_mask
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils import prune

import pai_cli as pai
from pai_cli.errors import (
    AmbiguousMaskError,
    MaskMismatchError,
    MethodOptionError,
    OutputError,
    UnknownModelError,
    UsageError,
)

SHAPES = {"fc1.weight": (16, 24), "fc2.weight": (12, 16), "fc3.weight": (10, 12)}
MASKS = {name: random_mask(shape, 0.4, place) for place, (name, shape) in enumerate(SHAPES.items())}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["convert", "init"])
def test_the_parameters_are_the_commands(name: str) -> None:
    from pai_cli.commands import convert, init

    command = {"convert": convert.convert, "init": init.init}[name]
    of_command = {name: one.default for name, one in signature(command).parameters.items() if name != "format"}
    own = {name: one.default for name, one in signature(getattr(pai, name)).parameters.items() if name != "progress"}
    assert own.keys() == of_command.keys()
    assert {name: one for name, one in own.items() if name not in ("file", "name")} == {
        name: one for name, one in of_command.items() if name not in ("file", "name")
    }


def test_a_file_of_another_tool_is_read_and_nothing_written(place: Path) -> None:
    np.savez("theirs.npz", **MASKS)
    mask = pai.convert("theirs.npz")
    assert mask == pai.Mask(MASKS)
    assert mask.metadata["converted_from"] == "npz"
    assert [path.name for path in place.iterdir()] == ["theirs.npz"]


@pytest.mark.parametrize("packed", [False, True])
def test_written_it_is_the_command_s_file(place: Path, packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    np.savez("theirs.npz", **MASKS)
    mask = pai.convert("theirs.npz", "ours.safetensors", packed=packed)
    assert mask.path == Path("ours.safetensors")
    assert pai.Mask.load("ours.safetensors") == mask == pai.Mask(MASKS)
    assert run_pai("convert", "theirs.npz", "-o", "c.safetensors", *["--packed"] * packed).status == 0
    told, of_command = (dict(pai.Mask.load(path).metadata) for path in ("ours.safetensors", "c.safetensors"))
    assert of_command.pop("command").startswith("pai convert theirs.npz")
    assert told == of_command


def test_names_from_a_module(place: Path) -> None:
    torch.save([torch.from_numpy(one) for one in MASKS.values()], "list.pt")
    network = pai.init(SMALL)
    assert pai.convert("list.pt", names_from=network) == pai.Mask(MASKS)
    assert pai.convert("list.pt", names_from=network.state_dict()) == pai.Mask(MASKS)
    with pytest.raises(MaskMismatchError):
        pai.convert("list.pt", names_from=pai.init("mlp-24-17-12-10"))


def test_weights_of_a_module(place: Path) -> None:
    save_mask(Path("m.safetensors"), MASKS)
    network = pai.init(SMALL)
    before = {name: one.clone() for name, one in network.state_dict().items()}
    mask = pai.convert("m.safetensors", "dense.safetensors", to="dense", weights=network)
    assert mask.path == Path("m.safetensors")
    for name, one in load_file("dense.safetensors").items():
        assert torch.equal(one, before[name] * torch.from_numpy(MASKS.get(name, np.ones(1, bool))))
        assert torch.equal(before[name], network.state_dict()[name])


def test_a_mask_that_a_program_holds_is_written_for_others(place: Path) -> None:
    mask = pai.Mask(MASKS)
    assert pai.convert(mask, "x.npz", to="npz") is mask
    with np.load("x.npz") as archive:
        assert {name: one.tolist() for name, one in archive.items()} == {
            name: one.tolist() for name, one in MASKS.items()
        }
    network = pai.init(SMALL)
    pai.convert(mask, "x.pt", to="torch-prune", weights=network)
    assert isinstance(network.fc1, nn.Linear)
    for name in SHAPES:
        prune.identity(network.get_submodule(name.removesuffix(".weight")), "weight")  # type: ignore[no-untyped-call]
    network.load_state_dict(torch.load("x.pt"))
    assert torch.equal(network.fc1.weight_mask.bool(), torch.from_numpy(MASKS["fc1.weight"]))


def test_zeros_that_read_as_pruned_are_warned_of(place: Path) -> None:
    state = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    with pytest.warns(
        pai.PaiWarning, match=r"^the state dict: .* kept weights are 0 \(.*\): they read as pruned ones$"
    ):
        pai.convert(pai.Mask(MASKS), "d.safetensors", to="dense", weights=state)


def test_what_a_guess_was_is_logged(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.save(
        {name: torch.from_numpy(one * np.random.default_rng(0).normal(size=one.shape)) for name, one in MASKS.items()},
        "pruned.pt",
    )
    with caplog.at_level(logging.INFO, "pai"):
        mask = pai.convert("pruned.pt")
    assert mask == pai.Mask(MASKS)
    assert caplog.messages == [f"pruned.pt: {mask.remark}"]
    assert mask.remark.startswith("has weights, not masks")


REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "no weights": ({"to": "dense", "output": "x"}, UsageError, "to=dense writes a network: give weights=CKPT"),
    "weights": ({"weights": "c"}, UsageError, "weights: to=pai writes no weights; leave it out, or give to=dense"),
    "packed": ({"to": "npz", "packed": True, "output": "x"}, UsageError, "packed=True: to=npz has no packed form"),
    "to nowhere": ({"to": "npz"}, UsageError, "to=npz: says how the mask is written; give output=MASK too"),
    "packed nowhere": ({"packed": True}, UsageError, "packed=True: says how the mask is written; give output=MASK too"),
    "force": ({"force": True}, UsageError, "force=True: no file is written; give output= too, or leave it out"),
    "target": ({"to": "onnx"}, ValueError, "to='onnx': give one of pai, torch-prune, npz, dense"),
    "suffix": ({"output": "x.pt"}, OutputError, "x.pt: to=pai writes .safetensors"),
    "itself": ({"output": "m.safetensors", "force": True}, OutputError, "m.safetensors: is what is converted"),
    "kind of a mask": (
        {"file": pai.Mask(MASKS), "kind": "npz"},
        UsageError,
        "kind: says how a file is read, and a mask",
    ),
    "several kinds": ({"file": "both.pt"}, AmbiguousMaskError, "both.pt: could be nni or dict"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(place: Path, case: str) -> None:
    save_mask(Path("m.safetensors"), MASKS)
    torch.save({"model": {"weight": torch.eye(3)}}, "both.pt")
    options, kind, text = REFUSED[case]
    with pytest.raises(kind) as caught:
        pai.convert(**{"file": "m.safetensors", **options})
    assert str(caught.value).startswith(text)
    assert sorted(path.name for path in place.iterdir()) == ["both.pt", "m.safetensors"]


def test_init_gives_the_command_s_weights(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    network = pai.init(SMALL, seed=3)
    assert list(place.iterdir()) == []
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not network.training
    assert run_pai("init", SMALL, "--seed", 3, "-o", "c.safetensors").status == 0
    with caplog.at_level(logging.INFO, "pai"):
        pai.init(SMALL, seed=3, output="p.safetensors")
    assert caplog.messages == ["wrote p.safetensors: MLP 24-16-12-10 (10 classes), 696 prunable weights in 3 tensors"]
    for path in ("c.safetensors", "p.safetensors"):
        assert all(torch.equal(one, network.state_dict()[name]) for name, one in load_file(path).items())
    with pytest.raises(OutputError, match=r"^p\.safetensors: exists already; force=True replaces it$"):
        pai.init(SMALL, output="p.safetensors")
    pai.init(SMALL, seed=4, output="p.safetensors", force=True)
    assert not torch.equal(load_file("p.safetensors")["fc1.weight"], network.state_dict()["fc1.weight"])


def test_init_refuses() -> None:
    assert pai.init("lenet-5", 7).state_dict()["fc3.weight"].shape[0] == 7
    with pytest.raises(UnknownModelError):
        pai.init("resnet21x")
    with pytest.raises(MethodOptionError, match=r"^classes=7: "):
        pai.init(SMALL, 7)
    with pytest.raises(MethodOptionError, match=r"^seed=-1: "):
        pai.init(SMALL, seed=-1)
    with pytest.raises(UsageError, match=r"^classes=0: must be a number of 1 or more$"):
        pai.init("resnet20", 0)
    with pytest.raises(UsageError, match=r"^force=True: no file is written"):
        pai.init("resnet20", force=True)
