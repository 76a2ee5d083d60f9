"""What belongs to each channel of a network: places that read it, parameters with an element a channel, and what needs all.

A network's own code runs on whatever sizes it is given, so a channel can be taken out where every tensor through which it
goes has its channels in the same order: through norms, activations, pooling, additions, concatenations, flattening. What
mixes channels (a norm over them, a softmax) or knows their number (a slice, a split) needs all of them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.utils._pytree import tree_leaves

from pai_cli.compacting.constants import ConstantFollower
from pai_cli.compacting.shapes import Flags, inside_of, lead, merges, sides, storages, unmoved
from pai_cli.errors import MethodOptionError, TraceError
from pai_cli.files.messages import one_line
from pai_cli.models.copies import ONE_TYPE, copied, takes_float32_alone
from pai_cli.models.follow import CoarseInputNeeded, Strand, WireArrays, wires_of
from pai_cli.models.layers import PrunableLayer
from pai_cli.models.operations import MOVE, PRODUCTS, REDUCE, RESHAPE, Operation
from pai_cli.models.residual import PaddedShortcut
from pai_cli.models.trace import INPUT, run_followed

HOLE = -2
"""As a strand's source: what no unit of the network wrote, such as a constant that was concatenated."""
COUNT = "num_features"
"""As a `Scale` of an instance norm, which has no parameter: the number of its channels, of which it warns."""
FIRST_PAD = -10
"""Sources from here downwards are the channels of 0 that a shortcut of this package pads with."""

RETURNED = "the network returns them"
REMEDY = "it cannot be compacted"

MIXES = frozenset((
    "native_layer_norm", "native_group_norm", "_fused_rms_norm", "_softmax", "_log_softmax", "glu_jvp",
))  # fmt: skip
WRITES = frozenset(("copy", "fill", "zero"))


@dataclass(frozen=True, eq=False)
class Use:
    """One use of a layer.

    `wires`: which units arrive at which of its places, by source. `fixed`: of each place, whether something else than a
    unit arrives. `varies`: whether what arrives depends on the input; `level`: else the one number that it is, NaN where
    it is another at other positions. `inside`: of each element of the kernel, whether it always meets the image, never its
    padding. `positions`: how often each weight is used for one sample. `bias`: the name of the parameter that it adds.
    """

    layer: PrunableLayer
    wires: tuple[WireArrays, ...]
    fixed: Flags
    varies: Flags
    level: NDArray[np.float64]
    inside: Flags
    positions: int
    bias: str | None


@dataclass(frozen=True, eq=False)
class Scale:
    """A parameter or buffer with an element a channel along its dimension `axis`, as a batch norm has.

    `wires`: which units it meets at which index; `fixed`: of each index, whether something else is met there.
    """

    name: str
    axis: int
    wires: tuple[WireArrays, ...]
    fixed: Flags


@dataclass(frozen=True, eq=False)
class Pad:
    """Channels of 0 that the padded shortcut called `name` adds: `before` and then after those that it is given."""

    name: str
    before: int
    after: int


