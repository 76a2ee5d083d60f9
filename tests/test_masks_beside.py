"""Masks under a key of their own beside weights, and folders of pruned models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Pai
from safetensors.torch import save_file

from pai_cli.files.opening import open_mask

WEIGHTS = {"conv.weight": torch.randn(4, 3, 3, 3), "fc.weight": torch.randn(5, 6)}
MASKS = {name: torch.rand(one.shape, generator=torch.Generator().manual_seed(1)) < 0.4 for name, one in WEIGHTS.items()}

HELD: dict[str, tuple[Any, str]] = {
    "mask_dict": ({"state_dict": WEIGHTS, "mask_dict": MASKS, "epoch": 3}, "mask_dict"),
    "mask": ({"state_dict": WEIGHTS, "mask": {k: m.float() for k, m in MASKS.items()}}, "mask"),
    "masks": ({"model": WEIGHTS, "masks": {k: m.int() for k, m in MASKS.items()}}, "masks"),
    "distiller": (
        {"state_dict": WEIGHTS, "compression_sched": {"masks_dict": MASKS | {"fc.bias": None}}},
        "compression_sched.masks_dict",
    ),
    "wrapped": ({"masks": {f"module.{k}": m for k, m in MASKS.items()}, "net": WEIGHTS}, "masks"),
}


@pytest.mark.parametrize("case", HELD)
def test_masks_beside_weights_are_read_and_told(tmp_path: Path, case: str) -> None:
    held, under = HELD[case]
    torch.save(held, tmp_path / "m.pt")
    mask = open_mask(tmp_path / "m.pt")
    assert mask.remark == f"its masks are those under {under!r}"
    assert {name: mask.array(name).tolist() for name in mask.names} == {k: m.tolist() for k, m in MASKS.items()}


@pytest.mark.parametrize("sharded", [False, True])
def test_the_folder_of_a_pruned_model_is_a_mask(pai: Pai, here: Path, sharded: bool) -> None:
    pruned = {f"layers.{i}.q_proj.weight": torch.randn(16, 16) * (torch.rand(16, 16) < 0.5) for i in range(2)}
    folder = here / "out"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    if sharded:
        for name, one in pruned.items():
            save_file({name: one}, folder / f"{name}.safetensors")
        index = {"weight_map": {name: f"{name}.safetensors" for name in pruned}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    else:
        save_file(pruned, folder / "model.safetensors")
    assert pai("analyze", "out", "--no-store").status == 0
    assert pai("convert", "out", "-o", "m.safetensors").status == 0
    mask = open_mask(here / "m.safetensors")
    for name, one in pruned.items():
        assert np.array_equal(mask.array(name), (one != 0).numpy())
