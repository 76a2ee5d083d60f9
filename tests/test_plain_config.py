"""Configurations of Hugging Face models: what is plain is passed on, what names code or is too large is told by its key."""

from __future__ import annotations

import json
import os
import resource
import socket
import sys
from pathlib import Path

import languages
import pytest
import torch
from safetensors.torch import save_file

from pai_cli.errors import ModelFactoryError, PaiError, StateDictMismatchError
from pai_cli.files.checkpoints import open_checkpoint
from pai_cli.models.network import load_network
from pai_cli.models.outline import check_memory, no_larger_than
from pai_cli.models.plain_config import LARGEST, MOST_COUNTED, PARTS, PLAIN_TYPES, plain_config

RESNET = {
    "model_type": "resnet",
    "architectures": ["ResNetForImageClassification"],
    "embedding_size": 8,
    "hidden_sizes": [8, 16],
    "depths": [1, 1],
    "layer_type": "basic",
    "id2label": {"0": "a cat / a dog", "1": "other"},
    "label2id": {"a cat / a dog": 0, "other": 1},
}

NOT_PLAIN = [
    ("auto_map", {"AutoModel": "modeling.Model"}),
    ("trust_remote_code", True),
    ("backbone", "someone/network"),
    ("backbone", "resnet50"),
    ("backbone_kwargs", {"trust_remote_code": True}),
    ("backbone_config", {"model_type": "resnet"}),
    ("use_timm_backbone", True),
    ("use_pretrained_backbone", True),
    ("quantization_config", {"quant_method": "x"}),
    ("_attn_implementation", "someone/kernel"),
    ("_attn_implementation_internal", "someone/kernel"),
    ("attn_implementation", "flash_attention_2"),
    ("experts_implementation", "someone/kernel"),
    ("custom_pipelines", {"x": {"impl": "pipeline.P"}}),
    ("adapters", {"adapters": {}}),
    ("peft_config", {"peft_type": "LORA"}),
    ("_auto_class", "AutoModel"),
    ("text_config", {"model_type": "bert"}),
    ("encoder", {"model_type": "bert"}),
    ("layer_type", "../elsewhere"),
    ("layer_type", "/etc/passwd"),
    ("layer_type", "https://example.org"),
    ("layer_type", "someone/network"),
    ("layer_type", "a" * 101),
    ("depths", [[[[[1]]]]]),
    ("depths", [{"model_type": "bert"}]),
    ("depths", [LARGEST, 1]),
    ("embedding_size", LARGEST + 1),
    ("embedding_size", -LARGEST - 1),
    ("embedding_size", 10**400),
    ("dropout", float("inf")),
    ("dropout", float("nan")),
    ("a key\x1b[31m", 1),
    ("", 1),
    ("rope_scaling", {"type": {"a": {"b": 1}}}),
    ("rope_scaling", {"type": "someone/network"}),
    ("label2id", {"a": [["b/c"]]}),
]


@pytest.mark.parametrize(("key", "value"), NOT_PLAIN)
def test_what_is_not_plain_is_told_by_its_key(key: str, value: object) -> None:
    with pytest.raises(ModelFactoryError) as caught:
        plain_config(RESNET | {key: value}, "net/config.json")
    line = str(caught.value)
    assert line.isprintable()
    assert line.startswith("model=hf: net/config.json: ")
    assert "give model=file.py:factory" in line
    assert len(line) < 450
    if key.isidentifier():
        assert f" {key}" in line


@pytest.mark.parametrize("key", ["auto_map", "trust_remote_code", "backbone", "quantization_config"])
def test_what_names_code_is_found_at_any_depth(key: str) -> None:
    for config, path in (
        ({"id2label": {key: "x"}}, f"id2label.{key}"),
        ({"task_specific_params": {"a": {"b": [{key: "x"}]}}}, f"task_specific_params.a.b.{key}"),
        ({"a": [[{"b": [{key: True}]}]]}, f"a.b.{key}"),
    ):
        with pytest.raises(ModelFactoryError, match=f": {path} may name code or a network that is elsewhere"):
            plain_config(RESNET | config, "config.json")


def test_a_key_is_shown_short() -> None:
    nested: dict[str, object] = {"auto_map": "x"}
    for _ in range(300):
        nested = {"k" * 100: nested}
    with pytest.raises(ModelFactoryError) as caught:
        plain_config(RESNET | {"a": nested}, "config.json")
    assert len(str(caught.value)) < 450


@pytest.mark.parametrize(
    "kind", [None, 3, ["bert"], "", "detr", "timm_backbone", "encoder-decoder", "llava", "../bert"]
)
def test_types_that_are_not_known_to_be_plain(kind: object) -> None:
    with pytest.raises(ModelFactoryError, match=r": model_type is none of those that are known "):
        plain_config(RESNET | {"model_type": kind}, "config.json")


