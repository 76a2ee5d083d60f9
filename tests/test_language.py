"""Language models pruned by a text, against oracles that run the whole network or invert every matrix; and new folders."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import languages
import numpy as np
import pytest
import torch
from conftest import CACHES, ROOT
from safetensors.torch import load_file

import pai_cli as pai
from pai_cli.errors import (
    CheckpointError,
    DensityError,
    LayerSelectionError,
    MethodOptionError,
    ModelFactoryError,
    NotFiniteError,
    OutputError,
    ScoreError,
)
from pai_cli.files.checkpoints import open_checkpoint
from pai_cli.files.model_folders import new_folder
from pai_cli.methods.sparsegpt import prune_matrix
from pai_cli.models.language import LanguageModel, open_language_model
from pai_cli.models.stream import Stream
from pai_cli.pruning.base import Pattern
from pai_cli.pruning.matrices import Inputs, Matrix, keep_largest_in_rows

pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")

LENGTH, SEQUENCES = 24, 6
TEXT = {"text": [languages.text()[:6_000]], "sequences": SEQUENCES, "sequence_length": LENGTH}


@cache
def folder(kind: str, dtype: torch.dtype = torch.float64, shard: str | None = None) -> Path:
    """A folder that tests read and leave as it is."""
    name = f"{kind}-{str(dtype).removeprefix('torch.')}-{shard or 'whole'}"
    return languages.save(languages.network(kind, dtype), CACHES / name, shard)


def pruned(kind: str, method: str, **more: Any) -> pai.Mask:
    return pai.prune(folder(kind), method, **{"density": 0.5, **TEXT, **more})


def sequences(kind: str) -> torch.Tensor:
    """What the text of `TEXT` is cut into, and drawn from it, as the product has it."""
    from pai_cli.data.text import Wanted, calibration

    wanted = Wanted(SEQUENCES, LENGTH)
    return torch.from_numpy(calibration(TEXT["text"], folder(kind), wanted, 0).tokens)


# ---- the oracles: the whole network with hooks, in float64


def inputs_by_hooks(net: Any, names: list[str], given: torch.Tensor) -> dict[str, torch.Tensor]:
    """What comes into each of these weights' modules, all tokens one after the other, as the whole network runs."""
    found: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    handles = [
        net.get_submodule(name.removesuffix(".weight")).register_forward_pre_hook(
            lambda _module, args, name=name: found[name].append(args[0].detach().reshape(-1, args[0].shape[-1]))
        )
        for name in names
    ]
    with torch.no_grad():
        net(input_ids=given)
    for handle in handles:
        handle.remove()
    return {name: torch.cat(parts) for name, parts in found.items()}


def in_blocks(mask: pai.Mask) -> list[list[str]]:
    """The layers of each block, by the number in their names."""
    found: dict[str, list[str]] = {}
    for name in mask:
        found.setdefault(name.split(".attn.")[0].split(".mlp.")[0].split(".self_attn.")[0].split(".fc")[0], []).append(
            name
        )
    return list(found.values())


def as_matrix(kind: str, tensor: torch.Tensor) -> torch.Tensor:
    """Rows are outputs."""
    return tensor.T if kind == "gpt2" else tensor


def best_in_groups(scores: torch.Tensor, keep: int, of: int) -> torch.Tensor:
    """By sorting each group by itself."""
    rows = scores.reshape(-1, of).tolist()
    best = [set(sorted(range(of), key=lambda j: (-row[j], j))[:keep]) for row in rows]
    return torch.tensor([[i in one for i in range(of)] for one in best]).reshape(scores.shape)


