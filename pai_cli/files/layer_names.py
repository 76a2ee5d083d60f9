"""What tensors' names and shapes tell where no network is at hand: which are weights of a layer, and how they are stored.

The one place that knows. Where neither name nor shape tells, the layout is `UNKNOWN`, and whoever uses it says so.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from pai_cli.files.messages import some_names
from pai_cli.spectral.layout import PLAIN, UNKNOWN, Layout

Shapes = Mapping[str, tuple[int, ...]]

TRANSPOSED_TYPES = frozenset(["gpt2", "openai-gpt", "imagegpt", "decision_transformer", "trajectory_transformer"])
"""Model types whose blocks use transformers' `Conv1D`, a linear layer stored as (inputs, outputs)."""

TURNED_EXPERTS = frozenset(["aria", "aria_text", "gpt_oss", "llama4", "llama4_text", "openai_privacy_filter"])
"""Model types whose experts transformers has in tensors of (experts, inputs, outputs); of others inputs are the last."""

_CONV1D = re.compile(r"(^|\.)(c_attn|q_attn|c_proj|c_fc)\.weight$")

_KERNEL = re.compile(r"(^|[/._])kernel(:0)?$")
"""What Flax and Keras call a weight, which they store as (*kernel, inputs, outputs)."""

TABLES = re.compile(
    r"(^|\.)(wte|wpe|shared|embed_tokens|embed_positions|embed_in|(\w+_)?emb(ed(ding)?)?s?|embedding_table|tokens_embed"
    r"|positions_embed|relative_attention_bias|relative_attn_bias)\.weight$"
)
"""Tables that are looked up, not multiplied by: they have two dimensions as well."""

HEAD, TOKENS = (
    re.compile(r"(^|\.)(lm_head|embed_out)\.weight$"),
    re.compile(r"(^|\.)(wte|shared|embed_tokens)\.weight$"),
)
"""Of a language model, the weight that gives its logits, and the table of its tokens: often one tensor."""

_MATRICES = re.compile(r"(^|\.)(weight_(ih|hh|hr)(_l\d+(_reverse)?)?|(in|q|k|v)_proj_weight)$")
"""Of recurrent layers and of `nn.MultiheadAttention`: matrices whose names do not end with `.weight`."""


_EXPERTS = re.compile(r"(^|\.)experts\.(?![0-9])")
_NO_MATRICES = re.compile(r"(bias|scales?|scale_inv|zeros|zero_point|blocks|norm)$")
_UP = re.compile(r"(^|[._])((gate|up|gate_up)(_proj)?|w1|w3|fc1|wi)(\.weight)?$")
_DOWN = re.compile(r"(^|[._])(down(_proj)?|w2|fc2|wo)(\.weight)?$")
"""Of the experts of a mixture in one tensor: their names, those of no matrices among them, what reads and what writes the
hidden state."""

NUMBERS_OF_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
"""What configurations call how many experts there are."""


def layout_by_name(name: str, shape: tuple[int, ...]) -> Layout:
    """How a weight is stored of which nothing but its name and shape is known."""
    if _KERNEL.search(name) and len(shape) > 1:
        return Layout(kernel_first=True, known=len(shape) < 3)
    return PLAIN if len(shape) < 3 else UNKNOWN


def layouts_by_name(shapes: Shapes, config: Mapping[str, Any] | None = None) -> dict[str, Layout]:
    """How each of the weights of one file is stored, of which nothing but names and shapes is known, and a configuration."""
    told = {**matrices_by_name(shapes, config), **stacks_by_name(shapes, config)}
    return {name: told.get(name) or layout_by_name(name, shape) for name, shape in shapes.items()}


def told_of_kernels(shapes: Shapes) -> str:
    """What to say of masks that are taken for Flax's or Keras's by their names; "" for none."""
    kernels = [name for name, shape in shapes.items() if layout_by_name(name, shape).kernel_first]
    if not kernels:
        return ""
    return f"{kernels[0]!r} is taken for a kernel as Flax and Keras store it, (..., inputs, outputs)" + (
        f", and {len(kernels) - 1} more" if len(kernels) > 1 else ""
    )


def told_assumed(names: Collection[str]) -> str:
    """What to say of layers of which nobody told the layout."""
    return f"does not tell groups and transposition of {some_names(names)}: taken as neither grouped nor transposed"


