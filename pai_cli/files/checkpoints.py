"""Reading checkpoints: safetensors (one file or sharded) and what `torch.save` writes.

A safetensors file is read without importing torch, one tensor at a time. Nothing that a file holds is
executed unless the user trusts it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pai_cli.errors import CheckpointError, NotFiniteError
from pai_cli.files.digest import sha256_of
from pai_cli.files.first_bytes import ENOUGH, is_pickle, is_safetensors, looks_like
from pai_cli.files.folders import CONFIG, read_config, weights_of
from pai_cli.files.ordering import check_names, plain_file_name
from pai_cli.files.tensors import BFLOAT16, Span, TensorFile, check_readable

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn

PREFIXES = ("module.", "_orig_mod.")
"""What `DataParallel` and `torch.compile` put before every name."""


class _Source(Protocol):
    """Where tensors come from, under their stored names."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]: ...

    def array(self, name: str) -> np.ndarray: ...

    def floating(self, name: str) -> bool: ...

    def bfloat16(self, name: str) -> bool: ...


class Checkpoint:
    """A state dict on disk.

    `shapes` maps state-dict names, after unwrapping and stripping of prefixes, to shapes, in file order.
    `description` says what had to be unwrapped ("" for a plain state dict). `module` is the whole network
    when `trust` unpickled one or loaded a program of `torch.export`, else None; `input_shape` is that program's, of
    one sample. `config`: of a Hugging Face model's folder its `config.json`, else None. `ordered`: whether the order of
    `shapes` is that in which the network registered its tensors, as `torch.save` keeps it; safetensors files sort
    theirs. `files`: all that it is read from.
    """

    def __init__(
        self,
        path: Path,
        source: _Source,
        files: Iterable[Path],
        *,
        under: str = "",
        module: nn.Module | None = None,
        input_shape: tuple[int, ...] | None = None,
    ):
        self.path = path
        self.module = module
        self.ordered = isinstance(source, _TorchSource)
        self.input_shape = input_shape
        self.config: Mapping[str, Any] | None = None
        self._source = source
        self.files = tuple(sorted(set(files), key=lambda file: file.name))
        check_names(path, source.shapes, CheckpointError)
        self._stored, stripped = stripped_names(path, source.shapes)
        self.shapes: dict[str, tuple[int, ...]] = {name: source.shapes[stored] for name, stored in self._stored.items()}
        self.description = _description(under, stripped)

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
        import numpy as np

        array = self.array(name)
        if not self.floating(name):
            raise CheckpointError(f"{self.path}: tensor {name!r} holds {array.dtype}, not weights; is this a mask?")
        finite = np.isfinite(array).reshape(-1)
        if not finite.all():
            at = int(np.argmin(finite))
            raise self.not_finite(name, float(array.reshape(-1)[at]), at)
        return array

    def not_finite(self, name: str, value: float, at: int) -> NotFiniteError:
        """The fault of a tensor that holds a NaN or infinity at this flat index."""
        return NotFiniteError(
            f"{self.path}: tensor {name!r} holds {value} at index {at}; "
            "take a checkpoint from before the weights diverged"
        )

    def floating(self, name: str) -> bool:
        """Whether the tensor `name` holds floating-point numbers."""
        return self._source.floating(self._stored[name])

    def bfloat16(self, name: str) -> bool:
        """Whether the tensor `name` is stored as bfloat16, which NumPy lacks."""
        return self._source.bfloat16(self._stored[name])

    @property
    def in_spans(self) -> bool:
        """Whether `span` can tell where tensors stand: in safetensors, whose bytes are the tensors'."""
        return isinstance(self._source, _SafetensorsSource)

    def span(self, name: str) -> Span:
        """Where the bytes of the tensor `name` stand, when `in_spans`."""
        assert isinstance(self._source, _SafetensorsSource)
        return self._source.span(self._stored[name])

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
        self._tensors = {key: tensor.detach().cpu() for key, tensor in tensors.items()}
        super().__init__(path, _TorchSource(path, self._tensors), (), module=module)

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