@pytest.mark.parametrize("kind", languages.KINDS)
@pytest.mark.parametrize(
    ("options", "keep", "of"),
    [({"density": 0.3}, 0.3, 0), ({"density": None, "pattern": "2:4"}, 2, 4), ({"invert": True}, 0.5, 0)],
    ids=["density", "pattern", "invert"],
)
def test_wanda_is_what_hooks_on_the_whole_network_say(kind: str, options: dict[str, Any], keep: float, of: int) -> None:
    mask = pruned(kind, "wanda", **options)
    net = languages.load(folder(kind))
    blocks = in_blocks(mask)
    assert [len(names) for names in blocks] == [len(mask) // 2] * 2
    for names in blocks:
        inputs = inputs_by_hooks(net, names, sequences(kind))
        for name in names:
            weight = net.get_parameter(name)
            matrix = as_matrix(kind, weight.detach())
            scores = matrix.abs() * inputs[name].square().sum(0).sqrt()
            scores = -scores if "invert" in options else scores
            columns = matrix.shape[1]
            count = int(keep) if of else int(keep * columns + 0.5)
            wanted = best_in_groups(scores, count, of or columns)
            assert np.array_equal(as_matrix(kind, torch.from_numpy(mask[name].copy())), wanted), name
            with torch.no_grad():
                as_matrix(kind, weight).mul_(wanted)
    assert mask.summary is not None
    assert mask.summary.scope == mask.metadata["scope"] == "output"
    assert mask.kept == sum(int(one.sum()) for one in mask.values())


@pytest.mark.parametrize("kind", ["llama", "opt"])
@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_the_head_where_it_is_asked_for(kind: str, method: str, tmp_path: Path) -> None:
    mask = pruned(kind, method, head=True, weights_out=tmp_path / "new")
    assert list(mask)[-1] == "lm_head.weight"
    assert "lm_head.weight" not in json.loads(mask.metadata["left_whole"])
    blocks = pruned(kind, method)
    assert all(np.array_equal(mask[name], blocks[name]) for name in blocks)
    assert len(mask) == len(blocks) + 1
    written = languages.load(tmp_path / "new")  # the blocks are pruned there, and the head's input is theirs
    inputs = inputs_by_hooks(written, ["lm_head.weight"], sequences(kind))["lm_head.weight"]
    weight = languages.load(folder(kind)).get_parameter("lm_head.weight").detach()
    if method == "wanda":
        wanted = best_in_groups(weight.abs() * inputs.square().sum(0).sqrt(), weight.shape[1] // 2, weight.shape[1])
        moved = weight * wanted
    else:
        wanted, moved = by_inverses(weight, inputs, SEQUENCES, 0.5)
    assert np.array_equal(mask["lm_head.weight"], wanted.numpy())
    assert torch.allclose(written.get_parameter("lm_head.weight"), moved, rtol=0, atol=1e-9)


def test_a_head_that_is_the_table_of_tokens_is_refused() -> None:
    with pytest.raises(LayerSelectionError, match=r"the head is the table of tokens too, .*; leave head=True out$"):
        pruned("gpt2", "wanda", head=True)


def by_inverses(
    weight: torch.Tensor, inputs: torch.Tensor, runs: int, amount: float | tuple[int, int], width: int = 128
) -> tuple[torch.Tensor, torch.Tensor]:
    """Optimal Brain Surgeon: for each column the inverse of the Hessian of those that are left, made anew."""
    weight = weight.clone()
    hessian = 2 * inputs.T @ inputs / runs
    dead = hessian.diagonal() == 0
    hessian[dead, dead] = 1
    hessian += 0.01 * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=hessian.dtype)
    weight[:, dead] = 0
    inverses = [torch.linalg.inv(hessian[j:, j:]) for j in range(len(hessian))]
    mask = torch.ones_like(weight, dtype=torch.bool)
    rows, columns = weight.shape
    for start in range(0, columns, width):
        stop = min(start + width, columns)
        if isinstance(amount, float):
            before = int(mask[:, :start].sum())
            scores = torch.stack([weight[:, j] ** 2 / inverses[j][0, 0] for j in range(start, stop)], 1)
            keep = int(amount * rows * stop + 0.5) - before
            mask[:, start:stop] = best_in_groups(scores.reshape(1, -1), keep, scores.numel()).reshape(scores.shape)
        for j in range(start, stop):
            if isinstance(amount, tuple) and (j - start) % amount[1] == 0:
                group = slice(j, j + amount[1])
                scores = torch.stack([weight[:, k] ** 2 / inverses[k][0, 0] for k in range(j, j + amount[1])], 1)
                mask[:, group] = best_in_groups(scores, *amount)
            gone = torch.where(mask[:, j], 0, weight[:, j])
            weight[:, j:] -= torch.outer(gone, inverses[j][0] / inverses[j][0, 0])
            weight[~mask[:, j], j] = 0
    return mask, weight


@pytest.mark.parametrize("amount", [0.5, 0.3, (2, 4)])
@pytest.mark.parametrize("columns", [24, 140])
def test_sparsegpt_is_the_surgeon_by_explicit_inverses(amount: float | tuple[int, int], columns: int) -> None:
    draw = torch.Generator().manual_seed(columns)
    inputs = torch.randn(300, columns, dtype=torch.float64, generator=draw) * torch.linspace(0.1, 2, columns)
    inputs[:, 3] = 0  # an input that is never there
    weight = torch.randn(5, columns, dtype=torch.float64, generator=draw)
    seen = Inputs.none_yet(weight, "gram")
    for part in inputs.split(100):
        seen.add(part)
    pattern = Pattern(*amount) if isinstance(amount, tuple) else None
    found = prune_matrix(Matrix(weight, seen, pattern.density if pattern else float(amount), pattern))
    mask, moved = by_inverses(weight, inputs, 3, amount)
    assert torch.equal(found.mask, mask)
    assert torch.allclose(found.weight, moved, rtol=0, atol=1e-12)
    assert (
        int(found.mask.sum())
        == (2 if pattern else int(amount * weight.numel() + 0.5) / weight.numel() * 4) * weight.numel() / 4
    )
    assert not found.weight[~found.mask].any()


@pytest.mark.parametrize("kind", languages.KINDS)
def test_sparsegpt_block_by_block_is_that_of_the_whole_network(kind: str, tmp_path: Path) -> None:
    mask = pruned(kind, "sparsegpt", weights_out=tmp_path / "new")
    net = languages.load(folder(kind))
    for names in in_blocks(mask):
        inputs = inputs_by_hooks(net, names, sequences(kind))
        for name in names:
            weight = net.get_parameter(name)
            wanted, moved = by_inverses(as_matrix(kind, weight.detach()), inputs[name], SEQUENCES, 0.5)
            assert torch.equal(as_matrix(kind, torch.from_numpy(mask[name].copy())), wanted), name
            with torch.no_grad():
                as_matrix(kind, weight).copy_(moved)
    written = languages.load(tmp_path / "new")
    for name, parameter in written.named_parameters():
        assert torch.allclose(parameter, net.get_parameter(name), rtol=0, atol=1e-9), name
    assert mask.metadata["scope"] == "layer"


def test_a_hessian_that_cannot_be_inverted_is_told() -> None:
    weight = torch.ones(2, 3)
    seen = Inputs(torch.ones(3, dtype=torch.float64), torch.full((3, 3), torch.nan), 1, 1)
    with pytest.raises(ScoreError, match=r"^a: the Hessian of its inputs cannot be inverted; give a longer text="):
        prune_matrix(Matrix(weight, seen, 0.5, name="a"))


def test_ties_go_to_the_lower_input_and_are_counted() -> None:
    kept, tie = keep_largest_in_rows(torch.tensor([[1.0, 2, 2, 2], [3, 1, 2, 0]]), 2)
    assert kept.tolist() == [[False, True, True, False], [True, False, True, False]]
    assert tie == (3, 2)
    assert keep_largest_in_rows(torch.ones(2, 3), 3)[0].all()
    assert not keep_largest_in_rows(torch.ones(2, 3), 0)[0].any()


# ---- block by block


def test_one_block_is_in_memory_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, through = [], Stream.through

    def looking(self: Stream, model: LanguageModel, block: Any, *args: Any, **more: Any) -> None:
        seen.append({name for name, one in model.network.named_parameters() if not one.is_meta})
        assert seen[-1] == set(model.names_of(block))
        through(self, model, block, *args, **more)

    monkeypatch.setattr(Stream, "through", looking)
    pruned("llama", "wanda")
    assert len(seen) == 3  # the last block's outputs nobody needs
    assert all(seen)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_shards_are_not_mapped_into_memory(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of a mapped file count as the process's own memory, until all of the folder is there."""
    from pai_cli.files.tensors import TensorFile

    model = open_language_model(open_checkpoint(folder("llama", dtype)))
    wanted = {name: model.checkpoint.array(name) for name in model.checkpoint.shapes}
    monkeypatch.setattr(TensorFile, "array", lambda *_: pytest.fail("a map of the file is read"))
    with model.in_memory(model.stored, "cpu"):
        for name, one in wanted.items():
            assert np.array_equal(model.network.get_parameter(name).numpy(), one), name


def test_a_folder_that_changes_while_it_is_read_is_told(tmp_path: Path) -> None:
    shutil.copytree(folder("llama"), tmp_path / "net")
    model = open_language_model(open_checkpoint(tmp_path / "net"))
    model.checkpoint.span("lm_head.weight")
    (tmp_path / "net" / "model.safetensors").write_bytes(b"cut")
    with (
        pytest.raises(CheckpointError, match="changed while it was read; wait until it is written, and try again"),
        model.in_memory(["lm_head.weight"], "cpu"),
    ):
        pytest.fail("nothing is in memory")


def test_the_seed_draws_the_sequences_and_nothing_else() -> None:
    first, again, other = pruned("llama", "wanda"), pruned("llama", "wanda"), pruned("llama", "wanda", seed=1)
    assert first == again
    assert first != other


def test_what_is_left_whole_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="pai"):
        mask = pruned("llama", "wanda")
    told = json.loads(mask.metadata["left_whole"])
    assert told == {
        "lm_head.weight": "the head, which gives the logits",
        "model.embed_tokens.weight": "a table that is looked up",
    }
    lines = [record.getMessage() for record in caplog.records]
    assert any("lm_head.weight (the head, which gives the logits)" in line for line in lines)
    assert f"the text: {SEQUENCES} sequences of {LENGTH} tokens, drawn by the seed" in lines
    tied = json.loads(pruned("gpt2", "wanda").metadata["left_whole"])
    assert tied["transformer.wte.weight"] == "a table that is looked up, and the head, which gives the logits"
    facts = mask.metadata
    assert (facts["text"], facts["sequences"], facts["sequence_length"]) == ("the text", "6", "24")


def test_densities_by_layer_and_layers_left_out() -> None:
    mask = pruned("llama", "sparsegpt", density=None, densities={"*.mlp.*": 0.25, "*": 0.75}, ignore="*.o_proj")
    assert not any("o_proj" in name for name in mask)
    for name, one in mask.items():
        assert one.mean() == (0.25 if ".mlp." in name else 0.75)


def test_a_pattern_that_does_not_fit_leaves_layers_whole(recwarn: pytest.WarningsRecorder) -> None:
    mask = pruned("llama", "wanda", density=None, pattern="2:5")  # 40 inputs of down_proj, 24 of the others
    assert {name for name, one in mask.items() if not one.all()} == {name for name in mask if "down_proj" in name}
    with pytest.raises(LayerSelectionError, match=r"^pattern=2:7: 7 divides the inputs of no layer"):
        pruned("llama", "wanda", density=None, pattern="2:7")


@pytest.mark.parametrize(
    ("options", "error", "line"),
    [
        ({"density": 0.0}, DensityError, "density 0.0: must be above 0"),
        ({"density": 0.012}, DensityError, "density=0.012: wanda keeps that of the inputs of each output, and of 40"),
        ({"ignore": "zzz"}, LayerSelectionError, "ignore=zzz: matches none of the 14"),
        ({"text": None}, MethodOptionError, "text=: wanda reads no text"),
    ],
)
def test_requests_that_cannot_be(options: dict[str, Any], error: type[Exception], line: str) -> None:
    if options == {"text": None}:
        options, line = {"text": None, "sequences": None}, "method=wanda: reads a text; give text="
    with pytest.raises(error, match="^" + line.replace(".", r"\.")):
        pruned("llama", "wanda", **options)


def test_models_that_cannot_be_run_in_blocks(tmp_path: Path) -> None:
    with pytest.raises(ModelFactoryError, match=r"a text is read by a Hugging Face model; give its folder$"):
        pai.prune(folder("llama") / "model.safetensors", "wanda", density=0.5, **TEXT)
    import transformers

    pair = transformers.BartConfig(
        vocab_size=96, d_model=24, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=24, decoder_ffn_dim=24,
        encoder_attention_heads=2, decoder_attention_heads=2, max_position_embeddings=48,
    )  # fmt: skip
    with languages.quiet():
        transformers.AutoModelForSeq2SeqLM.from_config(pair).save_pretrained(tmp_path / "net")
    with pytest.raises(ModelFactoryError, match="has an encoder and a decoder"):
        pai.prune(tmp_path / "net", "wanda", density=0.5, **TEXT)


def test_blocks_of_several_kinds_are_given_what_is_theirs() -> None:
    """Gemma 2's first block looks back six tokens, and its second all the way."""
    assert LENGTH > 6
    mask = pruned("gemma2", "wanda")
    net = languages.load(folder("gemma2"))
    for names in in_blocks(mask):
        inputs = inputs_by_hooks(net, names, sequences("gemma2"))
        for name in names:
            weight = net.get_parameter(name)
            scores = weight.detach().abs() * inputs[name].square().sum(0).sqrt()
            wanted = best_in_groups(scores, scores.shape[1] // 2, scores.shape[1])
            assert np.array_equal(mask[name], wanted.numpy()), name
            with torch.no_grad():
                weight.mul_(wanted)


@pytest.mark.parametrize("how", ["changed between", "changed in place", "the other way round"])
def test_blocks_that_are_not_run_one_on_the_other_are_told(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.llama.modeling_llama import LlamaModel

    def forward(self: Any, input_ids: torch.Tensor, **_: Any) -> Any:
        hidden = self.embed_tokens(input_ids)
        layers = list(self.layers)
        for layer in layers if how.startswith("changed") else layers[::-1]:
            hidden = layer(hidden).mul_(2) if how == "changed in place" else layer(hidden) * 2
        return hidden

    monkeypatch.setattr(LlamaModel, "forward", forward)
    why = "its blocks are not run one after the other" if how.startswith("changed") else "none of its blocks is run"
    with pytest.raises(ModelFactoryError, match=rf"cannot be run on tokens block by block \({why}"):
        pruned("llama", "wanda")


@pytest.mark.parametrize("places", [1, 2])
def test_blocks_that_give_tuples(places: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As DeBERTa's, whose network takes a pair from each."""
    from transformers.modeling_outputs import BaseModelOutputWithPast
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaModel

    wanted = pai.prune(folder("llama"), "wanda", density=0.5, head=True, **TEXT)
    alone = LlamaDecoderLayer.forward

    def forward(self: Any, input_ids: torch.Tensor, **_: Any) -> Any:
        hidden = self.embed_tokens(input_ids)
        turns = self.rotary_emb(hidden, torch.arange(input_ids.shape[1])[None])
        for layer in self.layers:
            given = layer(hidden, position_embeddings=turns)
            if places == 1:
                hidden = given[0]
            else:
                hidden, _attention = given
        return BaseModelOutputWithPast(last_hidden_state=self.norm(hidden))

    def block(*given: Any, **named: Any) -> Any:
        return (alone(*given, **named), *[None] * (places - 1))

    monkeypatch.setattr(LlamaModel, "forward", forward)
    monkeypatch.setattr(LlamaDecoderLayer, "forward", block)
    assert pai.prune(folder("llama"), "wanda", density=0.5, head=True, **TEXT) == wanted


def test_a_network_that_reads_no_tokens_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    monkeypatch.setattr(transformers.LlamaForCausalLM, "forward", lambda self, pixel_values: None)
    with pytest.raises(ModelFactoryError, match=r"llama, 2 blocks: cannot be run on tokens .*; give a language model$"):
        pruned("llama", "wanda")


def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    made = languages.network("llama")
    with torch.no_grad():
        made.get_parameter("model.layers.1.mlp.up_proj.weight")[0, 0] = torch.nan
    with pytest.raises(NotFiniteError, match=r"'model.layers.1.mlp.up_proj.weight' holds nan at index 0"):
        pai.prune(languages.save(made, tmp_path / "net"), "wanda", density=0.5, **TEXT)
    with torch.no_grad():
        made.get_parameter("model.layers.1.mlp.up_proj.weight").fill_(1e300)
    with pytest.raises(ScoreError, match=r"not finite.*check the weights$"):
        pai.prune(languages.save(made, tmp_path / "net"), "wanda", density=0.5, **TEXT)


def test_elsewhere_a_method_by_text_says_what_it_needs() -> None:
    with pytest.raises(MethodOptionError, match=r"^method=wanda: prunes a language model by the inputs that a text"):
        pai.sample(torch.nn.Sequential(torch.nn.Linear(6, 5)), "wanda", population=2)


def test_the_model_is_opened_as_names_and_shapes_say() -> None:
    model = open_language_model(open_checkpoint(folder("opt")))
    assert model.dtype == torch.float64
    assert (model.vocabulary, model.positions) == (languages.VOCABULARY, languages.POSITIONS)
    assert [block.path for block in model.blocks] == ["model.decoder.layers.0", "model.decoder.layers.1"]
    assert "lm_head.weight" not in model.front
    assert {"model.decoder.embed_tokens.weight", "model.decoder.embed_positions.weight"} <= set(model.front)


# ---- folders


@pytest.mark.parametrize("shard", [None, "8KB"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_a_folder_is_written_whole(method: str, dtype: torch.dtype, shard: str | None, tmp_path: Path) -> None:
    source = folder("llama", dtype, shard)
    (source / "README.md").write_text("a file beside")
    mask = pai.prune(
        source, method, density=0.5, output=tmp_path / "m.safetensors", weights_out=tmp_path / "new", **TEXT
    )
    names = {path.name for path in source.iterdir()}
    assert {path.name for path in (tmp_path / "new").iterdir()} == names
    assert (len([name for name in names if name.endswith(".safetensors")]) > 1) == (shard is not None)
    for name in names - {name for name in names if name.endswith(".safetensors")}:
        assert (tmp_path / "new" / name).read_bytes() == (source / name).read_bytes()
    old, new = (
        {name: one for path in sorted(at.glob("*.safetensors")) for name, one in load_file(path).items()}
        for at in (source, tmp_path / "new")
    )
    assert old.keys() == new.keys()
    for name, tensor in new.items():
        assert tensor.dtype == dtype
        if name not in mask:
            assert torch.equal(tensor, old[name])
            continue
        kept = torch.from_numpy(mask[name].copy())
        assert not tensor[~kept].any()
        assert torch.equal(tensor[kept], old[name][kept]) == (method == "wanda")
    assert pai.Mask.load(tmp_path / "m.safetensors") == mask
    assert languages.load(tmp_path / "new").dtype == dtype
    assert pai.Mask.of(tmp_path / "new")["model.layers.0.mlp.up_proj.weight"].mean() <= 0.5
    checkpoint = open_checkpoint(tmp_path / "new")
    assert checkpoint.metadata["method"] == method
    assert checkpoint.metadata["source_sha256"] == mask.metadata["source_sha256"] == open_checkpoint(source).sha256
    assert [*tmp_path.glob(".pai-*")] == []


def test_shards_and_reading_order_change_nothing() -> None:
    one, many = (
        pai.prune(folder("llama", torch.float32, shard), "wanda", density=0.5, **TEXT) for shard in (None, "8KB")
    )
    assert one == many


def test_a_folder_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    with pytest.raises(OutputError, match=r"new: exists already; force=True replaces it$"):
        pruned("llama", "wanda", weights_out=tmp_path / "new")
    with pytest.raises(OutputError, match=r"new: is no model's folder, and is not replaced; choose another name$"):
        pruned("llama", "wanda", weights_out=tmp_path / "new", force=True)
    with pytest.raises(OutputError, match=r"the folder .*/none does not exist"):
        pruned("llama", "wanda", weights_out=tmp_path / "none" / "new")
    with pytest.raises(OutputError, match="is a file of the checkpoint, which stays as it is"):
        pruned("llama", "wanda", weights_out=folder("llama"), force=True)
    shutil.rmtree(tmp_path / "new")
    pruned("llama", "wanda", weights_out=tmp_path / "new")
    before = (tmp_path / "new" / "model.safetensors").read_bytes()
    pruned("llama", "wanda", weights_out=tmp_path / "new", force=True, density=0.25)
    assert (tmp_path / "new" / "model.safetensors").read_bytes() != before
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_a_folder_is_replaced_that_holds_nothing_else(tmp_path: Path) -> None:
    """The source itself, the text, notes: what no copy of the source has is not removed with the folder."""
    outer = tmp_path / "outer"
    shutil.copytree(folder("llama"), outer)
    shutil.copytree(folder("llama"), outer / "inner")
    mask = pai.prune(outer / "inner", "wanda", density=0.5, output=tmp_path / "m.safetensors", **TEXT)
    with pytest.raises(OutputError, match=r"outer: inner in it would be lost; move that away, or choose another name$"):
        pai.prune(outer / "inner", "wanda", density=0.5, weights_out=outer, force=True, **TEXT)
    (outer / "inner").rename(tmp_path / "inner")
    (outer / "t.txt").write_text(TEXT["text"][0])
    with pytest.raises(OutputError, match=r"outer: t\.txt in it would be lost"):
        pai.prune(tmp_path / "inner", "wanda", density=0.5, weights_out=outer, force=True, text=outer / "t.txt")
    with pytest.raises(OutputError, match=r"outer: t\.txt in it would be lost"):
        pai.convert(tmp_path / "m.safetensors", outer, to="dense", weights=tmp_path / "inner", force=True)
    (outer / "t.txt").unlink()
    pai.convert(tmp_path / "m.safetensors", outer, to="dense", weights=tmp_path / "inner", force=True)
    assert (
        pai.Mask.of(outer)["model.layers.1.mlp.up_proj.weight"].sum() == mask["model.layers.1.mlp.up_proj.weight"].sum()
    )


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interruption_leaves_nothing(error: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pai_cli.files.model_folders import NewFolder

    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(NewFolder, "write", fail)
    with pytest.raises((KeyboardInterrupt, OSError)):
        pruned("llama", "wanda", weights_out=tmp_path / "new", output=tmp_path / "m.safetensors")
    assert [*tmp_path.iterdir()] == []


def test_what_killed_processes_have_left_is_removed(tmp_path: Path) -> None:
    """A run that ends by SIGKILL leaves its folder; the next one takes it away, and none that is being written."""
    code = (
        "import os, sys; from pathlib import Path; from pai_cli.files.checkpoints import open_checkpoint\n"
        "from pai_cli.files.model_folders import new_folder\n"
        "with new_folder(open_checkpoint(Path(sys.argv[1])), Path(sys.argv[2]), {}, force=False): os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, folder("llama"), tmp_path / "new"], cwd=ROOT, check=False)
    assert done.returncode == -9
    assert len([*tmp_path.glob(".pai-*/model.safetensors")]) == 1
    source = open_checkpoint(folder("llama"))
    with new_folder(source, tmp_path / "one", {}, force=False), new_folder(source, tmp_path / "two", {}, force=False):
        assert len([*tmp_path.glob(".pai-*/model.safetensors")]) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_other_weights_and_folders_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = tmp_path / "net"
    shutil.copytree(folder("llama"), source)
    (source / "pytorch_model.bin").write_bytes(b"old")
    (source / "original").mkdir()
    with caplog.at_level("INFO", logger="pai"):
        pai.prune(source, "wanda", density=0.5, weights_out=tmp_path / "new", **TEXT)
    assert caplog.records[-1].getMessage().endswith("0 where pruned; left out: original, pytorch_model.bin")
    assert not (tmp_path / "new" / "pytorch_model.bin").exists()


def test_weights_of_torch_are_read_and_not_written(tmp_path: Path) -> None:
    source = tmp_path / "net"
    shutil.copytree(folder("llama"), source)
    torch.save(load_file(source / "model.safetensors"), source / "pytorch_model.bin")
    (source / "model.safetensors").unlink()
    assert pai.prune(source, "wanda", density=0.5, **TEXT) == pruned("llama", "wanda")
    with pytest.raises(CheckpointError, match="only a folder with safetensors is written anew; save it as such"):
        pai.prune(source, "wanda", density=0.5, weights_out=tmp_path / "new", **TEXT)


def test_the_command(tmp_path: Path, pai: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.txt").write_text(languages.text()[:3_000])
    given = ("prune", folder("llama"), "--method", "wanda", "--density", 0.5)
    done = pai(*given, "--text", "t.txt", "-w", "new", "--sequence-length", LENGTH)
    assert done.status == 0, done
    assert done.said[-1].startswith("pai: wrote llama-float64-whole-wanda-0.5.safetensors: ")
    assert any("t.txt: the text is short: " in line for line in done.said)
    assert pai("analyze", "new", "--format", "json").status == 0
    done = pai(*given, "--force")
    assert (done.status, done.said[-1]) == (2, "pai: error: --method wanda: reads a text; give --text")
    done = pai(*given, "--text", "t.txt", "--sequence-length", 99, "--force")
    assert done.said[-1] == "pai: error: --sequence-length 99: the model has 48 positions; give at most that"
    done = pai(*given, "--text", "none.txt", "--force")
    assert (done.status, done.said[-1]) == (1, "pai: error: none.txt: no such file")


@pytest.mark.parametrize("shard", [None, "8KB"])
def test_convert_to_dense_writes_the_folder(shard: str | None, tmp_path: Path) -> None:
    source = folder("llama", torch.bfloat16, shard)
    mask = pai.prune(source, "magnitude", density=0.5, output=tmp_path / "m.safetensors")
    pai.convert(tmp_path / "m.safetensors", tmp_path / "dense", to="dense", weights=source)
    before, after = open_checkpoint(source), open_checkpoint(tmp_path / "dense")
    assert [path.name for path in after.files] == [path.name for path in before.files]
    for name in before.shapes:
        kept = mask.get(name, np.True_)
        assert np.array_equal(after.array(name), before.array(name) * kept)
        assert after.dtype(name) == before.dtype(name) == "bfloat16"
    assert languages.load(tmp_path / "dense").dtype == torch.bfloat16
    # A pruned folder is a mask, of the names that the checkpoint has.
    again = pai.convert(tmp_path / "dense", tmp_path / "again", to="dense", weights=source, names_from=source)
    assert again == mask
    for name in before.shapes:
        assert np.array_equal(open_checkpoint(tmp_path / "again").array(name), after.array(name))
    with pytest.raises(OutputError, match=r"dense: exists already; force=True replaces it$"):
        pai.convert(tmp_path / "m.safetensors", tmp_path / "dense", to="dense", weights=source)
    pai.convert(tmp_path / "m.safetensors", tmp_path / "dense.safetensors", to="dense", weights=source)
    assert (tmp_path / "dense.safetensors").is_file()
    assert pai.analyze(tmp_path / "dense", no_store=True)["kept"].value == mask.kept


def test_the_command_converts_folders(tmp_path: Path, pai: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = folder("gpt2", torch.float32, "8KB")
    assert pai("prune", source, "--method", "magnitude", "--density", 0.5, "-o", "m.safetensors").status == 0
    done = pai("convert", "m.safetensors", "--to", "dense", "--weights", source)
    assert done.status == 0, done
    assert (tmp_path / "m-dense" / "model.safetensors.index.json").is_file()
    done = pai("analyze", "m-dense", "--weights", source, "--format", "json")
    assert done.status == 0, done


# ---- what a mask is worth


@pytest.fixture(scope="module")
def trained() -> Any:
    """A small network that has learnt something of the text, but for its end."""
    made = languages.network("llama", torch.float32)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        for parameter in made.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.05)
    languages.train(made, languages.tokens(32)[:-60], steps=200)
    return made


def with_outliers(made: Any) -> Any:
    """The same function to the bit, with features of very different sizes, as large networks have them: what a norm gives is
    multiplied by powers of 2, and the weights that it comes into are divided by them.
    """
    other = copy.deepcopy(made)
    scales = 2.0 ** torch.randint(-3, 4, (24,), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for layer in other.model.layers:
            for norm, readers in (
                (layer.input_layernorm, [getattr(layer.self_attn, f"{name}_proj") for name in "qkv"]),
                (layer.post_attention_layernorm, [layer.mlp.gate_proj, layer.mlp.up_proj]),
            ):
                norm.weight.mul_(scales)
                for reader in readers:
                    reader.weight.div_(scales)
    return other


def losses_of(made: Any, at: Path) -> tuple[dict[str, float], dict[str, pai.Mask]]:
    """The loss on text that nobody has seen, of the network and of what each method leaves of it at density 0.5."""
    source, held = languages.save(made, at / "net"), languages.tokens(32)[-60:]
    masks = {"magnitude": pai.prune(source, "magnitude", density=0.5, scope="layer", ignore="lm_head")}
    pai.convert(masks["magnitude"], at / "magnitude", to="dense", weights=source)
    text = languages.text()[:30_000].split("\n\n")
    for method in ("wanda", "sparsegpt"):
        masks[method] = pai.prune(source, method, density=0.5, text=text, sequence_length=32, weights_out=at / method)
        assert masks[method].kept == masks["magnitude"].kept
        assert masks[method].keys() == masks["magnitude"].keys()
    losses = {name: languages.loss(languages.load(at / name), held) for name in ("net", *masks)}
    return losses, masks


def test_sparsegpt_loses_less_than_wanda_and_that_less_than_magnitude(trained: Any, tmp_path: Path) -> None:
    plain, outliers = (
        losses_of(made, tmp_path / name) for name, made in (("a", trained), ("b", with_outliers(trained)))
    )
    losses = outliers[0]
    assert losses["net"] == pytest.approx(plain[0]["net"], rel=1e-6)
    assert losses["net"] < np.log(languages.VOCABULARY) - 1  # it has learnt something
    assert losses["net"] < losses["sparsegpt"] < losses["wanda"] < losses["magnitude"], losses
    # A weight's size times that of its input is the same, however the two share it.
    assert outliers[1]["wanda"] == plain[1]["wanda"]
    assert outliers[1]["magnitude"] != plain[1]["magnitude"]
    assert plain[0]["sparsegpt"] < min(plain[0]["wanda"], plain[0]["magnitude"])