def matrices_by_name(shapes: Shapes, config: Mapping[str, Any] | None = None) -> dict[str, Layout]:
    """Weights of linear, recurrent and attention layers, with their layouts, in the order of the file.

    Of two dimensions, and no tables; a convolution's groups stand in no shape. `config`: of a Hugging Face model's folder.
    """
    turned = _has_conv1d(shapes) if config is None else config.get("model_type") in TRANSPOSED_TYPES
    return {
        name: Layout(transposed=_turned(name, shapes, turned))
        for name, shape in shapes.items()
        if len(shape) == 2 and 0 not in shape and is_matrix(name)
    }


def stacks_by_name(shapes: Shapes, config: Mapping[str, Any] | None = None) -> dict[str, Layout]:
    """Tensors of three dimensions that are the experts of a mixture, a matrix each, with their layouts, in the file's order.

    By their names, and as many as `config` says where it does. Which side is inputs, shapes tell: of the bias, of the
    matrices that the hidden state comes into and goes out of; else the model's type; where nothing does, they are the last,
    and the layout is not `known`. A `.weight` may be a convolution's, and is taken only where the configuration tells how
    many experts there are.
    """
    told = _told(config, *NUMBERS_OF_EXPERTS)
    found = {}
    for name, shape in shapes.items():
        if len(shape) != 3 or not shape[0] or min(shape[1:]) < 2 or f"{name}[0]" in shapes:
            continue
        if not _EXPERTS.search(name) or _NO_MATRICES.search(name):
            continue
        if shape[0] in told or not (told or name.endswith(".weight")):
            turned = _turned_stack(name, shapes, config)
            found[name] = Layout(transposed=turned is True, known=turned is not None, stacked=True)
    return found


def _told(config: Mapping[str, Any] | None, *keys: str) -> set[int]:
    """The whole numbers that a configuration has under these keys, or in its part about text."""
    parts = [config or {}, (config or {}).get("text_config")]
    values = [part[key] for part in parts if isinstance(part, Mapping) for key in keys if key in part]
    return {value for value in values if type(value) is int}


def _turned_stack(name: str, shapes: Shapes, config: Mapping[str, Any] | None) -> bool | None:
    """Whether experts are stored as (inputs, outputs); None where nothing tells."""
    _, first, last = shapes[name]
    bias = shapes.get(f"{name}_bias") or shapes.get(f"{name.removesuffix('.weight')}.bias") or ()
    if first != last and bias[1:] in ((first,), (last,)):
        return bias[1:] == (last,)
    at = re.sub(r"(gate_up|down)_proj$", "", name)
    _, a, b = _three(shapes.get(f"{at}gate_up_proj"))
    _, c, d = _three(shapes.get(f"{at}down_proj"))
    if at != name and a and c and ((a, b) == (2 * d, c)) != ((b, a) == (2 * c, d)):
        return (b, a) == (2 * c, d)
    hidden = _told(config, "hidden_size")
    if (first in hidden) != (last in hidden) and (_UP.search(name) or _DOWN.search(name)):
        return (first in hidden) == (_UP.search(name) is not None)
    return True if (config or {}).get("model_type") in TURNED_EXPERTS else None


def _three(shape: tuple[int, ...] | None) -> tuple[int, ...]:
    return shape if shape is not None and len(shape) == 3 else (0, 0, 0)


def is_matrix(name: str) -> bool:
    """Whether the name is that of a weight that multiplies, and of no table."""
    if TABLES.search(name):
        return False
    return name == "weight" or name.endswith(".weight") or _MATRICES.search(name) is not None


def _turned(name: str, shapes: Shapes, conv1d: bool) -> bool:
    """Whether a matrix is stored as (inputs, outputs): its bias is as long as one of its sides, else its name tells."""
    rows, columns = shapes[name]
    bias = shapes.get(name.removesuffix("weight") + "bias", ())
    if _CONV1D.search(name) and rows != columns and bias in ((rows,), (columns,)):
        return bias == (columns,)
    return conv1d and _CONV1D.search(name) is not None


def _has_conv1d(shapes: Shapes) -> bool:
    """Whether a file without a configuration has transformers' `Conv1D`: one that widens has more columns than rows."""
    return any(
        len(shape) == 2 and shape[1] > shape[0] and re.search(r"(^|\.)(c_attn|c_fc)\.weight$", name) is not None
        for name, shape in shapes.items()
    )