def test_what_is_plain_is_passed_on() -> None:
    notes = {"_name_or_path": "/a/b", "transformers_version": "4.50.3", "torch_dtype": "float16", "dtype": "float16"}
    says_nothing = {"quantization_config": None, "use_timm_backbone": False, "_attn_implementation": "sdpa"}
    rope = {"rope_parameters": {"full_attention": {"rope_type": "default", "factors": [1.0, 2.0]}, "theta": 1e4}}
    plain = plain_config(RESNET | notes | says_nothing | rope, "config.json")
    assert plain == {key: value for key, value in RESNET.items() if key != "architectures"} | rope


def test_parts_are_of_their_type() -> None:
    part = {"model_type": "clip_text_model", "hidden_size": 8, "_name_or_path": "x/y"}
    config = {"model_type": "clip", "text_config": part, "projection_dim": 4}
    kept = {"model_type": "clip_text_model", "hidden_size": 8}
    assert plain_config(config, "config.json") == {"model_type": "clip", "text_config": kept, "projection_dim": 4}
    for wrong, line in (
        ({"model_type": "bert"}, "text_config.model_type is not clip_text_model"),
        ({"inner": {"a": 1}}, "text_config.inner holds a configuration of its own"),
        ({"auto_map": {"a": "b"}}, "text_config.auto_map may name code"),
    ):
        with pytest.raises(ModelFactoryError, match=line):
            plain_config(config | {"text_config": wrong}, "config.json")
    assert {kind for parts in PARTS.values() for kind in parts.values()} <= PLAIN_TYPES


# --- with transformers ---


@pytest.fixture
def nothing_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Whatever would reach the hub or its cache is noted, and fails."""
    hub = pytest.importorskip("huggingface_hub")
    pytest.importorskip("transformers")
    called: list[str] = []

    def refuse(name: str) -> object:
        def refused(*given: object, **_: object) -> None:
            called.append(f"{name}{given[:2]}")
            raise OSError("nothing is looked up")

        return refused

    for module in (hub, sys.modules["transformers"].utils.hub, hub.file_download, hub.hf_api.HfApi):
        for name in ("hf_hub_download", "snapshot_download", "cached_file", "cached_files", "repo_exists", "model_info",
                     "try_to_load_from_cache", "list_repo_files"):  # fmt: skip
            if hasattr(module, name):
                monkeypatch.setattr(module, name, refuse(name))
    monkeypatch.setattr(socket.socket, "connect", refuse("connect"))
    monkeypatch.setattr(socket, "getaddrinfo", refuse("getaddrinfo"))
    return called


def saved(path: Path, config: dict[str, object], state: dict[str, torch.Tensor] | None = None) -> Path:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    save_file(state or {"a.weight": torch.ones(4, 4)}, path / "model.safetensors")
    return path


def with_code(folder: Path) -> Path:
    """A model's folder whose code leaves a file behind when it is run."""
    folder.mkdir()
    mark = f"open({str(folder / 'ran')!r}, 'w').close()\n"
    (folder / "configuration_x.py").write_text(
        f"{mark}from transformers import PretrainedConfig\nclass X(PretrainedConfig):\n    model_type = 'x'\n"
    )
    auto = {"AutoConfig": "configuration_x.X", "AutoModel": "configuration_x.X", "AutoBackbone": "configuration_x.X"}
    (folder / "config.json").write_text(json.dumps({"model_type": "x", "auto_map": auto}))
    return folder


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["detr", "resnet", "bert"])
def test_a_folder_with_code_is_not_run(tmp_path: Path, nothing_is_looked_up: list[str], kind: str) -> None:
    code = with_code(tmp_path / "code")
    asked = {"backbone_kwargs": {"trust_remote_code": True}, "use_timm_backbone": False, "backbone_config": None}
    for backbone in (str(code), "someone/network"):
        config = asked | {"model_type": kind, "architectures": ["X"], "backbone": backbone}
        with pytest.raises(ModelFactoryError, match=r": backbone_kwargs may name code"):
            load_network(open_checkpoint(saved(tmp_path / "net", config)), "hf")
        del config["backbone_kwargs"]
        with pytest.raises(ModelFactoryError, match=r": backbone may name code"):
            load_network(open_checkpoint(saved(tmp_path / "net", config)), "hf")
    with pytest.raises(ModelFactoryError, match=r": auto_map may name code"):
        load_network(open_checkpoint(saved(code, json.loads((code / "config.json").read_text()))), "hf")
    assert not (code / "ran").exists()
    assert nothing_is_looked_up == []


@pytest.mark.filterwarnings("ignore")
def test_a_plain_folder_is_made_without_looking_anything_up(tmp_path: Path, nothing_is_looked_up: list[str]) -> None:
    import transformers

    real = transformers.ResNetForImageClassification(transformers.ResNetConfig.from_dict(dict(RESNET))).eval()
    environment = dict(os.environ)
    network = load_network(open_checkpoint(saved(tmp_path / "net", RESNET, real.state_dict())), "hf")
    assert dict(os.environ) == environment
    pixels = torch.randn(1, 3, 32, 32)
    assert torch.equal(network.model(pixels), real(pixels).logits)
    assert nothing_is_looked_up == []


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["gpt_oss", "llama4_text", "mixtral"])
def test_mixtures_of_experts_look_nothing_up(tmp_path: Path, nothing_is_looked_up: list[str], kind: str) -> None:
    real = languages.network(kind, torch.float32)
    real.config._experts_implementation = "eager"
    network = load_network(open_checkpoint(languages.save_as_held(real, tmp_path / "net")), "hf")
    tokens = torch.arange(10)[None] + 5
    assert torch.allclose(network.model(tokens), real(tokens).logits, atol=1e-5)
    assert nothing_is_looked_up == []


