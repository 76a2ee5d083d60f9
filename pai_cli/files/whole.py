"""Weights that no mask covers: which they are, how many, and why; so that none is left out in silence."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pai_cli.files.layer_names import TABLES, matrices_by_name, stacks_by_name
from pai_cli.files.matching import located, told_aliases
from pai_cli.files.messages import some_names
from pai_cli.printable import as_line

if TYPE_CHECKING:
    from pai_cli.files.checkpoints import Checkpoint

KEY = "left_whole"
"""The mask file's metadata: a JSON object from the names of tensors to the reason why they are left whole."""

TABLE = "a table that is looked up"
EXPERTS = "experts in one tensor"
CONVOLUTION = "a convolution whose groups no name tells"
PARAMETER = "no layer's weight that is known"
UNMASKED = "no mask of it"
PARAMETRISED = "a parametrisation computes the weight from it"
NORMED = "weight_norm divides by its norm, which would be 0 where all are pruned"
PACKED = "quantised: packed as integers, which cannot be pruned"

SHOWN = 3

_NO_WEIGHT = re.compile(r"(^|\.)(running_mean|running_var|num_batches_tracked|parametrizations\.\w+\.[0-9]+\.\w+)$")
"""Statistics and counters, and what a parametrisation has of its own."""
_SCALES = re.compile(r"(scales?|zeros|zero_point|absmax|nested_quant_map|quant_map|SCB|scale_inv|g_idx|_meta)$")
_PACKED = re.compile(r"(^|\.|_)(qweight|weight_packed|W_q|weight|blocks)$")


@dataclass(frozen=True)
class Whole:
    """Tensors that are left whole: `reasons` by name, `sizes` in weights, and how many weights are in `vectors` (biases and
    norms, which nobody prunes). `packed`: of the sizes, those that integers stand for.
    """

    reasons: Mapping[str, str] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    vectors: int = 0
    packed: int = 0

    def __str__(self) -> str:
        """One line: how many weights, in which tensors, and why; "" for none but biases and norms."""
        if not self.reasons:
            return ""
        by_reason: dict[str, list[str]] = {}
        for name, reason in self.reasons.items():
            by_reason.setdefault(reason, []).append(as_line(name))
        named = "; ".join(f"{some_names(names, SHOWN)} ({reason})" for reason, names in by_reason.items())
        many = "tensor" if len(self.reasons) == 1 else "tensors"
        beside = f"; beside {self.vectors:,} in biases, norms and other vectors" if self.vectors else ""
        return f"{sum(self.sizes.values()):,} weights in {len(self.reasons)} {many} are left whole: {named}{beside}"

    def beside(self, reasons: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]) -> Whole:
        """The same with more tensors, by the reasons why they are left whole."""
        sizes = {name: math.prod(shapes[name]) for name in reasons}
        return replace(self, reasons={**self.reasons, **reasons}, sizes={**self.sizes, **sizes})

    @property
    def unmasked(self) -> dict[str, int]:
        """Sizes of the layers that a mask could have been of."""
        return {name: self.sizes[name] for name, reason in self.reasons.items() if reason == UNMASKED}

    @property
    def story(self) -> dict[str, str]:
        """What a mask file tells of it; {} for nothing."""
        return {KEY: json.dumps(dict(self.reasons), separators=(",", ":"))} if self.reasons else {}


NOTHING = Whole()


def told_whole(metadata: Mapping[str, str]) -> dict[str, str]:
    """What a mask file tells of tensors that are left whole; a note that makes no sense is as good as none."""
    try:
        told: Any = json.loads(metadata.get(KEY, "{}"))
    except (ValueError, RecursionError):
        return {}
    return {str(name): str(reason) for name, reason in told.items()} if isinstance(told, dict) else {}


def beside_masks(
    source: Checkpoint, names: Collection[str], metadata: Mapping[str, str], why: Mapping[str, str] | None = None
) -> Whole:
    """What of a checkpoint the masks of these names do not cover. `metadata`: of their file, which tells other names, and
    reasons; `why`: see `left_whole`.
    """
    found = located(names, source.shapes, told_aliases(metadata), source.aliases)
    whole = left_whole(source, {one for ones in found.values() for one in ones}, why)
    matrices = {**matrices_by_name(source.shapes, source.config), **stacks_by_name(source.shapes, source.config)}
    told = told_whole(metadata)
    reasons = {
        name: told.get(name) or (UNMASKED if name in matrices or reason == CONVOLUTION else reason)
        for name, reason in whole.reasons.items()
    }
    return replace(whole, reasons=reasons)


def left_whole(source: Checkpoint, taken: Collection[str], why: Mapping[str, str] | None = None) -> Whole:
    """What of a checkpoint is in no layer of `taken`, whose names may be several of one tensor.

    `why`: reasons that a network gives, by name; its tensors that are no parameters are not in it, and where it is given are
    no weights. Scales of quantised weights, counters and statistics are none either.
    """
    reasons, sizes, vectors, packed = {}, {}, 0, 0
    for name, shape in source.shapes.items():
        size = math.prod(shape)
        if name in taken or not size or _NO_WEIGHT.search(name) or (why is not None and name not in why):
            continue
        if name.endswith("bias") and len(shape) == 4:  # a causal mask, which GPT-2 keeps under that name
            continue
        stands_for = packed_weights(source, name)
        if stands_for:
            reasons[name], sizes[name] = PACKED, stands_for
            packed += stands_for
        elif not source.floating(name) or (_SCALES.search(name) and why is None):
            continue
        elif len(shape) < 2 or (max(shape) == size and not name.endswith(".weight")):
            vectors += size
        else:
            reasons[name], sizes[name] = (why or {}).get(name) or _reason(name, shape, source.shapes), size
    return Whole(reasons, sizes, vectors, packed)


def _reason(name: str, shape: tuple[int, ...], others: Collection[str]) -> str:
    if TABLES.search(name):
        return TABLE
    if "expert" in name and len(shape) == 3:
        return EXPERTS
    if name.endswith(("weight_v", ".weight.original1")) and _sibling(name) in others:
        return NORMED
    if ".parametrizations." in f".{name}" or name.endswith("weight_orig"):
        return PARAMETRISED
    return CONVOLUTION if name.endswith(".weight") and len(shape) > 2 else PARAMETER


def _sibling(name: str) -> str:
    """The other half of a weight under weight_norm: its norms."""
    return name[:-1] + ("g" if name.endswith("v") else "0")


def packed_weights(source: Checkpoint, name: str) -> int:
    """How many weights a tensor of integers stands for; 0 for one of floating-point numbers, and for what is no weight.

    By the bits that the configuration tells of, else 4 a weight where several could be in an integer.
    """
    shape, width = source.shapes[name], source.bits(name)
    if source.floating(name) or len(shape) < 2 or width == 1 or not _PACKED.search(name):
        return 0
    if name.endswith("weight") and not name.endswith(
        "qweight"
    ):  # a number each, but for what bitsandbytes has at 4 bits
        bits = 4 if f"{name}.absmax" in source.shapes else 8
        return math.prod(shape) * width // bits if width == 8 else 0
    return math.prod(shape) * width // (_told_bits(source.config) or 4)


def _told_bits(config: Mapping[str, Any] | None) -> int:
    told = (config or {}).get("quantization_config")
    if not isinstance(told, Mapping):
        return 0
    if told.get("load_in_4bit") is True:
        return 4
    if told.get("load_in_8bit") is True:
        return 8
    bits = told.get("bits", told.get("w_bit"))
    return bits if type(bits) is int and 1 <= bits <= 8 else 0
