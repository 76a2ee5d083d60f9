"""Folders of Hugging Face models: linear layers by names and shapes, Conv1D, shards, and the network by transformers."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import copies
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pai_cli.errors import CheckpointError, LayerSelectionError, MethodOptionError, ModelFactoryError, UnknownModelError
from pai_cli.files.checkpoints import open_checkpoint
from pai_cli.files.masks import MaskFile
from pai_cli.methods.registry import get
from pai_cli.models.network import Network, init_network, load_network
from pai_cli.pruning.run import PruneRequest, choose_masks, prune
from pai_cli.spectral.layout import Layout

WIDTH, VOCABULARY = 8, 30


def gpt2() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    state = {"wte.weight": torch.randn(VOCABULARY, WIDTH), "wpe.weight": torch.randn(16, WIDTH)}
    for i in range(2):
        sizes = {"attn.c_attn": 3 * WIDTH, "attn.c_proj": WIDTH, "mlp.c_fc": 4 * WIDTH}
        for name, outputs in sizes.items():
            state[f"h.{i}.{name}.weight"] = torch.randn(WIDTH, outputs)
            state[f"h.{i}.{name}.bias"] = torch.randn(outputs)
        state[f"h.{i}.mlp.c_proj.weight"] = torch.randn(4 * WIDTH, WIDTH)
        state[f"h.{i}.ln_1.weight"] = torch.ones(WIDTH)
        state[f"h.{i}.attn.bias"] = torch.ones(1, 1, 16, 16)
    return state


def folder(path: Path, state: dict[str, torch.Tensor], shards: int = 1, **config: object) -> Path:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    if shards == 1:
        save_file(state, path / "model.safetensors")
        return path
    where = {name: f"model-{i % shards}.safetensors" for i, name in enumerate(state)}
    for shard in set(where.values()):
        save_file({name: state[name] for name in state if where[name] == shard}, path / shard)
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return path


def loaded(path: Path, model: str | None = None) -> Network:
    return load_network(open_checkpoint(path), model)


@pytest.mark.parametrize("shards", [1, 3])
def test_linear_layers_and_conv1d(tmp_path: Path, shards: int) -> None:
    state = gpt2()
    network = loaded(folder(tmp_path / "net", state, shards, model_type="gpt2"))
    assert network.description == "Hugging Face gpt2 (its linear layers)"
    assert [layer.name for layer in network.layers if layer.name.startswith("h.0")] == [
        name for name in open_checkpoint(tmp_path / "net").shapes
        if name.startswith("h.0") and ("c_" in name) and name.endswith(".weight")
    ]  # fmt: skip
    assert len(network.layers) == 8
    assert {layer.layout for layer in network.layers} == {Layout(transposed=True)}
    fc = next(layer for layer in network.layers if layer.name == "h.1.mlp.c_fc.weight")
    assert fc.layout.matrix(fc.shape) == (4 * WIDTH, WIDTH)  # rows are outputs
    result = prune(network, PruneRequest(get("magnitude"), 0.25))
    weights = torch.cat([state[layer.name].abs().reshape(-1) for layer in network.layers])
    assert result.kept == round(0.25 * len(weights)) == sum(int(mask.sum()) for mask in result.masks.values())
    kept = torch.cat([torch.from_numpy(mask).reshape(-1) for mask in result.masks.values()])
    assert weights[kept].min() >= weights[~kept].max()
    assert result.connected is None


def test_shards_change_nothing(tmp_path: Path) -> None:
    state = dict(sorted(gpt2().items()))
    one = loaded(folder(tmp_path / "one", state, model_type="gpt2"))
    many = loaded(folder(tmp_path / "many", state, 4, model_type="gpt2"))
    for method in ("random", "uniform", "erk", "magnitude"):
        masks = [choose_masks(network, PruneRequest(get(method), 0.3))[0] for network in (one, many)]
        assert all(np.array_equal(mask, masks[1][name]) for name, mask in masks[0].items())


NAMES = {
    "model.embed_tokens.weight": False,
    "model.layers.0.self_attn.q_proj.weight": True,
    "model.layers.0.mlp.gate_proj.weight": True,
    "lm_head.weight": True,
    "bert.embeddings.word_embeddings.weight": False,
    "bert.embeddings.token_type_embeddings.weight": False,
    "bert.encoder.layer.0.attention.self.query.weight": True,
    "bert.pooler.dense.weight": True,
    "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": False,
    "shared.weight": False,
    "gpt_neox.embed_in.weight": False,
    "embed_out.weight": True,
    "encoder.embedding_hidden_mapping_in.weight": True,
    "text_model.embeddings.position_embedding.weight": False,
    "visual_projection.weight": True,
    "transformer.wte.weight": False,
    "model.decoder.embed_positions.weight": False,
    "emb.weight": False,
    "encoder.tok_emb.weight": False,
    "y_embedder.embedding_table.weight": False,
    "ensemble.weight": True,
    "h.0.mlp.c_fc.weight": True,
    "a.lora_A": False,
}


def test_tables_are_told_from_layers_by_name(tmp_path: Path) -> None:
    state = {name: torch.randn(4, 6) for name in NAMES} | {
        "conv.weight": torch.randn(4, 3, 2, 2),
        "n.weight": torch.ones(4),
    }
    network = loaded(folder(tmp_path / "net", state, model_type="llama"))
    assert {layer.name for layer in network.layers} == {name for name, is_layer in NAMES.items() if is_layer}
    assert {layer.layout for layer in network.layers} == {Layout()}  # c_fc is a linear layer in other models


def test_bfloat16_and_the_command(tmp_path: Path, pai, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "net", {name: value.to(torch.bfloat16) for name, value in gpt2().items()}, 2, model_type="gpt2")
    done = pai("prune", "net", "--method", "erk", "--density", 0.5)
    assert done.status == 0
    assert done.said[0].endswith(
        "net/model.safetensors.index.json: Hugging Face gpt2 (its linear layers), 1,536 prunable weights"
    )
    mask = MaskFile(tmp_path / "net-erk-0.5.safetensors")
    assert len(mask.shapes) == 8
    assert mask.layout("h.0.mlp.c_fc.weight") == Layout(transposed=True)
    done = pai("analyze", "net-erk-0.5.safetensors", "--weights", "net", "--format", "json")
    assert done.status == 0


def test_a_folder_of_a_known_architecture_is_that(tmp_path: Path) -> None:
    source = init_network("resnet20", 10, 0).model
    network = loaded(folder(tmp_path / "net", dict(source.state_dict()), architecture="resnet20"))
    assert network.description.startswith("ResNet-20")
    assert network.input_shape == (3, 32, 32)


def one_line(caught: pytest.ExceptionInfo[Exception], path: Path) -> str:
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(f"{path}/", "")


@pytest.mark.parametrize("method", ["synflow", "phew"])
def test_methods_that_need_the_network_say_so(tmp_path: Path, method: str) -> None:
    network = loaded(folder(tmp_path / "net", gpt2(), model_type="gpt2"))
    with pytest.raises(MethodOptionError) as caught:
        prune(network, PruneRequest(get(method), 0.5))
    assert str(caught.value) == (
        "this needs the network itself, and of a model's folder only the weights are read; give model=hf where "
        "transformers is installed (pip install 'pai-cli[hf]'), or a method= that looks at weights alone, such as erk"
    )


def test_faults_of_folders(tmp_path: Path) -> None:
    path = tmp_path / "net"
    path.mkdir()
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    assert one_line(caught, tmp_path) == "net: is a directory, not a file"
    (path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    assert one_line(caught, tmp_path) == (
        "net: a model's folder without model.safetensors or model.safetensors.index.json or pytorch_model.bin or "
        "pytorch_model.bin.index.json; save it with safetensors"
    )
    (path / "own.bin").write_text("")
    with pytest.raises(CheckpointError, match=r"\(there is own.bin: give that file\)"):
        open_checkpoint(path)
    folder(path, gpt2())
    for text, line in (
        ("{", "net/config.json: is not valid JSON ("),
        ("[]", "net/config.json: holds no JSON object"),
    ):
        (path / "config.json").write_text(text)
        with pytest.raises(CheckpointError) as caught:
            open_checkpoint(path)
        assert one_line(caught, tmp_path).startswith(line)
    folder(path, {"embed.weight": torch.ones(3, 4), "wpe.weight": torch.ones(5, 6)})
    with pytest.raises(LayerSelectionError) as caught_layers:
        loaded(path)
    assert one_line(caught_layers, tmp_path) == (
        "net/model.safetensors: no linear weight to prune by its name: 42 weights in 2 tensors are left whole: "
        "embed.weight, wpe.weight (a table that is looked up); give model=hf"
    )


def test_the_file_alone_points_to_its_folder(tmp_path: Path) -> None:
    path = folder(tmp_path / "net", gpt2(), model_type="gpt2")
    with pytest.raises(UnknownModelError, match=r"\(a Hugging Face model\? give its folder\); give model=NAME"):
        loaded(path / "model.safetensors")
    with pytest.raises(ModelFactoryError) as caught:
        loaded(path / "model.safetensors", "hf")
    assert str(caught.value) == "model=hf: makes the network of a Hugging Face model's folder; give the folder"


def test_without_transformers_the_network_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModelFactoryError) as caught:
        loaded(folder(tmp_path / "net", gpt2(), model_type="gpt2"), "hf")
    assert str(caught.value) == (
        "model=hf: transformers is not installed: pip install 'pai-cli[hf]', or leave model= out for methods that look "
        "at weights alone"
    )


def test_weights_alone_do_not_import_transformers(tmp_path: Path) -> None:
    path = folder(tmp_path / "net", gpt2(), model_type="gpt2")
    (tmp_path / "loading.py").write_text(
        "import sys; from pathlib import Path; from pai_cli.files.checkpoints import open_checkpoint\n"
        "from pai_cli.models.network import load_network; load_network(open_checkpoint(Path(sys.argv[1])))\n"
        "print(*(name for name in ('torch', 'transformers') if name in sys.modules))"
    )
    assert copies.run([path], module="loading", cwd=tmp_path) == (0, "torch\n", "")


@pytest.mark.filterwarnings("ignore")
def test_transformers_makes_the_network(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(n_layer=2, n_embd=8, n_head=2, vocab_size=30, n_positions=16)
    model = transformers.GPT2LMHeadModel(config)
    model.save_pretrained(tmp_path / "net")
    alone, whole = loaded(tmp_path / "net"), loaded(tmp_path / "net", "hf")
    layers = {layer for layer in whole.layers if not layer.name.startswith("lm_head")}
    assert set(alone.layers) == layers  # lm_head is the tied table
    assert all(torch.equal(whole.parameter(one.name), alone.parameter(one.name)) for one in layers)
    with pytest.raises(MethodOptionError, match=r"^synflow: the shape of one input is not known"):
        prune(whole, PruneRequest(get("synflow"), 0.5))

    resnet = transformers.ResNetForImageClassification(
        transformers.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=3
        )
    )
    resnet.save_pretrained(tmp_path / "images")
    images = loaded(tmp_path / "images", "hf")
    for method in ("synflow", "phew"):
        result = prune(
            images, PruneRequest(get(method), 0.3, input_shape=(3, 64, 64), rounds=3 if method == "synflow" else None)
        )
        assert result.kept == round(0.3 * images.total)
        assert result.connected is True
    (tmp_path / "images" / "config.json").write_text('{"model_type": "resnet", "architectures": ["X"]}')
    with pytest.raises(ModelFactoryError, match=r"^model=hf: transformers [\d.]+ cannot make the network of "):
        loaded(tmp_path / "images", "hf")
