"""Where a checkpoint's tensors come from: safetensors files, or what torch has loaded."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pai_cli.errors import CheckpointError
from pai_cli.files.sparse_arrays import dense_of, is_sparse, kind_of
from pai_cli.files.stacks import PartedFile, part_names
from pai_cli.files.tensors import BFLOAT16, Span, TensorFile
from pai_cli.printable import reason_of

if TYPE_CHECKING:
    import numpy as np
    import torch


_SPELLED = {
    "BOOL": "bool",
    "BF16": "bfloat16",
    **{f"F{bits}": f"float{bits}" for bits in (16, 32, 64)},
    **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
}
"""Types of safetensors as torch spells them; what is not here (`F8_E4M3`) keeps its own name, in small letters."""


class SafetensorsSource:
    """Tensors of one file, or of several by name."""

    def __init__(self, files: Iterable[TensorFile], where: dict[str, TensorFile] | None = None):
        self.where = where if where is not None else {name: file for file in files for name in file.names}
        self.shapes = {name: file.shapes[name] for name, file in self.where.items()}
        self.aliases = _told_aliases(self.where)

    def array(self, name: str) -> np.ndarray:
        """The tensor as a NumPy array of its own dtype; bfloat16 becomes float32 (exact)."""
        return self.where[name].array(name)

    def floating(self, name: str) -> bool:
        """Whether it holds floating-point numbers."""
        return self.where[name].dtype(name).startswith(("F", "BF"))

    def bfloat16(self, name: str) -> bool:
        """Whether it is stored as bfloat16."""
        return self.where[name].dtype(name) == BFLOAT16

    def bits(self, name: str) -> int:
        """Bits of an element; 1 of booleans."""
        dtype = self.where[name].dtype(name)
        digits = re.search(r"[0-9]+", dtype)
        return 1 if dtype == "BOOL" or digits is None else int(digits[0])

    def dtype(self, name: str) -> str:
        """What an element is, as torch spells it."""
        stored = self.where[name].dtype(name)
        return _SPELLED.get(stored) or stored.lower()

    def sparse(self, _name: str) -> str:
        """Always "": the format has no others than plain tensors."""
        return ""

    def span(self, name: str) -> Span:
        """Where its bytes stand."""
        return self.where[name].span(name)


class TorchSource:
    """Tensors that torch holds."""

    def __init__(self, path: Path, tensors: dict[str, torch.Tensor]):
        self._path = path
        self.tensors = tensors
        self.shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        self.aliases = _shared(tensors)

    def array(self, name: str) -> np.ndarray:
        """The tensor as a NumPy array of its own dtype; bfloat16 becomes float32 (exact)."""
        import torch

        tensor = self.tensors[name]
        if is_sparse(tensor):
            return self._dense(name)
        try:
            array: np.ndarray = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
        except ValueError as e:
            raise CheckpointError(
                f"{self._path}: tensor {name!r} has {tensor.dim()} dimensions, more than NumPy can hold; reshape it"
            ) from e
        except (TypeError, RuntimeError) as e:  # sparse, quantised, 8-bit floating point
            kind = f"{tensor.dtype}, {tensor.layout}".replace("torch.", "")
            raise CheckpointError(
                f"{self._path}: tensor {name!r} ({kind}) cannot be read; convert it to a dense float32 tensor"
            ) from e
        return array

    def _dense(self, name: str) -> np.ndarray:
        try:
            return dense_of(self.tensors[name])
        except (ValueError, TypeError) as e:  # also NumPy's, for a dtype or a shape that it has not
            raise CheckpointError(
                f"{self._path}: sparse tensor {name!r} {reason_of(e)}; save it with .to_dense()"
            ) from e

    def floating(self, name: str) -> bool:
        """Whether it holds floating-point numbers."""
        return self.tensors[name].is_floating_point()

    def bfloat16(self, name: str) -> bool:
        """Whether it is stored as bfloat16."""
        import torch

        return self.tensors[name].dtype == torch.bfloat16

    def bits(self, name: str) -> int:
        """Bits of an element; 1 of booleans."""
        import torch

        tensor = self.tensors[name]
        return 1 if tensor.dtype == torch.bool else 8 * tensor.element_size()

    def dtype(self, name: str) -> str:
        """What an element is, as torch spells it."""
        return str(self.tensors[name].dtype).removeprefix("torch.")

    def sparse(self, name: str) -> str:
        """The layout of one that keeps the places of its values, as torch calls it (`coo`); "" of a plain one."""
        tensor = self.tensors[name]
        return kind_of(tensor) if is_sparse(tensor) else ""


Source = SafetensorsSource | TorchSource
"""Where a checkpoint's tensors come from, under their stored names; shapes are in file order."""


def parted(path: Path, source: Source, stacks: Collection[str]) -> Source:
    """The same with each of these tensors as its parts, in its place."""
    if isinstance(source, TorchSource):
        tensors: dict[str, torch.Tensor] = {}
        for name, tensor in source.tensors.items():
            tensors |= (
                zip(part_names(name, tuple(tensor.shape)), tensor, strict=True) if name in stacks else {name: tensor}
            )
        return TorchSource(path, tensors)
    files = {
        file: PartedFile(file, [name for name in stacks if source.where[name] is file])
        for file in dict.fromkeys(source.where.values())
    }
    where: dict[str, TensorFile] = {}
    for name, file in source.where.items():
        where |= dict.fromkeys(part_names(name, source.shapes[name]) if name in stacks else [name], files[file])
    return SafetensorsSource((), where)


def _told_aliases(where: Mapping[str, TensorFile]) -> dict[str, tuple[str, ...]]:
    """Further names of tensors that safetensors' `save_model` left out, as it tells of them: each beside the one it kept."""
    found: dict[str, tuple[str, ...]] = {}
    for file in dict.fromkeys(where.values()):
        for name, kept in file.metadata.items():
            if kept in where and name not in where:
                found[kept] = (*found.get(kept, ()), name)
    return found


def _shared(tensors: Mapping[str, torch.Tensor]) -> dict[str, tuple[str, ...]]:
    """The other names of tensors that are one in memory."""
    groups: dict[tuple[object, ...], list[str]] = {}
    for name, tensor in tensors.items():
        if str(tensor.layout) == "torch.strided" and tensor.numel() and not tensor.is_meta:
            place = tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride()
            groups.setdefault(place, []).append(name)
    several = (names for names in groups.values() if len(names) > 1)
    return {name: tuple(one for one in names if one != name) for names in several for name in names}


def joined(path: Path, shards: Mapping[str, Source], weight_map: Mapping[str, str]) -> Source:
    """The tensors of a sharded set, each from its shard; all shards are of one format. Raises `CheckpointError`."""
    pickled = {name: one for name, one in shards.items() if isinstance(one, TorchSource)}
    plain = {name: one for name, one in shards.items() if isinstance(one, SafetensorsSource)}
    if pickled and plain:
        raise CheckpointError(f"{path}: shards of two formats, safetensors and torch's; copy the whole set again")
    if pickled:
        return TorchSource(path, {name: pickled[shard].tensors[name] for name, shard in weight_map.items()})
    return SafetensorsSource((), {name: plain[shard].where[name] for name, shard in weight_map.items()})
