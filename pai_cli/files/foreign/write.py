"""Writing masks for other tools: `.npz`, and checkpoints as `torch.nn.utils.prune` or plain multiplication leave them."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from pai_cli.errors import OutputError, SuffixError
from pai_cli.files.atomic import is_special, write_atomically, write_bytes
from pai_cli.files.canonical import canonical_bytes
from pai_cli.files.checkpoints import Checkpoint
from pai_cli.files.foreign.containers import LAYERS_KEY
from pai_cli.files.masks import check_layout, layers_json
from pai_cli.files.messages import some_names
from pai_cli.files.ordering import check_names, spelled
from pai_cli.files.stored_names import MASK, ORIGINAL
from pai_cli.spectral.layout import Layout
from pai_cli.spelling import option
from pai_cli.telling import note

if TYPE_CHECKING:
    import numpy as np
    import torch

TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")
SAFETENSORS = ".safetensors"
LONGEST_MEMBER = 60_000  # bytes; what a .zip file has for a name is 65,535


class Target(StrEnum):
    """What `pai convert` writes."""

    PAI = "pai"
    TORCH_PRUNE = "torch-prune"
    NPZ = "npz"
    DENSE = "dense"
    SEMI_STRUCTURED = "semi-structured"
    BITMASK = "sparse-24-bitmask"

    @property
    def needs_weights(self) -> bool:
        """Whether it is a checkpoint that is written."""
        return self not in (Target.PAI, Target.NPZ)

    @property
    def is_two_of_four(self) -> bool:
        """Whether it is for kernels that take two of every four weights."""
        return self in (Target.SEMI_STRUCTURED, Target.BITMASK)

    @property
    def ending(self) -> str:
        """What is put after a file's name when no output is named."""
        return {Target.PAI: "-mask", Target.NPZ: ""}.get(self, f"-{self}")

    @property
    def suffixes(self) -> tuple[str, ...]:
        """What its files' names may end with, the usual one first; any name will do for the first when it has none."""
        if self is Target.NPZ:
            return (".npz",)
        if self in (Target.PAI, Target.BITMASK):
            return (SAFETENSORS,)
        both = (SAFETENSORS, *TORCH_SUFFIXES)
        return (*both[1:], both[0]) if self is Target.TORCH_PRUNE else both


SUFFIXES = (SAFETENSORS, ".npz", *TORCH_SUFFIXES)


def check_suffix(path: Path, target: Target) -> None:
    """Raise `SuffixError` when a file's name says that it is of another format than will be written."""
    if path.suffix in SUFFIXES and path.suffix not in target.suffixes and not is_special(path):
        endings = " or ".join(target.suffixes[:2])
        raise SuffixError(
            f"{path}: {option('to', target)} writes {endings}; give {option('output')} such a name, or another "
            f"{option('to')}"
        )


@dataclass(frozen=True)
class Weights:
    """What a checkpoint of another tool is made of: the masks of a checkpoint's weights, in order, and their layouts."""

    checkpoint: Checkpoint
    masks: Mapping[str, np.ndarray]
    layouts: Mapping[str, Layout]


def kept_zeros(checkpoint: Checkpoint, masks: Mapping[str, np.ndarray]) -> dict[str, int]:
    """How many weights a mask keeps that are 0 all the same, by name: zeros alone cannot tell those from pruned ones."""
    found = {}
    for name, mask in masks.items():
        count = int((mask & (checkpoint.finite_array(name) == 0)).sum())
        if count:
            found[name] = count
    return found


def write_npz(path: Path, masks: Mapping[str, np.ndarray], *, force: bool) -> None:
    """Write boolean arrays by name, as `numpy.savez_compressed` does, but for the clock and reserved names.

    Raises `OutputError`, also for a name that the file cannot hold.
    """
    import numpy as np

    check_names(path, masks, OutputError)
    for name in masks:
        if len(name.encode()) > LONGEST_MEMBER or "\0" in name:  # which ends a name there
            raise OutputError(f"{path}: .npz cannot hold the name {name!r}; give {option('to', 'pai')}")

    def write(stream: BinaryIO) -> None:
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, mask in masks.items():
                with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.ascontiguousarray(mask), allow_pickle=False)

    write_atomically(path, write, force=force)


