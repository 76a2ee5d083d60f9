"""`pai info`, `pai methods`, `pai metrics`, `pai models`: what a file is and holds, and what there is to choose from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SAMPLES, run_pai
from safetensors.numpy import save_file

import pai_cli as pai
from pai_cli.display.info import NUMBERS, records_of
from pai_cli.errors import CheckpointError, MaskError
from pai_cli.files.masks import MaskFile
from pai_cli.methods.registry import METHODS
from pai_cli.models.info import STORY
from pai_cli.models.registry import known_names
from pai_cli.spectral.catalogue import RANKED

MASK = SAMPLES / "synflow-0.05.safetensors"


def records(*words: object) -> list[dict[str, Any]]:
    done = run_pai("info", *words, "--format", "json")
    assert (done.status, done.err) == (0, "")
    found: list[dict[str, Any]] = json.loads(done.out)
    return found


def test_a_mask() -> None:
    first, *tensors = records(MASK)
    assert (first["kind"], first["format"], first["method"], first["seed"]) == ("mask", "pai", "synflow", 0)
    assert (first["kept"], first["total"], first["density"]) == (13417, 268336, 13417 / 268336)
    assert first["bytes"] == MASK.stat().st_size
    assert first["asked_density"] == float(pai.info(MASK).story["density"]) == 0.05  # as the file calls it
    assert first["command"].startswith("pai prune resnet20.safetensors --method synflow")
    assert first["source_sha256"].startswith("7de6b0d1")
    assert len(tensors) == first["tensors"] == 20
    assert (tensors[0]["tensor"], tensors[0]["shape"], tensors[0]["kept"]) == ("conv1.weight", [16, 3, 3, 3], 329)
    assert sum(one["kept"] for one in tensors) == first["kept"]


def test_what_a_file_tells_is_shown_by_its_own_names() -> None:
    """But for the density that was asked for: `density` is the share that is kept, in every table."""
    assert {key: shown for key, shown in STORY.items() if key != shown} == {"density": "asked_density"}
    (first, *_) = records_of(pai.info(MASK))
    assert {key: first[shown] for key, shown in STORY.items() if key not in NUMBERS} == {
        key: MaskFile(MASK).metadata.get(key) for key in STORY if key not in NUMBERS
    }


def test_a_checkpoint() -> None:
    first, *tensors = records(SAMPLES / "resnet20.safetensors")
    assert (first["kind"], first["format"], first["kept"], first["density"]) == (
        "checkpoint",
        "safetensors",
        None,
        None,
    )
    assert first["network"].startswith("ResNet-20")
    assert {one["dtype"] for one in tensors} == {"float32", "int64"}


def test_what_torch_saved(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"one.odd.weight": torch.randn(3, 2, 1).bfloat16()}, path)
    found = pai.info(path)
    assert (found.kind, found.format, found.network, found.kept) == ("checkpoint", "torch", None, None)
    assert [(one.name, one.shape, one.dtype, one.total) for one in found.tensors] == [
        ("one.odd.weight", (3, 2, 1), "bfloat16", 6)
    ]


def test_pruned_weights_are_a_checkpoint(tmp_path: Path) -> None:
    """Zeros of weights may be a mask, and may not."""
    weights = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)
    weights[weights < 0.5] = 0
    save_file({"fc.weight": weights}, tmp_path / "w.safetensors")
    assert pai.info(tmp_path / "w.safetensors").kind == "checkpoint"


def test_masks_of_other_tools(tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", a=np.eye(4, dtype=bool), b=np.ones((2, 3), dtype=bool))
    found = pai.info(tmp_path / "m.npz")
    assert (found.kind, found.format, found.kept, found.total) == ("mask", "npz", 10, 22)


def test_a_program_is_told_and_not_run(tmp_path: Path) -> None:
    path = tmp_path / "a.pt2"
    torch.export.save(torch.export.export(torch.nn.Linear(3, 2), (torch.ones(1, 3),)), path)
    found = pai.info(path)
    assert (found.kind, found.tensors) == ("program", ())
    assert "trust=True allows that" in found.remark
    told = records_of(found)[0]
    assert (told["tensors"], told["total"]) == (None, None)
    assert "--trust allows that" in str(told["remark"])
    assert "without running code" in found.remark
    assert "--trust" in run_pai("info", path).out
    trusted = pai.info(path, trust=True)
    assert (trusted.kind, {one.name for one in trusted.tensors}) == ("program", {"weight", "bias"})


def test_a_folder() -> None:
    first, *files = records(SAMPLES)
    assert (first["kind"], first["tensors"], first["total"], first["kept"]) == ("folder", None, None, None)
    assert {one["kind"] for one in files} == {"mask", "checkpoint"}
    assert len(files) == len(list(SAMPLES.glob("*.safetensors")))
    assert first["bytes"] == sum(one["bytes"] for one in files)
    table = run_pai("info", SAMPLES).out
    assert "synflow-0.05.safetensors" in table
    assert "remake.sh" in table


def test_a_folder_with_folders(tmp_path: Path) -> None:
    """As `pai analyze` looks into them; graphs by themselves are told where their names say that they are."""
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "m.safetensors").write_bytes(MASK.read_bytes())
    (tmp_path / "runs" / "log.txt").write_text("epoch 1 of 3\n")
    (tmp_path / "g.edges").write_text("a b\na c\n")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "m.safetensors").write_bytes(MASK.read_bytes())
    found = pai.info(tmp_path)
    told = [(str(one.path.relative_to(tmp_path)), one.kind) for one in found.files]
    assert told == [("g.edges", "graph"), ("runs/a/m.safetensors", "mask")]
    assert found.remark == "1 more that are no mask, checkpoint or graph: runs/log.txt"
    assert [row["file"] for row in records(tmp_path)[1:]] == [str(one.path) for one in found.files]


@pytest.mark.parametrize("content", [b"", b"hello", MASK.read_bytes()[:-10], b"\x80\x04N."])
def test_what_is_neither(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises((CheckpointError, MaskError)):
        pai.info(path)
    done = run_pai("info", path)
    assert (done.status, done.out, len(done.said)) == (1, "", 1)
    assert done.said[0].startswith(f"pai: error: {path}: ")


def test_a_table_of_facts() -> None:
    lines = run_pai("info", MASK).out.splitlines()
    assert lines[0] == str(MASK)
    assert "  kept           13,417" in lines
    assert any(line.split() == ["conv1.weight", "16x3x3x3", "bool", "432", "329", "0.76157"] for line in lines)


@pytest.mark.parametrize(
    ("listing", "names"), [("methods", list(METHODS)), ("metrics", list(RANKED)), ("models", known_names())]
)
def test_listings(listing: str, names: list[str]) -> None:
    rows = json.loads(run_pai(listing, "--format", "json").out)
    assert [row["name"] for row in rows][: len(names)] == names
    assert rows == getattr(pai, f"list_{listing}")()
    table = run_pai(listing)
    assert (table.status, table.err) == (0, "")
    assert all(name in table.out for name in names)
    bare = run_pai(listing, "--format", "tsv", "--no-header").out.splitlines()
    assert [line.split("\t")[0] for line in bare][: len(names)] == names


def test_a_listing_tells_what_a_choice_needs() -> None:
    by_name = {row["name"]: row for row in pai.list_methods()}
    assert (by_name["snip"]["data"], by_name["snip"]["trains"]) == (True, False)
    assert (by_name["imp"]["trains"], by_name["imp"]["rounds"]) == (True, None)
    metrics = {row["name"]: row for row in pai.list_metrics()}
    assert metrics["log_path_weight"]["needs"] == "network and weights"
    assert (metrics["sigma_2"]["needs"], metrics["sigma_2"]["best"]) == ("mask", "smallest")