@pytest.mark.filterwarnings("ignore")
def test_tables_beside_the_weights_have_their_values(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=11,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    real = transformers.LlamaModel(config).eval()
    told = config.to_dict() | {"architectures": ["LlamaModel"]}
    network = load_network(open_checkpoint(saved(tmp_path / "net", told, real.state_dict())), "hf")
    buffers = dict(real.named_buffers())
    assert buffers.keys() == dict(network.model.named_buffers()).keys() != set()
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in network.model.named_buffers())
    tokens = torch.tensor([[1, 5, 7]])
    assert torch.equal(network.model(tokens).last_hidden_state, real(tokens).last_hidden_state)


BERT = {"model_type": "bert", "architectures": ["BertModel"], "hidden_size": 8, "num_attention_heads": 2,
        "num_hidden_layers": 1, "intermediate_size": 8, "vocab_size": 10, "max_position_embeddings": 8}  # fmt: skip

TOO_LARGE = [
    (
        BERT | {"hidden_size": 65536, "vocab_size": 200_000},
        "a tensor 'weight' of shape (200000, 65536), larger than any",
    ),
    (BERT | {"num_hidden_layers": MOST_COUNTED}, "many times more parts than the 1 tensors of its weights"),
    (BERT | {"max_position_embeddings": LARGEST}, "a tensor 'weight' of shape (16777216, 8), larger than any"),
    (RESNET | {"depths": [1, MOST_COUNTED - 1]}, "many times more parts than the 1 tensors of its weights"),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("config", "line"), TOO_LARGE)
def test_a_network_larger_than_its_file_takes_no_memory(tmp_path: Path, config: dict[str, object], line: str) -> None:
    pytest.importorskip("transformers")
    folder = saved(tmp_path / "net", config, {"a.weight": torch.ones(200, 200)})
    with pytest.raises(PaiError):  # imports what is needed
        load_network(open_checkpoint(saved(tmp_path / "small", BERT)), "hf")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(StateDictMismatchError) as caught:
        load_network(open_checkpoint(folder), "hf")
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB


def test_tables_larger_than_the_weights_are_refused() -> None:
    with torch.device("meta"):
        network = torch.nn.Linear(2, 2)
        network.register_buffer("table", torch.empty(2**15, 2**15), persistent=False)
    with pytest.raises(StateDictMismatchError) as caught:
        check_memory(network, {"weight": (2, 2)}, "net", "leave it")
    assert str(caught.value) == "net: config.json describes a network with tables of 4 GiB beside its weights; leave it"
    check_memory(network, {"weight": (2**15, 2**15)}, "net", "leave it")


def test_a_real_table_is_measured_before_it_is_made() -> None:
    with torch.device("meta"), no_larger_than({"weight": (2, 2)}, "net", "leave it"):
        assert torch.linspace(0, 1, 10, device="cpu")[9].item() == 1
        assert torch.zeros(10**12).is_meta
        with pytest.raises(StateDictMismatchError, match=r"a table of 1,000,000,000,000 numbers, larger than any"):
            torch.linspace(0, 1, 10**12, device="cpu")
    assert torch.nn.Linear(3, 3).weight.shape == (3, 3)  # nothing is measured any more


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"architectures": ["pipeline"]}, "architectures names no network of type bert"),
        ({"architectures": ["AutoModel"]}, "architectures names no network of type bert"),
        ({"architectures": ["ResNetModel"]}, "architectures names no network of type bert"),
        ({"architectures": "BertModel"}, "architectures names no network of type bert"),
        ({"architectures": [["BertModel"]]}, "architectures names no network of type bert"),
        ({"architectures": []}, "net: config.json has no architectures, which tell the class of the network: put in"),
        ({"architectures": None}, 'as "architectures": ["NAME"] (BertForMaskedLM, '),
        ({"to_dict": 1}, "says what to_dict is, which is a function"),
        ({"hidden_size": "x"}, "cannot make the network of "),
    ],
)
def test_what_transformers_cannot_make(tmp_path: Path, changed: dict[str, object], line: str) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(ModelFactoryError) as caught:
        load_network(open_checkpoint(saved(tmp_path / "net", BERT | changed)), "hf")
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_transformers_that_cannot_be_imported_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "transformers":
                raise ImportError("tokenizers 0.1 is too old", name="tokenizers")

    for name in [name for name in sys.modules if name == "transformers"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(
        ModelFactoryError, match=r"transformers cannot be imported \(ImportError: tokenizers 0.1 is too old\)"
    ):
        load_network(open_checkpoint(saved(tmp_path / "net", BERT)), "hf")
