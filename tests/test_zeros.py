"""Zeros that are no pruning: buffers, padding, tables; and pruned networks that have them too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Pai
from safetensors.torch import save_file

from pai_cli.errors import MaskError
from pai_cli.files.conversion import read_any
from pai_cli.files.opening import open_mask

Tensors = dict[str, torch.Tensor]


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def dropped(*shape: int, density: float = 0.3, seed: int = 0) -> torch.Tensor:
    return drawn(*shape, seed=seed) * (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < density)


def sines(length: int, width: int) -> torch.Tensor:
    angles = torch.arange(length)[:, None] / 10000 ** (torch.arange(0, width, 2) / width)
    return torch.stack([angles.sin(), angles.cos()], -1).reshape(length, width)


def bands(bins: int, filters: int) -> torch.Tensor:
    """Triangular filters, as of a mel scale."""
    centres = torch.linspace(0, bins, filters + 2)[1:-1]
    return (1 - (torch.arange(bins)[:, None] - centres).abs() * filters / bins).clamp(min=0)


def padded(rows: int, width: int, *at: int) -> torch.Tensor:
    table = drawn(rows, width, seed=4)
    table[list(at)] = 0
    return table


NETWORK: Tensors = {f"layers.{i}.fc.weight": drawn(24, 24, seed=i) for i in range(3)}
NETWORK |= {f"layers.{i}.fc.bias": torch.zeros(24) for i in range(3)}

BUFFERS: dict[str, tuple[torch.Tensor, str]] = {
    "h.0.attn.bias": (torch.tril(torch.ones(1, 1, 24, 24)), "by its name no weight"),
    "causal.weight": (torch.tril(torch.ones(24, 24)), "0 and 1 alone"),
    "decay.weight": (torch.tril(drawn(24, 24)), "0 by whole diagonals"),
    "heads.weight": (torch.triu(drawn(2, 3, 24, 24)), "0 by whole diagonals"),
    "band.weight": (torch.triu(torch.tril(drawn(24, 20), 3), -3), "0 by whole diagonals"),
    "distance.weight": (torch.arange(24.0) - torch.arange(24.0)[:, None], "0 by whole diagonals"),
    "identity.weight": (torch.eye(24), "0 and 1 alone"),
    "scaling.weight": (torch.diag(drawn(24)), "0 by whole diagonals"),
    "one_hot.weight": (torch.eye(24)[torch.arange(60) % 7], "0 and 1 alone"),
    "window.attn_mask": (torch.tril(torch.ones(4, 24, 24)) * -100.0, "by its name no weight"),
    "masked.weight": (torch.tril(torch.ones(24, 24)) * -1e4, "0 and -10000 alone"),
    "embedding.weight": (padded(30, 24, 0), "0 in row 0 alone"),
    "roberta.weight": (padded(30, 24, 1), "0 in row 1 alone"),
    "vocabulary.weight": (padded(32, 24, 28, 29, 30, 31), "0 in rows 28 to 31, whole ones, alone"),
    "wide.weight": (padded(24, 30, 0).T.contiguous(), "0 in column 0 alone"),
    "position.weight": (sines(40, 24), "0 in row 0 alone"),
    "encoder.pe": (sines(40, 24)[:, None], "by its name no weight"),
    "mel.weight": (bands(60, 8), "0 outside a band"),
    "pos_embed": (padded(30, 24, 3, 9, 17), "by its name no weight"),
    "swin.relative_coords_table": (dropped(15, 30), "by its name no weight"),
}


@pytest.mark.parametrize("save", [torch.save, save_file], ids=["pt", "safetensors"])
@pytest.mark.parametrize("name", BUFFERS)
def test_zeros_by_a_rule_are_asked_about(tmp_path: Path, name: str, save: Callable[..., None]) -> None:
    tensor, why = BUFFERS[name]
    for number in (1, 2, 5):  # of blocks: in as many layers as pruned ones would be
        path = tmp_path / f"{number}"
        save(NETWORK | {f"{block}.{name}": tensor.contiguous().clone() for block in range(number)}, path)
        what = rf"{number}: has weights, not masks, with zeros that no pruning makes: '0.{name}' \({why}\).*; kind=dense of "
        with pytest.raises(MaskError, match=what):
            open_mask(path)
        with pytest.raises(MaskError, match=what):
            read_any(path, None, None, trust=False)


@pytest.mark.parametrize("name", BUFFERS)
def test_a_pruned_network_leaves_its_buffers_out_and_says_so(tmp_path: Path, name: str) -> None:
    tensor, why = BUFFERS[name]
    pruned = {one: dropped(24, 24, seed=i) for i, one in enumerate(NETWORK) if one.endswith("weight")}
    torch.save(NETWORK | pruned | {name: tensor}, tmp_path / "m.pt")
    mask = open_mask(tmp_path / "m.pt")
    assert mask.names == tuple(pruned)
    for one, weight in pruned.items():
        assert np.array_equal(mask.array(one), (weight != 0).numpy())
    assert mask.remark.endswith(f" of all weights); left out '{name}' ({why})")


def zero(tensor: torch.Tensor, *rows: int) -> torch.Tensor:
    changed = tensor.clone()
    changed[list(rows)] = 0
    return changed


PRUNED: dict[str, Tensors] = {
    "weights here and there": {f"{i}.weight": dropped(24, 24, seed=i) for i in range(3)},
    "very few are left": {f"{i}.weight": dropped(40, 40, density=0.01, seed=i) for i in range(3)},
    "very few are gone": {f"{i}.weight": dropped(40, 40, density=0.97, seed=i) for i in range(3)},
    "filters": {f"{i}.weight": zero(drawn(16, 8, 3, 3, seed=i), 2, 3, 9, i + 10) for i in range(3)},
    "small filters": {f"{i}.weight": dropped(3, 3, 3, 3, seed=i) for i in range(3)},
    "two of four": {f"{i}.weight": drawn(16, 16) * torch.tensor([1.0, 0, 1, 0]).repeat(4) for i in range(2)},
    "one constant, both signs": {f"{i}.weight": dropped(24, 24, seed=i).sign() * 0.1 for i in range(3)},
    "one layer, all there is": {"fc.weight": dropped(10, 64)},
    "a layer all gone": {"a.weight": dropped(24, 24), "b.weight": torch.zeros(24, 24), "c.weight": drawn(24, 24)},
}


@pytest.mark.parametrize("case", PRUNED)
def test_a_pruned_network_is_known(tmp_path: Path, case: str) -> None:
    save_file({name: tensor.contiguous() for name, tensor in PRUNED[case].items()}, tmp_path / "m")
    mask = open_mask(tmp_path / "m")
    assert set(mask.names) == {name for name, tensor in PRUNED[case].items() if (tensor == 0).any()}
    assert "taken as pruned where they are 0" in mask.remark


UNPRUNED: dict[str, tuple[Tensors, str]] = {
    "no zero": ({}, "has weights, none of them 0, and no masks"),
    "a layer that begins at 0": ({"b": torch.zeros(40, 40)}, r"too few of them are 0 \(0 of all, in 1 of 4 layers\)"),
    "zeros by chance": (
        {"layers.0.fc.weight": NETWORK["layers.0.fc.weight"].where(torch.arange(24 * 24).view(24, 24) % 99 != 0, 0)},
        "too few of them are 0",
    ),
    "one layer alone": ({"layers.0.fc.weight": dropped(24, 24)}, "0 .*in 1 of 3 layers"),
    "integers": ({"positions": torch.zeros(90, 90, dtype=torch.int64)}, "none of them 0"),
}


@pytest.mark.parametrize("case", UNPRUNED)
@pytest.mark.parametrize("save", [torch.save, save_file], ids=["pt", "safetensors"])
def test_an_unpruned_network_is_not_guessed_to_be_a_mask(tmp_path: Path, case: str, save: Callable[..., Any]) -> None:
    save(NETWORK | UNPRUNED[case][0], tmp_path / "c")
    with pytest.raises(MaskError, match=UNPRUNED[case][1]):
        read_any(tmp_path / "c", None, None, trust=False)
    with pytest.raises(MaskError, match="a checkpoint goes to weights="):
        open_mask(tmp_path / "c")


def test_whoever_says_so_has_each_zero_taken(pai: Pai, tmp_path: Path) -> None:
    tensor = BUFFERS["decay.weight"][0]
    save_file(NETWORK | {"decay.weight": tensor}, tmp_path / "c")
    assert "--from dense of pai convert takes each 0 as pruned" in pai("analyze", tmp_path / "c").err
    done = pai("convert", tmp_path / "c", "--from", "dense", "-o", tmp_path / "m.safetensors")
    assert done.status == 0
    mask = open_mask(tmp_path / "m.safetensors")
    assert mask.names == ("decay.weight",)
    assert np.array_equal(mask.array("decay.weight"), (tensor != 0).numpy())