def open_checkpoint(path: Path, *, trust: bool = False) -> Checkpoint:
    """Open a checkpoint by what it contains, whatever its suffix says.

    Reads safetensors, a sharded set (given its `*.index.json`), state dicts of `torch.save`, plain or under
    `state_dict`, `model` or `model_state_dict`, programs of `torch.export`, and folders of Hugging Face models (their
    safetensors). `trust` allows a pickle or a program
    to run its own code.

    Raises `UntrustedPickleError` when a pickle needs code and `trust` is false, `CheckpointError` for
    everything else that is wrong with the file, each in one line.
    """
    if path.is_dir():
        checkpoint = open_checkpoint(weights_of(path))
        checkpoint.config = read_config(path)
        return checkpoint
    check_readable(path, CheckpointError)
    with path.open("rb") as f:
        start = f.read(ENOUGH)
    if is_safetensors(start) or (path.suffix == ".safetensors" and not is_pickle(start)):
        file = TensorFile(path, CheckpointError)
        if file.metadata.get("format") == "pai-mask":
            raise CheckpointError(f"{path}: is a mask, not a checkpoint; give the checkpoint that it was made for")
        return Checkpoint(path, _SafetensorsSource([file]), [path])
    if is_pickle(start):
        return _open_pickle(path, trust=trust)
    if start.lstrip().startswith(b"{"):
        return _open_sharded(path)
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
        with path.open("rb") as f:
            start = f.read(64)
        if start.lstrip().startswith(b"{") and not is_safetensors(start):
            shards = sorted(set(_weight_map(path).values()))
            files += [path.parent / shard for shard in shards if plain_file_name(shard)]
    return files


def _open_pickle(path: Path, *, trust: bool) -> Checkpoint:
    from pai_cli.files.programs import is_program, load_program

    if is_program(path):
        program, input_shape = load_program(path, trust=trust)
        tensors = {name: tensor.detach() for name, tensor in program.state_dict().items()}
        return Checkpoint(path, _TorchSource(path, tensors), [path], module=program, input_shape=input_shape)
    from pai_cli.files.pickles import load_pickle

    return unpickled_checkpoint(path, load_pickle(path, trust=trust))


def unpickled_checkpoint(path: Path, loaded: object) -> Checkpoint:
    """The state dict in what `load_pickle` gave. Raises `CheckpointError` when there is none."""
    from pai_cli.files.pickles import unwrap

    tensors, under, module = unwrap(path, loaded)
    return Checkpoint(path, _TorchSource(path, tensors), [path], under=under, module=module)


def _open_sharded(path: Path) -> Checkpoint:
    weight_map = _weight_map(path)
    files: dict[str, TensorFile] = {}
    for shard in sorted(set(weight_map.values())):
        if not plain_file_name(shard):
            raise CheckpointError(
                f"{path}: shard {shard!r} is not a plain file name in the same folder; correct the index"
            )
        try:
            files[shard] = TensorFile(path.parent / shard, CheckpointError)
        except CheckpointError as e:
            raise CheckpointError(f"{e.text} (a shard of {path})") from e
    for name, shard in weight_map.items():
        if name not in files[shard].shapes:
            raise CheckpointError(
                f"{path.parent / shard}: tensor {name!r} is not in this shard, though {path.name} says so; "
                "copy the whole set again"
            )
    source = _SafetensorsSource(files.values(), {name: files[shard] for name, shard in weight_map.items()})
    return Checkpoint(path, source, [path.parent / shard for shard in files])


def _weight_map(path: Path) -> dict[str, str]:
    try:
        index = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as e:
        raise CheckpointError(f"{path}: not a checkpoint index: not valid JSON ({e}); copy it again") from e
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise CheckpointError(
            f"{path}: not a checkpoint index: it has no 'weight_map' from tensor names to shard file names; "
            "give *.safetensors.index.json"
        )
    return weight_map


class _SafetensorsSource:
    def __init__(self, files: Iterable[TensorFile], where: dict[str, TensorFile] | None = None):
        self._where = where if where is not None else {name: file for file in files for name in file.names}
        self.shapes = {name: file.shapes[name] for name, file in self._where.items()}

    def array(self, name: str) -> np.ndarray:
        return self._where[name].array(name)

    def floating(self, name: str) -> bool:
        return self._where[name].dtype(name).startswith(("F", "BF"))

    def bfloat16(self, name: str) -> bool:
        return self._where[name].dtype(name) == BFLOAT16

    def span(self, name: str) -> Span:
        return self._where[name].span(name)


class _TorchSource:
    def __init__(self, path: Path, tensors: dict[str, torch.Tensor]):
        self._path = path
        self._tensors = tensors
        self.shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}

    def array(self, name: str) -> np.ndarray:
        import torch

        tensor = self._tensors[name]
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

    def floating(self, name: str) -> bool:
        return self._tensors[name].is_floating_point()

    def bfloat16(self, name: str) -> bool:
        import torch

        return self._tensors[name].dtype == torch.bfloat16


def stripped_names(path: Path, names: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Names without wrappers' prefixes, each with its stored name; and the prefixes that were stripped."""
    stored: dict[str, str] = {}
    stripped: list[str] = []
    for original in names:
        name = original
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


def _description(under: str, stripped: list[str]) -> str:
    parts = [f"state dict under {under!r}"] if under else []
    if stripped:
        word = "prefix" if len(stripped) == 1 else "prefixes"
        parts.append(f"{word} {', '.join(map(repr, stripped))} stripped")
    return ", ".join(parts)
