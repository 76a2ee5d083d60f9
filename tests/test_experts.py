"""Mixtures of experts: each expert its own matrix, pruned by the tokens that the router sends to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import languages
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_language import TEXT, best_in_groups, by_inverses, folder, inputs_by_hooks, sequences

import pai_cli as pai
from pai_cli.files.checkpoints import open_checkpoint
from pai_cli.models.experts import Part, joined
from pai_cli.telling import PaiWarning

pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")

EXPERTS, HEIGHT, CHOSEN = 4, 24, 2


def routed(net: Any, block: int, given: torch.Tensor) -> dict[str, torch.Tensor]:
    """What comes into each matrix of a block: the router and the experts by hand."""
    at = f"model.layers.{block}"
    attention = [f"{at}.self_attn.{name}_proj.weight" for name in "qkvo"]
    inputs = inputs_by_hooks(net, [*attention, f"{at}.mlp.weight"], given)
    tokens = inputs.pop(f"{at}.mlp.weight")
    mlp = net.get_submodule(f"{at}.mlp")
    chosen = (tokens @ mlp.gate.weight.T).softmax(-1).topk(CHOSEN, dim=-1).indices
    for expert in range(EXPERTS):
        own = tokens[(chosen == expert).any(-1)]
        gate, up = mlp.experts.gate_up_proj[expert].detach().split(HEIGHT)
        name = f"{at}.block_sparse_moe.experts.{expert}"
        inputs |= {f"{name}.w1.weight": own, f"{name}.w3.weight": own}
        inputs[f"{name}.w2.weight"] = torch.nn.functional.silu(own @ gate.T) * (own @ up.T)
    return inputs


def weight_of(net: Any, name: str) -> torch.Tensor:
    if ".experts." not in name:
        return net.get_parameter(name)
    at, _, rest = name.partition(".block_sparse_moe.experts.")
    number, leaf = rest.split(".")[:2]
    experts = net.get_submodule(f"{at}.mlp.experts")
    if leaf == "w2":
        return experts.down_proj[int(number)]
    return experts.gate_up_proj[int(number)].split(HEIGHT)[leaf == "w3"]


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_experts_by_hand(method: str, tmp_path: Path) -> None:
    mask = pai.prune(folder("mixtral"), method, density=0.5, weights_out=tmp_path / "new", **TEXT)
    net = languages.load(folder("mixtral"))
    assert len(mask) == 2 * (4 + 3 * EXPERTS)
    for block in range(2):
        inputs = routed(net, block, sequences("mixtral"))
        names = [name for name in mask if name.startswith(f"model.layers.{block}.")]
        assert set(names) == set(inputs)
        for name in names:
            weight = weight_of(net, name)
            if method == "wanda":
                scores = weight.detach().abs() * inputs[name].square().sum(0).sqrt()
                wanted = best_in_groups(scores, scores.shape[1] // 2, scores.shape[1])
                moved = weight.detach() * wanted
            else:
                # The damping makes the number of runs matter where an input is always 0, and none is here.
                wanted, moved = by_inverses(weight.detach(), inputs[name], 1, 0.5)
            assert np.array_equal(mask[name], wanted.numpy()), name
            with torch.no_grad():
                weight.copy_(moved)
    written = languages.load(tmp_path / "new")
    for (name, one), (_, other) in zip(written.named_parameters(), net.named_parameters(), strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-9), name


def test_the_router_is_left_whole_and_told() -> None:
    mask = pai.prune(folder("mixtral"), "wanda", density=0.5, **TEXT)
    told = json.loads(mask.metadata["left_whole"])
    assert told["model.layers.1.block_sparse_moe.gate.weight"] == "a parameter of MixtralTopKRouter"
    assert set(told) == {
        "lm_head.weight",
        "model.embed_tokens.weight",
        *(f"model.layers.{block}.block_sparse_moe.gate.weight" for block in range(2)),
    }


def test_shards_and_bfloat16(tmp_path: Path) -> None:
    source = folder("mixtral", torch.bfloat16, "8KB")
    mask = pai.prune(source, "sparsegpt", density=0.5, weights_out=tmp_path / "new", **TEXT)
    new = open_checkpoint(tmp_path / "new")
    assert new.shapes == open_checkpoint(source).shapes
    for name in mask:
        assert not new.array(name)[~mask[name]].any()
    assert languages.load(tmp_path / "new").dtype == torch.bfloat16


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_experts_that_no_token_comes_to_are_pruned_by_size_and_told(method: str, tmp_path: Path) -> None:
    made = languages.network("mixtral", torch.float32, num_local_experts=8)
    source = languages.save(made, tmp_path / "net")
    short = {"text": [languages.text()[:200]], "sequences": 1, "sequence_length": 2}
    with pytest.warns(
        PaiWarning, match=r"^no token of the text came into model\.layers\.0\.block_sparse_moe\.experts\."
    ):
        mask = pai.prune(source, method, density=0.5, **short)
    unseen = mask.metadata["no_text_came_into"].split(", ")
    assert len(unseen) >= 2 * 3 * 4
    name = unseen[0]
    weight = load_file(source / "model.safetensors")[name]
    if method == "wanda":
        wanted = best_in_groups(weight.abs(), weight.shape[1] // 2, weight.shape[1])
    else:
        wanted = best_in_groups(weight.abs().reshape(1, -1), weight.numel() // 2, weight.numel()).reshape(weight.shape)
    assert np.array_equal(mask[name], wanted.numpy())


def test_allocations_of_experts() -> None:
    masks = [
        pai.prune(folder("mixtral"), method, density=0.4, allocation="alphapruning", **more)
        for method, more in (("magnitude", {}), ("wanda", TEXT))
    ]
    told = [json.loads(mask.metadata["densities"]) for mask in masks]
    assert told[0] == told[1]
    assert set(masks[0]) == set(masks[1]) == set(told[0])


def test_names_of_experts() -> None:
    shapes = {
        f"m.layers.0.{at}.experts.{number}.{leaf}.weight": (3, 5) if leaf != down else (5, 3)
        for at, leaves, down in (("mlp", ("gate_proj", "up_proj", "down_proj"), "down_proj"),)
        for number in (1, 0)
        for leaf in leaves
    } | {"m.norm.weight": (5,), "m.layers.0.mlp.shared_expert.up_proj.weight": (2, 5)}
    found = joined(shapes, "qwen3_moe")
    assert found.shapes["m.layers.0.mlp.experts.gate_up_proj"] == (2, 6, 5)
    assert found.shapes["m.layers.0.mlp.experts.down_proj"] == (2, 5, 3)
    at = "m.layers.0.mlp.experts"
    assert found.parts[f"{at}.gate_up_proj"] == (
        Part(f"{at}.0.gate_proj.weight", (0, slice(0, 3))),
        Part(f"{at}.0.up_proj.weight", (0, slice(3, 6))),
        Part(f"{at}.1.gate_proj.weight", (1, slice(0, 3))),
        Part(f"{at}.1.up_proj.weight", (1, slice(3, 6))),
    )
    assert found.parts["m.layers.0.mlp.shared_expert.up_proj.weight"] == (
        Part("m.layers.0.mlp.shared_expert.up_proj.weight"),
    )
    assert joined(shapes, "llama").shapes == shapes
