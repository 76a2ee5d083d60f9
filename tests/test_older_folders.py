"""Folders as older versions of transformers wrote them, and networks whose parameters have several names."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import languages
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_language import TEXT, folder, inputs_by_hooks, pruned, sequences

import pai_cli as pai
from pai_cli.errors import LayerSelectionError, StateDictMismatchError
from pai_cli.files.checkpoints import open_checkpoint
from pai_cli.models.language import open_language_model
from pai_cli.models.older_folders import is_table, names_now
from pai_cli.models.stream import stream_of

pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")


def rewritten(kind: str, at: Path, change: Any) -> Path:
    """A folder whose tensors are those that `change` makes of them."""
    shutil.copytree(folder(kind), at)
    tensors = change(load_file(at / "model.safetensors"))
    save_file(tensors, at / "model.safetensors", metadata={"format": "pt"})
    return at


def without_prefix(prefix: str) -> Any:
    return lambda tensors: {name.removeprefix(prefix): one for name, one in tensors.items()}


@pytest.mark.parametrize(("kind", "prefix"), [("gpt2", "transformer."), ("opt", "model.")])
@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_names_without_a_prefix(kind: str, prefix: str, method: str, tmp_path: Path) -> None:
    source = rewritten(kind, tmp_path / "old", without_prefix(prefix))
    mask = pai.prune(source, method, density=0.5, weights_out=tmp_path / "new", **TEXT)
    wanted = pruned(kind, method)
    assert [f"{prefix}{name}" for name in mask] == [*wanted]
    assert all(np.array_equal(mask[name], wanted[f"{prefix}{name}"]) for name in mask)
    assert load_file(tmp_path / "new" / "model.safetensors").keys() == open_checkpoint(source).shapes.keys()


def test_tables_that_the_network_makes_are_not_read_and_stay(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    source = rewritten("llama", tmp_path / "old", lambda tensors: tensors | {name: torch.ones(3)})
    with caplog.at_level("INFO", logger="pai"):
        mask = pai.prune(source, "wanda", density=0.5, weights_out=tmp_path / "new", **TEXT)
    assert mask == pruned("llama", "wanda")
    assert f"not read, for the network makes them itself: {name}" in caplog.text
    assert torch.equal(load_file(tmp_path / "new" / "model.safetensors")[name], torch.ones(3))
    shutil.rmtree(source)
    causal = torch.ones(1, 1, languages.POSITIONS, languages.POSITIONS).tril()
    rewritten("gpt2", source, lambda tensors: tensors | {"transformer.h.0.attn.bias": causal})
    assert pai.prune(source, "wanda", density=0.5, **TEXT) == pruned("gpt2", "wanda")
    shutil.rmtree(source)
    rewritten("llama", source, lambda tensors: tensors | {"more.weight": torch.ones(3, 3)})
    with pytest.raises(StateDictMismatchError, match=r"unexpected in it: 'more\.weight'"):
        pai.prune(source, "wanda", density=0.5, **TEXT)


def test_which_names_are_taken_for_which() -> None:
    shapes = {"h.0.attn.bias": (1, 1, 4, 4), "h.0.attn.c_attn.bias": (9,), "lm_head.weight": (5, 3)}
    config = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}
    assert names_now(shapes, config) == {
        "h.0.attn.c_attn.bias": "transformer.h.0.attn.c_attn.bias",
        "lm_head.weight": "lm_head.weight",
    }
    there = {"transformer.wte.weight": (5, 3), "h.0.ln": (3,)}  # of two kinds: left for the check of names
    assert [*names_now(there, config).values()] == [*there]
    assert [*names_now(shapes, config | {"architectures": ["GPT2Model"]})] == [*shapes][1:]
    assert [*names_now(shapes, {})] == [*shapes][1:]
    for name, dimensions, table in (
        ("transformer.h.1.attn.attention.bias", 4, True),
        ("transformer.h.1.attn.causal_mask", 4, True),
        ("attn.bias", 1, False),
        ("a.rotary_emb.inv_freq", 1, True),
        ("a.my_attn.bias", 4, False),
    ):
        assert is_table(name, dimensions) == table, name


# ---- parameters of several names


SIZES = {"vocab_size": languages.VOCABULARY, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}


def encoder(kind: str) -> Any:
    """A masked language model, of whose head the bias has two names, and the matrix is the table of tokens."""
    import transformers

    with languages.quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = transformers.AutoConfig.for_model(
            kind, **SIZES, intermediate_size=40, max_position_embeddings=languages.POSITIONS, pad_token_id=0
        )
        return transformers.AutoModelForMaskedLM.from_config(made).double().eval()


@pytest.mark.parametrize("kind", ["bert", "camembert"])  # the head comes after the table, and before it
def test_encoders_run_as_the_whole_network_does(kind: str, tmp_path: Path) -> None:
    net = encoder(kind)
    model = open_language_model(open_checkpoint(languages.save(net, tmp_path / "net")))
    given = sequences("llama")
    names = [layer.name for layer in model.layers if layer.name.endswith("query.weight")]
    wanted = inputs_by_hooks(net, names, given)
    stream = stream_of(model, given, "cpu")
    assert len(names) == 2
    for name, block in zip(names, model.blocks, strict=True):
        assert torch.equal(stream.hidden.flatten(0, 1), wanted[name])
        with model.in_memory(model.names_of(block), "cpu"):
            stream.through(model, block, "cpu", keep=True)
    with pytest.raises(LayerSelectionError, match=r"the head is the table of tokens too, .*; leave head=True out$"):
        open_language_model(model.checkpoint, head=True)


def test_blocks_that_give_lists(tmp_path: Path) -> None:
    import transformers

    with languages.quiet():
        net = transformers.OpenAIGPTLMHeadModel(
            transformers.OpenAIGPTConfig(
                vocab_size=languages.VOCABULARY, n_positions=languages.POSITIONS, n_embd=24, n_layer=2, n_head=4
            )
        )
    source = languages.save(net.double(), tmp_path / "net")
    assert {float(one.mean()) for one in pai.prune(source, "wanda", density=0.5, **TEXT).values()} == {0.5}
