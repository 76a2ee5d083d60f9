"""A network unrolled for one input, written down as steps while the network runs once.

What joins what: norms and activations pass one to one, pooling and flattening many to one; additions, and all else that is
computed place by place, join; a concatenation puts side by side; a layer connects what its weights reach. Biases, and
other values that do not come from the input, bring no path.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from pai_cli.errors import MethodOptionError, TraceError
from pai_cli.files.messages import one_line
from pai_cli.models.copies import copied, one_torch_thread, remedy_for, seeded
from pai_cli.models.huggingface import refuse_weights_alone
from pai_cli.models.layers import PrunableLayer
from pai_cli.models.operations import KEEP, MOVE, PRODUCTS, REDUCE, RESHAPE, SPATIAL, Operation, Watcher
from pai_cli.models.unrolled.folded import Windows
from pai_cli.models.unrolled.steps import (
    VALUE,
    Concatenation,
    Join,
    Move,
    Pooling,
    Reduction,
    Reshape,
    Step,
    Use,
)
from pai_cli.spelling import option

_COPIES = ("upsample_nearest", "_upsample_nearest", "reflection_pad", "replication_pad")
_SEED = 0  # for a network that draws in its pass


@dataclass(frozen=True)
class Tape:
    """Steps in the order in which they are taken. `shapes`: of the values, 0 the input; `outputs`: the values returned."""

    shapes: tuple[tuple[int, ...], ...]
    steps: tuple[Step, ...]
    outputs: tuple[int, ...]

    @cached_property
    def uses(self) -> tuple[Use, ...]:
        """Those of layers."""
        return tuple(step for step in self.steps if isinstance(step, Use))

    @cached_property
    def layers(self) -> dict[str, PrunableLayer]:
        """The layers by name, in the order of first use."""
        found: dict[str, PrunableLayer] = {}
        for use in self.uses:
            found.setdefault(use.layer.name, use.layer)
        return found

    @cached_property
    def last(self) -> frozenset[str]:
        """The layers whose outputs are returned without another layer between: their units are not hidden."""
        returned, found = set(self.outputs), set()
        for step in reversed(self.steps):
            if not returned.intersection(step.outputs):
                continue
            if isinstance(step, Use):
                found.add(step.layer.name)
            else:
                returned.update(step.inputs)
        return frozenset(found)

    @cached_property
    def over_after(self) -> dict[int, tuple[int, ...]]:
        """By the number of a step: values that no later one takes."""
        latest = {value: number for number, step in enumerate(self.steps) for value in (*step.inputs, *step.outputs)}
        over: dict[int, list[int]] = {}
        for value, number in latest.items():
            if value not in self.outputs:
                over.setdefault(number, []).append(value)
        return {number: tuple(values) for number, values in over.items()}

    @cached_property
    def digest(self) -> str:
        """The same for the same steps only."""
        return hashlib.sha256(repr((self.shapes, self.steps, self.outputs)).encode()).hexdigest()


def unroll(model: nn.Module, input_shape: tuple[int, ...] | None) -> Tape:
    """The network, which is left as it was, unrolled for one input of this shape.

    It runs once, in evaluation mode, on a copy. Raises `MethodOptionError` without an input shape, where the network fails
    on such an input, or where only its weights are known; `TraceError` where elements cannot be told apart any more
    (attention), and when no layer reads the input or nothing that comes from it is returned.
    """
    refuse_weights_alone(model)
    if input_shape is None:
        raise MethodOptionError(
            f"the shape of one input is not known; give it with {option('input_shape')}, such as 3,32,32"
        )
    try:
        twin = copied(model).cpu().float().eval().requires_grad_(False)
    except Exception as error:
        raise TraceError(f"the network cannot be copied ({one_line(error)})") from error
    return record(twin, tuple(input_shape))


def record(model: nn.Module, input_shape: tuple[int, ...], *, weightless: bool = False) -> Tape:
    """As `unroll`, of a network that is in evaluation mode and on the CPU already, without making a copy.

    `weightless`: its weights mean nothing, and its layers' products are not computed.
    """
    recorder = _Weightless(model) if weightless else _Recorder(model)
    try:
        with torch.no_grad(), seeded("cpu", _SEED), one_torch_thread():
            given = torch.ones((1, *input_shape))
            recorder.begin(given)
            with recorder.following():
                returned = model(given)
    except TraceError:
        raise
    except Exception as error:
        text = ",".join(map(str, input_shape))
        remedy = remedy_for(error, f"give the shape it takes with {option('input_shape')}")
        raise MethodOptionError(
            f"the network failed on one input of shape {text} ({one_line(error)}); {remedy}"
        ) from error
    tape = recorder.tape(leaf for leaf in tree_leaves(returned) if isinstance(leaf, torch.Tensor))
    if not tape.uses:
        raise TraceError(f"no convolution or linear layer of the network reads its input; check {option('model')}")
    if not tape.outputs:
        raise TraceError(f"nothing of what the network returns can be followed from its input; check {option('model')}")
    return tape


class _Recorder(Watcher):
    """Writes down the steps of what it sees. Each followed tensor has the number of a value."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._steps: list[Step] = []
        self._shapes: list[torch.Size] = []
        self._numbers = WeakTensorKeyDictionary()

    def begin(self, given: torch.Tensor) -> None:
        """Follow the input."""
        self._numbers[given] = self._new(given)

    def tape(self, returned: Iterable[torch.Tensor]) -> Tape:
        """All that was seen."""
        outputs = dict.fromkeys(self._number(tensor) for tensor in returned if self.follows(tensor))
        return Tape(tuple(map(tuple, self._shapes)), tuple(self._steps), tuple(outputs))

    def follows(self, tensor: torch.Tensor) -> bool:
        """Whether it has a number."""
        return tensor in self._numbers

    def note(self, op: Operation) -> None:
        """Write down what the operation does with elements."""
        name = op.name
        if name == "convolution":
            self._convolution(op)
        elif name in PRODUCTS:
            self._product(op)
        elif name in ("fill", "zero"):
            self._write(op, None)
        elif name == "copy":
            self._write(op, self._joined(op, op.args[1:2]))
        elif name in ("cat", "stack"):
            self._beside(op)
        elif name in RESHAPE and op.first.numel() == op.followed[0].numel():
            self._add(op, Reshape, tuple(op.first.shape))
        elif name in MOVE:
            self._move(op)
        elif op.pointwise or name in KEEP:
            self._write(op, self._joined(op, op.followed[:1] if name in KEEP else op.followed))
        elif name in REDUCE:
            self._reduce(op)
        elif name.startswith(SPATIAL):
            self._spatial(op)
        elif op.gives_values:
            raise self.refusal(op)

    def _number(self, tensor: torch.Tensor) -> int:
        number: int = self._numbers[tensor]
        return number

    def _new(self, tensor: torch.Tensor) -> int:
        self._shapes.append(tensor.shape)
        return len(self._shapes) - 1

    def _add(self, op: Operation, kind: Any, *told: Any) -> None:
        """A step from the one tensor that is followed to what comes of it: its pieces, where it is moved, else one thing."""
        if len(op.followed) > 1:
            raise self.refusal(op)
        first = self._new(op.first)
        numbers = [first, *(self._new(piece) if kind is Move else first for piece in op.results[1:])]
        self._steps.append(kind((self._number(op.followed[0]),), tuple(dict.fromkeys(numbers)), *told))
        for result, number in zip(op.results, numbers, strict=True):
            self._numbers[result] = number

    def _write(self, op: Operation, number: int | None) -> None:
        """The first result has this number now, or none; where it is no new tensor, a view of it would now be wrong."""
        tensor = op.first
        before = self._numbers.get(tensor)  # type: ignore[no-untyped-call]
        if op.in_place and number != before:
            if number is not None and before is None and op.in_part:
                raise self.refusal(op, "writes")
            storage = tensor.untyped_storage().data_ptr()
            for other in self._numbers:
                if other is not tensor and other.untyped_storage().data_ptr() == storage:
                    raise self.refusal(op, "writes")
        if number is not None:
            self._numbers[tensor] = number
        elif before is not None:
            del self._numbers[tensor]

    def _joined(self, op: Operation, tensors: Iterable[torch.Tensor]) -> int | None:
        """The number of what comes together at each place of the operation's first result."""
        numbers = tuple(dict.fromkeys(self._number(tensor) for tensor in tensors if self.follows(tensor)))
        if not numbers:
            return None
        if len(numbers) == 1 and self._shapes[numbers[0]] == op.first.shape:
            return numbers[0]
        joined = self._new(op.first)
        self._steps.append(Join(numbers, (joined,), tuple(op.first.shape)))
        return joined

    def _convolution(self, op: Operation) -> None:
        layer, value = self.convolved(op), op.args[0]
        stride, padding, dilation, transposed, more = op.args[3:8]
        positions = value if transposed else op.first
        how = (tuple(stride), tuple(padding), tuple(dilation), tuple(more))
        self._add(op, Use, layer, positions.shape[0] * positions[0, 0].numel(), how)

    def _product(self, op: Operation) -> None:
        layer, value = self.multiplied(op)
        rows, columns = layer.layout.matrix(layer.shape)
        if (value.shape[-1], op.first.shape[-1]) != (columns, rows):
            raise self.refusal(op)
        self._add(op, Use, layer, value.numel() // columns)

    def _beside(self, op: Operation) -> None:
        tensors = [tensor for tensor in op.args[0] if tensor.numel()]
        dim = int(op.argument("dim", 0)) % op.first.dim()
        parts = [self._number(one) if self.follows(one) else tuple(one.shape) for one in tensors]
        inputs = tuple(dict.fromkeys(part for part in parts if isinstance(part, int)))
        number = self._new(op.first)
        self._steps.append(Concatenation(inputs, (number,), dim, tuple(parts), op.name == "stack"))
        self._numbers[op.first] = number

    def _move(self, op: Operation) -> None:
        args = [VALUE if one is op.followed[0] else _plain(one) for one in op.args]
        if op.name == "constant_pad_nd":
            args = [*args[:2], 0]
        kwargs = tuple((name, _plain(value)) for name, value in op.kwargs.items())
        if VALUE not in args or any(isinstance(leaf, torch.Tensor) for leaf in tree_leaves((args, kwargs))):
            raise self.refusal(op)
        self._add(op, Move, op.name, op.func._overloadname, tuple(args), kwargs)

    def _reduce(self, op: Operation) -> None:
        dims, _ = op.reduced()
        before = op.followed[0]
        self._add(op, Reduction, tuple(dims), tuple(op.first.shape), before.numel() // max(1, op.first.numel()))

    def _spatial(self, op: Operation) -> None:
        if op.name.startswith(_COPIES):
            self._move(op)
            return
        before, after = op.followed[0].shape, op.first.shape
        if "adaptive" in op.name:
            sides = len(op.argument("output_size"))
            windows = [_adaptive(*both) for both in zip(before[-sides:], after[-sides:], strict=True)]
        elif op.name.startswith(("max_pool", "avg_pool")):
            windows = _windows(op, before, after)
        else:
            raise self.refusal(op)
        self._add(op, Pooling, tuple(windows))


class _Weightless(_Recorder):  # type: ignore[no-untyped-call]
    """Sees what a network does whose values mean nothing: what its layers give has the right shape, and is not computed."""

    def carried_out(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the operation gives; memory alone for a product with a layer's weight that could be computed."""
        if func is torch.ops.aten.convolution.default:
            value, weight, _, stride, padding, dilation, transposed, _, groups = args
            windows = zip(value.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
            sizes = [(size + 2 * pad - far * (kernel - 1) - 1) // step + 1 for size, kernel, step, pad, far in windows]
            if not transposed and value.shape[1] == weight.shape[1] * groups and min(sizes) > 0:
                return value.new_empty(value.shape[0], weight.shape[0], *sizes)
        elif func is torch.ops.aten.addmm.default and args[1].shape[1] == args[2].shape[0]:
            return args[1].new_empty(args[1].shape[0], args[2].shape[1])
        return super().carried_out(func, args, kwargs)


def _plain(argument: Any) -> Any:
    return tuple(argument) if isinstance(argument, list) else argument


def _windows(op: Operation, before: torch.Size, after: torch.Size) -> list[Windows]:
    """The windows of an ordinary pooling; what is past the edges is none of them."""
    kernels = op.argument("kernel_size")

    def each(name: str, usual: Any) -> list[int]:
        given = op.argument(name)
        found = usual if given in (None, []) else given
        return list(found) * (len(kernels) // len(found))

    sides = len(kernels)
    given = zip(
        before[-sides:],
        after[-sides:],
        kernels,
        each("stride", kernels),
        each("padding", [0]),
        each("dilation", [1]),
        strict=True,
    )
    return [
        tuple(
            tuple(place for k in range(kernel) if 0 <= (place := number * stride - padding + k * dilation) < size)
            for number in range(count)
        )
        for size, count, kernel, stride, padding, dilation in given
    ]


def _adaptive(size: int, count: int) -> Windows:
    return tuple(tuple(range(i * size // count, -(-(i + 1) * size // count))) for i in range(count))
