"""Reading checkpoints: safetensors (one file or sharded) and what `torch.save` writes.

A safetensors file is read without importing torch, one tensor at a time. Nothing that a file holds is
executed unless the user trusts it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pai_cli.errors import CheckpointError
from pai_cli.files.digest import sha256_of
from pai_cli.files.first_bytes import check_readable, first_bytes, is_pickle, is_safetensors, looks_like
from pai_cli.files.folders import CONFIG, read_config, weights_of
from pai_cli.files.json_files import read_json
from pai_cli.files.masks import is_binary
from pai_cli.files.messages import some_names
from pai_cli.files.ordering import check_names, plain_file_name
from pai_cli.files.sources import SafetensorsSource, Source, TorchSource, joined, parted
from pai_cli.files.sparse_arrays import is_sparse
from pai_cli.files.stacks import parted_shapes, places_of
from pai_cli.files.stored_names import ORIGINAL, description_of, stripped_names, without_masks
from pai_cli.files.tensors import Span, TensorFile, finite

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn

    from pai_cli.spectral.layout import Layout


class Checkpoint:
    """A state dict on disk.

    `shapes` maps state-dict names, after unwrapping and stripping of prefixes, to shapes, in file order. Of what pruning
    tools write, a weight and its mask, the weight alone is there (`as_stored`: both, under their own names).
    `description` says what had to be unwrapped, stripped or set aside ("" for a plain state dict). `module` is the whole
    network when `trust` unpickled one or loaded a program of `torch.export`, else None; `input_shape` is that program's,
    of one sample. `config`: of a Hugging Face model's folder its `config.json`, else None. `ordered`: whether the order of
    `shapes` is that in which the network registered its tensors, as `torch.save` keeps it; safetensors files sort
    theirs. `files`: all that it is read from. `stacks`: of what `in_parts` gives, the shapes of the tensors that are there
    as their parts, and `parts`: how each part is stored.
    """

    def __init__(
        self,
        path: Path,
        source: Source,
        files: Iterable[Path],
        *,
        under: str = "",
        module: nn.Module | None = None,
        input_shape: tuple[int, ...] | None = None,
        as_stored: bool = False,
    ):
        self.path = path
        self.module = module
        self.ordered = isinstance(source, TorchSource)
        self.input_shape = input_shape
        self.config: Mapping[str, Any] | None = None
        self.stacks: Mapping[str, tuple[int, ...]] = {}
        self.parts: Mapping[str, Layout] = {}
        self._source = source
        self.files = tuple(sorted(set(files), key=lambda file: file.name))
        check_names(path, source.shapes, CheckpointError)
        stored, stripped = stripped_names(path, source.shapes)
        folded, self._masks = without_masks(stored, source.shapes, lambda name: is_binary(source.array(name)))
        # A module's names are its own.
        self._stored = stored if as_stored or module is not None else folded
        self.description = description_of(under, stripped, () if as_stored else self._masks.values())
        self.shapes: dict[str, tuple[int, ...]] = {name: source.shapes[stored] for name, stored in self._stored.items()}

    @cached_property
    def aliases(self) -> dict[str, tuple[str, ...]]:
        """The other names of tensors that are one in memory, or of which the file tells that they are."""
        told = self._source.aliases
        names = {stored: name for name, stored in self._stored.items()}
        return {
            name: tuple(names.get(other, other) for other in told[stored])
            for name, stored in self._stored.items()
            if stored in told
        }

    def strip(self, prefix: str) -> None:
        """Take a wrapper's prefix from every name, of those that have it; the others are set aside, and both are told."""
        kept = {name.removeprefix(prefix): stored for name, stored in self._stored.items() if name.startswith(prefix)}
        aside = [name for name in self._stored if not name.startswith(prefix)]
        self._stored = kept
        self.shapes = {name: self._source.shapes[stored] for name, stored in kept.items()}
        self.__dict__.pop("aliases", None)
        self.tell(f"prefix {prefix!r} stripped" + (f", {some_names(map(repr, aside))} set aside" if aside else ""))

    def in_parts(self, stacks: Mapping[str, Layout]) -> Checkpoint:
        """The same checkpoint with each of these tensors as the matrices that it is a stack of, `name[0]` and so on."""
        found = copy.copy(self)
        found.stacks = {name: self.shapes[name] for name in stacks}
        found.shapes = parted_shapes(self.shapes, stacks)
        places = places_of(stacks, self.shapes)
        found.parts = {part: replace(stacks[name], stacked=False) for part, (name, _) in places.items()}
        parts = {part: f"{self._stored[name]}[{number}]" for part, (name, number) in places.items()}
        found._stored = {name: parts.get(name) or self._stored[name] for name in found.shapes}
        found._source = parted(self.path, self._source, {self._stored[name] for name in stacks})
        found.__dict__.pop("aliases", None)
        return found

    def tell(self, told: str) -> None:
        """Add to the description what else had to be done."""
        self.description = f"{self.description}, {told}" if self.description else told

    def array(self, name: str) -> np.ndarray:
        """The tensor `name` as a NumPy array of its own dtype; bfloat16 becomes float32 (exact).

        Raises `CheckpointError` for a dtype or layout that NumPy cannot hold.
        """
        return self._source.array(self._stored[name])

    def finite_array(self, name: str) -> np.ndarray:
        """The tensor `name`, as `array` gives it, when it can be weights.

        Raises `CheckpointError` for a tensor of booleans or integers, `NotFiniteError` for a NaN or infinity, which it
        locates by its index in the flattened tensor.
        """
        array = self.array(name)
        if not self.floating(name):
            raise CheckpointError(f"{self.path}: tensor {name!r} holds {array.dtype}, not weights; is this a mask?")
        return finite(self.path, name, array)

    def pruned(self, name: str) -> np.ndarray | None:
        """Where the mask that a pruning tool keeps beside the tensor `name` is 0; None where it keeps none."""
        pair = self._masks.get(name) or self._masks.get(name.removesuffix(ORIGINAL))
        return None if pair is None else self._source.array(pair.mask) == 0

    def floating(self, name: str) -> bool:
        """Whether the tensor `name` holds floating-point numbers."""
        return self._source.floating(self._stored[name])

    def bfloat16(self, name: str) -> bool:
        """Whether the tensor `name` is stored as bfloat16, which NumPy lacks."""
        return self._source.bfloat16(self._stored[name])

    def bits(self, name: str) -> int:
        """How many bits an element of the tensor `name` has: 1 of booleans."""
        return self._source.bits(self._stored[name])

    def dtype(self, name: str) -> str:
        """What an element of the tensor `name` is, as torch spells it: "float32", "bfloat16", "bool"."""
        return self._source.dtype(self._stored[name])

    def sparse(self, name: str) -> str:
        """The layout of the tensor `name` when it is a sparse one (`coo`); "" of a plain one."""
        return self._source.sparse(self._stored[name])

    @property
    def in_spans(self) -> bool:
        """Whether `span` can tell where tensors stand: in safetensors, whose bytes are the tensors'."""
        return isinstance(self._source, SafetensorsSource)

    def span(self, name: str) -> Span:
        """Where the bytes of the tensor `name` stand, when `in_spans`."""
        assert isinstance(self._source, SafetensorsSource)
        return self._source.span(self._stored[name])

    def span_of(self, name: str) -> Span | None:
        """Where the bytes of the tensor `name` stand; None where that is not known."""
        return self.span(name) if self.in_spans else None

    @property
    def metadata(self) -> Mapping[str, str]:
        """What safetensors say of themselves; of a sharded set, what its shards do."""
        files = dict.fromkeys(self._source.where.values()) if isinstance(self._source, SafetensorsSource) else {}
        return {key: text for file in files for key, text in file.metadata.items()}

    def stored_name(self, name: str) -> str:
        """What the file calls the tensor `name`: with its wrappers' prefixes."""
        return self._stored[name]

    @cached_property
    def sha256(self) -> str:
        """Hex digest of the file's bytes; of a sharded set, of its shards in the order of their names."""
        return sha256_of(self.files)


