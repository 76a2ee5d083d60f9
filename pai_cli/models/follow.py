"""Following units through PyTorch's operations: what each operation does with the places where they stand.

Every tensor that depends on the input has strands. A strand is a source (a call of a layer, or the input) and labels:
which of the source's units stands at each element, -1 where none does. Labels are an integer tensor of as many
dimensions as the tensor, a dimension being 1 where it makes no difference; so what moves elements about can be
carried out on the labels themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakTensorKeyDictionary

from pai_cli.errors import TraceError
from pai_cli.models.layers import PrunableLayer
from pai_cli.spectral.layout import Layout

Strand = tuple[int, torch.Tensor]
WireArrays = tuple[int, NDArray[np.int64], NDArray[np.int64]]

MOST_SLICES = 8192
"""How many units may come together at one place; a strand is made for each."""

_KEEP = frozenset((
    "native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "cudnn_batch_norm",
    "native_layer_norm", "native_group_norm", "_fused_rms_norm", "_softmax", "_log_softmax", "native_dropout",
    "hardswish", "hardsigmoid", "leaky_relu", "elu", "glu_jvp", "mish", "softplus", "prelu", "_prelu_kernel",
    "rrelu_with_noise", "softshrink", "hardshrink", "threshold", "clone", "_to_copy", "detach", "alias",
    "contiguous", "lift_fresh", "hardtanh", "relu6", "silu", "nan_to_num",
))  # fmt: skip
"""Operations after which everything stands where it stood, beside those that PyTorch itself tags as pointwise."""

_PRODUCTS = {"mm": 0, "bmm": 0, "linear": 0, "addmm": 1, "baddbmm": 1, "_addmm_activation": 1}
"""Products with a matrix, and the position of their first factor."""

_RESHAPE = frozenset(["view", "_unsafe_view", "reshape", "_reshape_alias", "unflatten", "flatten"])

_MOVE = frozenset((
    "permute", "transpose", "t", "numpy_T", "expand", "slice", "select", "unsqueeze", "squeeze", "split",
    "split_with_sizes", "chunk", "unbind", "constant_pad_nd", "roll", "flip", "repeat", "pixel_shuffle",
    "pixel_unshuffle", "unfold", "channel_shuffle", "native_channel_shuffle", "unsafe_split",
    "unsafe_split_with_sizes", "unsafe_chunk", "narrow", "diagonal", "movedim", "swapaxes",
))  # fmt: skip

_SPATIAL = (
    "max_pool", "avg_pool", "_adaptive_avg_pool", "adaptive_", "upsample_", "_upsample", "reflection_pad",
    "replication_pad", "fractional_max_pool",
)  # fmt: skip

_REDUCE = frozenset((
    "mean", "sum", "amax", "amin", "max", "min", "var", "var_mean", "std", "std_mean", "logsumexp", "norm",
    "linalg_vector_norm", "prod", "median",
))  # fmt: skip


class CoarseInputNeeded(Exception):  # noqa: N818  not an error: the trace is begun again
    """The single values of the input do not stay apart; its channels may."""


@dataclass(frozen=True, eq=False)
class Visit:
    """One use of a layer, and the wires that it reads, as (source, units, places)."""

    layer: PrunableLayer
    wires: tuple[WireArrays, ...]


class Follower(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operation of `model` and keeps the strands of what it gives; `visits` are the uses of layers."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.visits: list[Visit] = []
        self._model = model
        self._strands = WeakTensorKeyDictionary()
        self._path: list[str] = []
        self._weights = {
            parameter.untyped_storage().data_ptr(): (name, parameter)
            for name, parameter in reversed(list(model.named_parameters()))
            if parameter.dim() >= 2 and parameter.numel()
        }

    def begin(self, tensor: torch.Tensor, source: int, labels: torch.Tensor) -> None:
        """Follow `tensor`, the input."""
        self._strands[tensor] = [(source, labels)]

    def strands(self, tensor: torch.Tensor) -> list[Strand]:
        """What stands in `tensor`."""
        found: list[Strand] = self._strands.get(tensor, [])  # type: ignore[no-untyped-call]
        return found

    @contextmanager
    def following(self) -> Iterator[None]:
        """While the network runs: see its operations, and know in which module they are."""
        handles = []
        for name, module in self._model.named_modules():
            handles.append(module.register_forward_pre_hook(lambda *_, name=name: self._path.append(name)))
            handles.append(module.register_forward_hook(lambda *_: self._leave()))
        try:
            with self:
                yield
        finally:
            for handle in handles:
                handle.remove()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Nothing is compiled while following; to make sure of that, torch would import its compiler for two seconds.
        return False

    def _leave(self) -> None:
        self._path.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Carry the operation out, then note what it did with the strands."""
        result = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        followed = [tensor for tensor in tensors if self.strands(tensor)]
        if followed:
            self._note(_Operation(func, args, kwargs or {}, result, tensors, followed))
        return result

    def _note(self, op: _Operation) -> None:
        name = op.name
        if name == "convolution":
            self._set(op.result, self._convolution(op))
        elif name in _PRODUCTS:
            self._set(op.result, self._linear(op))
        elif name in ("fill", "zero"):
            self._write(op.result, [], op)
        elif name == "copy":
            self._write(op.result, _joined([op.args[1]], op.args[0].dim(), self.strands), op)
        elif name == "cat":
            self._set(op.result, _concatenated(op, self.strands))
        elif name == "stack":
            self._set(op.result, _stacked(op, self.strands))
        elif name in _MOVE or name in _RESHAPE:
            self._moved(op)
        elif op.pointwise or name in _KEEP:
            self._pointwise(op)
        elif name in _REDUCE:
            self._set(op.first, _reduced(op, self.strands(op.followed[0]), self._refusal))
        elif name.startswith(_SPATIAL):
            self._spatial(op)
        elif any(leaf.is_floating_point() or leaf.is_complex() for leaf in op.results):
            raise self._refusal(op)

    def _refusal(self, op: _Operation, why: str = "mixes") -> TraceError:
        where = repr(self._path[-1]) if self._path and self._path[-1] else "the network"
        what = "writes into part of a tensor" if why == "writes" else "mixes its inputs"
        return TraceError(
            f"the wiring of the network cannot be followed: {where} calls {op.name}, which {what} so that units cannot "
            "be told apart"
        )

    def _set(self, tensor: torch.Tensor, strands: list[Strand]) -> None:
        self._strands[tensor] = strands

    def _write(self, tensor: torch.Tensor, strands: list[Strand], op: _Operation | None = None) -> None:
        """The same tensor has new contents; a view of it that is still about would now be wrong."""
        if op is not None and op.in_place and not _alike(self.strands(tensor), strands):
            storage = tensor.untyped_storage().data_ptr()
            for other in self._strands:
                if other is not tensor and other.untyped_storage().data_ptr() == storage:
                    raise self._refusal(op, "writes")
        self._strands[tensor] = strands

    def _pointwise(self, op: _Operation) -> None:
        if op.name in _KEEP:
            self._write(op.first, self.strands(op.followed[0]), op)
            return
        self._write(op.first, _joined(op.followed, op.first.dim(), self.strands), op)

    def _moved(self, op: _Operation) -> None:
        tensor = op.followed[0]
        if len(op.followed) > 1:
            raise self._refusal(op)
        gathered: list[list[Strand]] = [[] for _ in op.results]
        for source, labels in self.strands(tensor):
            full = labels.expand(tensor.shape)
            if op.name in _RESHAPE:
                outs = [full.reshape(op.first.shape)]
            else:
                args, kwargs = tree_map(lambda leaf, full=full: full if leaf is tensor else leaf, (op.args, op.kwargs))
                if op.name == "constant_pad_nd":
                    args = (*args[:2], -1)
                outs = tree_leaves(op.func(*args, **kwargs))
            for strands, out in zip(gathered, outs, strict=True):
                strands.append((source, _narrowed(out)))
        for result, strands in zip(op.results, gathered, strict=True):
            self._set(result, [strand for strand in strands if bool((strand[1] >= 0).any())])

    def _spatial(self, op: _Operation) -> None:
        strands = self.strands(op.followed[0])
        for source, labels in strands:
            if any(size > 1 for size in labels.shape[2:]):
                if source < 0:
                    raise CoarseInputNeeded
                raise self._refusal(op)
        self._set(op.first, strands)

    def _convolution(self, op: _Operation) -> list[Strand]:
        value, weight = op.args[:2]
        found = self._weights.get(weight.untyped_storage().data_ptr())
        if found is None or found[1].shape != weight.shape or not self.strands(value):
            raise self._refusal(op)
        layout = Layout(groups=op.args[8], transposed=op.args[6])
        return self._visit(PrunableLayer(found[0], tuple(weight.shape), layout), value, 1, op.first)

    def _linear(self, op: _Operation) -> list[Strand]:
        first = _PRODUCTS[op.name]
        value, weight = op.args[first : first + 2]
        if weight.dim() == 3 and (weight.shape[0] == 1 or weight.stride(0) == 0):
            weight = weight[0]  # one matrix for every sample
        found = self._weights.get(weight.untyped_storage().data_ptr())
        if found is None or weight.numel() != found[1].numel() or not self.strands(value):
            raise self._refusal(op)
        name, parameter = found
        # x @ w multiplies by the parameter as it is stored: then its rows are inputs.
        as_stored = weight.shape == parameter.shape and weight.stride() == parameter.stride()
        transposed = as_stored and op.name != "linear"
        layer = PrunableLayer(name, tuple(parameter.shape), Layout(transposed=transposed))
        return self._visit(layer, value, value.dim() - 1, op.first)

    def _visit(self, layer: PrunableLayer, value: torch.Tensor, axis: int, out: torch.Tensor) -> list[Strand]:
        self.visits.append(Visit(layer, _wires(self.strands(value), axis, value.shape[axis])))
        shape = [1] * out.dim()
        shape[axis] = out.shape[axis]
        return [(len(self.visits) - 1, torch.arange(out.shape[axis]).reshape(shape))]


