"""Every reader of files is given names that nobody who means well gives: what is said of them is printable lines."""

from __future__ import annotations

import json
import logging
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import random_mask, run_pai, save_mask
from hostile import shown_well
from PIL import Image
from safetensors.torch import save_file

import pai_cli as pai
from pai_cli.errors import PaiError
from pai_cli.files.rows import read_rows
from pai_cli.methods import plugins, registry
from pai_cli.printable import LONGEST_LINE

NAMES = {
    "escape": "\x1b]0;owned\x07\x1b[31m",
    "line breaks": "a\r\npai: error: b\u2028c",
    "marks": "\u202eevil\u2066\ufeff\u200b",
    "long": "x" * 10_000,
    "surrogate": "\udcff\ud800",
    "markup": "[/red]<script>{0}%s\x9b\x00",
}

PRUNE = ("--method", "magnitude", "--density", "0.5", "-o", "out", "--force")
OURS = ("--no-store", "--jobs", 1)
Words = tuple[Any, ...]


def typed(name: str) -> str:
    """As JSON and text files can have it."""
    return name.encode("utf-8", "replace").decode()


def small(folder: Path) -> Path:
    save_file({"fc1.weight": torch.ones(6, 8), "fc2.weight": torch.ones(4, 6)}, folder / "net.safetensors")
    return folder / "net.safetensors"


def index(folder: Path, name: str) -> Words:
    (folder / "a.index.json").write_text(json.dumps({"weight_map": {name: f"{name[:90]}.safetensors"}}))
    return ("prune", folder / "a.index.json", *PRUNE)


def index_of_another_shard(folder: Path, name: str) -> Words:
    save_file({"fc.weight": torch.ones(3, 3)}, folder / "s.safetensors")
    (folder / "a.index.json").write_text(json.dumps({"weight_map": {name: "s.safetensors"}}))
    return ("analyze", folder / "a.index.json", *OURS)


def no_index(folder: Path, name: str) -> Words:
    (folder / "a.index.json").write_text('{"' + typed(name))
    return ("analyze", folder / "a.index.json", *OURS)


def header(folder: Path, name: str) -> Words:
    told = json.dumps({name: {"dtype": name, "shape": [2], "data_offsets": [0, 8]}}).encode()
    (folder / "m.safetensors").write_bytes(struct.pack("<Q", len(told)) + told + bytes(8))
    return ("analyze", folder / "m.safetensors", *OURS)


def metadata_of_a_mask(folder: Path, name: str) -> Words:
    save_file(
        {"fc.weight": torch.ones(3, 3, dtype=torch.bool)},
        folder / "m.safetensors",
        {"format": "pai-mask", "format_version": typed(name), typed(name): typed(name)},
    )
    return ("analyze", folder / "m.safetensors", *OURS)


def members(folder: Path, name: str) -> Words:
    with zipfile.ZipFile(folder / "m.pt", "w") as archive:
        archive.writestr(f"{typed(name)}/x", b"")
    return ("analyze", folder / "m.pt", *OURS)


def arrays(folder: Path, name: str) -> Words:
    np.savez(folder / "m.npz", **{typed(name): np.array(["text"])})  # type: ignore[arg-type]
    return ("analyze", folder / "m.npz", *OURS)


def data_arrays(folder: Path, name: str) -> Words:
    np.savez(folder / "d.npz", **{typed(name): np.ones(3)})  # type: ignore[arg-type]
    return ("prune", small(folder), "--method", "snip", "--data", folder / "d.npz", *PRUNE[2:])


def keys(folder: Path, name: str) -> Words:
    torch.save({name: {name: torch.ones(2)}, 3: name}, folder / "m.pt")
    return ("prune", folder / "m.pt", *PRUNE)


def flat_masks(folder: Path, name: str) -> Words:
    torch.save(
        {name: torch.randn(4, 4), f"mask.{name}": torch.eye(4), f"masks.{name}.0": torch.eye(4)}, folder / "m.pt"
    )
    return ("analyze", folder / "m.pt", *OURS)


def sparse(folder: Path, name: str) -> Words:
    twice = torch.sparse_coo_tensor(torch.zeros(2, 2, dtype=torch.long), torch.ones(2), (3, 3), check_invariants=False)
    torch.save({name: twice}, folder / "m.pt")
    return ("analyze", folder / "m.pt", *OURS)


def classes(folder: Path, name: str) -> Words:
    line = name.replace("\n", " ").encode("utf-8", "surrogatepass")
    (folder / "m.pt").write_bytes(pickle.dumps({}, 2)[:-2] + b"c" + line + b"\n" + line + b"\n.")
    return ("analyze", folder / "m.pt", *OURS)


def configuration(folder: Path, name: str) -> Words:
    small(folder).rename(folder / "model.safetensors")
    told = {"model_type": name, "architectures": [name], name: name, "auto_map": {name: name}}
    (folder / "config.json").write_text(json.dumps(told))
    return ("prune", folder, "--model", "hf", *PRUNE)


def no_configuration(folder: Path, name: str) -> Words:
    small(folder).rename(folder / "model.safetensors")
    (folder / "config.json").write_text(f'{{"{typed(name)}')
    return ("prune", folder, *PRUNE)


def densities(folder: Path, name: str) -> Words:
    (folder / "d.json").write_text(json.dumps({name: 0.5, f"{name}*": name}))
    return ("prune", small(folder), "--method", "magnitude", "--densities", folder / "d.json", "-o", "out")


