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


def layout_by_name(name: str, shape: tuple[int, ...]) -> Layout:
    """How a weight is stored of which nothing but its name and shape is known."""
    if _KERNEL.search(name) and len(shape) > 1:
        return Layout(kernel_first=True, known=len(shape) < 3)
    return PLAIN if len(shape) < 3 else UNKNOWN


def layouts_by_name(shapes: Shapes, config: Mapping[str, Any] | None = None) -> dict[str, Layout]:
    """How each of the weights of one file is stored, of which nothing but names and shapes is known, and a configuration."""
    matrices = matrices_by_name(shapes, config)
    return {name: matrices.get(name) or layout_by_name(name, shape) for name, shape in shapes.items()}


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
