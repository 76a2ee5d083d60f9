"""Following units through PyTorch's operations: what each operation does with the places where they stand.

Every tensor that depends on the input has strands. A strand is a source (a call of a layer, or the input) and labels:
which of the source's units stands at each element, -1 where none does. Labels are an integer tensor of as many
dimensions as the tensor, a dimension being 1 where it makes no difference; so what moves elements about can be
carried out on the labels themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakTensorKeyDictionary

from pai_cli.errors import TraceError
from pai_cli.models.layers import PrunableLayer
from pai_cli.models.operations import KEEP, MOVE, PRODUCTS, REDUCE, RESHAPE, SPATIAL, Operation, Watcher

Strand = tuple[int, torch.Tensor]
WireArrays = tuple[int, NDArray[np.int64], NDArray[np.int64]]

MOST_SLICES = 8192
"""How many units may come together at one place; a strand is made for each."""


class CoarseInputNeeded(Exception):  # noqa: N818  not an error: the trace is begun again
    """The single values of the input do not stay apart; its channels may."""


@dataclass(frozen=True, eq=False)
class Visit:
    """One use of a layer, and the wires that it reads, as (source, units, places)."""

    layer: PrunableLayer
    wires: tuple[WireArrays, ...]


class Follower(Watcher):
    """Sees every operation of `model` and keeps the strands of what it gives; `visits` are the uses of layers."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.visits: list[Visit] = []
        self._strands = WeakTensorKeyDictionary()

    def begin(self, tensor: torch.Tensor, source: int, labels: torch.Tensor) -> None:
        """Follow `tensor`, the input."""
        self._strands[tensor] = [(source, labels)]

    def strands(self, tensor: torch.Tensor) -> list[Strand]:
        """What stands in `tensor`."""
        found: list[Strand] = self._strands.get(tensor, [])  # type: ignore[no-untyped-call]
        return found

    def follows(self, tensor: torch.Tensor) -> bool:
        """Whether anything stands in it."""
        return bool(self.strands(tensor))

    def note(self, op: Operation) -> None:
        """What the operation did with the strands."""
        name = op.name
        if name == "convolution":
            self._set(op.result, self._convolution(op))
        elif name in PRODUCTS:
            self._set(op.result, self._linear(op))
        elif name in ("fill", "zero"):
            self._write(op.result, [], op)
        elif name == "copy":
            self._write(op.result, _joined([op.args[1]], op.args[0].dim(), self.strands), op)
        elif name == "cat":
            self._set(op.result, _concatenated(op, self.strands))
        elif name == "stack":
            self._set(op.result, _stacked(op, self.strands))
        elif name in MOVE or name in RESHAPE:
            self._moved(op)
        elif op.pointwise or name in KEEP:
            self._pointwise(op)
        elif name in REDUCE:
            self._set(op.first, _reduced(op, self.strands(op.followed[0]), self.refusal))
        elif name.startswith(SPATIAL):
            self._spatial(op)
        elif op.gives_values:
            raise self.refusal(op)

    def _set(self, tensor: torch.Tensor, strands: list[Strand]) -> None:
        self._strands[tensor] = strands

    def _write(self, tensor: torch.Tensor, strands: list[Strand], op: Operation | None = None) -> None:
        """The same tensor has new contents; a view of it that is still about would now be wrong, and so would the whole
        of which it is a part, where nothing was known of that.
        """
        if op is not None and op.in_place and not _alike(self.strands(tensor), strands):
            if not self.follows(tensor) and op.in_part:
                raise self.refusal(op, "writes")
            storage = tensor.untyped_storage().data_ptr()
            for other in self._strands:
                if other is not tensor and other.untyped_storage().data_ptr() == storage:
                    raise self.refusal(op, "writes")
        self._strands[tensor] = strands

    def _pointwise(self, op: Operation) -> None:
        if op.name in KEEP:
            self._write(op.first, self.strands(op.followed[0]), op)
            return
        self._write(op.first, _joined(op.followed, op.first.dim(), self.strands), op)

    def _moved(self, op: Operation) -> None:
        tensor = op.followed[0]
        if len(op.followed) > 1:
            raise self.refusal(op)
        gathered: list[list[Strand]] = [[] for _ in op.results]
        for source, labels in self.strands(tensor):
            full = labels.expand(tensor.shape)
            if op.name in RESHAPE:
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

    def _spatial(self, op: Operation) -> None:
        strands = self.strands(op.followed[0])
        for source, labels in strands:
            if any(size > 1 for size in labels.shape[2:]):
                if source < 0:
                    raise CoarseInputNeeded
                raise self.refusal(op)
        self._set(op.first, strands)

    def _convolution(self, op: Operation) -> list[Strand]:
        return self._visit(self.convolved(op), op.args[0], 1, op.first)

    def _linear(self, op: Operation) -> list[Strand]:
        layer, value = self.multiplied(op)
        return self._visit(layer, value, value.dim() - 1, op.first)

    def _visit(self, layer: PrunableLayer, value: torch.Tensor, axis: int, out: torch.Tensor) -> list[Strand]:
        self.visits.append(Visit(layer, wires_of(self.strands(value), axis, value.shape[axis])))
        shape = [1] * out.dim()
        shape[axis] = out.shape[axis]
        return [(len(self.visits) - 1, torch.arange(out.shape[axis]).reshape(shape))]


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


def _concatenated(op: Operation, strands: Strands) -> list[Strand]:
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


def _stacked(op: Operation, strands: Strands) -> list[Strand]:
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


def _reduced(op: Operation, strands: list[Strand], refusal: Callable[[Operation], TraceError]) -> list[Strand]:
    dims, keep = op.reduced()
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


def wires_of(strands: list[Strand], axis: int, size: int) -> tuple[WireArrays, ...]:
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