def unmatched_densities(folder: Path, name: str) -> Words:
    (folder / "d.json").write_text(json.dumps({name: 0.5}))
    return ("prune", small(folder), "--method", "magnitude", "--densities", folder / "d.json", "-o", "out")


def edges(folder: Path, name: str) -> Words:
    (folder / "g.txt").write_text(typed(name).replace(" ", ""), encoding="utf-8")
    return ("mine", "--graphs", folder / "g.txt", "--support", "1.0")


def table(folder: Path, name: str) -> Words:
    (folder / "t.csv").write_text(f'mask,"{typed(name)}"\nx,"{typed(name)}"\n', encoding="utf-8")
    return ("rank", "--table", folder / "t.csv", "--order", "--by", "dr")


def table_of_two_columns(folder: Path, name: str) -> Words:
    cell = typed(name)
    (folder / "t.csv").write_text(f'mask,"{cell}","{cell}"\nx,1,2\n', encoding="utf-8")
    return ("rank", "--table", folder / "t.csv")


def annotations(folder: Path, name: str) -> Words:
    for one in ("train/a/0.png", "val/images/0.png"):
        (folder / one).parent.mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(folder / one)
    (folder / "val" / "val_annotations.txt").write_text(f"{typed(name)}\ta\n".replace("\x00", ""), encoding="utf-8")
    return ("train", small(folder), "--data", folder, "-o", folder / "t", "--epochs", 1)


def factory(folder: Path, name: str) -> Words:
    (folder / "net.py").write_text(
        f"raise type({ascii(typed(name))[:300]}, (Exception,), {{}})({name!a})".replace("\\x00", "")
    )
    return ("prune", small(folder), "--model", f"{folder / 'net.py'}:make", *PRUNE)


def named_factory(folder: Path, name: str) -> Words:
    return ("prune", small(folder), "--model", f"{name}:{name}".replace("\x00", ""), *PRUNE)


READERS: dict[str, Callable[[Path, str], Words]] = {
    one.__name__: one
    for one in (
        *(
            index,
            index_of_another_shard,
            no_index,
            header,
            metadata_of_a_mask,
            members,
            arrays,
            data_arrays,
            keys,
            flat_masks,
        ),
        *(sparse, classes, configuration, no_configuration, densities, unmatched_densities, edges, table),
        *(table_of_two_columns, annotations, factory, named_factory),
    )
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("reader", READERS)
def test_names_in_files_are_shown_as_lines(reader: str, name: str, here: Path) -> None:
    done = run_pai(*READERS[reader](here, NAMES[name]))
    shown_well(done)
    assert done.status in (0, 1, 2)
    assert done.said


class Entry:
    """An entry point of a distribution that means no good."""

    def __init__(self, name: str):
        self.name, self.value, self.dist = name, name, None

    def load(self) -> Any:
        raise ValueError(self.name)


@pytest.mark.parametrize("name", NAMES)
def test_names_of_plugins_are_shown_as_lines(
    name: str, here: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setattr(plugins, "entry_points", lambda **_: [Entry(NAMES[name])])
    registry._extend.cache_clear()
    request.addfinalizer(registry._extend.cache_clear)
    for method in ("nothing", NAMES[name]):
        done = run_pai("prune", small(here), "--method", method, "--density", "0.5", "-o", "out")
        shown_well(done)
        assert done.status in (1, 2)


@pytest.mark.parametrize("name", ["\ud800", "a\x00b"])
def test_names_that_no_file_can_have_are_told(name: str, here: Path) -> None:
    for read in (
        lambda: pai.analyze(name, no_store=True),
        lambda: pai.convert(name),
        lambda: pai.prune(name, "magnitude", density=0.5),
        lambda: pai.analyze(small(here), weights=name, no_store=True),
        lambda: pai.rank(table=name),
        lambda: pai.train(small(here), data=name),
        lambda: pai.mine([name], graphs=True),
        lambda: pai.prune(small(here), "magnitude", densities=name),
        lambda: pai.prune(small(here), "magnitude", model=f"{name}:make"),
        lambda: pai.prune(small(here), "magnitude", output=name),
        lambda: pai.Mask.load(name),
    ):
        with pytest.raises(PaiError) as caught:
            read()
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", NAMES)
def test_a_program_is_told_in_printable_lines(name: str, here: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What the library logs, raises and warns of."""
    caplog.set_level(logging.INFO)
    torch.save({NAMES[name]: torch.randn(4, 4), f"{NAMES[name]}.mask": torch.eye(4)}, here / "m.pt")
    with pytest.raises(PaiError) as caught:
        pai.analyze(here / "m.pt", no_store=True, layers=[NAMES[name] + "?"])
    save_mask(here / "m.safetensors", {typed(NAMES[name]): random_mask((4, 3, 3, 3))})
    pai.convert(here / "m.safetensors", here / "o.npz", to="npz") if "\x00" not in NAMES[name] else None
    (here / "t.csv").write_text(f"mask,accuracy\n{typed(NAMES[name])}\n")
    with pytest.raises(PaiError) as table_error:
        read_rows(here / "t.csv", None)  # type: ignore[arg-type]
    for line in (*caplog.messages, str(caught.value), str(table_error.value)):
        assert line.isprintable()
        assert len(line) <= LONGEST_LINE
