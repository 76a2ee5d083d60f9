"""What a Hugging Face model's `config.json` may hold: numbers and words that decide a network, and nothing that names code.

A configuration can do more than describe: it can name files with code, other models whose code or weights are to be got,
and kernels that lie at the hub. Which keys do so differs from version to version of the library. So nothing but what is
known to be plain is passed on: the model types below, of which each has its layers from numbers alone, and under their
keys numbers, single words, and lists of those.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pai_cli.errors import ModelFactoryError
from pai_cli.printable import shortened
from pai_cli.spelling import option

_TYPES = """
albert bart beit bert bert-generation big_bird bigbird_pegasus biogpt bit blenderbot blenderbot-small bloom camembert
clip clip_text_model clip_vision_model codegen cohere convbert convnext convnextv2 ctrl cvt data2vec-text
data2vec-vision deberta deberta-v2 deit dinov2 dinov2_with_registers distilbert efficientnet electra ernie esm falcon
fnet focalnet funnel gemma gemma2 glm gpt2 gpt_bigcode gpt_neo gpt_neox gpt_neox_japanese gpt_oss gptj granite helium
hiera ibert ijepa imagegpt layoutlm led levit llama llama4_text longformer longt5 luke m2m_100 marian mbart
megatron-bert mistral mixtral mobilebert mobilenet_v1 mobilenet_v2 mobilevit mobilevitv2 modernbert mpnet mt5 mvp
nemotron nystromformer olmo olmo2 olmoe openai-gpt opt pegasus pegasus_x persimmon phi phi3 plbart poolformer
prophetnet pvt pvt_v2 qwen2 qwen2_moe qwen3 qwen3_moe regnet rembert resnet roberta roberta-prelayernorm roc_bert
roformer segformer siglip siglip_text_model siglip_vision_model smollm3 splinter squeezebert stablelm starcoder2
swiftformer swin swinv2 switch_transformers t5 textnet umt5 vit vit_mae vit_msn xglm xlm xlm-roberta xlm-roberta-xl
xlnet
"""
PLAIN_TYPES = frozenset(_TYPES.split())
"""Model types whose network is made from numbers alone: none asks for another model, by name or by configuration."""

PARTS = {
    "clip": {"text_config": "clip_text_model", "vision_config": "clip_vision_model"},
    "siglip": {"text_config": "siglip_text_model", "vision_config": "siglip_vision_model"},
}
"""Configurations inside a configuration, and the model type that each must have."""

NAMES_CODE = re.compile(
    r"auto_?map|remote_?code|backbone|quantization|implementation|pipeline|adapter|peft|pretrained(?!_window)|timm",
    re.IGNORECASE,
)
"""In a key: it may name code, or a network that is elsewhere."""

NAMES_NOTHING = (None, False, "eager", "sdpa")
"""Values under which such a key says nothing, or what holds without it: attention as torch itself has it."""

NOTES = frozenset((
    *("_attn_implementation_autoset", "_commit_hash", "_name_or_path", "_num_labels", "architectures", "dtype"),
    *("finetuning_task", "language", "license", "name_or_path", "prefix", "suffix", "task_specific_params"),
    *("tokenizer_class", "torch_dtype", "transformers_version"),
))  # fmt: skip
"""Keys that say where a model is from and what it is for. No network is made of them, and they are not passed on."""

FREE_TEXT = ("id2label", "label2id")
TABLES = (*FREE_TEXT, "pruned_heads", "rope_parameters", "rope_scaling")
"""Keys that may have a dict of numbers and words, by layer type also a dict of dicts."""

KEY, WORD = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}|_remove_final_layer_norm"), re.compile(r"[\w.+ -]{0,100}")
LARGEST = 2**24
"""Of a whole number, and of the sum of a list of them: 16,777,216, more than any model has layers or positions."""
COUNTS, MOST_COUNTED = re.compile(r"layer|label|types|depth|block|stage|expert|head"), 2**16
"""Keys that count what gets an object of Python's each, and the largest such count."""
DEEPEST = 4  # lists in lists
SHOWN = 80  # characters of a key