class ChannelFollower(ConstantFollower):  # type: ignore[no-untyped-call]
    """Follows channels and constants through `model`.

    `uses`, `scales`, `pads`: what was met. `needed`: by source, units that cannot go, with the reason of each. `reshaped`:
    by source, units that go through a change of shape, which the network's code may do by a number. `draws`: where random
    numbers are drawn first, empty where none are.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.uses: list[Use] = []
        self.scales: list[Scale] = []
        self.pads: list[Pad] = []
        self.needed: dict[int, dict[int, str]] = {}
        self.reshaped: dict[int, set[int]] = {}
        self.draws = ""
        kept = model.state_dict()
        self._names = {
            tensor.untyped_storage().data_ptr(): (name, tensor)
            for name, tensor in (*model.named_buffers(), *model.named_parameters())
            if tensor.numel() and name in kept  # a file has no others
        }
        self._reads: Counter[str] = Counter()
        self._known_reads: Counter[str] = Counter()
        self._met: set[str] = set()

    def carried_out(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the operation gives; which parameters it reads is counted."""
        result = super().carried_out(func, args, kwargs)
        if torch.Tag.nondeterministic_seeded in func.tags:
            self.draws = self.draws or f"{self.place} draws random numbers ({func._schema.name.partition('::')[2]})"
        # What only shows a parameter in another shape does not read it.
        read = storages((args, kwargs)) - storages(result)
        self._reads.update(self._names[one][0] for one in read if one in self._names)
        return result

    def read_elsewhere(self, name: str) -> bool:
        """Whether the network also reads a parameter where nothing was followed of it, so that it must stay as it is."""
        return self._reads[name] > self._known_reads[name]

    def read_once(self, name: str) -> bool:
        """Whether one operation alone reads a parameter."""
        return self._reads[name] == 1

    def need(self, strands: list[Strand], reason: str) -> None:
        """Keep all units of these strands; a unit's first reason stays."""
        for source, labels in strands:
            if source not in (INPUT, HOLE):
                units = self.needed.setdefault(source, {})
                for unit in torch.unique(labels).tolist():
                    if unit >= 0:
                        units.setdefault(unit, reason)

    def note(self, op: Operation) -> None:
        """What the operation did with channels, beside what it did with strands.

        Behind what cannot be followed, such as attention, everything is as it was: of all that it reads, and that it gives.
        """
        self._met.clear()
        self._note_or_keep(op)
        self._known_reads.update(self._met)

    def _note_or_keep(self, op: Operation) -> None:
        try:
            self._note(op)
        except (TraceError, CoarseInputNeeded):
            if op.in_place:
                raise
            for tensor in op.followed:
                self.need(self.strands(tensor), f"{op.name} mixes them")
            given = [leaf for leaf in tree_leaves((op.args, op.kwargs)) if isinstance(leaf, torch.Tensor)]
            unknown = any(bool(torch.isnan(tensor).any()) for tensor in given)
            for result in op.results:
                if result.is_floating_point():
                    if unknown:
                        result.fill_(torch.nan)
                    self._set(result, [(INPUT, torch.zeros([1] * result.dim(), dtype=torch.int64))])

    def _note(self, op: Operation) -> None:
        if op.name == "constant_pad_nd":
            self._padded(op)
        elif op.name == "convolution" or op.name in PRODUCTS:
            super().note(op)
        else:
            self._look(op)
            super().note(op)
            if op.name in RESHAPE or op.name in MOVE:
                self._look_at_moved(op)
            if not op.gives_values and not op.pointwise:  # indices, which no channel has
                self.need(
                    [one for tensor in op.followed for one in self.strands(tensor)], f"{op.name} is of all of them"
                )
            if op.name in ("cat", "stack") or op.name in MOVE:
                for result in op.results:
                    self._fill_holes(result)

    # --- operations between layers

    def _look(self, op: Operation) -> None:
        if op.name in MIXES or op.name in WRITES:
            for tensor in op.followed:
                if any(max(labels.shape, default=1) > 1 for _, labels in self.strands(tensor)):
                    self.need(self.strands(tensor), f"{op.name} is of all of them together")
        elif op.name in REDUCE:
            dims, _ = op.reduced()
            strands = self.strands(op.followed[0])
            self.need([one for one in strands if any(one[1].shape[dim] > 1 for dim in dims)], f"{op.name} is over them")
        elif "batch_norm" in op.name:
            value = op.args[0]
            for tensor in op.args[1:5]:
                if isinstance(tensor, torch.Tensor):
                    self._meets(tensor, (1, -1, *[1] * (value.dim() - 2)), self.strands(value))
            module = self.model.get_submodule(self._path[-1] if self._path else "")
            if isinstance(module, _InstanceNorm) and not module.affine:
                wires, fixed = self._ends(self.strands(value), 1, value.shape[1])
                self.scales.append(Scale(f"{self._path[-1]}.{COUNT}", 0, wires, fixed))
        elif op.pointwise or op.name == "_prelu_kernel":
            self._look_at_pointwise(op)

    def _look_at_pointwise(self, op: Operation) -> None:
        dims, sides = op.first.dim(), op.first.shape
        aligned = {id(one): (1,) * (dims - one.dim()) + tuple(one.shape) for one in op.followed}
        strands: list[Strand] = []
        for tensor in op.followed:
            own = [(source, labels.reshape(lead(labels, dims))) for source, labels in self.strands(tensor)]
            wide = [dim for dim in range(dims) if aligned[id(tensor)][dim] == 1 < sides[dim]]
            others = [labels for one in op.followed if one is not tensor for _, labels in self.strands(one)]
            if any(labels.reshape(lead(labels, dims)).shape[dim] > 1 for labels in others for dim in wide):
                self.need(own, "each is spread over several channels")
            strands += own
        for leaf in tree_leaves((op.args, op.kwargs)):
            if isinstance(leaf, torch.Tensor) and not self.follows(leaf) and leaf.numel() > 1:
                self._meets(leaf, (1,) * (dims - leaf.dim()) + tuple(leaf.shape), strands)

    def _meets(self, tensor: torch.Tensor, shape: tuple[int, ...], strands: list[Strand]) -> None:
        """A tensor that is not followed meets these strands, its dimensions aligned with theirs as `shape`."""
        sides = tensor.reshape(shape).shape
        for dim, size in enumerate(sides):
            if size == 1 or all(labels.shape[dim] == 1 for _, labels in strands):
                continue
            known = self._known(tensor, sum(side > 1 for side in sides[:dim]))
            if known is None:
                self.need(strands, "they meet a tensor that is no parameter")
                return
            wires, fixed = self._ends(strands, dim, size)
            self.scales.append(Scale(*known, wires, fixed))
            self._met.add(known[0])

    def _known(self, tensor: torch.Tensor, number: int) -> tuple[str, int] | None:
        """The parameter or buffer that the tensor is or shows, and which of its dimensions is that of this number among
        those that are not 1; None where it is none.
        """
        name, there = self._names.get(tensor.untyped_storage().data_ptr(), ("", tensor))
        wide = [dim for dim, side in enumerate(there.shape) if side > 1]
        if not name or [side for side in tensor.shape if side > 1] != [there.shape[dim] for dim in wide]:
            return None
        return name, wide[number]

    def _look_at_moved(self, op: Operation) -> None:
        before = self.strands(op.followed[0])
        stays = all(unmoved(before, self.strands(result)) for result in op.results)
        if stays and (op.name not in RESHAPE or sides(before) == sides(self.strands(op.first))):
            return
        if op.name in RESHAPE and (stays or merges(tuple(op.followed[0].shape), tuple(op.first.shape))):
            for source, labels in before:
                self.reshaped.setdefault(source, set()).update(torch.unique(labels).tolist())
        else:
            self.need(before, f"{op.name} goes by their number")

    def _padded(self, op: Operation) -> None:
        """Padding along positions leaves channels where they are; of channels, only this package's own is known."""
        tensor, pads = op.followed[0], op.args[1]
        dims = {tensor.dim() - 1 - number // 2 for number, count in enumerate(pads) if count}
        strands = self.strands(tensor)
        if all(labels.shape[dim] == 1 for _, labels in strands for dim in dims) and 1 not in dims:
            self._set(op.first, strands)
            return
        name = self._path[-1] if self._path else ""
        module = self.model.get_submodule(name)
        super().note(op)
        flat = all(max((*labels.shape[:1], *labels.shape[2:])) == 1 for _, labels in self.strands(op.first))
        if isinstance(module, PaddedShortcut) and dims == {1} and flat:
            self.pads.append(Pad(name, module.before, module.after))
            self._fill_holes(op.first, FIRST_PAD - len(self.pads) + 1)
        else:
            self.need(strands, "constant_pad_nd goes by their number")
            self._fill_holes(op.first)

    def _fill_holes(self, tensor: torch.Tensor, source: int = HOLE) -> None:
        """Where nothing stands among channels, let `source` stand: unit 0, or of a pad, each hole another."""
        strands = self.strands(tensor)
        if not any(bool((labels < 0).any()) for _, labels in strands):
            return
        together = torch.broadcast_tensors(*(labels for _, labels in strands))  # type: ignore[no-untyped-call]
        empty = torch.stack([labels < 0 for labels in together]).all(0)
        if bool(empty.any()):
            numbers = empty.flatten().cumsum(0).reshape(empty.shape) - 1 if source != HOLE else torch.zeros(empty.shape)
            self._set(tensor, [*strands, (source, torch.where(empty, numbers, -1).long())])

    # --- layers

    def _ends(self, strands: list[Strand], axis: int, size: int) -> tuple[tuple[WireArrays, ...], Flags]:
        """Which units stand at each index along `axis`; and whether anything else does, or no unit."""
        real: list[Strand] = []
        fixed = np.zeros(size, np.bool_)
        for source, labels in strands:
            if source in (INPUT, HOLE):
                fixed |= (labels >= 0).movedim(axis, -1).reshape(-1, labels.shape[axis]).any(0).numpy()
            elif labels.shape[axis] == 1 < size:
                self.need([(source, labels)], "each is spread over several channels")
            else:
                real.append((source, labels))
        wires = wires_of(real, axis, size)
        there = np.zeros(size, np.bool_)
        for _, _, places in wires:
            there[places] = True
        return wires, fixed | ~there

    def _linear(self, op: Operation) -> list[Strand]:
        layer, value = self.multiplied(op)
        first = PRODUCTS[op.name]
        if any(op.kwargs.get(factor, 1) != 1 for factor in ("alpha", "beta")):
            raise TraceError(f"{layer.name}: is multiplied by a number in {op.name}; {REMEDY}")
        bias = op.args[0] if first else op.argument("bias")
        inside = np.ones(1, np.bool_)
        units = op.first.shape[-1]
        self._use(layer, value, value.dim() - 1, inside, (op.first.numel() // units, bias))
        return super()._linear(op)

    def _convolution(self, op: Operation) -> list[Strand]:
        layer, value, out = self.convolved(op), op.args[0], op.first
        transposed = layer.layout.transposed
        positions = value[0, 0].numel() if transposed else out[0, 0].numel()
        inside = np.zeros(int(np.prod(layer.shape[2:])), np.bool_) if transposed else inside_of(op)
        self._use(layer, value, 1, inside, (positions, op.args[2]))
        return super()._convolution(op)

    def _use(
        self, layer: PrunableLayer, value: torch.Tensor, axis: int, inside: Flags, more: tuple[int, torch.Tensor | None]
    ) -> None:
        positions, bias = more
        layout = layer.layout
        places = layer.shape[0] if layout.transposed else layer.shape[1] * layout.groups
        before = {use.layer.layout for use in self.uses if use.layer.name == layer.name}
        if value.shape[axis] != places or before - {layout}:
            raise TraceError(f"{layer.name}: is used as another matrix than it is; {REMEDY}")
        wires, fixed = self._ends(self.strands(value), axis, value.shape[axis])
        maps = value.movedim(axis, -1).reshape(-1, value.shape[axis])
        varies = torch.isnan(maps).any(0)
        even = (maps == maps[0]).all(0)
        level = maps[0].masked_fill(varies | ~even, np.nan)
        name = None
        if bias is not None:
            known = self._known(bias, 0) if bias.numel() > 1 else self._names.get(bias.untyped_storage().data_ptr())
            if known is None or bias.dim() != 1:
                raise TraceError(f"{layer.name}: adds a bias that is no parameter; {REMEDY}")
            name = str(known[0])
        use = Use(layer, wires, fixed, varies.numpy(), level.numpy(), inside, positions, name)
        self.uses.append(use)
        self._met |= {layer.name} if name is None else {layer.name, name}


@dataclass(frozen=True, eq=False)
class Followed:
    """A network that was followed; `constant`: whether nothing that it returns depends on the input."""

    follower: ChannelFollower
    constant: bool


def follow(model: nn.Module, input_shape: tuple[int, ...]) -> Followed:
    """Follow the channels of a network, whose weights are float64 and whose pruned weights are 0; it is left as it was.

    Raises `TraceError` where that cannot be done, also as the network fails in float64 alone, `MethodOptionError` where it
    fails on such an input.
    """
    follower = ChannelFollower(copied(model).eval().requires_grad_(False))
    given = torch.full((1, *input_shape), torch.nan, dtype=torch.float64)
    try:
        returned = run_followed(follower, given, torch.zeros([1] * given.dim(), dtype=torch.int64), REMEDY)
    except MethodOptionError as error:
        if not takes_float32_alone(follower.model, given):
            raise
        raise TraceError(
            f"{follower.place} fails in float64, in which networks are compared ({one_line(error.__cause__ or error)}); "
            f"{ONE_TYPE}"
        ) from error
    for tensor in returned:
        follower.need(follower.strands(tensor), RETURNED)
    if not returned:
        raise TraceError(f"no tensor is found in what the network returns; {REMEDY}")
    if not follower.uses:
        raise TraceError(f"no convolution or linear layer of the network reads its input; {REMEDY}")
    varies = any(follower.decided(tensor) or bool(torch.isnan(tensor).any()) for tensor in returned)
    return Followed(follower, not varies)