class StateDict(Checkpoint):
    """Tensors that a program holds, as a checkpoint; `name` is what messages call them. No file is read."""

    def __init__(self, name: str, tensors: Mapping[str, torch.Tensor], module: nn.Module | None = None):
        path = Path(name)
        held = {key: tensor.detach().cpu() for key, tensor in tensors.items()}
        self._tensors = {key: one.to_dense() if is_sparse(one) else one for key, one in held.items()}
        super().__init__(path, TorchSource(path, self._tensors), (), module=module)

    @cached_property
    def sha256(self) -> str:
        """Hex digest of names, types, shapes and values, in the order of the names."""
        import hashlib

        digest = hashlib.sha256()
        for name in sorted(self._tensors):
            tensor = self._tensors[name].contiguous()
            digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode("utf-8", "surrogatepass"))
            digest.update(_bytes_of(tensor))
        return digest.hexdigest()


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    import torch

    return tensor.reshape(-1).view(torch.uint8).numpy().data


def open_checkpoint(path: Path, *, trust: bool = False, as_stored: bool = False) -> Checkpoint:
    """Open a checkpoint by what it contains, whatever its suffix says.

    Reads safetensors, sharded sets of them or of `.bin` files (given their `*.index.json`), state dicts of `torch.save`,
    plain or under one of `pickles.WRAPPERS`, programs of `torch.export`, and folders of Hugging Face models (their weights).
    `trust` allows a pickle or a program to run its own code. `as_stored`: see `Checkpoint`.

    Raises `UntrustedPickleError` when a pickle needs code and `trust` is false, `CheckpointError` for
    everything else that is wrong with the file, each in one line.
    """
    if path.is_dir():
        checkpoint = open_checkpoint(weights_of(path), trust=trust, as_stored=as_stored)
        checkpoint.config = read_config(path)
        return checkpoint
    start = check_readable(path, CheckpointError)
    if is_safetensors(start) or (path.suffix == ".safetensors" and not is_pickle(start)):
        file = TensorFile(path, CheckpointError)
        if file.metadata.get("format") == "pai-mask":
            raise CheckpointError(f"{path}: is a mask, not a checkpoint; give the checkpoint that it was made for")
        return Checkpoint(path, SafetensorsSource([file]), [path], as_stored=as_stored)
    if is_pickle(start):
        return _open_pickle(path, trust=trust, as_stored=as_stored)
    if start.lstrip().startswith(b"{"):
        return _open_sharded(path, trust=trust, as_stored=as_stored)
    raise CheckpointError(
        f"{path}: neither a safetensors file nor one that torch.save wrote; it looks like {looks_like(start)}: give one "
        "of those"
    )