@dataclass(frozen=True, eq=False)
class _Operation:
    """One operation: what was called with what, what came of it, and which of its tensors are followed."""

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any
    tensors: Sequence[torch.Tensor]
    followed: Sequence[torch.Tensor]

    @property
    def name(self) -> str:
        name: str = self.func._schema.name.partition("::")[2]
        return name.removesuffix("_") if self.in_place else name

    @property
    def in_place(self) -> bool:
        return bool(self.func._schema.is_mutable)

    @property
    def pointwise(self) -> bool:
        return torch.Tag.pointwise in self.func.tags

    @property
    def results(self) -> list[torch.Tensor]:
        return [leaf for leaf in tree_leaves(self.result) if isinstance(leaf, torch.Tensor)]

    @property
    def first(self) -> torch.Tensor:
        return self.results[0]

    def argument(self, name: str, default: Any = None) -> Any:
        """The argument with this name in the operation's signature."""
        for position, wanted in enumerate(self.func._schema.arguments):
            if wanted.name == name:
                return self.args[position] if position < len(self.args) else self.kwargs.get(name, default)
        return default


Strands = Callable[[torch.Tensor], list[Strand]]


def _narrowed(labels: torch.Tensor) -> torch.Tensor:
    """The same labels, every dimension along which they do not change narrowed to 1."""
    for dim, size in enumerate(labels.shape):
        if size > 1:
            first = labels.narrow(dim, 0, 1)
            if labels.stride(dim) == 0 or bool((labels == first).all()):
                labels = first
    return labels.contiguous()


