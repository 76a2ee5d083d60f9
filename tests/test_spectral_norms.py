"""Layers with a spectral norm: what would be 0/0, or scored by another norm than theirs, is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Pai, save_mask
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils import spectral_norm as by_hook
from torch.nn.utils.parametrizations import spectral_norm

import pai_cli as pai_library
from pai_cli.errors import CollapseError, CompactError, ScoreError
from pai_cli.models.spectral_norms import spectral_normed

KINDS: dict[str, tuple[Callable[[nn.Module], nn.Module], str]] = {
    "parametrisation": (spectral_norm, "parametrizations.weight.original"),
    "hook": (by_hook, "weight_orig"),
}
EMPTY = (
    "keeps no weight of 1.{}, and the spectral norm of '1' divides 0 by 0, so that outputs are NaN; take the norm off, or "
    "prune to a mask that keeps some, as with a larger density or the scope layer"
)


def network(normed: Callable[[nn.Module], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), normed(nn.Linear(64, 8)), nn.ReLU(), nn.Linear(8, 10))


def emptied(leaf: str) -> dict[str, np.ndarray]:
    return {f"1.{leaf}": np.zeros((8, 64), bool), "3.weight": np.ones((10, 8), bool)}


@pytest.mark.parametrize("kind", KINDS)
def test_such_layers_are_found(kind: str) -> None:
    normed, leaf = KINDS[kind]
    assert spectral_normed(network(normed)) == {f"1.{leaf}": "'1'"}
    assert spectral_normed(normed(nn.Linear(3, 2))) == {leaf: "the network"}
    assert spectral_normed(parametrizations.weight_norm(nn.Linear(3, 2))) == {}


@pytest.mark.parametrize("kind", KINDS)
def test_one_without_weights_is_refused_by_name(kind: str) -> None:
    normed, leaf = KINDS[kind]
    model, masks = network(normed), emptied(leaf)
    data = (torch.randn(40, 64), torch.arange(40) % 10) * 2
    with pytest.raises(CollapseError) as failure:
        pai_library.train(model, data, mask=masks, epochs=1, batch_size=10)
    assert str(failure.value) == f"the mask: {EMPTY.format(leaf)}"
    with pytest.raises(CollapseError, match="the mask: keeps no weight of 1"):
        pai_library.compact(masks, model, input_shape=(64,))
    with pytest.raises(CollapseError, match="the mask: keeps no weight of 1"):
        pai_library.Mask(masks).apply(model)
    masks[f"1.{leaf}"][0, 0] = True
    pai_library.train(model, data, mask=masks, epochs=1, batch_size=10)


@pytest.mark.parametrize("kind", KINDS)
def test_a_round_that_empties_one_is_refused_by_name(kind: str) -> None:
    normed, leaf = KINDS[kind]
    model = network(normed)
    with torch.no_grad():
        model[1].get_parameter(leaf).mul_(1e-4)
    data = (torch.randn(200, 64), torch.arange(200) % 10)
    with pytest.raises(CollapseError) as failure:
        pai_library.prune(model, "imp", density=0.02, rounds=3, epochs=1, rewind=0, lr=1e-9, data=data)
    assert str(failure.value) == f"imp: a round: {EMPTY.format(leaf)}"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["synflow", "synflow-l2", "ntk-sap", "px"])
def test_methods_that_score_other_weights_refuse_it(kind: str, method: str) -> None:
    data: dict[str, Any] = {"data": (torch.randn(200, 64), torch.arange(200) % 10)} if method == "px" else {}
    with pytest.raises(ScoreError) as failure:
        pai_library.prune(network(KINDS[kind][0]), method, input_shape=(64,), density=0.5, **data)
    assert str(failure.value) == (
        f"{method}: '1' has a spectral norm, which divides by a singular value of its own weights, and the method puts "
        "others in their place; give another method=, or take the norm off"
    )


def test_the_command_names_the_mask(pai: Pai, here: Path) -> None:
    normed, leaf = KINDS["parametrisation"]
    (here / "net.py").write_text(
        "from torch import nn\nfrom torch.nn.utils.parametrizations import spectral_norm\n"
        "def make(): return nn.Sequential(nn.Flatten(), spectral_norm(nn.Linear(64, 8)), nn.ReLU(), nn.Linear(8, 10))\n"
    )
    save_file(network(normed).state_dict(), here / "net.safetensors")
    save_mask(here / "m.safetensors", emptied(leaf))
    words = ("--model", "net.py:make", "--input-shape", "1,8,8")
    trained = pai(
        "train", "net.safetensors", "--mask", "m.safetensors", "--data", "digits", *words, "-o", "t.safetensors"
    )
    compacted = pai("compact", "m.safetensors", "--weights", "net.safetensors", *words)
    for done in (trained, compacted):
        assert (done.status, done.said[-1]) == (1, f"pai: error: m.safetensors: {EMPTY.format(leaf)}")


def test_a_network_of_nan_is_not_compacted() -> None:
    class ByNothing(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) / 0

    model = nn.Sequential(nn.Linear(3, 4), ByNothing(4, 2))
    masks = {"0.weight": np.ones((4, 3), bool), "1.weight": np.ones((2, 4), bool)}
    with pytest.raises(CompactError) as failure:
        pai_library.compact(masks, model, input_shape=(3,))
    assert str(failure.value) == (
        "the model: gives NaN or infinity alone with this mask, so no smaller network can be compared with it; give another "
        "mask, or a network that gives numbers"
    )