def files_of(path: Path) -> list[Path]:
    """What a checkpoint, or a mask, is read from: the file, and all that a folder or an index name.

    Only an index is read; of what is damaged or missing, what is told is told when it is opened.
    """
    files = [path]
    with suppress(OSError, CheckpointError):
        if path.is_dir():
            path = weights_of(path)
            files += [path.parent / CONFIG, path]
        if not path.is_file():  # a pipe would be waited for
            return files
        start = first_bytes(path)
        if start.lstrip().startswith(b"{") and not is_safetensors(start):
            shards = sorted(set(_weight_map(path).values()))
            files += [path.parent / shard for shard in shards if plain_file_name(shard)]
    return files


def _open_pickle(path: Path, *, trust: bool, as_stored: bool) -> Checkpoint:
    from pai_cli.files.programs import is_program, load_program

    if is_program(path):
        program, input_shape = load_program(path, trust=trust)
        tensors = {name: tensor.detach() for name, tensor in program.state_dict().items()}
        return Checkpoint(path, TorchSource(path, tensors), [path], module=program, input_shape=input_shape)
    from pai_cli.files.pickles import load_pickle

    return unpickled_checkpoint(path, load_pickle(path, trust=trust), as_stored=as_stored)


def unpickled_checkpoint(path: Path, loaded: object, *, as_stored: bool = False) -> Checkpoint:
    """The state dict in what `load_pickle` gave. Raises `CheckpointError` when there is none."""
    from pai_cli.files.pickles import masks_beside, unwrap

    tensors, under, module = unwrap(path, loaded)
    checkpoint = Checkpoint(path, TorchSource(path, tensors), [path], under=under, module=module, as_stored=as_stored)
    if key := masks_beside(loaded)[0]:
        checkpoint.tell(f"masks under {key!r} set aside")
    return checkpoint


def _open_sharded(path: Path, *, trust: bool, as_stored: bool) -> Checkpoint:
    weight_map = _weight_map(path)
    shards = sorted(set(weight_map.values()))
    files: dict[str, Source] = {}
    for shard in shards:
        if not plain_file_name(shard):
            raise CheckpointError(
                f"{path}: shard {shard!r} is not a plain file name in the same folder; correct the index"
            )
        try:
            files[shard] = _shard(path.parent / shard, trust=trust)
        except CheckpointError as e:
            raise type(e)(f"{e.text} (a shard of {path})") from e
    for name, shard in weight_map.items():
        if name not in files[shard].shapes:
            raise CheckpointError(
                f"{path.parent / shard}: tensor {name!r} is not in this shard, though {path.name} says so; "
                "copy the whole set again"
            )
    every = [path.parent / shard for shard in shards]
    return Checkpoint(path, joined(path, files, weight_map), every, as_stored=as_stored)


def _shard(path: Path, *, trust: bool) -> Source:
    """What one file of a sharded set holds: safetensors, or what torch.save wrote."""
    start = check_readable(path, CheckpointError)
    if is_safetensors(start) or not is_pickle(start):
        return SafetensorsSource([TensorFile(path, CheckpointError)])
    from pai_cli.files.pickles import load_pickle, unwrap

    return TorchSource(path, unwrap(path, load_pickle(path, trust=trust))[0])


def _weight_map(path: Path) -> dict[str, str]:
    index = read_json(path, CheckpointError, "copy it again, or give *.index.json of a sharded checkpoint")
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise CheckpointError(
            f"{path}: not a checkpoint index: it has no 'weight_map' from tensor names to shard file names; "
            "give *.index.json of a sharded checkpoint"
        )
    return weight_map
