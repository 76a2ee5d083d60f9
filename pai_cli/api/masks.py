"""`Mask`: which weights of a network are kept, as a program holds it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pai_cli.api.inputs import AnyPath, Source, open_source, path_of
from pai_cli.errors import MaskError
from pai_cli.files.layer_names import layouts_by_name, told_of_kernels
from pai_cli.files.provenance import provenance
from pai_cli.files.stacks import stacked_shapes, whole_stacks
from pai_cli.files.whole import told_whole
from pai_cli.spectral.layout import PLAIN, Layout
from pai_cli.spectral.parameters import shown
from pai_cli.telling import warn

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import nn

    from pai_cli.files.masks import Mask as Stored
    from pai_cli.pruning.run import PruneSummary
    from pai_cli.training.applied import AppliedMasks
    from pai_cli.training.fitting import Optimizers

IN_MEMORY = Path("the mask")


class Mask(Mapping[str, "NDArray[np.bool_]"]):
    """Which weights are kept: read-only boolean arrays by parameter name, in the network's order, in the weights' shapes.

    Made by `prune`, `sample`, `convert`, `Mask.load`, `Mask.from_tensors` and `Mask.of`; not changed afterwards. A mask of
    a file reads each array when it is asked for.

    `metadata`: what the mask says of itself (method, density asked for, seed, ...), text by text. `path`: the file it is
    from, else None. `remark`: what is worth knowing of how it was read or made, "" for nothing. `summary`: of a mask that
    was pruned in this process, what that run found out (collapsed layers, whether it is connected, rounds), else None.
    `stable`: of one that was pruned with `stability`, the mask of the weights that every pruning keeps, else None.
    """

    def __init__(
        self,
        arrays: Mapping[str, Any],
        *,
        layouts: Mapping[str, Layout] | None = None,
        metadata: Mapping[str, str] | None = None,
        remark: str = "",
        summary: PruneSummary | None = None,
    ):
        checked = {_name(name): _boolean(name, array) for name, array in arrays.items()}
        if not checked:
            raise MaskError("a mask of no parameter prunes nothing; give arrays by parameter name")
        self._stored: Stored = _InMemory(checked, layouts, dict(metadata or {}), remark)
        self.path: Path | None = None
        self.summary = summary
        self.stable: Mask | None = None

    @classmethod
    def _of_stored(cls, stored: Stored, path: Path | None, summary: PruneSummary | None = None) -> Mask:
        mask = cls.__new__(cls)
        mask._stored, mask.path, mask.summary, mask.stable = stored, path, summary, None
        return mask

    @classmethod
    def load(cls, path: AnyPath, *, trust: bool = False) -> Mask:
        """The mask in a file: any that `analyze` takes. `trust`: a pickle may run the code in it.

        Raises `MaskError`, `AmbiguousMaskError` when it could be of several kinds, `CheckpointError` for torch's files.
        """
        from pai_cli.files.opening import open_mask

        where = path_of(path)
        return cls._of_stored(open_mask(where, trust=trust), where)

    @classmethod
    def elsewhere(cls, path: Path, summary: PruneSummary, stacks: Mapping[str, tuple[int, ...]] | None = None) -> Mask:
        """A mask that went to a pipe or a device, from which it cannot be read again."""
        shapes = {layer.name: layer.shape for layer in summary.layers}
        return cls._of_stored(_Gone(path, stacked_shapes(shapes, whole_stacks(stacks or {}, shapes))), path, summary)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Any]) -> Mask:
        """A mask of torch tensors or arrays by parameter name, boolean or of 0 and 1, which are copied.

        Raises `MaskError` for other values, with the index of the first.
        """
        return cls(tensors)

    @classmethod
    def of(cls, source: Source, *, trust: bool = False) -> Mask:
        """What is exactly 0 now, taken as pruned: of the weights of convolutions and linear layers.

        `source`: an `nn.Module`, a state dict or the path of a checkpoint. Raises `CheckpointError`, `NotFiniteError`, and
        `MaskError` where there is no such weight.
        """
        from pai_cli.models.prunable import prunable_names

        checkpoint = open_source(source, trust=trust)
        names = prunable_names(checkpoint)
        if not names.prunable:
            raise MaskError(f"{checkpoint.path}: has no convolution or linear weight that could be pruned")
        arrays = {}
        for name in names.prunable:
            arrays[name] = checkpoint.finite_array(name) != 0
            pruned = checkpoint.pruned(name)  # by a tool that keeps the weights as they were, and a mask beside them
            if pruned is not None:
                arrays[name] &= ~pruned
        return cls(arrays, layouts=names.layouts, remark=f"the weights of {checkpoint.path} that are not 0")

    def __getitem__(self, name: str) -> NDArray[np.bool_]:
        if name not in self._stored.shapes:
            raise KeyError(name)
        array = self._stored.array(name).view()
        array.flags.writeable = False
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored.names)

    def __len__(self) -> int:
        return len(self._stored.names)

    def __eq__(self, other: object) -> bool:
        """Whether the same weights of the same parameters are kept, whatever the metadata."""
        if not isinstance(other, Mask):
            return NotImplemented
        import numpy as np

        same = self.keys() == other.keys() and self.shapes == other.shapes
        return same and all(np.array_equal(self[name], other[name]) for name in self)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        where = "" if self.path is None else f", {str(self.path)!r}"
        kept = f"{self.kept:,} of {self.total:,} weights kept, density {self.density:.6g}"
        many = len(told_whole(self.metadata))
        whole = f", {many} tensor{'s' * (many > 1)} left whole" if many else ""
        return f"<Mask of {len(self)} layers, {kept}{whole}{where}>"

    @property
    def names(self) -> tuple[str, ...]:
        """The masked parameters, in the network's order where it is known."""
        return self._stored.names

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every masked parameter."""
        return {name: tuple(self._stored.shapes[name]) for name in self.names}

    @property
    def layouts(self) -> dict[str, Layout]:
        """Groups and transposition of each layer; `known` says whether anyone told them."""
        return {name: self._stored.layout(name) for name in self.names}

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the mask says of itself."""
        return dict(self._stored.metadata)

    @property
    def remark(self) -> str:
        """What is worth knowing of how it was read or made, "" for nothing."""
        return self._stored.remark

    @cached_property
    def counts(self) -> dict[str, int]:
        """How many weights each layer keeps."""
        import numpy as np

        return {name: int(np.count_nonzero(self._stored.array(name))) for name in self.names}

    @property
    def kept(self) -> int:
        """How many weights are kept."""
        return sum(self.counts.values())

    @cached_property
    def total(self) -> int:
        """How many weights the masked parameters have."""
        from math import prod

        return sum(prod(shape) for shape in self.shapes.values())

    @property
    def density(self) -> float:
        """The share of weights kept, 0 to 1."""
        return self.kept / self.total if self.total else 0.0

    @property
    def collapsed(self) -> tuple[str, ...]:
        """Layers that keep no weight."""
        return tuple(name for name, count in self.counts.items() if not count)

    def save(self, path: AnyPath, *, packed: bool = False, force: bool = False) -> Path:
        """Write a mask file, whole or not at all; gives its path. `packed`: bits instead of bytes. `force`: replace one.

        Raises `OutputError`, `UsageError` for "-", `SuffixError` for a name of another format (`pai.convert` writes some).
        """
        from pai_cli.files.masks import MaskToWrite, write_mask
        from pai_cli.files.plan import check_name, check_suffix

        where = path_of(path)
        check_name(where, "path", stream=True)
        check_suffix(where, "the mask", "path")
        metadata = {**provenance(()), **self.metadata}
        write_mask(where, MaskToWrite(dict(self), self.layouts, metadata), packed=packed, force=force)
        return where

    def to_tensors(self, device: str | torch.device = "cpu") -> dict[str, torch.Tensor]:
        """Boolean torch tensors by parameter name, copies, on the device."""
        import torch

        return {name: torch.from_numpy(array.copy()).to(device) for name, array in self.items()}

    def apply(self, model: nn.Module, optimizer: Optimizers = None, *, parametrize: bool = False) -> AppliedMasks:
        """Set the pruned weights of a model to 0, now and, with its optimizer, after every step.

        See `training.applied.apply_masks`. A warning tells which of the model's layers have no mask and keep all of their
        weights, and the handle's `count` has them. Parameter names and the state dict stay as they are; `handle.remove()`
        lets the weights go. `parametrize`: by `torch.nn.utils.parametrize` instead, which renames the parameters.
        """
        from pai_cli.files.matching import spread
        from pai_cli.training.applied import apply_masks
        from pai_cli.training.fitting import names_in

        own = dict(self)
        masks = spread(own, self.metadata, names_in(model, own))
        applied = apply_masks(model, masks, optimizer, parametrize=parametrize)
        if told := applied.count.of_network():
            warn(f"{self.path or IN_MEMORY}: does not name every layer of the model: {told}")
        return applied

    @property
    def stored(self) -> Stored:
        """The mask as the rest of the package takes it."""
        return self._stored


