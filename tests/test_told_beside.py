"""What is said beside an answer: masks given twice, globs that chose nothing, precision that changes, the device."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Pai
from safetensors.torch import save_file
from torch import nn

import pai_cli as pai
from pai_cli.api.inputs import device_of
from pai_cli.errors import ModelFactoryError


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "m.npz", **{f"{name}.weight": rng.random((8, 8)) < 0.5 for name in ("conv", "fc")})
    (tmp_path / "link.npz").symlink_to(tmp_path / "m.npz")
    return tmp_path


@pytest.mark.parametrize("command", ["analyze", "rank"])
def test_a_mask_by_two_names_is_told(command: str, masks: Path, pai: Pai) -> None:
    said = pai(command, masks / "m.npz", masks / "link.npz").said
    assert f"pai: {masks}/link.npz: is {masks}/m.npz by another name, and is measured under both" in said


def test_a_mask_that_is_given_again_is_told(masks: Path, pai: Pai) -> None:
    done = pai("analyze", masks / "m.npz", masks / "m.npz", masks, "--summary", "--format", "csv")
    assert f"pai: {masks}/m.npz: is given 3 times, and counts once" in done.said
    assert done.out.count(f"{masks}/m.npz") == 1


def test_a_glob_that_chose_nothing_is_told(masks: Path, pai: Pai) -> None:
    done = pai("analyze", masks / "m.npz", "--layers", "fc", "--layers", "head*")
    assert done.status == 0
    assert "pai: --layers head*: matches no layer, and chose none" in done.said
    assert not any("chose none" in one for one in pai("analyze", masks / "m.npz", "--layers", "fc").said)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_that_becomes_whole_is_told(
    dtype: torch.dtype, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="pai")
    weights = {f"fc{at}.weight": torch.randn(4, 4, dtype=dtype) for at in (1, 2)}
    torch.save(weights, tmp_path / "net.pt")
    data = np.random.default_rng(0).random((80, 4), np.float32), np.arange(80) % 4
    pai.train(tmp_path / "net.pt", data=(*data, *data), epochs=1, batch_size=8, input_shape=(4,))
    line = (
        f"{tmp_path}/net.pt: 2 tensors of 16 bits, 'fc1.weight' the first of them, are trained, and written, in 32 bits"
    )
    assert (line in caplog.messages) == (dtype != torch.float32)


def test_a_gpu_that_is_chosen_is_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="pai")
    for there, name in ((False, "auto"), (True, "cpu"), (True, "cuda")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        device_of(name)
        assert not caplog.messages
    assert device_of("auto") == "cuda"
    assert caplog.messages == ["a GPU does the work (device=auto, as there is one; device=cpu leaves it out)"]


class Called(nn.Module):
    """Has a layer of the name of a method of every module."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.add("half")

    def add(self, name: str) -> None:
        """A layer under a name that a type checker cannot know."""
        setattr(self, name, nn.Linear(4, 4))


def test_a_layer_that_its_own_name_hides_is_refused() -> None:
    with pytest.raises(ModelFactoryError, match=r"has its weight 'half.weight' under a name that its class has"):
        pai.prune(Called(), "magnitude", density=0.5)


@pytest.mark.parametrize("suffix", ["npz", "pt", "safetensors"])
def test_masks_of_buffers_are_told(suffix: str, tmp_path: Path, pai: Pai) -> None:
    rng = np.random.default_rng(0)
    masks = {"h.0.attn.bias": np.tril(np.ones((1, 1, 8, 8), bool)), "fc.weight": rng.random((8, 8)) < 0.5}
    others = {"h.0.attn.bias": rng.random((8, 8)) < 0.5, "fc.weight": np.tril(np.ones((8, 8), bool))}
    line = "counts 'h.0.attn.bias', which by name and zeros (whole diagonals) is a buffer and no weight; make masks of"
    for arrays, told in ((masks, True), (others, False)):
        if suffix == "npz":
            np.savez(tmp_path / "m.npz", **arrays)
        else:
            tensors = {name: torch.from_numpy(one) for name, one in arrays.items()}
            (torch.save if suffix == "pt" else save_file)(tensors, tmp_path / f"m.{suffix}")
        assert (line in pai("analyze", tmp_path / f"m.{suffix}").err) == told