def _alike(one: list[Strand], other: list[Strand]) -> bool:
    return len(one) == len(other) and all(
        a == b and (x is y or torch.equal(x, y)) for (a, x), (b, y) in zip(one, other, strict=True)
    )


def _joined(tensors: Sequence[torch.Tensor], dims: int, strands: Strands) -> list[Strand]:
    """Everything that stands in any of the tensors, at its place after broadcasting to `dims` dimensions."""
    found: list[Strand] = []
    for tensor in tensors:
        for source, labels in strands(tensor):
            aligned = labels.reshape((1,) * (dims - labels.dim()) + labels.shape)
            if not any(source == known and torch.equal(aligned, other) for known, other in found):
                found.append((source, aligned))
    return found


def _concatenated(op: _Operation, strands: Strands) -> list[Strand]:
    tensors = [tensor for tensor in op.args[0] if tensor.numel()]
    dim = int(op.argument("dim", 0)) % op.first.dim()
    found: list[Strand] = []
    start, total = 0, op.first.shape[dim]
    for tensor in tensors:
        size = tensor.shape[dim]
        for source, labels in strands(tensor):
            shape = list(labels.shape)
            shape[dim] = total
            placed = torch.full(shape, -1)
            placed.narrow(dim, start, size).copy_(labels)
            found.append((source, placed))
        start += size
    return _merged_sources(found)


