"""Masks that keep two of every four weights, written for tools with kernels for that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Pai, save_mask
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import pai_cli as pai
from pai_cli.errors import MaskError
from pai_cli.files.foreign.two_of_four import TwoOfFour, refused_by_torch

NOT_RUN = "torch.sparse.to_sparse_semi_structured was not run on them, as it needs a CUDA GPU"


def two_of_four(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    """A mask that keeps two of every four, in some none or one."""
    random = np.random.default_rng(seed)
    mask = np.zeros((rows * columns // 4, 4), bool)
    for four in mask:
        four[random.permutation(4)[: random.choice([0, 1, 2, 2, 2])]] = True
    return mask.reshape(rows, columns)


def written(folder: Path, target: str, dtype: torch.dtype = torch.float32) -> tuple[dict[str, torch.Tensor], Path]:
    """A checkpoint's weights, 0 where pruned; and the file that `convert` made of it."""
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "a.weight": (6, 12),
        "a.bias": (6,),
        "b.weight": (5, 8),
        "conv.weight": (3, 4, 2, 2),
        "out.weight": (3, 6),
    }
    state = {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes.items()}
    save_file(state, folder / "net.safetensors")
    masks = {"a.weight": two_of_four(6, 12), "b.weight": two_of_four(5, 8, 1)}
    masks |= {"conv.weight": np.ones((3, 4, 2, 2), bool), "out.weight": np.eye(3, 6, dtype=bool)}
    save_mask(folder / "m.safetensors", masks)
    output = folder / "out.safetensors"
    pai.convert(folder / "m.safetensors", output, to=target, weights=folder / "net.safetensors")
    dense = {name: one * torch.from_numpy(masks[name]) if name in masks else one for name, one in state.items()}
    return dense, output


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_bits_and_values_give_the_weights_back(tmp_path: Path, dtype: torch.dtype) -> None:
    dense, output = written(tmp_path, "sparse-24-bitmask", dtype)
    stored = load_file(output)
    assert set(stored) == {
        *(f"{layer}.{part}" for layer in "ab" for part in ("compressed", "bitmask", "shape")),
        *("a.bias", "conv.weight", "out.weight"),
    }
    for layer in "ab":
        compressed, bitmask, shape = (stored[f"{layer}.{part}"] for part in ("compressed", "bitmask", "shape"))
        rows, columns = dense[f"{layer}.weight"].shape
        assert (shape.tolist(), shape.dtype) == ([[rows], [columns]], torch.int64)
        assert (compressed.shape, compressed.dtype) == ((rows, columns // 2), dtype)
        assert (bitmask.shape, bitmask.dtype) == ((rows, -(-columns // 8)), torch.uint8)
        back = torch.zeros(rows, columns, dtype=dtype)
        for row in range(rows):
            values = iter(compressed[row])
            for column in range(columns):
                if int(bitmask[row, column // 8]) >> (column % 8) & 1:
                    back[row, column] = next(values)
            assert next(values, None) is None
        assert torch.equal(back, dense[f"{layer}.weight"])
    assert all(torch.equal(stored[name], dense[name]) for name in ("a.bias", "conv.weight", "out.weight"))


def test_what_belongs_into_the_configuration(tmp_path: Path) -> None:
    dense, output = written(tmp_path, "sparse-24-bitmask")
    with safe_open(output, "pt") as file:
        config = json.loads(file.metadata()["quantization_config"])
    matrices = [dense[f"{name}.weight"] for name in ("a", "b", "out")]
    share = sum(int((one == 0).sum()) for one in matrices) / sum(one.numel() for one in matrices)
    assert config == {
        "quant_method": "compressed-tensors",
        "format": "dense",
        "config_groups": {},
        "sparsity_config": {
            "format": "sparse-24-bitmask",
            "sparsity_structure": "2:4",
            "global_sparsity": share,
            "targets": ["Linear"],
            "ignore": ["out"],
        },
    }


def test_compressed_tensors_reads_it(tmp_path: Path) -> None:
    """Where a version is installed that has the format: 0.9 to 0.13."""
    theirs = pytest.importorskip("compressed_tensors.compressors.sparse_compressors.sparse_24_bitmask")
    dense, output = written(tmp_path, "sparse-24-bitmask")
    stored = load_file(output)
    for layer in "ab":
        parts = {part: stored[f"{layer}.{part}"] for part in ("shape", "compressed", "bitmask")}
        back = theirs.Sparse24BitMaskTensor.from_compressed_data(**parts).decompress()
        assert torch.equal(back, dense[f"{layer}.weight"])


def test_for_torch_the_weights_are_written(tmp_path: Path, pai: Pai, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.chdir(tmp_path)
    dense, output = written(tmp_path, "semi-structured")
    stored = load_file(output)
    assert stored.keys() == dense.keys()
    assert all(torch.equal(stored[name], one) for name, one in dense.items())
    done = pai("convert", "m.safetensors", "--to", "semi-structured", "--weights", "net.safetensors")
    assert done.status == 0
    assert f"pai: m.safetensors: 2 layers are 2:4 by their masks; {NOT_RUN}" in done.said
    assert (
        "pai: m.safetensors: 2 of 4 layers are written as they are: conv.weight is no matrix of a linear layer, out.weight "
        "has 6 inputs, no multiple of 4"
    ) in done.said
    assert (tmp_path / "m-semi-structured.safetensors").exists()


@pytest.mark.parametrize("target", ["semi-structured", "sparse-24-bitmask"])
def test_what_is_no_mask_of_two_of_four(tmp_path: Path, target: str) -> None:
    save_file({"a.weight": torch.ones(3, 8)}, tmp_path / "net.safetensors")
    mask = np.zeros((3, 8), bool)
    mask[1, 5:] = True
    save_mask(tmp_path / "m.safetensors", {"a.weight": mask})
    with pytest.raises(
        MaskError, match=r"is no mask of 2:4: a\.weight keeps 3 of inputs 4 to 7 in row 1; pattern=2:4 makes"
    ):
        pai.convert(
            tmp_path / "m.safetensors", tmp_path / "o.safetensors", to=target, weights=tmp_path / "net.safetensors"
        )
    assert not (tmp_path / "o.safetensors").exists()


def test_masks_of_prune_are_taken(here: Path, pai: Pai) -> None:
    words = ("prune", "small.safetensors", "--method", "magnitude", "--pattern", "2:4", "-o", "m.safetensors")
    assert pai(*words).status == 0
    done = pai("convert", "m.safetensors", "--to", "sparse-24-bitmask", "--weights", "small.safetensors")
    assert done.status == 0
    assert len([name for name in load_file(here / "m-sparse-24-bitmask.safetensors") if name.endswith(".bitmask")]) == 3
    done = pai("convert", "m.safetensors", "--to", "sparse-24-bitmask", "--weights", "small.safetensors", "-o", "m.pt")
    assert done.said[-1].startswith("pai: error: m.pt: --to sparse-24-bitmask writes .safetensors; give -o such a name")


class Back:
    """What stands in for torch's sparse tensor: gives these values back."""

    def __init__(self, dense: torch.Tensor):
        self._dense = dense

    def to_dense(self) -> torch.Tensor:
        return self._dense


def test_torch_says_which_layers_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its function needs a GPU; here another stands in its place, which takes, changes, and refuses."""

    def convert(dense: torch.Tensor) -> Any:
        if len(dense) == 3:
            raise RuntimeError("Error original_tensor.shape\nis not supported!")
        return Back(dense + (len(dense) == 2))

    tensors = {name: torch.ones(rows, 4) for name, rows in (("a.weight", 1), ("b.weight", 2), ("c.weight", 3))}
    monkeypatch.setattr(torch.sparse, "to_sparse_semi_structured", convert)
    assert refused_by_torch(tensors, TwoOfFour(tuple(tensors), {}), "cpu") == {
        "b.weight": "its values come back changed",
        "c.weight": "RuntimeError: Error original_tensor.shape",
    }


def test_torch_itself_refuses_what_is_on_no_gpu() -> None:
    found = refused_by_torch(
        {"a.weight": torch.zeros(64, 64, dtype=torch.float16)}, TwoOfFour(("a.weight",), {}), "cpu"
    )
    assert "Only CUDA tensors are currently supported" in found["a.weight"]