def write_weights(path: Path, weights: Weights, target: Target, metadata: Mapping[str, str], *, force: bool) -> None:
    """Write a checkpoint of `target`'s kind, safetensors or as `torch.save` does by the suffix of `path`."""
    for name, mask in weights.masks.items():
        check_layout(path, name, mask.shape, weights.layouts[name])
    tensors = _torch_prune(weights) if target is Target.TORCH_PRUNE else dense_tensors(weights)
    suffix = path.suffix if path.suffix in target.suffixes else target.suffixes[0]
    if target is Target.BITMASK:
        from pai_cli.files.foreign.two_of_four import CONFIG, bitmask_tensors, config_of, two_of_four

        found = two_of_four(path, weights.masks, weights.layouts)
        metadata = {**metadata, CONFIG: json.dumps(config_of(tensors, found))}
        tensors = bitmask_tensors(tensors, weights.masks, found)
    if suffix == SAFETENSORS:
        from safetensors.torch import save

        story = {key: spelled(text) for key, text in metadata.items()}
        if target is not Target.BITMASK:  # which does not have them under their names
            story[LAYERS_KEY] = layers_json({name: weights.layouts[name] for name in weights.masks})
        data = canonical_bytes(save(tensors, {**story, "format": "pt"}))
        write_bytes(path, data, force=force)
        return
    import torch

    write_atomically(path, lambda stream: torch.save(tensors, stream), force=force)


def write_folder(path: Path, weights: Weights, metadata: Mapping[str, str], *, force: bool) -> None:
    """Write the model's folder that the weights are of, 0 where pruned, tensor by tensor. Raises as `new_folder` does."""
    from pai_cli.files.model_folders import new_folder

    with new_folder(weights.checkpoint, path, metadata, force=force) as folder:
        for name in weights.masks:
            folder.write(name, _masked(weights, name))
    if folder.left_out:
        note(f"{path}: {some_names(folder.left_out)} of {weights.checkpoint.path.parent} left out")


def _torch_prune(weights: Weights) -> dict[str, torch.Tensor]:
    """Masked weights under `*_orig`, their masks, in the weights' own dtype, under `*_mask`, all else as it was."""

    tensors: dict[str, torch.Tensor] = {}
    for name in weights.checkpoint.shapes:
        values = _tensor(weights.checkpoint, name)
        if name in weights.masks:
            tensors[name + ORIGINAL] = values
            tensors[name + MASK] = _kept(weights.masks[name]).to(values.dtype)
        else:
            tensors[name] = values
    return tensors


def dense_tensors(weights: Weights) -> dict[str, torch.Tensor]:
    """The checkpoint's tensors by name, pruned weights 0."""
    return {name: _masked(weights, name) for name in weights.checkpoint.shapes}


def _masked(weights: Weights, name: str) -> torch.Tensor:
    """A tensor, 0 where it is pruned."""
    import torch

    values = _tensor(weights.checkpoint, name)
    mask = weights.masks.get(name)
    return values if mask is None else torch.where(_kept(mask), values, torch.zeros_like(values))


def _kept(mask: np.ndarray) -> torch.Tensor:
    """A mask as torch takes it, which shares memory with no array that is only to be read."""
    import numpy as np
    import torch

    return torch.from_numpy(np.require(mask, requirements="W"))


def _tensor(checkpoint: Checkpoint, name: str) -> torch.Tensor:
    """A tensor of the checkpoint in the dtype it is stored in."""
    import torch

    values = torch.from_numpy(checkpoint.array(name).copy(order="C"))
    return values.to(torch.bfloat16) if checkpoint.bfloat16(name) else values
