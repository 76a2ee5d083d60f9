"""Configurations of Hugging Face models with hostile keys put in anywhere: nothing is run, looked up, or large."""

from __future__ import annotations

import copy
import json
import os
import random
import sys
from pathlib import Path
from typing import Any

import torch
from conftest import run_pai
from safetensors.torch import save_file

from pai_cli.models.plain_config import PLAIN_TYPES

TINY = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 11,
        "max_position_embeddings": 8, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}  # fmt: skip

PLAIN: tuple[dict[str, Any], ...] = (
    TINY | {"model_type": "bert", "architectures": ["BertForSequenceClassification"], "id2label": {"0": "a", "1": "b"}},
    TINY | {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "rope_parameters": {"rope_type": "default"}},
    {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_layer": 1, "n_embd": 8, "n_head": 2, "vocab_size": 11,
     "n_positions": 8, "bos_token_id": 1, "eos_token_id": 2},
    {"model_type": "resnet", "architectures": ["ResNetForImageClassification"], "embedding_size": 8, "num_labels": 2,
     "hidden_sizes": [8, 8], "depths": [1, 1], "layer_type": "basic"},
    {"model_type": "swin", "architectures": ["SwinForImageClassification"], "embed_dim": 8, "depths": [1, 1],
     "num_heads": [1, 2], "image_size": 32, "window_size": 4},
    {"model_type": "vit", "architectures": ["ViTModel"], "image_size": 8, "patch_size": 4} | TINY,
    {"model_type": "clip", "architectures": ["CLIPModel"], "text_config": {"model_type": "clip_text_model"} | TINY,
     "vision_config": {"model_type": "clip_vision_model", "image_size": 8, "patch_size": 4, "hidden_size": 8,
                       "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}},
)  # fmt: skip

KEYS = (
    "auto_map", "trust_remote_code", "backbone", "backbone_kwargs", "backbone_config", "use_timm_backbone",
    "use_pretrained_backbone", "quantization_config", "_attn_implementation", "_attn_implementation_internal",
    "attn_implementation", "experts_implementation", "custom_pipelines", "adapters", "peft_config", "_name_or_path",
    "name_or_path", "tokenizer_class", "_auto_class", "text_config", "vision_config", "encoder", "decoder", "model_type",
    "architectures", "hidden_size", "depths", "id2label", "rope_scaling", "rope_parameters", "layer_types", "num_labels",
    "hidden_act", "torch_dtype", "pruned_heads", "to_dict", "__class__", "sub_configs", "attribute_map", "use_cache",
    "num_hidden_layers", "vocab_size", "max_position_embeddings", "position_embedding_type", "is_decoder", "image_size",
    "window_size", "n_positions", "problem_type", "\x1b[31m", "", "generation_config", "kernel_config", "base_config_key",
)  # fmt: skip


class _Watch:
    """What the process does while it is on: files opened outside the packages and the folder, sockets."""

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.seen: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None or event not in ("open", "socket.connect", "socket.getaddrinfo", "subprocess.Popen"):
            return
        if event == "open":
            path = os.fspath(arguments[0]) if isinstance(arguments[0], str | os.PathLike) else ""
            if not isinstance(path, str) or "hidden" not in path:
                return
        self.seen.append(f"{event} {arguments}")


WATCH = _Watch()


def case(seed: int, folder: Path) -> None:
    """A folder's configuration with one to three things changed, its network asked for with `--model hf`."""
    rng = random.Random(seed)
    hidden = folder / "hidden"
    code = _with_code(hidden)
    config = copy.deepcopy(rng.choice(PLAIN))
    if rng.random() < 0.2:
        config["model_type"] = rng.choice((*sorted(PLAIN_TYPES), "detr", "timm_backbone", "maskformer", "rag", "x"))
    for _ in range(rng.randint(1, 3)):
        place = _place(rng, config)
        place[rng.choice((*KEYS, *place))] = _value(rng, str(code))
    net = folder / "net"
    net.mkdir()
    (net / "config.json").write_text(json.dumps(config))
    save_file({"a.weight": torch.ones(64, 64)}, net / "model.safetensors")
    WATCH.seen.clear()
    WATCH.folder = folder
    try:
        done = run_pai(
            "prune", net, "--model", "hf", "--method", "erk", "--density", 0.5, "-o", folder / "mask.safetensors"
        )
    finally:
        WATCH.folder = None
    assert done.status == 1, done  # of one tensor no such network is made
    assert not (hidden / "ran").exists(), config
    assert not WATCH.seen, WATCH.seen
    assert [line.startswith("pai: error: ") for line in done.said] == [True], done.err
    assert done.said[0].isprintable(), done.err
    assert "error: unexpected " not in done.err, done.err
    assert not {"configuration_x", "x_code"} & {name.rpartition(".")[2] for name in sys.modules}


def _with_code(folder: Path) -> Path:
    """A model's folder with code that leaves a mark when it runs."""
    folder.mkdir()
    mark = f"open({str(folder / 'ran')!r}, 'w').close()\n"
    (folder / "configuration_x.py").write_text(mark)
    auto = dict.fromkeys(("AutoConfig", "AutoModel", "AutoBackbone"), "configuration_x.X")
    (folder / "config.json").write_text(json.dumps({"model_type": "x", "auto_map": auto}))
    return folder


def _place(rng: random.Random, config: dict[str, Any]) -> dict[str, Any]:
    """The configuration, or a dict in it."""
    inner = [value for value in config.values() if isinstance(value, dict)]
    return rng.choice(inner) if inner and rng.random() < 0.4 else config


def _value(rng: random.Random, code: str, depth: int = 2) -> Any:
    kind = rng.randrange(4 if depth else 2)
    if kind == 0:
        return rng.choice(
            (None, True, False, 0, 1, -1, 3, 65536, 2**24, 2**31, 10**12, 10**400, 0.5, -1e308, float("inf"))
        )
    if kind == 1:
        words = (code, "someone/network", "resnet50", "bert", "x", "", "configuration_x.X", "eager", "sdpa", "../hidden",
                 "flash_attention_2", "https://example.org/a", "gelu", "dynamic", "longrope", "\x1b[31m")  # fmt: skip
        return rng.choice(words)
    if kind == 2:
        return [_value(rng, code, depth - 1) for _ in range(rng.choice((0, 1, 2, 50)))]
    return {rng.choice(KEYS): _value(rng, code, depth - 1) for _ in range(rng.randint(0, 3))}