def _merged_sources(strands: list[Strand]) -> list[Strand]:
    """Strands of one source that stand in different places made one: a split and a concatenation undo each other."""
    found: list[Strand] = []
    for source, labels in strands:
        for i, (known, other) in enumerate(found):
            if source == known and other.shape == labels.shape and not bool(((other >= 0) & (labels >= 0)).any()):
                found[i] = (source, _narrowed(torch.maximum(other, labels)))
                break
        else:
            found.append((source, labels))
    return found


def _stacked(op: _Operation, strands: Strands) -> list[Strand]:
    dim = int(op.argument("dim", 0)) % op.first.dim()
    found: list[Strand] = []
    for i, tensor in enumerate(op.args[0]):
        for source, labels in strands(tensor):
            wide = labels.unsqueeze(dim)
            shape = list(wide.shape)
            shape[dim] = op.first.shape[dim]
            placed = torch.full(shape, -1)
            placed.narrow(dim, i, 1).copy_(wide)
            found.append((source, placed))
    return _merged_sources(found)


def _reduced(op: _Operation, strands: list[Strand], refusal: Callable[[_Operation], TraceError]) -> list[Strand]:
    dims = op.argument("dim")
    before = op.followed[0].dim()
    if dims is None or dims == []:
        dims = list(range(before))
    dims = sorted({int(dim) % before for dim in (dims if isinstance(dims, (list, tuple)) else [dims])}, reverse=True)
    keep = bool(op.argument("keepdim", False)) or op.first.dim() == before
    found = strands
    for dim in dims:
        if any(labels.shape[dim] > 1 for source, labels in found if source < 0):
            raise CoarseInputNeeded
        # What comes together at one place are that many strands.
        found = [(source, piece) for source, labels in found for piece in torch.split(labels, 1, dim)]
        if len(found) > MOST_SLICES:
            raise refusal(op)
        if not keep:
            found = [(source, labels.squeeze(dim)) for source, labels in found]
    return found


def _wires(strands: list[Strand], axis: int, size: int) -> tuple[WireArrays, ...]:
    """By source: which units stand at which places along `axis`."""
    pairs: dict[int, list[NDArray[np.int64]]] = {}
    for source, labels in strands:
        units = labels.expand([size if dim == axis else n for dim, n in enumerate(labels.shape)])
        units = units.movedim(axis, -1).reshape(-1, size)
        places = torch.arange(size).expand(units.shape)
        both = torch.stack([units.reshape(-1), places.reshape(-1)], 1)
        both = both[both[:, 0] >= 0]
        if len(units) > 1:
            both = torch.unique(both, dim=0)
        if len(both):
            pairs.setdefault(source, []).append(both.numpy())
    wires = []
    for source, found in pairs.items():
        together = np.concatenate(found)
        if len(found) > 1:
            together = np.unique(together, axis=0)
        together = together[np.lexsort((together[:, 0], together[:, 1]))]
        wires.append((source, np.ascontiguousarray(together[:, 0]), np.ascontiguousarray(together[:, 1])))
    return tuple(wires)