class _InMemory:
    """See `files.masks.Mask`."""

    def __init__(
        self,
        arrays: Mapping[str, NDArray[np.bool_]],
        layouts: Mapping[str, Layout] | None,
        metadata: dict[str, str],
        remark: str,
    ):
        self.path = IN_MEMORY
        self.metadata: Mapping[str, str] = metadata
        self.names = tuple(arrays)
        self.shapes: Mapping[str, tuple[int, ...]] = {name: array.shape for name, array in arrays.items()}
        self._arrays = arrays
        self._layouts = layouts_by_name(self.shapes) | dict(layouts or {})
        kernels = told_of_kernels({name: shape for name, shape in self.shapes.items() if name not in (layouts or {})})
        self.remark = "; ".join(filter(None, (remark, kernels)))

    def layout(self, name: str) -> Layout:
        """Groups and transposition of a layer, as far as they are known."""
        return self._layouts[name]

    def array(self, name: str) -> NDArray[np.bool_]:
        """One parameter's mask."""
        return self._arrays[name]


class _Gone(_InMemory):
    """A mask whose names and shapes are known, and whose arrays went elsewhere."""

    def __init__(self, path: Path, shapes: Mapping[str, tuple[int, ...]]):
        super().__init__({}, dict.fromkeys(shapes, PLAIN), {}, "")
        self.path, self.names, self.shapes = path, tuple(shapes), shapes

    def array(self, name: str) -> NDArray[np.bool_]:
        """Raises `MaskError`."""
        raise MaskError(f"{self.path}: the mask of {name!r} went to a pipe or a device, and cannot be read again")


def _name(name: Any) -> str:
    if not isinstance(name, str):
        raise MaskError(f"a parameter's name is text, not {shown(name)}")
    return name


def _boolean(name: str, given: Any) -> NDArray[np.bool_]:
    """A copy, boolean and read-only, of an array of any shape."""
    import numpy as np

    from pai_cli.files.masks import boolean
    from pai_cli.spectral.validation import numpy_of, plain_array

    called = f"the mask of {name!r}"
    plain = numpy_of(plain_array(given, called), called)
    array = np.array(boolean(IN_MEMORY, name, plain, "give what is kept as 1 and what is pruned as 0"))
    array.flags.writeable = False
    return array