INSTEAD = (
    f"give {option('model', 'file.py:factory')}, code of your own that makes the network, or leave {option('model')} "
    "out for methods that look at weights alone"
)


def plain_config(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What of a configuration decides its network, every key and value of it plain. `where` is for errors.

    Raises `ModelFactoryError`, which names the key, for a model type that is not known to be plain, and for anything that
    is no number, no word, and no list or known table of those.
    """
    try:
        for path, key, value in _everything(config):
            says_nothing = key in NOTES or value in NAMES_NOTHING
            if NAMES_CODE.search(key) and not says_nothing:
                why = "may name code or a network that is elsewhere, which are not run or looked up"
                raise _NotPlainError(path, why)
        kind = config.get("model_type")
        if not isinstance(kind, str) or kind not in PLAIN_TYPES:
            raise _NotPlainError("model_type", "is none of those that are known to be made of numbers alone")
        return _plain(config, kind, "")
    except _NotPlainError as e:
        path, why = e.args
        raise ModelFactoryError(f"{option('model', 'hf')}: {where}: {shortened(path, SHOWN)} {why}; {INSTEAD}") from e


class _NotPlainError(Exception):
    """What is not plain: the path of its key, and why."""


def _everything(config: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Every key at any depth: its path, itself, its value."""
    waiting: list[tuple[str, Any]] = [("", config)]
    while waiting:
        at, held = waiting.pop()
        if isinstance(held, Mapping):
            for key, value in held.items():
                path = f"{at[-SHOWN:]}{key}"
                yield path, key, value
                waiting.append((f"{path}.", value))
        elif isinstance(held, list):
            waiting += [(at, value) for value in held if isinstance(value, dict | list)]


def _plain(config: Mapping[str, Any], kind: str, at: str) -> dict[str, Any]:
    parts = PARTS.get(kind, {})
    kept: dict[str, Any] = {"model_type": kind}
    for key, value in config.items():
        path = f"{at}{key}"
        if key in NOTES or key == "model_type" or NAMES_CODE.search(key):  # the last says nothing: that was checked
            continue
        if not KEY.fullmatch(key):
            raise _NotPlainError(path, "is no name that a plain configuration has")
        if key in parts and isinstance(value, dict):
            if value.get("model_type", parts[key]) != parts[key]:
                raise _NotPlainError(f"{path}.model_type", f"is not {parts[key]}")
            kept[key] = _plain(value, parts[key], f"{path}.")
            continue
        if isinstance(value, dict):
            _check_table(value, key, path)
        else:
            _check(value, path, DEEPEST, MOST_COUNTED if COUNTS.search(key) else LARGEST)
        kept[key] = value
    return kept


def _check_table(table: dict[str, Any], key: str, path: str) -> None:
    if key not in TABLES:
        raise _NotPlainError(path, "holds a configuration of its own, and plain ones hold numbers and words")
    for name, value in table.items():
        if key in FREE_TEXT and isinstance(value, str):
            continue
        for inner_name, inner in value.items() if isinstance(value, dict) else (("", value),):
            _check(inner, f"{path}.{name}{inner_name and '.'}{inner_name}", 1)


def _check(value: object, path: str, depth: int, most: int = LARGEST) -> None:
    """Raise unless the value is a number of at most `most`, a word, or a list of those."""
    if isinstance(value, list) and depth:
        for one in value:
            _check(one, path, depth - 1, most)
        if sum(abs(one) for one in value if isinstance(one, int)) > most:
            raise _NotPlainError(path, f"holds numbers of more than {most:,} together")
    elif isinstance(value, str):
        if not WORD.fullmatch(value):
            raise _NotPlainError(path, "is a text that may be a path or an address, and plain ones are single words")
    elif isinstance(value, int):
        if abs(value) > most:
            raise _NotPlainError(path, f"is a number beyond {most:,}")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise _NotPlainError(path, "is no finite number")
    elif value is not None:
        raise _NotPlainError(path, "holds what is no number and no word, and plain configurations hold those")
