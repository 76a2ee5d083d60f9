"""A checkpoint's names: without the wrappers' prefixes, and without the halves in which tools of pruning keep a weight."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from pai_cli.errors import CheckpointError

PREFIXES = ("module.", "_orig_mod.")
"""What `DataParallel` and `torch.compile` put before every name."""

WITHIN = re.compile(r"(?<![^.])(_orig_mod|_fsdp_wrapped_module|_forward_module|_checkpoint_wrapped_module)\.")
"""What `torch.compile`, FSDP, Fabric and activation checkpoints put before any part of a name."""

MASK, ORIGINAL = "_mask", "_orig"
"""What `torch.nn.utils.prune` puts after a parameter's name."""


def stripped_names(path: Path, names: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Names without wrappers' prefixes, each with its stored name; and the prefixes that were stripped."""
    stored: dict[str, str] = {}
    stripped: list[str] = []
    for original in names:
        name = original
        for prefix in dict.fromkeys(WITHIN.findall(original)):
            if f"{prefix}." not in stripped:
                stripped.append(f"{prefix}.")
        name = WITHIN.sub("", name) or name
        while prefix := next((p for p in PREFIXES if name.startswith(p) and name != p), None):
            name = name.removeprefix(prefix)
            if prefix not in stripped:
                stripped.append(prefix)
        if name in stored:
            raise CheckpointError(
                f"{path}: tensors {stored[name]!r} and {original!r} are both {name!r} without their prefix; "
                "save one network in one file"
            )
        stored[name] = original
    if not stored:
        raise CheckpointError(f"{path}: holds no tensors; save model.state_dict(), best as .safetensors")
    return stored, stripped


def description_of(under: str, stripped: list[str], masks: list[str], *, originals: bool) -> str:
    """What had to be done to a file to get at its state dict, in words; "" for nothing."""
    parts = [f"state dict under {under!r}"] if under else []
    if stripped:
        word = "prefix" if len(stripped) == 1 else "prefixes"
        parts.append(f"{word} {', '.join(map(repr, stripped))} stripped")
    if masks:
        whose = (
            "the weights are its *_orig, before pruning"
            if originals
            else "the weights are those beside them, as stored"
        )
        tool = "torch.nn.utils.prune's" if originals else "Synaptic-Flow's"
        parts.append(f"{tool} {len(masks)} *_mask set aside: {whose}")
    return ", ".join(parts)


def without_masks(
    stored: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, str], dict[str, str]]:
    """The names of weights instead of those of the halves in which `torch.nn.utils.prune` keeps them, and of their masks.

    `x_orig` beside `x_mask` is `x`; a mask beside its `x`, as Synaptic-Flow's buffers are, is no weight. `stored`: each
    name's own in the file, which `shapes` are by.
    """
    found: dict[str, str] = {}
    masks: dict[str, str] = {}
    for name, original in stored.items():
        base, half = (name[: -len(MASK)], name[-len(MASK) :])
        values = next((one for one in (base + ORIGINAL, base) if one in stored), None)
        if half == MASK and base and values and shapes[stored[values]] == shapes[original]:
            masks[base] = original
        elif half == ORIGINAL and base + MASK in stored and shapes[stored[base + MASK]] == shapes[original]:
            found[base] = original
        else:
            found[name] = original
    return found, masks
