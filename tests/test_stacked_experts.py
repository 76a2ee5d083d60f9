"""Experts in one tensor, pruned by a text as the same experts in modules of their own; and left whole where in doubt."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import languages
import numpy as np
import pytest
import torch
from conftest import CACHES
from safetensors.torch import load_file
from test_language import TEXT, best_in_groups, by_inverses, inputs_by_hooks, sequences
from torch import nn
from torch.nn.functional import linear, silu
from typer.testing import CliRunner

import pai_cli as pai
from pai_cli.app import app
from pai_cli.errors import LayerSelectionError, ModelFactoryError
from pai_cli.files.checkpoints import open_checkpoint
from pai_cli.models.experts import Part, joined
from pai_cli.telling import PaiWarning

pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")

EXPERTS = 4
AT = {"mixtral": "mlp", "qwen3_moe": "mlp", "gpt_oss": "mlp", "llama4_text": "feed_forward"}
TURNED = ("gpt_oss", "llama4_text")
UP, DOWN = (f"model.layers.0.mlp.experts.{leaf}_proj" for leaf in ("gate_up", "down"))


@cache
def folder(kind: str, dtype: torch.dtype = torch.float64, shards: int = 1) -> Path:
    """A folder whose experts are in stacks, which tests leave as it is."""
    name = f"{kind}-stacked-{str(dtype).removeprefix('torch.')}-{shards}"
    return languages.save_as_held(languages.network(kind, dtype), CACHES / name, shards)


def network(path: Path, kind: str) -> Any:
    """The network of a folder; transformers reads its own."""
    made = languages.network(kind)
    made.load_state_dict({name: one.double() for name, one in load_file(path / "model.safetensors").items()})
    made.config._experts_implementation = "eager"
    return made


# ---- the oracle: each expert two modules of its own, in float64


class Apart(nn.Module):
    """The same experts as linear layers, which are given the tokens that were sent to them, expert by expert."""

    def __init__(self, kind: str, stacked: Any):
        super().__init__()
        self.kind = kind
        self.up = nn.ModuleList(self._linear(stacked, "gate_up_proj", k) for k in range(EXPERTS))
        self.down = nn.ModuleList(self._linear(stacked, "down_proj", k) for k in range(EXPERTS))

    def _linear(self, stacked: Any, name: str, number: int) -> nn.Linear:
        matrix = getattr(stacked, name)[number].detach()
        matrix = matrix.T if self.kind in TURNED else matrix
        bias = getattr(stacked, f"{name}_bias", None)
        made = nn.Linear(matrix.shape[1], matrix.shape[0], bias=bias is not None, dtype=matrix.dtype)
        made.weight.data = matrix.clone()
        if bias is not None:
            made.bias.data = bias[number].detach().clone()
        return made

    def _gated(self, both: torch.Tensor) -> torch.Tensor:
        if self.kind != "gpt_oss":
            gate, up = both.chunk(2, dim=-1)
            return silu(gate) * up
        gate, up = both[:, ::2].clamp(max=7), both[:, 1::2].clamp(-7, 7)
        return (up + 1) * gate * torch.sigmoid(1.702 * gate)

    def forward(self, hidden: torch.Tensor, chosen: Any = None, shares: Any = None) -> torch.Tensor:
        if chosen is None:  # one copy of all tokens for each expert, 0 where it is not chosen
            batch = hidden.reshape(EXPERTS, -1, hidden.shape[-1])
            return torch.cat([self._one(k, batch[k], batch[k].abs().sum(-1) > 0) for k in range(EXPERTS)])
        found = torch.zeros_like(hidden)
        for k in range(EXPERTS):
            here = chosen == k
            found += (shares * here).sum(-1, keepdim=True) * self._one(k, hidden, here.any(-1))
        return found

    def _one(self, number: int, hidden: torch.Tensor, sent: torch.Tensor) -> torch.Tensor:
        found = torch.zeros_like(hidden)
        found[sent] = self.down[number](self._gated(self.up[number](hidden[sent])))
        return found


def apart(kind: str) -> Any:
    """The network with `Apart` in the place of its experts."""
    made = network(folder(kind), kind)
    for block in made.model.layers:
        mlp = block.get_submodule(AT[kind])
        mlp.experts = Apart(kind, mlp.experts)
    return made


def as_alone(kind: str, mask: Any) -> dict[str, torch.Tensor]:
    """Matrices (outputs, inputs) by what they are called in `apart`."""
    found = {}
    for name in mask:
        one = torch.from_numpy(np.array(mask[name])) if not isinstance(mask[name], torch.Tensor) else mask[name]
        if one.dim() < 3:
            found[name] = one
            continue
        leaf = {"gate_up_proj": "up", "down_proj": "down"}[name.rpartition(".")[2]]
        for k, matrix in enumerate(one):
            found[f"{name.rpartition('.')[0]}.{leaf}.{k}.weight"] = matrix.T if kind in TURNED else matrix
    return found


@pytest.mark.parametrize("kind", AT)
@pytest.mark.parametrize(
    ("method", "how"),
    [
        ("wanda", {"density": 0.3}),
        ("wanda", {"pattern": "2:4"}),
        ("sparsegpt", {"density": 0.5}),
        ("sparsegpt", {"pattern": "2:4"}),
    ],
    ids=str,
)
def test_stacks_are_pruned_as_modules_by_themselves(
    kind: str, method: str, how: dict[str, Any], tmp_path: Path
) -> None:
    mask = pai.prune(folder(kind), method, weights_out=tmp_path / "new", **how, **TEXT)
    for name, layout in mask.layouts.items():
        assert (layout.stacked, layout.transposed) == (".experts." in name, ".experts." in name and kind in TURNED)
    found, net = as_alone(kind, mask), apart(kind)
    assert sum(".experts." in name for name in found) == 2 * 2 * EXPERTS
    for block in range(2):
        names = [name for name in found if name.startswith(f"model.layers.{block}.")]
        inputs = inputs_by_hooks(net, names, sequences("mixtral"))
        for name in names:
            weight = net.get_parameter(name)
            assert len(inputs[name]) > 10, "a test of nothing"
            if method == "wanda":
                scores = weight.detach().abs() * inputs[name].square().sum(0).sqrt()
                width = scores.shape[1]
                keep, of = (2, 4) if "pattern" in how else (int(how["density"] * width + 0.5), width)
                wanted = best_in_groups(scores, keep, of)
                moved = weight.detach() * wanted
            else:
                amount = (2, 4) if "pattern" in how else how["density"]
                wanted, moved = by_inverses(weight.detach(), inputs[name], 1, amount)
            assert torch.equal(found[name], wanted), name
            with torch.no_grad():
                weight.copy_(moved)
    new = as_alone(kind, load_file(tmp_path / "new" / "model.safetensors"))
    for name, parameter in net.named_parameters():
        if name in found:
            assert torch.allclose(new[name], parameter, rtol=0, atol=1e-9), name


@pytest.mark.parametrize(
    ("method", "how"),
    [("wanda", {"density": 0.4}), ("wanda", {"density": 0.4, "allocation": "owl"}), ("sparsegpt", {"pattern": "2:4"})],
    ids=str,
)
def test_a_folder_of_the_same_experts_one_by_one(method: str, how: dict[str, Any], tmp_path: Path) -> None:
    """As transformers saves them, with gate and up apart: what both methods take output by output is the same."""
    made = network(folder("mixtral"), "mixtral")
    alone = pai.prune(languages.save(made, tmp_path / "alone"), method, **how, **TEXT)
    mask = pai.prune(folder("mixtral"), method, **how, **TEXT)
    assert len(alone) == 2 * (4 + 3 * EXPERTS)
    for name, one in alone.items():
        if "experts" not in name:
            np.testing.assert_array_equal(mask[name], one)
            continue
        at, _, rest = name.partition(".block_sparse_moe.experts.")
        number, leaf, _ = rest.split(".")
        if leaf == "w2":
            np.testing.assert_array_equal(mask[f"{at}.mlp.experts.down_proj"][int(number)], one)
        else:
            both = np.split(mask[f"{at}.mlp.experts.gate_up_proj"][int(number)], 2)
            np.testing.assert_array_equal(both[leaf == "w3"], one)


@pytest.mark.parametrize("kind", AT)
def test_routers_are_left_whole(kind: str) -> None:
    """Of Llama 4 the router is a linear layer, of others a parameter."""
    mask = pai.prune(folder(kind), "wanda", density=0.5, **TEXT)
    routers = {
        name for name in network(folder(kind), kind).state_dict() if name.endswith((".router.weight", ".gate.weight"))
    }
    told = json.loads(mask.metadata["left_whole"])
    assert len(routers) == 2
    assert routers.isdisjoint(mask)
    assert all("router" in told[name].lower() for name in routers)


def test_a_kind_of_block_that_the_network_has_not_is_told(tmp_path: Path) -> None:
    """transformers knows chunks, and GPT-OSS does not."""
    made = languages.save_as_held(languages.network("gpt_oss"), tmp_path / "net")
    told = json.loads((made / "config.json").read_text(encoding="utf-8"))
    told["layer_types"] = ["chunked_attention", "full_attention"]
    (made / "config.json").write_text(json.dumps(told), encoding="utf-8")
    with pytest.raises(
        ModelFactoryError, match=r"cannot be run on tokens block by block \(KeyError: 'chunked_attention'\)"
    ):
        pai.prune(made, "wanda", density=0.5, **TEXT)


# ---- what is written


@pytest.mark.parametrize("kind", ["mixtral", "gpt_oss"])
def test_shards_bfloat16_and_files(kind: str, tmp_path: Path) -> None:
    source = folder(kind, torch.bfloat16, 3)
    held = pai.prune(source, "sparsegpt", density=0.5, **TEXT)
    path = tmp_path / "m.safetensors"
    given = ["--method", "sparsegpt", "--density", "0.5", "--sequences", "6", "--sequence-length", "24", "--packed"]
    (tmp_path / "text.txt").write_text(TEXT["text"][0], encoding="utf-8")
    given += ["--text", str(tmp_path / "text.txt"), "-o", str(path), "-w", str(tmp_path / "new")]
    shown = CliRunner().invoke(app, ["prune", str(source), *given])
    assert shown.exit_code == 0, shown.output
    mask = pai.Mask.load(path)
    assert mask == held
    assert mask.layouts == held.layouts
    new, old = open_checkpoint(tmp_path / "new"), open_checkpoint(source)
    assert new.shapes == old.shapes
    for name in new.shapes:
        if name in mask:
            assert not new.array(name)[~mask[name]].any()
            assert new.dtype(name) == "bfloat16"
        else:
            np.testing.assert_array_equal(new.array(name), old.array(name))
    rows = pai.analyze(path, tmp_path / "new", layers="*experts*", no_store=True).layers
    assert len(rows) == 2 * 2 * EXPERTS
    assert {name.partition("[")[0] for name in rows} == {name for name in mask if "experts" in name}


def test_stacks_are_left_out_whole(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="pai"):
        mask = pai.prune(folder("mixtral"), "wanda", density={"*": 0.5}["*"], ignore="*gate_up_proj", **TEXT)
    assert [name for name in mask if "experts" in name] == [DOWN, DOWN.replace("0", "1")]
    assert any("experts in one tensor, 16 matrices in all" in line for line in caplog.messages)
    with pytest.raises(LayerSelectionError, match=r"leaves out '.*\[1\]', which is in one tensor with experts"):
        pai.prune(folder("mixtral"), "wanda", density=0.5, ignore="*down_proj?1?", **TEXT)
    by_expert = pai.prune(folder("mixtral"), "wanda", densities={f"{DOWN}[[]2]": 0.25, "*": 0.75}, **TEXT)
    assert [one.mean() for one in by_expert[DOWN]] == [0.75, 0.75, 0.25, 0.75]


@pytest.mark.parametrize("kind", ["mixtral", "llama4_text"])
@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_experts_that_no_token_comes_to_are_pruned_by_size_and_told(kind: str, method: str, tmp_path: Path) -> None:
    made = languages.network(kind, torch.float32, num_local_experts=8)
    source = languages.save_as_held(made, tmp_path / "net")
    short = {"text": [languages.text()[:200]], "sequences": 1, "sequence_length": 2}
    with pytest.warns(PaiWarning, match=r"^no token of the text came into model\.layers\.0\.\w+\.experts\..*\[\d\], "):
        mask = pai.prune(source, method, density=0.5, **short)
    unseen = mask.metadata["no_text_came_into"].split(", ")
    assert 2 * 2 * 4 <= len(unseen) < 2 * 2 * 8
    for name in unseen:
        stack, _, number = name.removesuffix("]").partition("[")
        weight, kept = made.get_parameter(stack)[int(number)].detach().abs(), mask[stack][int(number)]
        weight, kept = (weight.T, kept.T) if kind in TURNED else (weight, kept)
        rows = weight if method == "wanda" else weight.reshape(1, -1)
        wanted = best_in_groups(rows, rows.shape[1] // 2, rows.shape[1]).reshape(weight.shape)
        np.testing.assert_array_equal(kept, wanted.numpy())


@pytest.mark.parametrize("kind", ["mixtral", "llama4_text"])
def test_allocations_know_stacks(kind: str) -> None:
    masks = [
        pai.prune(folder(kind), method, density=0.4, allocation=name, **more)
        for name in ("alphapruning", "owl")
        for method, more in (("magnitude", TEXT if name == "owl" else {}), ("wanda", TEXT))
    ]
    for one, other in (masks[:2], masks[2:]):
        assert set(one) == set(other)
        assert sum(layout.stacked for layout in one.layouts.values()) == 4
        told = json.loads(one.metadata["densities"])
        assert told == json.loads(other.metadata["densities"])
        block = f"model.layers.1.{AT[kind]}.experts.down_proj"
        assert other[block].mean() == pytest.approx(told[f"{block}[0]"], abs=0.03)


def test_names_of_stacks() -> None:
    shapes = {"a.experts.up[0]": (6, 5), "a.experts.up[1]": (6, 5), "a.norm.weight": (5,)}
    found = joined(shapes, "gpt_oss", {"a.experts.up": (2, 6, 5)})
    assert found.shapes == {"a.experts.up": (2, 6, 5), "a.norm.weight": (5,)}
    assert found.parts["a.experts.up"] == (
        Part("a.experts.up[0]", (0, slice(0, 6))),
        Part("a.experts.up[1]", (1, slice(0, 6))),
    )


# ---- experts that are run in other ways: no number is made of what is not certain


Run = Callable[[Any, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def _expert_by_expert(self: Any, hidden: torch.Tensor, chosen: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    found = torch.zeros_like(hidden)
    for k in range(EXPERTS):
        tokens, place = torch.where(chosen == k)
        gate, up = self.apply_up(hidden[tokens], k).chunk(2, -1)
        found.index_add_(0, tokens, linear(silu(gate) * up, self.down_proj[k]) * shares[tokens, place, None])
    return found


def _all_tokens(self: Any, hidden: torch.Tensor, chosen: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    gate, up = torch.bmm(hidden.expand(EXPERTS, -1, -1), self.gate_up_proj.transpose(1, 2)).chunk(2, -1)
    outputs = torch.bmm(silu(gate) * up, self.down_proj.transpose(1, 2))
    share = torch.zeros(len(hidden), EXPERTS, dtype=hidden.dtype).scatter_add(1, chosen, shares.to(hidden.dtype))
    return torch.einsum("eth,te->th", outputs, share)


WAYS: dict[str, tuple[Callable[[Any, torch.Tensor, int], torch.Tensor] | Run, str]] = {
    "einsum": (
        lambda self, given, k: torch.einsum("ti,oi->to", given, self.gate_up_proj[k]),
        r"einsum reads it otherwise than expert by expert",
    ),
    "gate and up apart": (
        lambda self, given, k: torch.cat([linear(given, one) for one in self.gate_up_proj[k].chunk(2)], -1),
        r"is multiplied otherwise than expert by expert, from the side of its inputs",
    ),
    "from the other side": (
        lambda self, given, k: (self.gate_up_proj[k] @ given.T).T,
        r"matmul reads it otherwise than expert by expert",
    ),
    "a copy": (
        lambda self, given, k: linear(given, self.gate_up_proj.clone()[k]),
        r"clone reads it otherwise than expert by expert",
    ),
    "twice": (
        lambda self, given, k: linear(given, self.gate_up_proj[k]) * 0.5 + linear(given, self.gate_up_proj[k]) * 0.5,
        r"expert 0 gets (\d+) tokens by one count, and \d+ by another",
    ),
    "not all tokens": (
        lambda self, given, k: nn.functional.pad(linear(given[1:], self.gate_up_proj[k]), (0, 0, len(given[:1]), 0)),
        r"expert 0 gets \d+ tokens by one count, and \d+ by another",
    ),
    "all tokens": (_all_tokens, r"each of its experts is given all tokens"),
}


@pytest.mark.parametrize("way", WAYS)
def test_experts_that_are_run_in_other_ways_are_left_whole(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.models.mixtral.modeling_mixtral import MixtralExperts

    run, why = WAYS[way]
    if way == "all tokens":
        monkeypatch.setattr(MixtralExperts, "forward", run)
    else:
        monkeypatch.setattr(MixtralExperts, "apply_up", run, raising=False)
        monkeypatch.setattr(MixtralExperts, "forward", _expert_by_expert)
    with pytest.warns(PaiWarning, match=rf"^{UP}(, model.*)?: left whole: inputs are not known: {why}$"):
        mask = pai.prune(folder("mixtral"), "wanda", density=0.5, weights_out=tmp_path / "new", **TEXT)
    assert UP not in mask
    assert mask.summary is not None
    assert not any(UP in layer.name for layer in mask.summary.layers)
    told = json.loads(mask.metadata["left_whole"])
    assert told[UP].startswith("inputs are not known: ")
    assert {"model.embed_tokens.weight", UP.replace("0", "1")} < told.keys()
    new, old = load_file(tmp_path / "new" / "model.safetensors"), load_file(folder("mixtral") / "model.safetensors")
    assert torch.equal(new[UP], old[UP])
    assert all(not new[name][~torch.from_numpy(mask[name])].any() for name in mask)


def test_the_same_run_another_way_that_is_certain(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.mixtral.modeling_mixtral import MixtralExperts

    wanted = pai.prune(folder("mixtral"), "wanda", density=0.5, **TEXT)
    monkeypatch.setattr(MixtralExperts, "apply_up", lambda self, x, k: x @ self.gate_up_proj[k].T, raising=False)
    monkeypatch.setattr(MixtralExperts, "forward", _expert_by_expert)
    assert pai.prune(folder("mixtral"), "wanda", density=0.5, **TEXT) == wanted


def test_tokens_of_others_in_a_batch_of_experts(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.llama4.modeling_llama4 import Llama4TextExperts

    def with_a_shift(self: Any, hidden: torch.Tensor) -> torch.Tensor:
        batch = hidden.view(EXPERTS, -1, hidden.shape[-1])
        gate, up = torch.bmm(batch, self.gate_up_proj).chunk(2, -1)
        return torch.bmm(silu(gate) * up + 1, self.down_proj).view(-1, hidden.shape[-1])

    monkeypatch.setattr(Llama4TextExperts, "forward", with_a_shift)
    with pytest.warns(
        PaiWarning, match=r"down_proj: left whole: .* given something of tokens that are not sent to them$"
    ):
        mask = pai.prune(folder("llama4_text"), "wanda", density=0.5, **TEXT)
    assert [name.rpartition(".")[2] for name in mask if "experts" in name] == ["gate_up_proj"] * 2


def test_experts_that_are_all_given_all_tokens_are_left_whole(tmp_path: Path) -> None:
    """Whether the router chose all of them is not seen, of either matrix: what it did not choose may go later."""
    made = languages.save_as_held(languages.network("llama4_text", num_experts_per_tok=EXPERTS), tmp_path / "net")
    with pytest.warns(PaiWarning, match=r"left whole: inputs are not known: each of its experts is given all tokens$"):
        mask = pai.prune(made, "wanda", density=0.5, **TEXT)
    assert not [name for name in mask if ".experts." in name]
    assert sum(".experts." in name for name in json.loads(mask.metadata["left_whole"])) == 4


def test_nothing_but_doubts_is_refused_and_owl_tells_them(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from transformers.models.mixtral.modeling_mixtral import MixtralExperts

    monkeypatch.setattr(MixtralExperts, "forward", lambda self, hidden, chosen, shares: hidden)
    with pytest.raises(
        LayerSelectionError, match=r"^model\..*: what comes into it cannot be told: expert 0 gets 0 tokens by one"
    ):
        pai.prune(folder("mixtral"), "wanda", density=0.5, ignore="*attn*", **TEXT)
    with caplog.at_level(logging.INFO, logger="pai"):
        mask = pai.prune(folder("mixtral"), "magnitude", density=0.4, allocation="owl", **TEXT)
    assert sum("does not count among outliers, for its inputs are not known" in line for line in caplog.messages) == 4
    assert UP in mask
