"""A checkpoint's names: without the wrappers' prefixes, and without the halves in which tools of pruning keep a weight."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pai_cli.errors import CheckpointError
from pai_cli.files.messages import some_names

PREFIXES = ("module.", "_orig_mod.")
"""What `DataParallel` and `torch.compile` put before every name."""

WITHIN = re.compile(r"(?<![^.])(_orig_mod|_fsdp_wrapped_module|_forward_module|_checkpoint_wrapped_module)\.")
"""What `torch.compile`, FSDP, Fabric and activation checkpoints put before any part of a name."""

MASK, ORIGINAL = "_mask", "_orig"
"""What `torch.nn.utils.prune` puts after a parameter's name."""

MASK_WORDS = frozenset(["mask", "masks"])
OF_MASKS = frozenset(["pruning", "prune", "pruned", "weights", "binary", "bool", "dict", "state", "module"])
"""Words of a name that say that it is a mask's, and those that may stand beside them."""

AS_STORED = "the weights are those beside them, as stored"


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


@dataclass(frozen=True)
class Pair:
    """The names of a mask in a file, and of the values that it masks."""

    values: str
    mask: str

    @property
    def named_alike(self) -> bool:
        """Whether it is `x_mask` beside `x` or `x_orig`, as tools of pruning write them."""
        return self.mask.endswith(MASK) and self.values in (base := self.mask[: -len(MASK)], base + ORIGINAL)


def pairs_among(shapes: Mapping[str, tuple[int, ...]], binary: Callable[[str], bool]) -> dict[str, Pair]:
    """Tensors that have a mask beside them in one file, by the name of the parameter, which is without `_orig`.

    `x_mask` beside `x_orig` or `x`; or by any other name that says mask, and but for that is the tensor's, with or without
    `weight` at its end and wrappers in front (`mask.x`, `masks.x`, `x.mask`, a layer's own `mask`): those only of the same
    shape and of 0 and 1 alone, which `binary` tells of a name.
    """
    found: dict[str, Pair] = {}
    for name in shapes:
        base = name.removesuffix(MASK)
        values = next((one for one in (base + ORIGINAL, base) if one in shapes), "")
        if base not in ("", name) and values:
            found[base] = Pair(values, name)
    alone = {one.mask for one in found.values()}
    others = [name for name in shapes if MASK_WORDS & set(_words(name)) and name not in alone]
    ends = _ends(shapes) if others else {}
    for name in others:
        values = _masked_by(name, ends, shapes)
        if values and values.removesuffix(ORIGINAL) not in found and binary(name):
            found[values.removesuffix(ORIGINAL)] = Pair(values, name)
    return found


def unpaired(shapes: Mapping[str, tuple[int, ...]], paired: Collection[str]) -> tuple[list[str], list[str]]:
    """Matrices whose names say mask, that are not among `paired` and are shaped as another tensor: those whose names tell of
    which, and the others.
    """
    called = [
        name for name in shapes if MASK_WORDS & set(_words(name)) and name not in paired and len(shapes[name]) > 1
    ]
    ends = _ends(shapes) if called else {}
    weights = {shape for name, shape in shapes.items() if not MASK_WORDS & set(_words(name))}
    known = [name for name in called if _masked_by(name, ends, shapes)]
    return known, [name for name in called if name not in known and shapes[name] in weights]


def without_mask_words(names: Iterable[str]) -> dict[str, str]:
    """Each name without what all of them have in front or at the end to say that they are masks."""
    every = list(names)
    for front in ("mask.", "masks."):
        if every and all(name.startswith(front) and name != front for name in every):
            return {name: name.removeprefix(front) for name in every}
    for end in (MASK, "_masks", ".weight.mask"):
        if every and all(name.endswith(end) and name != end for name in every):
            kept = end.removesuffix(".mask") if end.startswith(".") else ""
            return {name: name.removesuffix(end) + kept for name in every}
    return {name: name for name in every}


def _ends(shapes: Collection[str]) -> dict[tuple[str, ...], list[str]]:
    """The names that do not say mask, by the words that they end with."""
    ends: dict[tuple[str, ...], list[str]] = {}
    for name in shapes:
        words = _words(name)
        for begin in range(len(words) if not MASK_WORDS & set(words) else 0):
            ends.setdefault(words[begin:], []).append(name)
    return ends


def _words(name: str) -> tuple[str, ...]:
    return tuple(word for word in re.split(r"[./_]", WITHIN.sub("", name)) if word)


def _masked_by(name: str, ends: Mapping[tuple[str, ...], list[str]], shapes: Mapping[str, tuple[int, ...]]) -> str:
    """The one tensor of the shape of this mask whose name is the mask's without what says that it is one; "" for none."""
    words = tuple(word for word in _words(name) if word not in (*MASK_WORDS, *OF_MASKS))
    if words[-1:] and words[-1].isdigit() and "parametrizations" in words:
        words = (*words[:-1], "original")
    for wanted in (words, (*words, "weight")):
        for begin in range(max(1, len(wanted) - 1)):  # two words tell of a layer; one only where it is the whole name
            alike = [one for one in ends.get(wanted[begin:], ()) if shapes[one] == shapes[name]]
            exact = [one for one in alike if _words(one) == wanted]
            if len(exact or alike) == 1:
                return (exact or alike)[0]
    return ""


def description_of(under: str, stripped: list[str], pairs: Iterable[Pair]) -> str:
    """What had to be done to a file to get at its state dict, in words; "" for nothing."""
    parts = [f"state dict under {under!r}"] if under else []
    if stripped:
        word = "prefix" if len(stripped) == 1 else "prefixes"
        parts.append(f"{word} {', '.join(map(repr, stripped))} stripped")
    pairs = list(pairs)
    halves = [pair for pair in pairs if pair.values.endswith(ORIGINAL)]
    if halves:
        parts.append(
            f"torch.nn.utils.prune's {len(halves)} *_mask set aside: the weights are its *_orig, before pruning"
        )
    buffers = [pair for pair in pairs if pair.named_alike and pair not in halves]
    others = [pair.mask for pair in pairs if not pair.named_alike and pair not in halves]
    if buffers:
        parts.append(f"Synaptic-Flow's {len(buffers)} *_mask set aside: {AS_STORED}")
    if others:
        parts.append(f"{len(others)} masks ({some_names(map(repr, others))}) set aside: {AS_STORED}")
    return ", ".join(parts)


def without_masks(
    stored: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]], binary: Callable[[str], bool]
) -> tuple[dict[str, str], dict[str, Pair]]:
    """The names of weights instead of those of the halves in which `torch.nn.utils.prune` keeps them, and of their masks.

    `x_orig` beside `x_mask` is `x`; a mask beside its `x` is no weight. `stored`: that of each in the file, as in `shapes`;
    `binary`: see `pairs_among`, of a name in the file.
    """
    own = {name: shapes[original] for name, original in stored.items()}
    pairs = {
        base: pair
        for base, pair in pairs_among(own, lambda name: binary(stored[name])).items()
        if own[pair.values] == own[pair.mask]
    }
    masks = {pair.mask for pair in pairs.values()}
    renamed = {pair.values: base for base, pair in pairs.items()}
    found = {renamed.get(name, name): original for name, original in stored.items() if name not in masks}
    return found, {base: Pair(stored[pair.values], stored[pair.mask]) for base, pair in pairs.items()}
